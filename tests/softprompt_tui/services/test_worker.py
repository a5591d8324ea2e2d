"""The interface's line to a real worker of an older version: its run is shown live, and a newer worker takes over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from softprompt.config import TrainConfig
from softprompt.errors import WorkerError
from softprompt.jobs.job import TrainJob
from softprompt.worker import protocol as p
from softprompt.worker.summary import RunReport
from softprompt_tui.services.worker import Link, News, WorkerConnection
from tests.conftest import FOX
from tests.nursery import Nursery
from tests.worker_process import Home


@pytest.fixture
def worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    made = Home(monkeypatch.setenv)
    yield made
    made.close()


def test_an_older_workers_run_is_shown_live_and_a_newer_one_takes_over(worker: Home, nursery: Nursery) -> None:
    worker.begin_an_older_one(nursery)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(p, "PROTOCOL", p.PROTOCOL - 1)
        run, waiting = (worker.submit(FOX, tokens=2, steps=50_000, contexts=()) for _ in range(2))

    async def look() -> None:
        heard: asyncio.Queue[News] = asyncio.Queue()
        line = WorkerConnection(heard.put_nowait)
        task = asyncio.create_task(line.run())

        async def until(wanted: Callable[[News], bool]) -> None:
            while not wanted(await asyncio.wait_for(heard.get(), 60)):
                pass

        def reports(run: str) -> Callable[[News], bool]:
            return lambda news: isinstance(news, RunReport) and news.run == run

        why = "the worker is of an older version: a newer one takes over when its run is done"
        await until(lambda news: news == Link("starting", why))
        await until(lambda news: news == Link("up", ""))
        await until(reports(run))
        with pytest.raises(WorkerError, match=f"makes way when run {run[:8]} is done"):
            await line.submit(TrainJob(FOX, TrainConfig(tokens=1)))
        await line.ask(p.Stop(run))
        await until(lambda news: news == Link("up", ""))
        await until(reports(waiting))
        assert (await line.ask(p.Status()))["protocol"] == p.PROTOCOL
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(look())
