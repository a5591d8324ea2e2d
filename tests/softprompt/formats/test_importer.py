"""Imported soft prompts: what is kept, what stays unknown, and that a batch is saved as one."""

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
from softprompt.formats.importer import assigned, import_files
from softprompt.formats.readers import sandbox, sandbox_child
from softprompt.formats.writers.encode import two_tensors
from softprompt.formats.writers.exporter import export
from softprompt.library.entry import Entry, pack
from softprompt.library.names import check_name, tidied
from softprompt.library.revisions import Revisions
from softprompt.prompts.serialization import to_dict
from tests import hostile_files
from tests.library_model import a_prompt
from tests.softprompt.library.test_crashes import Crash, failing

V = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it is about what becomes of what is read; that it is read in a child is the matter of test_formats_reading."""
    monkeypatch.setattr(sandbox, "_asked", lambda *asked: b"".join(sandbox_child.reply(*asked)))


def file(folder: Path, called: str = "fox.pt", add: float = 0.0, **said: str) -> Path:
    """An embedding as kohya saves it."""
    path = folder / called
    path.write_bytes(save({"emb_params": V + np.float32(add)}, said or None))
    return path


def names(library: Library) -> list[str]:
    return sorted(one.name for one in library.list().entries)


def test_what_a_file_says_is_kept_and_the_rest_stays_unknown(tmp_path: Path) -> None:
    library = Library()
    path = file(tmp_path, description="a red one", step="300", file="mine", sha256="mine")
    batch = import_files(library, [path], tags=["red"])
    (one,) = batch.imported
    prompt = library.open("fox").prompt
    assert (one.state, one.entry.id, one.entry.tags) == ("added", library.find("fox").id, ("red",))
    assert np.array_equal(prompt.vectors, V)
    assert (prompt.hard_prompt, prompt.model, prompt.model_fingerprint, prompt.similarity) == ("", "", "", None)
    assert (prompt.target.size, len(prompt.losses), prompt.readout, prompt.steps) == (0, 0, (), 0)
    said = {key: value for key, value in prompt.source.items() if key != "sha256"}
    wanted = {
        "file": "fox.pt",
        "format": "emb_params (AUTOMATIC1111, ComfyUI, kohya), safetensors",
        "description": "a red one",
        "step": "300",
    }
    assert said == wanted
    assert len(prompt.source["sha256"]) == 64


def test_the_two_of_sdxl_are_linked(tmp_path: Path) -> None:
    path = tmp_path / "xl.safetensors"
    path.write_bytes(save({"clip_l": V, "clip_g": V[:, :4].copy()}))
    library = Library()
    first, second = (one.entry for one in import_files(library, [path], name="fox").imported)
    assert names(library) == ["fox clip_g", "fox clip_l"]
    assert (first.prompt.source["with"], second.prompt.source["with"]) == (second.id, first.id)
    assert {first.prompt.source["part"], second.prompt.source["part"]} == {"clip_l", "clip_g"}


@pytest.mark.parametrize(
    ("tensors", "said", "name", "wished"),
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
def test_a_part_is_named_after_its_file_and_a_token_after_itself(
    tmp_path: Path, tensors: dict[str, np.ndarray], said: dict[str, str], name: str, wished: list[str]
) -> None:
    path = tmp_path / "my dog.safetensors"
    path.write_bytes(save(tensors, said or None))
    library = Library()
    imported = import_files(library, [path], name=name).imported
    assert names(library) == wished
    if "t5" in tensors and len(tensors) > 1:
        (one,) = imported
        assert one.format == "Flux embedding (clip_l, t5), safetensors"
        assert one.notes == ("left out of it: t5, which is for a T5 encoder",)


def test_each_half_of_an_exported_pair_comes_back_with_what_it_knew_and_the_others_id(tmp_path: Path) -> None:
    vectors = {"clip_l": np.ones((2, 768), np.float32), "clip_g": np.ones((2, 1280), np.float32)}
    halves = {
        key: a_prompt(
            name=f"lake {key}", hard_prompt=f"a lake for {key}", model=f"m {key}", vectors=array, hidden={"sdxl": 0.5}
        )
        for key, array in vectors.items()
    }
    (path,) = export(halves["clip_g"], "comfyui", tmp_path, other=halves["clip_l"]).paths
    library = Library()
    batch = import_files(library, [path])
    made = {key: library.open(f"lake {key}") for key in halves}
    assert [one.format for one in batch.imported] == ["export of softprompt-tui"] * 2
    for key, other in (("clip_l", "clip_g"), ("clip_g", "clip_l")):
        of_pair = {"part": key, "with": made[other].id}
        assert to_dict(made[key].prompt) == to_dict(halves[key]) | {"source": of_pair}
        for name in ("vectors", "target", "losses", "similarities"):
            assert getattr(made[key].prompt, name).tobytes() == getattr(halves[key], name).tobytes()
    assert [one.state for one in import_files(library, [path]).imported] == ["present"] * 2
    import_files(Library(tmp_path / "renamed"), [path], name="sea")
    assert names(Library(tmp_path / "renamed")) == ["sea clip_g", "sea clip_l"]
    again = export(made["clip_l"].prompt, "safetensors", tmp_path / "again.safetensors", other=made["clip_g"].prompt)
    other_home = Library(tmp_path / "other")
    import_files(other_home, again.paths)
    assert other_home.open("lake clip_l").prompt.source["with"] == other_home.find("lake clip_g").id


def test_half_of_an_exported_pair_can_be_given_to_its_model(tmp_path: Path, encoder: TextEncoder) -> None:
    mine = a_prompt(
        name="l", vectors=np.ones((2, 256), np.float32), model="", model_fingerprint="", steps=0, source={"file": "x"}
    )
    path = tmp_path / "pair.safetensors"
    path.write_bytes(two_tensors(mine, a_prompt(name="g", vectors=np.ones((2, 8), np.float32))))
    first, second = import_files(Library(), [path], encoder).imported
    assert (first.entry.prompt.model, second.entry.prompt.model) == (encoder.name, "mini")
    assert second.notes == (f"clip_g is 8 wide and {encoder.name} takes 256: it is not assigned to that model",)
    path.write_bytes(two_tensors(*[a_prompt(name=name) for name in "lg"]))
    assert "takes 256" in str(import_files(Library(), [path], encoder).refused[0])


def test_with_a_model_it_belongs_to_it_and_has_a_readout(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"emb_params": encoder.tower.table[[320, 2368]].float().cpu().numpy()}))
    (one,) = import_files(Library(), [path], encoder).imported
    made = one.entry.prompt
    assert (made.model, made.model_fingerprint) == ("mini", encoder.fingerprint)
    assert [read.token for read in made.readout] == [encoder.tokenizer.piece(320), encoder.tokenizer.piece(2368)]
    assert made.readout[0].cosine > 0.999
    encoder.check_belongs(made)


def test_another_width_is_refused_naming_both_and_nothing_is_written(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "wide.safetensors"
    path.write_bytes(save({"emb_params": np.zeros((2, 768), np.float32)}))
    library = Library()
    batch = import_files(library, [path], encoder)
    assert batch.imported == []
    assert "768 wide, and mini takes 256" in str(batch.refused[0])
    assert "ViT-L-14-quickgelu/openai" in str(batch.refused[0])
    assert names(library) == []


def test_one_that_is_refused_keeps_all_from_being_saved_unless_it_is_to_go_on(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"not a soft prompt")
    paths = [file(tmp_path, "a.pt"), bad, file(tmp_path, "b.pt", 1)]
    library = Library()
    batch = import_files(library, paths)
    assert ([type(one) for one in batch.refused], batch.imported, names(library)) == ([FileRefused], [], [])
    batch = import_files(library, paths, keep_going=True)
    assert (len(batch.refused), names(library)) == (1, ["a", "b"])


def test_a_file_is_added_once_whatever_it_is_called(tmp_path: Path) -> None:
    library = Library()
    a, b = file(tmp_path, "a.pt"), file(tmp_path, "b.safetensors")
    assert [one.state for one in import_files(library, [a, b]).imported] == ["added", "present"]
    assert [one.state for one in import_files(library, [b]).imported] == ["present"]
    library.rename("a", "c")
    assert [one.entry.prompt.name for one in import_files(library, [b]).imported] == ["c"]
    assert names(library) == ["c"]


def test_one_in_the_trash_is_said_to_be_there_and_one_that_was_purged_is_added(tmp_path: Path) -> None:
    library, path = Library(), file(tmp_path)
    import_files(library, [path])
    library.delete("fox")
    (one,) = import_files(library, [path]).imported
    assert (one.state, names(library)) == ("trashed", [])
    library.purge("fox")
    (one,) = import_files(library, [path]).imported
    assert (one.state, one.entry.revision, names(library)) == ("added", 3, ["fox"])
    assert library.check().damaged == []


def test_names_that_are_taken_get_a_number_and_that_is_said(tmp_path: Path) -> None:
    library = Library()
    paths = [file(tmp_path, f"{i}.pt", i, name="fox") for i in range(3)]
    batch = import_files(library, paths)
    assert [one.entry.prompt.name for one in batch.imported] == ["fox", "fox-2", "fox-3"]
    assert [len(one.notes) for one in batch.imported] == [0, 1, 1]
    assert "fox was taken" in batch.imported[1].notes[0]


@pytest.mark.parametrize("kind", ["entry", "export"])
def test_what_this_program_wrote_comes_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    prompt = a_prompt(name="Fox", hidden={"sd1": 0.5}, source={"file": "a.pt"})
    beside = {
        key: base64.b64encode(getattr(prompt, key).tobytes()).decode() for key in ("target", "losses", "similarities")
    }
    metadata = {"softprompt": json.dumps(to_dict(prompt)), "softprompt_tensors": json.dumps(beside)}
    path = tmp_path / "x.bin"
    entry = Entry("0123456789abcdef", 4, prompt, ("red",), "a note")
    path.write_bytes(pack(entry) if kind == "entry" else save({"emb_params": prompt.vectors}, metadata))
    library = Library()
    import_files(library, [path], tags=["more"])
    made = library.open("Fox")
    assert to_dict(made.prompt) == to_dict(prompt)
    for key in ("vectors", "target", "losses", "similarities"):
        assert getattr(made.prompt, key).tobytes() == getattr(prompt, key).tobytes()
    assert (made.tags, made.note) == ((("more", "red"), "a note") if kind == "entry" else (("more",), ""))


def test_an_entry_that_is_here_is_not_added_again_and_a_false_one_takes_nobodys_place(tmp_path: Path) -> None:
    library = Library()
    mine = library.save(a_prompt(name="Fox"))
    same, false = tmp_path / "same", tmp_path / "false"
    same.write_bytes(library.path(mine.id, 1).read_bytes())
    false.write_bytes(pack(Entry(mine.id, 9, a_prompt(name="Fox", vectors=np.ones((2, 4), np.float32)))))
    assert [one.state for one in import_files(library, [same]).imported] == ["present"]
    (one,) = import_files(library, [false]).imported
    assert one.state == "added"
    assert one.entry.id != mine.id
    assert names(library) == ["Fox", "Fox-2"]


def test_a_known_model_is_not_overwritten_by_another(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "x"
    path.write_bytes(pack(Entry("0123456789abcdef", 1, a_prompt(name="Fox"))))
    batch = import_files(Library(), [path], encoder)
    assert "Fox" in str(batch.refused[0])
    with pytest.raises(ConfigError, match="belongs to mini"):
        assigned(a_prompt(name="Fox"), encoder)


def test_assigning_is_a_new_revision_with_the_model_and_a_readout(tmp_path: Path, encoder: TextEncoder) -> None:
    library = Library()
    path = tmp_path / "fox.npy"
    np.save(path, np.random.default_rng(0).standard_normal((2, 256), dtype=np.float32))
    import_files(library, [path])
    entry = library.assign("fox", lambda prompt: assigned(prompt, encoder))
    made = library.open("fox")
    assert (made.revision, made.prompt.model, made.prompt.model_fingerprint) == (2, "mini", encoder.fingerprint)
    assert len(made.prompt.readout) == 2
    assert library.list(model="mini").entries[0].id == entry.id
    with pytest.raises(ConfigError, match="where it is unknown"):
        library.assign("fox", lambda prompt: assigned(prompt, encoder))
    assert library.open("fox").revision == 2


def test_a_crash_at_any_moment_leaves_what_the_same_import_completes(tmp_path: Path) -> None:
    paths = [file(tmp_path, f"{i}.pt", i, name="fox") for i in range(3)]
    reached = set()
    for number in range(0, 200, 3):
        library = Library(tmp_path / f"home-{number}")
        with failing(number, Crash(), f"home-{number}/library", for_good=True) as made, suppress(Crash):
            import_files(library, paths)
        assert library.check().damaged == []
        reached.add(len(names(library)))
        states = [one.state for one in import_files(library, paths).imported]
        assert set(states) <= {"added", "present"}
        assert names(library) == ["fox", "fox-2", "fox-3"]
        assert library.check().damaged == []
        if number >= len(made):
            break
    assert reached == {0, 1, 2, 3}


def test_a_process_killed_between_two_of_a_batch_has_added_whole_ones_only(tmp_path: Path) -> None:
    paths, library = [file(tmp_path, f"{i}.pt", i) for i in range(3)], Library()
    back, out = os.pipe()
    child = os.fork()
    if not child:
        real, written = library.revisions.write, 0

        def write(entry: Entry) -> None:
            nonlocal written
            if written == 1:
                os.write(out, b"one")
                signal.pause()
            written += 1
            real(entry)

        library.revisions.write = write  # type: ignore[method-assign]
        try:
            import_files(library, paths)
        finally:
            os._exit(1)
    os.close(out)
    assert os.read(back, 3) == b"one"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(back)
    assert names(library) == ["0"]
    assert [one.state for one in import_files(library, paths).imported] == ["present", "added", "added"]
    assert names(library) == ["0", "1", "2"]


def test_a_disk_that_fails_in_the_middle_leaves_none_of_a_batch(tmp_path: Path) -> None:
    paths, library = [file(tmp_path, f"{i}.pt", i) for i in range(3)], Library()
    for number in range(3):
        with (
            failing(number, OSError(errno.EIO, "Input/output error"), "/data/library", "link"),
            pytest.raises(HomeError),
        ):
            import_files(library, paths)
        assert names(library) == []
        assert library.check().files == 0


def test_hostile_names_become_legal_ones_and_no_path(tmp_path: Path) -> None:
    library = Library()
    paths = []
    for name, raw in hostile_files.named_badly():
        if name.startswith("token"):
            continue
        paths.append(tmp_path / name)
        paths[-1].write_bytes(raw)
    before = sorted(tmp_path.rglob("*"))
    batch = import_files(library, paths)
    assert batch.refused == []
    assert all(check_name(name) == name for name in names(library))
    assert {"x", "etc-passwd", "CON", "prompt-v1"} <= set(names(library))
    assert any("'../../x', which is no name here: x" in note for one in batch.imported for note in one.notes)
    assert [path for path in sorted(tmp_path.rglob("*")) if "home" not in path.parts] == before


@given(st.text(max_size=200))
def test_a_tidied_name_can_be_given(text: str) -> None:
    name = tidied(text)
    assert name == "" or check_name(name) == name
    assert tidied(name) == name


def test_a_name_or_tag_that_cannot_be_given_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(BadName, match="reserved"):
        import_files(Library(), [tmp_path / "none"], name="v1")
    with pytest.raises(BadName, match="is no tag"):
        import_files(Library(), [tmp_path / "none"], tags=["a b"])


def test_an_unknown_soft_prompt_of_this_program_stays_so(tmp_path: Path) -> None:
    """A round trip through our own file does not make up what was never known."""
    library = Library()
    import_files(library, [file(tmp_path)])
    first = library.open("fox")
    copy = tmp_path / "copy"
    copy.write_bytes(library.path(first.id, 1).read_bytes())
    other = Library(tmp_path / "other")
    import_files(other, [copy])
    made: SoftPrompt = other.open("fox").prompt
    assert to_dict(made) == to_dict(first.prompt)


def export_with(path: Path, losses: int = 5, **changes: object) -> Path:
    """An export of this program, with another provenance than it writes."""
    prompt = a_prompt(name="evil")
    sizes = {"target": prompt.target, "losses": prompt.losses[:losses], "similarities": prompt.similarities}
    beside = {key: base64.b64encode(array.tobytes()).decode() for key, array in sizes.items()}
    said = json.dumps(to_dict(prompt) | changes)
    path.write_bytes(
        save({"emb_params": prompt.vectors}, {"softprompt": said, "softprompt_tensors": json.dumps(beside)})
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
def test_a_provenance_that_this_program_cannot_have_written_is_refused_and_others_are_saved(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    library = Library()
    bad, good = export_with(tmp_path / "bad", **changes), export_with(tmp_path / "good")
    batch = import_files(library, [bad, good], keep_going=True)
    assert [str(bad) in str(one) for one in batch.refused] == [True]
    assert names(library) == ["evil"]


def test_what_a_file_says_is_bounded_as_a_whole_and_that_is_said(tmp_path: Path) -> None:
    (one,) = import_files(Library(), [file(tmp_path, **{f"k{i}": "x" * 4_000 for i in range(50)})]).imported
    source = one.entry.prompt.source
    assert sum(len(key) + len(str(value)) for key, value in source.items()) <= 100_000
    assert len(source["sha256"]) == 64
    assert "of its 50 values are left out" in one.notes[0]


def test_a_batch_holds_no_more_numbers_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "MAX_PENDING_BYTES", 3 * V.size)
    paths, library = [file(tmp_path, f"{i}.pt", i) for i in range(5)], Library()
    batch = import_files(library, paths)
    assert (len(batch.refused), names(library)) == (2, [])
    assert "3.pt is not read: with it, this import would hold more than 72 numbers" in str(batch.refused[0])
    assert "import fewer at a time" in str(batch.refused[0])
    import_files(library, paths, keep_going=True)
    assert names(library) == ["0", "1", "2"]


@pytest.mark.parametrize("earlier", [False, True])
def test_a_damaged_entry_stands_in_nobodys_way_and_is_mended(tmp_path: Path, earlier: bool) -> None:
    library = Library()
    paths = [file(tmp_path, f"{i}.pt", i) for i in range(2)]
    (one,) = import_files(library, paths[:1]).imported
    head = library.tag("0", ["red"]) if earlier else one.entry
    at = library.path(head.id, head.revision)
    at.write_bytes(at.read_bytes()[:-1] + b"\x7e")
    assert [entry.name for entry in library.list().entries] == ["0"]  # the list does not read the numbers
    with pytest.raises(EntryDamaged):
        library.open("0")
    batch = import_files(library, paths)
    assert [made.state for made in batch.imported] == ["added", "added"]
    assert "was damaged, and is whole again" in batch.imported[0].notes[0]
    made = library.open(head.id)
    assert (made.revision, made.prompt.vectors.tobytes()) == (head.revision + 1, V.tobytes())


def test_one_that_cannot_be_saved_is_refused_by_its_files_name_and_the_others_are_saved(tmp_path: Path) -> None:
    library = Library()
    paths = [file(tmp_path, f"{i}.pt", i) for i in range(2)]
    (one,) = import_files(library, paths[:1]).imported
    at = library.path(one.entry.id, 1)
    at.rename(
        library.path(one.entry.id, 999_999_999)
    )  # the last number there is, and what bears it is not where it belongs
    batch = import_files(library, paths, keep_going=True)
    assert "0.pt is not saved" in str(batch.refused[0])
    assert [made.entry.prompt.name for made in batch.imported] == ["1"]


def test_a_batch_reads_the_folder_a_few_times_and_not_for_each_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library()
    paths = []
    for i in range(12):
        paths.append(tmp_path / f"{i}")
        paths[-1].write_bytes(pack(Entry(f"{i:016x}", 1, a_prompt(name=f"n{i}", vectors=V + np.float32(i)))))
    scans, real = [], Revisions.scan
    monkeypatch.setattr(Revisions, "scan", lambda self: scans.append(1) or real(self))
    import_files(library, paths)
    assert len(scans) <= 3


def test_taking_back_goes_on_after_a_failure_and_says_what_is_left(tmp_path: Path) -> None:
    library, paths = Library(), [file(tmp_path, f"{i}.pt", i) for i in range(3)]
    write, take_back, tried = library.revisions.write, library.revisions.take_back, []

    def third_fails(entry: Entry) -> None:
        if entry.prompt.name == "2":
            raise HomeError("the disk is full")
        write(entry)

    def first_fails(entry: Entry) -> None:
        tried.append(entry.id)
        if len(tried) == 1:
            raise HomeError("the disk is gone")
        take_back(entry)

    library.revisions.write, library.revisions.take_back = third_fails, first_fails  # type: ignore[method-assign,assignment]
    with pytest.raises(HomeError, match=r"the disk is full.*could not be taken back: `softprompt-tui rm") as raised:
        import_files(library, paths)
    assert (names(library), tried[0] in str(raised.value)) == (["0"], True)


def test_a_hard_prompt_is_told_once_and_measured_where_the_model_is_known(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "fox.npy"
    np.save(path, encoder.tower.table[encoder.tokenizer.encode("a red fox")].float().cpu().numpy())
    (one,) = import_files(Library(), [path]).imported
    told = assigned(one.entry.prompt, hard_prompt="a red fox")
    assert (told.hard_prompt, told.model, told.similarity, told.composition, told.hidden, told.target.size) == (
        "a red fox",
        "",
        None,
        None,
        {},
        0,
    )
    for both in (
        assigned(told, encoder),
        assigned(assigned(one.entry.prompt, encoder), encoder, hard_prompt="a red fox"),
    ):
        assert both.similarity == pytest.approx(1, abs=1e-5)  # these very words
        assert both.composition is not None
        assert both.composition.mean > 0.999
        assert both.hidden["sd1"] == pytest.approx(1, abs=1e-4)
        assert (both.readout_text, both.readout_similarity) == ("a red fox", pytest.approx(1, abs=1e-5))
        assert both.target.shape == (encoder.config.embed_dim,)
    with pytest.raises(ConfigError, match=r"the hard prompt of fox is 'a red fox'.*--again"):
        assigned(both, hard_prompt="a boat")
    other = assigned(both, encoder, hard_prompt="a boat", again=True)
    assert other.similarity is not None
    assert other.similarity < 0.9
    unmeasured = assigned(both, hard_prompt="a boat", again=True)
    assert (unmeasured.similarity, unmeasured.composition, unmeasured.readout_similarity, unmeasured.hidden) == (
        None,
        None,
        None,
        {},
    )
    with pytest.raises(ConfigError, match="which it was trained for"):
        assigned(a_prompt(name="Fox"), hard_prompt="a boat", again=True)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [(" ", "is empty"), ("a\udc80b", "no UTF-8"), ("fox " * 80, "Shorten it"), ("x" * 200_001, "at most 200,000")],
)
def test_a_text_that_no_soft_prompt_can_stand_for_is_refused(
    encoder: TextEncoder, tmp_path: Path, text: str, wrong: str
) -> None:
    path = tmp_path / "fox.npy"
    np.save(path, np.ones((2, 256), np.float32))
    (one,) = import_files(Library(), [path]).imported
    with pytest.raises(PromptError, match=wrong):
        assigned(one.entry.prompt, encoder, hard_prompt=text)
    cut = assigned(one.entry.prompt, encoder, hard_prompt="fox " * 80, long="cut")
    assert (cut.config["long"], cut.similarity is None) == ("cut", False)


def test_one_of_more_tokens_than_the_model_takes_has_a_readout_and_no_figures(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    path = tmp_path / "many.npy"
    np.save(path, np.ones((100, 256), np.float32))
    (one,) = import_files(Library(), [path]).imported
    made = assigned(one.entry.prompt, encoder, hard_prompt="a red fox")
    assert (len(made.readout), made.similarity, made.composition) == (100, None, None)


def test_only_an_imported_one_is_given_another_model(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "fox.npy"
    np.save(path, np.ones((2, 256), np.float32))
    (one,) = import_files(Library(), [path]).imported
    wrong = replace(one.entry.prompt, model="other", model_fingerprint="f")
    with pytest.raises(ConfigError, match="--again gives it another"):
        assigned(wrong, encoder)
    assert assigned(wrong, encoder, again=True).model == "mini"
    with pytest.raises(ConfigError, match="which it was trained on"):
        assigned(a_prompt(name="Fox"), encoder, again=True)
