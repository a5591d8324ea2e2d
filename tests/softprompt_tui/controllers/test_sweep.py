"""Sweeps: on the screen, through its keys, against a worker that trains nothing; and on the command line, for real."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable

import pytest

from softprompt import Library
from softprompt.errors import ConfigError
from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker import protocol as p
from softprompt_tui.rendering.sweep_table import plot
from softprompt_tui.screens.help import HelpScreen
from softprompt_tui.screens.sweep import SweepScreen
from softprompt_tui.services.job_form import numbers_of, sweep_of
from softprompt_tui.state.settings import Form
from tests.app_harness import Desk, runtime, works  # noqa: F401  # runtime is a fixture
from tests.conftest import FOX
from tests.fake_worker import swept

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.usefixtures("runtime")
FIELDS = {"tokens": "3", "steps": "9", "stop_at": "", "model": "mini", "device": "cpu", "contexts": "no"}


async def begun(d: Desk) -> str:
    """A sweep of what is in the editor, its screen open."""
    before = set(d.worker.records)
    await d.pilot.press("f7")
    await d.until(lambda: set(d.worker.records) - before and isinstance(d.app.screen, SweepScreen))
    (run,) = set(d.worker.records) - before
    return run


def marked(d: Desk) -> set[str]:
    assert isinstance(d.app.screen, SweepScreen)
    return d.app.screen.table.marked


def test_a_sweep_is_watched_and_what_is_chosen_is_kept() -> None:
    async def scene(d: Desk) -> None:
        d.app.settings.more = {"hard": "yes", "restarts": "2"}
        run = await begun(d)
        job = d.worker.records[run].job
        assert (job.kind, job.sweep, job.config.tokens, job.config.restarts, job.hard_config) == (
            "sweep",
            (*range(1, 17),),
            16,
            2,
            None,
        )
        await d.shows("waiting for its turn", "16", "The plot begins")
        d.worker.begin(run)
        await d.shows("loading the model")
        d.worker.sweep(run, 40, [(k, 1 - 0.1 / k, 1 - 0.2 / k) for k in range(1, 17)])
        await d.shows("step 40 of 300", "0.9500", "0.9000", "1 - composed", "in training contexts")
        await d.pilot.press("enter")
        await d.shows("nothing to be kept before it is done")
        d.worker.end(run, results=[swept(k) for k in range(1, 17)])
        await d.shows("3 knee", "knee 3", "as text")
        await d.until(lambda: marked(d) == {"3"})
        await d.pilot.press("j", "j", "j", "j", "space", "enter")
        await d.shows("kept as swept-k3, swept-k5", "3 saved", "5 saved")
        assert {one.name for one in Library().list().entries} == {"swept-k3", "swept-k5"}
        assert marked(d) == set()
        await d.pilot.press("k")
        await d.shows("saved as swept-k5", "sunrise landscape terrace lake hills")
        await d.pilot.press("escape", "f6")
        await d.shows("sweep", "done")
        await d.pilot.press("enter")  # nothing is lost by leaving
        await d.until(lambda: isinstance(d.app.screen, SweepScreen))
        await d.shows("3 saved")
        assert marked(d) == set()

    works(scene)


def test_what_is_kept_again_comes_back_from_the_trash() -> None:
    async def scene(d: Desk) -> None:
        run = await begun(d)
        d.worker.end(run, results=[swept(k) for k in (1, 2, 3)])
        await d.until(lambda: marked(d) == {"3"})
        await d.pilot.press("a", "enter")
        await d.shows("kept as swept-k1, swept-k2, swept-k3")
        Library().delete("swept-k2")
        await d.pilot.press("a", "enter")
        await d.until(lambda: Library().list().total == 3)

    works(scene)


def test_all_are_marked_and_none_and_a_sweep_is_stopped() -> None:
    async def scene(d: Desk) -> None:
        run = await begun(d)
        d.worker.begin(run)
        await d.pilot.press("a")
        await d.until(lambda: len(marked(d)) == 16)
        await d.pilot.press("a", "f1")
        await d.until(lambda: isinstance(d.app.screen, HelpScreen))
        await d.shows("Sweep")
        await d.pilot.press("escape", "s")
        await d.until(lambda: any(isinstance(one, p.Stop) for one in d.worker.asked))
        await d.shows("stopped before there was anything to keep")
        assert marked(d) == set()

    works(scene)


def test_one_leaves_from_a_sweeps_screen_and_is_asked_once() -> None:
    async def scene(d: Desk) -> None:
        run = await begun(d)
        d.worker.begin(run)
        await d.until(lambda: d.app.runs.known[run].state == "running")
        d.typed_at_once("ctrl+q", "ctrl+q")
        await d.shows("A training is under way")
        await d.pilot.press("escape")
        await d.until(lambda: isinstance(d.app.screen, SweepScreen))
        assert d.app.is_running

    works(scene)


def test_a_failure_and_an_early_stop_are_said() -> None:
    async def scene(d: Desk) -> None:
        run = await begun(d)
        d.worker.end(run, error="cpu is out of memory: fewer numbers need less")
        await d.shows("fewer numbers need less")
        await d.pilot.press("escape")
        await d.until(lambda: not isinstance(d.app.screen, SweepScreen))
        second = await begun(d)
        await d.pilot.press("escape")
        d.worker.begin(second)
        d.worker.end(second, results=[swept(k) for k in (1, 2)])
        await d.shows("enter in runs (F6) shows it")

    works(scene)


def test_what_has_no_figure_is_shown_as_unknown() -> None:
    async def scene(d: Desk) -> None:
        d.app.settings.more = {"sweep": "1,4"}
        run = await begun(d)
        assert d.worker.records[run].job.sweep == (1, 4)
        d.worker.begin(run)
        d.worker.sweep(run, 10, [(1, None, None), (4, 0.5, None)])
        await d.shows("0.5000", "-")
        nothing = dict.fromkeys(("composed", "worst", "floor", "readout_similarity"))
        d.worker.end(run, results=[swept(k, knee=4) | nothing | {"readout_text": ""} for k in (1, 4)])
        await d.shows("4 knee")
        for width, height in ((60, 20), (120, 40), (40, 12)):
            await d.pilot.resize_terminal(width, height)
            await d.pilot.pause()
            assert all(len(line) <= width for line in d.text().splitlines())

    works(scene)


def test_a_setting_that_makes_no_sweep_is_said_and_nothing_is_sent() -> None:
    async def scene(d: Desk) -> None:
        d.app.settings.more = {"sweep": "few"}
        await d.pilot.press("f7")
        await d.shows("1-16 is a range")
        assert not d.worker.records

    works(scene)


def test_the_prompts_settings_hold_for_a_sweep_but_for_the_tokens() -> None:
    job = sweep_of(
        Form("a lake", FIELDS | {"tokens": "auto", "stop_at": ".9", "steps": "77"}), {"sweep": "2, 4-5", "hard": "yes"}
    )
    assert (job.sweep, job.config.tokens, job.config.steps, job.config.stop_at, job.hard_config) == (
        (2, 4, 5),
        5,
        77,
        None,
        None,
    )
    assert sweep_of(Form("a lake", FIELDS | {"stop_at": ".9"}), {}).config.stop_at == 0.9


def test_numbers_of_tokens_are_read_as_people_write_them() -> None:
    assert numbers_of("1-4") == (1, 2, 3, 4)
    assert numbers_of(" 8, 1 ,2-3,2") == (1, 2, 3, 8)
    for text in ("", "0", "0-3", "4-2", "many", "1-999", "-1", "1.5", "99999", "²"):
        with pytest.raises(ConfigError, match=r"1-16|1,2,4,8"):
            numbers_of(text)


def test_a_plot_needs_two_points_and_marks_the_knee() -> None:
    rows = [SweepResult(k, 1 - 0.1 / k, 1 - 0.2 / k, knee=k == 2) for k in range(1, 9)]
    assert "knee 2" in plot(rows, 60, 16)
    assert "1 - composed" in plot(rows, 60, 16)
    assert plot(rows[:1], 60, 16) == ""
    assert plot(rows, 60, 4) == ""
    assert "1 - similarity" in plot([SweepResult(k, 1 - 0.1 / k) for k in (1, 2)], 60, 16)
    assert (
        plot([SweepResult(1, 1.0), SweepResult(2, math.nextafter(1, 2))], 60, 16) == ""
    )  # nothing is left to be shown on a log axis


def test_the_command_shows_a_table_and_a_plot_and_saves_nothing_unasked(run: Run) -> None:
    done = run("sweep", FOX, "-k", "1,2,4", "--steps", "20", "--device", "cpu")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["tokens", "similarity", "composed", "worst", "as", "text", "readout"]
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "4"]
    assert sum("knee" in line for line in lines[1:4]) == 1
    assert "1 - similarity" in done.stdout
    assert "\x1b" not in done.stdout
    assert "nothing was saved; --keep knee" in done.stderr
    assert Library().list().total == 0


def test_the_command_saves_what_it_is_told_to_keep(run: Run) -> None:
    done = run(
        "sweep",
        FOX,
        "-k",
        "1-3",
        "--steps",
        "10",
        "--no-contexts",
        "--device",
        "cpu",
        "--keep",
        "3,1",
        "--name",
        "fox",
        "--json",
    )
    told = json.loads(done.stdout)
    assert [(one["tokens"], one["name"]) for one in told["results"]] == [(1, "fox-k1"), (2, None), (3, "fox-k3")]
    assert [one["tokens"] for one in told["results"] if one["knee"]] == [told["knee"]]
    assert {entry.name: entry.tokens for entry in Library().list().entries} == {"fox-k1": 1, "fox-k3": 3}
    again = run("sweep", FOX, "-k", "1,2", "--steps", "5", "--no-contexts", "--device", "cpu", "--keep", "all")
    assert "saved as red-fox-asleep-k2" in again.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-k", "none"], "1-16 is a range"),
        (["-k", "1-3", "--keep", "5"], "5 tokens are to be kept, but are not among those that are tried: 1, 2, 3"),
        (["--init", "soft"], "no one soft prompt to begin from"),
        (["--name", "v1"], "reserved"),
        (["-k", "76"], "room for 1 to 75"),
    ],
)
def test_what_makes_no_sweep_is_bad_input(run: Run, args: list[str], said: str) -> None:
    done = run("sweep", FOX, "--device", "cpu", *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
