"""The fake worker is faithful: it sends the same kinds of messages as the real one."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from softprompt import Library
from softprompt.config import HardConfig, TrainConfig
from softprompt.jobs.job import Job, SweepJob, TrainJob, hard_readout_job
from softprompt.prompts.results import HardReadout
from softprompt.worker import protocol as p
from softprompt.worker.endpoint import Endpoint
from tests.conftest import FOX
from tests.fake_worker import FakeWorker, sweep_result
from tests.nursery import Nursery
from tests.worker_process import Home


def shape(value: Any) -> Any:
    """Return the keys of a message with the types of their values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


async def record_shapes(fake: FakeWorker | None) -> dict[str, Any]:
    """Submit trainings, a sweep and a hard readout. Return the shapes of all messages that the client receives."""
    reader, writer = await asyncio.open_unix_connection(os.fspath(Endpoint().socket), limit=p.MAX_LINE_BYTES)
    shapes: dict[str, Any] = {}

    async def listen(until: Any) -> dict[str, Any]:
        while True:
            message = json.loads(await asyncio.wait_for(reader.readline(), 60))
            kind = message["type"] + (f" {message['run']['state']}" if message["type"] == "run" else "")
            shapes[kind] = shape({key: value for key, value in message.items() if key not in ("id", "result")})
            if until(message):
                return message

    async def ask(request: p.Request, number: int) -> dict[str, Any]:
        writer.write(p.encode(p.as_message(request, number)))
        reply = await listen(lambda message: message.get("id") == number)
        shapes[f"reply to {request.do}"] = shape(reply.get("result"))
        return reply

    writer.write(p.encode(p.hello()))
    await listen(lambda message: message["type"] == "snapshot")
    job = TrainJob(FOX, TrainConfig(tokens=1, steps=20, contexts=()), device="cpu").as_dict()
    run = (await ask(p.Submit(job), 1))["result"]["id"]
    waiting = (await ask(p.Submit(job), 2))["result"]["id"]
    await ask(p.Drop(waiting), 3)
    if fake:
        fake.begin(run)
        fake.load(run, "encoding the prompt and its contexts")
    await ask(p.Devices(), 11)
    shapes["reply to devices"]["devices"] = shapes["reply to devices"]["devices"][-1:]  # the CPU; a GPU is another one
    if fake:
        fake.report(run, 20)
    await listen(lambda message: message["type"] == "report")
    await ask(p.Curve(run), 4)
    await ask(p.Similarity("mini", ["a fox", "a boat"]), 5)
    if fake:
        fake.end(run)
    await listen(lambda message: message["type"] == "run" and message["run"]["state"] == "done")
    await ask(p.Similarity("mini", [f"[{run}] at night"]), 6)
    shapes["reply to a composition"] = shapes.pop("reply to similarity")
    await ask(p.Neighbours(entry=run), 7)

    async def run_another(kind: str, job: Job, number: int, report: Any, end: Any) -> str:
        """Run a job of another kind. Record the shapes of its messages under that kind. Return the run's id."""
        before = dict(shapes)
        shapes.clear()
        run = str((await ask(p.Submit(job.as_dict()), number))["result"]["id"])
        if fake:
            fake.begin(run)
            report(run)
        await listen(lambda message: message["type"] == "report")
        if fake:
            end(run)
        await listen(lambda message: message["type"] == "run" and message["run"]["state"] == "done")
        before |= {f"{kind}: {key}": value for key, value in shapes.items() if key in ("report", "run done")}
        shapes.clear()
        shapes.update(before)
        return run

    sweep = SweepJob(FOX, TrainConfig(steps=11, contexts=()), device="cpu", sweep=(1, 2))
    rows = [(1, 0.9, 0.8), (2, 0.95, 0.9)]
    sweep_run = await run_another(
        "sweep",
        sweep,
        8,
        lambda run: fake and fake.report_sweep(run, 10, rows),
        lambda run: fake and fake.end(run, results=[sweep_result(1, 2), sweep_result(2, 2)]),
    )
    await ask(p.Keep(sweep_run, [2]), 9)
    hard = hard_readout_job(Library().open(run), HardConfig(tokens=2, steps=2, restarts=1), "cpu")
    readout = HardReadout("fox dusk", 2, 0.9, None, "exchange", 9, 0.1)
    await run_another(
        "hard",
        hard,
        10,
        lambda run: fake and fake.report_search(run, 1, "fox", 0.8),
        lambda run: fake and fake.end(run, hard=readout),
    )
    writer.close()
    return shapes


def test_the_fake_worker_sends_the_same_messages_as_the_real_one(worker: Home, nursery: Nursery) -> None:
    nursery.warm_vocabulary()
    with worker.client():
        real = asyncio.run(record_shapes(None))
    worker.kill()

    async def with_the_fake() -> dict[str, Any]:
        async with FakeWorker() as fake:
            return await record_shapes(fake)

    fake = asyncio.run(with_the_fake())
    for kind in ("ready", "error", "run queued", "run running"):
        real.pop(kind, None), fake.pop(kind, None)
    assert fake.keys() <= real.keys()
    for kind, message in fake.items():
        assert _ignore_missing(message, real[kind]) == real[kind] or message == real[kind], kind


def _ignore_missing(fake: Any, real: Any) -> Any:
    """Return the fake message with the real type wherever either value is None, such as before the first report."""
    if isinstance(fake, dict) and isinstance(real, dict):
        return {
            key: real[key]
            if "NoneType" in (fake[key], real.get(key)) and key in real
            else _ignore_missing(fake[key], real.get(key))
            for key in fake
        }
    return fake
