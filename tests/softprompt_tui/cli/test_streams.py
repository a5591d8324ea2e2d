"""Streams that are closed, broken or full, failing disks, lost folders, and errors that nobody expected: one line, and a code.

0: done, also where the output is closed or its reader goes away. 1: failed, or the output is lost. 2: bad input. 130: interrupted.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from softprompt import Library
from softprompt.errors import HomeError, is_bad_input
from softprompt.worker.client import connect, error_from_message
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.log import PROGRAM, log_path
from softprompt.worker.protocol import Shutdown, Status
from softprompt_tui.crash_report import MAX_REPORTS, write_report
from tests.library_model import a_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]

LOST = "softprompt-tui: cannot write standard output: No space left on device\n"
STREAMS = [  # command, what the shell does with its streams, exit code, all that stands on standard error
    ("list", ">&-", 0, ""),
    ("list", "<&-", 0, ""),
    ("list", "2>&-", 0, ""),
    ("list", "<&- >&- 2>&-", 0, ""),
    ("show fox --json", "| head -c 1 >/dev/null", 0, ""),
    ("list", "> /dev/full", 1, LOST),
    ("--help", "> /dev/full", 1, LOST),
    ("show missing", "2> /dev/full", 2, ""),
    ("note fox -", "<&-", 2, "softprompt-tui: standard input is closed, so there is no note to read\n"),
    ("train -", "<&-", 2, "softprompt-tui: standard input is closed, so there is no prompt to read\n"),
]


def test_every_stream_may_be_closed_broken_or_full(home: Path, tmp_path: Path) -> None:
    Library().save(a_prompt(name="fox"))
    python = f"'{sys.executable}' -m softprompt_tui"
    script = "set -o pipefail\n" + "\n".join(
        f"({python} {command} {streams}) >/dev/null 2>{tmp_path}/{i}; echo $? >>{tmp_path}/codes"
        for i, (command, streams, _, _) in enumerate(STREAMS)
    )
    subprocess.run(["bash", "-c", script], check=True, stdin=subprocess.DEVNULL)
    codes = map(int, (tmp_path / "codes").read_text().split())
    for i, ((command, streams, code, said), ended) in enumerate(zip(STREAMS, codes, strict=True)):
        assert (ended, (tmp_path / str(i)).read_text()) == (code, said), (command, streams)
    assert Library().open("fox").note == ""


@pytest.mark.skipif(not shutil.which("localedef"), reason="needs glibc's localedef")
def test_a_real_latin1_locale(home: Path, tmp_path: Path) -> None:
    made = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / "en_US.ISO-8859-1")]
    if subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("the system has no locale sources")
    Library().save(a_prompt(name="狐", hard_prompt="café 狐"))
    environment = os.environ | {"LOCPATH": str(tmp_path), "LC_ALL": "en_US.ISO-8859-1"}
    done = subprocess.run(
        [sys.executable, "-m", "softprompt_tui", "list"], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("latin-1").splitlines()[1].split()[0] == "??"
    assert "café ??" in done.stdout.decode("latin-1")


def test_a_batch_whose_results_nobody_can_read_stops_and_says_how_to_go_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("a red fox\n")
    gone = OSError(errno.EPIPE, "Broken pipe")
    monkeypatch.setattr(sys.modules["softprompt_tui.cli.commands.batch"], "output_failure", lambda: gone)
    done = run("batch", str(tmp_path / "prompts.txt"), "-k", "1", "--steps", "1000")
    assert done.returncode == 0
    assert "the reader of the results is gone; run the same command again to continue" in done.stderr


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EROFS, 1), (errno.EIO, 1), (errno.EACCES, 2)],
)
def test_a_full_or_read_only_disk_is_no_bad_input_and_the_file_is_named(
    run: Run, tmp_path: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Library().save(a_prompt(name="fox"))
    run("list")  # what is made of the library once is there
    backup = tmp_path / "all.zip"

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    for args, file in (
        (["rename", "fox", "vixen"], Library().entries / f"{saved.id}.2.safetensors"),
        (["export", "fox", "--out", str(tmp_path / "fox.safetensors")], tmp_path / "fox.safetensors"),
        (["library", "backup", str(backup)], backup),
    ):
        done = run(*args)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), (args, done)
        assert str(file) in done.stderr
        assert os.strerror(number) in done.stderr
    assert Library().open("fox").revision == 1
    assert not backup.exists()


def test_a_full_disk_of_the_worker_is_no_bad_input_either() -> None:
    told = {"kind": "HomeError", "bad_input": False, "message": "runs cannot be written to (No space left on device)"}
    assert isinstance(error_from_message(told), HomeError)
    assert not is_bad_input(error_from_message(told))
    assert is_bad_input(error_from_message(told | {"bad_input": True}))


def test_an_error_that_nobody_expected_is_one_line_and_a_private_report(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("wires crossed\x1b[2J\nand more")

    monkeypatch.setattr(Library, "list", fails)
    done = run("list", "my secret prompt", "--model=mini")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "\x1b" not in done.stderr
    said = re.fullmatch(
        r"softprompt-tui: an error in softprompt-tui itself: RuntimeError: wires crossed␛\[2J\. Please report it "
        r"with the file (\S+)\n",
        done.stderr,
    )
    assert said, done.stderr
    report = Path(said[1])
    assert report.parent.resolve() == (home / "cache" / "reports").resolve()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    text = report.read_text()
    assert "Traceback (most recent call last)" in text
    assert "wires crossed" in text
    assert "command: list --model\n" in text
    assert "secret" not in text


def test_an_error_in_a_thread_leaves_no_traceback_on_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_beside(*_: object, **__: object) -> None:
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        raise ValueError

    monkeypatch.setattr(Library, "list", fails_beside)
    before = threading.excepthook
    done = run("list")
    assert threading.excepthook is before
    assert [re.search(r"itself: (\w+)", line)[1] for line in done.stderr.splitlines()] == [
        "ZeroDivisionError",
        "ValueError",
    ]  # type: ignore[index]


def test_reports_are_few_and_one_is_written_also_where_the_home_cannot_be(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [write_report(ValueError(str(i))) for i in range(MAX_REPORTS + 3)]
    assert all(written)
    assert len(list((home / "cache" / "reports").iterdir())) == MAX_REPORTS
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOFTPROMPT_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    elsewhere = write_report(ValueError("no home"))
    assert elsewhere is not None
    assert elsewhere.parent == tmp_path
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert write_report(ValueError("nowhere at all")) is None


@pytest.fixture
def in_a_deleted_folder(tmp_path: Path) -> object:
    here = Path.cwd()
    (tmp_path / "gone").mkdir()

    def go() -> None:
        (tmp_path / "gone").mkdir(exist_ok=True)
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()

    yield go
    os.chdir(here)


def test_in_a_deleted_folder_commands_work_and_relative_paths_are_refused(
    run: Run, tmp_path: Path, in_a_deleted_folder: Callable[[], None]
) -> None:
    Library().save(a_prompt(name="fox"))
    in_a_deleted_folder()
    assert run("list").stdout.splitlines()[1].startswith("fox")
    assert Path.cwd().is_dir()  # torch would end the process in one that is not there
    for args in (
        ["import", "x.pt"],
        ["export", "fox"],
        ["export", "fox", "--out", "x.safetensors"],
        ["batch", "prompts.txt"],
        ["train", "a red fox", "--model", "local-dir:model"],
    ):
        in_a_deleted_folder()
        done = run(*args)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
        assert "needs the working folder, but the working folder was deleted. Give an absolute path" in done.stderr
    in_a_deleted_folder()
    assert run("export", "fox", "--out", str(tmp_path / "x.safetensors")).returncode == 0
    in_a_deleted_folder()
    done = run("list", SOFTPROMPT_HOME="home")
    assert done.returncode == 2
    assert "SOFTPROMPT_HOME is 'home', but the working folder was deleted" in done.stderr


def test_a_relative_runtime_folder_is_one_place_wherever_a_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="sp") as short:
        monkeypatch.setenv("SOFTPROMPT_HOME", short)
        monkeypatch.setenv("SOFTPROMPT_RUNTIME", "rt")
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        monkeypatch.chdir(tmp_path / "a")
        first = connect()
        assert first is not None
        monkeypatch.chdir(tmp_path / "b")
        second = connect(start=False)
        assert second is not None
        with first, second:
            status = second.request(Status())
            second.request(Shutdown())
            with pytest.raises(Exception, match="the worker is gone"):
                list(second.events())
        assert status["socket"] == str(Endpoint().socket) == str(Path(short, "data", "rt", Endpoint().socket.name))
        assert not list((tmp_path / "a").iterdir())


NATIVE = """
import os, sys
from softprompt_tui.cli import streams
streams.prepare()
with streams.native_errors_logged():
    os.write(2, b"a library \\x1b[2J\\n")
    print("a progress bar", file=sys.stderr, flush=True)
os.write(2, b"afterwards\\n")
"""


@pytest.mark.parametrize("can_log", [True, False])
def test_what_compiled_libraries_print_goes_to_the_log_while_a_model_is_loaded(can_log: bool, home: Path) -> None:
    if not can_log:  # then it is dropped
        home.mkdir()
        (home / "cache").touch()
    done = subprocess.run([sys.executable, "-c", NATIVE], capture_output=True, check=True)
    assert done.stderr == b"a progress bar\nafterwards\n"
    assert not can_log or log_path(PROGRAM).read_bytes() == b"a library \x1b[2J\n"
