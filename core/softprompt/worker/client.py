"""A blocking client for the worker, used by scripts and the command line."""

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
from softprompt.system.locks import lock_holder
from softprompt.training.errors import TrainingFailed
from softprompt.worker import protocol as p
from softprompt.worker.endpoint import Endpoint, hold_lock
from softprompt.worker.log import log_path, open_log_file

START_SECONDS = 30.0  # Python and a slow disk take 1-5 s
ANSWER_SECONDS = 60.0
CONTROL_SECONDS = 10.0  # for a look at the worker or its end, which need no computing
NOTICE_SECONDS = 1.5  # a healthy worker greets a client at once, however much it computes
WAITING = "waiting for the worker to answer …"
SAFE_PATH_FLAGS = ("-P", "-m")  # -P: do not import modules from the user's current folder
READY, ANOTHER = "ready", "another worker is there"  # a new worker process writes one of these or an error message


class WorkerGone(WorkerError):
    """The worker ended or was killed while the client was connected. The next worker continues its runs."""


class Client:
    """A connection to the worker for this user's data folder, and a context manager. Open one with `connect`."""

    def __init__(
        self,
        connection: socket.socket,
        answer_seconds: float = ANSWER_SECONDS,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self._socket = connection
        self._answer_seconds = answer_seconds
        self._buffer = bytearray()
        self._events: deque[dict[str, Any]] = deque()
        self._last_id = 0
        self._runs: list[dict[str, Any]] = []
        self._expects_more = False  # whether more pages of runs follow
        self._end_reason = ""  # why the worker ended, if it said so
        self._send(p.hello())
        if on_wait is not None and not self._is_readable(min(NOTICE_SECONDS, answer_seconds)):
            on_wait(WAITING)
        hello = self._expect("hello")
        self.worker = hello
        if p.is_newer(hello, p.hello()) and hello.get("protocol") != p.PROTOCOL:
            raise WorkerError(
                f"the worker is a newer version ({hello.get('version')}): update softprompt-tui here, "
                "or stop the worker with that version's `worker stop`"
            )
        self.making_way: str | None = None  # an older worker's last run, or "" if it has no run and is about to end
        if p.is_newer(p.hello(), hello):
            self.making_way = str(self._expect("making_way")["run"])
        if self.making_way != "":
            self._add_page(self._expect("snapshot"))

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The worker's runs when the client connected. Waits until all pages have arrived."""
        while self._expects_more:
            message = self._receive(time.monotonic() + self._answer_seconds)
            if message["type"] not in ("page", "reply", "error"):
                self._events.append(message)
        return self._runs

    def request(self, request: p.Request, timeout: float | None = None) -> dict[str, Any]:
        """Send a request and return the worker's reply.

        Args:
            timeout: seconds to wait for the reply. Default: the `answer_seconds` of the client.

        Raises:
            WorkerGone: the worker ended.
            WorkerError: the worker did not reply in time.
            SoftPromptError: the worker replied with an error, which is raised in its original type.
        """
        if self.making_way is not None and isinstance(request, p.NEEDS_CURRENT_WORKER):
            raise older_worker_error(self.making_way)
        self._last_id += 1
        self._send(p.as_message(request, self._last_id))
        deadline = time.monotonic() + (self._answer_seconds if timeout is None else timeout)
        while True:
            message = self._next_message(deadline - time.monotonic())
            match message["type"], message.get("id"):
                case "reply", self._last_id:
                    result: dict[str, Any] = message["result"]
                    return result
                case "error", (self._last_id | None):
                    raise error_from_message(message)
                case (("reply" | "error"), _):
                    pass  # the reply to an earlier request that timed out
                case _:
                    self._events.append(message)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield events as they happen. Raises WorkerGone when the worker ends."""
        while True:
            yield self._events.popleft() if self._events else self._next_message(None)

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
            self._socket.settimeout(self._answer_seconds)
            self._socket.sendall(line)
        except TimeoutError as error:
            raise not_answering() from error
        except OSError as error:
            raise WorkerGone(
                f"the worker has ended ({error.strerror or error}): try again to start a new one"
            ) from error

    def _is_readable(self, timeout: float) -> bool:
        """Return whether the worker sends something, or closes the connection, within `timeout` seconds."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(timeout))

    def _expect(self, kind: str) -> dict[str, Any]:
        """Return the next message. Raises WorkerError if it is not of this kind."""
        message = self._next_message(self._answer_seconds)
        if self._end_reason:
            raise self._connection_error("")
        if message["type"] != kind:
            raise WorkerError(
                f"the worker sent {message['type']} instead of {kind}: the versions differ. "
                "Update softprompt-tui and restart the worker."
            )
        return message

    def _add_page(self, message: dict[str, Any]) -> None:
        self._runs += message["runs"]
        self._expects_more = bool(message.get("more"))

    def _next_message(self, timeout: float | None) -> dict[str, Any]:
        """Return the next message that is not a page. Raises WorkerGone, or WorkerError after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (message := self._receive(deadline))["type"] == "page":
            pass
        return message

    def _receive(self, deadline: float | None) -> dict[str, Any]:
        message = p.parse_message(self._read_line(deadline))
        if message["type"] == "page":
            self._add_page(message)
        elif message["type"] == "bye":
            self._end_reason = str(message.get("reason", ""))
        return message

    def _read_line(self, deadline: float | None) -> bytes:
        unsearched = 0
        while (end := self._buffer.find(b"\n", unsearched)) < 0:
            if len(self._buffer) > p.MAX_READ_BYTES:
                raise WorkerError(
                    f"the worker sent a line of more than {p.MAX_READ_BYTES:,} bytes: "
                    "update softprompt-tui and restart the worker"
                )
            unsearched = len(self._buffer)
            try:
                self._socket.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
                more = self._socket.recv(1 << 16)
            except TimeoutError as error:
                raise not_answering() from error
            except OSError as error:
                raise self._connection_error(error.strerror or str(error)) from error
            if not more:
                raise self._connection_error("")
            self._buffer += more
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _connection_error(self, why: str) -> WorkerError:
        """Return the error for a broken connection.

        If the worker gave a reason for ending, a new worker would end for the same reason, so this is not a WorkerGone.
        """
        if self._end_reason:
            return WorkerError(f"the worker has ended: {self._end_reason}")
        return WorkerGone(f"the worker has ended{f' ({why})' if why else ''}: its runs continue when it starts again")


def connect(
    start: bool = True,
    on_wait: Callable[[str], None] | None = None,
    accept_older: bool = False,
    answer_seconds: float = ANSWER_SECONDS,
) -> Client | None:
    """Connect to this user's worker.

    A worker of an older version finishes its run and then exits to make way for a new one. By default, wait for this.

    Args:
        start: whether to start a worker if none is running. If False and none is running, return None.
        on_wait: called with a message before waiting for an older worker, or if the worker does not answer at once.
        accept_older: connect to an older worker that is still training. The client then rejects the requests in
            `NEEDS_CURRENT_WORKER`.
        answer_seconds: how long to wait for each answer of the worker.

    Raises:
        WorkerError: the worker cannot be started or reached.
    """
    endpoint = Endpoint()
    endpoint.prepare()
    has_called_on_wait = False
    while True:
        client = _try_connect(endpoint, answer_seconds, on_wait)
        if client is None and start:
            client = _start_and_connect(endpoint, answer_seconds, on_wait)
        if client is None or client.making_way is None or (accept_older and client.making_way):
            return client
        if on_wait and not has_called_on_wait:
            run = f"run {client.making_way}" if client.making_way else "its work"
            hint = f" (`softprompt-tui runs pause {client.making_way[:8]}` speeds this up)" if client.making_way else ""
            on_wait(f"an older version of the worker is finishing {run} first; waiting for it to end{hint}")
            has_called_on_wait = True
        try:
            for _ in client.events():
                pass
        except WorkerGone:
            client.close()


def _try_connect(endpoint: Endpoint, answer_seconds: float, on_wait: Callable[[str], None] | None) -> Client | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(answer_seconds)
        connection.connect(os.fspath(endpoint.socket))
        return Client(connection, answer_seconds, on_wait)
    except (FileNotFoundError, ConnectionRefusedError, WorkerGone):
        connection.close()
        return None
    except WorkerError:
        connection.close()
        raise
    except (TimeoutError, BlockingIOError) as error:  # many clients are waiting for it already
        connection.close()
        raise not_answering() from error
    except OSError as error:
        connection.close()
        raise WorkerError(f"cannot connect to {endpoint.socket}: {error.strerror}") from error


def _start_and_connect(endpoint: Endpoint, answer_seconds: float, on_wait: Callable[[str], None] | None) -> Client:
    """Start the worker and connect to it. A lock ensures that only one client starts it."""
    deadline = time.monotonic() + START_SECONDS
    with hold_lock(endpoint.start_lock, START_SECONDS):
        while True:
            client = _try_connect(endpoint, answer_seconds, on_wait)
            if client is not None:
                return client
            answer = _spawn()
            if answer == ANOTHER:  # the other worker is about to listen or about to end
                time.sleep(0.1)
            elif answer != READY:
                raise WorkerError(
                    f"cannot start the worker ({answer or 'it gave no reason'}); see its log: {log_path()}"
                )
            if time.monotonic() > deadline:
                raise WorkerError(f"the worker did not start within {START_SECONDS:.0f} s; see its log: {log_path()}")


def _spawn() -> str:
    """Start the worker's process, wait until it is listening, and return what it wrote to the ready pipe."""
    reading, writing = os.pipe()
    command = [sys.executable, *SAFE_PATH_FLAGS, "softprompt.worker", "--ready-fd", str(writing)]
    try:
        try:
            with open_log_file() as log:  # for anything Python prints before the worker opens its log
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(writing,),
                    start_new_session=True,
                )
        except OSError as error:
            raise WorkerError(f"cannot start a process: {error.strerror}") from error
        finally:
            os.close(writing)
        process.wait()  # this process forks and exits at once; its child becomes the worker
        answer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(reading, selectors.EVENT_READ)
            deadline = time.monotonic() + START_SECONDS
            while selector.select(max(0.0, deadline - time.monotonic())):
                more = os.read(reading, 4096)
                answer += more
                if not more:
                    break
        return answer.decode(errors="replace")
    finally:
        os.close(reading)


def not_answering() -> WorkerError:
    """Return the error for a worker that is running but does not answer in time."""
    pid = lock_holder(Endpoint().worker_lock)
    process = "" if pid is None else f" (process {pid})"
    return WorkerError(
        f"the worker{process} does not answer. `softprompt-tui worker stop --force` ends it, and no run is lost. "
        f"Its log: {log_path()}"
    )


def older_worker_error(run: str) -> WorkerError:
    """Return the error for a request that must not be sent to an older worker, which is finishing its last run."""
    return WorkerError(f"the worker is an older version and will exit after run {run[:8]}: try again then")


def error_from_message(message: dict[str, Any]) -> SoftPromptError:
    """Convert a worker's message to an error, of the original type if this package has it."""
    name = str(message.get("kind"))
    kind = TrainingFailed if name == TrainingFailed.__name__ else getattr(errors, name, WorkerError)
    if not (isinstance(kind, type) and issubclass(kind, SoftPromptError)):
        kind = WorkerError
    error: SoftPromptError = kind(str(message.get("message")))
    error.bad_input = error.bad_input and message.get("bad_input") is not False  # a message has no `__cause__` to check
    return error
