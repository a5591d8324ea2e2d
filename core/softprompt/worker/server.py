"""The worker's main thread: it listens, answers and tells clients what happens. It never waits for torch, the disk or a client.

The queue has a thread of its own, which does what it is asked one after another; what its runs become comes back as messages.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from softprompt.encoders.catalog import LOCAL, MINI, list_models
from softprompt.encoders.loading import pick_device
from softprompt.errors import MessageTooLong, RunRefused, SoftPromptError, WorkerError, no_start, shortened
from softprompt.jobs.job import AnyJob, HardReadoutJob, Job
from softprompt.jobs.preflight import check_fits
from softprompt.library import Library
from softprompt.prompts.downsample import downsample
from softprompt.system.filesystems import set_mode
from softprompt.system.locks import leads_to, take
from softprompt.worker import messages
from softprompt.worker import protocol as p
from softprompt.worker.active_run import ActiveRun, EventKind, Trainer
from softprompt.worker.connection import MAX_PENDING, Connection, is_ours
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.lines import read_line
from softprompt.worker.log import log_path
from softprompt.worker.queue import Queue, keep_swept
from softprompt.worker.run_folder import AnyRun, Run, RunFolder, in_order, runs_folder
from softprompt.worker.trainer import ThreadTrainer

log = logging.getLogger(__name__)
MAX_CLIENTS = 64
TICK, RENEW_EVERY, SCAN_EVERY = 1.0, 30.0, 30.0  # seconds
SHOWN_ENDED = 100  # ended runs that a newcomer is told of
RELEASE_AFTER, END_AFTER = (
    120.0,
    900.0,
)  # seconds without work: models leave the GPU; without clients too: the worker ends
HELLO_WITHIN = 10.0  # seconds
SAYS_WHY_SECONDS = 1.0  # in which a worker that cannot train tells newcomers so: who has started it is about to connect
TRAINER_WITHIN = 2.0  # seconds; nothing can be trained before the runs are known
LISTED_WITHIN = 0.3  # seconds that a newcomer waits for the runs to be known; later ones follow in pages
MAX_POINTS = 2000  # of a curve in a reply
_END = object()
LEAVES_WITHIN = (
    10.0  # seconds; a step or a load that takes longer is cut off, and costs what came after the last checkpoint
)


class Server:
    """Serves one data folder. `run` returns when it is to end.

    `again` then says whether the process should start afresh, `broken` why nothing can be trained in this process, or "".
    """

    def __init__(
        self, place: Endpoint, lock: int, release_after: float = RELEASE_AFTER, end_after: float = END_AFTER
    ) -> None:
        self.place = place
        self.lock = lock  # the descriptor of the place's worker lock
        self.end_after = end_after
        self.library = Library(place.home)
        self.runs: dict[str, AnyRun] = {}  # as the queue last told
        self.training: dict[str, ActiveRun] = {}  # what the trainer has, by run
        self._queue = Queue(place.home, self._from_queue)  # only `_queue_thread` calls it
        self._queue_thread = ThreadPoolExecutor(1, "queue")
        self.trainer: Trainer = ThreadTrainer(self.library, self._from_trainer, release_after)
        self.clients: dict[int, Connection] = {}
        self._lines = messages.RunLines()
        self._newcomers: set[Connection] = set()  # who have not been sent the first runs yet
        self.hello = p.hello()
        self.again = False
        self.broken = ""
        self._making_way = self._leaving = self._ready = False
        self._beside: set[asyncio.Task[None]] = set()
        self._numbers = iter(range(1, sys.maxsize))
        self._since = time.monotonic()  # of the last client or training

    async def run(self, listening: Callable[[], None]) -> None:
        """Listens until it is told to end, or has had nothing to do for long. Calls `listening` once clients can come."""
        self._loop = asyncio.get_running_loop()
        self._over, self._scanned, self._knows_devices = asyncio.Event(), asyncio.Event(), asyncio.Event()
        await self._listen()
        listening()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._leave)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal that it was started from is of no concern
        self._begin(self._start_trainer())
        self._begin(self._tick())
        self._begin(self._watch_folders())
        await self._over.wait()
        for task in list(self._beside):
            task.cancel()
        self.trainer.end()
        leaving, bye = [*self.clients.values(), *self._newcomers], self._bye()
        for client in leaving:
            client.send(bye)
        if self.broken:
            await asyncio.sleep(SAYS_WHY_SECONDS)
        self._server.close()
        for client in leaving:
            client.close()
        await asyncio.sleep(0.05)  # the last words go out; who does not read them sees the end of the line
        if self._is_listening():
            self.place.socket.unlink(missing_ok=True)

    def _bye(self) -> bytes:
        return p.encode({"type": "bye", "again": self.again, "reason": self.broken})

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
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=p.MAX_LINE_BYTES)

    # clients

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Connection(next(self._numbers), reader, writer)
        try:
            if not is_ours(writer.get_extra_info("socket")) or len(self.clients) >= MAX_CLIENTS:
                return
            said = p.decode(await asyncio.wait_for(read_line(reader), HELLO_WITHIN))
            client.send(p.encode(self.hello))
            if p.is_newer(said, self.hello):
                self._make_way(client)
            elif said.get("type") != "hello" or said.get("protocol") != p.PROTOCOL:
                reason = f"this worker speaks protocol {p.PROTOCOL}: update softprompt-tui here"
                client.send(p.encode({"type": "bye", "reason": reason}))
                return
            if self.broken:
                client.send(self._bye())
                return
            self._newcomers.add(client)
            with suppress(TimeoutError):  # few runs are told whole and in their order
                await asyncio.wait_for(self._scanned.wait(), LISTED_WITHIN)
            self._begin_list(client)
            self._newcomers.discard(client)
            self.clients[client.number] = client
            await self._listen_to(client)
        except (TimeoutError, ConnectionError, WorkerError) as error:
            log.info("a client is dropped: %s", error)
            client.drop()
        finally:
            self._newcomers.discard(client)
            self.clients.pop(client.number, None)
            self._since = time.monotonic()
            client.close()

    async def _listen_to(self, client: Connection) -> None:
        """Carry out what a client asks for, one request after another, and only as fast as it reads the answers."""
        while True:
            await client.gets_room()
            try:
                line = await read_line(client.reader)
            except MessageTooLong as error:
                client.send(messages.error(None, error))
                continue
            if not line:
                return
            await self._handle_line(client, line)

    def _begin_list(self, client: Connection) -> None:
        """Send the first of the runs: those that train, then those that wait, in their order. The rest follows as the client reads."""
        client.listed = deque(run.id for run in self._listed())
        self._send_page(client, {"type": "snapshot", "ready": self._ready})
        self._catch_up(client)

    def _send_page(self, client: Connection, head: dict[str, Any]) -> None:
        """Send the next runs of the list, each as it is now. One that is gone by now is left out."""
        runs, size = [], 0
        while client.listed and size < messages.PAGE_BYTES:
            run = self.runs.get(client.listed.popleft())
            if run is not None:
                runs.append(run)
                size += self._lines.size(run)
        client.waits_for_more = bool(client.listed) or not self._scanned.is_set()
        client.send(self._lines.page(head, runs, client.waits_for_more))

    def _catch_up(self, client: Connection) -> None:
        if client.catching_up is None and (client.behind or self._has_page(client)):
            client.catching_up = asyncio.create_task(self._bring_up_to_date(client))

    def _has_page(self, client: Connection) -> bool:
        """Whether there is a page for a client: with runs, or the last one, which says that there are no more."""
        return bool(client.listed) or (client.waits_for_more and self._scanned.is_set())

    async def _bring_up_to_date(self, client: Connection) -> None:
        """Send what a client is behind with as fast as it reads; what changes meanwhile is sent as it is then."""
        try:
            while client.behind or self._has_page(client):
                await client.gets_room()
                if client.behind:
                    run = next(iter(client.behind))
                    del client.behind[run]
                    client.send(self._news_of(run))
                else:
                    self._send_page(client, {"type": "page"})
                await asyncio.sleep(0)  # the other clients' turn
        except ConnectionError:
            client.drop()
        finally:
            client.catching_up = None

    def _news_of(self, run: str) -> bytes:
        known = self.runs.get(run)
        return p.encode({"type": "dropped", "run": run}) if known is None else self._lines.news(known)

    async def _handle_line(self, client: Connection, line: bytes) -> None:
        """Carries out one request. Questions wait in a task of their own, so that a newer one can overtake them."""
        message = p.decode(line)
        number: int | None = None
        try:
            number = p.number_of(message)
            request = p.request_of(message)
            if isinstance(request, (*p.QUERIES, p.Models)):
                if len(client.asking) >= MAX_PENDING:
                    await asyncio.wait(client.asking, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(self._answer(client, number, request))
                client.asking.add(task)
                task.add_done_callback(client.asking.discard)
                return
            result = await self._handle_request(request)
            if not isinstance(request, (p.Status, p.Curve, p.Keep)):
                await self._next()  # before the answer: who asks for the status then is told what trains
            client.send(messages.reply(number, result))
        except (SoftPromptError, OSError) as error:
            client.send(messages.error(number, error))
        except Exception as error:  # who asked is told, and nobody else is harmed
            log.exception("a request failed: %s", line[:200])
            client.send(messages.error(number, error))

    async def _answer(self, client: Connection, number: int | None, request: p.Request) -> None:
        try:
            if isinstance(request, p.Models):
                result = await self._in_thread(self._models)
            else:
                result = await asyncio.wrap_future(self.trainer.ask(client.number, request))
            client.send(messages.reply(number, result))
        except Exception as error:  # to whom asked; the trainer has logged what was not foreseen
            client.send(messages.error(number, error))

    async def _handle_request(self, request: p.Request) -> dict[str, Any]:
        queue = self._queue
        if not isinstance(request, (p.Status, p.Shutdown)):
            await self._scanned.wait()  # a run that has not been looked at yet is not missing
        match request:
            case p.Submit():
                job = Job.from_dict(request.job)
                await self._check_device(job.device)
                start = await self._in_thread(partial(self._prepare, job, request.start))
                return messages.shown(await self._on_queue(queue.submit, job, start))
            case p.Stop():
                return messages.shown(await self._on_queue(queue.stop, request.run))
            case p.Pause():
                return messages.shown(await self._on_queue(queue.pause, request.run))
            case p.Resume():
                return messages.shown(await self._on_queue(queue.resume, request.run))
            case p.Move():
                return messages.shown(await self._on_queue(queue.move, request.run, request.before))
            case p.Drop():
                return messages.shown(await self._on_queue(queue.drop, request.run))
            case p.Curve():
                run = await self._find(request.run)
                if not run.points:
                    run = await self._in_thread(self._folder(run).read)
                points = downsample(run.points, min(max(request.points, 2), MAX_POINTS))
                return {"run": run.id, "points": [point[: messages.FIGURES_OF_A_POINT] for point in points]}
            case p.Keep():
                run = await self._find(request.run)
                kept: dict[str, Any] = await self._in_thread(
                    partial(keep_swept, self.library, self._folder(run), run, request.tokens)
                )
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

    def _prepare(self, job: AnyJob, start: str) -> bytes:
        """The entry that a job begins from, b"" for none. Raises what `check_fits` raises, and LibraryError."""
        from softprompt.library.entry import pack  # numpy

        if job.model.lower() != MINI and not job.model.startswith(LOCAL):
            list_models()  # read once, so that the check knows them
        check_fits(job)
        if isinstance(job, HardReadoutJob):
            self.library.find(job.entry)
        elif job.config.init == "soft" and not start:
            raise no_start()
        return pack(self.library.open(start)) if start else b""

    async def _check_device(self, name: str) -> None:
        """Raises DeviceError for a device that this machine does not have, which only torch knows."""
        if name in ("auto", "cpu"):
            return
        await self._knows_devices.wait()
        if self.broken:
            raise WorkerError(self.broken)
        await self._in_thread(partial(pick_device, name))

    async def _find(self, name: str) -> Run:
        """The run whose id begins so; raises RunNotFound, and RunRefused for one that cannot be read."""
        run = self.runs.get(name) or await self._on_queue(self._queue.find, name)
        if not isinstance(run, Run):
            raise RunRefused(f"run {run.id} cannot be read: {run.reason}")
        return run

    def _folder(self, run: AnyRun) -> RunFolder:
        return RunFolder(runs_folder(self.place.home) / run.id)

    def _listed(self) -> list[AnyRun]:
        """What a newcomer is told: all runs that are not over, and the latest of those that are, once all are known."""
        ordered = in_order(self.runs.values())
        return ordered[: sum(not run.is_over for run in ordered) + (SHOWN_ENDED if self._scanned.is_set() else 0)]

    def _models(self) -> dict[str, Any]:
        return {"models": [info.as_dict() for info in list_models()], "loaded": self._loaded()}

    def _loaded(self) -> list[str]:
        return self.trainer.loaded_models()

    def _status(self) -> dict[str, Any]:
        states = [run.state for run in self.runs.values()]
        return {
            "pid": os.getpid(), **{key: self.hello[key] for key in ("version", "protocol")}, "home": str(self.place.home), "socket": str(self.place.socket),
            "clients": len(self.clients), "ready": self._ready, "models": self._loaded(),
            "running": ", ".join(self.training), "queued": states.count("queued"), "paused": states.count("paused"),
        }  # fmt: skip

    def _tell_of(self, run: str) -> None:
        """Tell every client that a run has changed or is gone: at once, or when a client that is behind has read on."""
        news = b""
        for client in list(self.clients.values()):
            if client.has_room:
                client.behind.pop(run, None)
                news = news or self._news_of(run)
                client.send(news)
            else:
                client.behind[run] = None
                self._catch_up(client)

    def _broadcast(self, message: dict[str, Any], replaceable: bool = False) -> None:
        line = p.encode(message)
        for client in list(self.clients.values()):
            (client.send_if_read if replaceable else client.send)(line)

    # runs

    async def _next(self) -> None:
        """Gives the trainer the run whose turn it is, if it has none."""
        if not self.training and self._scanned.is_set() and not self._is_ending():
            trainings = await self._on_queue(self._queue.next)
            if trainings and self._is_ending():
                await self._on_queue(self._queue.put_back)
            elif trainings:
                self.training = {training.folder.id: training for training in trainings}
                self.trainer.begin(trainings)
        self._end_if_idle()

    def _is_ending(self) -> bool:
        return self._making_way or self._leaving or bool(self.broken) or self._over.is_set()

    def _from_queue(self, changed: Collection[AnyRun], gone: Collection[str]) -> None:
        self._loop.call_soon_threadsafe(self._heed_queue, changed, gone)

    def _heed_queue(self, changed: Collection[AnyRun], gone: Collection[str]) -> None:
        for run in changed:
            is_found = run.id not in self.runs and not self._scanned.is_set()
            self.runs[run.id] = run
            if not is_found:
                self._tell_of(run.id)
            elif not run.is_over:
                for client in self.clients.values():
                    client.listed.append(run.id)
        for run_id in gone:
            self._lines.forget(run_id)
            if self.runs.pop(run_id, None) is not None:
                self._tell_of(run_id)
        self._catch_all_up()

    def _catch_all_up(self) -> None:
        for client in list(self.clients.values()):
            self._catch_up(client)

    def _end_first_scan(self) -> None:
        """All runs are known now: those that are over can be told in their order, and something can train."""
        self._scanned.set()
        over = [run.id for run in self._listed() if run.is_over]
        for client in self.clients.values():
            client.listed.extend(over)
        self._catch_all_up()

    def _from_trainer(self, kind: EventKind, run: str, values: dict[str, Any]) -> None:
        self._loop.call_soon_threadsafe(self._handle_thread_event, kind, run, values)

    def _handle_thread_event(self, kind: EventKind, run: str, values: dict[str, Any]) -> None:
        self._since = time.monotonic()
        match kind:
            case "ready":
                self._ready = True
                self._knows_devices.set()
                self._broadcast({"type": "ready"})
            case "died":
                self._break(values["why"], values["left"])
            case "loading":
                self._broadcast({"type": "loading", "run": run, **values}, replaceable=True)
            case "event":
                self._begin(self._on_queue(self._record, run, values))
            case "ended":
                self._begin(self._ended(run, values))

    def _record(self, run: str, event: dict[str, Any]) -> None:
        """On the queue's thread: what comes of an event reaches the clients in the order of the events."""
        known = self._queue.record(run, event)
        if known is not None and event["event"] == "report":
            self._loop.call_soon_threadsafe(self._heed_report, known, event)

    def _heed_report(self, run: Run, report: dict[str, Any]) -> None:
        self.runs[run.id] = run
        figures = {key: value for key, value in report.items() if key not in ("event", "at", "lease")}
        self._broadcast({"type": "report", "run": run.id, **figures}, replaceable=True)

    async def _ended(self, run: str, values: dict[str, Any]) -> None:
        if values["event"]:  # before any client is told: whoever hears of the end finds it in the log
            log.info("run %s: %s %s", run, values["event"]["event"], values["event"].get("error", ""))
        await self._on_queue(self._queue.ended, run, values["event"])
        self.training.pop(run, None)
        if values["device_lost"]:
            log.warning("the device of run %s is lost to this process, which starts afresh", run)
            self.again = True
            self._over.set()
        elif self._leaving and not self.training:
            self._over.set()
        await self._next()

    def _break(self, why: str, left: dict[str, dict[str, Any]]) -> None:
        """The thread that trains is gone, and with it this process, which could train nothing any more.

        Args:
            left: for each run that the thread had, the event that ended it; empty for one that waits for the next worker.
        """
        self.broken = (
            f"nothing can be trained here ({shortened(why, messages.MAX_SHOWN_LENGTH)}); its log: {log_path()}"
        )
        self._ready = False
        self._knows_devices.set()  # who waits for it is told
        self._begin(self._end_broken(left))

    async def _end_broken(self, left: dict[str, dict[str, Any]]) -> None:
        try:
            for run, event in left.items():
                await self._on_queue(self._queue.ended, run, event)
        finally:
            self.training.clear()
            self._over.set()

    def _leave(self) -> None:
        """Ends soon; a run under way is kept as it is for the next worker."""
        if not self.training:
            self._over.set()
        else:
            self._leaving = True
            for training in self.training.values():
                training.stop_request = "leave"
            self._loop.call_later(LEAVES_WITHIN, self._over.set)

    def _make_way(self, client: Connection) -> None:
        """A newer program wants a worker of its own version: the run under way is finished, and no other begun."""
        running = self._longest()
        client.send(p.encode({"type": "making_way", "run": running}))
        log.info("making way for a newer version")
        self._making_way = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._making_way and not self.training:
            self._over.set()

    def _longest(self) -> str:
        """The run under way with the most left to do, or ""."""
        runs = [run for run in map(self.runs.get, self.training) if isinstance(run, Run)]
        left = {run.id: run.job.config.steps - run.latest.get("step", 0) for run in runs}
        return max(left, key=lambda run: left[run], default="")

    # time

    async def _tick(self) -> None:
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            if self.trainer.is_dead and not self.broken:
                self._break("the thread that trains ended without a word", {})
            for client in list(self.clients.values()):
                if client.is_stalled():
                    log.info("client %d has stopped reading, and is dropped", client.number)
                    client.drop()
            await self._keep_listening()
            if time.monotonic() - renewed >= RENEW_EVERY:
                renewed = time.monotonic()
                await self._on_queue(self._queue.renew)
            idle = not self.clients and not self.training and self._scanned.is_set()
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

    async def _start_trainer(self) -> None:
        """Importing torch takes seconds of a core, so the runs are listed first, unless that takes longer."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._scanned.wait(), TRAINER_WITHIN)
        self.trainer.start()

    async def _watch_folders(self) -> None:
        """Finds the runs, and what other hosts make of them; nothing is trained before all have been looked at once."""
        await self._on_queue(self._queue.renew)
        while True:
            try:
                pieces = self._queue.scan()
                while await self._on_queue(next, pieces, _END) is not _END:
                    pass
            except (
                SoftPromptError,
                OSError,
            ) as error:  # who submits a run is told; the worker can do without its history
                log.warning("the runs cannot be read: %s", error)
            if not self._scanned.is_set():
                self._end_first_scan()
            await self._next()
            await asyncio.sleep(SCAN_EVERY)

    async def _on_queue(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a method of the queue returns, called by its thread when it has done what it was asked before."""
        return await self._loop.run_in_executor(self._queue_thread, call, *arguments)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside everything else; what goes wrong with it ends the worker."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("something failed that should not", exc_info=error)
            if (
                not self.broken
            ):  # better no worker than one that does half of its work: the next one begins with what is on disk
                self._break(f"{type(error).__name__}: {error}", {})

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await self._loop.run_in_executor(None, call)
