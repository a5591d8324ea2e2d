"""The picture card of a soft prompt: its readout, how near it came, and the falling loss. Needs Pillow, not torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from softprompt.prompts.downsample import downsample
from softprompt.prompts.soft_prompt import SoftPrompt

WIDTH, HEIGHT, MARGIN, SCALE = 512, 768, 36, 2  # drawn twice as large and made smaller: smoother lines
BACK, PANEL, GRID = "#0f1117", "#151922", "#262c3a"
BRIGHT, TEXT, DIM, CURVE = "#f4f6fb", "#c9d1e0", "#7d8799", "#5cd6ff"
TOKENS = ("#ffb86b", "#ff8fa3", "#c792ea", "#82aaff", "#5cd6ff", "#7fe3b0", "#e6e26a")
MISSING = "\U0010fffe"  # stands nowhere, so a font draws its sign for a letter that it has not
# the first is Pillow's own, the same everywhere; the others have more letters, where the system has them
FONTS = ("", "DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "NotoSansCJK-Regular.ttc", "ArialUnicode.ttf")
MAX_TEXT_LENGTH = 600  # characters of a text that are looked at


def draw(prompt: SoftPrompt) -> Image.Image:
    """The card, 512 x 768. Whatever stands in the texts is drawn as letters; what no font here has becomes its missing sign."""
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), BACK)
    pen = _Pen(image)
    y = pen.text(MARGIN, MARGIN, prompt.name or "soft prompt", 30, BRIGHT, lines=1)
    y = pen.text(
        MARGIN, y + 6, prompt.hard_prompt or "hard prompt not known", 16, TEXT if prompt.hard_prompt else DIM, lines=4
    )
    y = _readout(pen, prompt, max(y + 20, 168), 430)
    _figures(pen, prompt, 446)
    _curve(pen, prompt, 536, HEIGHT - MARGIN - 34)
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
    """Draws in points of the finished card."""

    def __init__(self, image: Image.Image) -> None:
        self._draw = ImageDraw.Draw(image)

    def text(
        self, x: float, y: float, text: str, size: float, fill: str, lines: int, right: float = WIDTH - MARGIN
    ) -> float:
        """Text in at most `lines` lines, cut where it is longer; returns where the next may begin."""
        shown, font = _drawable(text, size)
        for line in _wrapped(shown, font, (right - x) * SCALE, lines):
            self._draw.text((x * SCALE, y * SCALE), line, fill, font)
            y += size * 1.3
        return y

    def width(self, text: str, size: float) -> float:
        shown, font = _drawable(text, size)
        return font.getlength(shown) / SCALE

    def line(self, points: Sequence[tuple[float, float]], fill: str, width: float) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, fill, round(width * SCALE), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, fill: str) -> None:
        self._draw.rounded_rectangle((left * SCALE, top * SCALE, right * SCALE, bottom * SCALE), 10 * SCALE, fill)


def _readout(pen: _Pen, prompt: SoftPrompt, top: float, bottom: float) -> float:
    """The nearest words, as large as they fit, one after the other in lines."""
    words = [read.token.strip() or "·" for read in prompt.readout] or [f"{prompt.tokens} soft tokens"]
    right, rows = WIDTH - MARGIN, [[""]]
    size = 64.0
    while size > 11:
        rows = _rows(pen, words, size, right - MARGIN)
        if len(rows) * size * 1.25 <= bottom - top and all(pen.width(word, size) <= right - MARGIN for word in words):
            break
        size *= 0.92
    y, i = top + max(0.0, bottom - top - len(rows) * size * 1.25) * 0.3, 0
    for row in rows[: max(1, int((bottom - top) / (size * 1.25)))]:
        x = float(MARGIN)
        for word in row:
            pen.text(x, y, word, size, TOKENS[i % len(TOKENS)], lines=1)
            x += pen.width(word, size) + size * 0.35
            i += 1
        y += size * 1.25
    return y


def _rows(pen: _Pen, words: Sequence[str], size: float, width: float) -> list[list[str]]:
    rows: list[list[str]] = [[]]
    x = 0.0
    for word in words:
        wide = pen.width(word, size)
        if rows[-1] and x + wide > width:
            rows.append([])
            x = 0.0
        rows[-1].append(word)
        x += wide + size * 0.35
    return rows


def _figures(pen: _Pen, prompt: SoftPrompt, top: float) -> None:
    figures = (
        (str(prompt.tokens), "soft token" if prompt.tokens == 1 else "soft tokens"),
        (_figure(prompt.similarity), "similarity"),
        (_figure(prompt.composition.mean if prompt.composition else None), "composed"),
        (_figure(prompt.readout_similarity), "typed as text"),
    )
    for i, (value, label) in enumerate(figures):
        x = MARGIN + i * (WIDTH - 2 * MARGIN) / len(figures)
        pen.text(x, top, value, 26, BRIGHT if value != "-" else DIM, lines=1)
        pen.text(x, top + 36, label, 13, DIM, lines=1)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _curve(pen: _Pen, prompt: SoftPrompt, top: float, bottom: float) -> None:
    """The loss on a log axis, with a line for every power of ten."""
    pen.box(MARGIN - 12, top - 12, WIDTH - MARGIN + 12, bottom + 12, PANEL)
    losses = [(i + 1, float(loss)) for i, loss in enumerate(prompt.losses)]
    points = downsample([point for point in losses if point[1] > 0 and math.isfinite(point[1])], 400)
    if len(points) < 2:
        pen.text(MARGIN, (top + bottom) / 2 - 10, "no loss was recorded", 14, DIM, lines=1)
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


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float, most: int) -> list[str]:
    """Lines no wider than `width`, broken between words, or within one that is too long; the last one says if there is more."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < most:
        fits = len(rest)
        while fits > 1 and font.getlength(rest[:fits]) > width:
            fits = max(1, min(fits - 1, int(fits * width / font.getlength(rest[:fits])) + 1))
        space = rest.rfind(" ", 1, fits + 1) if fits < len(rest) else -1
        cut = space if space > 0 else fits
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    if rest and lines:
        last = lines[-1]
        while last and font.getlength(f"{last}…") > width:
            last = last[:-1]
        lines[-1] = f"{last}…"
    return lines


def _drawable(text: str, size: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """(the text with only such characters as print, the first font that has them all, or else most)."""
    shown = "".join(char if char.isprintable() else MISSING for char in text[:MAX_TEXT_LENGTH])
    best, fewest = _font("", size), len(shown) + 1
    for name in FONTS:
        font = _font(name, size)
        if font is None:
            continue
        missing = sum(not _has(name, char) for char in set(shown) - {MISSING})
        if missing < fewest:
            best, fewest = font, missing
        if not missing:
            break
    assert best is not None  # Pillow's own is always there
    return shown, best


@lru_cache(maxsize=256)
def _font(name: str, size: float) -> ImageFont.FreeTypeFont | None:
    if not name:
        own = ImageFont.load_default(size * SCALE)
        return own if isinstance(own, ImageFont.FreeTypeFont) else None
    try:
        return ImageFont.truetype(name, size * SCALE)
    except OSError:  # this system has not got it
        return None


@lru_cache(maxsize=4096)
def _has(name: str, char: str) -> bool:
    font = _font(name, 20)
    return font is not None and (char == " " or bytes(font.getmask(char)) != bytes(font.getmask(MISSING)))
