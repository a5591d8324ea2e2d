"""Encode compositions (prompts with soft prompts as words) and score them against their reference texts.

An unsaved mix is approximate: its vectors are the weighted mean of its terms' vectors. A saved mix is trained. Measured
on `mini` (tests/benchmarks/composition.py), an approximate mix has a similarity of .985 to the weighted mean of its
texts and follows the weights monotonically; a trained mix reaches .999.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.composition.sentence import ParsedPrompt, SoftPromptWord, parse_prompt
from softprompt.encoders.base import encode_prompt
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.errors import PromptError
from softprompt.objectives.hidden_states import check_family
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.values import Array
from softprompt.text_states import HIDDEN_STATE_SPECS, ImageProgram

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.library.entry import Entry

MixState = Literal["", "near", "trained"]  # no mix; an approximate mix (mean of vectors); only trained mixes


@dataclass(frozen=True, eq=False)
class EncodedComposition:
    """Compositions ready for `encoder.encode_rows(rows, vectors)`."""

    parsed: list[ParsedPrompt]
    rows: list[list[int]]
    vectors: Tensor | None  # (soft tokens of all rows, width), or None if there are none


@dataclass(frozen=True)
class CompositionScore:
    """Score of a composition against its reference text, the sentence with hard prompts in place of the soft prompts.

    A composition with mixes has one weighted reference text per combination of terms and is compared with their mean.

    Attributes:
        reference_tokens: token count of the longest reference text, or None if there is none.
        fidelity: similarity to the reference, or None if a prompt is unknown or a reference text is too long.
        floor: similarity of the reference to its prompts alone, or None if no words are added to the prompts.
    """

    tokens: int
    mixed: MixState
    reference_texts: tuple[WeightedText, ...]
    reference_tokens: int | None
    fidelity: float | None
    floor: float | None

    @property
    def saved_tokens(self) -> int | None:
        """Number of tokens that the soft prompts save."""
        return None if self.reference_tokens is None else self.reference_tokens - self.tokens


@neutral_torch()
def compose(
    encoder: TextEncoder, texts: Sequence[str], find: Callable[[str], Entry], opened: Entry | None = None
) -> EncodedComposition:
    """Prepare templates for the encoder.

    Args:
        find: returns the entry with a given name, like `Library.open`.
        opened: the entry that [v1], [v2], … belong to.

    Raises:
        TemplateError, PromptError: a template is invalid.
        ConfigError: a soft prompt belongs to another model.
    """
    parsed_prompts = [parse_prompt(text, find, opened) for text in texts]
    rows: list[list[int]] = []
    vectors: list[Tensor] = []
    for parsed in parsed_prompts:
        encoder.check_fits(sum(word.token_count for word in parsed.words))  # thousands of words take seconds to encode
        row: list[int] = []
        for part in parsed.parts:
            if isinstance(part, str):
                row += encode_prompt(encoder.tokenizer, part)
                continue
            for vector in _word_vectors(encoder, part):
                vectors.append(vector)
                row.append(-len(vectors))
        encoder.check_fits(len(row))
        rows.append(row)
    return EncodedComposition(parsed_prompts, rows, torch.stack(vectors).to(encoder.device) if vectors else None)


@neutral_torch()
def encode_compositions(encoder: TextEncoder, composed: EncodedComposition) -> Tensor:
    """Encode compositions as (compositions, e) unit vectors.

    Raises PromptError if an embedding is not finite: imported soft tokens can be finite but too large to compute with.
    """
    embeddings = encoder.encode_rows(composed.rows, composed.vectors)
    for parsed, embedding in zip(composed.parsed, embeddings, strict=True):
        if not embedding.isfinite().all():
            prompts = {entry.prompt.name: entry.prompt for word in parsed.words for entry in word.entries}
            name, largest = max(
                ((name, abs(prompt.vectors).max()) for name, prompt in prompts.items()), key=lambda pair: pair[1]
            )
            raise _too_large(encoder, f"the soft tokens of {name}", largest)
    return embeddings


@neutral_torch()
def check_vectors(encoder: TextEncoder, vectors: Tensor | Array, name: str = "") -> None:
    """Raise PromptError if the embedding of vectors (k, w), of a soft prompt called `name`, is not finite."""
    soft = torch.asarray(vectors, copy=True).to(encoder.device)
    if not encoder.encode_rows([range(-1, -len(soft) - 1, -1)], soft).isfinite().all():
        label = f"the soft tokens of {name}" if name else "the soft tokens"
        raise _too_large(encoder, label, float(soft.abs().max()))


def _too_large(encoder: TextEncoder, soft_tokens: str, largest: float) -> PromptError:
    usual = float(encoder.tower.table.abs().max())
    return PromptError(
        f"{encoder.name} cannot compute with {soft_tokens}: their largest value is {largest:.2g}, "
        f"compared with {usual:.2g} for the model's own tokens. Train it again, or import another file."
    )


@neutral_torch()
def encode_hidden_states(encoder: TextEncoder, composed: EncodedComposition, family: ImageProgram) -> list[Tensor]:
    """Return, for each composition, the hidden states that a family of image programs uses.

    The shape is (tokens, w), or (1, w) for a family that uses only the end token. Raises ConfigError if the family does
    not use an encoder of this shape.
    """
    check_family(encoder, family)
    soft = None if composed.vectors is None else composed.vectors.unsqueeze(0)
    with torch.no_grad():
        output = encoder.batch_rows(composed.rows).read_states(soft, HIDDEN_STATE_SPECS[family])
    return [states[positions] for states, positions in zip(output.states[0], output.is_content, strict=True)]


@neutral_torch()
def score_compositions(
    encoder: TextEncoder, composed: EncodedComposition, embeddings: Tensor
) -> list[CompositionScore]:
    """Score compositions by their pooled `embeddings`, (compositions, e)."""
    rows = zip(composed.parsed, composed.rows, embeddings, strict=True)
    return [_score(encoder, parsed, len(row), embedding) for parsed, row, embedding in rows]


def _score(encoder: TextEncoder, parsed: ParsedPrompt, tokens: int, embedding: Tensor) -> CompositionScore:
    words = parsed.words
    mixed: MixState = (
        "near"
        if any(len(word.entries) > 1 for word in words)
        else "trained"
        if any(word.is_mixed for word in words)
        else ""
    )
    if not words or not parsed.has_known_meaning:
        return CompositionScore(tokens, mixed, (), None, None, None)
    references = parsed.reference_texts()
    rows = [encoder.tokenizer.encode(reference.text) for reference in references]
    target = _encode_target(encoder, references, rows)
    fidelity = floor = None
    if target is not None:
        fidelity = float((embedding @ target).clamp(-1, 1))
        if parsed.has_text:
            bare = parsed.reference_texts(added_words=False)
            alone = _encode_target(encoder, bare, [encoder.tokenizer.encode(reference.text) for reference in bare])
            floor = None if alone is None else float((alone @ target).clamp(-1, 1))
    return CompositionScore(tokens, mixed, references, max(map(len, rows)), fidelity, floor)


def _encode_target(encoder: TextEncoder, references: Sequence[WeightedText], rows: list[list[int]]) -> Tensor | None:
    """Return the normalized weighted mean (e,) of the texts' unit embeddings, or None if a text is too long."""
    if max(map(len, rows)) > encoder.max_prompt_tokens:
        return None
    shares = torch.tensor([reference.share for reference in references], device=encoder.device)
    return F.normalize(shares @ encoder.encode_rows(rows), dim=-1)


def _word_vectors(encoder: TextEncoder, word: SoftPromptWord) -> Tensor:
    """Return the vectors (k, w) of a word, on the CPU."""
    for entry in word.entries:
        encoder.check_compatible(entry.prompt)
    term_vectors = [torch.asarray(entry.prompt.vectors, copy=True) for entry in word.entries]
    if len(term_vectors) == 1:
        return term_vectors[0][word.tokens.start : word.tokens.stop]
    return mix_vectors(term_vectors, word.shares)


@neutral_torch()
def mix_vectors(term_vectors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the weighted mean (k, w) of vectors (k_i, w), where k is the largest k_i.

    Shorter soft prompts are stretched to k vectors by linear interpolation.
    """
    count = max(map(len, term_vectors))
    return torch.stack(
        [share * _stretch(vectors, count) for share, vectors in zip(shares, term_vectors, strict=True)]
    ).sum(0)


def _stretch(vectors: Tensor, count: int) -> Tensor:
    if len(vectors) == count:
        return vectors
    return F.interpolate(vectors.T.unsqueeze(0), size=count, mode="linear", align_corners=True)[0].T
