"""Blocks of HTML for notebooks. Colours are inherited, so that they fit light and dark themes.

Every text is escaped, and its control characters are made visible. Nothing is loaded and nothing runs: no script, no
style sheet, no reference to another file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from softprompt.errors import shorten
from softprompt.prompts.downsample import downsample
from softprompt.prompts.visible_text import format_count, format_number, sanitize

MAX_TEXT_LENGTH, MAX_WORD_LENGTH = 400, 60  # characters of a prompt or note, and of a token, tag or name
MAX_READOUT_ROWS, MAX_ALTERNATIVES, MAX_TAGS, MAX_NOTES = 12, 4, 12, 4
MAX_CURVE_POINTS = 200
_WIDTH, _HEIGHT, _MARGIN = 360, 72, 4  # of the curve, in pixels
_LINE = "1px solid rgba(128,128,128,.35)"  # visible on white and on black
_FAINT = "opacity:.65"
_NUMBERS = "font-variant-numeric:tabular-nums"

Value = str | float | None


@dataclass(frozen=True)
class PromptBlock:
    """What a notebook shows of a soft prompt. Figures that are None are left out."""

    title: str
    text: str
    figures: Mapping[str, Value]
    readout: Sequence[tuple[str, float, Sequence[str]]]  # token, cosine, alternatives
    readout_text: str
    readout_similarity: float | None
    losses: Sequence[float]
    notes: Sequence[str] = ()
    tags: Sequence[str] = field(default=())


def show_block(block: PromptBlock) -> str:
    """Return a soft prompt as HTML: its name, hard prompt, figures, readout and loss curve."""
    tags = "".join(
        f'<span style="border:{_LINE};border-radius:8px;padding:0 6px;margin-left:6px;font-weight:normal">'
        f"{_text(tag, MAX_WORD_LENGTH)}</span>"
        for tag in block.tags[:MAX_TAGS]
    )
    parts = [
        f'<div style="font-weight:bold">{_text(block.title, MAX_WORD_LENGTH)}{tags}</div>',
        f'<div style="margin:2px 0 6px;overflow-wrap:anywhere">{_text(block.text)}</div>',
        _figures(block.figures),
    ]
    if block.readout:
        rows = [
            (token, cosine, ", ".join(shorten(word, MAX_WORD_LENGTH) for word in alternatives[:MAX_ALTERNATIVES]))
            for token, cosine, alternatives in block.readout[:MAX_READOUT_ROWS]
        ]
        parts.append(_table(("readout", "cosine", "next nearest"), rows))
        if (hidden := len(block.readout) - MAX_READOUT_ROWS) > 0:
            parts.append(_faint(f"and {format_count(hidden, 'more token')}"))
        if block.readout_similarity is not None:
            similarity = format_number(block.readout_similarity)
            parts.append(_faint(f"the readout as text, {shorten(block.readout_text, MAX_WORD_LENGTH)!r}: {similarity}"))
    parts.append(_curve(block.losses))
    parts += [_faint(note) for note in block.notes[:MAX_NOTES]]
    return _frame(parts)


def show_figures(title: str, figures: Mapping[str, Value]) -> str:
    """Return a title and figures as HTML."""
    return _frame([f'<div style="font-weight:bold">{_text(title, MAX_WORD_LENGTH)}</div>', _figures(figures)])


def show_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[Value]], note: str = "") -> str:
    """Return a title and a table as HTML."""
    heading = f'<div style="font-weight:bold;margin-bottom:4px">{_text(title)}</div>'
    rows = list(rows)
    return _frame([heading, _table(headers, rows) if rows else "", _faint(note) if note else ""])


def _frame(parts: Iterable[str]) -> str:
    style = (
        f"border:{_LINE};border-radius:6px;margin:4px 0;padding:8px 12px;max-width:44em;color:inherit;line-height:1.4"
    )
    return f'<div style="{style}">{"".join(parts)}</div>'


def _figures(figures: Mapping[str, Value]) -> str:
    shown = "".join(
        f'<span style="display:inline-block;margin-right:16px"><span style="{_FAINT}">{_text(name)}</span> '
        f'<span style="{_NUMBERS}">{_value(value)}</span></span>'
        for name, value in figures.items()
        if value is not None
    )
    return f"<div>{shown}</div>"


def _table(headers: Sequence[str], rows: Iterable[Sequence[Value]]) -> str:
    head = "".join(
        f'<th style="text-align:left;font-weight:normal;{_FAINT};padding:1px 12px 1px 0">{_text(header)}</th>'
        for header in headers
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:left;vertical-align:top;padding:1px 12px 1px 0;overflow-wrap:anywhere;{_NUMBERS}">'
            f"{_value(value)}</td>"
            for value in row
        )
        + "</tr>"
        for row in rows
    )
    style = "border-collapse:collapse;margin:6px 0 2px;color:inherit;font-size:inherit"
    return f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _curve(losses: Sequence[float]) -> str:
    """Return the loss curve as SVG, on a log scale, or "" if there are fewer than two losses to draw."""
    points = [(step, loss) for step, loss in enumerate(losses, 1) if loss > 0 and math.isfinite(loss)]
    if len(points) < 2:
        return ""
    drawn = [(step, math.log10(loss)) for step, loss in downsample(points, MAX_CURVE_POINTS)]
    low, high = min(loss for _, loss in drawn), max(loss for _, loss in drawn)
    first, last = drawn[0][0], drawn[-1][0]
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN

    def position(step: int, loss: float) -> str:
        x = _MARGIN + width * (step - first) / max(1, last - first)
        y = _MARGIN + height * ((high - loss) / (high - low) if high > low else 0.5)
        return f"{x:.1f},{y:.1f}"

    line = " ".join(position(*point) for point in drawn)
    label = f"loss {_format_loss(10**high)} to {_format_loss(10**low)}, {format_count(len(losses), 'step')}, log scale"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'style="display:block;max-width:100%;margin-top:6px;border-bottom:{_LINE};border-left:{_LINE}">'
        f"<title>{escape(label)}</title>"
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round"/>'
        f"</svg>{_faint(label)}"
    )


def _format_loss(loss: float) -> str:
    return f"{loss:.2g}"


def _faint(text: str) -> str:
    return f'<div style="{_FAINT};font-size:90%">{_text(text)}</div>'


def _value(value: Value) -> str:
    if isinstance(value, str):
        return _text(value, MAX_WORD_LENGTH * 2)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 1 << 64 else "?"
    return "" if value is None else format_number(value)


def _text(text: str, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Return untrusted text as HTML: cut, with visible control characters, escaped, and apart from other text."""
    return f"<bdi>{escape(sanitize(shorten(str(text), max_length)))}</bdi>"
