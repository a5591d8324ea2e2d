"""The interface beside others: another interface, commands, another user's folders."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from softprompt import Library
from softprompt.jobs.job import TrainJob
from softprompt.worker import protocol as p
from softprompt.worker.endpoint import VARIABLE
from softprompt_tui import app as interface
from softprompt_tui.app import SoftPromptApp
from softprompt_tui.messages import LibraryChanged
from tests.app_harness import Desk, works
from tests.fake_worker import FakeWorker
from tests.library_model import a_prompt
from tests.pty_screen import Terminal

pytestmark = pytest.mark.usefixtures("runtime")
from tests.app_harness import runtime  # noqa: E402, F401  # a fixture


async def in_library(d: Desk, name: str = "fox") -> str:
    """An entry that the list shows, with the cursor on it; its id."""
    entry = Library().save(a_prompt(name=name)).id
    d.app.post(LibraryChanged(entry))
    await d.pilot.press("f4")
    await d.until(
        lambda: (
            (at := d.app.main.library_pane.current()) and at.name == name and d.app.main.library_pane.table.has_focus
        )
    )
    return entry


# another one changes what is shown here


def test_the_second_of_two_renames_is_told_of_the_first() -> None:
    async def scene(d: Desk) -> None:
        await in_library(d)
        await d.pilot.press("r")
        await d.shows("Another name for fox")
        Library().rename("fox", "wolf")
        await d.pilot.press(*"dog", "enter")
        await d.shows("fox was renamed to wolf")
        await d.shows("wolf  ")
        assert [listed.name for listed in Library().list().entries] == ["wolf"]

    works(scene)


def test_tags_that_two_give_are_all_there_and_what_one_takes_away_stays_away() -> None:
    async def scene(d: Desk) -> None:
        entry = await in_library(d)
        Library().tag("fox", ["night", "red"])
        await d.pilot.press("t")
        await d.shows("Tags of fox", "night red")
        Library().tag("fox", ["other"], ["red"])
        await d.pilot.press("end", *" mine", "enter")
        await d.until(lambda: "mine" in Library().open(entry).tags)
        assert Library().open(entry).tags == ("mine", "night", "other")

    works(scene)


def test_what_another_one_has_changed_is_not_deleted_before_that_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(d: Desk) -> None:
        entry = await in_library(d)
        d.app.main.library.watch = lambda: None  # type: ignore[method-assign]  # else the change may be seen before the key
        Library().annotate("fox", "the best so far")
        await d.pilot.press("d")
        await d.shows("fox was changed by another program", "look again")
        assert Library().open(entry).note == "the best so far"
        await d.until(lambda: d.app.main.library_pane.revision_of(entry) == 2)
        await d.pilot.press("d")
        await d.shows("deleted; u brings it back")
        assert Library().list().total == 0

    works(scene)


def test_keys_act_on_what_those_before_them_made() -> None:
    """A rename of one's own is no change by another program, however soon one deletes."""

    async def scene(d: Desk) -> None:
        await in_library(d)
        await d.pilot.press("r")
        await d.shows("Another name for fox")
        await d.pilot.press("w", "enter", "d")
        await d.shows("w deleted; u brings it back")

    works(scene)


@pytest.mark.parametrize("purged", [False, True])
def test_undo_leaves_alone_what_another_one_restored_or_purged_and_is_done_with_it(purged: bool) -> None:
    async def scene(d: Desk) -> None:
        await in_library(d)
        entry = await in_library(d, "lake")
        await d.pilot.press("d")
        await d.shows("lake deleted; u brings it back")
        if purged:
            Library().purge(entry)
        else:
            Library().restore(entry)
            Library().delete(entry)
        await d.pilot.press("u")
        await d.shows("lake was restored or purged by another program")
        assert [listed.name for listed in Library().list().entries] == ["fox"]
        await d.pilot.press("u")
        await d.shows("nothing was deleted here")

    works(scene)


def test_the_title_follows_what_is_open_when_another_one_renames_or_deletes_it() -> None:
    async def scene(d: Desk) -> None:
        await in_library(d)
        await d.pilot.press("enter")
        await d.shows("open: fox")
        Library().rename("fox", "wolf")
        await d.shows("open: wolf")
        Library().delete("wolf")
        await d.until(lambda: "open:" not in d.text())
        assert d.app.main.library.opened == ""

    works(scene)


def test_a_search_that_ends_stays_on_what_it_found_and_one_that_is_taken_back_returns() -> None:
    async def scene(d: Desk) -> None:
        def at(name: str, total: int) -> object:
            return (
                (found := d.app.main.library_pane.current())
                and found.name == name
                and d.app.main.library_pane.table.total == total
            )

        await in_library(d, "lake")
        await in_library(d, "mill")
        await d.pilot.press("slash", *"lake")
        await d.until(lambda: at("lake", 1))
        await d.pilot.press("escape")
        await d.until(lambda: at("lake", 2))
        await d.pilot.press("slash", *"mi")
        await d.until(lambda: at("mill", 1))
        await d.pilot.press("backspace", "backspace")
        await d.until(lambda: at("lake", 2))

    works(scene)


def test_what_is_shown_stays_while_it_is_there_and_a_search_finds_nothing() -> None:
    async def scene(d: Desk) -> None:
        await in_library(d, "lake")
        await in_library(d)
        await d.shows("─ fox ─")  # the curve's pane says what is shown
        await d.pilot.press("slash", *"nothing")
        await d.shows("Nothing is like that.")
        Library().annotate("lake", "by another one")
        d.app.main.library.watch()
        await d.until(lambda: not [work for work in d.app.workers if work.group in ("library", "curve")])
        assert "─ fox ─" in d.text()
        Library().rename("fox", "wolf")
        await d.shows("─ wolf ─")
        Library().delete("wolf")
        await d.shows("Nothing trains yet.")
        await d.pilot.press("escape")
        await d.shows("─ lake ─")

    works(scene)


# another one's trainings


@pytest.mark.parametrize(("key", "stopped"), [("s", {"mine"}), ("a", {"mine", "theirs"}), ("k", set())])
def test_quitting_stops_what_was_started_here_and_others_only_where_it_says_so(key: str, stopped: set[str]) -> None:
    async def scene(d: Desk) -> None:
        d.worker._do(p.Submit(TrainJob("theirs").as_dict()))
        d.app.main.prompt_pane.set("mine")
        await d.train()
        await d.pilot.press("ctrl+q")
        await d.shows(
            "2 trainings are under way or waiting, 1 of them not started",
            "s  stop what was started here",
            "a  stop all",
        )
        await d.pilot.press(key)
        await d.until(lambda: not d.app.is_running)
        assert {run.job.prompt for run in d.worker.records.values() if run.state == "stopped"} == stopped

    works(scene, 120, 40)


def test_where_only_others_train_the_key_that_stops_ones_own_does_nothing() -> None:
    async def scene(d: Desk) -> None:
        d.worker._do(p.Submit(TrainJob("theirs").as_dict()))
        await d.until(lambda: d.app.runs.known)
        await d.pilot.press("ctrl+q")
        await d.shows("A training is under way, not started here")
        await d.pilot.press("s")
        assert [run.state for run in d.worker.records.values()] == ["queued"]
        await d.pilot.press("a")
        await d.until(lambda: not d.app.is_running)
        assert [run.state for run in d.worker.records.values()] == ["stopped"]

    works(scene)


# another user's folders


def test_a_home_that_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Terminal(width=300, SOFTPROMPT_HOME=str(tmp_path / "file")) as t:
        assert t.ends(60) == 2
        assert t.text.strip().startswith(f"softprompt-tui: {tmp_path}/file/data cannot be created")
        assert len(t.text.strip().splitlines()) == 1
        assert t.modes() == t.before


def test_why_there_is_no_worker_stays_on_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder where the worker is met may be another user's: that is no news that passes."""
    monkeypatch.setattr(interface, "NOTICE_FOR", 0.5)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken").chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "taken"))

    async def look() -> None:
        app = SoftPromptApp()
        async with app.run_test(notifications=True, size=(120, 40)) as pilot:
            d = Desk(app, pilot, FakeWorker())
            await d.shows("is open to other users", f"{VARIABLE}=/tmp/softprompt-tui-", "no worker: ctrl+r starts it")
            app.show_status("something else", "warning")
            await d.shows("something else")
            await d.until(lambda: "something else" not in d.text())
            await d.shows("is open to other users")
            await pilot.press("ctrl+r")  # it is said once, not once for every try
            await d.until(lambda: d.text().count("is open to other users") == 1 and app.worker.state == "gone")
            await pilot.press("escape")
            await d.until(lambda: "is open to other users" not in d.text())

    asyncio.run(look())
