"""Figures and ages as the cells of a table."""

from __future__ import annotations

from datetime import datetime


def figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"


def age(since: object, now: datetime) -> str:
    """How long ago an ISO time was, in its largest unit."""
    try:
        seconds = (now - datetime.fromisoformat(str(since))).total_seconds()
    except (ValueError, TypeError):
        return "-"
    return duration(seconds)


def duration(seconds: float) -> str:
    """In the largest unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
