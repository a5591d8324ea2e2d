"""Tokens and texts that survive re-tokenizing: written as text and tokenized again, they yield the same tokens.

A token qualifies if it survives alone. Of CLIP's 49,408 tokens, these are the 34,253 that end a word. Whether a piece
from inside a word merges with its neighbours depends on the whole text, and allowing such pieces gained nothing
(tests/benchmarks/README.md). Qualifying tokens can still merge, so a text is accepted only if it survives as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from softprompt.config import HardConfig, WordFilter
from softprompt.encoders.base import PromptTokenizer, is_readable
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError

MIN_WORD_LENGTH = 2  # letters; of the single letters, only `a` and `i` are words

# cached per encoder: checking 49,408 tokens takes 0.8 s, and decoding the qualifying ones takes 0.2 s per readout
_typeable: WeakKeyDictionary[TextEncoder, dict[int, str]] = WeakKeyDictionary()


def decode_typed(tokenizer: PromptTokenizer, ids: Sequence[int]) -> str:
    """Return the text that a user would paste for these tokens."""
    return tokenizer.decode(ids).strip()


def typeable_tokens(encoder: TextEncoder) -> dict[int, str]:
    """Return the readable tokens that survive re-tokenizing alone, as a dict from id to text."""
    if encoder not in _typeable:
        tokenizer = encoder.tokenizer
        ids = [i for i in encoder.ordinary_ids.tolist() if is_readable(tokenizer.piece(i))]
        if encoder.config.pooling == "argmax":  # pooling would pick a token with a higher id than the end token
            ids = [i for i in ids if i < max(encoder.specials.end)]
        texts = {i: decode_typed(tokenizer, [i]) for i in ids}
        _typeable[encoder] = {i: text for i, text in texts.items() if tokenizer.encode(text) == [i]}
    return _typeable[encoder]


def is_word(piece: str) -> bool:
    """Return whether a token is a word of at least two letters in any script, or `a` or `i`."""
    return piece.isalpha() and (len(piece) >= MIN_WORD_LENGTH or piece in ("a", "i"))


class TypeableVocabulary:
    """The tokens that a hard readout may use: `ids` (m,) on the encoder's device."""

    def __init__(self, encoder: TextEncoder, words: WordFilter = "any", block: Sequence[str] = ()) -> None:
        self.tokenizer = encoder.tokenizer
        self.words = words
        self.block = tuple(filter(None, (" ".join(text.split()).casefold() for text in block)))
        ids = [i for i, text in typeable_tokens(encoder).items() if self._is_allowed(text)]
        if not ids:
            raise ConfigError("no token is left for a hard readout. Block fewer strings or allow more words.")
        self.ids = torch.tensor(ids, device=encoder.device)
        self._id_set = frozenset(ids)

    @classmethod
    def from_config(cls, encoder: TextEncoder, config: HardConfig) -> TypeableVocabulary:
        """Return the vocabulary that `config` allows. Raises ConfigError if it is empty."""
        return cls(encoder, config.words, config.block)

    def __contains__(self, token: object) -> bool:
        return token in self._id_set

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        return decode_typed(self.tokenizer, ids.tolist() if isinstance(ids, Tensor) else ids)

    def survives(self, ids: Sequence[int] | Tensor) -> bool:
        """Return whether the tokens survive re-tokenizing and their text is allowed."""
        row = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        text = self.decode(row)
        return (
            self.tokenizer.encode(text) == row
            and self._has_no_blocked_text(text)
            and (self.words == "any" or text.isascii())
        )

    def _is_allowed(self, piece: str) -> bool:
        if self.words == "dictionary" and not (piece.isascii() and is_word(piece)):
            return False
        return (self.words == "any" or piece.isascii()) and self._has_no_blocked_text(piece)

    def _has_no_blocked_text(self, text: str) -> bool:
        if not self.block:
            return True
        text = " ".join(text.split()).casefold()
        return not any(blocked in text for blocked in self.block)
