"""Numbers and ages as table cells."""

from __future__ import annotations

from datetime import datetime

from softprompt.prompts import visible_text


def format_number(value: object) -> str:
    """Return a number as the engine's messages show it, or "-" if there is none."""
    return visible_text.format_number(value) if isinstance(value, float) else "-"


def format_bytes(size: float) -> str:
    """Return a size in its largest decimal unit, with two or three digits: `1.7 GB`, `605 MB`."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= 0.9995 * factor:
            value = size / factor
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{size:.0f} B"


def format_rate(per_second: float) -> str:
    """Return a rate, with two digits if it is slow: 230, 3, 1.4, 0.35."""
    return f"{per_second:.0f}" if per_second >= 2.95 else f"{per_second:.2g}"


def format_age(since: object, now: datetime) -> str:
    """Return how long ago an ISO time was, or "-" if it cannot be parsed."""
    try:
        seconds = (now - datetime.fromisoformat(str(since))).total_seconds()
    except (ValueError, TypeError):
        return "-"
    return format_duration(seconds)


def format_duration(seconds: float) -> str:
    """Return a duration in its largest unit, such as `3 min`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
