"""Keys that submit something while the worker is starting, has ended or does not answer."""

from __future__ import annotations

import threading

import pytest

from softprompt import Library
from softprompt.errors import WorkerError
from softprompt.worker.client import Client
from softprompt_tui.controllers import runs
from softprompt_tui.services import worker as client
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.fake_worker import FakeWorker
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("home", "runtime")


async def lose_worker(d: Session) -> None:
    d.app.main.prompt_pane.set("a red fox", {})
    d.worker.die()
    await d.until(lambda: d.app.worker.state == "gone")


@pytest.mark.parametrize("key", ["ctrl+t", "f7"])
@pytest.mark.parametrize(("width", "height"), [(60, 20), (120, 40)])
def test_without_a_worker_a_training_is_refused_at_once(key: str, width: int, height: int) -> None:
    async def scene(d: Session) -> None:
        await lose_worker(d)
        long_reason = f"the worker (process 4711) does not answer. {'Here is its log. ' * 10}"
        d.app.show_status(long_reason, "error", persistent=True)
        await d.pilot.press(key)
        await d.shows("not submitted: no worker answers")

    run_scene(scene, width, height)


def test_without_a_worker_a_search_and_a_retry_are_refused_at_once() -> None:
    Library().save(a_prompt(name="fox", hard_prompt="a red fox"))

    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        d.worker.end(run, error="the disk is full")
        await d.until(lambda: d.app.runs.by_id[run].state == "failed")
        await lose_worker(d)
        await d.pilot.press("f4", "x")
        await d.shows("not submitted: no worker answers")
        d.app.clear_notifications()
        await d.pilot.press("f6", "r")
        await d.shows("not sent: no worker answers")

    run_scene(scene, 120, 40)


def test_a_training_is_submitted_as_soon_as_the_worker_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def connect(**settings: bool) -> Client | None:
        released.wait()
        return real_connect(**settings)

    async def scene(d: Session) -> None:
        await lose_worker(d)
        monkeypatch.setattr(client, "connect", connect)
        async with FakeWorker() as new_worker:
            await d.pilot.press("ctrl+r")
            await d.shows("starting the worker")
            await d.pilot.press("ctrl+t")
            await d.shows("submitted as soon as the worker answers")
            released.set()
            await d.until(lambda: [run.job.prompt for run in new_worker.runs.values()] == ["a red fox"])

    real_connect = client.connect
    run_scene(scene)


def test_a_training_is_refused_if_the_worker_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def connect(**_: bool) -> Client | None:
        released.wait()
        raise WorkerError("no process can be started")

    async def scene(d: Session) -> None:
        await lose_worker(d)
        monkeypatch.setattr(client, "connect", connect)
        await d.pilot.press("ctrl+r")
        await d.shows("starting the worker")
        await d.pilot.press("ctrl+t")
        await d.shows("submitted as soon as the worker answers")
        released.set()
        await d.shows("no process can be started", "not submitted: no worker answers")

    run_scene(scene)


def test_a_worker_that_hangs_is_reported_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(d: Session) -> None:
        d.app.main.prompt_pane.set("a red fox", {})
        monkeypatch.setattr(runs, "SLOW_SECONDS", 0.01)
        monkeypatch.setattr(FakeWorker, "_write", lambda *_: None)
        await d.pilot.press("ctrl+t")
        await d.shows("the worker has not answered yet", "worker stop --force", "ctrl+r")

    run_scene(scene, 120, 40)
