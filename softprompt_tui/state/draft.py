"""The draft: a copy of the typed text on disk. A crash loses at most one second of typing."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path

from softprompt.errors import HomeError
from softprompt.system.files import read_file, replace_file
from softprompt.system.paths import data_folder, make_folder
from softprompt_tui.state.settings import Settings

FILE = "draft.json"
MAX_BYTES = 4 << 20
QUIET_SECONDS = 1.0  # pause in typing before the draft is written


class Draft:
    """A small file next to the settings. It exists while some typed text is not in the settings yet."""

    def __init__(self) -> None:
        self._last = b""  # the bytes last read or written by this interface
        self._write_lock = threading.Lock()

    @property
    def path(self) -> Path:
        return data_folder() / FILE

    def restore(self, settings: Settings) -> None:
        """Copy a leftover draft into the settings. Ignore a draft that cannot be read."""
        self._last = _encode(settings.prompt, settings.train, settings.compose)
        with suppress(OSError, ValueError, TypeError, RecursionError, HomeError):
            data = read_file(self.path, MAX_BYTES)
            draft = json.loads(data)
            prompt, fields, composition = str(draft["prompt"]), dict(draft["train"]), str(draft["compose"])
            settings.prompt, settings.compose = prompt, composition
            settings.train |= {name: str(value) for name, value in fields.items() if name in settings.train}
            self._last = data

    def save(self, prompt: str, fields: dict[str, str], composition: str) -> None:
        """Write the draft if it has changed.

        Raises:
            OSError, HomeError: the draft cannot be written.
        """
        data = _encode(prompt, fields, composition)
        with self._write_lock:
            if data != self._last and len(data) <= MAX_BYTES:
                make_folder(self.path.parent)
                replace_file(self.path, data)
                self._last = data

    def discard(self) -> None:
        """Remove the draft once its text is in the settings. Leave another interface's draft alone."""
        with self._write_lock, suppress(OSError, HomeError):
            if read_file(self.path, MAX_BYTES) == self._last:
                self.path.unlink()


def _encode(prompt: str, fields: dict[str, str], composition: str) -> bytes:
    return json.dumps({"prompt": prompt, "train": fields, "compose": composition}).encode()
