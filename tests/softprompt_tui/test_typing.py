"""Keys in bursts and pastes: each goes where it would go if it were typed alone."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.events import Paste
from textual.widgets import Input

from softprompt import Library
from softprompt_tui import input_queue
from softprompt_tui.screens.dialogs import AskText
from softprompt_tui.screens.training_settings import MoreScreen
from tests.app_harness import Desk, runtime, works  # noqa: F401  # runtime is a fixture
from tests.bursts import pair, random_keys, workers
from tests.library_model import a_prompt
from tests.pty_screen import Terminal
from tests.worker_process import until

pytestmark = pytest.mark.usefixtures("runtime")
SEEDS = range(6)


def entries(*names: str) -> None:
    for i, name in enumerate(names):
        Library().save(a_prompt(name=name, created=f"2026-01-01T00:00:0{i}+00:00"))


def names() -> list[str]:
    return sorted(one.name for one in Library().list().entries)


def test_keys_after_one_that_opens_something_belong_to_what_it_opens() -> None:
    entries("boat", "fox")

    async def scene(d: Desk) -> None:
        await d.shows("boat", "fox")
        d.typed_at_once("f4", "r", *"dusk", "enter")  # a rename, not d: delete
        await d.until(lambda: names() == ["boat", "dusk"])
        d.typed_at_once("/", *"fox")  # a search, not f: import
        await d.until(lambda: d.app.main.library_pane.words == "fox")
        assert len(d.app.screen_stack) == 1
        d.typed_at_once("escape", "j", "d", "d", "u")  # each on what the one before has left
        await d.until(lambda: names() == ["boat"] or names() == ["dusk"])
        d.typed_at_once("u", "t", *"a b", "enter", "N", *"du", "enter")
        await d.until(lambda: any(one.note == "du" and set(one.tags) == {"a", "b"} for one in Library().list().entries))
        assert names() == ["boat", "dusk"]
        d.app.main.prompt_pane.editor.text = "lake"
        d.typed_at_once("f2", "home", *"x", "end", *"y", "left", *"z")  # also where Textual alone loses the order
        await d.until(lambda: d.app.main.prompt_pane.editor.text == "xlakezy")
        d.typed_at_once("f8", *"dusk", "tab", "2", "enter")
        await d.until(lambda: d.app.settings.more == {"name": "dusk", "restarts": "2"})
        d.typed_at_once("f5", *"[du", "tab", *" x")
        await d.until(lambda: d.app.main.compose_pane.composition == "[dusk] x")
        d.typed_at_once("f6", "f1", "escape", "f4", "n", *"abc")  # n moves the focus to the prompt
        await d.until(lambda: d.app.main.prompt_pane.editor.text.endswith("abc"))

    works(scene)


def test_what_starts_work_and_what_leaves_wait_for_their_turn() -> None:
    async def scene(d: Desk) -> None:
        d.typed_at_once("f2", *" one", "ctrl+t", *" two", "ctrl+t", "f6")
        await d.until(lambda: len(d.worker.records) == 2 and d.app.main.runs_pane.table.has_focus)
        prompts = [record.job.prompt for record in d.worker.records.values()]
        assert [prompt[-8:] for prompt in prompts] == ["lake one", " one two"]
        d.typed_at_once("d", "d", "f2", "ctrl+t", "ctrl+q", "k")  # each drop on the run that is left
        await d.until(lambda: not d.app.is_running)
        assert len(d.worker.records) == 1

    works(scene)


def test_a_dialog_that_does_not_open_gets_no_keys_and_the_panes_do_not_either(monkeypatch: pytest.MonkeyPatch) -> None:
    entries("fox")
    stalled = threading.Event()

    async def scene(d: Desk) -> None:
        await d.shows("fox")
        find = Library.find
        monkeypatch.setattr(Library, "find", lambda *args: stalled.wait() and find(*args))
        d.typed_at_once("f4", "r", *"dusk", "enter")
        await d.shows("dropped")
        assert not isinstance(d.app.screen, AskText)
        d.typed_at_once("f2", *"now")
        await d.until(lambda: d.app.main.prompt_pane.editor.text.endswith("now"))
        stalled.set()
        await d.until(lambda: isinstance(d.app.screen, AskText))
        d.typed_at_once("escape")
        await d.until(lambda: len(d.app.screen_stack) == 1)
        stalled.clear()
        d.typed_at_once("f4", "r", "d", "ctrl+q", "d")
        await d.until(lambda: not d.app.is_running)
        stalled.set()

    monkeypatch.setattr(input_queue, "PATIENCE", 0.3)
    works(scene)
    assert names() == ["fox"]


def test_a_paste_is_inserted_once_and_whole_into_every_field() -> None:
    entries("fox")

    async def scene(d: Desk) -> None:
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
        d.typed_at_once("tab")
        await paste("of\r\nold")  # in its turn: after the key that moves on
        await d.until(lambda: d.app.main.compose_pane.against == "of old")
        for keys, kind in (
            (("f4", "slash"), None),
            (("f4", "r"), AskText),
            (("f8",), MoreScreen),
            (("f2", "tab"), None),
        ):
            d.typed_at_once(*("/" if key == "slash" else key for key in keys))
            await d.until(
                lambda kind=kind: isinstance(d.app.focused, Input) and (kind is None or isinstance(d.app.screen, kind))
            )
            field = d.app.focused
            assert isinstance(field, Input)
            field.value = ""
            await paste("dusk\rand dawn\u2029")
            await d.until(lambda field=field: field.value == "dusk and dawn")
            d.app.copy_to_clipboard("two\nlines")
            d.typed_at_once("ctrl+v")
            await d.until(lambda field=field: field.value == "dusk and dawntwo lines")
            d.typed_at_once("escape")
            await d.until(lambda: len(d.app.screen_stack) == 1)

    works(scene)


def test_bursts_come_to_what_the_same_keys_come_to_one_by_one(tmp_path: Path) -> None:
    with pair(tmp_path) as both:
        for seed in SEEDS:
            keys = random_keys(seed)
            both.type(keys)
            assert not (difference := both.difference()), f"seed {seed}: {' '.join(keys)}\n{difference}"
        both.leave()


@pytest.fixture
def fake(home: Path, runtime: None) -> Iterator[None]:  # noqa: F811
    """A worker that trains nothing, so that interfaces on real terminals need not start one."""
    with workers((home,)):
        yield


CRASHES = """
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
def test_after_a_crash_the_terminal_is_whole_the_code_is_1_and_the_draft_is_there(
    home: Path, trigger: tuple[str, ...]
) -> None:
    with Terminal(sys.executable, "-c", CRASHES) as t:
        t.shows("13 of 77 tokens", within=60)
        t.press("end", " and an owl")
        t.shows("and an owl")
        t.press(*trigger)
        assert t.ends() == 1
        assert t.modes() == t.before
        after = t.sent.rpartition(b"\x1b[?1049l")[2].decode()
    said = [line for line in after.splitlines() if "RuntimeError" in line]
    assert len(said) == 1
    assert "\x1b[31m" not in said[0]
    (report,) = (home / "cache" / "reports").glob("*.txt")
    assert report.name in after.replace("\r\n", "")
    assert "Traceback" not in after
    assert "Traceback" in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    assert json.loads((home / "data" / "interface.json").read_text())["prompt"].endswith("and an owl")


@pytest.mark.usefixtures("fake")
def test_what_is_typed_survives_a_kill_and_bytes_that_are_no_text(home: Path) -> None:
    draft = home / "data" / "draft.json"
    with Terminal() as t:
        t.shows("13 of 77 tokens", within=60)
        t.press("end", " and an owl")
        os.write(t.master, b" caf\xe9 \x1b[M \xa0\x30")
        until(draft.exists)
        assert stat.S_IMODE(draft.stat().st_mode) == 0o600
        until(lambda: "\ufffd" in json.loads(draft.read_text())["prompt"])
        t.signal(signal.SIGKILL)
        t.ends()
    with Terminal() as t:
        t.shows("and an owl caf\ufffd", within=60)
        t.settle()
        t.press("ctrl+q")
        assert t.ends() == 0
    assert not draft.exists()
    assert json.loads((home / "data" / "interface.json").read_text())["prompt"].endswith("and an owl caf\ufffd ")
