"""The safety net behind `sanitize`: a filter for every line just before it goes to the terminal."""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from softprompt_tui.rendering.sanitize import strip_control_chars


class OutputFilter(LineFilter):
    """Removes control characters. They have no width, so line lengths do not change."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002
        return [
            segment
            if segment.text.isprintable()
            else Segment(strip_control_chars(segment.text), segment.style, segment.control)
            for segment in segments
        ]
