"""The worker's main thread: it listens, answers, keeps the queue and tells clients what happens. It never waits for torch or a client."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from softprompt.catalogue import list_models
from softprompt.curves import reduced
from softprompt.errors import SoftPromptError, WorkerError
from softprompt.job import Job
from softprompt.mounts import set_mode
from softprompt.worker import protocol as p
from softprompt.worker.clients import Client, is_ours
from softprompt.worker.engine import Engine
from softprompt.worker.place import Place, leads_to, take
from softprompt.worker.queue import Queue
from softprompt.worker.runfolder import Record

log = logging.getLogger(__name__)
MOST_CLIENTS = 64
TICK, RENEW_EVERY = 1.0, 30.0  # seconds
RELEASE_AFTER, END_AFTER = 120.0, 900.0  # seconds without work: models leave the GPU; without clients too: the worker ends
HELLO_WITHIN = 10.0  # seconds
MOST_POINTS = 2000  # of a curve in a reply
LONGEST_SHOWN = 400  # characters of a prompt
LEAVES_WITHIN = 10.0  # seconds; a step or a load that takes longer is cut off, and costs what came after the last checkpoint


class Server:
    """Serves one data folder. `run` returns when it is to end; `again` then says whether the process should start afresh."""

    def __init__(self, place: Place, lock: int, release_after: float = RELEASE_AFTER, end_after: float = END_AFTER) -> None:
        self.place = place
        self.lock = lock  # the descriptor of the place's worker lock
        self.end_after = end_after
        self.queue = Queue(place.home)
        self.engine = Engine(self.queue.library, self._from_engine, release_after)
        self.clients: dict[int, Client] = {}
        self.hello = p.hello()
        self.again = False
        self._making_way = self._leaving = self._ready = False
        self._asking: set[asyncio.Task[None]] = set()
        self._numbers = iter(range(1, sys.maxsize))
        self._since = time.monotonic()  # of the last client or training

    async def run(self, listening: Callable[[], None]) -> None:
        """Listens until it is told to end, or has had nothing to do for long. Calls `listening` once clients can come."""
        self._loop = asyncio.get_running_loop()
        self._over, self._scanned = asyncio.Event(), asyncio.Event()
        await self._listen()
        listening()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._leave)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal that it was started from is of no concern
        self.engine.start()
        await self._scan()
        self._scanned.set()
        self._next()
        ticking = asyncio.create_task(self._tick())
        await self._over.wait()
        ticking.cancel()
        self.engine.end()
        self._tell_all({"type": "bye", "again": self.again})
        self._server.close()
        for client in list(self.clients.values()):
            client.close()
        await asyncio.sleep(0.05)  # the last words go out; who does not read them sees the end of the line
        if self._is_listening():
            self.place.socket.unlink(missing_ok=True)

    def _is_listening(self) -> bool:
        try:
            return os.lstat(self.place.socket).st_ino == self._inode
        except OSError:
            return False

    async def _listen(self) -> None:
        self.place.socket.unlink(missing_ok=True)  # a dead worker's: we hold the lock
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.fspath(self.place.socket))
        set_mode(self.place.socket, 0o600)  # its folder keeps others out in any case
        self._inode = os.lstat(self.place.socket).st_ino
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=p.LONGEST_LINE)

    # clients

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(next(self._numbers), writer)
        try:
            if not is_ours(writer.get_extra_info("socket")) or len(self.clients) >= MOST_CLIENTS:
                return
            said = p.decode(await asyncio.wait_for(reader.readline(), HELLO_WITHIN))
            client.send(self.hello)
            if p.is_newer(said, self.hello):
                self._make_way(client)
            elif said.get("type") != "hello" or said.get("protocol") != p.PROTOCOL:
                client.send({"type": "bye", "reason": f"this worker speaks protocol {p.PROTOCOL}: update softprompt-tui here"})
                return
            await self._scanned.wait()
            client.send({"type": "snapshot", "runs": [_shown(record) for record in self.queue.in_order()], "ready": self._ready})
            self.clients[client.number] = client
            while line := await reader.readline():
                await self._heed(client, line)
        except (TimeoutError, ValueError, ConnectionError, WorkerError) as error:  # ValueError: a line without end
            log.info("a client is dropped: %s", error)
            client.drop()
        finally:
            self.clients.pop(client.number, None)
            self._since = time.monotonic()
            client.close()

    async def _heed(self, client: Client, line: bytes) -> None:
        """Carries out one request. Questions wait in a task of their own, so that a newer one can overtake them."""
        message = p.decode(line)
        number = message.get("id")
        try:
            request = p.request_of(message)
            if isinstance(request, (*p.QUERIES, p.Models)):
                task = asyncio.create_task(self._answer(client, number, request))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                return
            client.send({"type": "reply", "id": number, "result": await self._do(request)})
        except (SoftPromptError, OSError) as error:
            client.send(_error(number, error))
        if self._over.is_set():
            return
        self._next()

    async def _answer(self, client: Client, number: object, request: p.Request) -> None:
        try:
            if isinstance(request, p.Models):
                result = await self._in_thread(self._models)
            else:
                result = await asyncio.wrap_future(self.engine.ask(client.number, request))
            client.send({"type": "reply", "id": number, "result": result})
        except Exception as error:  # to whom asked; the engine has logged what was not foreseen
            client.send(_error(number, error))

    async def _do(self, request: p.Request) -> dict[str, Any]:
        queue = self.queue
        match request:
            case p.Submit():
                job = Job.from_dict(request.job)
                return self._changed(await self._in_thread(partial(queue.submit, job, request.start)))
            case p.Stop():
                return self._changed(queue.stop(request.run))
            case p.Pause():
                return self._changed(queue.pause(request.run))
            case p.Resume():
                return self._changed(queue.resume(request.run))
            case p.Move():
                return self._changed(queue.move(request.run, request.before))
            case p.Drop():
                record = queue.drop(request.run)
                self._tell_all({"type": "dropped", "run": record.id})
                return _shown(record)
            case p.Curve():
                record = queue.find(request.run)
                if not record.points:
                    record = await self._in_thread(queue.folder(record).read)
                points = reduced(record.points, min(max(request.points, 2), MOST_POINTS))
                return {"run": record.id, "points": points}
            case p.Keep():
                kept: dict[str, Any] = await self._in_thread(partial(queue.keep, request.run, request.tokens))
                return kept
            case p.Status():
                return self._status()
            case p.Shutdown():
                running = self._longest()
                if request.finish:
                    self._making_way = True
                    self._end_if_idle()
                else:
                    self._leave()
                return {"running": running}
        raise WorkerError(f"{request.do} is not answered here")

    def _models(self) -> dict[str, Any]:
        return {"models": [info.as_dict() for info in list_models()], "loaded": self._loaded()}

    def _loaded(self) -> list[str]:
        return self.engine.warm.names() if self.engine.warm else []

    def _status(self) -> dict[str, Any]:
        states = [record.state for record in self.queue.records.values()]
        return {
            "pid": os.getpid(), **{key: self.hello[key] for key in ("version", "protocol")}, "home": str(self.place.home), "socket": str(self.place.socket),
            "clients": len(self.clients), "ready": self._ready, "models": self._loaded(),
            "running": ", ".join(self.queue.training), "queued": states.count("queued"), "paused": states.count("paused"),
        }  # fmt: skip

    def _changed(self, record: Record) -> dict[str, Any]:
        values = _shown(record)
        self._tell_all({"type": "run", "run": values})
        return values

    def _tell_all(self, message: dict[str, Any], replaceable: bool = False) -> None:
        for client in list(self.clients.values()):
            (client.send_if_read if replaceable else client.send)(message)

    # runs

    def _next(self) -> None:
        """Gives the engine the run whose turn it is, if it has none."""
        if not self.queue.training and not self._making_way and not self._over.is_set() and (trainings := self.queue.next()):
            self.engine.begin(trainings)
        self._end_if_idle()

    def _from_engine(self, kind: str, run: str, values: dict[str, Any]) -> None:
        self._loop.call_soon_threadsafe(self._heed_engine, kind, run, values)

    def _heed_engine(self, kind: str, run: str, values: dict[str, Any]) -> None:
        self._since = time.monotonic()
        match kind:
            case "ready":
                self._ready = True
                self._tell_all({"type": "ready"})
            case "loading":
                self._tell_all({"type": "loading", "run": run, **values}, replaceable=True)
            case "event":
                record = self.queue.records[run]
                record.apply(values)
                if values["event"] == "report":
                    self._tell_all(
                        {"type": "report", "run": run, **{k: v for k, v in values.items() if k not in ("event", "at")}},
                        replaceable=True,
                    )
                else:
                    self._changed(record)
            case "ended":
                record = self.queue.records[run]
                if values["event"]:
                    record.apply(values["event"])
                    log.info("run %s: %s %s", run, record.state, record.error)
                self.queue.ended(run)
                self._changed(record)
                if values["device_lost"]:
                    log.warning("the device of run %s is lost to this process, which starts afresh", run)
                    self.again = True
                    self._over.set()
                elif self._leaving and not self.queue.training:
                    self._over.set()
                self._next()

    def _leave(self) -> None:
        """Ends soon; a run under way is kept as it is for the next worker."""
        if not self.queue.training:
            self._over.set()
        else:
            self._leaving = True
            for training in self.queue.training.values():
                training.wish = "leave"
            self._loop.call_later(LEAVES_WITHIN, self._over.set)

    def _make_way(self, client: Client) -> None:
        """A newer program wants a worker of its own version: the run under way is finished, and no other begun."""
        running = self._longest()
        client.send({"type": "making_way", "run": running})
        log.info("making way for a newer version")
        self._making_way = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._making_way and not self.queue.training:
            self._over.set()

    def _longest(self) -> str:
        """The run under way with the most left to do, or ""."""
        trainings = self.queue.training.values()
        left = {one.folder.id: one.record.job.config.steps - (one.record.latest.get("step") or 0) for one in trainings}
        return max(left, key=lambda run: left[run], default="")

    # time

    async def _tick(self) -> None:
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            for client in list(self.clients.values()):
                if client.is_stalled():
                    log.info("client %d has stopped reading, and is dropped", client.number)
                    client.drop()
            await self._keep_listening()
            if time.monotonic() - renewed >= RENEW_EVERY:
                renewed = time.monotonic()
                await self._in_thread(self.queue.renew)
                await self._scan()
                self._next()
            idle = not self.clients and not self.queue.training
            if idle and time.monotonic() - self._since > self.end_after:
                log.info("nothing to do: the worker ends")
                self._over.set()

    async def _keep_listening(self) -> None:
        """Makes the socket again where it has vanished: folders for temporary files are swept."""
        if self._is_listening():
            return
        try:
            self.place.prepare()
            if not leads_to(self.place.worker_lock, self.lock):
                again = take(self.place.worker_lock)
                if again is None:
                    log.warning("another worker has begun: this one leaves")
                    self._leave()
                    return
                self.lock = again
            self._server.close()
            await self._listen()
            log.warning("the socket had vanished, and is made again: %s", self.place.socket)
        except (OSError, WorkerError) as error:
            log.warning("the socket has vanished and cannot be made again: %s", error)

    async def _scan(self) -> None:
        try:
            await self._in_thread(self.queue.scan)
        except (SoftPromptError, OSError) as error:  # who submits a run is told; the worker can do without its history
            log.warning("the runs cannot be read: %s", error)

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await self._loop.run_in_executor(None, call)


def _shown(record: Record) -> dict[str, Any]:
    """A run as clients are told it: a prompt may be longer than all else together, and stands whole in the run's folder."""
    values = record.as_dict()
    return values if len(values["prompt"]) <= LONGEST_SHOWN else values | {"prompt": values["prompt"][: LONGEST_SHOWN - 1] + "…"}


def _error(number: object, error: Exception) -> dict[str, Any]:
    bad_input = isinstance(error, SoftPromptError) and error.bad_input
    return {
        "type": "error",
        "id": number,
        "kind": type(error).__name__,
        "bad_input": bad_input,
        "message": str(error) or type(error).__name__,
    }
