"""Lower the priority of long computations, so that the machine stays responsive. Call this before importing torch."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

WORKER_NICENESS, BATCH_NICENESS = 5, 10  # people wait for the worker, but come back to a batch later
RETRY_SECONDS = 0.12
AUTOGROUP_PATH = Path("/proc/self/autogroup")


def lower_priority(niceness: int) -> None:
    """Lower the priority of this process, unless the user has already changed it.

    On Linux each thread has its own niceness, and new threads inherit it. With autogroups, the kernel compares the
    niceness of processes only within a session, and each session has its own niceness. A process that leads its
    session, such as the worker, also sets the session's niceness. A shell's session is left alone, because the change
    would outlast the command.
    """
    if not hasattr(os, "nice") or os.getpriority(os.PRIO_PROCESS, 0) != 0:
        return
    with suppress(OSError):  # not permitted, or no autogroups; the machine is just less responsive
        os.nice(niceness)
        if os.getsid(0) == os.getpid():
            try:
                AUTOGROUP_PATH.write_text(f"{niceness}")
            except BlockingIOError:  # the kernel accepts one write per 0.1 s from all unprivileged processes
                time.sleep(RETRY_SECONDS)
                AUTOGROUP_PATH.write_text(f"{niceness}")
