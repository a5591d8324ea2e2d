"""Closed, broken and full streams, failing disks, deleted folders and unexpected errors: one line and an exit code.

Exit codes: 0 for success, even if the output is closed or its reader goes away; 1 for a failure or lost output; 2 for
bad input; 130 for an interruption.
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

OUTPUT_LOST = "softprompt-tui: cannot write standard output: No space left on device\n"
STREAMS = [  # command, redirections, exit code, everything on standard error
    ("list", ">&-", 0, ""),
    ("list", "<&-", 0, ""),
    ("list", "2>&-", 0, ""),
    ("list", "<&- >&- 2>&-", 0, ""),
    ("show fox --json", "| head -c 1 >/dev/null", 0, ""),
    ("list", "> /dev/full", 1, OUTPUT_LOST),
    ("--help", "> /dev/full", 1, OUTPUT_LOST),
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
    for i, ((command, streams, code, stderr), actual_code) in enumerate(zip(STREAMS, codes, strict=True)):
        assert (actual_code, (tmp_path / str(i)).read_text()) == (code, stderr), (command, streams)
    assert Library().open("fox").note == ""


@pytest.mark.skipif(not shutil.which("localedef"), reason="needs glibc's localedef")
def test_a_latin1_locale_prints_question_marks_for_missing_characters(home: Path, tmp_path: Path) -> None:
    localedef = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / "en_US.ISO-8859-1")]
    if subprocess.run(localedef, capture_output=True, check=False).returncode:
        pytest.skip("the system has no locale sources")
    Library().save(a_prompt(name="狐", hard_prompt="café 狐"))
    environment = os.environ | {"LOCPATH": str(tmp_path), "LC_ALL": "en_US.ISO-8859-1"}
    result = subprocess.run(
        [sys.executable, "-m", "softprompt_tui", "list"], env=environment, capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode("latin-1").splitlines()[1].split()[0] == "??"
    assert "café ??" in result.stdout.decode("latin-1")


def test_a_batch_whose_reader_goes_away_stops_and_says_how_to_continue(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("a red fox\n")
    broken_pipe = OSError(errno.EPIPE, "Broken pipe")
    monkeypatch.setattr(sys.modules["softprompt_tui.cli.commands.batch"], "output_failure", lambda: broken_pipe)
    result = run("batch", str(tmp_path / "prompts.txt"), "-k", "1", "--steps", "1000")
    assert result.returncode == 0
    assert "the reader of the results is gone; run the same command again to continue" in result.stderr


@pytest.mark.parametrize(
    ("error_number", "code"),
    [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EROFS, 1), (errno.EIO, 1), (errno.EACCES, 2)],
)
def test_a_failed_write_names_the_file_and_is_bad_input_only_without_permission(
    run: Run, tmp_path: Path, error_number: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Library().save(a_prompt(name="fox"))
    run("list")  # creates the library's index
    backup = tmp_path / "all.zip"

    def fail(*_: object, **__: object) -> None:
        raise OSError(error_number, os.strerror(error_number))

    monkeypatch.setattr(os, "fsync", fail)
    for args, file in (
        (["rename", "fox", "vixen"], Library().entries / f"{entry.id}.2.safetensors"),
        (["export", "fox", "--out", str(tmp_path / "fox.safetensors")], tmp_path / "fox.safetensors"),
        (["library", "backup", str(backup)], backup),
    ):
        result = run(*args)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (code, "", 1), (args, result)
        assert str(file) in result.stderr
        assert os.strerror(error_number) in result.stderr
    assert Library().open("fox").revision == 1
    assert not backup.exists()


def test_a_full_disk_at_the_worker_is_not_bad_input() -> None:
    message = {
        "kind": "HomeError",
        "bad_input": False,
        "message": "runs cannot be written to (No space left on device)",
    }
    assert isinstance(error_from_message(message), HomeError)
    assert not is_bad_input(error_from_message(message))
    assert is_bad_input(error_from_message(message | {"bad_input": True}))


def test_an_unexpected_error_prints_one_line_and_writes_a_private_report(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("wires crossed\x1b[2J\nand more")

    monkeypatch.setattr(Library, "list", fail)
    result = run("list", "my secret prompt", "--model=mini")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "\x1b" not in result.stderr
    match = re.fullmatch(
        r"softprompt-tui: an error in softprompt-tui itself: RuntimeError: wires crossed␛\[2J\. Please report it "
        r"with the file (\S+)\n",
        result.stderr,
    )
    assert match, result.stderr
    report = Path(match[1])
    assert report.parent.resolve() == (home / "cache" / "reports").resolve()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    text = report.read_text()
    assert "Traceback (most recent call last)" in text
    assert "wires crossed" in text
    assert "command: list --model\n" in text
    assert "secret" not in text


def test_an_error_in_a_thread_prints_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_here_and_in_a_thread(*_: object, **__: object) -> None:
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        raise ValueError

    monkeypatch.setattr(Library, "list", fail_here_and_in_a_thread)
    before = threading.excepthook
    result = run("list")
    assert threading.excepthook is before
    assert [re.search(r"itself: (\w+)", line)[1] for line in result.stderr.splitlines()] == [  # type: ignore[index]
        "ZeroDivisionError",
        "ValueError",
    ]


def test_reports_are_limited_and_go_to_the_temporary_folder_if_the_home_is_not_writable(
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
def enter_deleted_folder(tmp_path: Path) -> object:
    working_folder = Path.cwd()
    (tmp_path / "gone").mkdir()

    def enter() -> None:
        (tmp_path / "gone").mkdir(exist_ok=True)
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()

    yield enter
    os.chdir(working_folder)


def test_in_a_deleted_folder_commands_work_and_relative_paths_are_refused(
    run: Run, tmp_path: Path, enter_deleted_folder: Callable[[], None]
) -> None:
    Library().save(a_prompt(name="fox"))
    enter_deleted_folder()
    assert run("list").stdout.splitlines()[1].startswith("fox")
    assert Path.cwd().is_dir()  # torch would end the process in a folder that does not exist
    for args in (
        ["import", "x.pt"],
        ["export", "fox"],
        ["export", "fox", "--out", "x.safetensors"],
        ["batch", "prompts.txt"],
        ["train", "a red fox", "--model", "local-dir:model"],
    ):
        enter_deleted_folder()
        result = run(*args)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1), result
        assert "needs the working folder, but the working folder was deleted. Give an absolute path" in result.stderr
    enter_deleted_folder()
    assert run("export", "fox", "--out", str(tmp_path / "x.safetensors")).returncode == 0
    enter_deleted_folder()
    result = run("list", SOFTPROMPT_HOME="home")
    assert result.returncode == 2
    assert "SOFTPROMPT_HOME is 'home', but the working folder was deleted" in result.stderr


def test_a_relative_runtime_folder_does_not_depend_on_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="sp") as short_home:
        monkeypatch.setenv("SOFTPROMPT_HOME", short_home)
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
            with pytest.raises(Exception, match="the worker has ended"):
                list(second.events())
        assert status["socket"] == str(Endpoint().socket) == str(Path(short_home, "data", "rt", Endpoint().socket.name))
        assert not list((tmp_path / "a").iterdir())


NATIVE_OUTPUT_SCRIPT = """
import os, sys
from softprompt_tui.cli import streams
streams.prepare()
with streams.native_errors_logged():
    os.write(2, b"a library \\x1b[2J\\n")
    print("a progress bar", file=sys.stderr, flush=True)
os.write(2, b"afterwards\\n")
"""


@pytest.mark.parametrize("can_log", [True, False])
def test_output_of_compiled_libraries_goes_to_the_log_while_a_model_is_loaded(can_log: bool, home: Path) -> None:
    if not can_log:  # then the output is dropped
        home.mkdir()
        (home / "cache").touch()
    result = subprocess.run([sys.executable, "-c", NATIVE_OUTPUT_SCRIPT], capture_output=True, check=True)
    assert result.stderr == b"a progress bar\nafterwards\n"
    assert not can_log or log_path(PROGRAM).read_bytes() == b"a library \x1b[2J\n"
