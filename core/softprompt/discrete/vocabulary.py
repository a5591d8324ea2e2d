"""Which tokens survive being typed: put down as text and tokenised again, they are the same tokens.

A token qualifies that is itself when typed alone. Of CLIP's 49,408 these are the 34,253 at which a word ends; pieces from inside a word
merge with their neighbours in ways that only the whole text decides, and allowing them gained nothing (tests/benchmarks/README.md).
Tokens that qualify can still merge with one another, so every text that is accepted is tokenised again as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from softprompt.config import HardConfig, Words
from softprompt.encoders.base import PromptTokenizer, readable
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError

MIN_WORD_LENGTH = 2  # letters of a dictionary word; single ones are `a`, `i`, and the alphabet

# made once per encoder: trying 49,408 tokens takes 0.8 s, and decoding those that are left again 0.2 s for every readout
_typeable: WeakKeyDictionary[TextEncoder, dict[int, str]] = WeakKeyDictionary()


def typed(tokenizer: PromptTokenizer, ids: Sequence[int]) -> str:
    """The text that a person would paste for these tokens."""
    return tokenizer.decode(ids).strip()


def typeable(encoder: TextEncoder) -> dict[int, str]:
    """The readable tokens that are themselves when typed alone: ids, and what is typed for them."""
    if encoder not in _typeable:
        tokenizer = encoder.tokenizer
        ids = [i for i in encoder.ordinary_ids.tolist() if readable(tokenizer.piece(i))]
        if encoder.config.pooling == "argmax":  # a higher id than the end token's would be read in its place
            ids = [i for i in ids if i < max(encoder.specials.end)]
        texts = {i: typed(tokenizer, [i]) for i in ids}
        _typeable[encoder] = {i: text for i, text in texts.items() if tokenizer.encode(text) == [i]}
    return _typeable[encoder]


def is_word(piece: str) -> bool:
    """Whether a token is a word of letters, of any script: at least two, or a letter that is a word by itself in English."""
    return piece.isalpha() and (len(piece) >= MIN_WORD_LENGTH or piece in ("a", "i"))


class TypeableVocabulary:
    """What may stand in a hard readout: tokens `ids` (m,) on the encoder's device, and texts of them that `survive`."""

    def __init__(self, encoder: TextEncoder, words: Words = "any", block: Sequence[str] = ()) -> None:
        self.tokenizer = encoder.tokenizer
        self.words = words
        self.block = tuple(filter(None, (" ".join(text.split()).casefold() for text in block)))
        ids = [i for i, text in typeable(encoder).items() if self._allowed(text)]
        if not ids:
            raise ConfigError("no token is left for a hard readout: block fewer texts, or allow other words")
        self.ids = torch.tensor(ids, device=encoder.device)
        self._known = frozenset(ids)

    @classmethod
    def of(cls, encoder: TextEncoder, config: HardConfig) -> TypeableVocabulary:
        """As `config` says. Raises ConfigError where it leaves no token."""
        return cls(encoder, config.words, config.block)

    def __contains__(self, token: object) -> bool:
        return token in self._known

    def text(self, ids: Sequence[int] | Tensor) -> str:
        return typed(self.tokenizer, ids.tolist() if isinstance(ids, Tensor) else ids)

    def survives(self, ids: Sequence[int] | Tensor) -> bool:
        """Whether the tokens, typed, are tokenised into themselves, and their text is allowed."""
        row = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        text = self.text(row)
        return (
            self.tokenizer.encode(text) == row
            and self._free_of_blocked(text)
            and (self.words == "any" or text.isascii())
        )

    def _allowed(self, piece: str) -> bool:
        if self.words == "dictionary" and not (piece.isascii() and is_word(piece)):
            return False
        return (self.words == "any" or piece.isascii()) and self._free_of_blocked(piece)

    def _free_of_blocked(self, text: str) -> bool:
        if not self.block:
            return True
        text = " ".join(text.split()).casefold()
        return not any(blocked in text for blocked in self.block)
