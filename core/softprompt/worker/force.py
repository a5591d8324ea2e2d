"""End a worker that does not answer. Only the process that holds the worker's lock is ever signalled."""

from __future__ import annotations

import os
import select
import signal
from typing import NamedTuple

from softprompt.errors import WorkerError
from softprompt.system.locks import lock_holder, try_lock
from softprompt.worker.endpoint import Endpoint

PATIENCE_SECONDS = 12.0  # after SIGTERM; a healthy worker takes up to 10 s to end its step
KILL_SECONDS = 10.0


class EndedWorker(NamedTuple):
    """A process that was ended. `was_killed`: it did not react to SIGTERM, so it wrote no last checkpoint."""

    pid: int
    was_killed: bool


def end_worker(endpoint: Endpoint, patience: float = PATIENCE_SECONDS) -> EndedWorker | None:
    """End the worker with SIGTERM, or with SIGKILL if it still runs after `patience` seconds.

    Its runs continue from their checkpoints when a worker starts again.

    Returns:
        The process that ended, or None if no worker is running.

    Raises:
        WorkerError: the process cannot be found or ended.
    """
    endpoint.prepare()
    pid = lock_holder(endpoint.worker_lock)
    if pid is None:
        _check_unlocked(endpoint)
        return None
    try:
        process = os.pidfd_open(pid)  # from here on, the id cannot be given to another process
    except ProcessLookupError:
        return EndedWorker(pid, was_killed=False)
    except OSError as error:
        raise WorkerError(f"cannot end the worker (process {pid}): {error.strerror}") from error
    try:
        if lock_holder(endpoint.worker_lock) != pid:  # it has ended since, and its id may be of another process
            return EndedWorker(pid, was_killed=False)
        return EndedWorker(pid, _end(process, pid, patience))
    finally:
        os.close(process)


def _end(process: int, pid: int, patience: float) -> bool:
    """End the process. Return whether it had to be killed."""
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, KILL_SECONDS)):
        try:
            signal.pidfd_send_signal(process, number)
            signal.pidfd_send_signal(process, signal.SIGCONT)  # a stopped process handles SIGTERM only when it goes on
        except ProcessLookupError:
            return number == signal.SIGKILL
        except OSError as error:
            raise WorkerError(f"cannot end the worker (process {pid}): {error.strerror}") from error
        if select.select([process], [], [], seconds)[0]:
            return number == signal.SIGKILL
    raise WorkerError(
        f"process {pid} does not end even by SIGKILL: it waits for a disk or a device. Wait, or restart the machine."
    )


def _check_unlocked(endpoint: Endpoint) -> None:
    """Raise WorkerError if a process holds the lock although it cannot be found."""
    lock = try_lock(endpoint.worker_lock)
    if lock is None:
        raise WorkerError(
            f"the worker is running, but its process cannot be found. `fuser {endpoint.worker_lock}` may name it; end "
            "it with `kill`. Its runs continue when the worker starts again."
        )
    os.close(lock)
