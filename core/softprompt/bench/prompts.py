"""The benchmark's prompts: from the package or from a user's file. Needs no torch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.errors import PromptError

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder

MAX_FILE_BYTES = 4 << 20
MIN_PROMPT_TOKENS = 8  # for any k


def shipped_prompts() -> list[str]:
    """Return the package's prompts. All have at least 16 CLIP tokens, and 21 have at least 32."""
    return _lines(files("softprompt.bench").joinpath("prompts.txt").read_text(encoding="utf-8"))


def tuning_prompts() -> list[str]:
    """Return the prompts that are used only to tune the peers' settings."""
    return _lines(files("softprompt.bench").joinpath("tuning.txt").read_text(encoding="utf-8"))


def read_prompts(path: Path) -> list[str]:
    """Return the distinct lines of a text file, without empty lines and comments (#). Raises PromptError."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PromptError(
                f"{path} is larger than {MAX_FILE_BYTES >> 20} MB; that is too large for a list of prompts. "
                "Use a smaller text file with one prompt per line."
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"cannot read {path}: {error}") from error
    prompts = _lines(text)
    if not prompts:
        raise PromptError(f"{path} contains no prompts. Use a text file with one prompt per line.")
    return prompts


def select_prompts(encoder: TextEncoder, texts: list[str], tokens: int, count: int) -> list[str]:
    """Return the first `count` prompts that have at least `2 * tokens` tokens and fit the context length.

    For shorter prompts, simply copying their first words already scores well.
    """
    min_tokens = min_prompt_tokens(tokens)
    return [text for text in texts if min_tokens <= len(encoder.tokenizer.encode(text)) <= encoder.max_prompt_tokens][
        :count
    ]


def min_prompt_tokens(tokens: int) -> int:
    return max(MIN_PROMPT_TOKENS, 2 * tokens)


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
