"""The whole program as its user has it: a real terminal, a real worker, real trainings, by keys alone."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from softprompt import Library
from tests.pty_screen import Terminal
from tests.worker_process import Home, until

TRAINING = r"^ ?● (softprompt-tui  ·  )?training\b"  # the first line: the panes below keep what they showed before


@pytest.fixture
def worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    made = Home(monkeypatch.setenv)
    yield made
    made.close()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Path]]:
    """One worker for the tests that ask nothing of it."""
    made = Home(lambda *_: None)
    yield made, tmp_path_factory.mktemp("lasting")
    made.close()


@pytest.fixture
def idle(lasting: tuple[Home, Path], monkeypatch: pytest.MonkeyPatch) -> Home:
    made, home = lasting
    monkeypatch.setenv("SOFTPROMPT_HOME", str(home))
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(made.runtime))
    return made


@pytest.mark.parametrize(("width", "height", "steps"), [(80, 24, 300), (120, 40, 60)], ids=["80-24", "120-40"])
def test_from_the_first_start_to_the_last_key(worker: Home, width: int, height: int, steps: int) -> None:
    with Terminal(width=width, height=height) as t:
        t.shows("13 of 77 tokens", "The library is empty", "worker ready", within=60)
        t.press("end", " and deer")
        if steps != 300:
            t.press("f2", "tab", "tab", f"{steps}")
            t.shows(rf"steps +{steps}\b")
        t.press("ctrl+t")
        t.shows(rf"step \d+ of {steps}", r"similarity 0\.\d{4}", r"\[v1\]", within=60)
        t.shows(r"serene-lands", "composed", r"similarity 0\.99", within=120)
        t.press("f4")
        t.shows("Rename", r"serene-lands\S* +3 ")
        t.press("r")
        t.shows("Another name")
        t.press("landscape", "enter")
        t.shows(r"landscape +3")
        t.press("enter")
        t.shows("landscape is open")
        t.press("f5", "[landscape] mountain view")
        t.shows(r"fidelity 0\.9", within=30)
        t.press("f4", "d")
        t.shows("deleted; u brings it back", "The library is empty")
        t.press("u")
        t.shows(r"landscape +3")
        t.press("ctrl+q")
        assert t.ends() == 0
        assert t.modes() == t.before
    entry = Library().open("landscape")
    assert entry.prompt.hard_prompt.endswith("lake and deer")
    assert entry.prompt.similarity > 0.99


def test_killed_in_the_middle_of_a_training_it_comes_back_with_the_whole_curve(worker: Home) -> None:
    with Terminal() as t:
        t.shows("worker ready", within=60)
        t.press("f2", "tab", "tab", "100000")
        t.shows("steps +100000")
        t.press("ctrl+t")
        t.shows(r"step \d{2,} of 100000", within=60)
        t.signal(signal.SIGKILL)
        t.ends()
    with Terminal() as t:
        t.shows(r"step \d{2,} of 100000", TRAINING, within=60)
        worker.kill()
        t.shows("no worker: ctrl\\+r starts it", within=2.5)
        t.press("ctrl+r")
        t.shows(TRAINING, within=60)
        t.shows(r"step \d{2,} of 100000")
        t.press("ctrl+q")
        t.shows("not started here", "keep training")  # by the one that was killed
        t.press("a")
        assert t.ends(20) == 0
    until(lambda: Library().list().total == 1)
    assert Library().list().entries[0].stopped == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_the_terminal_sane(idle: Home, number: signal.Signals) -> None:
    with Terminal() as t:
        t.shows("worker ready", within=60)
        t.signal(number)
        t.ends(2)
        assert t.modes() == t.before
        assert not t.screen.cursor.hidden
    pid = idle.pid()
    assert pid is not None
    os.kill(pid, 0)


@pytest.mark.parametrize(("number", "stop"), [(signal.SIGTERM, False), (signal.SIGHUP, True)])
def test_a_signal_ends_it_on_a_terminal_that_takes_no_output(idle: Home, number: signal.Signals, stop: bool) -> None:
    """A stalled link, of which nothing is read any more, and a terminal that was stopped by XOFF."""
    with Terminal(width=200, height=60) as t:
        t.shows("worker ready", within=60)
        if stop:
            termios.tcflow(t.slave, termios.TCOOFF)
        until(lambda: t.press("f5", "f6") or is_full(t.slave))  # each is drawn, and nobody reads
        t.signal(number)
        t.process.wait(2)
        drawn = t.bytes
        t.settle()
        assert t.modes() == t.before
        left = bytes(t.sent[drawn:])
        for mode in (b"?1049l", b"?7h", b"?25h", b"?1000l", b"?1003l", b"?2004l", b"?1004l", b"?2026l", b"<u"):
            assert b"\x1b[" + mode in left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_training_in_the_foreground_whose_terminal_takes_no_output(
    home: Path, number: signal.Signals
) -> None:
    command = (sys.executable, "-m", "softprompt_tui", "train", "a red fox", "--steps", "100000", "--name", "fox")
    with Terminal(*command) as t:
        t.shows(r"loss 0\.\d+", within=60)
        termios.tcflow(t.slave, termios.TCOOFF)
        until(lambda: is_full(t.slave))
        t.signal(number)
        t.process.wait(30)
    assert Library().open("fox").prompt.stopped == "interrupted"


def is_full(slave: int) -> bool:
    """Whether a terminal takes no more output."""
    return not select.select([], [slave], [], 0)[1]


def test_a_dumb_terminal_gets_one_line(home: Path) -> None:
    for term in ("dumb", ""):
        with Terminal(TERM=term) as t:
            assert t.ends(20) == 2
            assert t.sent.count(b"\n") <= 3  # one line, which may be longer than the terminal is wide
            assert b"the interface needs a terminal that can place text, and TERM is" in t.sent
            assert b"\x1b[" not in t.sent


def test_standard_error_may_be_a_file_and_gnu_screen_gets_no_mouse(idle: Home, tmp_path: Path) -> None:
    """While the mouse is on, GNU screen 4.9 holds an Esc until the next key comes, and then sends alt and that key."""
    command = f"exec '{sys.executable}' -m softprompt_tui 2>'{tmp_path}/errors'"
    with Terminal("sh", "-c", command, TERM="screen-256color", STY="1.pts-0.here") as t:
        t.shows("worker ready", within=60)
        t.press("f3")
        t.shows("Loss/similarity")
        t.press("escape")
        t.shows("Settings")
        t.press("ctrl+q")
        assert t.ends() == 0
        assert not re.search(rb"\x1b\[\?100[0-9]h", bytes(t.sent).replace(b"\x1b[?1004h", b""))
        assert t.modes() == t.before
    assert (tmp_path / "errors").read_text() == ""


def test_a_terminal_that_vanishes_ends_it(idle: Home) -> None:
    with Terminal() as t:
        t.shows("worker ready", within=60)
        os.close(t.slave)
        os.close(t.master)
        t.slave = t.master = -1
        t.process.wait(3)
    assert idle.pid() is not None


@pytest.mark.parametrize(
    ("environment", "colours", "none"),
    [
        ({"NO_COLOR": "1"}, "", r"\x1b\[[0-9;:]*\b(3[0-7]|4[0-7]|9[0-7]|10[0-7]|38|48)\b"),
        ({"TERM": "xterm", "COLORTERM": ""}, r"\x1b\[[0-9;]*3[0-7]", r"[34]8[;:][25]"),
        ({}, r"\x1b\[[0-9;]*38;2;", ""),
    ],
)
def test_colours_are_those_the_terminal_has(idle: Home, environment: dict[str, str], colours: str, none: str) -> None:
    with Terminal(**environment) as t:
        t.shows("worker ready", within=60)
        t.press("f4")
        t.shows("Rename")
        sent = t.sent.decode()
    assert not colours or re.search(colours, sent)
    assert not none or not re.search(none, sent)
