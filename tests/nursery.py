"""Starts workers and commands by forking a process that has imported torch and read the built-in model already.

A start costs 3 to 4 s of processor time, nearly all of it for importing torch, and the tests start some fifty. Here one process does
so once and forks for each. From there on all is as in a real start: the environment, the descriptors, for a worker a session of
its own, and then `softprompt.worker.__main__.main` or `softprompt_tui.cli.entry`. Tests of the start itself use the real one
(`real_start`), and one test starts a worker both ways and compares the two.
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

NOTHING, PIPE = subprocess.DEVNULL, subprocess.PIPE
LONGEST_REQUEST = 1 << 20  # bytes; the environment is the most of it
NUMBER = struct.Struct("i")


class Nursery:
    """The process that forks, started when the first worker or command is. `Popen` stands in for subprocess's."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)  # of before any test
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        if self._process is not None:
            self._socket.close()
            self._process.wait()

    def as_subprocess(self) -> Any:
        """What the worker's client uses of the module `subprocess`."""
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
        """Fork a worker for `command`, whose last word is the descriptor that it tells of its start."""
        assert command[:4] == [sys.executable, "-P", "-m", "softprompt.worker"]
        assert (stdin, start_new_session, stderr) == (subprocess.DEVNULL, True, stdout)
        assert command[4:] == ["--ready-fd", str(pass_fds[0])]
        self._ask("worker", [stdout.fileno(), *pass_fds])
        return SimpleNamespace(wait=lambda: self._socket.recv(1))

    def start_an_older_one(self) -> None:
        """Fork a worker of the protocol before this one."""
        with Path(os.devnull).open("wb") as nothing:
            self._ask("older worker", [nothing.fileno()] * 2)
            self._socket.recv(1)

    def learn_to_type(self) -> None:
        """Find out what of the vocabulary survives being typed, which takes seconds: what is forked from now on knows it."""
        self._ask("learn to type", [])
        self._socket.recv(1)

    def command(
        self,
        *args: str,
        stdin: int = NOTHING,
        stdout: int = NOTHING,
        stderr: int = NOTHING,
        before: str = "",
        **environment: str,
    ) -> Command:
        """Fork a softprompt-tui of these arguments, which runs the code `before` first; NOTHING and PIPE are as subprocess's."""
        ours: dict[int, IO[bytes]] = {}
        with ExitStack() as stack:
            nothing = stack.enter_context(Path(os.devnull).open("r+b"))
            theirs = []
            for number, given in enumerate((stdin, stdout, stderr)):
                if given == PIPE:
                    reading, writing = (
                        stack.enter_context(os.fdopen(end, mode))
                        for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True)
                    )
                    ours[number], kept = (writing, reading) if number == 0 else (reading, writing)
                    theirs.append(kept.fileno())
                else:
                    theirs.append(nothing.fileno() if given == NOTHING else given)
            told, telling = os.pipe()
            self._ask(
                "command", [*theirs, telling], args=args, before=before, environment=dict(os.environ) | environment
            )
            os.close(telling)
            self._socket.recv(1)
            for number, file in ours.items():
                ours[number] = os.fdopen(os.dup(file.fileno()), file.mode)
        return Command(told, *(ours.get(number) for number in range(3)))

    def run(self, *args: str, input: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        """Fork a softprompt-tui of these arguments and wait for its end."""
        made = self.command(*args, stdin=PIPE, stdout=PIPE, stderr=PIPE, **environment)
        assert made.stdin is not None
        with made.stdin as pipe:
            pipe.write(input)
        said = made.said()
        return subprocess.CompletedProcess(args, made.wait(), *said)

    def _ask(self, what: str, descriptors: list[int], **more: Any) -> None:
        if self._process is None:
            self._begin()
        request = {"what": what, "environment": dict(os.environ), "folder": str(Path.cwd())} | more
        socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)

    def _begin(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = f"from tests.nursery import serve; serve({theirs.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], env=self._environment, pass_fds=(theirs.fileno(),)
            )


class Command:
    """A command that was forked: what tests use of subprocess.Popen."""

    def __init__(self, told: int, stdin: IO[bytes] | None, stdout: IO[bytes] | None, stderr: IO[bytes] | None) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self._told = told
        (self.pid,) = NUMBER.unpack(os.read(told, NUMBER.size))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            (self.returncode,) = NUMBER.unpack(os.read(self._told, NUMBER.size))
            os.close(self._told)
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        if self.returncode is None:
            assert select.select([self._told], [], [], timeout)[0], f"it has not ended after {timeout} s"
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def said(self) -> tuple[str, str]:
        """All that it writes to its pipes until it closes them, which are read one after the other: the second must not be much."""
        said = []
        for pipe in (self.stdout, self.stderr):
            assert pipe is not None
            with pipe:
                said.append(pipe.read().decode())
        return said[0], said[1]


def serve(descriptor: int) -> None:
    """Fork a process for every request, until there are none any more."""
    import softprompt.training.trainer  # torch
    import softprompt.worker.executor
    import softprompt.worker.model_cache
    import softprompt.worker.server
    from softprompt.encoders.clip import mini as built_in
    from tests.kept import kept_mini

    built_in.load_mini = kept_mini(built_in.load_mini)
    mini = softprompt.load_encoder("mini", "cpu")
    requests = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        raw, descriptors, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 4)
        if not raw:
            return
        request = json.loads(raw)
        if request["what"] == "learn to type":
            from softprompt.discrete.vocabulary import typeable

            typeable(mini)
        elif not os.fork():
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if request["what"] == "command":
                _begin_command(request, descriptors[:3], descriptors[3])
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
    """Run the worker's program in this process, as `python -P -m softprompt.worker` would."""
    from softprompt.worker import protocol
    from softprompt.worker.__main__ import main

    protocol.PROTOCOL -= request["what"] == "older worker"
    os.setsid()
    _become(request, (os.open(os.devnull, os.O_RDONLY), log, log))
    sys.argv = ["softprompt.worker", "--ready-fd", str(ready)]
    main()


def _begin_command(request: dict[str, Any], descriptors: list[int], telling: int) -> NoReturn:
    """Fork once more, to be told of the end; the child runs the program as `python -m softprompt_tui` would."""
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        os.write(telling, NUMBER.pack(pid))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            os.write(telling, NUMBER.pack(code))
        finally:
            os._exit(0)
    from softprompt_tui.cli import entry

    os.close(telling)
    _become(request, descriptors)
    for number, (name, mode) in enumerate((("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb"))):
        errors, by_line = getattr(sys, name).errors, number == 2 or os.isatty(number)
        file = os.fdopen(number, mode, closefd=False)
        setattr(sys, name, io.TextIOWrapper(file, encoding="utf-8", errors=errors, line_buffering=by_line))
    exec(request["before"])
    sys.argv = ["softprompt-tui", *request["args"]]
    entry()
    raise SystemExit(0)
