"""What the interface remembers: theme, layout, the last prompt and its settings, and the prompts before."""

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
USUAL_MODEL = "mini"
EXAMPLE = "image of serene landscape at sunrise with trees mountains and lake"
MAX_FILE_BYTES = 4 << 20  # bytes
PAINT_EVERY = 0.5 if os.environ.get("SSH_CONNECTION") else 0.25  # seconds; twice as long over SSH
MAX_PROMPTS, MAX_PROMPT_LENGTH = 200, 8000


class Form(NamedTuple):
    """The prompt in the editor and the fields beside it, as they are typed."""

    prompt: str
    fields: dict[str, str]


@dataclass
class Settings:
    """Everything with its default; `train` are the fields of the prompt pane as they are typed."""

    theme: str = "softprompt-dark"
    prompt: str = EXAMPLE
    train: dict[str, str] = field(
        default_factory=lambda: {
            "tokens": "3",
            "steps": "300",
            "stop_at": "",
            "model": USUAL_MODEL,
            "device": "auto",
            "contexts": "yes",
        }
    )
    more: dict[str, str] = field(default_factory=dict)
    pane: str = "library"
    sort: str = "created"
    compose: str = ""
    folder: str = ""  # where files were imported from or exported to last
    prompts: list[str] = field(default_factory=list)

    def remember(self, prompt: str) -> None:
        """Puts a prompt at the end of the history, once."""
        prompt = prompt.strip()
        if prompt and len(prompt) <= MAX_PROMPT_LENGTH:
            self.prompts = [*(one for one in self.prompts if one != prompt), prompt][-MAX_PROMPTS:]


def settings_path() -> Path:
    return data_folder() / FILE


def load() -> tuple[Settings, str]:
    """(the settings, a notice or ""). A file that cannot be read is kept under another name, and the defaults hold."""
    path = settings_path()
    try:
        values = json.loads(read_file(path, MAX_FILE_BYTES))
        return _checked(values), ""
    except FileNotFoundError:
        return Settings(), ""
    except (OSError, ValueError, TypeError, RecursionError) as error:
        kept = path.with_name(f"{path.stem}-broken-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
        with suppress(OSError):
            path.rename(kept)
        return (
            Settings(),
            f"the settings could not be read ({error}); the defaults hold, and the file is kept as {kept.name}",
        )


def save(settings: Settings) -> None:
    """Writes the settings durably; raises OSError, HomeError."""
    path = settings_path()
    make_folder(path.parent)
    replace_file(path, json.dumps(asdict(settings), indent=1).encode())


def _checked(values: Any) -> Settings:
    """Raises ValueError or TypeError for values of another kind; unknown ones are passed over: a newer version wrote them."""
    if not isinstance(values, dict):
        raise TypeError("no object")
    made, default = {}, Settings()
    for one in fields(Settings):
        value = values.get(one.name, getattr(default, one.name))
        if type(value) is not type(getattr(default, one.name)):
            raise TypeError(f"{one.name} is {str(value)[:40]!r}")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if not all(isinstance(text, str) for text in inner):
            raise TypeError(f"{one.name} holds something else than texts")
        made[one.name] = value
    made["train"] = default.train | {key: text for key, text in made["train"].items() if key in default.train}
    return Settings(**made)
