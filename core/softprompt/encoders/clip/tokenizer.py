"""Text to token ids and back: CLIP's byte-pair encoding, without torch and without importing open_clip.

The vocabulary is the file that open_clip ships; the ids are open_clip's own (a test holds 10,000 texts against it).
Source of the scheme: Radford et al. 2021 (CLIP), after Sennrich et al. 2016 (byte-pair encoding).
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
MERGES = 49152 - 256 - 2  # the file lists more merges than CLIP uses
START, END = "<start_of_text>", "<end_of_text>"
WORD_END = "</w>"
MAX_TEXT_LENGTH = 200_000  # characters; byte-pair merging is quadratic in the length of one word
MAX_WORD_LENGTH = 4_000  # bytes of one unbroken word, for the same reason

_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Tokenizer:
    """CLIP's tokenizer: `encode` gives ids without the start and end tokens, `decode` gives text.

    `clean` is open_clip's name for how text is normalised first; `extra_special` are special tokens past the two of CLIP.
    """

    def __init__(self, clean: Clean = "lower", extra_special: Sequence[str] = ()) -> None:
        if clean not in get_args(Clean):
            raise ValueError(f"clean is {clean!r}; it is one of {', '.join(get_args(Clean))}")
        self.clean = clean
        pieces, self._ranks = _byte_pairs()
        special = (START, END, *extra_special)
        self._pieces = (*pieces, *special)
        self._ids = {piece: i for i, piece in enumerate(self._pieces)}
        self._pattern = regex.compile("|".join((*special, _SPLIT)), regex.IGNORECASE)
        self._words: dict[str, tuple[int, ...]] = {piece: (self._ids[piece],) for piece in special}
        self.start, self.end = self._ids[START], self._ids[END]
        self.special_ids = self.reserved_ids = frozenset(self._ids[piece] for piece in special)

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, not cut and without start and end. Raises PromptError for text too long to tokenise."""
        if len(text) > MAX_TEXT_LENGTH:
            raise PromptError(f"the text has {len(text):,} characters; at most {MAX_TEXT_LENGTH:,} can be tokenised")
        ids: list[int] = []
        for word in self._pattern.findall(self.normalise(text)):
            ids.extend(self._word(word))
        return ids

    def normalise(self, text: str) -> str:
        """The text as the vocabulary sees it: mojibake and HTML entities resolved, white space folded, case as `clean` says."""
        import ftfy  # 20 ms, and not needed by who only decodes

        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        if self.clean == "canonicalize":
            text = text.replace("_", " ").translate(_NO_PUNCTUATION).lower()
        text = " ".join(text.split())
        return text.lower() if self.clean == "lower" else text

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text of token ids; special tokens stand as their names, bytes that are no UTF-8 as U+FFFD."""
        decoder = _byte_decoder()
        raw = bytearray()
        for i in ids:
            piece = self._pieces[i]
            raw += piece.encode() if i in self.special_ids else bytes(decoder[c] for c in piece)
        return raw.decode("utf-8", errors="replace").replace(WORD_END, " ")

    def piece(self, token: int) -> str:
        """One token as text: without the mark of a word's end, with U+FFFD where its bytes are part of a character."""
        return self.decode([token]).removesuffix(" ")

    def symbols(self, token: int) -> str:
        """One token as the vocabulary spells it: a character a byte, `</w>` where a word ends."""
        return self._pieces[token]

    def _word(self, word: str) -> tuple[int, ...]:
        encoder = _byte_encoder()
        symbols = "".join(encoder[b] for b in word.encode("utf-8", errors="surrogatepass"))
        known = self._words.get(symbols)
        if known is not None:
            return known
        if len(symbols) > MAX_WORD_LENGTH:
            raise PromptError(
                f"the text has a word of {len(symbols):,} bytes; at most {MAX_WORD_LENGTH:,} can be tokenised: put spaces into it"
            )
        ids = tuple(self._ids[piece] for piece in _merge(symbols, self._ranks))
        if len(self._words) < 100_000:  # a long-lived process must not grow with what it is shown
            self._words[symbols] = ids
        return ids


def _merge(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair pieces of one word: the best-ranked neighbouring pair is joined wherever it stands, until none is left."""
    pieces = [*word[:-1], word[-1] + WORD_END]
    while len(pieces) > 1:
        best = min(pairwise(pieces), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged: list[str] = []
        i = 0
        while i < len(pieces):
            if i + 1 < len(pieces) and (pieces[i], pieces[i + 1]) == best:
                merged.append(pieces[i] + pieces[i + 1])
                i += 2
            else:
                merged.append(pieces[i])
                i += 1
        pieces = merged
    return pieces


@lru_cache(maxsize=1)
def _byte_encoder() -> dict[int, str]:
    """Every byte as one printable character: itself where it prints, else the next code point from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


@lru_cache(maxsize=1)
def _byte_decoder() -> dict[str, int]:
    return {c: b for b, c in _byte_encoder().items()}


@lru_cache(maxsize=1)
def _byte_pairs() -> tuple[tuple[str, ...], dict[tuple[str, str], int]]:
    """(pieces in id order, merges with their rank), read from open_clip's vocabulary file."""
    spec = find_spec("open_clip")  # finds the folder, runs nothing
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable(
            "open_clip is not installed, and CLIP's vocabulary comes with it: pip install open_clip_torch"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / VOCABULARY_FILE
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ModelUnavailable(
            f"CLIP's vocabulary cannot be read from {path} ({error}): pip install --force-reinstall open_clip_torch"
        ) from error
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    singles = list(_byte_encoder().values())
    pieces = (*singles, *(s + WORD_END for s in singles), *(first + second for first, second in merges))
    return pieces, {pair: rank for rank, pair in enumerate(merges)}
