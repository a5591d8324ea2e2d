"""Make torch neutral while this package computes, whatever the caller has set, and restore the caller's settings."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch

from softprompt.system.generators import Reporting
from softprompt.system.threads import is_forked, running

Report = TypeVar("Report")
Result = TypeVar("Result")

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def neutral_torch(threads: int = 0) -> Iterator[None]:
    """Compute with gradients, in float32 and on the devices that the code names. Also works as a decorator.

    Neutralizes `set_grad_enabled`, `no_grad`, `inference_mode`, `autocast`, `set_default_dtype`, `set_default_device`,
    and torch's function and dispatch modes. Entering takes 20 µs.

    Args:
        threads: the number of CPU threads, or 0 for the caller's.
    """
    before = torch.is_grad_enabled()
    with _restored_grad_mode(before), ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # this also enables gradients
        stack.enter_context(torch._C.DisableTorchFunction())  # the default device is such a mode
        stack.enter_context(torch._C._DisableTorchDispatch())
        for device in _AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(_default_dtype.as_float32())
        stack.enter_context(_thread_count(threads))
        yield


@contextmanager
def _restored_grad_mode(before: bool) -> Iterator[None]:
    """Restore the grad mode, even if an interrupt arrives between entering a context and registering it."""
    try:
        yield
    finally:
        if torch.is_grad_enabled() != before:
            torch.set_grad_enabled(before)


def isolated(work: Reporting[Report, Result], threads: int = 0) -> Reporting[Report, Result]:
    """Return a generator like `work` that runs in `neutral_torch(threads)`, and leaves it at each yield."""
    stop: bool | None = None
    try:
        while True:
            with neutral_torch(threads):
                try:
                    report = work.send(stop)
                except StopIteration as finished:
                    result: Result = finished.value
                    return result
            stop = yield report
    finally:
        with neutral_torch(threads):
            work.close()


class _DefaultDtype:
    """torch's default dtype. All threads of the process share it, so the last one that needs float32 restores it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before: torch.dtype | None = None

    @contextmanager
    def as_float32(self) -> Iterator[None]:
        with self.lock:
            self.users += 1
            if (current := torch.get_default_dtype()) != torch.float32:
                self.before = current
                torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if self.before is not None and not self.users:
                    torch.set_default_dtype(self.before)
                    self.before = None


@contextmanager
def _thread_count(threads: int) -> Iterator[None]:
    """Use `threads` threads (0: as many as the caller), or one in a forked process, where more would hang."""
    with _threads_lock:  # a Python thread's first use of torch must not see the number of another run
        before = torch.get_num_threads()
    wanted = 1 if is_forked() else threads or before
    with running(wanted) if threads else ExitStack():
        try:
            if wanted != before:
                _set_own_threads(wanted)
            yield
        finally:
            if torch.get_num_threads() != before:
                _set_own_threads(before)


def _set_own_threads(count: int) -> None:
    """Set the number of threads for the current Python thread only.

    torch keeps one number per Python thread. A Python thread that uses torch for the first time gets the number that
    any thread set last. So this starts such a thread to read that number and to set it again, which takes .2 ms.
    """
    is_read, is_set = threading.Event(), threading.Event()

    def keep() -> None:
        inherited = torch.get_num_threads()
        is_read.set()
        is_set.wait()
        torch.set_num_threads(inherited)

    with _threads_lock:
        keeper = threading.Thread(target=keep, name="softprompt-threads", daemon=True)
        try:
            keeper.start()
            is_read.wait()
            torch.set_num_threads(count)
        except RuntimeError:  # the machine allows no more threads: Python threads that start later get this number too
            torch.set_num_threads(count)
            return
        finally:  # an interrupt, which can come at any point, must not leave the keeper waiting
            is_set.set()
        keeper.join()


_default_dtype = _DefaultDtype()
_threads_lock = threading.Lock()


def _after_fork() -> None:
    """Give a forked process new locks: another thread may have held the old ones."""
    global _default_dtype, _threads_lock
    _default_dtype, _threads_lock = _DefaultDtype(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
