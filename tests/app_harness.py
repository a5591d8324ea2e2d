"""Run the interface in a test: the application, its keys, and a fake worker."""

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

from softprompt.errors import word_messages_for
from softprompt_tui.app import SoftPromptApp
from softprompt_tui.screens.dialogs import AskKey
from softprompt_tui.screens.sweep import SweepScreen
from tests.fake_worker import FakeWorker

MAX_PAUSE_SECONDS = 0.2  # reading the screen takes 10 ms of CPU time, so do not poll more often
TIMEOUT_SECONDS = 30.0  # only commands that load torch take more than a moment


@dataclass
class Session:
    """A running interface that is connected to a fake worker."""

    app: SoftPromptApp
    pilot: Pilot[None]
    worker: FakeWorker

    def press_at_once(self, *keys: str) -> None:
        """Send keys in one burst. A pilot would wait after each key until the interface is idle."""
        driver = self.app._driver
        assert driver is not None
        for key in keys:
            is_symbol = len(key) == 1 and not key.isalnum()
            event = events.Key(_character_to_key(key) if is_symbol else key, key if len(key) == 1 else None)
            event.set_sender(self.app)
            driver.send_message(event)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        deadline, pause = time.monotonic() + TIMEOUT_SECONDS, 0.01
        while time.monotonic() < deadline:
            if condition():
                await self.pilot.pause()
                return
            await self.pilot.pause(pause)
            pause = min(pause * 1.5, MAX_PAUSE_SECONDS)
        raise AssertionError(f"the condition did not become true; the screen:\n{self.text()}")

    def text(self) -> str:
        """Return the text on the screen."""
        width, height = self.app.size
        lines = self.app.screen._compositor.render_strips()
        if len(lines) != height:
            return ""  # a dialog is not drawn yet
        return "\n".join(line.text[:width] for line in lines)

    async def shows(self, *texts: str) -> None:
        """Wait until the screen shows all these texts."""

        def has_all() -> bool:
            screen = self.text()
            return all(text in screen for text in texts)

        await self.until(has_all)

    async def sweep(self) -> str:
        """Sweep the prompt in the editor, however long it takes. Return the id of the run once its screen is open."""
        before = set(self.worker.runs)
        await self.pilot.press("f7")
        await self.until(lambda: set(self.worker.runs) - before or isinstance(self.app.screen, AskKey))
        if isinstance(self.app.screen, AskKey):
            await self.pilot.press("enter")
        await self.until(lambda: set(self.worker.runs) - before and isinstance(self.app.screen, SweepScreen))
        (run,) = set(self.worker.runs) - before
        return run

    async def train(self) -> str:
        """Train the prompt in the editor, even if the same training exists. Return the id of its run."""
        before = set(self.worker.runs)
        await self.pilot.press("ctrl+t")
        await self.until(lambda: set(self.worker.runs) - before or isinstance(self.app.screen, AskKey))
        if isinstance(self.app.screen, AskKey):
            await self.pilot.press("t")
        await self.until(lambda: set(self.worker.runs) - before)
        (run,) = set(self.worker.runs) - before
        return run


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use a separate folder for the worker's socket."""
    folder = tempfile.mkdtemp(prefix="sp")
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", folder)
    yield
    shutil.rmtree(folder)


@asynccontextmanager
async def open_session(width: int = 80, height: int = 24) -> AsyncIterator[Session]:
    """Open the interface and wait until it is connected to the fake worker."""
    with word_messages_for("commands"):  # as the command line's entry does
        async with FakeWorker() as worker:
            app = SoftPromptApp()
            async with app.run_test(size=(width, height), notifications=True) as pilot:
                session = Session(app, pilot, worker)
                await session.until(lambda: app.worker.state == "up")
                yield session


def run_scene(scene: Callable[[Session], object], width: int = 80, height: int = 24) -> None:
    """Run an asynchronous test function with a new session."""

    async def run() -> None:
        async with open_session(width, height) as session:
            await scene(session)  # type: ignore[misc]

    asyncio.run(run())
