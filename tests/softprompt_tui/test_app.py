"""The interface, operated with keys, connected to a fake worker that trains nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.filter import ANSIToTruecolor
from textual.widgets import Input, Static

from softprompt import Library
from softprompt.errors import RunRefused, WorkerError
from softprompt.jobs import preflight
from softprompt.jobs.job import TrainJob
from softprompt.prompts.results import HardReadout, Neighbour, ReadoutToken
from softprompt.worker import protocol as p
from softprompt.worker.client import Client
from softprompt.worker.run_folder import RunFolder, runs_folder
from softprompt_tui.app import SoftPromptApp
from softprompt_tui.messages import LibraryChanged
from softprompt_tui.screens.dialogs import AskKey, AskText
from softprompt_tui.screens.entry_details import EntryDetailsScreen
from softprompt_tui.screens.help import PANE_HELP, HelpScreen
from softprompt_tui.screens.loss_plot import PlotScreen
from softprompt_tui.screens.sweep import SweepScreen
from softprompt_tui.screens.text_viewer import TextScreen
from softprompt_tui.services import worker as client
from softprompt_tui.state import settings as stored_settings
from softprompt_tui.widgets.curve import LossCurve
from softprompt_tui.widgets.library import ACTIONS as LIBRARY
from softprompt_tui.widgets.loss import MAX_BEHIND
from softprompt_tui.widgets.runs import ACTIONS as RUNS
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.fake_worker import FakeWorker, sweep_result
from tests.library_model import a_prompt

HOSTILE = (
    "[/",
    "[@click=app.quit]x[/]",
    "\x1b[2J\x1b]52;c;aGk=\x07",
    "\x9b31m",
    "a\u202eb",
    "x" * 10_000,
    "雪" * 60,
    "e\u0301" * 40,
    "[b]bold[/b]",
)
HOSTILE_JOINED = (
    " ".join(text for text in HOSTILE if len(text) < 40),
    *(text for text in HOSTILE if len(text) >= 40),
)


def similarity_requests(d: Session) -> list[p.Similarity]:
    return [request for request in d.worker.requests if isinstance(request, p.Similarity)]


pytestmark = pytest.mark.usefixtures("runtime")


def test_the_first_start_shows_what_to_do_next() -> None:
    async def scene(d: Session) -> None:
        await d.shows(
            "image of serene landscape", "13 of 77 tokens", "The library is empty.", "ctrl+t trains", "worker ready"
        )
        assert d.app.main.prompt_pane.fields["tokens"] == "3"
        await d.pilot.press("f6")
        await d.shows("No runs.")
        await d.pilot.press("f5")
        await d.shows("A soft prompt is a word")

    run_scene(scene)


def test_a_warning_outlives_the_screens() -> None:
    ended: list[Session] = []

    async def scene(d: Session) -> None:
        d.app.show_status("a warning", "warning")
        ended.append(d)

    run_scene(scene)
    ended[0].app.repaint()  # what the warning's timer does, on an application that has quit


def test_a_composition_measured_while_the_application_quits_is_dropped() -> None:
    """The panes go one by one: the title may still be there when the line of the result is gone."""

    async def scene(d: Session) -> None:
        await d.app.main.compose_pane.query_one("#composed").remove()
        d.app._running = False  # as Textual begins to quit

        async def show() -> None:
            d.app.main.compose_pane.show(None)

        d.app.spawn(show, group="similarity")
        await d.app.workers.wait_for_complete([worker for worker in d.app.workers if worker.group == "similarity"])
        d.app._running = True

    run_scene(scene)


def test_a_training_is_shown_live_and_ends_in_the_library() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        await d.shows("waiting for its turn")
        d.worker.begin(run)
        for step in range(1, 60):
            d.worker.report(run, step, loss=1 / step)
        await d.shows("best 0.9831  59/300", "fox snow", "[v1]", "as text 0.5000")
        await d.pilot.press("f3")
        await d.until(lambda: isinstance(d.app.screen, PlotScreen))
        await d.shows("loss, all steps", "┤")
        await d.pilot.press("z")
        await d.shows("the last half")
        await d.pilot.press("s", "escape")
        d.worker.end(run)
        await d.shows("serene-landscape-sunrise", "0.9971")
        assert [entry.name for entry in Library().list().entries] == ["serene-landscape-sunrise"]
        assert d.app.settings.prompts == ["image of serene landscape at sunrise with trees mountains and lake"]

    run_scene(scene)


def test_the_result_of_a_run_is_shown_under_its_new_name() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        d.worker.report(run, 5)
        d.worker.end(run)
        await d.shows("Loss  serene-landscape-sunrise ─")
        await d.pilot.press("f4", "r")
        await d.shows("New name")
        await d.pilot.press(*"dawn", "enter")
        await d.shows("Loss  dawn ─")

    run_scene(scene)


def test_a_wrong_setting_gives_an_error_and_submits_nothing() -> None:
    async def scene(d: Session) -> None:
        d.app.main.prompt_pane.query_one("#field-tokens", Input).value = "many"
        await d.pilot.press("ctrl+t")
        await d.shows("Use a whole number")
        assert not [request for request in d.worker.requests if isinstance(request, p.Submit)]

    run_scene(scene)


@pytest.mark.parametrize(
    ("prompt", "tokens", "message"),
    [
        ("a lake", "76", "room for 75. Use 1 to 75"),
        ("fox " * 80, "3", "has room for 75. This part does not fit: 'fox fox fox fox fox'. Shorten"),
    ],
)
@pytest.mark.parametrize("key", ["ctrl+t", "f7"])
def test_a_prompt_that_does_not_fit_the_model_is_refused_before_it_is_queued(
    prompt: str, tokens: str, message: str, key: str
) -> None:
    async def scene(d: Session) -> None:
        d.app.main.prompt_pane.set(prompt, {"tokens": tokens})
        d.app.settings.more = {"sweep": f"1,{tokens}"}
        await d.pilot.press(key)
        await d.until(
            lambda: (
                message
                in " ".join("".join(line.partition("▌")[2].rstrip("│") for line in d.text().splitlines()).split())
            )
        )
        assert not d.worker.runs
        if "fox" in prompt:
            assert "F8" in d.text()
            d.app.settings.more["long"] = "chunk"
            await d.pilot.press("escape")
            await (d.sweep() if key == "f7" else d.train())

    run_scene(scene, 120, 40)


def test_a_queued_run_shows_what_it_waits_for() -> None:
    entry = Library().save(a_prompt(name="lake")).id

    async def scene(d: Session) -> None:
        d.app.main.prompt_pane.set("a red fox")
        first = await d.train()
        d.app.main.hard.search(entry, "auto")
        await d.until(lambda: len(d.worker.runs) == 2)
        d.app.main.prompt_pane.set("a blue boat")
        last = await d.train()
        d.worker.begin(first)
        await d.pilot.press("f6", "G")
        await d.shows("queued 1  hard", "queued 2  train", "waiting behind a red fox and 1 more")
        await d.pilot.press("enter")
        await d.until(lambda: d.app.main.detail.run == last)
        d.worker.end(first)
        await d.until(lambda: d.text().count("waiting behind the hard readout of lake") == 2)  # in the loss pane too
        await d.pilot.press("K")
        await d.until(lambda: [request for request in d.worker.requests if isinstance(request, p.Move)])

    run_scene(scene, 120, 40)


def test_a_long_queue_shows_every_place() -> None:
    async def scene(d: Session) -> None:
        for i in range(11):
            await d.app.worker.submit(TrainJob(f"fox {i}"))
        await d.pilot.press("f6")
        await d.shows("queued 1 ", "queued 10 ", "queued 11 ")

    run_scene(scene, 120, 40)


def test_every_key_of_a_burst_has_its_effect() -> None:
    async def scene(d: Session) -> None:
        d.press_at_once("ctrl+t", "ctrl+t", "t", "f7", "enter")  # the second ctrl+t and f7 ask
        await d.until(lambda: len(d.worker.runs) == 3 and isinstance(d.app.screen, SweepScreen))
        assert sorted(record.job.kind for record in d.worker.runs.values()) == ["sweep", "train", "train"]

    run_scene(scene)


def test_pressing_sweep_twice_before_the_worker_replies_starts_one_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(d: Session) -> None:
        async def ask(request: p.Request, **settings: float) -> dict[str, object]:
            answer = await real(request, **settings)
            if isinstance(request, p.Submit):
                await answered.wait()
            return answer

        answered, real = asyncio.Event(), d.app.worker.ask
        monkeypatch.setattr(d.app.worker, "ask", ask)
        await d.pilot.press("f7")
        await d.shows("The time it takes is unknown")
        await d.pilot.press("enter")
        await d.until(lambda: d.worker.runs)
        await d.pilot.press("f7")
        answered.set()
        await d.until(lambda: isinstance(d.app.screen, SweepScreen))
        assert len([request for request in d.worker.requests if isinstance(request, p.Submit)]) == 1

    run_scene(scene)


def test_f7_is_shown_on_the_screen_in_the_palette_and_in_help() -> None:
    async def scene(d: Session) -> None:
        await d.shows("F7 sweep ─", "^t Train  F7 Sweep  F8 Settings", "F7 sweeps 1 to 16 soft tokens")
        assert "Sweep the prompt" in [command.title for command in d.app.get_system_commands(d.app.screen)]
        await d.pilot.press("f1")
        await d.shows("F7", "sweep: 1 to 16 soft tokens")

    run_scene(scene)


def test_entries_are_renamed_tagged_annotated_deleted_and_restored() -> None:
    Library().save(a_prompt(name="lake"))
    fox = Library().save(a_prompt(name="fox")).id

    async def scene(d: Session) -> None:
        def is_written(name: str) -> bool:
            """Return whether the change is written and the next dialog can open."""
            return not d.app.main.library._has_dialog and name in {entry.name for entry in Library().list().entries}

        await d.pilot.press("f4")
        await d.shows("fox", "lake")
        await d.until(lambda: d.app.main.library_pane.table.total == 2)
        while d.app.main.library_pane.table.current != fox:
            await d.pilot.press("j")
        await d.pilot.press("r")
        await d.until(lambda: isinstance(d.app.screen, AskText))
        await d.pilot.press(*"wolf", "enter")
        await d.until(lambda: is_written("wolf"))
        await d.shows("wolf")
        await d.pilot.press("t")
        await d.until(lambda: isinstance(d.app.screen, AskText))
        await d.pilot.press(*"red", "space", *"dusk", "enter")
        await d.until(lambda: is_written("wolf") and Library().open("wolf").tags == ("dusk", "red"))
        await d.pilot.press("N")
        await d.until(lambda: isinstance(d.app.screen, AskText))
        await d.pilot.press(*"good", "enter")
        await d.until(lambda: is_written("wolf") and Library().open("wolf").note == "good")
        await d.pilot.press("i")
        await d.until(lambda: isinstance(d.app.screen, TextScreen | EntryDetailsScreen))
        await d.shows("norms", "dusk  red")
        await d.pilot.press("escape", "d")
        await d.until(lambda: [entry.name for entry in Library().list().entries] == ["lake"])
        await d.pilot.press("u")
        await d.until(lambda: Library().list().total == 2)
        await d.shows("wolf")

    run_scene(scene)


@pytest.mark.parametrize(("key", "refused"), [("r", "lake"), ("r", ""), ("t", "x" * 41), ("N", "x" * 10_001)])
def test_a_refused_name_tag_or_note_keeps_its_dialog_with_what_was_typed(key: str, refused: str) -> None:
    Library().save(a_prompt(name="lake"))
    Library().save(a_prompt(name="fox"))

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.total == 2)
        await d.pilot.press(key)
        await d.until(lambda: isinstance(d.app.screen, AskText))
        before = d.app.screen
        before.query_one(Input).value = refused
        await d.pilot.press("enter")
        await d.until(lambda: isinstance(d.app.screen, AskText) and d.app.screen is not before)
        assert d.app.screen.query_one(Input).value == refused
        assert str(d.app.screen.query_one("#trouble", Static).render())
        await d.pilot.press("escape")
        await d.until(lambda: d.app.screen is d.app.main)

    run_scene(scene)
    assert {(entry.name, entry.tags, entry.note) for entry in Library().list().entries} == {
        ("lake", (), ""),
        ("fox", (), ""),
    }


def test_the_library_can_be_searched_sorted_and_compared() -> None:
    library = Library()
    for i in range(30):
        library.save(a_prompt(name=f"fox {i}", similarity=i / 100))
    library.save(a_prompt(name="lake", hard_prompt="a lake at sunrise", similarity=0.999))

    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "slash", *"sunr")
        await d.until(lambda: d.app.main.library_pane.table.total == 1)
        await d.pilot.press("enter")
        assert d.app.main.library_pane.table.has_focus
        await d.pilot.press("escape")
        await d.until(lambda: d.app.main.library_pane.table.total == 31)
        await d.pilot.press("o")
        await d.shows("31 most similar first")
        await d.until(
            lambda: d.app.main.library_pane.current() is not None and d.app.main.library_pane.current().name == "lake"
        )  # type: ignore[union-attr]
        await d.pilot.press("G")
        await d.until(
            lambda: d.app.main.library_pane.current() is not None and d.app.main.library_pane.current().name == "fox 0"
        )  # type: ignore[union-attr]
        await d.shows("fox 0")
        await d.pilot.press("g", "space", "space", "c")
        await d.until(lambda: isinstance(d.app.screen, TextScreen | EntryDetailsScreen))
        await d.shows("similarity of their hard prompts")

    run_scene(scene)


def test_an_entry_is_opened_copied_and_composed() -> None:
    Library().save(a_prompt(name="fox"))

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.current)
        await d.pilot.press("enter")
        await d.shows("fox is open: its tokens are [v1] to [v2]")
        await d.pilot.press("y")
        await d.until(lambda: d.app.main.compose_pane.composition == "[fox]")
        assert d.app.clipboard == "[fox]"
        await d.pilot.press("f5", "end", "space", *"dark")
        await d.shows("fidelity 0.9870  floor 0.9120", "tokens 5 of 75, 4 saved")
        await d.until(lambda: similarity_requests(d)[-1].texts == ["[fox] dark"])
        assert similarity_requests(d)[-1].opened == Library().find("fox").id

    run_scene(scene)


def test_names_are_completed_after_a_bracket() -> None:
    library = Library()
    for minute, name in enumerate(("fog", "fox", "lake")):
        library.save(a_prompt(name=name, created=f"2026-01-01T00:0{minute}:00+00:00"))

    async def scene(d: Session) -> None:
        await d.pilot.press("f5", *"at ", "left_square_bracket", *"fo")
        await d.shows(" fox   2  ", " fog   2  ")
        await d.pilot.press("down", "enter")
        await d.until(lambda: d.app.main.compose_pane.composition == "at [fog]")
        await d.pilot.press(*" dark", "backslash", "left_square_bracket", "l")  # an escaped bracket
        await d.pilot.pause(0.2)
        assert not d.app.main.compose_pane.query_one("#names").display
        await d.pilot.press("space", "left_square_bracket")
        await d.shows(" lake  2  ")
        await d.pilot.press("escape", "tab")
        assert d.app.focused is d.app.main.compose_pane.query_one("#against")
        assert d.app.main.compose_pane.composition == "at [fog] dark\\[l ["

    run_scene(scene)


@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 24), (200, 60)])
def test_the_whole_screen_plot_of_a_live_run_has_the_figures_of_the_loss_pane(width: int, height: int) -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        for step in range(1, 100):
            d.worker.report(run, step, loss=0.5 / step)
        await d.pilot.press("f3")
        await d.shows("step 99 of 300", "left", "best 0.9949 at step 99", "◆", "all steps")
        # the step axis goes on to the last step of the run
        await d.until(lambda: any(re.match(r" +0 .* 300 *$", line) for line in d.text().splitlines()))
        d.worker.report(run, 200, loss=0.001)
        await d.shows("step 200 of 300", "best 0.9990 at step 200")
        await d.pilot.press("z", "z", "z")  # the last 1/20
        await d.shows("the last 1/20")
        title = "image of serene landscape at sunrise with trees mountains and lake"
        assert (title in d.text()) == (width == 200)

    run_scene(scene, width, height)


def test_the_plot_shows_every_restart() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        for step in range(1, 40):
            d.worker.report(run, step, loss=1 / step, restarts=(1 / step, 2 / step, 5 / step))
        await d.shows("39/300")
        await d.pilot.press("f3")
        await d.shows("loss of 3 restarts, all steps")
        assert [curve[-1] for curve in d.app.main.detail.series.restarts] == [(39, 1 / 39), (39, 2 / 39), (39, 5 / 39)]
        await d.pilot.press("s")
        await d.until(lambda: "of 3 restarts" not in d.text())
        await d.pilot.press("escape")
        d.worker.end(run)
        await d.until(lambda: d.app.runs.by_id[run].state == "done")
        await d.pilot.press("f3")  # only the best curve is saved, but the others are still shown
        await d.shows("loss of 3 restarts")

    run_scene(scene)


def test_the_pane_draws_some_of_many_restarts_and_the_full_plot_all_of_them() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        for step in range(1, 4):
            d.worker.report(run, step, loss=1 / step, restarts=tuple((1 + i) / step for i in range(40)))
        await d.shows("3/300")
        assert 8 <= len(d.app.main.loss.query_one(LossCurve).curve.behind) <= MAX_BEHIND
        await d.pilot.press("f3")
        await d.shows("loss of 40 restarts")

    run_scene(scene)


def test_the_details_pane_appears_where_there_is_room() -> None:
    Library().save(a_prompt(name="fox", hard_prompt="a red fox in deep snow"))

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.shows("Details", "norms", "a red fox in deep snow")
        run = await d.train()
        await d.shows("queued", run)
        d.worker.begin(run)
        await d.until(lambda: "Details" not in d.text())  # the curve needs the room
        d.worker.end(run)
        await d.shows("Details")
        await d.pilot.resize_terminal(80, 24)
        await d.until(lambda: "Details" not in d.text())

    run_scene(scene, 120, 40)


def test_on_a_large_terminal_all_panes_are_side_by_side() -> None:
    async def scene(d: Session) -> None:
        await d.shows("Prompt", "F4 Library", "F5 Compose", "F6 Runs", "Loss", "Readout", "Details")
        await d.shows("The library is empty.", "A soft prompt is a word", "No runs.")
        for key, pane in (("f6", "runs"), ("f5", "compose"), ("f4", "library")):
            await d.pilot.press(key)
            assert pane in {node.id for node in d.app.focused.ancestors_with_self}  # type: ignore[union-attr]
        await d.pilot.resize_terminal(100, 30)
        await d.until(lambda: "No runs." not in d.text())
        assert d.app.main.library_pane.display

    run_scene(scene, 200, 60)


def test_on_a_large_terminal_the_details_are_below_the_lists() -> None:
    for i in range(3):
        Library().save(a_prompt(name=f"fox {i}"))

    async def scene(d: Session) -> None:
        main = d.app.main
        await d.pilot.press("f4", "down")
        for width, parent in ((200, "left"), (120, "right"), (200, "left")):
            await d.pilot.resize_terminal(width, 60)
            await d.until(lambda parent=parent: main.detail_pane.parent.id == parent)  # type: ignore[union-attr]
            await d.until(lambda: str(main.detail.entry_id) in d.text())  # the last line of the details
        lower = (main.library_pane.region.bottom, main.runs_pane.region.bottom)
        assert lower == (main.detail_pane.region.y,) * 2

    run_scene(scene, 200, 60)


def test_a_variation_restores_prompt_and_settings() -> None:
    Library().save(
        a_prompt(
            name="fox",
            hard_prompt="a red fox",
            config={
                "tokens": 5,
                "steps": 77,
                "contexts": ["{} at sea", "a map of {}"],
                "stop_at": 0.9,
                "rate": 0.3,
                "seed": 4,
            }
            | {"restarts": 8, "objective": "contrastive", "against": ["a wolf", "a dog"], "project_norm": False},
            device="cpu, bfloat16",
        )
    )

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.current)
        await d.pilot.press("n")
        await d.until(lambda: d.app.main.prompt_pane.prompt == "a red fox")
        fields = d.app.main.prompt_pane.fields
        assert (fields["tokens"], fields["steps"], fields["stop_at"]) == ("5", "77", "0.9")
        assert fields["contexts"] == "{} at sea | a map of {}"
        await d.pilot.press("ctrl+t")
        await d.until(lambda: d.worker.runs)
        (record,) = d.worker.runs.values()
        config = record.job.config
        assert (config.rate, config.seed, config.restarts, config.objective) == (0.3, 5, 8, "contrastive")
        assert (config.contexts, config.against) == (("{} at sea", "a map of {}"), ("a wolf", "a dog"))
        assert not config.project_norm
        assert record.job.precision == "bfloat16"

    run_scene(scene)


def test_keys_in_a_burst_act_on_the_current_list_of_runs() -> None:
    async def scene(d: Session) -> None:
        first, second, third = [await d.train() for _ in range(3)]
        d.worker.begin(first)
        await d.pilot.press("f6", "j")
        await d.shows("queued 2")
        d.press_at_once("d", "d")
        await d.until(lambda: list(d.worker.runs) == [first])
        assert {second, third}.isdisjoint(d.app.runs.by_id)

    run_scene(scene)


def test_the_followed_run_stays_until_another_run_starts_after_it() -> None:
    async def scene(d: Session) -> None:
        first, second = [await d.train() for _ in range(2)]
        d.worker.begin(first)
        await d.until(lambda: d.app.main.detail.run == first)
        d.worker.begin(second)  # in the same batch
        d.worker.end(first)
        await d.until(lambda: d.app.runs.by_id[first].state == "done" and d.app.runs.by_id[second].state == "running")
        await d.pilot.pause()
        assert d.app.main.detail.run == first
        third = await d.train()
        await d.until(lambda: d.app.main.detail.run == third)

    run_scene(scene)


@pytest.mark.parametrize(
    ("theme", "is_dark", "keeps_colors"), [("softprompt-light", False, False), ("ansi-dark", True, True)]
)
def test_a_saved_theme_applies_from_the_start(theme: str, is_dark: bool, keeps_colors: bool) -> None:
    async def scene() -> None:
        app = SoftPromptApp()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert app.theme == theme
            assert app.has_class(f"-theme-{theme}", "-dark-mode" if is_dark else "-light-mode")
            assert not app.has_class("-light-mode" if is_dark else "-dark-mode")
            (to_truecolor,) = [line_filter for line_filter in app._filters if isinstance(line_filter, ANSIToTruecolor)]
            assert to_truecolor.enabled != keeps_colors  # the terminal's own 16 colors stay unchanged
            assert to_truecolor._terminal_theme is app.ansi_theme

    stored_settings.save(replace(stored_settings.load()[0], theme=theme))
    asyncio.run(scene())


def test_runs_are_retried_paused_and_dropped_and_show_their_errors() -> None:
    async def scene(d: Session) -> None:
        first, second, third = [await d.train() for _ in range(3)]
        d.worker.begin(first)
        d.worker.end(second, error="out of memory: fewer restarts need less")
        await d.pilot.press("f6")
        await d.shows("running", "failed")
        await d.until(lambda: len(d.app.runs.by_id) == 3)
        assert [run.id for run in d.app.runs.sorted_runs()] == [first, third, second]
        await d.pilot.press("G")
        await d.shows("out of memory: fewer restarts")
        await d.pilot.press("r", "g", "p")
        await d.until(lambda: d.worker.runs[first].state == "paused")
        await d.until(lambda: d.app.runs.sorted_runs()[-1].id == first)
        await d.pilot.press("g")
        while d.app.main.runs_pane.table.current != third:
            await d.pilot.press("j")
        await d.pilot.press("d")
        await d.until(lambda: third not in d.worker.runs)
        kinds = [type(request) for request in d.worker.requests]
        assert p.Resume in kinds
        assert p.Pause in kinds
        assert p.Drop in kinds

    run_scene(scene, 120, 40)


def test_quitting_asks_if_something_trains() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        await d.until(lambda: d.app.runs.by_id[run].state == "running")
        await d.pilot.press("ctrl+q")
        await d.until(lambda: isinstance(d.app.screen, AskKey))
        await d.pilot.press("escape")
        await d.until(lambda: not isinstance(d.app.screen, AskKey))
        await d.pilot.press("ctrl+q")
        await d.until(lambda: isinstance(d.app.screen, AskKey))
        await d.pilot.press("s")
        await d.until(lambda: d.worker.runs[run].state == "stopped")

    run_scene(scene)


@pytest.mark.parametrize(("answer", "state"), [("k", "queued"), ("s", "stopped")])
def test_quitting_asks_about_a_job_that_is_being_submitted_and_does_not_lose_it(
    answer: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = threading.Event()

    async def scene(d: Session) -> None:
        d.press_at_once("ctrl+t", "ctrl+q")
        await d.shows("A run is in progress")
        await d.pilot.press(answer)
        await d.until(lambda: not isinstance(d.app.screen, AskKey))
        assert not d.worker.runs
        assert d.app.is_running
        checked.set()
        await d.until(lambda: [run.state for run in d.worker.runs.values()] == [state] and not d.app.is_running)

    monkeypatch.setattr(preflight, "check_fits", lambda _: checked.wait())
    run_scene(scene)


@pytest.mark.parametrize("worker_starts", [True, False])
def test_quitting_asks_while_the_worker_is_starting(worker_starts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The starting worker will resume unfinished runs. If it fails to start, the interface does not quit."""
    released = threading.Event()

    def connect(**settings: bool) -> Client | None:
        released.wait()
        if not worker_starts:
            raise WorkerError("no process can be started")
        return real_connect(**settings)

    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        await d.until(lambda: d.app.runs.by_id[run].state == "running")
        d.worker.die()
        await d.shows("no worker: ctrl+r starts one")
        monkeypatch.setattr(client, "connect", connect)
        async with FakeWorker(d.worker.runs) as new_worker:
            await d.pilot.press("ctrl+r")
            await d.shows("starting the worker")
            await d.pilot.press("ctrl+q")
            await d.shows("Keep training")
            await d.pilot.press("s")
            await d.shows("as soon as the worker is up")
            released.set()
            if worker_starts:
                await d.until(lambda: new_worker.runs[run].state == "stopped")
            else:
                await d.shows("no process can be started", "no worker: ctrl+r starts one")
                assert d.app.is_mounted_and_running()
                assert not new_worker.requests

    real_connect = client.connect
    run_scene(scene)


def test_quitting_asks_about_unfinished_runs_before_the_worker_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The starting worker has not reported any run yet."""
    released = threading.Event()
    RunFolder.create(runs_folder(), TrainJob("a red fox"), 1.0)
    monkeypatch.setattr(client, "connect", lambda **_: released.wait() and None)

    async def scene() -> None:
        app = SoftPromptApp()
        async with app.run_test(notifications=True) as pilot:
            d = Session(app, pilot, FakeWorker())
            await d.shows("starting the worker")
            await pilot.press("ctrl+q")
            await d.shows("A run is in progress", "Keep training")
            await pilot.press("k")
            await d.until(lambda: not app.is_running)

    asyncio.run(scene())
    released.set()


def test_the_interface_does_not_quit_if_a_run_cannot_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has ended or was dropped in the meantime does not prevent quitting."""

    def handle_request(self: FakeWorker, request: p.Request) -> dict[str, object]:
        if isinstance(request, p.Stop):
            prompt = self.runs[request.run].job.prompt
            if prompt == "over":
                self.end(request.run)
            elif prompt == "gone":
                real(self, p.Drop(request.run))
            if prompt != "fox" or not may_stop:
                raise RunRefused(f"no stop for {prompt}")
        return real(self, request)

    async def scene(d: Session) -> None:
        for prompt in ("over", "fox", "gone"):
            d.app.main.prompt_pane.set(prompt)
            d.worker.begin(await d.train())
        await d.pilot.press("ctrl+q")
        await d.shows("3 runs are in progress or waiting", "Keep training")
        await d.pilot.press("s")
        await d.shows("fox was not stopped: no stop for fox")
        assert d.app.is_running
        may_stop.append(True)
        await d.pilot.press("ctrl+q")
        await d.shows("A run is in progress")
        await d.pilot.press("s")
        await d.until(lambda: not d.app.is_running)

    may_stop: list[bool] = []
    real = FakeWorker._handle_request
    monkeypatch.setattr(FakeWorker, "_handle_request", handle_request)
    run_scene(scene, 120, 40)


def test_one_key_restarts_a_dead_worker() -> None:
    async def scene(d: Session) -> None:
        d.worker.die()
        await d.shows("no worker: ctrl+r starts one")
        async with FakeWorker() as new_worker:
            await d.pilot.press("ctrl+r")
            await d.until(lambda: d.app.worker.state == "up")
            await d.shows("worker ready")
            assert new_worker.runs == {}

    run_scene(scene)


def test_the_title_says_only_that_there_is_no_worker() -> None:
    async def scene(d: Session) -> None:
        d.app.show_status("fox is back")
        await d.shows("fox is back")
        d.worker.die()
        await d.shows("● no worker: ctrl+r starts one")
        assert "fox is back" not in d.text()
        assert "softprompt-tui" not in d.text().splitlines()[0]

    run_scene(scene)


def test_settings_are_saved_and_a_broken_file_is_renamed(home: Path) -> None:
    async def first(d: Session) -> None:
        d.app.main.prompt_pane.set("a blue whale", {"tokens": "4"})
        d.app.theme = "softprompt-light"
        await d.pilot.press("f6")
        await d.pilot.pause()
        d.app.quit_now()

    async def second(d: Session) -> None:
        assert (d.app.main.prompt_pane.prompt, d.app.main.prompt_pane.fields["tokens"]) == ("a blue whale", "4")
        assert (d.app.theme, d.app.main.lower_pane) == ("softprompt-light", "runs")

    run_scene(first)
    run_scene(second)
    path = home / "data" / "interface.json"
    path.write_text('{"theme": 3}')

    async def third(d: Session) -> None:
        await d.shows("the settings could not be read")
        assert d.app.theme == "softprompt-dark"

    run_scene(third)
    (backup,) = path.parent.glob("interface-broken-*.json")
    assert json.loads(backup.read_text()) == {"theme": 3}


def test_keys_do_not_reach_the_panes_under_a_dialog() -> None:
    Library().save(a_prompt(name="fox"))

    async def scene(d: Session) -> None:
        await d.pilot.press("f8", "f4", "d", "f3", "ctrl+t")
        await d.pilot.pause()
        assert len(d.app.screen_stack) == 2
        await d.pilot.press("escape")
        assert Library().list().total == 1
        assert not [request for request in d.worker.requests if isinstance(request, p.Submit)]

    run_scene(scene)


def test_up_and_down_move_in_the_text_first_and_then_through_the_history() -> None:
    async def scene(d: Session) -> None:
        pane = d.app.main.prompt_pane
        pane.set_history(["first prompt", "second prompt"])
        before = pane.prompt
        await d.pilot.press("up")
        assert pane.prompt == before
        await d.pilot.press("up", "up")
        await d.until(lambda: pane.prompt == "second prompt")
        await d.pilot.press("x", "up")
        await d.until(lambda: pane.prompt == "first prompt")
        await d.pilot.press("down")
        await d.until(lambda: pane.prompt == "second promptx")
        await d.pilot.press("down")
        await d.until(lambda: pane.prompt == before)

    run_scene(scene)


def test_the_cursor_stays_on_its_entry_when_the_list_changes() -> None:
    library = Library()
    for i in range(230):
        library.save(a_prompt(name=f"n{i}", created=f"2026-01-01T00:{i // 60:02}:{i % 60:02}+00:00"))
    far = library.find("n40").id

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.total == 230)
        d.app.main.library_pane.table.cursor = 189
        await d.until(lambda: d.app.main.library_pane.table.current == far)
        library.save(a_prompt(name="later"))
        d.app.post(LibraryChanged())
        await d.until(lambda: d.app.main.library_pane.table.total == 231)
        await d.until(lambda: d.app.main.library_pane.table.current == far)
        assert d.app.main.library_pane.table.cursor == 190

    run_scene(scene)


def test_a_deleted_entry_disappears_from_all_panes() -> None:
    Library().save(a_prompt(name="fox"))

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.current)
        await d.pilot.press("enter")
        await d.until(lambda: d.app.main.library.opened)
        await d.pilot.press("d")
        await d.shows("The library is empty", "Nothing is training yet")
        await d.until(lambda: not d.app.main.library.opened)

    run_scene(scene)


def test_help_and_palette_contain_every_key_of_library_and_runs() -> None:
    for pane, actions in (("library", LIBRARY), ("runs", RUNS)):
        keys = " ".join(key for key, _ in PANE_HELP[pane][1]).split()
        assert set(actions) <= set(keys)

    async def scene(d: Session) -> None:
        names = [command.title for command in d.app.get_system_commands(d.app.screen)]
        assert {"Library: Export", "Library: Import files", "Runs: Pause", "Train the composition"} <= set(names)
        assert len(names) == len(set(names))

    run_scene(scene)


def test_help_belongs_to_the_focused_pane() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "f1")
        await d.until(lambda: isinstance(d.app.screen, HelpScreen))
        await d.shows("Library", "search as you type")
        await d.pilot.press("escape", "f2", "f1")
        await d.shows("struck", "through")
        await d.pilot.press("escape", "f4", "T", "f1")
        await d.shows("Trash", "purge", "show the library again")

    run_scene(scene)


def test_the_palette_explains_the_pane_where_the_terminal_keeps_f1() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "ctrl+p")
        await d.pilot.press(*"Explain the pane")
        await d.shows("Explain the pane and its keys")
        await d.pilot.press("enter")
        await d.shows("Library", "search as you type")

    run_scene(scene)


@pytest.mark.parametrize(("size", "texts"), [((60, 20), HOSTILE), ((120, 40), HOSTILE_JOINED)], ids=["size0", "size1"])
def test_hostile_text_is_harmless_on_every_screen(
    size: tuple[int, int], texts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        preflight, "check_fits", lambda _: None
    )  # another client may have queued a job that would be refused here

    library = Library()
    for text in texts:
        readout = HardReadout(text, 2, 0.5, None, text, 1, 0.1)
        library.save(
            a_prompt(name="odd", hard_prompt=text, readout_text=text, model=text[:300], warnings=(text,), hard=readout)
        )
        library.annotate(library.list(limit=1).entries[0].id, text)

    async def scene(d: Session) -> None:
        def is_inert() -> bool:
            return not set(d.text()) & set("\x1b\x07\x9b\u202e")

        for text in texts:
            d.app.main.prompt_pane.set(text)
            run = await d.train()
            d.worker.begin(run)
            d.worker.report(run, 5)
            d.worker.end(run, error=f"failed: {text}")
            d.app.show_status(text, "error")
            await d.pilot.pause()
            assert is_inert()
            d.app.clear_notifications()  # nine notices would be laid out again with every key
        await d.pilot.press("f6", "g")
        assert is_inert()
        await d.pilot.press("f4")
        for _ in texts:
            await d.pilot.press("j", "enter")
            await d.pilot.pause(0.02)
            assert is_inert()
            await d.pilot.press("f9", "y", "f4")
            assert d.app.clipboard.isprintable()
            await d.pilot.press("i")
            await d.until(lambda: isinstance(d.app.screen, TextScreen | EntryDetailsScreen))
            assert is_inert()
            await d.pilot.press("escape")
        for text in texts:
            d.app.main.prompt_pane.set(text)
            run = await d.sweep()
            d.worker.end(run, results=[sweep_result(1) | {"readout_text": text}])
            await d.until(lambda run=run: d.app.runs.by_id[run].results)
            d.app.screen.draw()  # type: ignore[attr-defined]
            await d.pilot.pause(0.02)
            assert is_inert()
            await d.pilot.press("escape")
        d.app.main.compose_pane.show(None, HOSTILE[2])
        await d.pilot.press("f5")
        assert is_inert()
        assert d.app.is_running

    run_scene(scene, *size)


def test_without_a_terminal_the_interface_gives_an_error(run: Callable[..., object]) -> None:
    done = run()
    assert done.returncode == 2  # type: ignore[attr-defined]
    assert "the interface needs a terminal" in done.stderr  # type: ignore[attr-defined]


def test_opening_the_interface_loads_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, softprompt_tui.app; print(sorted({'torch', 'open_clip', 'numpy', 'plotext'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_screen_fits_every_size() -> None:
    async def scene(d: Session) -> None:
        for width, height in ((60, 20), (80, 24), (120, 40), (200, 60), (40, 12)):
            await d.pilot.resize_terminal(width, height)
            await d.pilot.pause()
            assert all(len(line) <= width for line in d.text().splitlines())
            assert "Prompt" in d.text()
            assert "Loss" in d.text() or height < 20
        assert os.environ["SOFTPROMPT_HOME"]
        assert isinstance(d.app.screen.query_one("#title"), Static)

    run_scene(scene)


def test_a_reply_that_is_older_than_a_message_changes_nothing() -> None:
    """The worker starts a run at once, and reports it before the interface reads the reply to the submission."""

    async def scene(d: Session) -> None:
        d.worker.begin_on_submit = True
        run = await d.train()
        await d.until(lambda: d.app.runs.by_id.get(run))
        d.worker.report(run, 20)
        await d.shows("step 20 of 300", "training")
        assert d.app.runs.by_id[run].state == "running"

    run_scene(scene)


def test_training_a_composition_needs_a_known_soft_prompt_and_a_new_name() -> None:
    Library().save(a_prompt(name="fox", model_fingerprint="abc"))

    async def scene(d: Session) -> None:
        d.app.settings.more = {"objective": "mixed", "share": "0.4"}
        await d.pilot.press("f5", *"[nobody] x", "escape")
        await d.shows("no soft prompt is named 'nobody'")
        assert "reply" not in d.text()
        await d.pilot.press("ctrl+s")
        await d.shows("no soft prompt is named")
        assert not d.worker.runs
        d.app.main.compose_pane.query_one("#composition", Input).value = "[fox] at night"
        await d.pilot.press("ctrl+s")
        await d.shows("Name of the soft prompt")
        await d.pilot.press(*"fox", "enter")
        await d.shows("already has a soft prompt named fox")
        await d.pilot.press(*"night", "enter")
        await d.until(lambda: d.worker.runs)
        assert d.app.main.compose_pane.composition == "[fox] at night"

    run_scene(scene)


def test_a_composition_that_does_not_fit_is_refused_before_it_is_queued() -> None:
    Library().save(a_prompt(name="fox", hard_prompt="a red fox"))

    async def scene(d: Session) -> None:
        d.app.main.prompt_pane.set("x", {"tokens": "76"})
        d.app.main.compose_pane.query_one("#composition", Input).value = "[fox] at night"
        await d.pilot.press("f5", "ctrl+s")
        await d.shows("room for 75")
        assert not isinstance(d.app.screen, AskText)
        assert not d.worker.runs

    run_scene(scene, 120, 40)


def test_a_composition_becomes_a_training_job_for_its_reference_text() -> None:
    Library().save(a_prompt(name="fox", hard_prompt="a red fox"))

    async def scene(d: Session) -> None:
        d.app.settings.more = {"objective": "mixed", "share": "0.4"}
        d.app.main.compose_pane.query_one("#composition", Input).value = "[fox] at night"
        await d.pilot.press("f5", "ctrl+s")
        await d.shows("Name of the soft prompt")
        await d.pilot.press(*"night fox", "enter")
        await d.until(lambda: d.worker.runs)
        (record,) = d.worker.runs.values()
        assert record.job.prompt == "a red fox at night"
        assert (record.job.name, record.job.config.objective, record.job.config.hidden_share) == (
            "night fox",
            "mixed",
            0.4,
        )
        assert [entry.name for entry in record.job.ancestry] == ["fox"]

    run_scene(scene)


@pytest.mark.parametrize("keys", [("enter",), ("ctrl+g", "enter")])
def test_a_composition_gets_the_name_that_train_would_derive(keys: tuple[str, ...]) -> None:
    library = Library()
    library.save(a_prompt(name="fox", hard_prompt="a red fox"))
    library.save(a_prompt(name="red-fox-night", hard_prompt="a red fox"))

    async def scene(d: Session) -> None:
        d.app.main.compose_pane.query_one("#composition", Input).value = "[fox] at night"
        await d.pilot.press("f5", "ctrl+s")
        await d.shows("Name of the soft prompt", "red-fox-night-2")
        await d.pilot.press(*keys)
        await d.until(lambda: [run.job.name for run in d.worker.runs.values()] == ["red-fox-night-2"])

    run_scene(scene, 120, 40)


def test_completion_offers_both_entries_of_the_same_name() -> None:
    library = Library()
    first = library.save(a_prompt(name="fox"))
    library.revisions.write(replace(first, id="0123456789abcdef", revision=1))

    async def scene(d: Session) -> None:
        await d.pilot.press("f5", "left_square_bracket", *"fo")
        await d.until(lambda: d.text().count(" fox  2  ") == 2)
        await d.pilot.press("enter")
        await d.until(lambda: d.app.main.compose_pane.composition in (f"[{first.id}]", "[0123456789abcdef]"))

    run_scene(scene)


def test_a_readout_that_wraps_shows_all_its_rows() -> None:
    words = ("landscapephotography", "sunriseoverthemountains", "terrace")
    readout = tuple(ReadoutToken(word, 0.4, (Neighbour("near", 0.3),)) for word in words)
    Library().save(a_prompt(name="lake", readout_text="one two"))
    Library().save(a_prompt(name="long", readout=readout, readout_text=" ".join(words)))

    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "G")
        await d.until(lambda: d.app.main.detail.entry == d.app.main.library_pane.table.current)
        await d.pilot.press("g")
        await d.pilot.pause(0.3)
        for _ in range(2):
            await d.pilot.press("j" if d.app.main.library_pane.table.cursor == 0 else "k")
            await d.until(lambda: d.app.main.detail.entry == d.app.main.library_pane.table.current)
            if d.app.main.detail.title == "long":
                await d.shows("[v1]", "[v2]", "[v3]")

    run_scene(scene)
