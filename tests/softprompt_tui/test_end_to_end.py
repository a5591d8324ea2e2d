"""The whole program as a user runs it: a real terminal, a real worker and real trainings, with keys only."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from softprompt import Library
from tests.fake_hub import WEIGHTS, serve_hub
from tests.pty_screen import Terminal
from tests.worker_process import Home, wait_until

TRAINING = r"^ ?● (softprompt-tui  ·  )?training\b"  # in the first line; the panes still show earlier content


@pytest.fixture(scope="module")
def shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Path]]:
    """One worker for all tests that send it no work."""
    worker = Home(lambda *_: None)
    yield worker, tmp_path_factory.mktemp("shared")
    worker.close()


@pytest.fixture
def idle(shared_worker: tuple[Home, Path], monkeypatch: pytest.MonkeyPatch) -> Home:
    worker, home = shared_worker
    monkeypatch.setenv("SOFTPROMPT_HOME", str(home))
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(worker.runtime))
    return worker


@pytest.mark.parametrize(("width", "height", "steps"), [(80, 24, 300), (120, 40, 60)], ids=["80-24", "120-40"])
def test_a_user_trains_renames_composes_deletes_and_quits(worker: Home, width: int, height: int, steps: int) -> None:
    with Terminal(width=width, height=height) as t:
        t.wait_for("13 of 77 tokens", "The library is empty", "worker ready", within=60)
        t.press("end", " and deer")
        if steps != 300:
            t.press("f2", "tab", "tab", f"{steps}")
            t.wait_for(rf"steps +{steps}\b")
        t.press("ctrl+t")
        t.wait_for(rf"\d+(/| of ){steps}", r"best 0\.\d{4}", r"\[v1\]", within=60)
        t.wait_for(r"serene-lands", r"composed 0\.9", r"0\.99\d\d", within=120)
        t.press("f4")
        t.wait_for("Rename", r"serene-la\S* +3 ")
        t.press("r")
        t.wait_for("New name")
        t.press("landscape", "enter")
        t.wait_for(r"landscape +3")
        t.press("enter")
        t.wait_for("landscape is open")
        t.press("f5", "[landscape] mountain view")
        t.wait_for(r"fidelity 0\.9", within=30)
        t.press("f4", "d")
        t.wait_for("deleted; press u to undo", "The library is empty")
        t.press("u")
        t.wait_for(r"landscape +3")
        t.press("ctrl+q")
        assert t.wait_for_exit() == 0
        assert t.modes() == t.initial_modes
    entry = Library().open("landscape")
    assert entry.prompt.hard_prompt.endswith("lake and deer")
    assert entry.prompt.similarity > 0.99


def test_after_a_kill_during_a_training_the_whole_curve_is_back(worker: Home) -> None:
    with Terminal() as t:
        t.wait_for("worker ready", within=60)
        t.press("f2", "tab", "tab", "100000")
        t.wait_for("steps +100000")
        t.press("ctrl+t")
        t.wait_for(r"\d{2,}/100000", within=60)
        t.send_signal(signal.SIGKILL)
        t.wait_for_exit()
    with Terminal() as t:
        t.wait_for(r"\d{2,}/100000", TRAINING, within=60)
        worker.kill()
        t.wait_for("no worker: ctrl\\+r starts one", within=2.5)
        t.press("ctrl+r")
        t.wait_for(TRAINING, within=60)
        t.wait_for(r"\d{2,}/100000")
        t.press("ctrl+q")
        t.wait_for("not started here", "Keep training")  # the killed interface started it
        t.press("a")
        assert t.wait_for_exit(20) == 0
    wait_until(lambda: Library().list().total == 1)
    assert Library().list().entries[0].stopped == "interrupted"


def test_a_user_pulls_cancels_resumes_chooses_and_deletes_a_model(
    idle: Home, tmp_path: Path, cached_model_list: Path
) -> None:
    cache = Path(os.environ["SOFTPROMPT_HOME"]) / "cache"
    cache.mkdir(exist_ok=True)
    for file in cached_model_list.glob("models-*"):
        shutil.copy(file, cache)
    half = len(WEIGHTS) // 2
    with serve_hub() as hub, Terminal(**hub.environment(tmp_path)) as t:
        hub.stop_at = half
        t.wait_for("worker ready", within=60)
        t.press("ctrl+o")
        t.wait_for("●mini", "ViT-L-14-quickgelu/openai")
        t.press("/", "b32 quickgelu openai", "enter", "p")
        t.wait_for(r"openai +text +512 +1\.0 MB +50 %", r"▕█+[▏▎▍▌▋▊▉]? +▏ 524 kB of 1\.0 MB")
        t.press("x")
        t.wait_for("part 524 kB", "p resumes the pull")
        t.press("p")
        t.wait_for("50 %")
        t.press("ctrl+q")
        assert t.wait_for_exit(2) == 0
    assert [file.stat().st_size for file in tmp_path.rglob("*.softprompt-partial")] == [half]
    with serve_hub() as hub, Terminal(**hub.environment(tmp_path)) as t:
        t.wait_for("worker ready", within=60)
        t.press("ctrl+o")
        t.wait_for(r"ViT-B-32-quickgelu/openai .*part 524 kB")
        t.press("j", "p")
        t.wait_for("ViT-B-32-quickgelu/openai is on disk; enter uses it")
        assert hub.ranges == [f"bytes={half}-"]
        t.press("enter")
        t.wait_for("model: ViT-B-32-quickgelu/openai")
        t.wait_for(r"model +ViT-B…ai")
        t.press("ctrl+o")
        t.wait_for("●ViT-B-32-quickgelu/openai")
        t.press("d")
        t.wait_for("revision aaaaaaaaaaaa +main", "that other", "Delete 1.0 MB")
        t.press("d")
        t.wait_for("1.0 MB freed")
        t.press("escape", "ctrl+q")
        assert t.wait_for_exit() == 0
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_interface_and_restores_the_terminal(idle: Home, number: signal.Signals) -> None:
    with Terminal() as t:
        t.wait_for("worker ready", within=60)
        t.send_signal(number)
        t.wait_for_exit(2)
        assert t.modes() == t.initial_modes
        assert not t.screen.cursor.hidden
    pid = idle.pid()
    assert pid is not None
    os.kill(pid, 0)


@pytest.mark.parametrize(("number", "stop"), [(signal.SIGTERM, False), (signal.SIGHUP, True)])
def test_a_signal_ends_the_interface_on_a_terminal_that_accepts_no_output(
    idle: Home, number: signal.Signals, stop: bool
) -> None:
    """Either nobody reads from the terminal any more, or XOFF has stopped it."""
    with Terminal(width=200, height=60) as t:
        t.wait_for("worker ready", within=60)
        if stop:
            termios.tcflow(t.slave, termios.TCOOFF)
        wait_until(lambda: t.press("f5", "f6") or is_full(t.slave))  # every key draws, and nobody reads
        t.send_signal(number)
        t.process.wait(2)
        drawn = t.byte_count
        t.settle()
        assert t.modes() == t.initial_modes
        remaining = bytes(t.output[drawn:])
        for mode in (b"?1049l", b"?7h", b"?25h", b"?1000l", b"?1003l", b"?2004l", b"?1004l", b"?2026l", b"<u"):
            assert b"\x1b[" + mode in remaining


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_foreground_training_on_a_terminal_that_accepts_no_output(
    home: Path, number: signal.Signals
) -> None:
    command = (sys.executable, "-m", "softprompt_tui", "train", "a red fox", "--steps", "100000", "--name", "fox")
    with Terminal(*command) as t:
        t.wait_for(r"loss 0\.\d+", within=60)
        termios.tcflow(t.slave, termios.TCOOFF)
        wait_until(lambda: is_full(t.slave))
        t.send_signal(number)
        t.process.wait(30)
    assert Library().open("fox").prompt.stopped == "interrupted"


def is_full(slave: int) -> bool:
    """Return whether a terminal accepts no more output."""
    return not select.select([], [slave], [], 0)[1]


def test_a_dumb_terminal_gets_a_one_line_error(home: Path) -> None:
    for term in ("dumb", ""):
        with Terminal(TERM=term) as t:
            assert t.wait_for_exit(20) == 2
            assert t.output.count(b"\n") <= 3  # one line, which may wrap
            assert b"the interface needs a terminal that can position text" in t.output
            assert b"\x1b[" not in t.output


def test_standard_error_may_be_a_file_and_gnu_screen_gets_no_mouse(idle: Home, tmp_path: Path) -> None:
    """While the mouse is on, GNU screen 4.9 holds an Esc until the next key, and then sends alt and that key."""
    command = f"exec '{sys.executable}' -m softprompt_tui 2>'{tmp_path}/errors'"
    with Terminal("sh", "-c", command, TERM="screen-256color", STY="1.pts-0.here") as t:
        t.wait_for("worker ready", within=60)
        t.press("f1")
        t.wait_for("d Guides")
        t.press("escape", "ctrl+q")
        assert t.wait_for_exit() == 0
        assert not re.search(rb"\x1b\[\?100[0-9]h", bytes(t.output).replace(b"\x1b[?1004h", b""))
        assert t.modes() == t.initial_modes
    assert (tmp_path / "errors").read_text() == ""


def test_the_interface_ends_when_its_terminal_vanishes(idle: Home) -> None:
    with Terminal() as t:
        t.wait_for("worker ready", within=60)
        os.close(t.slave)
        os.close(t.master)
        t.slave = t.master = -1
        t.process.wait(3)
    assert idle.pid() is not None


@pytest.mark.parametrize(
    ("environment", "used", "unused"),
    [
        ({"NO_COLOR": "1"}, "", r"\x1b\[[0-9;:]*\b(3[0-7]|4[0-7]|9[0-7]|10[0-7]|38|48)\b"),
        ({"TERM": "xterm", "COLORTERM": ""}, r"\x1b\[[0-9;]*3[0-7]", r"[34]8[;:][25]"),
        ({}, r"\x1b\[[0-9;]*38;2;", ""),
    ],
)
def test_the_interface_uses_only_colors_that_the_terminal_has(
    idle: Home, environment: dict[str, str], used: str, unused: str
) -> None:
    with Terminal(**environment) as t:
        t.wait_for("worker ready", within=60)
        t.press("f4")
        t.wait_until_hidden("F8 Settings")
        sent = t.output.decode()
    assert not used or re.search(used, sent)
    assert not unused or not re.search(unused, sent)
