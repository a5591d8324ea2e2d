"""Pooled embeddings: soft tokens are trained towards what the encoder makes of the hard prompt, alone and in contexts.

Several hard prompts with shares mean together the weighted mean of their unit embeddings, in every context: a mix.
Shapes: R rows, r of one training, k soft tokens, w width, b contexts (the prompt alone first), e embed_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import Long, TrainConfig
from softprompt.encoders.base import check_tokens
from softprompt.encoders.clip.context_batch import ContextBatch
from softprompt.encoders.clip.rows import ALONE, contexts_with_room, rows_in_context
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.objectives.base import Evaluation, HardPrompt, Seat
from softprompt.objectives.hard_prompt import contexts_that_fit, tokenize_target
from softprompt.objectives.losses import cosines, row_losses
from softprompt.prompts.contexts import split_context
from softprompt.prompts.lineage import WeightedText

GROUPS = 4  # the contexts take turns: a quarter of them a step trains as well as all (measured), 2.5 times as fast
ALONE_SHARE = 0.3  # of the loss; the contexts share the rest
KEPT_OF_A_POSITION = 40  # times the width: numbers that a block keeps of a position for its gradient, at the most


@dataclass(frozen=True)
class TurnTargets:
    """What one turn compares rows with: targets (b, e), weights of the loss and of the mean in contexts (b,).

    Of several rows at once, each has one dimension more before these.
    """

    targets: Tensor
    weights: Tensor
    composed: Tensor

    @cached_property
    def directions(self) -> Tensor:
        """The targets, of unit length."""
        return F.normalize(self.targets, dim=-1)


@dataclass(frozen=True)
class PooledTarget:
    """What one training is compared with, turn by turn."""

    turns: tuple[TurnTargets, ...]
    around: tuple[tuple[str, ...], ...]  # the contexts of each turn, ALONE in the place of those that do not fit
    skipped: tuple[str, ...]


class PooledObjective:
    """Cosine, squared error or InfoNCE of pooled embeddings.

    `tokens` are the numbers of soft tokens in a batch. Raises ConfigError for more of them than fit.
    """

    runs_whole_rows = False

    def __init__(self, encoder: TextEncoder, config: TrainConfig, tokens: Sequence[int]) -> None:
        self.encoder, self.config, self.counts = encoder, config, sorted(set(tokens))
        check_tokens(encoder, self.counts[-1])
        self.contexts = contexts_with_room(encoder, config.contexts, self.counts[-1])
        self.groups = group_contexts(encoder, self.contexts)
        self.rows = [ContextBatch(encoder, [ALONE, *group], self.counts, self.runs_whole_rows) for group in self.groups]
        self.others = encoder.encode(config.against) if config.against else None
        self.seated: list[TurnTargets] = []

    @property
    def turns(self) -> int:
        return len(self.groups)

    @property
    def positions(self) -> int:
        return max(rows.positions for rows in self.rows)

    @property
    def row_bytes(self) -> int:
        encoder = self.encoder
        kept = KEPT_OF_A_POSITION * encoder.width * encoder.config.layers * encoder.tower.table.element_size()
        return self.positions * kept

    def tokenize(self, text: str, meanings: Sequence[WeightedText], long: Long) -> HardPrompt:
        return tokenize_target(self.encoder, text, meanings, long)

    def prepare(self, prompts: Sequence[tuple[HardPrompt, TrainConfig]]) -> list[PooledTarget]:
        fits = [contexts_that_fit(self.encoder, prompt, self.contexts, self.counts[-1]) for prompt, _ in prompts]
        found = encode_targets(
            self.encoder, [(prompt, [ALONE, *fit]) for (prompt, _), fit in zip(prompts, fits, strict=True)]
        )
        prepared = []
        for (_, config), fit, targets in zip(prompts, fits, found, strict=True):
            by_context = dict(zip([ALONE, *fit], targets, strict=True))
            turns = tuple(self._turn(group, by_context) for group in self.groups)
            # where the hard prompt has no room, what it means alone stands in, and weighs nothing
            around = tuple(
                (ALONE, *(context if context in by_context else ALONE for context in group)) for group in self.groups
            )
            skipped = tuple(context for context in config.contexts if context not in by_context)
            prepared.append(PooledTarget(turns, around, skipped))
        return prepared

    def _turn(self, group: list[str], targets: dict[str, Tensor]) -> TurnTargets:
        there = torch.tensor([1.0, *(float(context in targets) for context in group)])
        inside = there.clone()
        inside[0] = 0.0
        count = inside.sum()
        share = ALONE_SHARE if bool(count) else 1.0
        weights = inside * (1 - share) / count.clamp(min=1)
        weights[0] = share
        composed = inside / count if bool(count) else there
        around = [ALONE, *(context if context in targets else ALONE for context in group)]
        device = self.encoder.device
        return TurnTargets(torch.stack([targets[one] for one in around]), weights.to(device), composed.to(device))

    def seat(self, seats: Sequence[Seat]) -> None:
        self.seated = []
        for turn in range(self.turns):
            each = [(seat.target.turns[turn], seat.rows) for seat in seats]
            targets, weights, composed = (
                torch.cat([getattr(target, name).expand(r, *getattr(target, name).shape) for target, r in each])
                for name in ("targets", "weights", "composed")
            )
            self.seated.append(TurnTargets(targets, weights, composed))
        tokens = [seat.tokens for seat in seats for _ in range(seat.rows)]
        for rows in self.rows:
            rows.seat(tokens)

    def evaluate(self, vectors: Tensor, turn: int) -> Evaluation:
        seated, outputs = self.seated[turn], self.rows[turn].outputs(vectors)
        cosine = cosines(outputs, seated.directions)
        return evaluation(
            row_losses(self.config.objective, outputs, cosine, seated.targets, self.others), cosine, seated
        )


def evaluation(losses: Tensor, cosine: Tensor, seated: TurnTargets) -> Evaluation:
    """Weigh losses and cosines (R, b) of a turn."""
    similarities = cosine.detach()
    composed = (similarities * seated.composed).sum(-1)
    return Evaluation((losses * seated.weights).sum(-1), similarities[:, 0], composed)


def group_contexts(encoder: TextEncoder, contexts: Sequence[str]) -> list[list[str]]:
    """The contexts in as many groups as take turns. Those of a group have ends of like length: rows are as long as the longest."""
    count = max(1, min(GROUPS, len(contexts)))
    ordered = sorted(contexts, key=lambda context: len(encoder.tokenizer.encode(split_context(context)[1])))
    return [ordered[len(ordered) * i // count : len(ordered) * (i + 1) // count] for i in range(count)]


def encode_targets_in(encoder: TextEncoder, prompt: HardPrompt, contexts: Sequence[str]) -> Tensor:
    """(b, e) what the encoder makes of the hard prompt in each context, not of unit length; for one in pieces, their mean.

    Of variants it is the weighted mean of their directions, as long as they are on the average.
    """
    return encode_targets(encoder, [(prompt, contexts)])[0]


def encode_targets(encoder: TextEncoder, wanted: Sequence[tuple[HardPrompt, Sequence[str]]]) -> list[Tensor]:
    """As `targets_in`, of several hard prompts and each one's contexts in one pass: for short prompts that is many times quicker."""
    rows = [
        row
        for prompt, contexts in wanted
        for context in contexts
        for row in rows_in_context(encoder, context, prompt.pieces)
    ]
    outputs = encoder.encode_rows(rows, unit=False)
    found, at = [], 0
    for prompt, contexts in wanted:
        end = at + len(contexts) * len(prompt.pieces)
        each = outputs[at:end].view(len(contexts), len(prompt.pieces), encoder.config.embed_dim)
        found.append(_weighted(each, prompt) if prompt.variants else each.mean(1))
        at = end
    return found


def _weighted(each: Tensor, prompt: HardPrompt) -> Tensor:
    """(b, e) of the outputs (b, pieces of all variants, e)."""
    parts = each.split_with_sizes([len(one.pieces) for _, one in prompt.variants], dim=1)
    means = [(share, part.mean(1)) for (share, _), part in zip(prompt.variants, parts, strict=True)]
    mean = torch.stack([share * F.normalize(output, dim=-1) for share, output in means]).sum(0)
    length = torch.stack([share * output.norm(dim=-1, keepdim=True) for share, output in means]).sum(0)
    return F.normalize(mean, dim=-1) * length
