"""The devices of the worker's machine: listed on request, and watched while a run trains.

The worker reports them: asking a GPU from here would load torch and open a CUDA context.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from softprompt.errors import SoftPromptError
from softprompt.system.devices import DeviceFacts
from softprompt_tui.messages import DevicesChanged

if TYPE_CHECKING:
    from softprompt_tui.app_context import AppContext

WATCH_SECONDS = 5.0 if os.environ.get("SSH_CONNECTION") else 2.0  # between two readings of the device that trains


class DevicesController:
    """Keeps the list of devices, and the facts about the one that trains.

    `is_training` returns whether a run is training. While it is, the facts are read every few seconds; otherwise
    nothing is asked or painted.
    """

    def __init__(self, context: AppContext, is_training: Callable[[], bool]) -> None:
        self.context, self._is_training = context, is_training
        self.devices: tuple[DeviceFacts, ...] = ()
        self.training: DeviceFacts | None = None
        self.trouble = ""  # why the worker did not answer the last time
        self._is_watching = False

    def list(self) -> None:
        """Ask the worker for the devices."""
        self.context.spawn(self._ask, group="devices", exclusive=True)

    def queue_changed(self) -> None:
        """Watch the device while a run is training."""
        if self._is_training() and not self._is_watching:
            self._is_watching = True
            self.context.spawn(self._watch, group="watch-devices")

    def connection_changed(self, state: str) -> None:
        """Forget what an ended worker was doing, and ask again once there is a worker."""
        if state == "gone":
            self.training = None
        elif state == "up" and self.trouble:
            self.list()

    async def _watch(self) -> None:
        try:
            while self._is_training():
                await self._ask()
                await asyncio.sleep(WATCH_SECONDS)
        finally:
            self._is_watching, self.training = False, None
        self.context.post(DevicesChanged())

    async def _ask(self) -> None:
        await self.context.worker.wait_until_up()
        try:
            listed = await self.context.worker.devices()
        except SoftPromptError as error:
            self.training, self.trouble = None, str(error)
        else:
            self.devices, self.trouble = tuple(listed.devices), ""
            self.training = next((device for device in self.devices if device.name in listed.training), None)
        self.context.post(DevicesChanged())
