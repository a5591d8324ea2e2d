"""CLIP's byte-pair encoding, without torch and without importing open_clip.

The vocabulary file ships with open_clip, and the token ids match open_clip's (checked by a test on 10,000 texts).
Sources: Radford et al. 2021 (CLIP), based on Sennrich et al. 2016 (byte-pair encoding).
"""

from __future__ import annotations

import gzip
import html
import string
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import regex

from softprompt.errors import ModelUnavailable, PromptError

Clean = Literal["lower", "whitespace", "canonicalize"]

VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
MERGE_COUNT = 49152 - 256 - 2  # the file lists more merges than CLIP uses
START, END = "<start_of_text>", "<end_of_text>"
WORD_END = "</w>"
MAX_TEXT_LENGTH = 200_000  # characters
MAX_WORD_LENGTH = 4_000  # bytes; the time for byte-pair merging is quadratic in a word's length

_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Tokenizer:
    """CLIP's tokenizer.

    Args:
        clean: how to normalize text before encoding; uses open_clip's names for the methods.
        extra_special: special tokens in addition to CLIP's start and end tokens.
    """

    def __init__(self, clean: Clean = "lower", extra_special: Sequence[str] = ()) -> None:
        if clean not in get_args(Clean):
            raise ValueError(f"clean is {clean!r}; it must be one of: {', '.join(get_args(Clean))}")
        self.clean = clean
        pieces, self._ranks = _byte_pairs()
        special = (START, END, *extra_special)
        self._pieces = (*pieces, *special)
        self._ids = {piece: i for i, piece in enumerate(self._pieces)}
        self._pattern = regex.compile("|".join((*special, _SPLIT)), regex.IGNORECASE)
        self._word_cache: dict[str, tuple[int, ...]] = {piece: (self._ids[piece],) for piece in special}
        self.start, self.end = self._ids[START], self._ids[END]
        self.special_ids = self.reserved_ids = frozenset(self._ids[piece] for piece in special)

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without start and end tokens and without truncation.

        Raises:
            PromptError: the text, or one word of it, is too long to tokenize.
        """
        if len(text) > MAX_TEXT_LENGTH:
            raise PromptError(f"the text has {len(text):,} characters; at most {MAX_TEXT_LENGTH:,} can be tokenized")
        ids: list[int] = []
        for word in self._pattern.findall(self.normalize(text)):
            ids.extend(self._encode_word(word))
        return ids

    def normalize(self, text: str) -> str:
        """Repair mojibake and HTML entities, collapse white space, and apply `clean`'s case and punctuation rules."""
        import ftfy  # the import takes 20 ms and is not needed for decoding

        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        if self.clean == "canonicalize":
            text = text.replace("_", " ").translate(_NO_PUNCTUATION).lower()
        text = " ".join(text.split())
        return text.lower() if self.clean == "lower" else text

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids. Special tokens appear by name, invalid UTF-8 as U+FFFD."""
        decoder = _byte_decoder()
        raw = bytearray()
        for i in ids:
            piece = self._pieces[i]
            raw += piece.encode() if i in self.special_ids else bytes(decoder[c] for c in piece)
        return raw.decode("utf-8", errors="replace").replace(WORD_END, " ")

    def piece(self, token: int) -> str:
        """Return one token as text, without the end-of-word mark. Bytes of an incomplete character become U+FFFD."""
        return self.decode([token]).removesuffix(" ")

    def symbols(self, token: int) -> str:
        """Return one token as spelled in the vocabulary: one character per byte, and `</w>` at the end of a word."""
        return self._pieces[token]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        encoder = _byte_encoder()
        symbols = "".join(encoder[b] for b in word.encode("utf-8", errors="surrogatepass"))
        cached = self._word_cache.get(symbols)
        if cached is not None:
            return cached
        if len(symbols) > MAX_WORD_LENGTH:
            raise PromptError(
                f"the text has a word of {len(symbols):,} bytes; at most {MAX_WORD_LENGTH:,} can be tokenized. "
                "Split it with spaces."
            )
        ids = tuple(self._ids[piece] for piece in _merge_pairs(symbols, self._ranks))
        if len(self._word_cache) < 100_000:  # limits the memory of a long-running process
            self._word_cache[symbols] = ids
        return ids


def _merge_pairs(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Split a word into byte-pair pieces: merge the best-ranked adjacent pair everywhere, until no pair has a rank."""
    pieces = [*word[:-1], word[-1] + WORD_END]
    while len(pieces) > 1:
        best_pair = min(pairwise(pieces), key=lambda pair: ranks.get(pair, len(ranks)))
        if best_pair not in ranks:
            break
        merged: list[str] = []
        i = 0
        while i < len(pieces):
            if i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == best_pair:
                merged.append(pieces[i] + pieces[i + 1])
                i += 2
            else:
                merged.append(pieces[i])
                i += 1
        pieces = merged
    return pieces


@lru_cache(maxsize=1)
def _byte_encoder() -> dict[int, str]:
    """Map every byte to a character: itself if printable, otherwise the next free code point starting at 256."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


@lru_cache(maxsize=1)
def _byte_decoder() -> dict[str, int]:
    return {c: b for b, c in _byte_encoder().items()}


@lru_cache(maxsize=1)
def _byte_pairs() -> tuple[tuple[str, ...], dict[tuple[str, str], int]]:
    """Read open_clip's vocabulary file. Return the pieces in order of their ids, and the rank of every merge."""
    spec = find_spec("open_clip")  # finds the folder without importing the package
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable(
            "CLIP's vocabulary is part of open_clip, which is not installed. Run pip install open_clip_torch."
        )
    path = Path(next(iter(spec.submodule_search_locations))) / VOCABULARY_FILE
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : MERGE_COUNT + 1]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ModelUnavailable(
            f"cannot read CLIP's vocabulary from {path}: {error}. Run pip install --force-reinstall open_clip_torch."
        ) from error
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    singles = list(_byte_encoder().values())
    pieces = (*singles, *(s + WORD_END for s in singles), *(first + second for first, second in merges))
    return pieces, {pair: rank for rank, pair in enumerate(merges)}
