"""Starts worker processes by forking one that has imported torch and read the built-in model already.

A worker's start costs 3 s of processor time, nearly all of it for importing torch, and the tests start some thirty. Here
one process does so once and forks for each. From there on all is as in a real start: a session of its own, the
environment, the descriptors, `softprompt.worker.__main__.main`. Tests of the start itself use the real one (`real_start`),
and one test starts a worker both ways and compares the two.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

LONGEST_REQUEST = 1 << 20  # bytes; the environment is the most of it


class Nursery:
    """The process that forks, started when the first worker is. `Popen` stands in for subprocess's."""

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
        self._ask(stdout.fileno(), *pass_fds)
        return SimpleNamespace(wait=lambda: self._socket.recv(1))

    def start_an_older_one(self) -> None:
        """Fork a worker of the protocol before this one."""
        with Path(os.devnull).open("wb") as nothing:
            self._ask(nothing.fileno(), nothing.fileno(), older=True)
            self._socket.recv(1)

    def _ask(self, log: int, ready: int, older: bool = False) -> None:
        if self._process is None:
            self._begin()
        request = {"environment": dict(os.environ), "folder": str(Path.cwd()), "older": older}
        socket.send_fds(self._socket, [json.dumps(request).encode()], [log, ready])

    def _begin(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = f"from tests.nursery import serve; serve({theirs.fileno()})"
            self._process = subprocess.Popen([sys.executable, "-c", code], env=self._environment, pass_fds=(theirs.fileno(),))


def serve(descriptor: int) -> None:
    """Fork a worker for every request, until there are none any more."""
    import softprompt.trainer  # torch
    import softprompt.worker.carrying
    import softprompt.worker.server
    import softprompt.worker.warm  # noqa: F401
    from softprompt import models
    from tests.kept import kept_mini

    models._mini = kept_mini(models._mini)
    models.load_encoder("mini", "cpu")
    requests = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        raw, descriptors, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 4)
        if not raw:
            return
        if not os.fork():
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _become_worker(json.loads(raw), *descriptors)
        for received in descriptors:
            os.close(received)
        requests.send(b".")


def _become_worker(request: dict[str, Any], log: int, ready: int) -> None:
    """Run the worker's program in this process, as `python -P -m softprompt.worker` would."""
    from softprompt.worker import protocol
    from softprompt.worker.__main__ import main

    protocol.PROTOCOL -= request["older"]
    os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for descriptor in (nothing, log):
        os.close(descriptor)
    sys.argv = ["softprompt.worker", "--ready-fd", str(ready)]
    main()
