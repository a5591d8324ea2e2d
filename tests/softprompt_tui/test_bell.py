"""The bell: when a long run ends, the terminal is told once, in the way that the user chose."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from textual.drivers.headless_driver import HeadlessDriver
from textual.widgets import Input

from softprompt.jobs.job import TrainJob
from softprompt.worker.run_folder import Run
from softprompt_tui.screens.dialogs import AskText
from softprompt_tui.services.notification import notification
from softprompt_tui.state import settings as stored_settings
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.pty_screen import Terminal
from tests.worker_process import Home

MOUSE_POINTER = "\x1b]22;"  # Textual sets its shape
LONG_AGO = "2026-01-01T00:00:00.000+00:00"
HOSTILE = "a;b\x07\x1b]52;c;aGk=\x07\x1b\\\x9c\u202e\n" + "x" * 1000


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the interface writes to the terminal besides its frames: the pilot's driver draws none."""
    texts: list[str] = []

    def write(_: HeadlessDriver, data: str) -> None:
        if not data.startswith(MOUSE_POINTER):
            texts.append(data)

    monkeypatch.setattr(HeadlessDriver, "write", write)
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    return texts


def begin_long_ago(d: Session, run: str) -> None:
    d.worker.begin(run)
    d.worker.runs[run] = replace(d.worker.runs[run], began=LONG_AGO)


pytestmark = pytest.mark.usefixtures("runtime")


@pytest.mark.parametrize("error", ["", "the disk is full"])
def test_a_long_run_rings_when_it_ends(written: list[str], error: str) -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        begin_long_ago(d, run)
        d.worker.end(run, error)
        await d.shows("failed" if error else "is in the library")
        assert written == ["\a"]

    run_scene(scene)


def test_a_short_run_and_a_run_that_the_user_stopped_do_not_ring(written: list[str]) -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        d.worker.end(run)
        await d.shows("is in the library")
        run = await d.train()
        begin_long_ago(d, run)
        d.worker._apply_event(d.worker.runs[run], {"event": "stopped"})
        await d.until(lambda: d.app.runs.by_id[run].state == "stopped")
        assert written == []

    run_scene(scene)


def test_runs_of_others_ring_only_in_view_and_runs_that_end_together_ring_once(written: list[str]) -> None:
    async def scene(d: Session) -> None:
        own = await d.train()
        begin_long_ago(d, own)
        await d.until(lambda: d.app.runs.is_training(own))
        others = [Run(f"{i:016x}", TrainJob("a boat"), LONG_AGO, position=float(i)) for i in range(100, 150)]
        for other in others:
            d.worker.runs[other.id] = other
            d.worker._apply_event(other, {"event": "queued", "position": other.position})
            begin_long_ago(d, other.id)
            d.worker.end(other.id, "of another interface")
        await d.until(lambda: sum(run.state == "failed" for run in d.app.runs.by_id.values()) == 50)
        assert written == []
        for i in range(50):
            d.worker.runs[own] = replace(d.worker.runs[own], state="running", began=LONG_AGO)
            d.worker._broadcast({"type": "run", "run": d.worker.runs[own].as_dict()})
            d.worker.end(own, f"error {i}")
        await d.shows("error 49")
        assert written == ["\a"]

    run_scene(scene, 120, 40)


def test_the_palette_says_the_setting_and_changes_it(written: list[str]) -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+p")
        await d.pilot.press(*"notify")
        await d.shows("Notify when a long run ends", "now: bell, for runs of 30 s or more")
        await d.pilot.press("enter")
        await d.shows("OSC 777", "allow-passthrough", "now 30")
        await d.pilot.press("7")
        await d.shows("notification of long runs: OSC 777")
        assert written == ["\x1b]777;notify;softprompt-tui;test: this is the notification for long runs\a"]
        d.app.main.choose_bell()
        await d.shows("now 30")
        await d.pilot.press("s")
        await d.shows("Minimum length, in seconds")
        for refused in ("soon", "86401", "9" * 5000):
            d.app.screen.query_one(Input).value = refused
            await d.pilot.press("enter")
            await d.shows(f"'{refused[:15]}", "cannot be used. Give whole")
            assert isinstance(d.app.screen, AskText)
            assert d.app.screen.query_one(Input).value == refused
        d.app.screen.query_one(Input).value = "600"
        await d.pilot.press("enter")
        await d.shows("OSC 777, for runs of 600 s or more")
        settings, notice = stored_settings.load()
        assert (settings.bell, settings.bell_seconds, notice) == ("osc777", 600, "")

    run_scene(scene, 100, 30)


def test_a_setting_of_a_newer_version_becomes_the_default(home: Path) -> None:
    stored_settings.save(stored_settings.Settings(bell="osc1337"))
    assert stored_settings.load()[0].bell == "bell"


@pytest.mark.parametrize("style", ["osc9", "osc777"])
@pytest.mark.parametrize(
    "environment", [{}, {"TMUX": "/tmp/tmux,1,0"}, {"STY": "1.pts"}], ids=["plain", "tmux", "screen"]
)
def test_a_notification_is_one_sequence_whatever_its_text(style: str, environment: dict[str, str]) -> None:
    sequence = notification(style, HOSTILE, environment)
    assert len(sequence.encode()) < 700
    if environment:
        assert sequence.endswith("\x1b\\\a")  # the bell comes through even if the sequence does not
        sequence = sequence.removesuffix("\a")
    if "TMUX" in environment:
        sequence = sequence.removeprefix("\x1bPtmux;").removesuffix("\x1b\\").replace("\x1b\x1b", "\x1b")
    if "STY" in environment:
        sequence = "".join(re.findall(r"\x1bP(.*?)\x1b\\", sequence, re.DOTALL))
    fields = {"osc9": "9;", "osc777": "777;notify;softprompt-tui;"}[style]
    match = re.fullmatch(rf"\x1b\]{fields}([^\x00-\x1f\x7f-\x9f;]*)\x07", sequence)
    assert match
    assert len(match[1]) <= 140
    assert "\u202e" not in match[1]


def test_off_and_bell_depend_on_nothing() -> None:
    for environment in ({}, {"TMUX": "x"}, {"STY": "x"}):
        assert notification("off", HOSTILE, environment) == ""
        assert notification("bell", HOSTILE, environment) == "\a"


def test_the_sequence_reaches_a_real_terminal_between_two_frames(worker: Home, home: Path) -> None:
    (home / "data").mkdir(parents=True, mode=0o700)
    (home / "data" / "interface.json").write_text(json.dumps({"bell": "osc777", "bell_seconds": 0}))
    with Terminal(TMUX="/nowhere,1,0", STY="") as t:
        t.wait_for("worker ready", within=60)
        t.press("ctrl+t")
        t.wait_for("composed", r"serene-lands", within=120)
        t.settle()
        output = bytes(t.output)
        t.press("ctrl+q")
        assert t.wait_for_exit() == 0
    text = rb"serene-landscape-sunrise is done, similarity 0\.\d{4}"
    (match,) = re.finditer(rb"\x1bPtmux;\x1b\x1b\]777;notify;softprompt-tui;" + text + rb"\x07\x1b\\\x07", output)
    begun, ended = (output.count(mode, 0, match.start()) for mode in (b"\x1b[?2026h", b"\x1b[?2026l"))
    assert begun == ended  # synchronized output: no frame was being drawn
