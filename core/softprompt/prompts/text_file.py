"""Read a text file that the user chose, line by line: questions or examples."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from softprompt.errors import FileRefused, describe_error, shorten
from softprompt.system.files import read_chosen_file
from softprompt.system.paths import expand_path

MAX_PATH_SHOWN = 300  # characters of a path in a message


@dataclass(frozen=True)
class TextFile:
    """A file of UTF-8 text.

    Attributes:
        shown: its path, for messages.
    """

    path: Path
    shown: str
    raw: bytes
    text: str

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield the number (from 1) and the stripped text of every line that is not blank, one at a time."""
        for number, line in enumerate(io.StringIO(self.text, newline=None), 1):
            if stripped := line.strip():
                yield number, stripped


def read_text_file(path: Path | str, max_bytes: int, advice: str) -> TextFile:
    """Read a file of UTF-8 text, with or without a byte order mark.

    Args:
        advice: what to do if it cannot be read.

    Raises:
        FileRefused: the file cannot be read, is not UTF-8, or is too large.
    """
    path = expand_path(path)
    shown = shorten(str(path), MAX_PATH_SHOWN)
    try:
        raw = read_chosen_file(path, max_bytes)
        return TextFile(path, shown, raw, raw.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        raise FileRefused(f"{shown} is not UTF-8: byte {error.start + 1:,} is invalid. Save it as UTF-8.") from error
    except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
        reason = error.strerror if isinstance(error, OSError) and error.strerror else describe_error(error)
        raise FileRefused(f"cannot read {shown}: {reason}. {advice}") from error
