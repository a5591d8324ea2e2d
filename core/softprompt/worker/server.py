"""The worker's main thread, which serves clients and sends them events. It never waits for torch, disk or a client.

The queue has its own thread, which handles calls one after another and reports changed runs to the main thread.
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

from softprompt.encoders.catalog import LOCAL_PREFIX, MINI, list_models, model_kind
from softprompt.encoders.devices import list_devices, pick_device
from softprompt.errors import (
    DeviceError,
    MessageTooLong,
    RunRefused,
    SoftPromptError,
    WorkerError,
    missing_start_prompt,
    shorten,
)
from softprompt.jobs.job import AnyJob, HardReadoutJob, Job
from softprompt.jobs.preflight import check_fits
from softprompt.library import Library
from softprompt.prompts.downsample import downsample
from softprompt.system.devices import CpuUsage
from softprompt.system.filesystems import set_mode
from softprompt.system.locks import is_path_of, try_lock
from softprompt.worker import hub_variables, messages
from softprompt.worker import protocol as p
from softprompt.worker.active_run import ActiveRun, EventKind, Trainer
from softprompt.worker.connection import MAX_PENDING, Connection, is_same_user
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.lines import read_line
from softprompt.worker.log import log_path
from softprompt.worker.queue import Queue, save_sweep_prompts
from softprompt.worker.run_folder import AnyRun, Run, RunFolder, runs_folder, sort_runs
from softprompt.worker.trainer import ThreadTrainer

log = logging.getLogger(__name__)
MAX_CLIENTS = 64
TICK_SECONDS, RENEW_SECONDS, SCAN_SECONDS = 1.0, 30.0, 30.0
MAX_ENDED_LISTED = 100  # ended runs that a new client receives
RELEASE_SECONDS, END_SECONDS = 120.0, 900.0  # idle times after which GPU memory is released and the worker ends
HELLO_SECONDS = 10.0
FAILURE_NOTICE_SECONDS = 1.0  # a failed worker stays this long, so that the client that started it learns why
TRAINER_DELAY_SECONDS = 2.0  # scan folders for up to this long before importing torch: training needs a full list
LIST_WAIT_SECONDS = 0.3  # a new client waits up to this long for a complete list; further runs follow in pages
MAX_CURVE_POINTS = 2000  # per curve in a reply
_SCAN_DONE = object()
LEAVE_SECONDS = 10.0  # a longer step or model load is cut off, losing the work since the last checkpoint


class Server:
    """The server for one data folder. `run` returns when the worker should end.

    After that, `should_restart` tells whether the process should restart. `broken` says why the worker cannot train,
    or is "".
    """

    def __init__(
        self, endpoint: Endpoint, lock: int, release_after: float = RELEASE_SECONDS, end_after: float = END_SECONDS
    ) -> None:
        self.endpoint = endpoint
        self.lock = lock  # descriptor of the endpoint's worker lock
        self.end_after = end_after
        self.library = Library(endpoint.home)
        self.runs: dict[str, AnyRun] = {}  # as last reported by the queue
        self.active: dict[str, ActiveRun] = {}  # the trainer's runs, by id
        self._queue = Queue(endpoint.home, self._post_queue_changes)  # only `_queue_thread` calls it
        self._queue_thread = ThreadPoolExecutor(1, "queue")
        self.trainer: Trainer = ThreadTrainer(self.library, self._post_trainer_event, release_after)
        self.clients: dict[int, Connection] = {}
        self._run_messages = messages.RunMessages()
        self._newcomers: set[Connection] = set()  # clients that have not received a snapshot yet
        self._cpu_usage = CpuUsage()
        self.hello = p.hello() | {"hub": hub_variables.fingerprint()}
        self.should_restart = False
        self.broken = ""
        self._making_way = self._leaving = self._ready = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = iter(range(1, sys.maxsize))
        self._last_activity = time.monotonic()  # when the last client left or the trainer last reported

    async def run(self, on_listening: Callable[[], None]) -> None:
        """Serve clients until a request, a signal or a long idle time ends the worker.

        Args:
            on_listening: called once clients can connect.
        """
        self._loop = asyncio.get_running_loop()
        self._end_requested, self._scanned, self._devices_known = asyncio.Event(), asyncio.Event(), asyncio.Event()
        await self._listen()
        on_listening()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._leave)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the worker outlives its terminal
        self._start_task(self._start_trainer())
        self._start_task(self._tick())
        self._start_task(self._watch_folders())
        await self._end_requested.wait()
        for task in list(self._tasks):
            task.cancel()
        self.trainer.end()
        clients, bye = [*self.clients.values(), *self._newcomers], self._encode_bye()
        for client in clients:
            client.send(bye)
        if self.broken:
            await asyncio.sleep(FAILURE_NOTICE_SECONDS)
        self._server.close()
        for client in clients:
            client.close()
        await asyncio.sleep(0.05)  # give the messages time to go out
        if self._owns_socket():
            self.endpoint.socket.unlink(missing_ok=True)

    def _encode_bye(self) -> bytes:
        return p.encode({"type": "bye", "again": self.should_restart, "reason": self.broken})

    def _owns_socket(self) -> bool:
        try:
            return os.lstat(self.endpoint.socket).st_ino == self._inode
        except OSError:
            return False

    async def _listen(self) -> None:
        self.endpoint.socket.unlink(missing_ok=True)  # left by a dead worker, because this one has the lock
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.fspath(self.endpoint.socket))
        set_mode(self.endpoint.socket, 0o600)  # its folder is private anyway
        self._inode = os.lstat(self.endpoint.socket).st_ino
        self._server = await asyncio.start_unix_server(self._serve_client, sock=listener, limit=p.MAX_LINE_BYTES)

    # clients

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Connection(next(self._numbers), reader, writer)
        try:
            if not is_same_user(writer.get_extra_info("socket")) or len(self.clients) >= MAX_CLIENTS:
                return
            hello = p.decode(await asyncio.wait_for(read_line(reader), HELLO_SECONDS))
            client.send(p.encode(self.hello))
            if p.is_newer(hello, self.hello):
                self._make_way(client)
            elif hello.get("type") != "hello" or hello.get("protocol") != p.PROTOCOL:
                reason = f"the worker uses protocol {p.PROTOCOL}: update softprompt-tui here"
                client.send(p.encode({"type": "bye", "reason": reason}))
                return
            if self.broken:
                client.send(self._encode_bye())
                return
            self._newcomers.add(client)
            with suppress(TimeoutError):  # a short list arrives complete and in order
                await asyncio.wait_for(self._scanned.wait(), LIST_WAIT_SECONDS)
            self._send_snapshot(client)
            self._newcomers.discard(client)
            self.clients[client.number] = client
            await self._handle_requests(client)
        except (TimeoutError, ConnectionError, WorkerError) as error:
            log.info("dropped a client: %s", error)
            client.drop()
        finally:
            self._newcomers.discard(client)
            self.clients.pop(client.number, None)
            self._last_activity = time.monotonic()
            client.close()

    async def _handle_requests(self, client: Connection) -> None:
        """Handle a client's requests one at a time, as fast as the client reads the replies."""
        while True:
            await client.wait_for_room()
            try:
                line = await read_line(client.reader)
            except MessageTooLong as error:
                client.send(messages.encode_error(None, error))
                continue
            if not line:
                return
            await self._handle_line(client, line)

    def _send_snapshot(self, client: Connection) -> None:
        """Send the first runs: running, then waiting runs in queue order. The rest follows as the client reads."""
        client.pending_runs = deque(run.id for run in self._runs_to_list())
        self._send_page(client, {"type": "snapshot", "ready": self._ready})
        self._start_catching_up(client)

    def _send_page(self, client: Connection, head: dict[str, Any]) -> None:
        """Send the next runs of the list in their current state, skipping deleted runs."""
        runs, size = [], 0
        while client.pending_runs and size < messages.PAGE_BYTES:
            run = self.runs.get(client.pending_runs.popleft())
            if run is not None:
                runs.append(run)
                size += self._run_messages.encoded_size(run)
        client.expects_more = bool(client.pending_runs) or not self._scanned.is_set()
        client.send(self._run_messages.encode_page(head, runs, client.expects_more))

    def _start_catching_up(self, client: Connection) -> None:
        if client.catching_up is None and (client.changed_runs or self._has_page(client)):
            client.catching_up = asyncio.create_task(self._send_backlog(client))

    def _has_page(self, client: Connection) -> bool:
        """Return whether a page is due: one with runs, or the last page, which shows that the list is complete."""
        return bool(client.pending_runs) or (client.expects_more and self._scanned.is_set())

    async def _send_backlog(self, client: Connection) -> None:
        """Send changed runs and pages as fast as the client reads, each run in its state at the time of sending."""
        try:
            while client.changed_runs or self._has_page(client):
                await client.wait_for_room()
                if client.changed_runs:
                    run_id = next(iter(client.changed_runs))
                    del client.changed_runs[run_id]
                    client.send(self._encode_change(run_id))
                else:
                    self._send_page(client, {"type": "page"})
                await asyncio.sleep(0)  # let other clients have their turn
        except ConnectionError:
            client.drop()
        finally:
            client.catching_up = None

    def _encode_change(self, run_id: str) -> bytes:
        run = self.runs.get(run_id)
        return p.encode({"type": "dropped", "run": run_id}) if run is None else self._run_messages.encode_run(run)

    async def _handle_line(self, client: Connection, line: bytes) -> None:
        """Handle one request. A query runs in its own task, so that a newer query can replace it."""
        message = p.decode(line)
        request_id: int | None = None
        try:
            request_id = p.parse_id(message)
            request = p.parse_request(message)
            if isinstance(request, (*p.QUERIES, p.Models, p.Devices)):
                if len(client.pending_queries) >= MAX_PENDING:
                    await asyncio.wait(client.pending_queries, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(self._answer_query(client, request_id, request))
                client.pending_queries.add(task)
                task.add_done_callback(client.pending_queries.discard)
                return
            result = await self._handle_request(request)
            if not isinstance(request, (p.Status, p.Curve, p.Keep)):
                await self._start_next_batch()  # before the reply, so that the client's next status request is accurate
            client.send(messages.encode_reply(request_id, result))
        except (SoftPromptError, OSError) as error:
            client.send(messages.encode_error(request_id, error))
        except Exception as error:  # report it to the client; other clients are not affected
            log.exception("a request failed: %s", line[:200])
            client.send(messages.encode_error(request_id, error))

    async def _answer_query(self, client: Connection, request_id: int | None, request: p.Request) -> None:
        try:
            if isinstance(request, p.Models):
                result = await self._call_in_thread(self._describe_models)
            elif isinstance(request, p.Devices):
                await self._devices_known.wait()
                if self.broken:
                    raise WorkerError(self.broken)
                result = await self._call_in_thread(self._describe_devices)
            else:
                result = await asyncio.wrap_future(self.trainer.ask(client.number, request))
            client.send(messages.encode_reply(request_id, result))
        except Exception as error:  # report it to the client; the trainer has logged unexpected errors
            client.send(messages.encode_error(request_id, error))

    async def _handle_request(self, request: p.Request) -> dict[str, Any]:
        queue = self._queue
        if not isinstance(request, (p.Status, p.Shutdown)):
            await self._scanned.wait()  # until then, an unknown run may not have been read yet
        match request:
            case p.Submit():
                job = Job.from_dict(request.job)
                await self._check_device(job.device)
                start = await self._call_in_thread(partial(self._prepare_job, job, request.start))
                return messages.describe_run(await self._call_queue(queue.submit, job, start))
            case p.Stop():
                return messages.describe_run(await self._call_queue(queue.stop, request.run))
            case p.Pause():
                return messages.describe_run(await self._call_queue(queue.pause, request.run))
            case p.Resume():
                return messages.describe_run(await self._call_queue(queue.resume, request.run))
            case p.Move():
                return messages.describe_run(await self._call_queue(queue.move, request.run, request.before))
            case p.Drop():
                return messages.describe_run(await self._call_queue(queue.drop, request.run))
            case p.Restore():
                return messages.describe_run(await self._call_queue(queue.restore, request.run))
            case p.Curve():
                run = await self._find_run(request.run)
                if not run.points:
                    run = await self._call_in_thread(self._run_folder(run).read)
                points = downsample(run.points, min(max(request.points, 2), MAX_CURVE_POINTS))
                return {"run": run.id, "points": [point[: messages.MAX_POINT_VALUES] for point in points]}
            case p.Keep():
                run = await self._find_run(request.run)
                saved: dict[str, Any] = await self._call_in_thread(
                    partial(save_sweep_prompts, self.library, self._run_folder(run), run, request.tokens)
                )
                return saved
            case p.Status():
                return self._describe_status()
            case p.Shutdown():
                running = self._longest_run()
                if request.finish:
                    self._making_way = True
                    self._end_if_making_way()
                else:
                    self._leave()
                return {"running": running}
        raise WorkerError(f"the worker does not support {request.do}")

    def _prepare_job(self, job: AnyJob, start: str) -> bytes:
        """Check a job. Return the packed entry that it starts from, or b"".

        Raises LibraryError, or the same errors as `check_fits`.
        """
        from softprompt.library.entry import pack  # numpy

        is_named = job.model.lower() != MINI and not job.model.startswith(LOCAL_PREFIX)
        if is_named and model_kind(job.model) == "text":
            list_models()  # `check_fits` uses the cached list
        check_fits(job)
        if isinstance(job, HardReadoutJob):
            self.library.find(job.entry)
        elif job.config.init == "soft" and not start:
            raise missing_start_prompt()
        return pack(self.library.open(start)) if start else b""

    async def _check_device(self, name: str) -> None:
        """Raise DeviceError if this machine lacks the device. Only torch can tell, so wait until it is imported."""
        if name in ("auto", "cpu"):
            return
        await self._devices_known.wait()
        if self.broken:
            raise WorkerError(self.broken)
        await self._call_in_thread(partial(pick_device, name))

    async def _find_run(self, prefix: str) -> Run:
        """Return the run whose id starts with `prefix`. Raises RunNotFound, or RunRefused if the run is unreadable."""
        run = self.runs.get(prefix) or await self._call_queue(self._queue.find, prefix)
        if not isinstance(run, Run):
            raise RunRefused(f"run {run.id} is unreadable: {run.reason}")
        return run

    def _run_folder(self, run: AnyRun) -> RunFolder:
        return RunFolder(runs_folder(self.endpoint.home) / run.id)

    def _runs_to_list(self) -> list[AnyRun]:
        """Return the runs for a new client: all unfinished runs and, after the first scan, the latest ended runs."""
        ordered = sort_runs(self.runs.values())
        return ordered[: sum(not run.is_over for run in ordered) + (MAX_ENDED_LISTED if self._scanned.is_set() else 0)]

    def _describe_models(self) -> dict[str, Any]:
        return {"models": [info.as_dict() for info in list_models()], "loaded": self._loaded_models()}

    def _describe_devices(self) -> dict[str, Any]:
        devices = list_devices(self._cpu_usage)
        training = {active.run.job.device for active in list(self.active.values())}
        with suppress(DeviceError):
            training = {str(pick_device(name)) for name in training}
        return {"devices": [device.as_dict() for device in devices], "training": sorted(training)}

    def _loaded_models(self) -> list[str]:
        return self.trainer.loaded_models()

    def _describe_status(self) -> dict[str, Any]:
        states = [run.state for run in self.runs.values()]
        return {
            "pid": os.getpid(), **{key: self.hello[key] for key in ("version", "protocol")},
            "home": str(self.endpoint.home), "socket": str(self.endpoint.socket),
            "clients": len(self.clients), "ready": self._ready, "models": self._loaded_models(),
            "running": ", ".join(self.active), "queued": states.count("queued"), "paused": states.count("paused"),
        }  # fmt: skip

    def _broadcast_run(self, run_id: str) -> None:
        """Tell every client that a run was changed or deleted. Clients that read slowly are told later."""
        line = b""
        for client in list(self.clients.values()):
            if client.has_room:
                client.changed_runs.pop(run_id, None)
                line = line or self._encode_change(run_id)
                client.send(line)
            else:
                client.changed_runs[run_id] = None
                self._start_catching_up(client)

    def _broadcast(self, message: dict[str, Any], replaceable: bool = False) -> None:
        line = p.encode(message)
        for client in list(self.clients.values()):
            (client.send_replaceable if replaceable else client.send)(line)

    # runs

    async def _start_next_batch(self) -> None:
        """If the trainer is idle, pass it the next batch of runs."""
        if not self.active and self._scanned.is_set() and not self._is_ending():
            batch = await self._call_queue(self._queue.take_next_batch)
            if batch and self._is_ending():
                await self._call_queue(self._queue.put_back)
            elif batch:
                self.active = {active.folder.id: active for active in batch}
                self.trainer.begin(batch)
        self._end_if_making_way()

    def _is_ending(self) -> bool:
        return self._making_way or self._leaving or bool(self.broken) or self._end_requested.is_set()

    def _post_queue_changes(self, changed: Collection[AnyRun], deleted: Collection[str]) -> None:
        self._loop.call_soon_threadsafe(self._handle_queue_changes, changed, deleted)

    def _handle_queue_changes(self, changed: Collection[AnyRun], deleted: Collection[str]) -> None:
        for run in changed:
            is_first_read = run.id not in self.runs and not self._scanned.is_set()
            self.runs[run.id] = run
            if not is_first_read:
                self._broadcast_run(run.id)
            elif not run.is_over:
                for client in self.clients.values():
                    client.pending_runs.append(run.id)
        for run_id in deleted:
            self._run_messages.forget(run_id)
            if self.runs.pop(run_id, None) is not None:
                self._broadcast_run(run_id)
        self._start_all_catching_up()

    def _start_all_catching_up(self) -> None:
        for client in list(self.clients.values()):
            self._start_catching_up(client)

    def _finish_first_scan(self) -> None:
        """Send the ended runs, which can now be sorted, and allow training to start, because all runs are known."""
        self._scanned.set()
        ended = [run.id for run in self._runs_to_list() if run.is_over]
        for client in self.clients.values():
            client.pending_runs.extend(ended)
        self._start_all_catching_up()

    def _post_trainer_event(self, kind: EventKind, run: str, values: dict[str, Any]) -> None:
        self._loop.call_soon_threadsafe(self._handle_trainer_event, kind, run, values)

    def _handle_trainer_event(self, kind: EventKind, run: str, values: dict[str, Any]) -> None:
        self._last_activity = time.monotonic()
        match kind:
            case "ready":
                self._ready = True
                self._devices_known.set()
                self._broadcast({"type": "ready"})
            case "died":
                self._fail(values["why"], values["left"])
            case "loading":
                self._broadcast({"type": "loading", "run": run, **values}, replaceable=True)
            case "event":
                self._start_task(self._call_queue(self._record_event, run, values))
            case "ended":
                self._start_task(self._handle_run_end(run, values))

    def _record_event(self, run_id: str, event: dict[str, Any]) -> None:
        """Apply an event. This runs on the queue's thread, so that clients see changes in the order of the events."""
        run = self._queue.record_event(run_id, event)
        if run is not None and event["event"] == "report":
            self._loop.call_soon_threadsafe(self._handle_report, run, event)

    def _handle_report(self, run: Run, report: dict[str, Any]) -> None:
        self.runs[run.id] = run
        figures = {key: value for key, value in report.items() if key not in ("event", "at", "lease")}
        self._broadcast({"type": "report", "run": run.id, **figures}, replaceable=True)

    async def _handle_run_end(self, run_id: str, values: dict[str, Any]) -> None:
        if values["event"]:  # log first, so that a client that sees the end also finds it in the log
            log.info("run %s: %s %s", run_id, values["event"]["event"], values["event"].get("error", ""))
        await self._call_queue(self._queue.handle_end, run_id, values["event"])
        self.active.pop(run_id, None)
        if values["device_lost"]:
            log.warning("run %s: the device no longer works in this process; restarting the worker", run_id)
            self.should_restart = True
            self._end_requested.set()
        elif self._leaving and not self.active:
            self._end_requested.set()
        await self._start_next_batch()

    def _fail(self, why: str, last_events: dict[str, dict[str, Any]]) -> None:
        """End the worker because it can no longer train.

        Args:
            last_events: the last event of each active run. An empty event leaves the run to the next worker.
        """
        self.broken = f"training does not work here ({shorten(why, messages.MAX_SHOWN_LENGTH)}); see {log_path()}"
        self._ready = False
        self._devices_known.set()  # wake the requests that are waiting for it
        self._start_task(self._end_after_failure(last_events))

    async def _end_after_failure(self, last_events: dict[str, dict[str, Any]]) -> None:
        try:
            for run_id, event in last_events.items():
                await self._call_queue(self._queue.handle_end, run_id, event)
        finally:
            self.active.clear()
            self._end_requested.set()

    def _leave(self) -> None:
        """End soon, leaving the active runs to the next worker."""
        if not self.active:
            self._end_requested.set()
        else:
            self._leaving = True
            for active in self.active.values():
                active.stop_request = "leave"
            self._loop.call_later(LEAVE_SECONDS, self._end_requested.set)

    def _make_way(self, client: Connection) -> None:
        """Finish the active runs and start no new ones, because a newer client needs a worker of its own version."""
        running = self._longest_run()
        client.send(p.encode({"type": "making_way", "run": running}))
        log.info("making way for a newer version")
        self._making_way = True
        self._end_if_making_way()

    def _end_if_making_way(self) -> None:
        if self._making_way and not self.active:
            self._end_requested.set()

    def _longest_run(self) -> str:
        """Return the active run with the most remaining steps, or ""."""
        runs = [run for run in map(self.runs.get, self.active) if isinstance(run, Run)]
        remaining_steps = {run.id: run.job.config.steps - run.latest.get("step", 0) for run in runs}
        return max(remaining_steps, key=lambda run_id: remaining_steps[run_id], default="")

    # time

    async def _tick(self) -> None:
        last_renewal = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self.trainer.is_dead and not self.broken:
                self._fail("the trainer's thread ended unexpectedly", {})
            for client in list(self.clients.values()):
                if client.is_stalled():
                    log.info("dropping client %d, which has stopped reading", client.number)
                    client.drop()
            await self._restore_socket()
            if time.monotonic() - last_renewal >= RENEW_SECONDS:
                last_renewal = time.monotonic()
                await self._call_queue(self._queue.renew_leases)
            is_idle = not self.clients and not self.active and self._scanned.is_set()
            if is_idle and time.monotonic() - self._last_activity > self.end_after:
                log.info("no clients or runs: ending the worker")
                self._end_requested.set()

    async def _restore_socket(self) -> None:
        """Recreate the socket if it has vanished, because the system may clean up temporary files."""
        if self._owns_socket():
            return
        try:
            self.endpoint.prepare()
            if not is_path_of(self.endpoint.worker_lock, self.lock):
                new_lock = try_lock(self.endpoint.worker_lock)
                if new_lock is None:
                    log.warning("another worker has started: ending this one")
                    self._leave()
                    return
                self.lock = new_lock
            self._server.close()
            await self._listen()
            log.warning("the socket had disappeared and was recreated at %s", self.endpoint.socket)
        except (OSError, WorkerError) as error:
            log.warning("the socket has disappeared and cannot be recreated: %s", error)

    async def _start_trainer(self) -> None:
        """Start the trainer after the first scan, or after a short time: importing torch would slow down the scan."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._scanned.wait(), TRAINER_DELAY_SECONDS)
        self.trainer.start()

    async def _watch_folders(self) -> None:
        """Scan the runs repeatedly, because other hosts change them too. Training starts after the first scan."""
        await self._call_queue(self._queue.renew_leases)
        while True:
            try:
                pieces = self._queue.scan()
                while await self._call_queue(next, pieces, _SCAN_DONE) is not _SCAN_DONE:
                    pass
            except (SoftPromptError, OSError) as error:  # users get this error when they submit a run
                log.warning("cannot read the runs: %s", error)
            if not self._scanned.is_set():
                self._finish_first_scan()
            await self._start_next_batch()
            await asyncio.sleep(SCAN_SECONDS)

    async def _call_queue(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the queue on the queue's thread, after all earlier calls, and return its result."""
        return await self._loop.run_in_executor(self._queue_thread, call, *arguments)

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background. If it raises an exception, the worker ends."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._handle_task_end)

    def _handle_task_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background task failed", exc_info=error)
            if not self.broken:  # no worker is better than a broken one
                self._fail(f"{type(error).__name__}: {error}", {})

    async def _call_in_thread(self, call: Callable[[], Any]) -> Any:
        return await self._loop.run_in_executor(None, call)
