"""Bursts of keys and pastes: each key has the same effect as if it were typed alone."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.events import Paste
from textual.widgets import Input

import softprompt_tui
from softprompt import Library
from softprompt_tui import input_queue
from softprompt_tui.screens.dialogs import AskText
from softprompt_tui.screens.training_settings import SettingsScreen
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.bursts import fake_workers, random_keys, start_pair
from tests.library_model import a_prompt
from tests.pty_screen import Terminal
from tests.worker_process import wait_until

pytestmark = pytest.mark.usefixtures("runtime")
SEEDS = range(6)


def save_entries(*names: str) -> None:
    for i, name in enumerate(names):
        Library().save(a_prompt(name=name, created=f"2026-01-01T00:00:0{i}+00:00"))


def entry_names() -> list[str]:
    return sorted(entry.name for entry in Library().list().entries)


def test_keys_after_a_key_that_opens_a_dialog_go_to_the_dialog() -> None:
    save_entries("boat", "fox")

    async def scene(d: Session) -> None:
        await d.shows("boat", "fox")
        d.press_at_once("f4", "r", *"dusk", "enter")  # a new name; must not delete (d)
        await d.until(lambda: entry_names() == ["boat", "dusk"])
        d.press_at_once("/", *"fox")  # a search; must not import (f)
        await d.until(lambda: d.app.main.library_pane.search_text == "fox")
        assert len(d.app.screen_stack) == 1
        d.press_at_once("escape", "j", "d", "d", "u")  # each acts on the result of the key before it
        await d.until(lambda: entry_names() == ["boat"] or entry_names() == ["dusk"])
        d.press_at_once("u", "t", *"a b", "enter", "N", *"du", "enter")
        await d.until(
            lambda: any(entry.note == "du" and set(entry.tags) == {"a", "b"} for entry in Library().list().entries)
        )
        assert entry_names() == ["boat", "dusk"]
        d.app.main.prompt_pane.editor.text = "lake"
        d.press_at_once("f2", "home", *"x", "end", *"y", "left", *"z")  # Textual alone would mix up the order
        await d.until(lambda: d.app.main.prompt_pane.editor.text == "xlakezy")
        d.press_at_once("f8", *"dusk", "tab", "2", "enter")
        await d.until(lambda: d.app.settings.more == {"name": "dusk", "restarts": "2"})
        d.press_at_once("f5", *"[du", "tab", *" x")
        await d.until(lambda: d.app.main.compose_pane.composition == "[dusk] x")
        d.press_at_once("f6", "f1", "escape", "f4", "n", *"abc")  # n moves the focus to the prompt
        await d.until(lambda: d.app.main.prompt_pane.editor.text.endswith("abc"))

    run_scene(scene)


def test_training_and_quitting_keys_wait_for_their_turn() -> None:
    async def scene(d: Session) -> None:
        d.press_at_once("f2", *" one", "ctrl+t", *" two", "ctrl+t", "f6")
        await d.until(lambda: len(d.worker.runs) == 2 and d.app.main.runs_pane.table.has_focus)
        prompts = [record.job.prompt for record in d.worker.runs.values()]
        assert [prompt[-8:] for prompt in prompts] == ["lake one", " one two"]
        d.press_at_once("d", "d", "f2", "ctrl+t", "ctrl+q", "k")  # the second d drops the other run
        await d.until(lambda: not d.app.is_running)
        assert len(d.worker.runs) == 1

    run_scene(scene)


def test_keys_for_a_dialog_that_does_not_open_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    save_entries("fox")
    stalled = threading.Event()

    async def scene(d: Session) -> None:
        await d.shows("fox")
        find = Library.find
        monkeypatch.setattr(Library, "find", lambda *args: stalled.wait() and find(*args))
        d.press_at_once("f4", "r", *"dusk", "enter")
        await d.shows("dropped")
        assert not isinstance(d.app.screen, AskText)
        d.press_at_once("f2", *"now")
        await d.until(lambda: d.app.main.prompt_pane.editor.text.endswith("now"))
        stalled.set()
        await d.until(lambda: isinstance(d.app.screen, AskText))
        d.press_at_once("escape")
        await d.until(lambda: len(d.app.screen_stack) == 1)
        stalled.clear()
        d.press_at_once("f4", "r", "d", "ctrl+q", "d")
        await d.until(lambda: not d.app.is_running)
        stalled.set()

    monkeypatch.setattr(input_queue, "MAX_WAIT_SECONDS", 0.3)
    run_scene(scene)
    assert entry_names() == ["fox"]


def test_every_field_inserts_a_paste_completely_and_once() -> None:
    save_entries("fox")

    async def scene(d: Session) -> None:
        async def paste(text: str) -> None:
            event = Paste(text)
            event.set_sender(d.app)
            driver = d.app._driver
            assert driver is not None
            driver.send_message(event)

        editor = d.app.main.prompt_pane.editor
        editor.text = ""
        await paste("QQ one\rtwo\r\nthree\u2028four\x85fi\x1b[2Jve\x00\n")
        await d.until(lambda: editor.text)
        assert editor.text == "QQ one\ntwo\nthree\nfour\nfi[2Jve\n"
        await d.pilot.press("f5")
        await paste("a red fox\rin deep snow\r")
        await d.until(lambda: d.app.main.compose_pane.composition == "a red fox in deep snow")
        d.press_at_once("tab")
        await paste("of\r\nold")  # must arrive after the tab key
        await d.until(lambda: d.app.main.compose_pane.against == "of old")
        for keys, kind in (
            (("f4", "slash"), None),
            (("f4", "r"), AskText),
            (("f8",), SettingsScreen),
            (("f2", "tab"), None),
        ):
            d.press_at_once(*("/" if key == "slash" else key for key in keys))
            await d.until(
                lambda kind=kind: isinstance(d.app.focused, Input) and (kind is None or isinstance(d.app.screen, kind))
            )
            field = d.app.focused
            assert isinstance(field, Input)
            field.value = ""
            await paste("dusk\rand dawn\u2029")
            await d.until(lambda field=field: field.value == "dusk and dawn")
            d.app.copy_to_clipboard("two\nlines")
            d.press_at_once("ctrl+v")
            await d.until(lambda field=field: field.value == "dusk and dawntwo lines")
            d.press_at_once("escape")
            await d.until(lambda: len(d.app.screen_stack) == 1)

    run_scene(scene)


def test_a_burst_has_the_same_result_as_single_keys(tmp_path: Path) -> None:
    with start_pair(tmp_path) as interfaces:
        for seed in SEEDS:
            keys = random_keys(seed)
            interfaces.type(keys)
            assert not (difference := interfaces.find_difference()), f"seed {seed}: {' '.join(keys)}\n{difference}"
        interfaces.quit()


@pytest.fixture
def fake(home: Path, runtime: None) -> Iterator[None]:  # noqa: F811
    """A worker that trains nothing, so that interfaces on real terminals need not start a real one."""
    with fake_workers((home,)):
        yield


CRASH_SCRIPT = """
from softprompt_tui.terminal import open_interface
from softprompt_tui.widgets.lazy_table import Table
from softprompt_tui.terminal_input import InputDecoder
from softprompt_tui import cli
def fail(*_): raise RuntimeError("it broke \\x1b[31m here")
Table.action_move = fail
feed = InputDecoder.feed
InputDecoder.feed = lambda self, data: fail() if data == b"\\x00" else feed(self, data)
cli.entry()
"""


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("trigger", [("f4", "down"), ("\x00",)])
def test_a_crash_restores_the_terminal_exits_with_1_and_saves_the_draft(home: Path, trigger: tuple[str, ...]) -> None:
    with Terminal(sys.executable, "-c", CRASH_SCRIPT) as t:
        t.wait_for("13 of 77 tokens", within=60)
        t.press("end", " and an owl")
        t.wait_for("and an owl")
        t.press(*trigger)
        assert t.wait_for_exit() == 1
        assert t.modes() == t.initial_modes
        after = t.output.rpartition(b"\x1b[?1049l")[2].decode()
    error_lines = [line for line in after.splitlines() if "RuntimeError" in line]
    assert len(error_lines) == 1
    assert "\x1b[31m" not in error_lines[0]
    (report,) = (home / "cache" / "reports").glob("*.txt")
    assert report.name in after.replace("\r\n", "")
    assert "Traceback" not in after
    assert "Traceback" in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    assert json.loads((home / "data" / "interface.json").read_text())["prompt"].endswith("and an owl")


@pytest.mark.usefixtures("fake")
def test_after_a_session_a_whole_frame_shows_nothing_new() -> None:
    with Terminal() as t:
        t.wait_for("13 of 77 tokens", within=60)
        for keys in (
            ["end", " and an owl in snow"],
            ["f8"],
            ["escape"],
            ["f6"],
            ["f5", "[la"],
            ["f1"],
            ["escape"],
            ["f4"],
        ):
            t.press(*keys)
            t.settle()
        before, sent = list(t.screen.display), t.byte_count
        t.press("escape")
        wait_until(lambda: t.read(0.1) and t.byte_count > sent + 5_000)  # escape has every cell sent again
        t.settle()
        assert list(t.screen.display) == before


@pytest.mark.usefixtures("fake")
def test_typed_text_survives_a_kill_and_invalid_bytes(home: Path) -> None:
    draft = home / "data" / "draft.json"
    with Terminal() as t:
        t.wait_for("13 of 77 tokens", within=60)
        t.press("end", " and an owl")
        os.write(t.master, b" caf\xe9 \x1b[M \xa0\x30")
        wait_until(draft.exists)
        assert stat.S_IMODE(draft.stat().st_mode) == 0o600
        wait_until(lambda: "\ufffd" in json.loads(draft.read_text())["prompt"])
        t.send_signal(signal.SIGKILL)
        t.wait_for_exit()
    with Terminal() as t:
        t.wait_for("and an owl caf\ufffd", within=60)
        t.settle()
        t.press("ctrl+q")
        assert t.wait_for_exit() == 0
    assert not draft.exists()
    assert json.loads((home / "data" / "interface.json").read_text())["prompt"].endswith("and an owl caf\ufffd ")


def test_every_group_of_background_work_says_whether_keys_wait_for_it() -> None:
    """Keys wait for work of an unknown group: a loop that watches something would make every key slow."""
    root = Path(softprompt_tui.__file__).parent
    used = {
        group
        for path in root.rglob("*.py")
        for group in re.findall(r'group="([^"]+)"', path.read_text(encoding="utf-8"))
    }
    known = [*input_queue.DIALOG_GROUPS, *input_queue.AWAITED_GROUPS, *input_queue.INDEPENDENT_GROUPS]
    assert len(known) == len(set(known))
    assert used <= set(known)
