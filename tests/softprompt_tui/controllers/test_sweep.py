"""Token sweeps: in the interface with a fake worker, and on the command line with real trainings."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable

import pytest
from textual.widgets import Static

from softprompt import Library
from softprompt.errors import ConfigError
from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker import protocol as p
from softprompt_tui.rendering.sweep_table import plot_sweep
from softprompt_tui.screens.help import HelpScreen
from softprompt_tui.screens.sweep import SweepScreen
from softprompt_tui.services.job_form import parse_token_counts, sweep_from_form
from softprompt_tui.state.settings import Form
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.conftest import FOX
from tests.fake_worker import sweep_result

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.usefixtures("runtime")
FIELDS = {"tokens": "3", "steps": "9", "stop_at": "", "model": "mini", "device": "cpu", "contexts": "no"}


def marked(d: Session) -> set[str]:
    assert isinstance(d.app.screen, SweepScreen)
    return d.app.screen.table.marked


def test_a_sweep_is_shown_live_and_the_chosen_results_are_saved() -> None:
    async def scene(d: Session) -> None:
        d.app.settings.more = {"hard": "yes", "restarts": "2"}
        run = await d.sweep()
        job = d.worker.runs[run].job
        assert (job.kind, job.sweep, job.config.tokens, job.config.restarts, job.hard_config) == (
            "sweep",
            (*range(1, 17),),
            16,
            2,
            None,
        )
        await d.shows("waiting for its turn", "16", "The plot needs")
        d.worker.begin(run)
        await d.shows("loading the model")
        d.worker.report_sweep(run, 40, [(k, 1 - 0.1 / k, 1 - 0.2 / k) for k in range(1, 17)])
        await d.shows("step 40 of 300", "0.9500", "0.9000", "1 - composed", "in training contexts", "s Stop")
        await d.pilot.press("enter")
        await d.shows("nothing to save before the sweep ends")
        d.worker.end(run, results=[sweep_result(k) for k in range(1, 17)])
        await d.shows("3 knee", "knee 3", "as text")
        await d.until(lambda: marked(d) == {"3"})
        assert "s Stop" not in d.text()
        await d.pilot.press("j", "j", "j", "j", "space", "enter")
        await d.shows("saved as swept-k3, swept-k5", "3 saved", "5 saved")
        assert {entry.name for entry in Library().list().entries} == {"swept-k3", "swept-k5"}
        assert marked(d) == set()
        await d.pilot.press("k")
        await d.shows("saved as swept-k5", "sunrise landscape terrace lake hills")
        await d.pilot.press("escape", "f6")
        await d.shows("sweep", "done")
        await d.pilot.press("enter")  # opening it again shows the same state
        await d.until(lambda: isinstance(d.app.screen, SweepScreen))
        await d.shows("3 saved")
        assert marked(d) == set()

    run_scene(scene)


def test_saving_a_result_again_restores_it_from_the_trash() -> None:
    async def scene(d: Session) -> None:
        run = await d.sweep()
        d.worker.end(run, results=[sweep_result(k) for k in (1, 2, 3)])
        await d.until(lambda: marked(d) == {"3"})
        await d.pilot.press("a", "enter")
        await d.shows("saved as swept-k1, swept-k2, swept-k3")
        Library().delete("swept-k2")
        await d.pilot.press("a", "enter")
        await d.until(lambda: Library().list().total == 3)

    run_scene(scene)


def test_all_rows_can_be_marked_and_a_sweep_can_be_stopped() -> None:
    async def scene(d: Session) -> None:
        run = await d.sweep()
        d.worker.begin(run)
        await d.pilot.press("a")
        await d.until(lambda: len(marked(d)) == 16)
        await d.pilot.press("a", "f1")
        await d.until(lambda: isinstance(d.app.screen, HelpScreen))
        await d.shows("Sweep")
        await d.pilot.press("escape", "s")
        await d.until(lambda: any(isinstance(request, p.Stop) for request in d.worker.requests))
        await d.shows("stopped before it had any results")
        assert marked(d) == set()

    run_scene(scene)


def test_quitting_from_the_sweep_screen_asks_once() -> None:
    async def scene(d: Session) -> None:
        run = await d.sweep()
        d.worker.begin(run)
        await d.until(lambda: d.app.runs.by_id[run].state == "running")
        d.press_at_once("ctrl+q", "ctrl+q")
        await d.shows("A run is in progress")
        await d.pilot.press("escape")
        await d.until(lambda: isinstance(d.app.screen, SweepScreen))
        assert d.app.is_running

    run_scene(scene)


def test_a_failed_and_a_stopped_sweep_are_reported() -> None:
    async def scene(d: Session) -> None:
        run = await d.sweep()
        d.worker.end(run, error="cpu is out of memory: fewer numbers need less")
        await d.shows("fewer numbers need less")
        keys = d.text().splitlines()[-1]
        assert not any(label in keys for label in ("Stop", "Save", "Keep/drop", "All", "Open"))
        await d.pilot.press("escape")
        await d.until(lambda: not isinstance(d.app.screen, SweepScreen))
        second = await d.sweep()
        await d.pilot.press("escape")
        d.worker.begin(second)
        d.worker.end(second, results=[sweep_result(k) for k in (1, 2)])
        await d.shows("enter in runs (F6) shows and saves results")

    run_scene(scene)


def test_a_missing_value_is_shown_as_unknown() -> None:
    async def scene(d: Session) -> None:
        d.app.settings.more = {"sweep": "1,4"}
        run = await d.sweep()
        assert d.worker.runs[run].job.sweep == (1, 4)
        d.worker.begin(run)
        d.worker.report_sweep(run, 10, [(1, None, None), (4, 0.5, None)])
        await d.shows("0.5000", "-")
        nothing = dict.fromkeys(("composed", "worst", "floor", "readout_similarity"))
        d.worker.end(run, results=[sweep_result(k, knee=4) | nothing | {"readout_text": ""} for k in (1, 4)])
        await d.shows("4 knee")
        for width, height in ((60, 20), (120, 40), (40, 12)):
            await d.pilot.resize_terminal(width, height)
            await d.pilot.pause()
            assert all(len(line) <= width for line in d.text().splitlines())

    run_scene(scene)


def test_a_wrong_sweep_setting_gives_an_error_and_submits_nothing() -> None:
    async def scene(d: Session) -> None:
        d.app.settings.more = {"sweep": "few"}
        await d.pilot.press("f7")
        await d.shows("a range such as 1-16")
        assert not d.worker.runs

    run_scene(scene)


def test_a_sweep_uses_the_settings_of_the_prompt_except_the_token_count() -> None:
    job = sweep_from_form(
        Form("a lake", FIELDS | {"tokens": "auto", "stop_at": ".9", "steps": "77"}), {"sweep": "2, 4-5", "hard": "yes"}
    )
    assert (job.sweep, job.config.tokens, job.config.steps, job.config.stop_at, job.hard_config) == (
        (2, 4, 5),
        5,
        77,
        None,
        None,
    )
    assert sweep_from_form(Form("a lake", FIELDS | {"stop_at": ".9"}), {}).config.stop_at == 0.9


def test_token_counts_can_be_typed_in_many_ways() -> None:
    assert parse_token_counts("1-4") == (1, 2, 3, 4)
    assert parse_token_counts(" 8, 1 ,2-3,2") == (1, 2, 3, 8)
    for text in ("", "0", "0-3", "4-2", "many", "1-999", "-1", "1.5", "99999", "²"):
        with pytest.raises(ConfigError, match=r"1-16|1,2,4,8"):
            parse_token_counts(text)


def test_a_plot_needs_two_points_and_marks_the_knee() -> None:
    rows = [SweepResult(k, 1 - 0.1 / k, 1 - 0.2 / k, knee=k == 2) for k in range(1, 9)]
    assert "knee 2" in plot_sweep(rows, 60, 16)
    assert "1 - composed" in plot_sweep(rows, 60, 16)
    assert plot_sweep(rows[:1], 60, 16) == ""
    assert plot_sweep(rows, 60, 4) == ""
    assert "1 - similarity" in plot_sweep([SweepResult(k, 1 - 0.1 / k) for k in (1, 2)], 60, 16)
    assert (
        plot_sweep([SweepResult(1, 1.0), SweepResult(2, math.nextafter(1, 2))], 60, 16) == ""
    )  # a log axis cannot show these values


def test_a_label_hides_no_part_of_its_curve() -> None:
    """Also if the curve falls and rises again where the label is: both curves have a cell in each of its columns."""
    rows = [SweepResult(k, 1 - 1e-5 * (4 + (k - 12) ** 2), 1 - 1e-3 * (9 + (k - 12) ** 2)) for k in range(1, 17)]
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in plot_sweep(rows, 62, 22).splitlines()]
    for label in ("1 - similarity", "1 - composed"):
        (line,) = (line for line in lines if label in line)
        for column in range(start := line.index(label), start + len(label) - 1):
            assert sum("\u2800" < line[column] <= "\u28ff" for line in lines if column < len(line)) >= 2


def test_the_plot_is_drawn_again_when_other_lines_take_its_room_or_return_it() -> None:
    async def scene(d: Session) -> None:
        run = await d.sweep()
        d.worker.begin(run)
        d.worker.report_sweep(run, 150, [(k, 1 - 0.1 / k, 1 - 0.2 / k) for k in range(1, 17)])
        plot, lines_above = d.app.screen.query_one("#sweep-plot", Static), d.app.screen.query_one("#sweep-state")

        def is_drawn_in(height: int) -> bool:
            return plot.size.height == height == len(str(plot.content).splitlines())

        await d.shows("1 - composed", "step 150 of 300")
        height = plot.size.height
        await d.until(lambda: is_drawn_in(height))
        lines_above.styles.min_height = lines_above.outer_size.height + 2  # as a long message does
        await d.until(lambda: is_drawn_in(height - 2))
        lines_above.styles.min_height = None
        await d.until(lambda: is_drawn_in(height))

    run_scene(scene)


def test_the_command_prints_a_table_and_a_plot_and_saves_nothing_by_default(run: Run) -> None:
    done = run("sweep", FOX, "-k", "1,2,4", "--steps", "20", "--device", "cpu")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["tokens", "similarity", "composed", "worst", "as", "text", "readout"]
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "4"]
    assert sum("knee" in line for line in lines[1:4]) == 1
    assert "1 - similarity" in done.stdout
    assert "\x1b" not in done.stdout
    assert "nothing was saved. Use --keep knee" in done.stderr
    assert Library().list().total == 0


def test_the_command_saves_the_results_of_keep(run: Run) -> None:
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
    output = json.loads(done.stdout)
    assert [(result["tokens"], result["name"]) for result in output["results"]] == [
        (1, "fox-k1"),
        (2, None),
        (3, "fox-k3"),
    ]
    assert [result["tokens"] for result in output["results"] if result["knee"]] == [output["knee"]]
    assert {entry.name: entry.tokens for entry in Library().list().entries} == {"fox-k1": 1, "fox-k3": 3}
    again = run("sweep", FOX, "-k", "1,2", "--steps", "5", "--no-contexts", "--device", "cpu", "--keep", "all")
    assert "saved as red-fox-asleep-k2" in again.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-k", "none"], "a range such as 1-16"),
        (["-k", "1-3", "--keep", "5"], "cannot keep 5 tokens: the sweep does not include"),
        (["--init", "soft"], "init 'soft' needs a saved soft prompt, which a sweep cannot use"),
        (["--name", "v1"], "reserved"),
        (["-k", "76"], "room for 75"),
    ],
)
def test_a_wrong_sweep_is_bad_input(run: Run, args: list[str], message: str) -> None:
    done = run("sweep", FOX, "--device", "cpu", *args)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
