"""The settings file of the interface: theme, layout, the last prompt with its settings, and the prompt history."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from softprompt.system.files import read_file, replace_file
from softprompt.system.paths import data_folder, make_folder

FILE = "interface.json"
DEFAULT_MODEL = "mini"
EXAMPLE_PROMPT = "image of serene landscape at sunrise with trees mountains and lake"
MAX_FILE_BYTES = 4 << 20
PAINT_SECONDS = 0.5 if os.environ.get("SSH_CONNECTION") else 0.25  # twice as long over SSH
MAX_PROMPTS, MAX_PROMPT_LENGTH = 200, 8000
BELLS = ("off", "bell", "osc9", "osc777")
# The bell character, because it arrives everywhere: tmux passes it on over SSH and marks the window, and whoever wants
# no sound has turned it off in the terminal. tmux drops OSC 9 and OSC 777 unless its `allow-passthrough` is on, which
# is not the default, and many terminals know only one of the two, or neither.
DEFAULT_BELL, DEFAULT_BELL_SECONDS = "bell", 30


class Form(NamedTuple):
    """The prompt in the editor and the fields below it, as typed."""

    prompt: str
    fields: dict[str, str]


@dataclass
class Settings:
    """All settings with their defaults. `train` holds the fields of the prompt pane as typed."""

    theme: str = "softprompt-dark"
    prompt: str = EXAMPLE_PROMPT
    train: dict[str, str] = field(
        default_factory=lambda: {
            "tokens": "3",
            "steps": "300",
            "stop_at": "",
            "model": DEFAULT_MODEL,
            "device": "auto",
            "contexts": "yes",
        }
    )
    more: dict[str, str] = field(default_factory=dict)
    pane: str = "library"
    sort: str = "created"
    compose: str = ""
    folder: str = ""  # the folder of the last import or export
    bell: str = DEFAULT_BELL  # how the terminal is told that a long run has ended: one of BELLS
    bell_seconds: int = DEFAULT_BELL_SECONDS  # a run that takes longer is long
    prompts: list[str] = field(default_factory=list)

    def add_to_history(self, prompt: str) -> None:
        """Move a prompt to the end of the history."""
        prompt = prompt.strip()
        if prompt and len(prompt) <= MAX_PROMPT_LENGTH:
            self.prompts = [*(other for other in self.prompts if other != prompt), prompt][-MAX_PROMPTS:]


def settings_path() -> Path:
    return data_folder() / FILE


def load() -> tuple[Settings, str]:
    """Load the settings. If the file cannot be read, rename it and use the defaults.

    Returns:
        The settings, and a notice for the user or "".
    """
    path = settings_path()
    try:
        values = json.loads(read_file(path, MAX_FILE_BYTES))
        return _parse_settings(values), ""
    except FileNotFoundError:
        return Settings(), ""
    except (OSError, ValueError, TypeError, RecursionError) as error:
        backup = path.with_name(f"{path.stem}-broken-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
        with suppress(OSError):
            path.rename(backup)
        return (
            Settings(),
            f"the settings could not be read: {error}. Using the defaults; the old file is now {backup.name}.",
        )


def save(settings: Settings) -> None:
    """Write the settings durably.

    Raises:
        OSError, HomeError: the settings cannot be written.
    """
    path = settings_path()
    make_folder(path.parent)
    replace_file(path, json.dumps(asdict(settings), indent=1).encode())


def _parse_settings(values: Any) -> Settings:
    """Check the stored values. Ignore unknown keys, which a newer version may have written.

    Raises:
        TypeError: a value has the wrong type.
    """
    if not isinstance(values, dict):
        raise TypeError("not a JSON object")
    checked, default = {}, Settings()
    for setting in fields(Settings):
        value = values.get(setting.name, getattr(default, setting.name))
        if type(value) is not type(getattr(default, setting.name)):
            raise TypeError(f"{setting.name} has the wrong type: {str(value)[:40]!r}")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if not all(isinstance(text, str) for text in inner):
            raise TypeError(f"{setting.name} contains a value that is not a string")
        checked[setting.name] = value
    if checked["bell"] not in BELLS:  # a newer version may know more
        checked["bell"] = DEFAULT_BELL
    checked["train"] = default.train | {key: text for key, text in checked["train"].items() if key in default.train}
    return Settings(**checked)
