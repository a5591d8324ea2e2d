"""The interface under test: its application, its keys, and the fake worker that it talks to."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from softprompt_tui.app import SoftPromptApp
from tests.fake_worker import FakeWorker

LONGEST_PAUSE = 0.2  # seconds: reading the screen anew costs 10 ms of processor time
WITHIN = 30.0  # seconds; what is waited for comes at once, but where a command must load torch


@dataclass
class Desk:
    app: SoftPromptApp
    pilot: Pilot[None]
    worker: FakeWorker

    def typed_at_once(self, *keys: str) -> None:
        """Keys that one read of the terminal has: a pilot would wait between them until nothing is left to do."""
        driver = self.app._driver
        assert driver is not None
        for key in keys:
            is_sign = len(key) == 1 and not key.isalnum()
            event = events.Key(_character_to_key(key) if is_sign else key, key if len(key) == 1 else None)
            event.set_sender(self.app)
            driver.send_message(event)

    async def until(self, there: Callable[[], object]) -> None:
        """Waits until the interface is as wanted."""
        latest, pause = time.monotonic() + WITHIN, 0.01
        while time.monotonic() < latest:
            if there():
                await self.pilot.pause()
                return
            await self.pilot.pause(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
        raise AssertionError(f"not there; the screen:\n{self.text()}")

    def text(self) -> str:
        """What stands on the screen."""
        width, height = self.app.size
        lines = self.app.screen._compositor.render_strips()
        if len(lines) != height:
            return ""  # a dialog that is only about to be drawn
        return "\n".join(line.text[:width] for line in lines)

    async def shows(self, *words: str) -> None:
        def there() -> bool:
            text = self.text()
            return all(word in text for word in words)

        await self.until(there)

    async def train(self) -> str:
        before = set(self.worker.records)
        await self.pilot.press("ctrl+t")
        await self.until(lambda: set(self.worker.records) - before)
        (run,) = set(self.worker.records) - before
        return run


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own for the worker's socket."""
    folder = tempfile.mkdtemp(prefix="sp")
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", folder)
    yield
    shutil.rmtree(folder)


@asynccontextmanager
async def desk(width: int = 80, height: int = 24) -> AsyncIterator[Desk]:
    async with FakeWorker() as worker:
        app = SoftPromptApp()
        async with app.run_test(size=(width, height), notifications=True) as pilot:
            made = Desk(app, pilot, worker)
            await made.until(lambda: app.worker.state == "up")
            yield made


def works(test: Callable[[Desk], object], width: int = 80, height: int = 24) -> None:
    async def run() -> None:
        async with desk(width, height) as made:
            await test(made)  # type: ignore[misc]

    asyncio.run(run())
