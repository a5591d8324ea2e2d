"""Compositions: prompts with soft prompts as words, what the encoder makes of them, and how near that is to the sentence written out.

An unsaved mix is near: its vectors are the weighted mean of its terms' vectors. Measured on `mini` (tests/benchmarks/composition.py),
that lies at .985 of the weighted meaning and moves with the shares without a step back; one that is saved is trained, and lies at .999.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.composition.sentence import ParsedPrompt, SoftPromptWord, read_sentence
from softprompt.encoders.base import encode_prompt
from softprompt.errors import PromptError
from softprompt.objectives.hidden_states import check_family
from softprompt.prompts.lineage import WeightedText
from softprompt.text_states import READS, ImageProgram

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.library.entry import Entry

Mixed = Literal["", "near", "trained"]  # no mix in it; the mean of vectors; or saved mixes only


@dataclass(frozen=True, eq=False)
class EncodedComposition:
    """Compositions ready for `encoder.encode_rows(rows, vectors)`."""

    sentences: list[ParsedPrompt]
    rows: list[list[int]]
    vectors: Tensor | None  # (soft tokens of all rows, width), or None where there are none


@dataclass(frozen=True)
class CompositionScore:
    """How near a composition is to the sentence written out.

    `fidelity` is its similarity to that; `floor` what leaving the added words away would come to: the similarity of the sentence
    written out to its hard prompts alone, one after the other. Where there are mixes, both are those of the weighted mean over the ways to
    write it out, and `written_tokens` is the longest's. None: nothing to compare, a hard prompt that is not known, more than the
    model's context holds, or, as floor, no added words.
    """

    tokens: int
    mixed: Mixed
    written_out: tuple[WeightedText, ...]
    written_tokens: int | None
    fidelity: float | None
    floor: float | None

    @property
    def saved(self) -> int | None:
        """Tokens that the soft prompts save."""
        return None if self.written_tokens is None else self.written_tokens - self.tokens


def compose(
    encoder: TextEncoder, texts: Sequence[str], find: Callable[[str], Entry], opened: Entry | None = None
) -> EncodedComposition:
    """Templates made ready for the encoder. `find` gives the entry of a name, as `Library.open` does; [v1] is a token of `opened`.

    Raises TemplateError, PromptError, ConfigError for a soft prompt of another model, and what `find` raises.
    """
    sentences = [read_sentence(text, find, opened) for text in texts]
    rows: list[list[int]] = []
    vectors: list[Tensor] = []
    for sentence in sentences:
        row: list[int] = []
        for part in sentence.parts:
            if isinstance(part, str):
                row += encode_prompt(encoder.tokenizer, part)
                continue
            for vector in _vectors(encoder, part):
                vectors.append(vector)
                row.append(-len(vectors))
        encoder.check_fits(len(row))
        rows.append(row)
    return EncodedComposition(sentences, rows, torch.stack(vectors).to(encoder.device) if vectors else None)


def pooled(encoder: TextEncoder, composed: EncodedComposition) -> Tensor:
    """Encode compositions as (compositions, e) unit vectors.

    Raises PromptError where the model makes no finite numbers of one: a file from outside can hold soft tokens that are
    finite themselves, and too large to compute with.
    """
    embeddings = encoder.encode_rows(composed.rows, composed.vectors)
    for sentence, embedding in zip(composed.sentences, embeddings, strict=True):
        if not embedding.isfinite().all():
            prompts = {entry.prompt.name: entry.prompt for word in sentence.words for entry in word.entries}
            name, largest = max(
                ((name, abs(prompt.vectors).max()) for name, prompt in prompts.items()), key=lambda pair: pair[1]
            )
            usual = float(encoder.tower.table.abs().max())
            raise PromptError(
                f"{encoder.name} cannot compute with the soft tokens of {name}: their largest value is {largest:.2g}, and that of "
                f"its words is {usual:.2g}. Train it again, or import another file"
            )
    return embeddings


def hidden(encoder: TextEncoder, composed: EncodedComposition, family: ImageProgram) -> list[Tensor]:
    """The hidden states that a family of diffusion models reads of every composition: (its tokens, w), or (1, w) for one that reads a single one.

    Raises ConfigError for a family that does not read such an encoder.
    """
    check_family(encoder, family)
    soft = None if composed.vectors is None else composed.vectors.unsqueeze(0)
    with torch.no_grad():
        read = encoder.batch_rows(composed.rows).read(soft, READS[family])
    return [states[its] for states, its in zip(read.states[0], read.words, strict=True)]


def figures(encoder: TextEncoder, composed: EncodedComposition, embeddings: Tensor) -> list[CompositionScore]:
    """Of every composition, whose pooled embeddings these are (compositions, e)."""
    rows = zip(composed.sentences, composed.rows, embeddings, strict=True)
    return [_figures(encoder, sentence, len(row), ours) for sentence, row, ours in rows]


def _figures(encoder: TextEncoder, sentence: ParsedPrompt, tokens: int, ours: Tensor) -> CompositionScore:
    words = sentence.words
    mixed: Mixed = (
        "near" if any(len(word.entries) > 1 for word in words) else "trained" if any(w.is_sum for w in words) else ""
    )
    if not words or not sentence.known:
        return CompositionScore(tokens, mixed, (), None, None, None)
    written_out = sentence.reference_texts()
    rows = [encoder.tokenizer.encode(one.text) for one in written_out]
    target = _meaning(encoder, written_out, rows)
    fidelity = floor = None
    if target is not None:
        fidelity = float((ours @ target).clamp(-1, 1))
        if sentence.has_text:
            bare = sentence.reference_texts(added_words=False)
            alone = _meaning(encoder, bare, [encoder.tokenizer.encode(one.text) for one in bare])
            floor = None if alone is None else float((alone @ target).clamp(-1, 1))
    return CompositionScore(tokens, mixed, written_out, max(map(len, rows)), fidelity, floor)


def _meaning(encoder: TextEncoder, meanings: Sequence[WeightedText], rows: list[list[int]]) -> Tensor | None:
    """(e,) the weighted mean of unit embeddings, of unit length; None where one does not fit into the context."""
    if max(map(len, rows)) > encoder.max_prompt_tokens:
        return None
    shares = torch.tensor([one.share for one in meanings], device=encoder.device)
    return F.normalize(shares @ encoder.encode_rows(rows), dim=-1)


def _vectors(encoder: TextEncoder, word: SoftPromptWord) -> Tensor:
    """(k, w) on the cpu."""
    for entry in word.entries:
        encoder.check_belongs(entry.prompt)
    each = [torch.asarray(entry.prompt.vectors, copy=True) for entry in word.entries]
    if len(each) == 1:
        return each[0][word.tokens.start : word.tokens.stop]
    return mixed_vectors(each, word.shares)


def mixed_vectors(each: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """(k, w) the weighted mean of vectors (k_i, w), k being the largest; fewer are stretched over as many places, between neighbours."""
    most = max(map(len, each))
    return torch.stack([share * _stretched(vectors, most) for share, vectors in zip(shares, each, strict=True)]).sum(0)


def _stretched(vectors: Tensor, count: int) -> Tensor:
    if len(vectors) == count:
        return vectors
    return F.interpolate(vectors.T.unsqueeze(0), size=count, mode="linear", align_corners=True)[0].T
