"""The pooled objective: train soft tokens to have the hard prompt's pooled embedding, alone and in contexts.

In every context, the target of a mix is the weighted mean of its texts' unit embeddings.

Shapes: R rows, k soft tokens, w width, b contexts (the prompt alone first), c chunks, e embed_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import LongPromptPolicy, TrainConfig
from softprompt.encoders.base import check_token_count
from softprompt.encoders.clip.context_batch import ContextBatch
from softprompt.encoders.clip.rows import ALONE, contexts_with_room, rows_in_context
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.objectives.base import Evaluation, HardPrompt, SlotTarget
from softprompt.objectives.hard_prompt import contexts_that_fit, tokenize_target
from softprompt.objectives.losses import cosines, row_losses
from softprompt.prompts.contexts import split_context
from softprompt.prompts.lineage import WeightedText

MAX_TURNS = 4  # a quarter of the contexts per step trains as well as all of them, and 2.5 times as fast (measured)
ALONE_WEIGHT = 0.3  # the loss weight of the prompt alone; the contexts share the rest
SAVED_WIDTHS_PER_POSITION = 40  # upper bound: a block saves 40 x width numbers per position for its backward pass


@dataclass(frozen=True)
class TurnTargets:
    """The targets and weights of one turn. In a batch, every tensor has a leading dimension R."""

    targets: Tensor  # (b, e), not normalized
    loss_weights: Tensor  # (b,)
    composed_weights: Tensor  # (b,) for the composed similarity, a weighted mean

    @cached_property
    def directions(self) -> Tensor:
        """The targets as unit vectors."""
        return F.normalize(self.targets, dim=-1)


@dataclass(frozen=True)
class PooledTarget:
    """The targets of one training run, for every turn."""

    turns: tuple[TurnTargets, ...]
    contexts: tuple[tuple[str, ...], ...]  # of every turn; ALONE replaces contexts without room
    skipped: tuple[str, ...]


class PooledObjective:
    """The cosine, mse and contrastive objectives. Implements `Objective`; its methods are documented there.

    Args:
        tokens: the token counts that occur in the batch.

    Raises:
        ConfigError: the largest count does not fit into the model's context length.
    """

    needs_all_positions = False
    similarity_varies = False

    def __init__(self, encoder: TextEncoder, config: TrainConfig, tokens: Sequence[int]) -> None:
        self.encoder, self.config, self.token_counts = encoder, config, sorted(set(tokens))
        check_token_count(encoder, self.token_counts[-1])
        self.contexts = contexts_with_room(encoder, config.contexts, self.token_counts[-1])
        self.groups = group_contexts(encoder, self.contexts)
        self.batches = [
            ContextBatch(encoder, [ALONE, *group], self.token_counts, self.needs_all_positions) for group in self.groups
        ]
        self.negatives = encoder.encode(config.against) if config.against else None
        self.turn_targets: list[TurnTargets] = []

    @property
    def turns(self) -> int:
        return len(self.groups)

    @property
    def positions(self) -> int:
        return max(batch.positions for batch in self.batches)

    @property
    def row_bytes(self) -> int:
        encoder = self.encoder
        position_bytes = (
            SAVED_WIDTHS_PER_POSITION * encoder.width * encoder.config.layers * encoder.tower.table.element_size()
        )
        return self.positions * position_bytes

    def tokenize(self, text: str, meanings: Sequence[WeightedText], long: LongPromptPolicy) -> HardPrompt:
        return tokenize_target(self.encoder, text, meanings, long)

    def prepare(self, prompts: Sequence[tuple[HardPrompt, TrainConfig, str]]) -> list[PooledTarget]:
        fits = [contexts_that_fit(self.encoder, prompt, self.contexts, self.token_counts[-1]) for prompt, *_ in prompts]
        encoded = encode_targets(
            self.encoder, [(prompt, [ALONE, *fit]) for (prompt, *_), fit in zip(prompts, fits, strict=True)]
        )
        prepared = []
        for (_, config, _key), fit, targets in zip(prompts, fits, encoded, strict=True):
            by_context = dict(zip([ALONE, *fit], targets, strict=True))
            turns = tuple(self._turn_targets(group, by_context) for group in self.groups)
            # a context without room for the prompt gets the target of the prompt alone, with weight 0
            contexts = tuple(
                (ALONE, *(context if context in by_context else ALONE for context in group)) for group in self.groups
            )
            skipped = tuple(context for context in config.contexts if context not in by_context)
            prepared.append(PooledTarget(turns, contexts, skipped))
        return prepared

    def _turn_targets(self, group: list[str], targets: dict[str, Tensor]) -> TurnTargets:
        fits_mask = torch.tensor([1.0, *(float(context in targets) for context in group)])
        in_context = fits_mask.clone()
        in_context[0] = 0.0
        count = in_context.sum()
        alone_weight = ALONE_WEIGHT if bool(count) else 1.0
        loss_weights = in_context * (1 - alone_weight) / count.clamp(min=1)
        loss_weights[0] = alone_weight
        composed_weights = in_context / count if bool(count) else fits_mask
        contexts = [ALONE, *(context if context in targets else ALONE for context in group)]
        device = self.encoder.device
        return TurnTargets(
            torch.stack([targets[context] for context in contexts]),
            loss_weights.to(device),
            composed_weights.to(device),
        )

    def set_slots(self, slots: Sequence[SlotTarget]) -> None:
        self.turn_targets = []
        for turn in range(self.turns):
            repeated = [(slot.target.turns[turn], slot.rows) for slot in slots]
            targets, loss_weights, composed_weights = (
                torch.cat([getattr(target, name).expand(r, *getattr(target, name).shape) for target, r in repeated])
                for name in ("targets", "loss_weights", "composed_weights")
            )
            self.turn_targets.append(TurnTargets(targets, loss_weights, composed_weights))
        tokens = [slot.tokens for slot in slots for _ in range(slot.rows)]
        for batch in self.batches:
            batch.set_token_counts(tokens)

    def evaluate(self, vectors: Tensor, turn: int) -> Evaluation:
        turn_targets, outputs = self.turn_targets[turn], self.batches[turn].outputs(vectors)
        cosine = cosines(outputs, turn_targets.directions)
        return weigh_rows(
            row_losses(self.config.objective, outputs, cosine, turn_targets.targets, self.negatives),
            cosine,
            turn_targets,
        )


def weigh_rows(losses: Tensor, cosine: Tensor, turn_targets: TurnTargets) -> Evaluation:
    """Combine the losses and cosines (R, b) in a turn's contexts into its evaluation."""
    similarities = cosine.detach()
    composed = (similarities * turn_targets.composed_weights).sum(-1)
    return Evaluation((losses * turn_targets.loss_weights).sum(-1), similarities[:, 0], composed)


def group_contexts(encoder: TextEncoder, contexts: Sequence[str]) -> list[list[str]]:
    """Split contexts into one group per turn.

    Token rows are padded to the longest of their group, so contexts with about as many tokens after `{}` go together.
    """
    count = max(1, min(MAX_TURNS, len(contexts)))
    ordered = sorted(contexts, key=lambda context: len(encoder.tokenizer.encode(split_context(context)[1])))
    return [ordered[len(ordered) * i // count : len(ordered) * (i + 1) // count] for i in range(count)]


def encode_target(encoder: TextEncoder, prompt: HardPrompt, contexts: Sequence[str]) -> Tensor:
    """Return the target (b, e) of a hard prompt in each context, not normalized.

    - Short prompt: its pooled embedding.
    - Prompt in chunks: the mean of the chunks' pooled embeddings.
    - Mix: the weighted mean of its texts' unit vectors, scaled to the weighted mean of their norms.
    """
    return encode_targets(encoder, [(prompt, contexts)])[0]


def encode_targets(encoder: TextEncoder, prompts: Sequence[tuple[HardPrompt, Sequence[str]]]) -> list[Tensor]:
    """Return the targets of several hard prompts, each in its own contexts. A single pass is many times faster."""
    rows = [
        row
        for prompt, contexts in prompts
        for context in contexts
        for row in rows_in_context(encoder, context, prompt.chunks)
    ]
    outputs = encoder.encode_rows(rows, unit=False)
    targets, start = [], 0
    for prompt, contexts in prompts:
        end = start + len(contexts) * len(prompt.chunks)
        chunk_outputs = outputs[start:end].view(len(contexts), len(prompt.chunks), encoder.config.embed_dim)
        targets.append(_mix(chunk_outputs, prompt) if prompt.variants else chunk_outputs.mean(1))
        start = end
    return targets


def _mix(chunk_outputs: Tensor, prompt: HardPrompt) -> Tensor:
    """Return the target (b, e) of a mix, given the embeddings (b, c, e) of all its chunks."""
    parts = chunk_outputs.split_with_sizes([len(variant.chunks) for _, variant in prompt.variants], dim=1)
    means = [(share, part.mean(1)) for (share, _), part in zip(prompt.variants, parts, strict=True)]
    direction = torch.stack([share * F.normalize(output, dim=-1) for share, output in means]).sum(0)
    norm = torch.stack([share * output.norm(dim=-1, keepdim=True) for share, output in means]).sum(0)
    return F.normalize(direction, dim=-1) * norm
