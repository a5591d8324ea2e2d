"""What is written for other programs: the bytes, the names, what is refused, and what is said of it."""

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
from softprompt.formats.writers.png_card import draw
from softprompt.formats.writers.programs import PROGRAMS
from softprompt.prompts.results import Neighbour, ReadoutToken
from softprompt.prompts.serialization import from_dict, to_dict
from tests.library_model import a_prompt

CLIP_L, CLIP_H, CLIP_G = "ViT-L-14-quickgelu/openai", "ViT-H-14/laion2b_s32b_b79k", "ViT-bigG-14/laion2b_s39b_b160k"
EMPTY = np.zeros(0, np.float32)
IMAGE_PROGRAMS = [name for name, program in PROGRAMS.items() if program.widths]
EXCHANGES = [name for name, program in PROGRAMS.items() if not program.widths]


def soft(width: int = 768, name: str = "red fox", **changes: Any) -> SoftPrompt:
    vectors = np.random.default_rng(width).normal(0, 0.03, (3, width)).astype(np.float32)
    return a_prompt(**{"name": name, "vectors": vectors, "model": CLIP_L, "hard_prompt": "a red fox in snow"} | changes)


def unknown(width: int) -> SoftPrompt:
    """As an imported soft prompt is."""
    return soft(
        width, hard_prompt="", model="", model_fingerprint="", target=EMPTY, losses=EMPTY, similarities=EMPTY, similarity=None, loss=None,
        composition=None, readout=(), readout_text="", readout_similarity=None, steps=0, seconds=0.0, config={},
    )  # fmt: skip


def left_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# what is in them


def test_the_default_file_has_one_tensor_and_all_provenance_in_its_header(here: Path) -> None:
    prompt = soft(256, model="mini")
    made = export(prompt, "safetensors", None)
    assert made.paths == (here / "red-fox.safetensors",)
    with safe_open(made.paths[0], "numpy") as file:
        assert list(file.keys()) == ["emb_params"]
        assert file.get_tensor("emb_params").tobytes() == prompt.vectors.tobytes()
        metadata = file.metadata()
    assert metadata.keys() == {"format", "softprompt", "softprompt_tensors"}
    assert metadata["format"] == "pt"
    tensors = {
        name: np.frombuffer(base64.b64decode(text), "<f4")
        for name, text in json.loads(metadata["softprompt_tensors"]).items()
    }
    again = from_dict(json.loads(metadata["softprompt"]), prompt.vectors, **tensors)
    assert to_dict(again) == to_dict(prompt)
    for name in ("target", "losses", "similarities"):
        assert getattr(again, name).tobytes() == getattr(prompt, name).tobytes()


@pytest.mark.parametrize("to", ["comfyui", "invokeai", "kohya"])
def test_programs_that_take_the_default_file_get_it(here: Path, to: str) -> None:
    prompt = soft()
    export(prompt, "safetensors", here / "a.safetensors")
    made = export(prompt, to, here / "sp-b.safetensors").paths[0]
    with safe_open(here / "a.safetensors", "numpy") as one, safe_open(made, "numpy") as other:
        assert (one.metadata(), list(one.keys())) == (other.metadata(), list(other.keys()))


@pytest.mark.parametrize("to", PROGRAMS)
def test_what_is_not_known_of_an_imported_one_is_no_hindrance(here: Path, to: str) -> None:
    made = export(unknown(768), to, None)
    assert all(path.stat().st_size for path in made.paths)
    assert not any("hard prompt is in the file" in note for note in made.notes)
    if to in IMAGE_PROGRAMS:
        assert any("comes from a model that is not known" in note for note in made.notes)
        assert any("similarity there not measured, pooled not measured" in note for note in made.notes)


@pytest.mark.parametrize("to", ["kobold", "a1111"])
def test_the_same_soft_prompt_gives_the_same_zip(here: Path, to: str) -> None:
    files = []
    for folder in map(Path, "ab"):
        folder.mkdir()
        files.append(export(soft(), to, folder).paths[0].read_bytes())
    assert files[0] == files[1]


def test_figures_that_are_not_finite_are_refused_and_nothing_is_left(here: Path) -> None:
    broken = soft().vectors.copy()
    broken[1, 1] = np.nan
    with pytest.raises(ExportRefused, match="not finite"):
        export(soft(vectors=broken), "numpy", None)
    with pytest.raises(ExportRefused, match="not finite"):
        export(soft(similarity=float("nan")), "safetensors", None)
    assert left_in(here) == set()


# widths and pairs


@pytest.mark.parametrize("to", IMAGE_PROGRAMS)
def test_a_width_that_the_program_cannot_use_is_refused_with_the_one_it_needs(here: Path, to: str) -> None:
    with pytest.raises(ExportRefused) as error:
        export(soft(256, model="mini"), to, None)
    for words in (
        "width 256",
        f"768 ({CLIP_L}",
        "`softprompt-tui port 'red fox' --model ViT-L-14-quickgelu/openai`",
        ", ".join(EXCHANGES),
    ):
        assert words in str(error.value)
    with pytest.raises(ExportRefused, match="Its hard prompt is not known"):
        export(unknown(256), to, None)
    assert left_in(here) == set()


@pytest.mark.parametrize("to", EXCHANGES)
def test_an_exchange_of_vectors_takes_any_width(here: Path, to: str) -> None:
    made = export(soft(256, model="mini"), to, None)
    assert any("they mean something to mini alone" in note for note in made.notes)


@pytest.mark.parametrize("to", ["a1111", "a1111-png", "invokeai", "kohya"])
def test_half_a_pair_is_refused_where_sdxl_wants_both(here: Path, to: str) -> None:
    with pytest.raises(ExportRefused, match=r"it wants both\. Give the one of width 768 too, with --sdxl"):
        export(soft(1280), to, None)


@pytest.mark.parametrize("to", [name for name, program in PROGRAMS.items() if program.pair])
def test_a_pair_is_put_in_order_by_width(here: Path, to: str) -> None:
    for pair in ((soft(768), soft(1280, name="g")), (soft(1280, name="g"), soft(768))):
        made = export(pair[0], to, here / "sp-pair.safetensors", other=pair[1], force=True)
        with safe_open(made.paths[0], "numpy") as file:
            assert {key: file.get_tensor(key).shape for key in file.keys()} == {"clip_l": (3, 768), "clip_g": (3, 1280)}  # noqa: SIM118
            assert file.metadata()["clip_g"] == f"g on {CLIP_L}: a red fox in snow"
        assert any(note.startswith("SDXL reads") and "clip_g: similarity there" in note for note in made.notes)


@pytest.mark.parametrize(
    ("other", "to", "said"),
    [
        (soft(768, name="second"), "comfyui", "second has 768"),
        (soft(1024), "comfyui", "has 1024"),
        (soft(1280, vectors=np.zeros((2, 1280), np.float32)), "comfyui", "as many soft tokens in both"),
        (
            soft(1280),
            "peft",
            "peft cannot hold a pair for SDXL; safetensors, comfyui, a1111, diffusers, invokeai, kohya can",
        ),
        (soft(1280), "a1111-png", "cannot hold a pair"),
    ],
)
def test_what_is_no_pair_is_refused(here: Path, other: SoftPrompt, to: str, said: str) -> None:
    with pytest.raises(ExportRefused, match=said):
        export(soft(768), to, None, other=other)
    assert left_in(here) == set()


# what is said


def test_the_notes_say_what_each_program_reads_and_how_near_it_is(here: Path) -> None:
    near = {"sd1": 0.91, "flux": 0.97}
    notes = export(soft(hidden=near), "comfyui", None).notes
    assert (
        "Stable Diffusion 1.x reads the hidden states of the last layer: similarity there 0.9100, pooled 0.9971"
        in notes
    )
    assert "Flux reads CLIP-L's pooled embedding, unprojected: similarity there 0.9700, pooled 0.9971" in notes
    assert any(
        note.startswith("SDXL reads") and note.endswith("similarity there not measured, pooled 0.9971")
        for note in notes
    )
    assert not any(note.startswith("warning") for note in notes)
    assert any(
        note.startswith("Stable Diffusion 2.x reads") for note in export(soft(1024, model=CLIP_H), "a1111", None).notes
    )


def test_another_model_of_the_right_width_is_warned_of(here: Path) -> None:
    notes = export(soft(model="ViT-L-14/laion2b_s32b_b82k"), "comfyui", None).notes
    (warning,) = [note for note in notes if note.startswith("warning")]
    assert "red fox was made on ViT-L-14/laion2b_s32b_b82k" in warning
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
def test_the_line_to_type(here: Path, to: str, line: str, word: str) -> None:
    made = export(soft(), to, None)
    written = made.paths[0].parent if to == "peft" else made.paths[0]
    assert (made.line, made.word) == (line.format(written), word)


def test_a_path_in_a_line_stays_a_string(here: Path) -> None:
    folder = here / 'a"\\\x1b[31m'
    folder.mkdir()
    line = export(soft(), "numpy", folder).line
    assert line.isprintable()
    read: list[str] = []
    exec(line, {"numpy": type("numpy", (), {"load": read.append})})
    assert read == [str(folder / "red-fox.npy")]


@pytest.mark.parametrize(
    ("to", "token", "said"),
    [
        ("comfyui", "<fox>", "knows the soft prompt by its file's name; a token of one's own is for diffusers"),
        ("diffusers", "my fox", "is no token"),
        ("diffusers", "fox\x1b", "is no token"),
        ("diffusers", "x" * 101, "is no token"),
        ("diffusers", "fox", "is in CLIP's vocabulary"),
        ("diffusers", "<Fox>", "give '<fox>'"),
        ("word", "", "there are safetensors, comfyui,"),
    ],
)
def test_tokens_that_do_not_work_are_refused(here: Path, to: str, token: str, said: str) -> None:
    with pytest.raises(ExportRefused, match=said):
        export(soft(), to, None, token=token)
    assert left_in(here) == set()


def test_a_token_of_ones_own_is_the_files_key(here: Path) -> None:
    made = export(soft(), "diffusers", None, token="<lake>")
    assert made.paths == (here / "red-fox.learned_embeds.safetensors",)
    with safe_open(made.paths[0], "numpy") as file:
        assert list(file.keys()) == ["<lake>"]
    assert made.word == "<lake>"


# names and places


@given(st.text() | st.text(string.ascii_letters + "./\\:. \0", max_size=12))
def test_any_name_gives_a_name_for_a_file(name: str) -> None:
    stem = safe_stem(name)
    assert stem == safe_stem(stem)
    assert 0 < len(stem.encode()) <= MAX_STEM_LENGTH + len("soft-prompt-")
    assert stem.isprintable()
    assert not set(stem) & set('./\\:*?"<>| ')
    assert not stem.startswith("-")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("red fox", "red-fox"), ("Über_дом-雪 2", "Über_дом-雪-2"), ("../../etc/passwd", "etc-passwd"), ("", "soft-prompt"), ("...", "soft-prompt"),
        ("CON", "soft-prompt-CON"), ("lpt1", "soft-prompt-lpt1"), ("--force", "force"), ("雪" * 80, "雪" * 40), ("a\x1b[31m\nb", "a-31m-b"),
    ],
)  # fmt: skip
def test_names_never_become_paths(here: Path, name: str, stem: str) -> None:
    assert safe_stem(name) == stem
    assert export(soft(name=name), "numpy", None).paths == (here / f"{stem}.npy",)


def test_out_is_a_file_or_a_folder(here: Path) -> None:
    (here / "in").mkdir()
    assert export(soft(), "a1111", here / "in").paths == (here / "in" / "red-fox.pt",)
    assert export(soft(), "a1111", Path("in/lake.pt")).paths == (here / "in" / "lake.pt",)
    assert export(soft(), "peft", here / "in").paths[0].parent == here / "in" / "red-fox-peft"
    assert export(soft(), "peft", here / "adapter").paths[0].parent == here / "adapter"
    for out, said in (
        (here / "none" / "lake.pt", "there is no folder"),
        (here / "lake.bin", "must end in .pt: give red-fox.pt"),
    ):
        with pytest.raises(ExportRefused, match=said):
            export(soft(), "a1111", out)


@pytest.mark.parametrize(
    ("to", "name", "said"),
    [
        ("comfyui", "my fox.safetensors", "call it my-fox"),
        ("a1111", "fox[x].pt", "call it fox-x"),
        ("invokeai", "дом.safetensors", "only names of ASCII letters"),
        ("kohya", "fox.safetensors", "call it sp-fox"),
        ("a1111", "AND.pt", "reads AND in a prompt as syntax: call it sp-and"),
        ("a1111-png", "salt-BREAK-pepper.png", "reads BREAK in a prompt as syntax: call it salt-break-pepper"),
        ("a1111", "fox_.pt", "beside a comma or a quote: call it fox"),
        ("kohya", "BREAKFAST.safetensors", "reads BREAK in a prompt as syntax: call it breakFAST"),
        ("invokeai", "__fox__.safetensors", "as a wildcard: call it _fox_"),
    ],
)
def test_a_files_name_that_cannot_be_typed_is_refused(here: Path, to: str, name: str, said: str) -> None:
    with pytest.raises(ExportRefused, match=said):
        export(soft(), to, here / name)


def test_a_name_that_is_syntax_somewhere_is_written_otherwise_there_and_that_is_said(here: Path) -> None:
    made = export(soft(name="AND"), "a1111", None)
    assert (made.paths, made.word) == ((here / "sp-and.pt",), "sp-and")
    assert made.notes[0] == "the file is called sp-and, since AUTOMATIC1111 reads AND in a prompt as syntax"
    assert export(soft(name="AND"), "comfyui", None).word == "embedding:AND"
    (loaded,) = [
        note
        for note in export(soft(name="AND"), "safetensors", None, force=True).notes
        if note.startswith("the file loads")
    ]
    assert "as it is in ComfyUI (embedding:AND), InvokeAI (<AND>), diffusers" in loaded
    assert loaded.endswith(
        "; in AUTOMATIC1111 and Forge (sp-and) as sp-and.safetensors, kohya (sp-and) as sp-and.safetensors"
    )


@given(
    st.text(string.ascii_letters + "_- ", max_size=12),
    st.sampled_from([name for name in PROGRAMS if PROGRAMS[name].by_stem]),
)
def test_a_stem_that_was_made_typeable_stays_so(name: str, to: str) -> None:
    stem = typeable_stem(to, safe_stem(name), 3)
    assert typeable_stem(to, stem, 3) == stem
    assert objection(to, stem, 3) == ""


@pytest.mark.parametrize("to", PROGRAMS)
def test_nothing_is_replaced_unasked(here: Path, to: str) -> None:
    made = export(soft(), to, None)
    before = {path: path.read_bytes() for path in made.paths}
    with pytest.raises(ExportRefused, match="is there already: --force replaces it"):
        export(soft(vectors=soft().vectors * 2), to, None)
    assert {path: path.read_bytes() for path in made.paths} == before
    assert export(soft(vectors=soft().vectors * 2), to, None, force=True).paths == made.paths
    assert {path: path.read_bytes() for path in made.paths} != before
    assert len(left_in(here)) == (3 if to == "peft" else 1)


def test_a_folder_with_other_files_is_never_replaced(here: Path) -> None:
    (here / "red-fox-peft").mkdir()
    (here / "red-fox-peft" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportRefused, match=r"holds other files \(thesis.txt\)"):
        export(soft(), "peft", here, force=True)
    assert left_in(here) == {"red-fox-peft", "red-fox-peft/thesis.txt"}


def test_a_folder_that_bears_the_name_of_a_file_to_be_written_is_never_removed(here: Path) -> None:
    inner = here / "red-fox-peft" / "adapter_config.json"
    inner.mkdir(parents=True)
    (inner / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportRefused, match=r"holds other files \(adapter_config.json\)"):
        export(soft(), "peft", here, force=True)
    assert (inner / "thesis.txt").read_text() == "years of work"


def test_what_appears_in_a_folder_while_it_is_replaced_is_not_lost(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export(soft(), "peft", None).paths[0].parent
    real = export_files.write_new

    def slow(path: Path, data: bytes, mode: int) -> None:
        real(path, data, mode)
        (folder / "notes.txt").write_text("mine")

    monkeypatch.setattr(export_files, "write_new", slow)
    with pytest.raises(ExportRefused, match=r"red-fox-peft holds other files \(notes.txt\)"):
        export(soft(), "peft", None, force=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(left_in(here)) == 4
    os.mkfifo(here / "fifo.safetensors")
    with pytest.raises(ExportRefused, match="is no regular file"):
        export(soft(), "safetensors", here / "fifo.safetensors", force=True)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_appears_whole_or_not_at_all(here: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    before = [path.read_bytes() for path in export(soft(), "peft", None).paths] if force else []

    def full(path: Path, data: bytes, mode: int) -> None:
        if path.name == "adapter_model.safetensors":
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(export_files, "write_new", full)
    with pytest.raises(ExportRefused, match=r"cannot be written \(No space left on device\)"):
        export(soft(vectors=soft().vectors * 2), "peft", None, force=force)
    assert [path.read_bytes() for path in sorted((here / "red-fox-peft").glob("*"))] == before
    assert len(left_in(here)) == (3 if force else 0)


def test_exports_follow_the_umask(here: Path) -> None:
    old = os.umask(0o027)
    try:
        paths = [export(soft(), "numpy", None).paths[0], *export(soft(), "peft", None).paths]
    finally:
        os.umask(old)
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o640}


def test_a_place_that_cannot_be_written_to_is_said(here: Path) -> None:
    (here / "red-fox.npy").mkdir()
    with pytest.raises(ExportRefused, match="cannot be written"):
        export(soft(), "numpy", here, force=True)


# the card


def test_the_card_shows_text_and_curve(here: Path) -> None:
    card = np.asarray(draw(soft(losses=np.geomspace(1, 1e-3, 300, dtype=np.float32))))
    assert card.shape == (768, 512, 3)
    curve = (np.abs(card.astype(int) - (0x5C, 0xD6, 0xFF)).sum(-1) < 60) & (np.arange(768)[:, None] > 520)
    rows, columns = np.nonzero(curve)
    assert len(set(columns)) > 380  # from the left to the right
    middle = [rows[columns == x].mean() for x in (100, 280, 460)]
    assert middle[0] < middle[1] < middle[2]  # it falls, and on a log axis in a straight line
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
    ids=["nothing", "space", "steering", "no font has it", "emoji", "markup", "half a pair", "endless", "accents"],
)
def test_any_text_can_stand_on_a_card(text: str) -> None:
    read = ReadoutToken(text, 0.4, (Neighbour(text, 0.1),))
    assert draw(soft(name=text, hard_prompt=text, model=text, readout=(read,) * 40, created=text)).size == (512, 768)


@pytest.mark.parametrize("losses", [EMPTY, np.ones(1, np.float32), np.full(9, np.nan, np.float32), np.zeros(9, np.float32), np.array([1e-38, 1e38], np.float32)])  # fmt: skip
def test_any_history_can_stand_on_a_card(losses: np.ndarray) -> None:
    assert draw(soft(losses=losses)).size == (512, 768)


def test_a_character_that_no_font_has_is_shown_as_missing() -> None:
    one, other = (np.asarray(draw(soft(name=name))) for name in ("a\x1bb", "a\x07b"))
    assert (one == other).all()
    assert (one != np.asarray(draw(soft(name="ab")))).any()


def test_the_picture_is_a_png_that_programs_open(here: Path) -> None:
    path = export(soft(), "a1111-png", None).paths[0]
    with Image.open(path) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (512, 768), "RGB")
        assert list(image.text) == ["sd-ti-embedding"]  # type: ignore[attr-defined]
