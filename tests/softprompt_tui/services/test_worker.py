"""The interface's connection to a real worker of an older version, until a new worker takes over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from softprompt.config import TrainConfig
from softprompt.errors import WorkerError
from softprompt.jobs.job import TrainJob
from softprompt.worker import protocol as p
from softprompt.worker.summary import RunReport
from softprompt_tui.services.worker import ConnectionState, WorkerConnection, WorkerMessage
from tests.conftest import FOX
from tests.nursery import Nursery
from tests.worker_process import Home


def test_the_run_of_an_older_worker_is_shown_live_until_a_new_worker_takes_over(worker: Home, nursery: Nursery) -> None:
    worker.start_older_worker(nursery)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(p, "PROTOCOL", p.PROTOCOL - 1)
        run, waiting = (worker.submit(FOX, tokens=2, steps=50_000, contexts=()) for _ in range(2))

    async def scene() -> None:
        heard: asyncio.Queue[WorkerMessage] = asyncio.Queue()
        line = WorkerConnection(heard.put_nowait)
        task = asyncio.create_task(line.run())

        async def until(wanted: Callable[[WorkerMessage], bool]) -> None:
            while not wanted(await asyncio.wait_for(heard.get(), 60)):
                pass

        def reports(run: str) -> Callable[[WorkerMessage], bool]:
            return lambda news: isinstance(news, RunReport) and news.run == run

        reason = "the worker is an older version; a new one takes over when its run is done"
        await until(lambda message: message == ConnectionState("starting", reason))
        await until(lambda news: news == ConnectionState("up", ""))
        await until(reports(run))
        with pytest.raises(WorkerError, match=f"will exit after run {run[:8]}"):
            await line.submit(TrainJob(FOX, TrainConfig(tokens=1)))
        await line.ask(p.Stop(run))
        await until(lambda news: news == ConnectionState("up", ""))
        await until(reports(waiting))
        assert (await line.ask(p.Status()))["protocol"] == p.PROTOCOL
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(scene())
