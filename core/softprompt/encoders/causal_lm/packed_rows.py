"""Packed rows: several texts with common beginnings in one row, so that what they share is computed once.

A row is a tree of segments. A token sees its own segment up to itself, and all segments above. Four answers to each of
four questions take a third of the positions that sixteen padded rows would take.

Shapes: R rows, T positions of the longest row, S scored positions, k soft tokens, w width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.question_rows import SOFT
from softprompt.errors import PromptError


@dataclass
class PackedRow:
    """A tree of token sequences, built by `add`."""

    ids: list[int] = field(default_factory=list)  # of all segments, one after another
    depths: list[int] = field(default_factory=list)  # the position of each token in its own text
    segments: list[int] = field(default_factory=list)  # the segment of each token
    parents: list[int] = field(default_factory=list)  # of each segment, or -1
    ends: list[int] = field(default_factory=list)  # index in `ids` of each segment's last token
    scored: list[int] = field(default_factory=list)  # indices in `ids` whose next token is scored

    def add(self, ids: Sequence[int], parent: int = -1) -> int:
        """Append a segment behind the segment `parent`, if given, and return its number."""
        segment = len(self.parents)
        end = self.ends[parent] if parent >= 0 else -1
        start = self.depths[end] + 1 if end >= 0 else 0
        self.depths += range(start, start + len(ids))
        self.ids += ids
        self.segments += [segment] * len(ids)
        self.parents.append(parent)
        self.ends.append(len(self.ids) - 1 if ids else end)  # an empty segment ends where its parent ends
        return segment

    def add_answer(self, ids: Sequence[int], parent: int) -> None:
        """Append an answer whose tokens are scored. Its last token is no input, because nothing follows it."""
        first = len(self.ids)
        self.add(ids[:-1], parent)
        self.scored += [self.ends[parent], *range(first, len(self.ids))]

    @property
    def length(self) -> int:
        """The number of tokens of the longest text."""
        return max(self.depths, default=-1) + 1

    def visible(self) -> Tensor:
        """Return which tokens (columns) each token (row) sees."""
        above = torch.eye(len(self.parents), dtype=torch.bool)
        for segment, parent in enumerate(self.parents):  # parents come first
            if parent >= 0:
                above[segment] |= above[parent]
        segments = torch.tensor(self.segments, dtype=torch.long)
        return above[segments[:, None], segments].tril()


class PackedBatch:
    """Packed rows of several soft prompts, ready for the model.

    Args:
        rows: one per soft prompt. SOFT stands for its soft tokens, in order.

    Raises:
        PromptError: a text is longer than the model can read.
    """

    def __init__(self, model: CausalLM, rows: Sequence[PackedRow]) -> None:
        self.model = model
        if (length := max(row.length for row in rows)) > model.window:
            raise PromptError(
                f"a question with its answer and the prompt has {length:,} tokens, but {model.name} reads "
                f"{model.window:,} at once. Shorten the prompt or the questions."
            )
        count, size = len(rows), max(len(row.ids) for row in rows)
        ids = torch.full((count, size), 0)
        depths = torch.zeros(count, size, dtype=torch.long)
        visible = torch.eye(size, dtype=torch.bool).repeat(count, 1, 1)  # padding sees only itself
        for index, row in enumerate(rows):
            used = len(row.ids)
            ids[index, :used] = torch.tensor(row.ids)
            depths[index, :used] = torch.tensor(row.depths)
            visible[index, :used, :used] = row.visible()
        soft = ids == SOFT
        self._soft_rows, self._soft_columns = soft.nonzero(as_tuple=True)
        self._soft_numbers = soft.cumsum(1)[self._soft_rows, self._soft_columns] - 1
        device = model.device
        self.ids = ids.masked_fill(soft, 0).to(device)
        self.depths = depths.to(device)
        self.mask = additive_mask(visible.unsqueeze(1), model)
        self.scored_rows = torch.tensor([i for i, row in enumerate(rows) for _ in row.scored], device=device)
        self.scored_columns = torch.tensor([column for row in rows for column in row.scored], device=device)
        self._soft_rows, self._soft_columns, self._soft_numbers = (
            index.to(device) for index in (self._soft_rows, self._soft_columns, self._soft_numbers)
        )

    def logits(self, vectors: Tensor | None = None) -> Tensor:
        """Return the logits (S, v) at all scored positions, row by row. Gradients reach `vectors` (R, k, w)."""
        embeddings = self.model.embed(self.ids)
        if vectors is not None and len(self._soft_rows):
            embeddings = embeddings.index_put(
                (self._soft_rows, self._soft_columns), vectors[self._soft_rows, self._soft_numbers]
            )
        states = self.model.states(embeddings, self.mask, self.depths)
        return self.model.head(states[self.scored_rows, self.scored_columns])


def additive_mask(visible: Tensor, model: CausalLM) -> Tensor:
    """Return an attention mask, in the model's precision, that is 0 where `visible` is true and -inf elsewhere."""
    mask = torch.zeros(visible.shape, dtype=model.dtype)
    return mask.masked_fill_(~visible, torch.finfo(model.dtype).min).to(model.device)
