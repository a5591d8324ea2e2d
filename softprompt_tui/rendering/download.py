"""Describe a download (a bar, its bytes, rate and time left) and the stages of loading a model."""

from __future__ import annotations

from softprompt_tui.rendering.numbers import format_bytes, format_duration

LOADING = "loading the model"
PARTS = " ▏▎▍▌▋▊▉"  # eighths of a cell


def draw_bar(share: float, width: int) -> str:
    """Return a bar of `width` cells, with its two ends."""
    eighths = round(max(0.0, min(share, 1.0)) * (width - 2) * 8)
    full, part = divmod(eighths, 8)
    return f"▕{('█' * full + PARTS[part] * bool(part)).ljust(width - 2)}▏"


def format_share(share: float) -> str:
    """Return a share in percent. Only a complete download has 100 %."""
    return f"{int(share * 100)} %"


def format_progress(received: int, total: int, rate: float, seconds_left: float | None) -> str:
    """Return the figures of a download, such as `312 MB of 1.7 GB   45 MB/s   27 s left`."""
    if not total:
        return "asking the hub"
    figures = [f"{format_bytes(received)} of {format_bytes(total)}"]
    if received == total:
        return f"{figures[0]}   checking the file"
    if rate >= 1:
        figures.append(f"{format_bytes(rate)}/s")
    if seconds_left is not None:
        figures.append(f"{format_duration(seconds_left)} left")
    return "   ".join(figures)


def describe_stage(stage: str, received: int, of: int) -> str:
    """Return the current stage of loading a model, with the bytes of a download."""
    return f"{stage}: {format_bytes(received)} of {format_bytes(of)}" if of else stage
