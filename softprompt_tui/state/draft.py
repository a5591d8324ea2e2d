"""The draft: what is typed, kept on disk while one types, so that a kill or a crash loses a second of it at most."""

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
QUIET_SECONDS = 1.0  # without a key, before what is typed is written


class Draft:
    """One small file beside the settings. It is there while something is typed that the settings do not have."""

    def __init__(self) -> None:
        self._last = b""  # what this interface has read or written last
        self._writing = threading.Lock()

    @property
    def path(self) -> Path:
        return data_folder() / FILE

    def restore(self, settings: Settings) -> None:
        """Put a draft that was left behind into the settings; one that cannot be read is passed over."""
        self._last = _encode(settings.prompt, settings.train, settings.compose)
        with suppress(OSError, ValueError, TypeError, RecursionError, HomeError):
            data = read_file(self.path, MAX_BYTES)
            draft = json.loads(data)
            prompt, fields, composition = str(draft["prompt"]), dict(draft["train"]), str(draft["compose"])
            settings.prompt, settings.compose = prompt, composition
            settings.train |= {name: str(value) for name, value in fields.items() if name in settings.train}
            self._last = data

    def save(self, prompt: str, fields: dict[str, str], composition: str) -> None:
        """Write the draft if it has changed. Raises OSError, HomeError."""
        data = _encode(prompt, fields, composition)
        with self._writing:
            if data != self._last and len(data) <= MAX_BYTES:
                make_folder(self.path.parent)
                replace_file(self.path, data)
                self._last = data

    def discard(self) -> None:
        """Remove the draft, since the settings have it; another interface's draft stays."""
        with self._writing, suppress(OSError, HomeError):
            if read_file(self.path, MAX_BYTES) == self._last:
                self.path.unlink()


def _encode(prompt: str, fields: dict[str, str], composition: str) -> bytes:
    return json.dumps({"prompt": prompt, "train": fields, "compose": composition}).encode()
