"""The output file of a batch: continued only if it is provably ours, cut only after a crash, otherwise unchanged."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from softprompt import Library, TrainConfig, train_batch
from softprompt.batches import Batch, Defaults
from softprompt.errors import FileRefused

SHORT = TrainConfig(tokens=1, steps=1, contexts=())
PROMPTS = ["a red fox", "a boat on a lake", "an old lighthouse"]
START = b'{"line": 9, "state": "trained", "prompt": "a to'
OTHERS = (
    b"my notes\n",
    b'{"line": 3, "file": "a.py", "error": "E501"}\n',
    b'{"line": 3, "file": "a.py"}',
    b"{}",
    b"\xff\0\0",
)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_in_place(path: Path, raw: bytes) -> None:
    """Overwrite a file and keep its inode."""
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(raw)


def first_result(out: Path) -> bytes:
    """Stop a batch, as a kill would, after the first result in a new file. Return the recorded content."""
    out.unlink(missing_ok=True)
    with closing(Batch(PROMPTS, Defaults(SHORT))) as batch:
        results = batch.train(out=out)
        next(results)
        results.close()
    return out.read_bytes()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train PROMPTS once and return the library's folder. The tests need no further training."""
    folder = tmp_path_factory.mktemp("trained")
    list(train_batch(PROMPTS, SHORT, library=Library(folder)))
    return folder / "library"


@pytest.fixture(autouse=True)
def _library(trained: Path, home: Path) -> None:
    shutil.copytree(trained, home / "data" / "library")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def assert_rejected(out: Path, raw: bytes, source: Any = PROMPTS) -> None:
    with pytest.raises(FileRefused, match=r"out\.jsonl already exists and is not a batch output file.*another file"):
        list(train_batch(source, SHORT, out=out))
    assert out.read_bytes() == raw


def test_file_without_proof_of_ownership_is_rejected(out: Path, home: Path) -> None:
    list(train_batch(PROMPTS, SHORT, out=out))
    complete = out.read_bytes()
    shutil.rmtree(home / "data" / "batches")
    for raw in (
        b'{"line": 3, "file": "a.py", "error": "E501"}\n{"line": 9, "file": "b.py", "error": "E711"}\n',
        b'{"line": 1, "state": "trained", "id": "abc", "error": null}\n',
        complete.replace(b'"id": "', b'"id": "0'),
        complete.replace(b'"worst"', b'"best"'),
        bytes(5000), b'{"line": 1', b"{", b'{"line": 1\0\0\0',
        *OTHERS, *(complete + other for other in OTHERS), bytes(40) + complete, complete + bytes(40) + complete,
    ):  # fmt: skip
        out.write_bytes(raw)
        assert_rejected(out, raw)


@pytest.mark.parametrize("is_recorded", [True, False], ids=["recorded", "from a version without records"])
def test_remains_of_a_crash_after_the_last_complete_line_are_cut(out: Path, home: Path, is_recorded: bool) -> None:
    first = first_result(out)
    ends = [b"", b"{", b'{"line": 12', START, bytes(9000), START + bytes(9000)]
    if is_recorded:  # pages can reach the disk in any order
        ends.append(START + bytes(4096) + b'n": null, "error": null}\n' + first.replace(b'"line": 1', b'"line": 7'))
    for end in ends:
        assert first_result(out) == first
        if not is_recorded:
            shutil.rmtree(home / "data" / "batches")
        write_in_place(out, first + end)
        list(train_batch(PROMPTS, SHORT, out=out))
        assert out.read_bytes().startswith(first)
        assert sorted(line["line"] for line in read_lines(out)) == [1, 2, 3]


def test_text_of_other_programs_past_the_recorded_length_is_not_cut(out: Path) -> None:
    first = first_result(out)
    for end in (*OTHERS, b"\0\0\0my notes\n"):
        write_in_place(out, first + end)
        assert_rejected(out, first + end)


def test_file_in_the_place_of_ours_is_checked_by_its_lines(out: Path, tmp_path: Path) -> None:
    first = first_result(out)
    for raw in (bytes(5000), b"{", b"my notes\n"):
        other = tmp_path / "other"
        other.write_bytes(raw)
        other.replace(out)
        assert_rejected(out, raw)
        write_in_place(out, raw)  # even with the recorded inode
        assert_rejected(out, raw)
    # a copy, on any disk, is recognized by its lines
    out.unlink()
    (tmp_path / "moved").mkdir()
    copy = tmp_path / "moved" / "copy.jsonl"
    copy.write_bytes(first)
    list(train_batch(PROMPTS, SHORT, out=copy))
    assert sorted(line["line"] for line in read_lines(copy)) == [1, 2, 3]


def test_zeros_before_the_first_line_are_cut_if_the_file_is_recorded(out: Path) -> None:
    assert list(train_batch(["a new prompt"], SHORT, out=out, on_progress=lambda _: True)) == []
    assert out.read_bytes() == b""
    write_in_place(out, bytes(4096))
    list(train_batch(PROMPTS, SHORT, out=out))
    assert sorted(line["line"] for line in read_lines(out)) == [1, 2, 3]


def test_last_line_that_lacks_only_its_newline_stays(out: Path) -> None:
    list(train_batch(PROMPTS, SHORT, out=out))
    complete = out.read_bytes()
    write_in_place(out, complete.rstrip(b"\n"))
    assert list(train_batch([*PROMPTS], SHORT, out=out)) == []
    assert out.read_bytes() == complete


def test_batch_replaces_only_its_own_error_lines(out: Path, tmp_path: Path) -> None:
    long = "fox " * 300
    bad = [long, {"prompt": "a cat", "tokens": 0}, "", {"prompt": "gone", "tokens": 0}]
    list(train_batch([*PROMPTS, *bad], SHORT, out=out))  # type: ignore[list-item]
    errors = [line for line in read_lines(out) if line["error"]]
    assert sorted(line["line"] for line in errors) == [4, 5, 6, 7]
    # another batch keeps these lines, except for rows that it has on the same line
    list(train_batch([PROMPTS[1], "", "x\0", "", {"prompt": "a cat", "tokens": 0}, "gone\0"], SHORT, out=out))  # type: ignore[list-item]
    failed = sorted((line["line"], line["prompt"]) for line in read_lines(out) if line["error"])
    assert failed == [
        (2, ""),
        (3, "x\0"),
        (4, ""),
        (4, long.strip()),
        (5, "a cat"),
        (6, ""),
        (6, "gone\0"),
        (7, "gone"),
    ]


def test_edited_batch_replaces_its_errors_and_keeps_lines_of_removed_rows(out: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        '"a red fox"\n{"prompt": "an old lighthouse", "tokens": 0}\n{"prompt"\n{"prompt": "gone", "tokens": 0}\n'
    )
    list(train_batch(file, SHORT, out=out))
    assert [(line["prompt"], line["state"]) for line in read_lines(out)] == [
        ("a red fox", "before"), ("an old lighthouse", "failed"), ("", "failed"), ("gone", "failed"),
    ]  # fmt: skip
    file.write_text('"a boat on a lake"\n\n{"prompt": "an old lighthouse"}\n{"prompt": "a cat", "steps": 0}\n')
    list(train_batch(file, SHORT, out=out))
    assert sorted((line["prompt"], line["state"]) for line in read_lines(out)) == [
        ("a boat on a lake", "before"), ("a cat", "failed"), ("a red fox", "before"), ("an old lighthouse", "before"),
        ("gone", "failed"),
    ]  # fmt: skip


def test_crash_while_replacing_errors_loses_no_line_and_leaves_no_temporary_file(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(train_batch([*PROMPTS, ""], SHORT, out=out))
    before = sorted(out.read_bytes().splitlines())

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    for is_renamed in (False, True):
        with monkeypatch.context() as patch:
            if is_renamed:
                patch.setattr("softprompt.batches.output.sync_folder", kill)
            else:
                patch.setattr(Path, "replace", lambda self, target: kill() if target == out else self.rename(target))
                patch.setattr(Path, "unlink", lambda *_, **__: None)  # a kill leaves the temporary file
            with pytest.raises(Killed):
                list(train_batch([*PROMPTS, ""], SHORT, out=out))
        assert [line["line"] for line in read_lines(out) if not line["error"]] == [1, 2, 3]
        with out.open("ab") as file:
            file.write(START + bytes(50))
        list(train_batch([*PROMPTS, ""], SHORT, out=out))
        assert sorted(out.read_bytes().splitlines()) == before
        assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []


def test_files_that_look_like_our_temporary_files_stay(out: Path, tmp_path: Path) -> None:
    names = [".out.jsonl.backup.partial", ".out.jsonl.0123456789abcdef.partial"]
    for name in names:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    list(train_batch([*PROMPTS, ""], SHORT, out=out))
    list(train_batch([*PROMPTS, ""], SHORT, out=out))
    assert [(tmp_path / name).read_text() for name in names] == ["mine", "mine"]


def test_special_files_and_links(out: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo, Path("/dev/null"), Path("/dev/fd/0")):
        with pytest.raises(FileRefused, match=f"{path} is not a regular file|cannot write {path}"):
            list(train_batch(PROMPTS, SHORT, out=path))
    # a symbolic link is followed and stays
    target = tmp_path / "target.jsonl"
    out.symlink_to(target)
    list(train_batch([*PROMPTS, ""], SHORT, out=out))
    list(train_batch([*PROMPTS, ""], SHORT, out=out))
    assert out.is_symlink()
    assert [line["line"] for line in read_lines(target)] in ([1, 2, 3, 4], [4, 1, 2, 3])
    # a file with a hard link can be appended to but not replaced: the link would keep the old lines
    os.link(target, tmp_path / "second.jsonl")
    before = target.read_bytes()
    with pytest.raises(FileRefused, match=r"it has a hard link.*Choose another file for `out`"):
        list(train_batch([*PROMPTS, ""], SHORT, out=out))
    assert target.read_bytes() == before
    target.write_bytes(b"".join(line for line in before.splitlines(keepends=True) if b'"error": null' in line)[:-9])
    list(train_batch(PROMPTS, SHORT, out=out))
    assert len(read_lines(tmp_path / "second.jsonl")) == 3
    assert (tmp_path / "second.jsonl").samefile(target)
