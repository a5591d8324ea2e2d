"""The fake worker tells the truth: it says what the real one says, message by message."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from softprompt import Library
from softprompt.config import HardConfig, TrainConfig
from softprompt.jobs.job import Job, SweepJob, TrainJob, hard_readout_job
from softprompt.prompts.results import HardReadout
from softprompt.worker import protocol as p
from softprompt.worker.endpoint import Endpoint
from tests.conftest import FOX
from tests.fake_worker import FakeWorker, swept
from tests.nursery import Nursery
from tests.worker_process import Home


@pytest.fixture
def worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    made = Home(monkeypatch.setenv)
    yield made
    made.close()


def shape(value: Any) -> Any:
    """What a message is made of, without its figures: keys, and the kinds of their values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


async def talk(fake: FakeWorker | None) -> dict[str, Any]:
    """The shapes of all that a client hears over a training that is asked for twice and dropped once, a sweep and a hard readout."""
    reader, writer = await asyncio.open_unix_connection(os.fspath(Endpoint().socket), limit=p.MAX_LINE_BYTES)
    heard: dict[str, Any] = {}

    async def listen(until: Any) -> dict[str, Any]:
        while True:
            message = json.loads(await asyncio.wait_for(reader.readline(), 60))
            kind = message["type"] + (f" {message['run']['state']}" if message["type"] == "run" else "")
            heard[kind] = shape({key: value for key, value in message.items() if key not in ("id", "result")})
            if until(message):
                return message

    async def ask(request: p.Request, number: int) -> dict[str, Any]:
        writer.write(p.encode(p.as_message(request, number)))
        reply = await listen(lambda message: message.get("id") == number)
        heard[f"reply to {request.do}"] = shape(reply.get("result"))
        return reply

    writer.write(p.encode(p.hello()))
    await listen(lambda message: message["type"] == "snapshot")
    job = TrainJob(FOX, TrainConfig(tokens=1, steps=20, contexts=()), device="cpu").as_dict()
    run = (await ask(p.Submit(job), 1))["result"]["id"]
    waiting = (await ask(p.Submit(job), 2))["result"]["id"]
    await ask(p.Drop(waiting), 3)
    if fake:
        fake.begin(run)
        fake.report(run, 20)
    await listen(lambda message: message["type"] == "report")
    await ask(p.Curve(run), 4)
    await ask(p.Similarity("mini", ["a fox", "a boat"]), 5)
    if fake:
        fake.end(run)
    await listen(lambda message: message["type"] == "run" and message["run"]["state"] == "done")
    await ask(p.Similarity("mini", [f"[{run}] at night"]), 6)
    heard["reply to a composition"] = heard.pop("reply to similarity")
    await ask(p.Neighbours(entry=run), 7)

    async def another(kind: str, job: Job, number: int, figures: Any, end: Any) -> str:
        """Carries a run of another kind out; what is told of it is heard under its kind."""
        told = dict(heard)
        heard.clear()
        made = str((await ask(p.Submit(job.as_dict()), number))["result"]["id"])
        if fake:
            fake.begin(made)
            figures(made)
        await listen(lambda message: message["type"] == "report")
        if fake:
            end(made)
        await listen(lambda message: message["type"] == "run" and message["run"]["state"] == "done")
        told |= {f"{kind}: {key}": value for key, value in heard.items() if key in ("report", "run done")}
        heard.clear()
        heard.update(told)
        return made

    sweep = SweepJob(FOX, TrainConfig(steps=11, contexts=()), device="cpu", sweep=(1, 2))
    rows = [(1, 0.9, 0.8), (2, 0.95, 0.9)]
    made = await another(
        "sweep",
        sweep,
        8,
        lambda one: fake and fake.sweep(one, 10, rows),
        lambda one: fake and fake.end(one, results=[swept(1, 2), swept(2, 2)]),
    )
    await ask(p.Keep(made, [2]), 9)
    hard = hard_readout_job(Library().open(run), HardConfig(tokens=2, steps=2, restarts=1), "cpu")
    found = HardReadout("fox dusk", 2, 0.9, None, "exchange", 9, 0.1)
    await another(
        "hard",
        hard,
        10,
        lambda one: fake and fake.search(one, 1, "fox", 0.8),
        lambda one: fake and fake.end(one, hard=found),
    )
    writer.close()
    return heard


def test_the_fake_worker_says_what_the_real_one_says(worker: Home, nursery: Nursery) -> None:
    nursery.learn_to_type()
    with worker.client():
        real = asyncio.run(talk(None))
    worker.kill()

    async def with_the_fake() -> dict[str, Any]:
        async with FakeWorker() as fake:
            return await talk(fake)

    made = asyncio.run(with_the_fake())
    for kind in ("ready", "loading", "error", "run queued", "run running"):
        real.pop(kind, None), made.pop(kind, None)
    assert made.keys() <= real.keys()
    for kind, said in made.items():
        assert _without_unknown(said, real[kind]) == real[kind] or said == real[kind], kind


def _without_unknown(said: Any, real: Any) -> Any:
    """A run that has not reported yet has no figures, in either."""
    if isinstance(said, dict) and isinstance(real, dict):
        return {
            key: real[key]
            if "NoneType" in (said[key], real.get(key)) and key in real
            else _without_unknown(said[key], real.get(key))
            for key in said
        }
    return said
