"""The interface with many runs: it is painted after the first page of the list, and what changes meanwhile is right in the end."""

from __future__ import annotations

import asyncio

import pytest

from softprompt.config import TrainConfig
from softprompt.jobs.job import TrainJob
from softprompt.worker.run_folder import Run
from softprompt_tui.app import SoftPromptApp
from softprompt_tui.state.queue import before
from tests.app_harness import Desk, runtime  # noqa: F401  # runtime is a fixture
from tests.fake_worker import FakeWorker


def runs(count: int) -> dict[str, Run]:
    job = TrainJob("a lake at sunrise", TrainConfig(tokens=1), device="cpu")
    return {
        f"{i:016x}": Run(f"{i:016x}", job, "2026-01-01T00:00:00+00:00", position=float(i)) for i in range(1, count + 1)
    }


@pytest.mark.usefixtures("runtime")
def test_a_long_list_is_painted_page_by_page_and_follows_what_changes() -> None:
    async def scene() -> None:
        async with FakeWorker(runs(250), page=100) as worker:
            worker.may_go_on.clear()
            app = SoftPromptApp()
            async with app.run_test(size=(100, 40), notifications=True) as pilot:
                d = Desk(app, pilot, worker)
                await d.pilot.press("f6")
                await d.shows("queued 1", "worker ready")
                assert len(app.runs.known) == 100
                listed = list(worker.records)
                worker.begin(listed[0])  # of the first page
                worker.end(listed[220], error="out of memory")  # of the last one
                await d.shows("running")
                await d.until(lambda: (run := app.runs.known.get(listed[220])) and run.state == "failed")
                await d.pilot.press(
                    "d"
                )  # it trains: refused by none, since nothing is locked while the list is on its way
                await d.until(lambda: listed[0] not in app.runs.known)
                worker.may_go_on.set()
                await d.until(lambda: len(app.runs.known) == 249)
                assert app.runs.known[listed[220]].state == "failed"
                await d.until(lambda: app.main.runs_pane.table.total == 249)
                await d.pilot.press("G")
                await d.shows("out of memory")
                # what is dropped while there is no connection is gone after the next list, and nothing is before it
                worker.may_go_on.clear()
                worker.die()
                await d.until(lambda: app.worker.state == "gone")
                for run in listed[50:150]:
                    del worker.records[run]
                await worker.__aenter__()
                await d.pilot.press("ctrl+r")
                await d.until(lambda: app.worker.state == "up")
                assert len(app.runs.known) == 249
                worker.may_go_on.set()
                await d.until(lambda: len(app.runs.known) == 149)

    asyncio.run(scene())


def test_what_waits_behind_ten_thousand_runs_is_found_in_one_pass() -> None:
    listed = [run.summary() for run in runs(10_000).values()]
    assert len(before(listed[-1], listed)) == 9_984  # all but the last batch of 16


@pytest.mark.usefixtures("runtime")
def test_thousands_of_changes_draw_the_list_a_few_times() -> None:
    async def scene() -> None:
        async with FakeWorker(runs(3000)) as worker:
            app = SoftPromptApp()
            async with app.run_test(size=(100, 40)) as pilot:
                d = Desk(app, pilot, worker)
                await d.until(lambda: len(app.runs.known) == 3000)
                drawn = []
                show = app.main.runs_pane.show
                app.main.runs_pane.show = lambda runs: (drawn.append(len(runs)), show(runs))[1]  # type: ignore[method-assign]
                for run in list(worker.records)[::2]:
                    worker.end(run, error="no memory")
                await d.until(lambda: app.runs.count("failed") == 1500)
                await d.pilot.press("f6")
                await d.until(lambda: "1500 under way or waiting" in str(app.main.runs_pane.border_subtitle))
                assert len(drawn) < 150

    asyncio.run(scene())
