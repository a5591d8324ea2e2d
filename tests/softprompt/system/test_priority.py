"""Lowering the priority of long computations."""

from __future__ import annotations

import os
import time

import pytest

from softprompt.system import priority


class Autogroup:
    """The kernel's file, which rejects the first `refusals` writes."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.written = refusals, ""

    def write_text(self, text: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError
        self.written = text


@pytest.mark.parametrize(("refusals", "written"), [(0, "5"), (1, "5"), (2, "")])
def test_a_busy_kernel_is_asked_once_more(refusals: int, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    autogroup, slept, lowered = Autogroup(refusals), list[float](), list[int]()
    monkeypatch.setattr(priority, "AUTOGROUP_PATH", autogroup)
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(os, "nice", lowered.append)
    monkeypatch.setattr(os, "getpriority", lambda *_: 0)
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    priority.lower_priority(priority.WORKER_NICENESS)
    assert (autogroup.written, lowered) == (written, [5])
    assert slept == [priority.RETRY_SECONDS] * (refusals > 0)
