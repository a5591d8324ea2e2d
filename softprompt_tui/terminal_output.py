"""Send the terminal only what it does not show yet. Textual repaints whole panes, and whole screens as they open."""

from __future__ import annotations

import re
from typing import NamedTuple

from rich.cells import cell_len

# what a frame consists of: a cursor position, text in one style, a line feed before the next position
_TOKEN = re.compile(
    r"\x1b\[(?P<row>\d+);(?P<column>\d+)H|(?P<piece>\x1b\[[\d;]*m(?P<text>[^\x1b\n]*)\x1b\[0m|[^\x1b\n]+)|\n"
)
# what changes no cell: the marks around a frame, the question for a mode, a title, the clipboard, a notice, the bell
_PASSIVE = re.compile(r"\x1b\[\?2026(?:[hl]|\$p)|\x1b\][^\x1b\x07]*(?:\x07|\x1b\\)|\x07")


class _Piece(NamedTuple):
    raw: str  # the text, with the escape sequences of its style
    width: int  # in cells; -1 if terminals may disagree


class _Part(NamedTuple):
    """Consecutive pieces in a row."""

    row: int
    column: int
    pieces: list[_Piece]


class FrameDiff:
    """Leaves out of each frame the pieces that the terminal already shows in the same place and style.

    What is not a frame passes unchanged, and after it, nothing is known of what the terminal shows.
    """

    def __init__(self) -> None:
        self._rows: dict[int, dict[int, _Piece]] = {}  # what the terminal shows, by row and column

    def forget(self) -> None:
        """Send the next frame whole, because the terminal may show something else."""
        self._rows.clear()

    def reduce(self, data: str) -> str:
        """Return what is left to write of `data`."""
        if _PASSIVE.fullmatch(data):
            return data
        parts = _split_frame(data)
        if not parts:
            self.forget()
            return data
        # the last part is the position of the cursor, which a frame always sets
        *parts, last = parts
        return "".join([*map(self._reduce_part, parts), _move(last.row, last.column), *(raw for raw, _ in last.pieces)])

    def _reduce_part(self, part: _Part) -> str:
        if any(piece.width < 0 for piece in part.pieces):
            self._rows.pop(part.row, None)
            return _move(part.row, part.column) + "".join(piece.raw for piece in part.pieces)
        shown = self._rows.setdefault(part.row, {})
        output, unchanged, column = list[str](), "", part.column
        is_in_place = False  # whether the terminal's cursor is where the unchanged pieces begin
        for piece in part.pieces:
            if shown.get(column) == piece:
                unchanged += piece.raw
            else:
                move = _move(part.row, column)
                output.append(unchanged if is_in_place and len(unchanged) <= len(move) else move)
                output.append(piece.raw)
                unchanged, is_in_place = "", True
                _replace(shown, column, piece)
            column += piece.width
        return "".join(output)


def _replace(shown: dict[int, _Piece], column: int, piece: _Piece) -> None:
    """Put a piece into a row, instead of all pieces that it covers in part."""
    end = column + piece.width
    for start in [start for start, old in shown.items() if start < end and start + old.width > column]:
        del shown[start]
    shown[column] = piece


def _move(row: int, column: int) -> str:
    return f"\x1b[{row};{column}H"


def _split_frame(data: str) -> list[_Part]:
    """Return the parts of a frame, or nothing if `data` is something else."""
    parts, length, is_placed = list[_Part](), 0, False
    for token in _TOKEN.finditer(data):
        length += len(token[0])
        if token["row"]:
            parts.append(_Part(int(token["row"]), int(token["column"]), []))
            is_placed = True
        elif not token["piece"]:
            is_placed = False
        elif is_placed:
            text = token["text"] if token["text"] is not None else token["piece"]
            is_certain = text.isascii() or _is_one_cell_each(text)
            parts[-1].pieces.append(_Piece(token["piece"], len(text) if is_certain else -1))
        else:
            return []
    return parts if length == len(data) else []


def _is_one_cell_each(text: str) -> bool:
    """Return whether every character takes one cell. Terminals differ in how wide they draw others, such as emoji."""
    return cell_len(text) == len(text) and all(cell_len(char) == 1 for char in set(text))
