"""Run a module of this package in a child process with tight limits, to read untrusted input there."""

from __future__ import annotations

import importlib
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

import softprompt


def run_child(module: str, request: Iterable[bytes], seconds: float, max_bytes: int) -> bytes:
    """Send `request` to the standard input of a module of this package, and return what it writes.

    Returns:
        The answer, or b"" if the child fails, takes longer than `seconds`, or writes more than `max_bytes`.
    """
    command = [sys.executable, "-P", "-m", module]
    environment = {"PYTHONPATH": str(Path(softprompt.__file__).parents[1])}  # only this package's path
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd="/"
    )
    assert process.stdin
    assert process.stdout
    sender = threading.Thread(target=_send, args=(process.stdin, request), daemon=True)
    try:
        sender.start()
        return _read_answer(process.stdout, time.monotonic() + seconds, max_bytes)
    finally:
        process.kill()
        process.wait()
        sender.join()
        process.stdout.close()


def _send(pipe: IO[bytes], request: Iterable[bytes]) -> None:
    with suppress(BrokenPipeError), pipe:  # the child may have exited already
        for piece in request:
            pipe.write(piece)


def _read_answer(pipe: IO[bytes], deadline: float, max_bytes: int) -> bytes:
    """Return everything that the child writes, or nothing if it exceeds the deadline or the size limit."""
    raw = bytearray()
    while len(raw) <= max_bytes and (remaining := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([pipe], [], [], remaining)
        if ready:
            chunk = os.read(pipe.fileno(), 1 << 20)
            if not chunk:
                return bytes(raw)
            raw += chunk
    return b""


def give_up_rights(modules: Iterable[str], max_memory_bytes: int, max_cpu_seconds: int) -> None:
    """Limit this process permanently: its memory and CPU time, and no right to open files or to start processes.

    Args:
        modules: what the process needs. It imports them here, because it cannot open their files later.
    """
    _set_limit(resource.RLIMIT_AS, max_memory_bytes)
    _set_limit(resource.RLIMIT_CPU, max_cpu_seconds)
    _set_limit(resource.RLIMIT_FSIZE, 0)
    _set_limit(resource.RLIMIT_CORE, 0)
    for module in modules:
        importlib.import_module(module)
    _set_limit(resource.RLIMIT_NPROC, 0)
    _set_limit(resource.RLIMIT_NOFILE, 3)  # stdin, stdout and stderr are open already


def _set_limit(kind: int, maximum: int) -> None:
    """Lower a limit permanently. Skips limits that the system does not support, as on macOS."""
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (maximum, maximum))
