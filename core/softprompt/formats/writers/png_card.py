"""Draw the picture card of a soft prompt: its readout, metrics and loss curve. Needs Pillow, not torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from softprompt.prompts.downsample import downsample
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.prompts.visible_text import format_number

WIDTH, HEIGHT, MARGIN, SCALE = 512, 768, 36, 2  # drawn at twice the size and scaled down, for smooth lines
BACKGROUND, PANEL, GRID = "#0f1117", "#151922", "#262c3a"
BRIGHT, TEXT, DIM, CURVE = "#f4f6fb", "#c9d1e0", "#7d8799", "#5cd6ff"
TOKEN_COLORS = ("#ffb86b", "#ff8fa3", "#c792ea", "#82aaff", "#5cd6ff", "#7fe3b0", "#e6e26a")
MISSING_GLYPH = "\U0010fffe"  # no font has this character, so every font draws its missing glyph
# the first is Pillow's own font, the same on every system; the rest cover more characters but may not be installed
FONTS = ("", "DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "NotoSansCJK-Regular.ttc", "ArialUnicode.ttf")
MAX_TEXT_LENGTH = 600  # characters; longer text is truncated


def draw_card(prompt: SoftPrompt) -> Image.Image:
    """Draw the card, 512 x 768 pixels. Characters that no installed font has appear as the missing glyph."""
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), BACKGROUND)
    pen = _Pen(image)
    y = pen.text(MARGIN, MARGIN, prompt.name or "soft prompt", 30, BRIGHT, lines=1)
    y = pen.text(
        MARGIN, y + 6, prompt.hard_prompt or "hard prompt unknown", 16, TEXT if prompt.hard_prompt else DIM, lines=4
    )
    y = _draw_readout(pen, prompt, max(y + 20, 168), 430)
    _draw_metrics(pen, prompt, 446)
    _draw_loss(pen, prompt, 536, HEIGHT - MARGIN - 34)
    pen.text(
        MARGIN,
        HEIGHT - MARGIN - 10,
        " · ".join(filter(None, (prompt.model, prompt.created[:10], "softprompt-tui"))),
        12,
        DIM,
        lines=1,
    )
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


class _Pen:
    """A pen that uses the coordinates of the finished card."""

    def __init__(self, image: Image.Image) -> None:
        self._draw = ImageDraw.Draw(image)

    def text(
        self, x: float, y: float, text: str, size: float, fill: str, lines: int, right: float = WIDTH - MARGIN
    ) -> float:
        """Draw text on at most `lines` lines, truncated if it is longer. Return the y coordinate below it."""
        printable, font = _choose_font(text, size)
        for line in _wrap_text(printable, font, (right - x) * SCALE, lines):
            self._draw.text((x * SCALE, y * SCALE), line, fill, font)
            y += size * 1.3
        return y

    def width(self, text: str, size: float) -> float:
        printable, font = _choose_font(text, size)
        return font.getlength(printable) / SCALE

    def line(self, points: Sequence[tuple[float, float]], fill: str, width: float) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, fill, round(width * SCALE), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, fill: str) -> None:
        self._draw.rounded_rectangle((left * SCALE, top * SCALE, right * SCALE, bottom * SCALE), 10 * SCALE, fill)


def _draw_readout(pen: _Pen, prompt: SoftPrompt, top: float, bottom: float) -> float:
    """Draw the nearest tokens, wrapped and as large as fits. Return the y coordinate below them."""
    words = [nearest.token.strip() or "·" for nearest in prompt.readout] or [f"{prompt.tokens} soft tokens"]
    right, rows = WIDTH - MARGIN, [[""]]
    size = 64.0
    while size > 11:
        rows = _wrap_words(pen, words, size, right - MARGIN)
        if len(rows) * size * 1.25 <= bottom - top and all(pen.width(word, size) <= right - MARGIN for word in words):
            break
        size *= 0.92
    y, i = top + max(0.0, bottom - top - len(rows) * size * 1.25) * 0.3, 0
    for row in rows[: max(1, int((bottom - top) / (size * 1.25)))]:
        x = float(MARGIN)
        for word in row:
            pen.text(x, y, word, size, TOKEN_COLORS[i % len(TOKEN_COLORS)], lines=1)
            x += pen.width(word, size) + size * 0.35
            i += 1
        y += size * 1.25
    return y


def _wrap_words(pen: _Pen, words: Sequence[str], size: float, width: float) -> list[list[str]]:
    rows: list[list[str]] = [[]]
    x = 0.0
    for word in words:
        word_width = pen.width(word, size)
        if rows[-1] and x + word_width > width:
            rows.append([])
            x = 0.0
        rows[-1].append(word)
        x += word_width + size * 0.35
    return rows


def _draw_metrics(pen: _Pen, prompt: SoftPrompt, top: float) -> None:
    metrics = (
        (str(prompt.tokens), "soft token" if prompt.tokens == 1 else "soft tokens"),
        (_format_metric(prompt.similarity), "similarity"),
        (_format_metric(prompt.composition.mean if prompt.composition else None), "composed"),
        (_format_metric(prompt.readout_similarity), "typed as text"),
    )
    for i, (value, label) in enumerate(metrics):
        x = MARGIN + i * (WIDTH - 2 * MARGIN) / len(metrics)
        pen.text(x, top, value, 26, BRIGHT if value != "-" else DIM, lines=1)
        pen.text(x, top + 36, label, 13, DIM, lines=1)


def _format_metric(value: float | None) -> str:
    return "-" if value is None else format_number(value)


def _draw_loss(pen: _Pen, prompt: SoftPrompt, top: float, bottom: float) -> None:
    """Draw the loss on a log axis, with a grid line for every power of ten."""
    pen.box(MARGIN - 12, top - 12, WIDTH - MARGIN + 12, bottom + 12, PANEL)
    losses = [(i + 1, float(loss)) for i, loss in enumerate(prompt.losses)]
    points = downsample([point for point in losses if point[1] > 0 and math.isfinite(point[1])], 400)
    if len(points) < 2:
        pen.text(MARGIN, (top + bottom) / 2 - 10, "no loss recorded", 14, DIM, lines=1)
        return
    low = math.floor(math.log10(min(loss for _, loss in points)))
    high = max(math.ceil(math.log10(max(loss for _, loss in points))), low + 1)
    left, right, first, last = MARGIN + 46, WIDTH - MARGIN, points[0][0], points[-1][0]

    def y(power: float) -> float:
        return bottom - 8 - (power - low) / (high - low) * (bottom - top - 16)

    for power in range(low, high + 1, max(1, (high - low) // 5)):
        pen.line([(left, y(power)), (right, y(power))], GRID, 1)
        pen.text(MARGIN - 4, y(power) - 8, f"{10.0**power:g}", 12, DIM, lines=1)
    scale = (right - left) / max(1, last - first)
    pen.line([(left + (step - first) * scale, y(math.log10(loss))) for step, loss in points], CURVE, 2)
    label = f"loss, {last:,} steps"
    pen.text(right - pen.width(label, 12), top + 14, label, 12, DIM, lines=1)


def _wrap_text(text: str, font: ImageFont.FreeTypeFont, width: float, max_lines: int) -> list[str]:
    """Wrap text to `width`, between words if possible. Ends the last line with "…" if the text is truncated."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < max_lines:
        count = len(rest)
        while count > 1 and font.getlength(rest[:count]) > width:
            count = max(1, min(count - 1, int(count * width / font.getlength(rest[:count])) + 1))
        space = rest.rfind(" ", 1, count + 1) if count < len(rest) else -1
        cut = space if space > 0 else count
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    if rest and lines:
        last = lines[-1]
        while last and font.getlength(f"{last}…") > width:
            last = last[:-1]
        lines[-1] = f"{last}…"
    return lines


def _choose_font(text: str, size: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return the text with unprintable characters replaced, and the first font with all or else most of its glyphs."""
    printable = "".join(char if char.isprintable() else MISSING_GLYPH for char in text[:MAX_TEXT_LENGTH])
    best, fewest = _load_font("", size), len(printable) + 1
    for name in FONTS:
        font = _load_font(name, size)
        if font is None:
            continue
        missing = sum(not _has_glyph(name, char) for char in set(printable) - {MISSING_GLYPH})
        if missing < fewest:
            best, fewest = font, missing
        if not missing:
            break
    assert best is not None  # Pillow's own font always exists
    return printable, best


@lru_cache(maxsize=256)
def _load_font(name: str, size: float) -> ImageFont.FreeTypeFont | None:
    if not name:
        default = ImageFont.load_default(size * SCALE)
        return default if isinstance(default, ImageFont.FreeTypeFont) else None
    try:
        return ImageFont.truetype(name, size * SCALE)
    except OSError:  # not installed
        return None


@lru_cache(maxsize=4096)
def _has_glyph(name: str, char: str) -> bool:
    font = _load_font(name, 20)
    return font is not None and (char == " " or bytes(font.getmask(char)) != bytes(font.getmask(MISSING_GLYPH)))
