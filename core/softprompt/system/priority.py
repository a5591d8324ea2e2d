"""Making way: what computes for long lowers its own priority, so that who types beside it is answered. Must be said before torch is imported."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

WORKER, BATCH = 5, 10  # what one watches goes before what one comes back to
AGAIN = 0.12  # seconds
AUTOGROUP = Path("/proc/self/autogroup")


def lower_priority(niceness: int) -> None:
    """Lowers this process's priority, unless it has another than the usual one already: that is its user's choice.

    On Linux each thread has a niceness of its own, and hands it on to those that it starts. Where the kernel shares out processors by
    session (its autogroups), a niceness counts inside of one only, and the session has another: a process that leads its session, as
    the worker does, lowers that too. A shell's session is left alone, for it would stay low when the command has ended.
    """
    if not hasattr(os, "nice") or os.getpriority(os.PRIO_PROCESS, 0) != 0:
        return
    with suppress(OSError):  # forbidden, or a kernel without autogroups: nothing is lost but some politeness
        os.nice(niceness)
        if os.getsid(0) == os.getpid():
            try:
                AUTOGROUP.write_text(f"{niceness}")
            except BlockingIOError:  # the kernel takes one such write in 0.1 s from all processes without privileges
                time.sleep(AGAIN)
                AUTOGROUP.write_text(f"{niceness}")
