"""The prompts that are measured with: those that come with the package, or a user's file. Needs no torch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.errors import PromptError

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder

MAX_FILE_BYTES = 4 << 20  # bytes
MIN_TOKENS = 8  # of a prompt, whatever k is


def shipped() -> list[str]:
    """Prompts of 16 tokens and more, 21 of them of 32 and more, in CLIP's count."""
    return _lines(files("softprompt.bench").joinpath("prompts.txt").read_text(encoding="utf-8"))


def tuning() -> list[str]:
    """Others, on which the peers' settings are chosen."""
    return _lines(files("softprompt.bench").joinpath("tuning.txt").read_text(encoding="utf-8"))


def from_file(path: Path) -> list[str]:
    """The lines of a text file, each once; empty ones and comments (#) are left out. Raises PromptError."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PromptError(
                f"{path} is larger than {MAX_FILE_BYTES >> 20} MB: give a text file with a prompt on each line"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path} cannot be read: {error}") from error
    found = _lines(text)
    if not found:
        raise PromptError(f"{path} holds no prompts: give a text file with a prompt on each line")
    return found


def suited(encoder: TextEncoder, texts: list[str], tokens: int, count: int) -> list[str]:
    """The first `count` that have at least twice as many tokens as `tokens`, for of shorter ones the words themselves are a good copy.

    [] where there is none.
    """
    least = least_tokens(tokens)
    return [text for text in texts if least <= len(encoder.tokenizer.encode(text)) <= encoder.max_prompt_tokens][:count]


def least_tokens(tokens: int) -> int:
    return max(MIN_TOKENS, 2 * tokens)


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
