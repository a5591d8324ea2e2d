"""Devices in the interface: the list below the device field, the device that trains, and the stages of loading."""

from __future__ import annotations

import pytest

from softprompt.system.devices import DeviceFacts
from softprompt.worker import protocol as p
from softprompt_tui.widgets.device_field import DeviceInput
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.fake_worker import FakeWorker

pytestmark = pytest.mark.usefixtures("runtime")
GPU = DeviceFacts("cuda:0", "NVIDIA H200", 141 * 10**9, 120 * 10**9, 0.5)


def test_the_device_field_lists_what_exists() -> None:
    async def scene(d: Session) -> None:
        d.worker.devices.insert(0, GPU)
        await d.shows("worker ready")
        field = d.app.main.query_one(DeviceInput)
        field.focus()
        await d.shows("auto    cuda:0 now", "NVIDIA H200, 120 of 141 GB free", "AMD EPYC, 2 cores, 12 of 16 GB free")
        chosen = []
        for key in ("down", "down", "down", "up", "up"):
            await d.pilot.press(key)
            chosen.append(field.value)
        assert chosen == ["cuda:0", "cpu", "auto", "cpu", "cuda:0"]
        await d.shows("▸ cuda:0")
        await d.pilot.press("f2")
        await d.until(lambda: "NVIDIA" not in d.text())

    run_scene(scene, 120, 40)


def test_the_title_line_shows_the_device_that_trains_and_nothing_while_idle() -> None:
    async def scene(d: Session) -> None:
        await d.shows("worker ready")
        assert "GB" not in d.text()
        assert p.Devices() not in d.worker.requests
        d.app.main.query_one(DeviceInput).value = "cpu"
        run = await d.train()
        d.worker.begin(run)
        await d.shows("training", "cpu 4/16 GB 87 %")
        d.worker.end(run)
        await d.shows("worker ready")
        await d.until(lambda: "87 %" not in d.text())

    run_scene(scene, 120, 40)


def test_without_a_worker_nothing_looks_live() -> None:
    async def scene(d: Session) -> None:
        d.app.main.query_one(DeviceInput).value = "cpu"
        run = await d.train()
        d.worker.begin(run)
        d.worker.load(run, "reading the weights")
        await d.shows("cpu 4/16 GB 87 %", "reading the weights", "live: ")
        d.worker.die()
        await d.shows("waits for the next worker")
        d.app.clear_notifications()
        await d.until(lambda: not any(words in d.text() for words in ("87 %", "reading the weights", "live: ")))

    run_scene(scene, 120, 40)


def test_without_a_worker_the_device_field_says_why_and_offers_what_every_machine_has() -> None:
    async def scene(d: Session) -> None:
        d.worker.die()
        await d.until(lambda: d.app.worker.state == "gone")
        field = d.app.main.query_one(DeviceInput)
        field.focus()
        await d.shows("there is no worker: ctrl+r starts one", "the best device", "works on every machine")
        await d.pilot.press("down")
        assert field.value == "cpu"
        async with FakeWorker():
            d.app.worker.reconnect()
            await d.shows("AMD EPYC, 2 cores, 12 of 16 GB free")

    run_scene(scene, 120, 40)


def test_loading_shows_its_stages_wherever_the_run_is_shown() -> None:
    async def scene(d: Session) -> None:
        await d.shows("worker ready")
        run = await d.train()
        d.worker.begin(run)
        d.worker.load(run, "reading the weights")
        await d.pilot.press("f6")
        await d.until(lambda: d.text().count("reading the weights") == 3)  # the title line, Loss and Runs
        await d.shows("loading")
        d.worker.load(run, "downloading the weights", 120_000_000, 890_000_000)
        await d.until(lambda: d.text().count("120 MB of 890 MB") == 3)
        d.worker.report(run, 20)
        await d.until(lambda: "890 MB" not in d.text() and "running" in d.text())
        d.worker.load(run, "encoding the prompt and its contexts")
        await d.shows("encoding the prompt")
        d.worker.report(run, 30)
        await d.until(lambda: "encoding" not in d.text())
        await d.shows("mountains and lake")

    run_scene(scene, 120, 40)
