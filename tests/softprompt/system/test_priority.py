"""Making way for who types."""

from __future__ import annotations

import os
import time

import pytest

from softprompt.system import priority


class Autogroup:
    """The kernel's file, which refuses as many writes as it is told to."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.written = refusals, ""

    def write_text(self, text: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError
        self.written = text


@pytest.mark.parametrize(("refusals", "written"), [(0, "5"), (1, "5"), (2, "")])
def test_a_session_is_lowered_though_the_kernel_is_busy(
    refusals: int, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked once more, after a while; where it refuses then too, nothing is lost but some politeness."""
    autogroup, slept, lowered = Autogroup(refusals), list[float](), list[int]()
    monkeypatch.setattr(priority, "AUTOGROUP", autogroup)
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(os, "nice", lowered.append)
    monkeypatch.setattr(os, "getpriority", lambda *_: 0)
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    priority.lower_priority(priority.WORKER)
    assert (autogroup.written, lowered) == (written, [5])
    assert slept == [priority.AGAIN] * (refusals > 0)
