"""What every family of frozen models has in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from softprompt.errors import PromptError

Row = Sequence[int]


@dataclass(frozen=True)
class Specials:
    """What stands around a prompt in the context: start and end tokens, and the padding after them."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int = 0


class PromptTokenizer(Protocol):
    """What a text encoder asks of its tokenizer; ids never include the start, end and padding tokens.

    `reserved_ids` are the special tokens that stand around a text, so that no text may spell them. The unknown token,
    which is special too, is none of them: it stands for a character outside the vocabulary. The length is one more than
    the highest id that is not reserved.
    """

    special_ids: frozenset[int]
    reserved_ids: frozenset[int]

    def __len__(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def piece(self, token: int) -> str: ...


def encode_prompt(tokenizer: PromptTokenizer, text: str) -> list[int]:
    """Token ids of a text that a person typed.

    Raises:
        PromptError: the text spells a special token. Most models pool at the first end token, so the words after it
            would be trained on, shown and never read.
    """
    ids = tokenizer.encode(text)
    reserved = next((i for i in ids if i in tokenizer.reserved_ids), None)
    if reserved is not None:
        raise PromptError(
            f"the text has {tokenizer.piece(reserved)}, a special token of the model: what stands after an end token is not "
            "read. Leave it out"
        )
    return ids


def readable(piece: str) -> bool:
    """Whether a token's text can be shown and typed: not empty, no part of a character, no control character."""
    return bool(piece.strip()) and piece.isprintable() and "\ufffd" not in piece
