"""Imports into the library: recorded metadata, unknown values, names, and all-or-nothing saving."""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from softprompt import Library, SoftPrompt
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import BadName, ConfigError, EntryDamaged, FileRefused, HomeError, PromptError
from softprompt.formats import importer
from softprompt.formats.importer import apply_assignment, import_files
from softprompt.formats.readers import sandbox, sandbox_child
from softprompt.formats.writers.encode import safetensors_pair
from softprompt.formats.writers.exporter import export
from softprompt.library.entry import Entry, pack
from softprompt.library.names import check_name, clean_name
from softprompt.library.revisions import Revisions
from tests import hostile_files
from tests.library_model import a_prompt
from tests.softprompt.library.test_crashes import Crash, failing_calls

V = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)


@pytest.fixture(autouse=True)
def parse_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the child process, which test_sandbox tests."""
    monkeypatch.setattr(sandbox, "_run_child", lambda *request: b"".join(sandbox_child.reply(*request)))


def write_embedding(folder: Path, file_name: str = "fox.pt", add: float = 0.0, **metadata: str) -> Path:
    """Write an embedding as kohya saves it, with this metadata."""
    path = folder / file_name
    path.write_bytes(save({"emb_params": V + np.float32(add)}, metadata or None))
    return path


def names(library: Library) -> list[str]:
    return sorted(entry.name for entry in library.list().entries)


def test_metadata_of_a_file_is_recorded_and_everything_else_stays_unknown(tmp_path: Path) -> None:
    library = Library()
    path = write_embedding(tmp_path, description="a red one", step="300", file="mine", sha256="mine")
    report = import_files(library, [path], tags=["red"])
    (result,) = report.imported
    prompt = library.open("fox").prompt
    assert (result.state, result.entry.id, result.entry.tags) == ("added", library.find("fox").id, ("red",))
    assert np.array_equal(prompt.vectors, V)
    assert (prompt.hard_prompt, prompt.model, prompt.model_fingerprint, prompt.similarity) == ("", "", "", None)
    assert (prompt.target.size, len(prompt.losses), prompt.readout, prompt.steps) == (0, 0, (), 0)
    metadata = {key: value for key, value in prompt.source.items() if key != "sha256"}
    expected = {
        "file": "fox.pt",
        "format": "emb_params (AUTOMATIC1111, ComfyUI, kohya), safetensors",
        "description": "a red one",
        "step": "300",
    }
    assert metadata == expected
    assert len(prompt.source["sha256"]) == 64


def test_the_two_halves_of_an_sdxl_file_are_linked(tmp_path: Path) -> None:
    path = tmp_path / "xl.safetensors"
    path.write_bytes(save({"clip_l": V, "clip_g": V[:, :4].copy()}))
    library = Library()
    first, second = (result.entry for result in import_files(library, [path], name="fox").imported)
    assert names(library) == ["fox clip_g", "fox clip_l"]
    assert (first.prompt.source["with"], second.prompt.source["with"]) == (second.id, first.id)
    assert {first.prompt.source["part"], second.prompt.source["part"]} == {"clip_l", "clip_g"}


@pytest.mark.parametrize(
    ("tensors", "metadata", "name", "expected"),
    [
        ({"clip_l": V, "t5": V}, {}, "", ["my dog"]),
        ({"clip_l": V, "t5": V}, {"name": "dog"}, "", ["dog"]),
        ({"text_encoders_0": V}, {}, "", ["my dog"]),
        ({"text_encoders_0": V, "text_encoders_1": V}, {}, "", ["my dog clip_g", "my dog clip_l"]),
        ({"t5": V}, {}, "", ["my dog"]),
        ({"<fox>": V}, {}, "", ["fox"]),
        ({"<fox>": V, "<lake>": V[0]}, {"name": "dog"}, "", ["fox", "lake"]),
        ({"<fox>": V, "<lake>": V[0]}, {}, "pets", ["pets-fox", "pets-lake"]),
        ({"bundle_emb.fox.clip_l": V, "bundle_emb.fox.clip_g": V}, {}, "", ["fox clip_g", "fox clip_l"]),
    ],
)  # fmt: skip
def test_parts_are_named_after_the_file_and_tokens_after_themselves(
    tmp_path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str], name: str, expected: list[str]
) -> None:
    path = tmp_path / "my dog.safetensors"
    path.write_bytes(save(tensors, metadata or None))
    library = Library()
    imported = import_files(library, [path], name=name).imported
    assert names(library) == expected
    if "t5" in tensors and len(tensors) > 1:
        (result,) = imported
        assert result.format == "Flux embedding (clip_l, t5), safetensors"
        assert result.notes == ("not imported: t5, which is for a T5 encoder",)


def test_each_half_of_an_exported_pair_keeps_its_provenance_and_gets_the_id_of_the_other_half(tmp_path: Path) -> None:
    vectors = {"clip_l": np.ones((2, 768), np.float32), "clip_g": np.ones((2, 1280), np.float32)}
    halves = {
        key: a_prompt(
            name=f"lake {key}", hard_prompt=f"a lake for {key}", model=f"m {key}", vectors=array, hidden={"sdxl": 0.5}
        )
        for key, array in vectors.items()
    }
    (path,) = export(halves["clip_g"], "comfyui", tmp_path, other=halves["clip_l"]).paths
    library = Library()
    report = import_files(library, [path])
    saved = {key: library.open(f"lake {key}") for key in halves}
    assert [result.format for result in report.imported] == ["export of softprompt-tui"] * 2
    for key, other in (("clip_l", "clip_g"), ("clip_g", "clip_l")):
        pair_source = {"part": key, "with": saved[other].id}
        assert saved[key].prompt.as_dict() == halves[key].as_dict() | {"source": pair_source}
        for name in ("vectors", "target", "losses", "similarities"):
            assert getattr(saved[key].prompt, name).tobytes() == getattr(halves[key], name).tobytes()
    assert [result.state for result in import_files(library, [path]).imported] == ["present"] * 2
    import_files(Library(tmp_path / "renamed"), [path], name="sea")
    assert names(Library(tmp_path / "renamed")) == ["sea clip_g", "sea clip_l"]
    exported = export(
        saved["clip_l"].prompt, "safetensors", tmp_path / "again.safetensors", other=saved["clip_g"].prompt
    )
    other_home = Library(tmp_path / "other")
    import_files(other_home, exported.paths)
    assert other_home.open("lake clip_l").prompt.source["with"] == other_home.find("lake clip_g").id


def test_half_of_an_exported_pair_can_be_assigned_to_its_model(tmp_path: Path, encoder: TextEncoder) -> None:
    half = a_prompt(
        name="l", vectors=np.ones((2, 256), np.float32), model="", model_fingerprint="", steps=0, source={"file": "x"}
    )
    path = tmp_path / "pair.safetensors"
    path.write_bytes(safetensors_pair(half, a_prompt(name="g", vectors=np.ones((2, 8), np.float32))))
    first, second = import_files(Library(), [path], encoder).imported
    assert (first.entry.prompt.model, second.entry.prompt.model) == (encoder.name, "mini")
    assert second.notes == (f"clip_g has width 8, but {encoder.name} has width 256, so it was not assigned",)
    path.write_bytes(safetensors_pair(*[a_prompt(name=name) for name in "lg"]))
    assert "has width 256" in str(import_files(Library(), [path], encoder).refused[0])


def test_importing_with_a_model_assigns_the_model_and_adds_a_readout(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"emb_params": encoder.tower.table[[320, 2368]].float().cpu().numpy()}))
    (result,) = import_files(Library(), [path], encoder).imported
    saved = result.entry.prompt
    assert (saved.model, saved.model_fingerprint) == ("mini", encoder.fingerprint)
    assert [nearest.token for nearest in saved.readout] == [encoder.tokenizer.piece(320), encoder.tokenizer.piece(2368)]
    assert saved.readout[0].cosine > 0.999
    encoder.check_compatible(saved)


def test_a_wrong_width_is_rejected_with_both_widths_and_nothing_is_saved(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "wide.safetensors"
    path.write_bytes(save({"emb_params": np.zeros((2, 768), np.float32)}))
    library = Library()
    report = import_files(library, [path], encoder)
    assert report.imported == []
    assert "has width 768, but mini has width 256" in str(report.refused[0])
    assert "ViT-L-14-quickgelu/openai" in str(report.refused[0])
    assert names(library) == []


def test_a_rejected_file_prevents_all_saving_unless_keep_going(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"not a soft prompt")
    paths = [write_embedding(tmp_path, "a.pt"), bad, write_embedding(tmp_path, "b.pt", 1)]
    library = Library()
    report = import_files(library, paths)
    assert ([type(error) for error in report.refused], report.imported, names(library)) == ([FileRefused], [], [])
    report = import_files(library, paths, keep_going=True)
    assert (len(report.refused), names(library)) == (1, ["a", "b"])


def test_the_same_file_under_another_name_is_added_only_once(tmp_path: Path) -> None:
    library = Library()
    a, b = write_embedding(tmp_path, "a.pt"), write_embedding(tmp_path, "b.safetensors")
    assert [result.state for result in import_files(library, [a, b]).imported] == ["added", "present"]
    assert [result.state for result in import_files(library, [b]).imported] == ["present"]
    library.rename("a", "c")
    assert [result.entry.prompt.name for result in import_files(library, [b]).imported] == ["c"]
    assert names(library) == ["c"]


def test_a_trashed_entry_stays_in_the_trash_and_a_purged_one_is_added_again(tmp_path: Path) -> None:
    library, path = Library(), write_embedding(tmp_path)
    import_files(library, [path])
    library.delete("fox")
    (result,) = import_files(library, [path]).imported
    assert (result.state, names(library)) == ("trashed", [])
    library.purge("fox")
    (result,) = import_files(library, [path]).imported
    assert (result.state, result.entry.revision, names(library)) == ("added", 3, ["fox"])
    assert library.check().damaged == []


def test_taken_names_get_a_number_and_a_note(tmp_path: Path) -> None:
    library = Library()
    paths = [write_embedding(tmp_path, f"{i}.pt", i, name="fox") for i in range(3)]
    report = import_files(library, paths)
    assert [result.entry.prompt.name for result in report.imported] == ["fox", "fox-2", "fox-3"]
    assert [len(result.notes) for result in report.imported] == [0, 1, 1]
    assert "fox was taken" in report.imported[1].notes[0]


@pytest.mark.parametrize("kind", ["entry", "export"])
def test_files_of_this_program_are_imported_bit_for_bit(kind: str, tmp_path: Path) -> None:
    prompt = a_prompt(name="Fox", hidden={"sd1": 0.5}, source={"file": "a.pt"})
    extra = {
        key: base64.b64encode(getattr(prompt, key).tobytes()).decode() for key in ("target", "losses", "similarities")
    }
    metadata = {"softprompt": json.dumps(prompt.as_dict()), "softprompt_tensors": json.dumps(extra)}
    path = tmp_path / "x.bin"
    entry = Entry("0123456789abcdef", 4, prompt, ("red",), "a note")
    path.write_bytes(pack(entry) if kind == "entry" else save({"emb_params": prompt.vectors}, metadata))
    library = Library()
    import_files(library, [path], tags=["more"])
    saved = library.open("Fox")
    assert saved.prompt.as_dict() == prompt.as_dict()
    for key in ("vectors", "target", "losses", "similarities"):
        assert getattr(saved.prompt, key).tobytes() == getattr(prompt, key).tobytes()
    assert (saved.tags, saved.note) == ((("more", "red"), "a note") if kind == "entry" else (("more",), ""))


def test_an_existing_entry_is_not_added_again_and_a_forged_id_replaces_nothing(tmp_path: Path) -> None:
    library = Library()
    original = library.save(a_prompt(name="Fox"))
    same, forged = tmp_path / "same", tmp_path / "forged"
    same.write_bytes(library.path(original.id, 1).read_bytes())
    forged.write_bytes(pack(Entry(original.id, 9, a_prompt(name="Fox", vectors=np.ones((2, 4), np.float32)))))
    assert [result.state for result in import_files(library, [same]).imported] == ["present"]
    (result,) = import_files(library, [forged]).imported
    assert result.state == "added"
    assert result.entry.id != original.id
    assert names(library) == ["Fox", "Fox-2"]


def test_a_known_model_is_not_replaced(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "x"
    path.write_bytes(pack(Entry("0123456789abcdef", 1, a_prompt(name="Fox"))))
    report = import_files(Library(), [path], encoder)
    assert "Fox" in str(report.refused[0])
    with pytest.raises(ConfigError, match="belongs to mini"):
        apply_assignment(a_prompt(name="Fox"), encoder)


def test_assigning_a_model_adds_a_revision_with_a_readout(tmp_path: Path, encoder: TextEncoder) -> None:
    library = Library()
    path = tmp_path / "fox.npy"
    np.save(path, np.random.default_rng(0).standard_normal((2, 256), dtype=np.float32))
    import_files(library, [path])
    entry = library.assign("fox", lambda prompt: apply_assignment(prompt, encoder))
    saved = library.open("fox")
    assert (saved.revision, saved.prompt.model, saved.prompt.model_fingerprint) == (2, "mini", encoder.fingerprint)
    assert len(saved.prompt.readout) == 2
    assert library.list(model="mini").entries[0].id == entry.id
    with pytest.raises(ConfigError, match="only sets an unknown model"):
        library.assign("fox", lambda prompt: apply_assignment(prompt, encoder))
    assert library.open("fox").revision == 2


def test_repeating_an_import_completes_it_after_a_crash_at_any_moment(tmp_path: Path) -> None:
    paths = [write_embedding(tmp_path, f"{i}.pt", i, name="fox") for i in range(3)]
    counts = set()
    for number in range(0, 200, 3):
        library = Library(tmp_path / f"home-{number}")
        with failing_calls(number, Crash(), f"home-{number}/library", for_good=True) as calls, suppress(Crash):
            import_files(library, paths)
        assert library.check().damaged == []
        counts.add(len(names(library)))
        states = [result.state for result in import_files(library, paths).imported]
        assert set(states) <= {"added", "present"}
        assert names(library) == ["fox", "fox-2", "fox-3"]
        assert library.check().damaged == []
        if number >= len(calls):
            break
    assert counts == {0, 1, 2, 3}


def test_a_killed_import_leaves_only_complete_entries(tmp_path: Path) -> None:
    paths, library = [write_embedding(tmp_path, f"{i}.pt", i) for i in range(3)], Library()
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        real, written = library.revisions.write, 0

        def write(entry: Entry) -> None:
            nonlocal written
            if written == 1:
                os.write(write_end, b"one")
                signal.pause()
            written += 1
            real(entry)

        library.revisions.write = write  # type: ignore[method-assign]
        try:
            import_files(library, paths)
        finally:
            os._exit(1)
    os.close(write_end)
    assert os.read(read_end, 3) == b"one"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read_end)
    assert names(library) == ["0"]
    assert [result.state for result in import_files(library, paths).imported] == ["present", "added", "added"]
    assert names(library) == ["0", "1", "2"]


def test_a_disk_failure_during_an_import_leaves_no_entries(tmp_path: Path) -> None:
    paths, library = [write_embedding(tmp_path, f"{i}.pt", i) for i in range(3)], Library()
    for number in range(3):
        with (
            failing_calls(number, OSError(errno.EIO, "Input/output error"), "/data/library", "link"),
            pytest.raises(HomeError),
        ):
            import_files(library, paths)
        assert names(library) == []
        assert library.check().files == 0


def test_hostile_names_become_valid_names_and_never_paths(tmp_path: Path) -> None:
    library = Library()
    paths = []
    for name, raw in hostile_files.badly_named():
        if name.startswith("token"):
            continue
        paths.append(tmp_path / name)
        paths[-1].write_bytes(raw)
    before = sorted(tmp_path.rglob("*"))
    report = import_files(library, paths)
    assert report.refused == []
    assert all(check_name(name) == name for name in names(library))
    assert {"x", "etc-passwd", "CON", "prompt-v1"} <= set(names(library))
    assert any(
        "'../../x', which is not a valid name here, so it was renamed to x" in note
        for result in report.imported
        for note in result.notes
    )
    assert [path for path in sorted(tmp_path.rglob("*")) if "home" not in path.parts] == before


@given(st.text(max_size=200))
def test_a_cleaned_name_is_valid(text: str) -> None:
    name = clean_name(text)
    assert name == "" or check_name(name) == name
    assert clean_name(name) == name


def test_an_invalid_name_or_tag_is_rejected_before_reading(tmp_path: Path) -> None:
    with pytest.raises(BadName, match="reserved"):
        import_files(Library(), [tmp_path / "none"], name="v1")
    with pytest.raises(BadName, match="is not a valid tag"):
        import_files(Library(), [tmp_path / "none"], tags=["a b"])


def test_unknown_values_stay_unknown_in_a_file_of_this_program(tmp_path: Path) -> None:
    library = Library()
    import_files(library, [write_embedding(tmp_path)])
    first = library.open("fox")
    copy = tmp_path / "copy"
    copy.write_bytes(library.path(first.id, 1).read_bytes())
    other = Library(tmp_path / "other")
    import_files(other, [copy])
    prompt: SoftPrompt = other.open("fox").prompt
    assert prompt.as_dict() == first.prompt.as_dict()


def export_with(path: Path, losses: int = 5, **changes: object) -> Path:
    """Write an export of this program with changed provenance."""
    prompt = a_prompt(name="evil")
    sizes = {"target": prompt.target, "losses": prompt.losses[:losses], "similarities": prompt.similarities}
    extra = {key: base64.b64encode(array.tobytes()).decode() for key, array in sizes.items()}
    provenance = json.dumps(prompt.as_dict() | changes)
    path.write_bytes(
        save({"emb_params": prompt.vectors}, {"softprompt": provenance, "softprompt_tensors": json.dumps(extra)})
    )
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": 3},
        {"config": {"contexts": 5}},
        {"created": "0001-01-01T00:00:00+14:00"},
        {"hidden": {"sd1": "nan"}},
        {"source": {"a": "x" * 4_002}},
        {"source": {f"k{i}": "x" for i in range(65)}},
        {"source": {f"k{i}": "x" * 4_000 for i in range(30)}},
    ],
)
def test_an_invalid_provenance_is_rejected_and_other_files_are_saved(tmp_path: Path, changes: dict[str, Any]) -> None:
    library = Library()
    bad, good = export_with(tmp_path / "bad", **changes), export_with(tmp_path / "good")
    report = import_files(library, [bad, good], keep_going=True)
    assert [str(bad) in str(error) for error in report.refused] == [True]
    assert names(library) == ["evil"]


def test_metadata_is_limited_in_total_and_a_note_says_so(tmp_path: Path) -> None:
    (result,) = import_files(
        Library(), [write_embedding(tmp_path, **{f"k{i}": "x" * 4_000 for i in range(50)})]
    ).imported
    source = result.entry.prompt.source
    assert sum(len(key) + len(str(value)) for key, value in source.items()) <= 100_000
    assert len(source["sha256"]) == 64
    assert "of 50 values were dropped" in result.notes[0]


def test_an_import_never_holds_more_values_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "MAX_PENDING_VALUES", 3 * V.size)
    paths, library = [write_embedding(tmp_path, f"{i}.pt", i) for i in range(5)], Library()
    report = import_files(library, paths)
    assert (len(report.refused), names(library)) == (2, [])
    assert "3.pt: this import would hold more than 72 values" in str(report.refused[0])
    assert "Import fewer files at a time" in str(report.refused[0])
    import_files(library, paths, keep_going=True)
    assert names(library) == ["0", "1", "2"]


@pytest.mark.parametrize("earlier", [False, True])
def test_importing_a_file_again_restores_its_damaged_entry(tmp_path: Path, earlier: bool) -> None:
    library = Library()
    paths = [write_embedding(tmp_path, f"{i}.pt", i) for i in range(2)]
    (result,) = import_files(library, paths[:1]).imported
    head = library.tag("0", ["red"]) if earlier else result.entry
    entry_path = library.path(head.id, head.revision)
    entry_path.write_bytes(entry_path.read_bytes()[:-1] + b"\x7e")
    assert [entry.name for entry in library.list().entries] == ["0"]  # listing does not read the vectors
    with pytest.raises(EntryDamaged):
        library.open("0")
    report = import_files(library, paths)
    assert [result.state for result in report.imported] == ["added", "added"]
    assert "the library's copy was damaged and was restored" in report.imported[0].notes[0]
    saved = library.open(head.id)
    assert (saved.revision, saved.prompt.vectors.tobytes()) == (head.revision + 1, V.tobytes())


def test_a_soft_prompt_that_cannot_be_saved_is_reported_with_its_file_and_others_are_saved(tmp_path: Path) -> None:
    library = Library()
    paths = [write_embedding(tmp_path, f"{i}.pt", i) for i in range(2)]
    (result,) = import_files(library, paths[:1]).imported
    entry_path = library.path(result.entry.id, 1)
    # the highest possible revision number leaves no number for the next one
    entry_path.rename(library.path(result.entry.id, 999_999_999))
    report = import_files(library, paths, keep_going=True)
    assert "0.pt: " in str(report.refused[0])
    assert [result.entry.prompt.name for result in report.imported] == ["1"]


def test_an_import_scans_the_library_a_fixed_number_of_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    paths = []
    for i in range(12):
        paths.append(tmp_path / f"{i}")
        paths[-1].write_bytes(pack(Entry(f"{i:016x}", 1, a_prompt(name=f"n{i}", vectors=V + np.float32(i)))))
    scans, real = [], Revisions.scan
    monkeypatch.setattr(Revisions, "scan", lambda self: scans.append(1) or real(self))
    import_files(library, paths)
    assert len(scans) <= 3


def test_a_failed_rollback_continues_and_reports_the_remaining_entries(tmp_path: Path) -> None:
    library, paths = Library(), [write_embedding(tmp_path, f"{i}.pt", i) for i in range(3)]
    write, undo_write, attempts = library.revisions.write, library.revisions.undo_write, []

    def fail_for_third(entry: Entry) -> None:
        if entry.prompt.name == "2":
            raise HomeError("the disk is full")
        write(entry)

    def fail_first_time(entry: Entry) -> None:
        attempts.append(entry.id)
        if len(attempts) == 1:
            raise HomeError("the disk is gone")
        undo_write(entry)

    library.revisions.write, library.revisions.undo_write = fail_for_third, fail_first_time  # type: ignore[method-assign,assignment]
    with pytest.raises(
        HomeError, match=r"the disk is full.*delete them with `for id in \[.*library\.delete\(id\)`"
    ) as raised:
        import_files(library, paths)
    assert (names(library), attempts[0] in str(raised.value)) == (["0"], True)


def test_a_hard_prompt_is_assigned_once_and_measured_if_the_model_is_known(
    tmp_path: Path, encoder: TextEncoder
) -> None:
    path = tmp_path / "fox.npy"
    np.save(path, encoder.tower.table[encoder.tokenizer.encode("a red fox")].float().cpu().numpy())
    (result,) = import_files(Library(), [path]).imported
    described = apply_assignment(result.entry.prompt, hard_prompt="a red fox")
    assert (
        described.hard_prompt,
        described.model,
        described.similarity,
        described.composition,
        described.hidden,
        described.target.size,
    ) == (
        "a red fox",
        "",
        None,
        None,
        {},
        0,
    )
    for both in (
        apply_assignment(described, encoder),
        apply_assignment(apply_assignment(result.entry.prompt, encoder), encoder, hard_prompt="a red fox"),
    ):
        assert both.similarity == pytest.approx(1, abs=1e-5)  # the vectors are these words
        assert both.composition is not None
        assert both.composition.mean > 0.999
        assert both.hidden["sd1"] == pytest.approx(1, abs=1e-4)
        assert (both.readout_text, both.readout_similarity) == ("a red fox", pytest.approx(1, abs=1e-5))
        assert both.target.shape == (encoder.config.embed_dim,)
    with pytest.raises(ConfigError, match=r"the hard prompt of fox is 'a red fox'.*again=True"):
        apply_assignment(both, hard_prompt="a boat")
    other = apply_assignment(both, encoder, hard_prompt="a boat", again=True)
    assert other.similarity is not None
    assert other.similarity < 0.9
    unmeasured = apply_assignment(both, hard_prompt="a boat", again=True)
    assert (unmeasured.similarity, unmeasured.composition, unmeasured.readout_similarity, unmeasured.hidden) == (
        None,
        None,
        None,
        {},
    )
    with pytest.raises(ConfigError, match="it was trained for that prompt"):
        apply_assignment(a_prompt(name="Fox"), hard_prompt="a boat", again=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", "is empty"),
        ("a\udc80b", "not valid UTF-8"),
        ("fox " * 80, "Shorten the prompt"),
        ("x" * 200_001, "at most 200,000"),
    ],
)
def test_an_invalid_hard_prompt_is_rejected(encoder: TextEncoder, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "fox.npy"
    np.save(path, np.ones((2, 256), np.float32))
    (result,) = import_files(Library(), [path]).imported
    with pytest.raises(PromptError, match=message):
        apply_assignment(result.entry.prompt, encoder, hard_prompt=text)
    cut = apply_assignment(result.entry.prompt, encoder, hard_prompt="fox " * 80, long="cut")
    assert (cut.config["long"], cut.similarity is None) == ("cut", False)


def test_a_soft_prompt_longer_than_the_context_gets_a_readout_without_measurements(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    path = tmp_path / "many.npy"
    np.save(path, np.ones((100, 256), np.float32))
    (result,) = import_files(Library(), [path]).imported
    prompt = apply_assignment(result.entry.prompt, encoder, hard_prompt="a red fox")
    assert (len(prompt.readout), prompt.similarity, prompt.composition) == (100, None, None)


def test_only_the_model_of_an_imported_soft_prompt_can_be_replaced(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "fox.npy"
    np.save(path, np.ones((2, 256), np.float32))
    (result,) = import_files(Library(), [path]).imported
    imported = replace(result.entry.prompt, model="other", model_fingerprint="f")
    with pytest.raises(ConfigError, match="Use again=True to replace a wrong one"):
        apply_assignment(imported, encoder)
    assert apply_assignment(imported, encoder, again=True).model == "mini"
    with pytest.raises(ConfigError, match="it was trained on that model"):
        apply_assignment(a_prompt(name="Fox"), encoder, again=True)
