"""Fit text into cells of the terminal."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size


def fit_cell(text: str, width: int, right: bool = False, cut_middle: bool = False) -> str:
    """Pad a text to a width in cells, or cut it with an ellipsis."""
    length = cell_len(text)
    if length > width:
        if cut_middle and width > 4:
            return f"{set_cell_size(text, width - 1 - width // 3)}…{_last_cells(text, width // 3)}"
        return set_cell_size(text, max(0, width - 1)) + "…" if width else ""
    return " " * (width - length) + text if right else text + " " * (width - length)


def _last_cells(text: str, width: int) -> str:
    """Return the end of a text, exactly `width` cells wide."""
    end = ""
    for char in reversed(text):
        if cell_len(char + end) > width:
            break
        end = char + end
    return " " * (width - cell_len(end)) + end
