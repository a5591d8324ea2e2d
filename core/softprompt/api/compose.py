"""Use soft prompts as words: `[landscape] mountain view`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import overload

import numpy as np
from torch import Tensor

from softprompt.api.values import as_soft_prompt
from softprompt.argument_types import describe
from softprompt.arguments import checked
from softprompt.composition import composer
from softprompt.composition.composer import CompositionScore, EncodedComposition
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ArgumentError, EntryNotFound, shorten
from softprompt.library.entry import Entry
from softprompt.library.names import name_key
from softprompt.library.store import Library
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.prompts.values import ComparedByValue
from softprompt.prompts.visible_text import short_repr

MAX_NAMES_SHOWN = 8  # in a message


@dataclass(frozen=True, eq=False, repr=False)
class Composition(ComparedByValue):
    """A prompt with soft prompts as words, encoded for one model.

    Attributes:
        embedding: (embed_dim,) float32, the pooled embedding, of unit length.
        inputs: (tokens, width) float32, the embeddings of all tokens, hard and soft, without start and end tokens.
        written_out: the sentence with hard prompts in place of the soft prompts, or "" if one of them is unknown.
        tokens: number of tokens.
        saved_tokens: number of tokens that the soft prompts save, or None if a hard prompt is unknown.
        fidelity: similarity to the sentence written out, or None if that is too long or a hard prompt is unknown.
        floor: similarity of the sentence written out to its hard prompts alone, or None if no words are added to them.
        is_approximate: whether it has a mix, whose vectors are the mean of its terms' vectors.
    """

    text: str
    embedding: Array
    inputs: Array
    written_out: str
    tokens: int
    saved_tokens: int | None
    fidelity: float | None
    floor: float | None
    is_approximate: bool

    _hashed = ("text", "tokens")

    def __repr__(self) -> str:
        return short_repr("Composition", self.text, tokens=self.tokens, fidelity=self.fidelity, floor=self.floor)


@overload
def compose(  # type: ignore[overload-overlap]  # a string is a sequence of strings too, but the first overload wins
    encoder: TextEncoder,
    text: str,
    library: Library | Mapping[str, SoftPrompt | Entry] | None = None,
    *,
    opened: SoftPrompt | Entry | str | None = None,
) -> Composition: ...


@overload
def compose(
    encoder: TextEncoder,
    text: Sequence[str],
    library: Library | Mapping[str, SoftPrompt | Entry] | None = None,
    *,
    opened: SoftPrompt | Entry | str | None = None,
) -> list[Composition]: ...


@checked
def compose(
    encoder: TextEncoder,
    text: str | Sequence[str],
    library: Library | Mapping[str, SoftPrompt | Entry] | None = None,
    *,
    opened: SoftPrompt | Entry | str | None = None,
) -> Composition | list[Composition]:
    """Encode a composition, such as "[landscape] mountain view", or a list of them, and score it.

    Args:
        library: where the names are looked up: a library, or a mapping from names to soft prompts. By default, the
            user's library.
        opened: the soft prompt, or its name, whose soft tokens are [v1], [v2], …

    Raises:
        TemplateError, PromptError: a composition cannot be parsed or encoded.
        EntryNotFound, EntryDamaged: a name has no soft prompt.
        ConfigError: a soft prompt belongs to another model.

    Example:
        compose(encoder, "[fox] in the city", {"fox": soft_prompt}).fidelity
    """
    find = cache(_finder(library))
    opened_entry = find(opened) if isinstance(opened, str) else None
    if opened is not None and opened_entry is None:
        opened_entry = opened if isinstance(opened, Entry) else _as_entry(as_soft_prompt(opened))  # type: ignore[arg-type]
    encoded = composer.compose(encoder, [text] if isinstance(text, str) else text, find, opened_entry)
    embeddings = composer.encode_compositions(encoder, encoded)
    scores = composer.score_compositions(encoder, encoded, embeddings)
    texts = [text] if isinstance(text, str) else text
    compositions = [
        _composition(encoder, encoded, number, texts[number], embedding.cpu().numpy(), scores[number])
        for number, embedding in enumerate(embeddings)
    ]
    return compositions[0] if isinstance(text, str) else compositions


def _composition(
    encoder: TextEncoder,
    encoded: EncodedComposition,
    number: int,
    text: str,
    embedding: Array,
    score: CompositionScore,
) -> Composition:
    parsed = encoded.parsed[number]
    return Composition(
        text=text,
        embedding=embedding,
        inputs=_embed_row(encoder, encoded.rows[number], encoded.vectors),
        written_out=parsed.display_text if parsed.has_known_meaning else "",
        tokens=score.tokens,
        saved_tokens=score.saved_tokens,
        fidelity=score.fidelity,
        floor=score.floor,
        is_approximate=score.mixed == "near",
    )


def _embed_row(encoder: TextEncoder, row: Sequence[int], vectors: Tensor | None) -> Array:
    """Return the embeddings (tokens, width) of a row, in which -n stands for the nth soft token."""
    inputs = np.empty((len(row), encoder.width), np.float32)
    for position, token in enumerate(row):
        embedding = encoder.embed([token])[0] if token >= 0 or vectors is None else vectors[-token - 1]
        inputs[position] = embedding.cpu().numpy()
    return inputs


def _finder(library: Library | Mapping[str, SoftPrompt | Entry] | None) -> Callable[[str], Entry]:
    if not isinstance(library, Mapping):
        return (library or Library()).open
    entries = {}
    for name, prompt in library.items():
        if not isinstance(name, str):
            raise ArgumentError(f"library has the key {describe(name)}; expected the name of a soft prompt")
        if not isinstance(prompt, SoftPrompt | Entry):
            label = f"library[{shorten(repr(name))}]"
            raise ArgumentError(f"{label} is {describe(prompt)}; expected a SoftPrompt or an Entry")
        entries[name_key(name.strip())] = _as_entry(as_soft_prompt(prompt).named(name))

    def find(name: str) -> Entry:
        if (entry := entries.get(name_key(name.strip()))) is None:
            shown = ", ".join(list(library)[:MAX_NAMES_SHOWN]) or "none"
            raise EntryNotFound(f"no soft prompt is named {name!r}. The mapping has: {shown}.")
        return entry

    return find


def _as_entry(prompt: SoftPrompt) -> Entry:
    """Return an entry that is in no library, for code that expects one."""
    return Entry("", 1, prompt)
