"""A client of the worker, for scripts and the command line: it waits for answers, and hands out events one by one."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from softprompt import errors
from softprompt.errors import SoftPromptError, WorkerError
from softprompt.training.errors import TrainingFailed
from softprompt.worker import protocol as p
from softprompt.worker.endpoint import Endpoint, held
from softprompt.worker.log import log_file, log_path

START_WITHIN = 30.0  # seconds; Python and a slow disk take 1-5
ANSWER_WITHIN = 60.0  # seconds
SAFELY = ("-P", "-m")  # a module that lies in the folder where the user happens to be is not imported
READY, ANOTHER = "ready", "another worker is there"  # what a worker's process says once it listens, or why it does not


class WorkerGone(WorkerError):
    """The worker ended or was killed while it was being listened to; its runs go on with the next one."""


class Client:
    """A connection to the worker of this user's data folder, which is started if need be. Use as a context."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._events: deque[dict[str, Any]] = deque()
        self._number = 0
        self._runs: list[dict[str, Any]] = []
        self._more = False  # pages of runs are still to come
        self._last_words = ""  # why the worker says that it ends
        self._send(p.hello())
        said = self._heard(ANSWER_WITHIN, "hello")
        self.worker = said
        if p.is_newer(said, p.hello()) and said.get("protocol") != p.PROTOCOL:
            raise WorkerError(
                f"the worker is of a newer version ({said.get('version')}): update softprompt-tui here, or end it with that version's `worker stop`"
            )
        self.making_way: str | None = None  # an older worker's last run, "" where it has none and is about to end
        if p.is_newer(p.hello(), said):
            self.making_way = str(self._heard(ANSWER_WITHIN, "making_way")["run"])
        if self.making_way != "":
            self._take_page(self._heard(ANSWER_WITHIN, "snapshot"))

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs as the worker lists them to a newcomer; waits for the pages that are still to come."""
        while self._more:
            message = self._receive(time.monotonic() + ANSWER_WITHIN)
            if message["type"] not in ("page", "reply", "error"):
                self._events.append(message)
        return self._runs

    def request(self, request: p.Request, within: float = ANSWER_WITHIN) -> dict[str, Any]:
        """The worker's reply. Raises the error that the worker raised, WorkerGone, and WorkerError where no answer comes in time."""
        if self.making_way is not None and isinstance(request, p.NEEDS_OURS):
            raise too_old(self.making_way)
        self._number += 1
        self._send(p.as_message(request, self._number))
        until = time.monotonic() + within
        while True:
            message = self._next(until - time.monotonic())
            match message["type"], message.get("id"):
                case "reply", self._number:
                    result: dict[str, Any] = message["result"]
                    return result
                case "error", (self._number | None):
                    raise raised(message)
                case (("reply" | "error"), _):
                    pass  # of a question that was given up
                case _:
                    self._events.append(message)

    def events(self) -> Iterator[dict[str, Any]]:
        """What happens, as it happens; ends with WorkerGone."""
        while True:
            yield self._events.popleft() if self._events else self._next(None)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, message: dict[str, Any]) -> None:
        line = p.encode(message)
        try:
            self._socket.settimeout(ANSWER_WITHIN)
            self._socket.sendall(line)
        except OSError as error:
            raise WorkerGone(
                f"the worker is gone ({error.strerror or error}): try again, and it is started anew"
            ) from error

    def _heard(self, within: float, kind: str) -> dict[str, Any]:
        """The next message, which must be of this kind."""
        message = self._next(within)
        if self._last_words:
            raise self._gone("")
        if message["type"] != kind:
            raise WorkerError(f"the worker said {message['type']} where {kind} was expected: update both sides")
        return message

    def _take_page(self, message: dict[str, Any]) -> None:
        self._runs += message["runs"]
        self._more = bool(message.get("more"))

    def _next(self, within: float | None) -> dict[str, Any]:
        """The next message but for pages; raises WorkerGone, and WorkerError where none comes within so many seconds."""
        until = None if within is None else time.monotonic() + within
        while (message := self._receive(until))["type"] == "page":
            pass
        return message

    def _receive(self, until: float | None) -> dict[str, Any]:
        message = p.message_of(self._line(until))
        if message["type"] == "page":
            self._take_page(message)
        elif message["type"] == "bye":
            self._last_words = str(message.get("reason", ""))
        return message

    def _line(self, until: float | None) -> bytes:
        begin = 0
        while (end := self._buffer.find(b"\n", begin)) < 0:
            if len(self._buffer) > p.MAX_READ_BYTES:
                raise WorkerError(f"the worker said a line of more than {p.MAX_READ_BYTES:,} bytes: update both sides")
            begin = len(self._buffer)
            try:
                self._socket.settimeout(None if until is None else max(0.001, until - time.monotonic()))
                more = self._socket.recv(1 << 16)
            except TimeoutError as error:
                raise WorkerError(f"the worker does not answer; its log: {log_path()}") from error
            except OSError as error:
                raise self._gone(error.strerror or str(error)) from error
            if not more:
                raise self._gone("")
            self._buffer += more
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _gone(self, why: str) -> WorkerError:
        """What a cut connection means: a worker that said why it ends would end again for the same reason."""
        if self._last_words:
            return WorkerError(f"the worker has ended: {self._last_words}")
        return WorkerGone(f"the worker is gone{f' ({why})' if why else ''}: its runs go on when it is started again")


def connect(start: bool = True, on_wait: Callable[[str], None] | None = None, older: bool = False) -> Client | None:
    """A client of this user's worker; None where there is none and `start` is false. Raises WorkerError.

    A worker of an older version finishes its run and makes way. That is waited for, and `on_wait` told so; with `older`, it is taken
    as it is while it has a run, for all but `NEEDS_OURS`.
    """
    place = Endpoint()
    place.prepare()
    told = False
    while True:
        client = _reached(place) or (_started(place) if start else None)
        if client is None or client.making_way is None or (older and client.making_way):
            return client
        if on_wait and not told:
            run = f"run {client.making_way}" if client.making_way else "what it does"
            hastened = f" (`softprompt-tui runs pause {client.making_way[:8]}` hastens it)" if client.making_way else ""
            on_wait(f"a worker of an older version finishes {run} and makes way; waiting for that{hastened}")
            told = True
        try:
            for _ in client.events():
                pass
        except WorkerGone:
            client.close()


def _reached(place: Endpoint) -> Client | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(ANSWER_WITHIN)
        connection.connect(os.fspath(place.socket))
        return Client(connection)
    except (FileNotFoundError, ConnectionRefusedError, WorkerGone):
        connection.close()
        return None
    except WorkerError:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        raise WorkerError(f"{place.socket} cannot be reached: {error.strerror}") from error


def _started(place: Endpoint) -> Client:
    """Starts the worker, one starter at a time: who comes second finds it started."""
    until = time.monotonic() + START_WITHIN
    with held(place.start_lock, START_WITHIN):
        while True:
            client = _reached(place)
            if client is not None:
                return client
            said = _spawn()
            if said == ANOTHER:  # it is about to listen, or about to end
                time.sleep(0.1)
            elif said != READY:
                raise WorkerError(
                    f"the worker could not be started ({said or 'it said nothing'}); its log: {log_path()}"
                )
            if time.monotonic() > until:
                raise WorkerError(f"the worker could not be reached in {START_WITHIN:.0f} s; its log: {log_path()}")


def _spawn() -> str:
    """Starts the worker's process and waits until it listens; returns what it said."""
    reading, writing = os.pipe()
    command = [sys.executable, *SAFELY, "softprompt.worker", "--ready-fd", str(writing)]
    try:
        try:
            with log_file() as log:  # what Python says before the log is open must not be lost, nor reach a terminal
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(writing,),
                    start_new_session=True,
                )
        except OSError as error:
            raise WorkerError(f"no process can be started: {error.strerror}") from error
        finally:
            os.close(writing)
        process.wait()  # it forks at once, and its child goes on
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(reading, selectors.EVENT_READ)
            until = time.monotonic() + START_WITHIN
            while selector.select(max(0.0, until - time.monotonic())):
                more = os.read(reading, 4096)
                said += more
                if not more:
                    break
        return said.decode(errors="replace")
    finally:
        os.close(reading)


def too_old(run: str) -> WorkerError:
    """What an older worker, whose last run this is, is not asked."""
    return WorkerError(f"the worker is of an older version and makes way when run {run[:8]} is done: try again then")


def raised(message: dict[str, Any]) -> SoftPromptError:
    """The worker's error as the type it had there, where this package has it."""
    name = str(message.get("kind"))
    kind = TrainingFailed if name == TrainingFailed.__name__ else getattr(errors, name, WorkerError)
    if not (isinstance(kind, type) and issubclass(kind, SoftPromptError)):
        kind = WorkerError
    error: SoftPromptError = kind(str(message.get("message")))
    error.bad_input = error.bad_input and message.get("bad_input") is not False  # the cause of it stays with the worker
    return error
