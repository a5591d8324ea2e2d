"""Exports for other programs: the files, their names, errors and notes."""

from __future__ import annotations

import base64
import json
import os
import stat
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open

from softprompt import SoftPrompt
from softprompt.errors import ExportRefused
from softprompt.formats.writers import files as export_files
from softprompt.formats.writers.exporter import export
from softprompt.formats.writers.files import MAX_STEM_LENGTH, safe_stem
from softprompt.formats.writers.names import objection, typeable_stem
from softprompt.formats.writers.png_card import draw_card
from softprompt.formats.writers.programs import PROGRAMS
from softprompt.prompts.results import Neighbour, ReadoutToken
from tests.library_model import a_prompt

CLIP_L, CLIP_H, CLIP_G = "ViT-L-14-quickgelu/openai", "ViT-H-14/laion2b_s32b_b79k", "ViT-bigG-14/laion2b_s39b_b160k"
EMPTY = np.zeros(0, np.float32)
IMAGE_PROGRAMS = [name for name, program in PROGRAMS.items() if program.widths]
VECTOR_FORMATS = [name for name, program in PROGRAMS.items() if not program.widths]


def make_prompt(width: int = 768, name: str = "red fox", **changes: Any) -> SoftPrompt:
    vectors = np.random.default_rng(width).normal(0, 0.03, (3, width)).astype(np.float32)
    return a_prompt(**{"name": name, "vectors": vectors, "model": CLIP_L, "hard_prompt": "a red fox in snow"} | changes)


def make_unknown_prompt(width: int) -> SoftPrompt:
    """Return a soft prompt as an import creates it, without a model or hard prompt."""
    return make_prompt(
        width, hard_prompt="", model="", model_fingerprint="", target=EMPTY, losses=EMPTY, similarities=EMPTY,
        similarity=None, loss=None, composition=None, readout=(), readout_text="", readout_similarity=None, steps=0,
        seconds=0.0, config={},
    )  # fmt: skip


def paths_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# content


def test_the_default_file_has_one_tensor_and_the_whole_provenance_in_its_header(cwd: Path) -> None:
    prompt = make_prompt(256, model="mini")
    result = export(prompt, "safetensors", None)
    assert result.paths == (cwd / "red-fox.safetensors",)
    with safe_open(result.paths[0], "numpy") as file:
        assert list(file.keys()) == ["emb_params"]
        assert file.get_tensor("emb_params").tobytes() == prompt.vectors.tobytes()
        metadata = file.metadata()
    assert metadata.keys() == {"format", "softprompt", "softprompt_tensors", "softprompt_sha256"}
    assert metadata["format"] == "pt"
    tensors = {
        name: np.frombuffer(base64.b64decode(text), "<f4")
        for name, text in json.loads(metadata["softprompt_tensors"]).items()
    }
    restored = SoftPrompt.from_dict(json.loads(metadata["softprompt"]), prompt.vectors, **tensors)
    assert restored.as_dict() == prompt.as_dict()
    for name in ("target", "losses", "similarities"):
        assert getattr(restored, name).tobytes() == getattr(prompt, name).tobytes()


@pytest.mark.parametrize("to", ["comfyui", "invokeai", "kohya"])
def test_comfyui_invokeai_and_kohya_get_the_default_file(cwd: Path, to: str) -> None:
    prompt = make_prompt()
    export(prompt, "safetensors", cwd / "a.safetensors")
    path = export(prompt, to, cwd / "sp-b.safetensors").paths[0]
    with safe_open(cwd / "a.safetensors", "numpy") as default, safe_open(path, "numpy") as file:
        assert (default.metadata(), list(default.keys())) == (file.metadata(), list(file.keys()))


@pytest.mark.parametrize("to", PROGRAMS)
def test_a_soft_prompt_with_unknown_model_and_hard_prompt_can_be_exported(cwd: Path, to: str) -> None:
    result = export(make_unknown_prompt(768), to, None)
    assert all(path.stat().st_size for path in result.paths)
    assert not any("contains the hard prompt" in note for note in result.notes)
    if to in IMAGE_PROGRAMS:
        assert any("belongs to an unknown model" in note for note in result.notes)
        assert any("similarity not measured, pooled not measured" in note for note in result.notes)


@pytest.mark.parametrize("to", ["kobold", "a1111"])
def test_exporting_twice_gives_identical_zips(cwd: Path, to: str) -> None:
    files = []
    for folder in map(Path, "ab"):
        folder.mkdir()
        files.append(export(make_prompt(), to, folder).paths[0].read_bytes())
    assert files[0] == files[1]


def test_values_that_are_not_finite_are_rejected_without_leaving_files(cwd: Path) -> None:
    with pytest.raises(ExportRefused, match="not finite"):
        export(make_prompt(similarity=float("nan")), "safetensors", None)
    assert paths_in(cwd) == set()


# widths and pairs


@pytest.mark.parametrize("to", IMAGE_PROGRAMS)
def test_a_wrong_width_is_rejected_with_the_usable_widths_and_advice(cwd: Path, to: str) -> None:
    with pytest.raises(ExportRefused) as error:
        export(make_prompt(256, model="mini"), to, None)
    for part in (
        "width is 256",
        f"768 ({CLIP_L}",
        "`softprompt.port(softprompt.load_encoder('ViT-L-14-quickgelu/openai'), prompt)`",
        ", ".join(VECTOR_FORMATS),
    ):
        assert part in str(error.value)
    with pytest.raises(ExportRefused, match="set its hard prompt with"):
        export(make_unknown_prompt(256), to, None)
    assert paths_in(cwd) == set()


@pytest.mark.parametrize("to", VECTOR_FORMATS)
def test_formats_that_only_store_vectors_accept_any_width(cwd: Path, to: str) -> None:
    result = export(make_prompt(256, model="mini"), to, None)
    assert any("vectors that only work with mini" in note for note in result.notes)


@pytest.mark.parametrize("to", ["a1111", "a1111-png", "invokeai", "kohya"])
def test_half_a_pair_is_rejected_by_programs_that_need_both_halves(cwd: Path, to: str) -> None:
    with pytest.raises(
        ExportRefused, match=r"fits only one of SDXL's two encoders\. Add the other half, of width 768, with `other`"
    ):
        export(make_prompt(1280), to, None)


@pytest.mark.parametrize("to", [name for name, program in PROGRAMS.items() if program.supports_pair])
def test_a_pair_is_ordered_by_width(cwd: Path, to: str) -> None:
    for pair in ((make_prompt(768), make_prompt(1280, name="g")), (make_prompt(1280, name="g"), make_prompt(768))):
        result = export(pair[0], to, cwd / "sp-pair.safetensors", other=pair[1], force=True)
        with safe_open(result.paths[0], "numpy") as file:
            assert {key: file.get_tensor(key).shape for key in file.keys()} == {"clip_l": (3, 768), "clip_g": (3, 1280)}  # noqa: SIM118
            assert file.metadata()["clip_g"] == f"g on {CLIP_L}: a red fox in snow"
        assert any(note.startswith("SDXL reads") and "clip_g: similarity" in note for note in result.notes)


@pytest.mark.parametrize(
    ("other", "to", "message"),
    [
        (make_prompt(768, name="second"), "comfyui", "second has width 768"),
        (make_prompt(1024), "comfyui", "has width 1024"),
        (
            make_prompt(1280, vectors=np.zeros((2, 1280), np.float32)),
            "comfyui",
            "Both halves of a pair need the same number",
        ),
        (
            make_prompt(1280),
            "peft",
            "peft cannot store an SDXL pair. Use one of safetensors, comfyui, a1111, diffusers, invokeai, kohya",
        ),
        (make_prompt(1280), "a1111-png", "cannot store an SDXL pair"),
    ],
)
def test_an_invalid_pair_is_rejected(cwd: Path, other: SoftPrompt, to: str, message: str) -> None:
    with pytest.raises(ExportRefused, match=message):
        export(make_prompt(768), to, None, other=other)
    assert paths_in(cwd) == set()


# notes and lines to type


def test_the_notes_name_what_each_program_reads_with_its_similarity(cwd: Path) -> None:
    hidden = {"sd1": 0.91, "flux": 0.97}
    notes = export(make_prompt(hidden=hidden), "comfyui", None).notes
    assert "Stable Diffusion 1.x reads the hidden states of the last layer: similarity 0.9100, pooled 0.9971" in notes
    assert "Flux reads CLIP-L's pooled embedding, unprojected: similarity 0.9700, pooled 0.9971" in notes
    assert any(
        note.startswith("SDXL reads") and note.endswith("similarity not measured, pooled 0.9971") for note in notes
    )
    assert not any(note.startswith("warning") for note in notes)
    assert any(
        note.startswith("Stable Diffusion 2.x reads")
        for note in export(make_prompt(1024, model=CLIP_H), "a1111", None).notes
    )


def test_a_model_with_the_right_width_but_other_weights_causes_a_warning(cwd: Path) -> None:
    notes = export(make_prompt(model="ViT-L-14/laion2b_s32b_b82k"), "comfyui", None).notes
    (warning,) = [note for note in notes if note.startswith("warning")]
    assert "red fox was trained on ViT-L-14/laion2b_s32b_b82k" in warning
    assert CLIP_L in warning


@pytest.mark.parametrize(
    ("to", "line", "word"),
    [
        ("comfyui", "embedding:red-fox", "embedding:red-fox"),
        ("a1111", "red-fox", "red-fox"),
        ("a1111-png", "red-fox", "red-fox"),
        ("invokeai", "<red-fox>", "<red-fox>"),
        ("kohya", "--textual_inversion_embeddings {0}", "red-fox"),
        ("diffusers", 'pipe.load_textual_inversion("{0}", token="<red-fox>")', "<red-fox>"),
        ("kobold", "red-fox.zip", ""),
        ("peft", 'PeftModel.from_pretrained(model, "{0}")', ""),
        ("numpy", 'numpy.load("{0}")', ""),
        ("safetensors", 'safetensors.numpy.load_file("{0}")["emb_params"]', ""),
    ],
)
def test_each_program_has_a_line_to_type(cwd: Path, to: str, line: str, word: str) -> None:
    result = export(make_prompt(), to, None)
    written = result.paths[0].parent if to == "peft" else result.paths[0]
    assert (result.line, result.word) == (line.format(written), word)


def test_a_path_in_a_python_line_is_escaped(cwd: Path) -> None:
    folder = cwd / 'a"\\\x1b[31m'
    folder.mkdir()
    line = export(make_prompt(), "numpy", folder).line
    assert line.isprintable()
    loaded: list[str] = []
    exec(line, {"numpy": type("numpy", (), {"load": loaded.append})})
    assert loaded == [str(folder / "red-fox.npy")]


@pytest.mark.parametrize(
    ("to", "token", "message"),
    [
        ("comfyui", "<fox>", "`token` only works with diffusers: ComfyUI uses the file name"),
        ("diffusers", "my fox", "is invalid"),
        ("diffusers", "fox\x1b", "is invalid"),
        ("diffusers", "x" * 101, "is invalid"),
        ("diffusers", "fox", "is in CLIP's vocabulary"),
        ("diffusers", "<Fox>", "Use '<fox>'"),
        ("word", "", "Use one of safetensors, comfyui,"),
    ],
)
def test_an_unusable_token_is_rejected(cwd: Path, to: str, token: str, message: str) -> None:
    with pytest.raises(ExportRefused, match=message):
        export(make_prompt(), to, None, token=token)
    assert paths_in(cwd) == set()


def test_a_custom_token_becomes_the_key_in_the_file(cwd: Path) -> None:
    result = export(make_prompt(), "diffusers", None, token="<lake>")
    assert result.paths == (cwd / "red-fox.learned_embeds.safetensors",)
    with safe_open(result.paths[0], "numpy") as file:
        assert list(file.keys()) == ["<lake>"]
    assert result.word == "<lake>"


# names and paths


@given(st.text() | st.text(string.ascii_letters + "./\\:. \0", max_size=12))
def test_any_name_gives_a_safe_file_name(name: str) -> None:
    stem = safe_stem(name)
    assert stem == safe_stem(stem)
    assert 0 < len(stem.encode()) <= MAX_STEM_LENGTH + len("soft-prompt-")
    assert stem.isprintable()
    assert not set(stem) & set('./\\:*?"<>| ')
    assert not stem.startswith("-")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("red fox", "red-fox"), ("Über_дом-雪 2", "Über_дом-雪-2"), ("../../etc/passwd", "etc-passwd"),
        ("", "soft-prompt"), ("...", "soft-prompt"), ("CON", "soft-prompt-CON"), ("lpt1", "soft-prompt-lpt1"),
        ("--force", "force"), ("雪" * 80, "雪" * 40), ("a\x1b[31m\nb", "a-31m-b"),
    ],
)  # fmt: skip
def test_a_name_never_becomes_a_path(cwd: Path, name: str, stem: str) -> None:
    assert safe_stem(name) == stem
    assert export(make_prompt(name=name), "numpy", None).paths == (cwd / f"{stem}.npy",)


def test_the_path_can_be_a_file_or_a_folder(cwd: Path) -> None:
    (cwd / "in").mkdir()
    assert export(make_prompt(), "a1111", cwd / "in").paths == (cwd / "in" / "red-fox.pt",)
    assert export(make_prompt(), "a1111", Path("in/lake.pt")).paths == (cwd / "in" / "lake.pt",)
    assert export(make_prompt(), "peft", cwd / "in").paths[0].parent == cwd / "in" / "red-fox-peft"
    assert export(make_prompt(), "peft", cwd / "adapter").paths[0].parent == cwd / "adapter"
    for out, message in (
        (cwd / "none" / "lake.pt", "does not exist. Create it"),
        (cwd / "lake.bin", "must end in .pt. Use red-fox.pt"),
    ):
        with pytest.raises(ExportRefused, match=message):
            export(make_prompt(), "a1111", out)


@pytest.mark.parametrize(
    ("to", "name", "message"),
    [
        ("comfyui", "my fox.safetensors", "Use my-fox"),
        ("a1111", "fox[x].pt", "Use fox-x"),
        ("invokeai", "дом.safetensors", "only supports file names with ASCII letters"),
        ("kohya", "fox.safetensors", "Use sp-fox"),
        ("a1111", "AND.pt", "treats AND in prompts as syntax. Use sp-and"),
        ("a1111-png", "salt-BREAK-pepper.png", "treats BREAK in prompts as syntax. Use salt-break-pepper"),
        ("a1111", "fox_.pt", "next to a comma or quote. Use fox"),
        ("kohya", "BREAKFAST.safetensors", "treats BREAK in prompts as syntax. Use breakFAST"),
        ("invokeai", "__fox__.safetensors", "as a wildcard. Use _fox_"),
    ],
)
def test_a_file_name_that_does_not_work_in_prompts_is_rejected(cwd: Path, to: str, name: str, message: str) -> None:
    with pytest.raises(ExportRefused, match=message):
        export(make_prompt(), to, cwd / name)


def test_a_name_that_is_syntax_in_a_program_is_changed_for_it_with_a_note(cwd: Path) -> None:
    result = export(make_prompt(name="AND"), "a1111", None)
    assert (result.paths, result.word) == ((cwd / "sp-and.pt",), "sp-and")
    assert result.notes[0] == "the file is named sp-and, because AUTOMATIC1111 treats AND in prompts as syntax"
    assert export(make_prompt(name="AND"), "comfyui", None).word == "embedding:AND"
    (loaded,) = [
        note
        for note in export(make_prompt(name="AND"), "safetensors", None, force=True).notes
        if note.startswith("the file loads")
    ]
    assert "as is in ComfyUI (embedding:AND), InvokeAI (<AND>), diffusers" in loaded
    assert loaded.endswith(
        ". Rename it to load it in AUTOMATIC1111 and Forge (sp-and) as sp-and.safetensors, "
        "kohya (sp-and) as sp-and.safetensors."
    )


@given(
    st.text(string.ascii_letters + "_- ", max_size=12),
    st.sampled_from([name for name in PROGRAMS if PROGRAMS[name].word_is_stem]),
)
def test_a_typeable_stem_does_not_change_again(name: str, to: str) -> None:
    stem = typeable_stem(to, safe_stem(name), 3)
    assert typeable_stem(to, stem, 3) == stem
    assert objection(to, stem, 3) == ""


@pytest.mark.parametrize("to", PROGRAMS)
def test_existing_files_are_replaced_only_with_force(cwd: Path, to: str) -> None:
    result = export(make_prompt(), to, None)
    before = {path: path.read_bytes() for path in result.paths}
    with pytest.raises(ExportRefused, match=r"already exists\. Use force=True to replace it"):
        export(make_prompt(vectors=make_prompt().vectors * 2), to, None)
    assert {path: path.read_bytes() for path in result.paths} == before
    assert export(make_prompt(vectors=make_prompt().vectors * 2), to, None, force=True).paths == result.paths
    assert {path: path.read_bytes() for path in result.paths} != before
    assert len(paths_in(cwd)) == (3 if to == "peft" else 1)


def test_a_folder_with_other_files_is_never_replaced(cwd: Path) -> None:
    (cwd / "red-fox-peft").mkdir()
    (cwd / "red-fox-peft" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportRefused, match=r"contains other files \(thesis.txt\)"):
        export(make_prompt(), "peft", cwd, force=True)
    assert paths_in(cwd) == {"red-fox-peft", "red-fox-peft/thesis.txt"}


def test_a_folder_in_the_place_of_a_file_of_the_export_is_never_removed(cwd: Path) -> None:
    inner = cwd / "red-fox-peft" / "adapter_config.json"
    inner.mkdir(parents=True)
    (inner / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportRefused, match=r"contains other files \(adapter_config.json\)"):
        export(make_prompt(), "peft", cwd, force=True)
    assert (inner / "thesis.txt").read_text() == "years of work"


def test_a_file_added_while_a_folder_is_replaced_is_not_lost(cwd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export(make_prompt(), "peft", None).paths[0].parent
    real = export_files.write_new

    def write_and_add_file(path: Path, data: bytes, mode: int) -> None:
        real(path, data, mode)
        (folder / "notes.txt").write_text("mine")

    monkeypatch.setattr(export_files, "write_new", write_and_add_file)
    with pytest.raises(ExportRefused, match=r"red-fox-peft contains other files \(notes.txt\)"):
        export(make_prompt(), "peft", None, force=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(paths_in(cwd)) == 4
    os.mkfifo(cwd / "fifo.safetensors")
    with pytest.raises(ExportRefused, match="is not a regular file"):
        export(make_prompt(), "safetensors", cwd / "fifo.safetensors", force=True)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_appears_complete_or_not_at_all(cwd: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    before = [path.read_bytes() for path in export(make_prompt(), "peft", None).paths] if force else []

    def fail_with_full_disk(path: Path, data: bytes, mode: int) -> None:
        if path.name == "adapter_model.safetensors":
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(export_files, "write_new", fail_with_full_disk)
    with pytest.raises(ExportRefused, match=r"cannot write .*: No space left on device\. Nothing was written"):
        export(make_prompt(vectors=make_prompt().vectors * 2), "peft", None, force=force)
    assert [path.read_bytes() for path in sorted((cwd / "red-fox-peft").glob("*"))] == before
    assert len(paths_in(cwd)) == (3 if force else 0)


def test_exports_follow_the_umask(cwd: Path) -> None:
    old = os.umask(0o027)
    try:
        paths = [export(make_prompt(), "numpy", None).paths[0], *export(make_prompt(), "peft", None).paths]
    finally:
        os.umask(old)
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o640}


def test_a_path_that_cannot_be_written_is_an_error(cwd: Path) -> None:
    (cwd / "red-fox.npy").mkdir()
    with pytest.raises(ExportRefused, match="cannot write"):
        export(make_prompt(), "numpy", cwd, force=True)


# the card


def test_the_card_shows_the_readout_and_the_loss_curve(cwd: Path) -> None:
    card = np.asarray(draw_card(make_prompt(losses=np.geomspace(1, 1e-3, 300, dtype=np.float32))))
    assert card.shape == (768, 512, 3)
    curve = (np.abs(card.astype(int) - (0x5C, 0xD6, 0xFF)).sum(-1) < 60) & (np.arange(768)[:, None] > 520)
    rows, columns = np.nonzero(curve)
    assert len(set(columns)) > 380  # from left to right
    middle = [rows[columns == x].mean() for x in (100, 280, 460)]
    assert middle[0] < middle[1] < middle[2]  # the curve falls in a straight line on the log axis
    assert middle[1] == pytest.approx((middle[0] + middle[2]) / 2, abs=6)
    assert (card[160:430].max(-1) > 120).sum() > 500  # the readout


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\x1b[31m\x00\n\r\u202e",
        "雪" * 50,
        "😀" * 300,
        "[/bold]" * 200,
        "\ud800",
        "w" * 100_000,
        "a\u0301" * 90,
    ],
    ids=[
        "nothing",
        "space",
        "control characters",
        "in no font",
        "emoji",
        "markup",
        "lone surrogate",
        "very long",
        "accents",
    ],
)
def test_a_card_can_show_any_text(text: str) -> None:
    token = ReadoutToken(text, 0.4, (Neighbour(text, 0.1),))
    assert draw_card(
        make_prompt(name=text, hard_prompt=text, model=text, readout=(token,) * 40, created=text)
    ).size == (512, 768)


@pytest.mark.parametrize(
    "losses",
    [
        EMPTY,
        np.ones(1, np.float32),
        np.full(9, np.nan, np.float32),
        np.zeros(9, np.float32),
        np.array([1e-38, 1e38], np.float32),
    ],
)
def test_a_card_can_show_any_losses(losses: np.ndarray) -> None:
    assert draw_card(make_prompt(losses=losses)).size == (512, 768)


def test_characters_that_no_font_has_look_the_same() -> None:
    first, second = (np.asarray(draw_card(make_prompt(name=name))) for name in ("a\x1bb", "a\x07b"))
    assert (first == second).all()
    assert (first != np.asarray(draw_card(make_prompt(name="ab")))).any()


def test_the_picture_is_a_valid_png_with_one_text_chunk(cwd: Path) -> None:
    path = export(make_prompt(), "a1111-png", None).paths[0]
    with Image.open(path) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (512, 768), "RGB")
        assert list(image.text) == ["sd-ti-embedding"]  # type: ignore[attr-defined]
