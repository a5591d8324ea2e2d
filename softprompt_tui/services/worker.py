"""The interface's line to the worker: keeps it, hands on what happens, and asks; it never blocks the screen."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from softprompt.errors import SoftPromptError, WorkerError
from softprompt.worker import protocol as p
from softprompt.worker.client import ANSWER_WITHIN, connect, raised, too_old
from softprompt.worker.endpoint import Place
from softprompt.worker.lines import read_line

Tell = Callable[[dict[str, Any]], None]


class Line:
    """A connection that is made again when it is asked to be. `tell` gets the worker's messages, and three of its own:

    {"type": "link", "state": "starting" | "up" | "gone", "why": …}: what the connection is doing, and what to say of it.
    """

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.state = ""
        self._writer: asyncio.StreamWriter | None = None
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._mend, self._settled = asyncio.Event(), asyncio.Event()
        self._last = ""  # the run that a worker of an older version finishes

    async def run(self) -> None:
        """Connects, starting the worker if there is none, and hands on messages until it is cancelled."""
        while True:
            self._mend.clear()
            again = False
            try:
                self._say("starting", "")
                await self._started()
                again = await self._listen()
                self._say("gone", "the worker has ended")
            except (SoftPromptError, OSError) as error:
                self._say("gone", str(error))
            finally:
                self._hang_up()
            if not again:
                await self._mend.wait()

    def mend(self) -> None:
        """Connects again, where the line is down."""
        if self.state == "gone":
            self._mend.set()

    async def comes_up(self) -> bool:
        """Waits while the line is being made; whether it is there then."""
        while self.state == "starting":
            await self._settled.wait()
        return self.state == "up"

    async def ask(self, request: p.Request, within: float = ANSWER_WITHIN) -> dict[str, Any]:
        """The worker's reply. Raises what the worker raised, and WorkerError where there is no line or no answer."""
        if self._writer is None:
            raise WorkerError("the worker is not there: ctrl+r starts it")
        if self._last and isinstance(request, p.NEEDS_OURS):
            raise too_old(self._last)
        self._number += 1
        number, answer = self._number, asyncio.get_running_loop().create_future()
        line = p.encode(p.as_message(request, number))
        self._waiting[number] = answer
        try:
            self._writer.write(line)
            return dict(await asyncio.wait_for(answer, within))
        except TimeoutError as error:
            raise WorkerError(f"the worker has not answered for {within:.0f} s") from error
        finally:
            self._waiting.pop(number, None)

    async def _started(self) -> None:
        """Sees that there is a worker. It may take long, and nobody who leaves waits for it: the thread is a daemon."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def tell(words: str) -> None:
            loop.call_soon_threadsafe(self._say, "starting", words)

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)

        def start() -> None:
            error: BaseException | None = None
            try:
                client = connect(on_wait=tell, older=True)
                if client is not None:
                    client.close()
            except (SoftPromptError, OSError) as caught:
                error = caught
            with suppress(RuntimeError):  # the loop is closed: the interface was left meanwhile
                loop.call_soon_threadsafe(settle, error)

        threading.Thread(target=start, daemon=True).start()
        await done

    async def _listen(self) -> bool:
        """True where another worker is about to take this one's place."""
        reader, self._writer = await asyncio.open_unix_connection(os.fspath(Place().socket), limit=p.LONGEST_READ)
        self._writer.write(p.encode(p.hello()))
        again = False
        while line := await read_line(reader):
            message = p.message_of(line)
            again = again or p.makes_way(message, self._last)
            match message["type"]:
                case "reply" | "error":
                    self._answer(message)
                case "bye" if message.get("reason"):
                    raise WorkerError(message["reason"])
                case "bye":
                    again = again or bool(message.get("again"))
                case "making_way":
                    self._last = str(message.get("run", ""))
                    self._say("starting", "the worker is of an older version: a newer one takes over when its run is done")
                case "snapshot":
                    self._say("up", "")
                    self.tell(message)
                case _:
                    self.tell(message)
        return again

    def _answer(self, message: dict[str, Any]) -> None:
        answer = self._waiting.get(message["id"])
        if answer is None or answer.done():
            return
        if message["type"] == "reply":
            answer.set_result(message["result"])
        else:
            answer.set_exception(raised(message))

    def _hang_up(self) -> None:
        self._last = ""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(WorkerError("the worker is gone: ctrl+r starts it again"))

    def _say(self, state: str, why: str) -> None:
        self.state = state
        if state == "starting":
            self._settled.clear()
        else:
            self._settled.set()
        self.tell({"type": "link", "state": state, "why": why})
