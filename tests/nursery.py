"""Start workers and commands by forking a process that has already imported torch and read the built-in model.

A real start costs 3 to 4 s of processor time, nearly all of it to import torch, and the tests start some fifty
processes. Here, one process imports torch once and forks for each start. The rest is as in a real start: the
environment, the descriptors, a session of its own for a worker, then `softprompt.worker.__main__.main` or
`softprompt_tui.cli.entry`. Tests of the start itself use real processes (`real_worker_start`), and one test compares a
forked worker with a real one.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

DEVNULL, PIPE = subprocess.DEVNULL, subprocess.PIPE
MAX_REQUEST_BYTES = 1 << 20  # the environment takes most of it
NUMBER = struct.Struct("i")


class Nursery:
    """The client of the forking process, which starts with the first worker or command."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)  # as it is before any test
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        if self._process is not None:
            self._socket.close()
            self._process.wait()

    def as_subprocess(self) -> Any:
        """Return a substitute for the module `subprocess`, with the names that the worker's client uses."""
        return SimpleNamespace(Popen=self.start, DEVNULL=subprocess.DEVNULL)

    def start(
        self,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: IO[bytes],
        stderr: IO[bytes],
        pass_fds: tuple[int, ...],
        start_new_session: bool,
    ) -> Any:
        """Fork a worker. The last argument of `command` is the descriptor of its ready pipe."""
        assert command[:4] == [sys.executable, "-P", "-m", "softprompt.worker"]
        assert (stdin, start_new_session, stderr) == (subprocess.DEVNULL, True, stdout)
        assert command[4:] == ["--ready-fd", str(pass_fds[0])]
        self._request("worker", [stdout.fileno(), *pass_fds])
        return SimpleNamespace(wait=lambda: self._socket.recv(1))

    def start_older_worker(self) -> None:
        """Fork a worker with the previous protocol."""
        with Path(os.devnull).open("wb") as devnull:
            self._request("older worker", [devnull.fileno()] * 2)
            self._socket.recv(1)

    def warm_vocabulary(self) -> None:
        """Find the typeable vocabulary, which takes seconds. All processes forked later have it."""
        self._request("warm vocabulary", [])
        self._socket.recv(1)

    def start_command(
        self,
        *args: str,
        stdin: int = DEVNULL,
        stdout: int = DEVNULL,
        stderr: int = DEVNULL,
        before: str = "",
        **environment: str,
    ) -> Command:
        """Fork a softprompt-tui command, which first executes the code `before`."""
        own_ends: dict[int, IO[bytes]] = {}
        with ExitStack() as stack:
            devnull = stack.enter_context(Path(os.devnull).open("r+b"))
            child_ends = []
            for number, given in enumerate((stdin, stdout, stderr)):
                if given == PIPE:
                    reading, writing = (
                        stack.enter_context(os.fdopen(end, mode))
                        for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True)
                    )
                    own_ends[number], child_end = (writing, reading) if number == 0 else (reading, writing)
                    child_ends.append(child_end.fileno())
                else:
                    child_ends.append(devnull.fileno() if given == DEVNULL else given)
            status_reader, status_writer = os.pipe()
            self._request(
                "command",
                [*child_ends, status_writer],
                args=args,
                before=before,
                environment=dict(os.environ) | environment,
            )
            os.close(status_writer)
            self._socket.recv(1)
            for number, file in own_ends.items():
                own_ends[number] = os.fdopen(os.dup(file.fileno()), file.mode)
        return Command(status_reader, *(own_ends.get(number) for number in range(3)))

    def run(self, *args: str, input: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        """Fork a softprompt-tui command, and wait for its end."""
        command = self.start_command(*args, stdin=PIPE, stdout=PIPE, stderr=PIPE, **environment)
        assert command.stdin is not None
        with command.stdin as pipe:
            pipe.write(input)
        output = command.read_output()
        return subprocess.CompletedProcess(args, command.wait(), *output)

    def _request(self, what: str, descriptors: list[int], **more: Any) -> None:
        if self._process is None:
            self._start_process()
        request = {"what": what, "environment": dict(os.environ), "folder": str(Path.cwd())} | more
        socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)

    def _start_process(self) -> None:
        self._socket, child_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with child_socket:
            code = f"from tests.nursery import serve; serve({child_socket.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], env=self._environment, pass_fds=(child_socket.fileno(),)
            )


class Command:
    """A forked command, with the parts of `subprocess.Popen` that tests use."""

    def __init__(
        self, status_reader: int, stdin: IO[bytes] | None, stdout: IO[bytes] | None, stderr: IO[bytes] | None
    ) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._status_reader = status_reader
        (self.pid,) = NUMBER.unpack(os.read(status_reader, NUMBER.size))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status_reader], [], [], 0)[0]:
            (self.returncode,) = NUMBER.unpack(os.read(self._status_reader, NUMBER.size))
            os.close(self._status_reader)
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        if self.returncode is None:
            assert select.select([self._status_reader], [], [], timeout)[0], f"it has not ended after {timeout} s"
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def read_output(self) -> tuple[str, str]:
        """Return standard output and standard error, read one after the other: the second must fit into its pipe."""
        outputs = []
        for pipe in (self.stdout, self.stderr):
            assert pipe is not None
            with pipe:
                outputs.append(pipe.read().decode())
        return outputs[0], outputs[1]


def serve(descriptor: int) -> None:
    """Fork a process for every request until the socket closes."""
    import softprompt.training.trainer  # torch
    import softprompt.worker.executor
    import softprompt.worker.model_cache
    import softprompt.worker.server
    from softprompt.encoders.clip import mini as built_in
    from tests.kept import cache_mini

    built_in.load_mini = cache_mini(built_in.load_mini)
    mini = softprompt.load_encoder("mini", "cpu")
    requests = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        raw, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 4)
        if not raw:
            return
        request = json.loads(raw)
        if request["what"] == "warm vocabulary":
            from softprompt.discrete.vocabulary import typeable_tokens

            typeable_tokens(mini)
        elif not os.fork():
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if request["what"] == "command":
                _run_command(request, descriptors[:3], descriptors[3])
            else:
                _become_worker(request, *descriptors)
        for received in descriptors:
            os.close(received)
        requests.send(b".")


def _become(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for target, source in enumerate(descriptors):
        os.dup2(source, target)
    for descriptor in set(descriptors):
        os.close(descriptor)


def _become_worker(request: dict[str, Any], log: int, ready: int) -> None:
    """Turn this process into a worker, as `python -P -m softprompt.worker` does."""
    from softprompt.worker import protocol
    from softprompt.worker.__main__ import main

    protocol.PROTOCOL -= request["what"] == "older worker"
    os.setsid()
    _become(request, (os.open(os.devnull, os.O_RDONLY), log, log))
    sys.argv = ["softprompt.worker", "--ready-fd", str(ready)]
    main()


def _run_command(request: dict[str, Any], descriptors: list[int], status_writer: int) -> NoReturn:
    """Fork again: the child runs the command as `python -m softprompt_tui` does, and this process reports its end."""
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        os.write(status_writer, NUMBER.pack(pid))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            os.write(status_writer, NUMBER.pack(code))
        finally:
            os._exit(0)
    from softprompt_tui.cli import entry

    os.close(status_writer)
    _become(request, descriptors)
    for number, (name, mode) in enumerate((("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb"))):
        errors, is_line_buffered = getattr(sys, name).errors, number == 2 or os.isatty(number)
        file = os.fdopen(number, mode, closefd=False)
        setattr(sys, name, io.TextIOWrapper(file, encoding="utf-8", errors=errors, line_buffering=is_line_buffered))
    exec(request["before"])
    sys.argv = ["softprompt-tui", *request["args"]]
    entry()
    raise SystemExit(0)
