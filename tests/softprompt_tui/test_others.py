"""The interface beside other programs: another interface, commands, and folders of another user."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from softprompt import Library
from softprompt.jobs.job import TrainJob
from softprompt.worker import protocol as p
from softprompt.worker.endpoint import RUNTIME_VARIABLE
from softprompt_tui import app as interface
from softprompt_tui.app import SoftPromptApp
from softprompt_tui.messages import LibraryChanged
from tests.app_harness import Session, run_scene
from tests.fake_worker import FakeWorker
from tests.library_model import a_prompt
from tests.pty_screen import Terminal

pytestmark = pytest.mark.usefixtures("runtime")
from tests.app_harness import runtime  # noqa: E402, F401  # a fixture


async def save_and_select(d: Session, name: str = "fox") -> str:
    """Save an entry and move the cursor to it. Return its id."""
    entry = Library().save(a_prompt(name=name)).id
    d.app.post(LibraryChanged(entry))
    await d.pilot.press("f4")
    await d.until(
        lambda: (
            (current := d.app.main.library_pane.current())
            and current.name == name
            and d.app.main.library_pane.table.has_focus
        )
    )
    return entry


# another program changes the shown entries


def test_a_rename_after_another_programs_rename_is_refused() -> None:
    async def scene(d: Session) -> None:
        await save_and_select(d)
        await d.pilot.press("r")
        await d.shows("New name for fox")
        Library().rename("fox", "wolf")
        await d.pilot.press(*"dog", "enter")
        await d.shows("has renamed fox")
        await d.shows("wolf  ")
        assert [listed.name for listed in Library().list().entries] == ["wolf"]

    run_scene(scene)


def test_tag_changes_of_two_programs_are_merged() -> None:
    async def scene(d: Session) -> None:
        entry = await save_and_select(d)
        Library().tag("fox", ["night", "red"])
        await d.pilot.press("t")
        await d.shows("Tags of fox", "night red")
        Library().tag("fox", ["other"], ["red"])
        await d.pilot.press("end", *" mine", "enter")
        await d.until(lambda: "mine" in Library().open(entry).tags)
        assert Library().open(entry).tags == ("mine", "night", "other")

    run_scene(scene)


def test_an_entry_that_another_program_changed_is_not_deleted_before_the_user_sees_the_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(d: Session) -> None:
        entry = await save_and_select(d)
        # the interface must not see the change first
        d.app.main.library.check_for_changes = lambda: None  # type: ignore[method-assign]
        Library().annotate("fox", "the best so far")
        await d.pilot.press("d")
        await d.shows("another program changed fox", "changes first")
        assert Library().open(entry).note == "the best so far"
        await d.until(lambda: d.app.main.library_pane.revision_of(entry) == 2)
        await d.pilot.press("d")
        await d.shows("deleted; press u to undo")
        assert Library().list().total == 0

    run_scene(scene)


def test_a_key_acts_on_the_result_of_the_key_before_it() -> None:
    """The user's own rename does not count as a change by another program, even if the next key deletes at once."""

    async def scene(d: Session) -> None:
        await save_and_select(d)
        await d.pilot.press("r")
        await d.shows("New name for fox")
        await d.pilot.press("w", "enter", "d")
        await d.shows("w deleted; press u to undo")

    run_scene(scene)


@pytest.mark.parametrize("purged", [False, True])
def test_undo_skips_an_entry_that_another_program_restored_or_purged(purged: bool) -> None:
    async def scene(d: Session) -> None:
        await save_and_select(d)
        entry = await save_and_select(d, "lake")
        await d.pilot.press("d")
        await d.shows("lake deleted; press u to undo")
        if purged:
            Library().purge(entry)
        else:
            Library().restore(entry)
            Library().delete(entry)
        await d.pilot.press("u")
        await d.shows("another program restored or purged lake")
        assert [listed.name for listed in Library().list().entries] == ["fox"]
        await d.pilot.press("u")
        await d.shows("nothing to undo")

    run_scene(scene)


def test_the_title_follows_when_another_program_renames_or_deletes_the_open_entry() -> None:
    async def scene(d: Session) -> None:
        await save_and_select(d)
        await d.pilot.press("enter")
        await d.shows("open: fox")
        Library().rename("fox", "wolf")
        await d.shows("open: wolf")
        Library().delete("wolf")
        await d.until(lambda: "open:" not in d.text())
        assert d.app.main.library.opened == ""

    run_scene(scene)


def test_a_finished_search_stays_on_its_result_and_a_cleared_one_returns_to_the_old_entry() -> None:
    async def scene(d: Session) -> None:
        def is_at(name: str, total: int) -> object:
            return (
                (current := d.app.main.library_pane.current())
                and current.name == name
                and d.app.main.library_pane.table.total == total
            )

        await save_and_select(d, "lake")
        await save_and_select(d, "mill")
        await d.pilot.press("slash", *"lake")
        await d.until(lambda: is_at("lake", 1))
        await d.pilot.press("escape")
        await d.until(lambda: is_at("lake", 2))
        await d.pilot.press("slash", *"mi")
        await d.until(lambda: is_at("mill", 1))
        await d.pilot.press("backspace", "backspace")
        await d.until(lambda: is_at("lake", 2))

    run_scene(scene)


def test_a_search_without_results_keeps_the_shown_entry_while_it_exists() -> None:
    async def scene(d: Session) -> None:
        await save_and_select(d, "lake")
        await save_and_select(d)
        await d.shows("Loss  fox ─")  # the curve's pane says what is shown
        await d.pilot.press("slash", *"nothing")
        await d.shows("Nothing matches.")
        Library().annotate("lake", "by another one")
        d.app.main.library.check_for_changes()
        await d.until(lambda: not [work for work in d.app.workers if work.group in ("library", "curve")])
        assert "Loss  fox ─" in d.text()
        Library().rename("fox", "wolf")
        await d.shows("Loss  wolf ─")
        Library().delete("wolf")
        await d.shows("Nothing is training yet.")
        await d.pilot.press("escape")
        await d.shows("Loss  lake ─")

    run_scene(scene)


# trainings of other programs


@pytest.mark.parametrize(("key", "stopped"), [("s", {"mine"}), ("a", {"mine", "theirs"}), ("k", set())])
def test_quitting_stops_own_runs_and_others_only_if_the_user_says_so(key: str, stopped: set[str]) -> None:
    async def scene(d: Session) -> None:
        d.worker._handle_request(p.Submit(TrainJob("theirs").as_dict()))
        d.app.main.prompt_pane.set("mine")
        await d.train()
        await d.pilot.press("ctrl+q")
        await d.shows(
            "2 runs are in progress or waiting, 1 of them not started",
            "Stop those started here",
            "Stop all",
        )
        await d.pilot.press(key)
        await d.until(lambda: not d.app.is_running)
        assert {run.job.prompt for run in d.worker.runs.values() if run.state == "stopped"} == stopped

    run_scene(scene, 120, 40)


def test_the_key_that_stops_own_runs_does_nothing_if_there_are_only_others() -> None:
    async def scene(d: Session) -> None:
        d.worker._handle_request(p.Submit(TrainJob("theirs").as_dict()))
        await d.until(lambda: d.app.runs.by_id)
        await d.pilot.press("ctrl+q")
        await d.shows("A run is in progress, not started here")
        await d.pilot.press("s")
        assert [run.state for run in d.worker.runs.values()] == ["queued"]
        await d.pilot.press("a")
        await d.until(lambda: not d.app.is_running)
        assert [run.state for run in d.worker.runs.values()] == ["stopped"]

    run_scene(scene)


# another user's folders


def test_an_unusable_home_gives_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Terminal(width=300, SOFTPROMPT_HOME=str(tmp_path / "file")) as t:
        assert t.wait_for_exit(60) == 2
        assert t.text.strip().startswith(f"softprompt-tui: cannot create {tmp_path}/file/data")
        assert len(t.text.strip().splitlines()) == 1
        assert t.modes() == t.initial_modes


def test_the_reason_for_a_missing_worker_stays_on_the_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime folder may belong to another user. That notice must not disappear by itself."""
    monkeypatch.setattr(interface, "NOTICE_SECONDS", 0.5)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken").chmod(0o755)
    monkeypatch.setenv(RUNTIME_VARIABLE, str(tmp_path / "taken"))

    async def scene() -> None:
        app = SoftPromptApp()
        async with app.run_test(notifications=True, size=(120, 40)) as pilot:
            d = Session(app, pilot, FakeWorker())
            await d.shows(
                "is open to other users", f"{RUNTIME_VARIABLE}=/tmp/softprompt-tui-", "no worker: ctrl+r starts one"
            )
            app.show_status("something else", "warning")
            await d.shows("something else")
            await d.until(lambda: "something else" not in d.text())
            await d.shows("is open to other users")
            await pilot.press("ctrl+r")  # every attempt shows it again, but only one notice stays
            await d.until(lambda: d.text().count("is open to other users") == 1 and app.worker.state == "gone")
            await pilot.press("escape")
            await d.until(lambda: "is open to other users" not in d.text())

    asyncio.run(scene())
