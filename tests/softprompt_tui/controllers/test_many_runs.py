"""The interface with many runs: it paints after the first page, and changes during the list are not lost."""

from __future__ import annotations

import asyncio

import pytest

from softprompt.config import TrainConfig
from softprompt.jobs.job import TrainJob
from softprompt.worker.run_folder import Run
from softprompt_tui.app import SoftPromptApp
from softprompt_tui.state.queue import runs_ahead
from tests.app_harness import Session, runtime  # noqa: F401  # runtime is a fixture
from tests.fake_worker import FakeWorker


def queued_runs(count: int) -> dict[str, Run]:
    job = TrainJob("a lake at sunrise", TrainConfig(tokens=1), device="cpu")
    return {
        f"{i:016x}": Run(f"{i:016x}", job, "2026-01-01T00:00:00+00:00", position=float(i)) for i in range(1, count + 1)
    }


@pytest.mark.usefixtures("runtime")
def test_a_long_list_is_painted_page_by_page_and_follows_changes() -> None:
    async def scene() -> None:
        async with FakeWorker(queued_runs(250), page_size=100) as worker:
            worker.may_send_pages.clear()
            app = SoftPromptApp()
            async with app.run_test(size=(100, 40), notifications=True) as pilot:
                d = Session(app, pilot, worker)
                await d.pilot.press("f6")
                await d.shows("queued 1", "worker ready")
                assert len(app.runs.by_id) == 100
                listed = list(worker.runs)
                worker.begin(listed[0])  # of the first page
                worker.end(listed[220], error="out of memory")  # of the last page
                await d.shows("running")
                await d.until(lambda: (run := app.runs.by_id.get(listed[220])) and run.state == "failed")
                await d.shows("s Stop")  # the cursor is on the run that trains, which cannot be dropped
                await d.pilot.press("j", "d")  # keys work while the list is still arriving
                await d.until(lambda: listed[1] not in app.runs.by_id)
                worker.may_send_pages.set()
                await d.until(lambda: len(app.runs.by_id) == 249)
                assert app.runs.by_id[listed[220]].state == "failed"
                await d.until(lambda: app.main.runs_pane.table.total == 249)
                await d.pilot.press("G")
                await d.shows("out of memory")
                # runs that were dropped during a lost connection disappear only after the next complete list
                worker.may_send_pages.clear()
                worker.die()
                await d.until(lambda: app.worker.state == "gone")
                for run in listed[50:150]:
                    del worker.runs[run]
                await worker.__aenter__()
                await d.pilot.press("ctrl+r")
                await d.until(lambda: app.worker.state == "up")
                assert len(app.runs.by_id) == 249
                worker.may_send_pages.set()
                await d.until(lambda: len(app.runs.by_id) == 149)

    asyncio.run(scene())


def test_the_runs_ahead_in_a_queue_of_ten_thousand_are_found_in_one_pass() -> None:
    listed = [run.summary() for run in queued_runs(10_000).values()]
    assert len(runs_ahead(listed[-1], listed)) == 9_984  # all but the last batch of 16


@pytest.mark.usefixtures("runtime")
def test_thousands_of_changes_repaint_the_list_only_a_few_times() -> None:
    async def scene() -> None:
        async with FakeWorker(queued_runs(3000)) as worker:
            app = SoftPromptApp()
            async with app.run_test(size=(100, 40)) as pilot:
                d = Session(app, pilot, worker)
                await d.until(lambda: len(app.runs.by_id) == 3000)
                drawn = []
                show = app.main.runs_pane.show
                app.main.runs_pane.show = lambda runs: (drawn.append(len(runs)), show(runs))[1]  # type: ignore[method-assign]
                for run in list(worker.runs)[::2]:
                    worker.end(run, error="no memory")
                await d.until(lambda: app.runs.count("failed") == 1500)
                await d.pilot.press("f6")
                await d.until(lambda: "1500 running or queued" in str(app.main.runs_pane.border_subtitle))
                assert len(drawn) < 150

    asyncio.run(scene())
