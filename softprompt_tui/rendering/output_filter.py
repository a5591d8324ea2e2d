"""The last look at every line before it goes to the terminal: nothing in it may steer one. Widgets make text inert before; this is the net."""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from softprompt_tui.rendering.sanitize import without_steering


class OutputFilter(LineFilter):
    """Drops what steers; such characters have no width, so that no line grows or shrinks."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002
        return [
            segment
            if segment.text.isprintable()
            else Segment(without_steering(segment.text), segment.style, segment.control)
            for segment in segments
        ]
