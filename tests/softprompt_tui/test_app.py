"""The interface through its keys, against a worker that speaks the protocol and trains nothing."""

from __future__ import annotations

import asyncio
import json
import os
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
from softprompt_tui.screens.help import ABOUT, HelpScreen
from softprompt_tui.screens.loss_plot import PlotScreen
from softprompt_tui.screens.sweep import SweepScreen
from softprompt_tui.screens.text_viewer import TextScreen
from softprompt_tui.services import worker as client
from softprompt_tui.state import settings as kept
from softprompt_tui.widgets.library import ACTIONS as LIBRARY
from softprompt_tui.widgets.runs import ACTIONS as RUNS
from tests.app_harness import Desk, desk, runtime, works  # noqa: F401  # runtime is a fixture
from tests.fake_worker import FakeWorker, swept
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
HOSTILE_TOGETHER = (
    " ".join(text for text in HOSTILE if len(text) < 40),
    *(text for text in HOSTILE if len(text) >= 40),
)


def similarities(d: Desk) -> list[p.Similarity]:
    return [one for one in d.worker.asked if isinstance(one, p.Similarity)]


pytestmark = pytest.mark.usefixtures("runtime")


def test_the_first_start_shows_what_to_do_next() -> None:
    async def scene(d: Desk) -> None:
        await d.shows(
            "image of serene landscape", "13 of 77 tokens", "The library is empty.", "ctrl+t trains", "worker ready"
        )
        assert d.app.main.prompt_pane.fields["tokens"] == "3"
        await d.pilot.press("f6")
        await d.shows("No runs.")
        await d.pilot.press("f5")
        await d.shows("A soft prompt is a word")

    works(scene)


def test_a_training_is_watched_and_ends_in_the_library() -> None:
    async def scene(d: Desk) -> None:
        run = await d.train()
        await d.shows("waiting for its turn")
        d.worker.begin(run)
        for step in range(1, 60):
            d.worker.report(run, step, loss=1 / step)
        await d.shows("step 59 of 300", "similarity 0.9831", "fox snow", "[v1]", "as text 0.5000")
        await d.pilot.press("f3")
        await d.until(lambda: isinstance(d.app.screen, PlotScreen))
        await d.shows("loss, all steps", "┤")
        await d.pilot.press("z")
        await d.shows("the last half")
        await d.pilot.press("s", "escape")
        d.worker.end(run)
        await d.shows("serene-landscape-sunrise", "0.9971")
        assert [one.name for one in Library().list().entries] == ["serene-landscape-sunrise"]
        assert d.app.settings.prompts == ["image of serene landscape at sunrise with trees mountains and lake"]

    works(scene)


def test_what_a_run_came_to_is_shown_under_its_new_name() -> None:
    async def scene(d: Desk) -> None:
        run = await d.train()
        d.worker.begin(run)
        d.worker.report(run, 5)
        d.worker.end(run)
        await d.shows("─ serene-landscape-sunrise ─")
        await d.pilot.press("f4", "r")
        await d.shows("Another name")
        await d.pilot.press(*"dawn", "enter")
        await d.shows("─ dawn ─")

    works(scene)


def test_what_is_wrong_with_a_setting_is_said_and_nothing_is_sent() -> None:
    async def scene(d: Desk) -> None:
        d.app.main.prompt_pane.query_one("#field-tokens", Input).value = "many"
        await d.pilot.press("ctrl+t")
        await d.shows("a whole number is needed")
        assert not [one for one in d.worker.asked if isinstance(one, p.Submit)]

    works(scene)


@pytest.mark.parametrize(
    ("prompt", "tokens", "said"),
    [
        ("a lake", "76", "room for 1 to 75 (10 are usual"),
        ("fox " * 80, "3", "takes 75; what does not fit: 'fox fox fox fox fox'. Shorten it"),
    ],
)
@pytest.mark.parametrize("key", ["ctrl+t", "f7"])
def test_what_the_model_has_no_room_for_is_refused_before_it_is_queued(
    prompt: str, tokens: str, said: str, key: str
) -> None:
    async def scene(d: Desk) -> None:
        d.app.main.prompt_pane.set(prompt, {"tokens": tokens})
        d.app.settings.more = {"sweep": f"1,{tokens}"}
        await d.pilot.press(key)
        await d.until(
            lambda: (
                said in " ".join("".join(line.partition("▌")[2].rstrip("│") for line in d.text().splitlines()).split())
            )
        )
        assert not d.worker.records
        if "fox" in prompt:
            assert "F8" in d.text()
            d.app.settings.more["long"] = "chunk"
            await d.pilot.press("escape", key)
            await d.until(lambda: d.worker.records)

    works(scene, 120, 40)


def test_a_run_that_waits_says_behind_what_and_which_is_next() -> None:
    entry = Library().save(a_prompt(name="lake")).id

    async def scene(d: Desk) -> None:
        d.app.main.prompt_pane.set("a red fox")
        first = await d.train()
        d.app.main.hard.look_for(entry, "auto")
        await d.until(lambda: len(d.worker.records) == 2)
        d.app.main.prompt_pane.set("a blue boat")
        last = await d.train()
        d.worker.begin(first)
        await d.pilot.press("f6", "G")
        await d.shows("queued 1   hard", "queued 2   train", "waiting behind a red fox and 1 more")
        await d.pilot.press("enter")
        await d.until(lambda: d.app.main.detail.run == last)
        d.worker.end(first)
        await d.until(lambda: d.text().count("waiting behind the hard readout of lake") == 2)  # in the loss pane too
        await d.pilot.press("K")
        await d.until(lambda: [one for one in d.worker.asked if isinstance(one, p.Move)])

    works(scene, 120, 40)


def test_a_long_queue_tells_every_place() -> None:
    async def scene(d: Desk) -> None:
        for i in range(11):
            await d.app.worker.submit(TrainJob(f"fox {i}"))
        await d.pilot.press("f6")
        await d.shows("queued 1 ", "queued 10 ", "queued 11 ")

    works(scene, 120, 40)


def test_keys_that_follow_at_once_each_get_what_they_asked_for() -> None:
    async def scene(d: Desk) -> None:
        d.typed_at_once("ctrl+t", "ctrl+t", "f7")
        await d.until(lambda: len(d.worker.records) == 3 and isinstance(d.app.screen, SweepScreen))
        assert sorted(record.job.kind for record in d.worker.records.values()) == ["sweep", "train", "train"]

    works(scene)


def test_a_sweep_asked_for_again_before_the_worker_answers_is_one_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(d: Desk) -> None:
        async def ask(request: p.Request, **settings: float) -> dict[str, object]:
            answer = await real(request, **settings)
            if isinstance(request, p.Submit):
                await answered.wait()
            return answer

        answered, real = asyncio.Event(), d.app.worker.ask
        monkeypatch.setattr(d.app.worker, "ask", ask)
        await d.pilot.press("f7")
        await d.until(lambda: d.worker.records)
        await d.pilot.press("f7")
        answered.set()
        await d.until(lambda: isinstance(d.app.screen, SweepScreen))
        assert len([one for one in d.worker.asked if isinstance(one, p.Submit)]) == 1

    works(scene)


def test_f7_is_found_wherever_one_looks_for_it() -> None:
    async def scene(d: Desk) -> None:
        await d.shows("F7 sweep ─", "^t Train  F7 Sweep  F8 Settings", "F7 with 1 to 16 soft tokens at once")
        assert "Sweep the prompt" in [command.title for command in d.app.get_system_commands(d.app.screen)]
        await d.pilot.press("f1")
        await d.shows("F7", "sweeps it")

    works(scene)


def test_entries_are_renamed_tagged_noted_deleted_and_brought_back() -> None:
    Library().save(a_prompt(name="lake"))
    fox = Library().save(a_prompt(name="fox")).id

    async def scene(d: Desk) -> None:
        def done(name: str) -> bool:
            """Whether the change is written and the next dialog can be asked for; the typed name alone stands in the old one."""
            return not d.app.main.library._asking and name in {one.name for one in Library().list().entries}

        await d.pilot.press("f4")
        await d.shows("fox", "lake")
        await d.until(lambda: d.app.main.library_pane.table.total == 2)
        while d.app.main.library_pane.table.current != fox:
            await d.pilot.press("j")
        await d.pilot.press("r")
        await d.until(lambda: isinstance(d.app.screen, AskText))
        await d.pilot.press(*"wolf", "enter")
        await d.until(lambda: done("wolf"))
        await d.shows("wolf")
        await d.pilot.press("t")
        await d.until(lambda: isinstance(d.app.screen, AskText))
        await d.pilot.press(*"red", "space", *"dusk", "enter")
        await d.until(lambda: done("wolf") and Library().open("wolf").tags == ("dusk", "red"))
        await d.pilot.press("N")
        await d.until(lambda: isinstance(d.app.screen, AskText))
        await d.pilot.press(*"good", "enter")
        await d.until(lambda: done("wolf") and Library().open("wolf").note == "good")
        await d.pilot.press("i")
        await d.until(lambda: isinstance(d.app.screen, TextScreen))
        await d.shows("norms", "dusk  red")
        await d.pilot.press("escape", "d")
        await d.until(lambda: [one.name for one in Library().list().entries] == ["lake"])
        await d.pilot.press("u")
        await d.until(lambda: Library().list().total == 2)
        await d.shows("wolf")

    works(scene)


def test_the_library_is_searched_ordered_and_compared() -> None:
    library = Library()
    for i in range(30):
        library.save(a_prompt(name=f"fox {i}", similarity=i / 100))
    library.save(a_prompt(name="lake", hard_prompt="a lake at sunrise", similarity=0.999))

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4", "slash", *"sunr")
        await d.until(lambda: d.app.main.library_pane.table.total == 1)
        await d.pilot.press("enter")
        assert d.app.main.library_pane.table.has_focus
        await d.pilot.press("escape")
        await d.until(lambda: d.app.main.library_pane.table.total == 31)
        await d.pilot.press("o")
        await d.shows("31, most similar first")
        await d.until(
            lambda: d.app.main.library_pane.current() is not None and d.app.main.library_pane.current().name == "lake"
        )  # type: ignore[union-attr]
        await d.pilot.press("G")
        await d.until(
            lambda: d.app.main.library_pane.current() is not None and d.app.main.library_pane.current().name == "fox 0"
        )  # type: ignore[union-attr]
        await d.shows("fox 0")
        await d.pilot.press("g", "space", "space", "c")
        await d.until(lambda: isinstance(d.app.screen, TextScreen))
        await d.shows("similarity of their hard prompts")

    works(scene)


def test_opening_composing_and_copying() -> None:
    Library().save(a_prompt(name="fox"))

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.current)
        await d.pilot.press("enter")
        await d.shows("fox is open: its tokens are [v1] to [v2]")
        await d.pilot.press("y")
        await d.until(lambda: d.app.main.compose_pane.composition == "[fox]")
        assert d.app.clipboard == "[fox]"
        await d.pilot.press("f5", "end", "space", *"dark")
        await d.shows("fidelity 0.9870  floor 0.9120", "tokens 5 of 75, 4 saved")
        await d.until(lambda: similarities(d)[-1].texts == ["[fox] dark"])
        assert similarities(d)[-1].opened == Library().find("fox").id

    works(scene)


def test_names_are_offered_behind_a_bracket_and_chosen_by_keys() -> None:
    library = Library()
    for minute, name in enumerate(("fog", "fox", "lake")):
        library.save(a_prompt(name=name, created=f"2026-01-01T00:0{minute}:00+00:00"))

    async def scene(d: Desk) -> None:
        await d.pilot.press("f5", *"at ", "left_square_bracket", *"fo")
        await d.shows("fox   2 soft tokens", "fog   2 soft tokens")
        await d.pilot.press("down", "enter")
        await d.until(lambda: d.app.main.compose_pane.composition == "at [fog]")
        await d.pilot.press(*" dark", "backslash", "left_square_bracket", "l")  # a bracket that is one
        await d.pilot.pause(0.2)
        assert "   2 soft tokens" not in d.text()
        await d.pilot.press("space", "left_square_bracket")
        await d.shows("lake   2 soft tokens")
        await d.pilot.press("escape", "tab")
        assert d.app.focused is d.app.main.compose_pane.query_one("#against")
        assert d.app.main.compose_pane.composition == "at [fog] dark\\[l ["

    works(scene)


def test_the_plot_shows_every_restart() -> None:
    async def scene(d: Desk) -> None:
        run = await d.train()
        d.worker.begin(run)
        for step in range(1, 40):
            d.worker.report(run, step, loss=1 / step, restarts=(1 / step, 2 / step, 5 / step))
        await d.shows("step 39 of 300")
        await d.pilot.press("f3")
        await d.shows("loss of 3 restarts, all steps")
        assert [one[-1] for one in d.app.main.detail.series.restarts] == [(39, 1 / 39), (39, 2 / 39), (39, 5 / 39)]
        await d.pilot.press("s")
        await d.until(lambda: "of 3 restarts" not in d.text())
        await d.pilot.press("escape")
        d.worker.end(run)
        await d.until(lambda: d.app.runs.known[run].state == "done")
        await d.pilot.press("f3")  # what is saved is the best one's curve; the others are still there
        await d.shows("loss of 3 restarts")

    works(scene)


def test_what_is_shown_is_told_in_full_where_there_is_room() -> None:
    Library().save(a_prompt(name="fox", hard_prompt="a red fox in deep snow"))

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4")
        await d.shows("Details", "norms", "a red fox in deep snow")
        run = await d.train()
        d.worker.begin(run)
        await d.shows("queued", "running", run)
        await d.pilot.resize_terminal(80, 24)
        await d.until(lambda: "Details" not in d.text())

    works(scene, 120, 40)


def test_on_a_large_terminal_all_panes_stand_side_by_side() -> None:
    async def scene(d: Desk) -> None:
        await d.shows("Prompt", "F4 Library", "F5 Compose", "F6 Runs", "Loss", "Readout", "Details")
        await d.shows("The library is empty.", "A soft prompt is a word", "No runs.")
        for key, pane in (("f6", "runs"), ("f5", "compose"), ("f4", "library")):
            await d.pilot.press(key)
            assert pane in {node.id for node in d.app.focused.ancestors_with_self}  # type: ignore[union-attr]
        await d.pilot.resize_terminal(100, 30)
        await d.until(lambda: "No runs." not in d.text())
        assert d.app.main.library_pane.display

    works(scene, 200, 60)


def test_a_variation_brings_prompt_and_settings_back() -> None:
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

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.current)
        await d.pilot.press("n")
        await d.until(lambda: d.app.main.prompt_pane.prompt == "a red fox")
        fields = d.app.main.prompt_pane.fields
        assert (fields["tokens"], fields["steps"], fields["stop_at"]) == ("5", "77", "0.9")
        assert fields["contexts"] == "{} at sea | a map of {}"
        await d.pilot.press("ctrl+t")
        await d.until(lambda: d.worker.records)
        (record,) = d.worker.records.values()
        config = record.job.config
        assert (config.rate, config.seed, config.restarts, config.objective) == (0.3, 5, 8, "contrastive")
        assert (config.contexts, config.against) == (("{} at sea", "a map of {}"), ("a wolf", "a dog"))
        assert not config.project_norm
        assert record.job.precision == "bfloat16"

    works(scene)


def test_keys_in_a_burst_act_on_the_list_of_runs_as_the_one_before_left_it() -> None:
    async def scene(d: Desk) -> None:
        first, second, third = [await d.train() for _ in range(3)]
        d.worker.begin(first)
        await d.pilot.press("f6", "j")
        await d.shows("queued 2")
        d.typed_at_once("d", "d")
        await d.until(lambda: list(d.worker.records) == [first])
        assert {second, third}.isdisjoint(d.app.runs.known)

    works(scene)


def test_what_is_followed_stays_while_it_trains_and_what_begins_then_takes_its_place() -> None:
    async def scene(d: Desk) -> None:
        first, second = [await d.train() for _ in range(2)]
        d.worker.begin(first)
        await d.until(lambda: d.app.main.detail.run == first)
        d.worker.begin(second)  # in one batch with it
        d.worker.end(first)  # told together
        await d.until(lambda: d.app.runs.known[first].state == "done" and d.app.runs.known[second].state == "running")
        await d.pilot.pause()
        assert d.app.main.detail.run == first
        third = await d.train()
        await d.until(lambda: d.app.main.detail.run == third)

    works(scene)


@pytest.mark.parametrize(
    ("theme", "is_dark", "keeps_colours"), [("softprompt-light", False, False), ("ansi-dark", True, True)]
)
def test_a_remembered_theme_holds_from_the_start(theme: str, is_dark: bool, keeps_colours: bool) -> None:
    async def scene() -> None:
        app = SoftPromptApp()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert app.theme == theme
            assert app.has_class(f"-theme-{theme}", "-dark-mode" if is_dark else "-light-mode")
            assert not app.has_class("-light-mode" if is_dark else "-dark-mode")
            (to_truecolor,) = [one for one in app._filters if isinstance(one, ANSIToTruecolor)]
            assert to_truecolor.enabled != keeps_colours  # the terminal's own 16 colours stay what they are
            assert to_truecolor._terminal_theme is app.ansi_theme

    kept.save(replace(kept.load()[0], theme=theme))
    asyncio.run(scene())


def test_runs_are_stopped_paused_dropped_and_their_errors_read() -> None:
    async def scene(d: Desk) -> None:
        first, second, third = [await d.train() for _ in range(3)]
        d.worker.begin(first)
        d.worker.end(second, error="out of memory: fewer restarts need less")
        await d.pilot.press("f6")
        await d.shows("running", "failed")
        await d.until(lambda: len(d.app.runs.known) == 3)
        assert [run.id for run in d.app.runs.in_order()] == [first, third, second]
        await d.pilot.press("G")
        await d.shows("out of memory: fewer restarts")
        await d.pilot.press("r", "g", "p")
        await d.until(lambda: d.worker.records[first].state == "paused")
        await d.until(lambda: d.app.runs.in_order()[-1].id == first)
        await d.pilot.press("g")
        while d.app.main.runs_pane.table.current != third:
            await d.pilot.press("j")
        await d.pilot.press("d")
        await d.until(lambda: third not in d.worker.records)
        kinds = [type(one) for one in d.worker.asked]
        assert p.Resume in kinds
        assert p.Pause in kinds
        assert p.Drop in kinds

    works(scene, 120, 40)


def test_quitting_asks_once_where_something_trains() -> None:
    async def scene(d: Desk) -> None:
        run = await d.train()
        d.worker.begin(run)
        await d.until(lambda: d.app.runs.known[run].state == "running")
        await d.pilot.press("ctrl+q")
        await d.until(lambda: isinstance(d.app.screen, AskKey))
        await d.pilot.press("escape")
        await d.until(lambda: not isinstance(d.app.screen, AskKey))
        await d.pilot.press("ctrl+q")
        await d.until(lambda: isinstance(d.app.screen, AskKey))
        await d.pilot.press("s")
        await d.until(lambda: d.worker.records[run].state == "stopped")

    works(scene)


@pytest.mark.parametrize(("answer", "becomes"), [("k", "queued"), ("s", "stopped")])
def test_what_is_still_being_handed_in_is_asked_about_and_not_lost(
    answer: str, becomes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = threading.Event()

    async def scene(d: Desk) -> None:
        d.typed_at_once("ctrl+t", "ctrl+q")
        await d.shows("A training is under way")
        await d.pilot.press(answer)
        await d.until(lambda: not isinstance(d.app.screen, AskKey))
        assert not d.worker.records
        assert d.app.is_running
        checked.set()
        await d.until(lambda: [run.state for run in d.worker.records.values()] == [becomes] and not d.app.is_running)

    monkeypatch.setattr(preflight, "check_fits", lambda _: checked.wait())
    works(scene)


@pytest.mark.parametrize("comes", [True, False])
def test_quitting_asks_too_while_the_worker_is_only_being_started(comes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It will train what is left; what is to be stopped is stopped once it is there, and where it does not come nobody leaves."""
    begun = threading.Event()

    def connect(**settings: bool) -> Client | None:
        begun.wait()
        if not comes:
            raise WorkerError("no process can be started")
        return real(**settings)

    async def scene(d: Desk) -> None:
        run = await d.train()
        d.worker.begin(run)
        await d.until(lambda: d.app.runs.known[run].state == "running")
        d.worker.die()
        await d.shows("no worker: ctrl+r starts it")
        monkeypatch.setattr(client, "connect", connect)
        async with FakeWorker(d.worker.records) as another:
            await d.pilot.press("ctrl+r")
            await d.shows("starting the worker")
            await d.pilot.press("ctrl+q")
            await d.shows("keep training")
            await d.pilot.press("s")
            await d.shows("as soon as the worker is there")
            begun.set()
            if comes:
                await d.until(lambda: another.records[run].state == "stopped")
            else:
                await d.shows("no process can be started", "no worker: ctrl+r starts it")
                assert d.app.is_mounted_and_running()
                assert not another.asked

    real = client.connect
    works(scene)


def test_a_first_start_asks_too_about_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that is being started has told nothing yet."""
    begun = threading.Event()
    RunFolder.create(runs_folder(), TrainJob("a red fox"), 1.0)
    monkeypatch.setattr(client, "connect", lambda **_: begun.wait() and None)

    async def look() -> None:
        app = SoftPromptApp()
        async with app.run_test(notifications=True) as pilot:
            d = Desk(app, pilot, FakeWorker())
            await d.shows("starting the worker")
            await pilot.press("ctrl+q")
            await d.shows("A training is under way", "keep training")
            await pilot.press("k")
            await d.until(lambda: not app.is_running)

    asyncio.run(look())
    begun.set()


def test_who_stops_all_stays_where_something_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """But what is over meanwhile, or gone, keeps nobody."""

    def do(self: FakeWorker, request: p.Request) -> dict[str, object]:
        if isinstance(request, p.Stop):
            how = self.records[request.run].job.prompt
            if how == "over":
                self.end(request.run)
            elif how == "gone":
                real(self, p.Drop(request.run))
            if how != "fox" or not let:
                raise RunRefused(f"no stop for {how}")
        return real(self, request)

    async def scene(d: Desk) -> None:
        for prompt in ("over", "fox", "gone"):
            d.app.main.prompt_pane.set(prompt)
            d.worker.begin(await d.train())
        await d.pilot.press("ctrl+q")
        await d.shows("3 trainings", "keep training")
        await d.pilot.press("s")
        await d.shows("fox is not stopped: no stop for fox")
        assert d.app.is_running
        let.append(True)
        await d.pilot.press("ctrl+q")
        await d.shows("A training is under way")
        await d.pilot.press("s")
        await d.until(lambda: not d.app.is_running)

    let: list[bool] = []
    real = FakeWorker._do
    monkeypatch.setattr(FakeWorker, "_do", do)
    works(scene, 120, 40)


def test_the_workers_death_is_said_and_mended_by_one_key() -> None:
    async def scene(d: Desk) -> None:
        d.worker.die()
        await d.shows("no worker: ctrl+r starts it")
        async with FakeWorker() as another:
            await d.pilot.press("ctrl+r")
            await d.until(lambda: d.app.worker.state == "up")
            await d.shows("worker ready")
            assert another.records == {}

    works(scene)


def test_settings_last_and_a_broken_file_is_kept(home: Path) -> None:
    async def first(d: Desk) -> None:
        d.app.main.prompt_pane.set("a blue whale", {"tokens": "4"})
        d.app.theme = "softprompt-light"
        await d.pilot.press("f6")
        await d.pilot.pause()
        d.app.quit_now()

    async def second(d: Desk) -> None:
        assert (d.app.main.prompt_pane.prompt, d.app.main.prompt_pane.fields["tokens"]) == ("a blue whale", "4")
        assert (d.app.theme, d.app.main.below) == ("softprompt-light", "runs")

    works(first)
    works(second)
    path = home / "data" / "interface.json"
    path.write_text('{"theme": 3}')

    async def third(d: Desk) -> None:
        await d.shows("the settings could not be read")
        assert d.app.theme == "softprompt-dark"

    works(third)
    (kept,) = path.parent.glob("interface-broken-*.json")
    assert json.loads(kept.read_text()) == {"theme": 3}


def test_nothing_under_a_dialog_is_reached_by_keys() -> None:
    Library().save(a_prompt(name="fox"))

    async def scene(d: Desk) -> None:
        await d.pilot.press("f8", "f4", "d", "f1", "f3", "ctrl+t")
        await d.pilot.pause()
        assert len(d.app.screen_stack) == 2
        await d.pilot.press("escape")
        assert Library().list().total == 1
        assert not [one for one in d.worker.asked if isinstance(one, p.Submit)]

    works(scene)


def test_up_and_down_move_in_the_text_first_and_then_through_the_history_losing_nothing() -> None:
    async def scene(d: Desk) -> None:
        pane = d.app.main.prompt_pane
        pane.remembered(["first prompt", "second prompt"])
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

    works(scene)


def test_the_cursor_stays_on_its_entry_however_the_list_changes() -> None:
    library = Library()
    for i in range(230):
        library.save(a_prompt(name=f"n{i}", created=f"2026-01-01T00:{i // 60:02}:{i % 60:02}+00:00"))
    far = library.find("n40").id

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.total == 230)
        d.app.main.library_pane.table.cursor = 189
        await d.until(lambda: d.app.main.library_pane.table.current == far)
        library.save(a_prompt(name="later"))
        d.app.post(LibraryChanged())
        await d.until(lambda: d.app.main.library_pane.table.total == 231)
        await d.until(lambda: d.app.main.library_pane.table.current == far)
        assert d.app.main.library_pane.table.cursor == 190

    works(scene)


def test_a_deleted_entry_is_shown_no_more() -> None:
    Library().save(a_prompt(name="fox"))

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.current)
        await d.pilot.press("enter")
        await d.until(lambda: d.app.main.library.opened)
        await d.pilot.press("d")
        await d.shows("The library is empty", "Nothing trains yet")
        await d.until(lambda: not d.app.main.library.opened)

    works(scene)


def test_help_and_palette_name_every_key_of_library_and_runs() -> None:
    for pane, actions in (("library", LIBRARY), ("runs", RUNS)):
        told = " ".join(key for key, _ in ABOUT[pane][1]).split()
        assert set(actions) <= set(told)

    async def scene(d: Desk) -> None:
        names = [command.title for command in d.app.get_system_commands(d.app.screen)]
        assert {"Library: Export", "Library: From files", "Runs: Pause", "Train the composition"} <= set(names)
        assert len(names) == len(set(names))

    works(scene)


def test_help_is_of_the_pane_one_is_in() -> None:
    async def scene(d: Desk) -> None:
        await d.pilot.press("f4", "question_mark")
        await d.until(lambda: isinstance(d.app.screen, HelpScreen))
        await d.shows("Library", "searches")
        await d.pilot.press("escape", "f2", "f1")
        await d.shows("struck", "through")

    works(scene)


@pytest.mark.parametrize(
    ("size", "texts"), [((60, 20), HOSTILE), ((120, 40), HOSTILE_TOGETHER)], ids=["size0", "size1"]
)
def test_hostile_text_is_inert_on_every_screen(
    size: tuple[int, int], texts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "check_fits", lambda _: None)  # another client may have queued what is refused here

    library = Library()
    for text in texts:
        found = HardReadout(text, 2, 0.5, None, text, 1, 0.1)
        library.save(
            a_prompt(name="odd", hard_prompt=text, readout_text=text, model=text[:300], warnings=(text,), hard=found)
        )
        library.annotate(library.list(limit=1).entries[0].id, text)

    async def scene(d: Desk) -> None:
        def inert() -> bool:
            return not set(d.text()) & set("\x1b\x07\x9b\u202e")

        for text in texts:
            d.app.main.prompt_pane.set(text)
            run = await d.train()
            d.worker.begin(run)
            d.worker.report(run, 5)
            d.worker.end(run, error=f"failed: {text}")
            d.app.show_status(text, "error")
            await d.pilot.pause()
            assert inert()
            d.app.clear_notifications()  # seen once: nine that lie over everything are laid out anew with every key
        await d.pilot.press("f6", "g")
        assert inert()
        await d.pilot.press("f4")
        for _ in texts:
            await d.pilot.press("j", "enter")
            await d.pilot.pause(0.02)
            assert inert()
            await d.pilot.press("f9", "y", "f4")
            assert d.app.clipboard.isprintable()
            await d.pilot.press("i")
            await d.until(lambda: isinstance(d.app.screen, TextScreen))
            assert inert()
            await d.pilot.press("escape")
        for text in texts:
            d.app.main.prompt_pane.set(text)
            await d.pilot.press("f7")
            await d.until(lambda: isinstance(d.app.screen, SweepScreen))
            run = list(d.worker.records)[-1]
            d.worker.end(run, results=[swept(1) | {"readout_text": text}])
            await d.until(lambda run=run: d.app.runs.known[run].results)
            d.app.screen.draw()  # type: ignore[attr-defined]
            await d.pilot.pause(0.02)
            assert inert()
            await d.pilot.press("escape")
        d.app.main.compose_pane.show(None, HOSTILE[2])
        await d.pilot.press("f5")
        assert inert()
        assert d.app.is_running

    works(scene, *size)


def test_without_a_terminal_it_says_so(run: Callable[..., object]) -> None:
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
    async def scene(d: Desk) -> None:
        for width, height in ((60, 20), (80, 24), (120, 40), (200, 60), (40, 12)):
            await d.pilot.resize_terminal(width, height)
            await d.pilot.pause()
            assert all(len(line) <= width for line in d.text().splitlines())
            assert "Prompt" in d.text()
            assert "Loss" in d.text() or height < 20
        assert os.environ["SOFTPROMPT_HOME"]
        assert isinstance(d.app.screen.query_one("#title"), Static)

    works(scene)


def test_an_answer_that_is_older_than_the_news_changes_nothing() -> None:
    """The worker begins a run at once, and says so before its answer to the submission is read."""

    async def scene(d: Desk) -> None:
        d.worker.begins_at_once = True
        run = await d.train()
        await d.until(lambda: d.app.runs.known.get(run))
        d.worker.report(run, 20)
        await d.shows("step 20 of 300", "training")
        assert d.app.runs.known[run].state == "running"

    works(scene)


def test_a_composition_is_trained_with_the_settings_and_a_name_that_is_free() -> None:
    Library().save(a_prompt(name="fox", model_fingerprint="abc"))

    async def scene(d: Desk) -> None:
        d.app.settings.more = {"objective": "mixed", "share": "0.4"}
        await d.pilot.press("f5", *"[nobody] x", "escape", "ctrl+s")
        await d.shows("no soft prompt is named")
        assert not d.worker.records
        d.app.main.compose_pane.query_one("#composition", Input).value = "[fox] at night"
        await d.pilot.press("ctrl+s")
        await d.shows("its name")
        await d.pilot.press(*"fox", "enter")
        await d.shows("has a soft prompt named fox already")
        await d.pilot.press(*"night", "enter")
        await d.until(lambda: d.worker.records)
        assert d.app.main.compose_pane.composition == "[fox] at night"

    works(scene)


def test_a_composition_that_has_no_room_is_refused_before_it_is_queued() -> None:
    Library().save(a_prompt(name="fox", hard_prompt="a red fox"))

    async def scene(d: Desk) -> None:
        d.app.main.prompt_pane.set("x", {"tokens": "76"})
        d.app.main.compose_pane.query_one("#composition", Input).value = "[fox] at night"
        await d.pilot.press("f5", "ctrl+s")
        await d.shows("room for 1 to 75")
        assert not isinstance(d.app.screen, AskText)
        assert not d.worker.records

    works(scene, 120, 40)


def test_a_composition_becomes_a_job_of_all_its_meaning() -> None:
    Library().save(a_prompt(name="fox", hard_prompt="a red fox"))

    async def scene(d: Desk) -> None:
        d.app.settings.more = {"objective": "mixed", "share": "0.4"}
        d.app.main.compose_pane.query_one("#composition", Input).value = "[fox] at night"
        await d.pilot.press("f5", "ctrl+s")
        await d.shows("its name")
        await d.pilot.press(*"night fox", "enter")
        await d.until(lambda: d.worker.records)
        (record,) = d.worker.records.values()
        assert record.job.prompt == "a red fox at night"
        assert (record.job.name, record.job.config.objective, record.job.config.hidden_share) == (
            "night fox",
            "mixed",
            0.4,
        )
        assert [one.name for one in record.job.ancestry] == ["fox"]

    works(scene)


def test_two_entries_of_one_name_are_both_offered() -> None:
    library = Library()
    first = library.save(a_prompt(name="fox"))
    library.revisions.write(replace(first, id="0123456789abcdef", revision=1))

    async def scene(d: Desk) -> None:
        await d.pilot.press("f5", "left_square_bracket", *"fo")
        await d.until(lambda: d.text().count("fox   2 soft tokens") == 2)
        await d.pilot.press("enter")
        await d.until(lambda: d.app.main.compose_pane.composition in (f"[{first.id}]", "[0123456789abcdef]"))

    works(scene)


def test_a_readout_that_wraps_shows_all_its_rows() -> None:
    words = ("landscapephotography", "sunriseoverthemountains", "terrace")
    readout = tuple(ReadoutToken(word, 0.4, (Neighbour("near", 0.3),)) for word in words)
    Library().save(a_prompt(name="lake", readout_text="one two"))
    Library().save(a_prompt(name="long", readout=readout, readout_text=" ".join(words)))

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4", "G")
        await d.until(lambda: d.app.main.detail.entry == d.app.main.library_pane.table.current)
        await d.pilot.press("g")
        await d.pilot.pause(0.3)
        for _ in range(2):
            await d.pilot.press("j" if d.app.main.library_pane.table.cursor == 0 else "k")
            await d.until(lambda: d.app.main.detail.entry == d.app.main.library_pane.table.current)
            if d.app.main.detail.title == "long":
                await d.shows("[v1]", "[v2]", "[v3]")

    works(scene)


def test_a_run_with_progress_is_dropped_only_when_it_is_meant() -> None:
    async def scene(d: Desk) -> None:
        run = await d.train()
        d.worker.begin(run)
        d.worker.report(run, 40)
        await d.shows("step 40")
        await d.pilot.press("f6", "p")
        await d.shows("paused")
        await d.pilot.press("d")
        await d.shows("has come to step 40", "drop it all the same")
        await d.pilot.press("escape")
        assert run in d.worker.records
        await d.pilot.press("d")
        await d.shows("drop it all the same")
        await d.pilot.press("d")
        await d.until(lambda: not d.worker.records)

    works(scene)
