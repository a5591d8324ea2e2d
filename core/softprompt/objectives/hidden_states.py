"""Hidden-state similarity: how similar two prompts are in the states that a diffusion model uses.

The cross-attention of Stable Diffusion uses the state at every position, not the pooled embedding, and prompts of
different lengths have different numbers of states. Every position is therefore matched with the most similar position
of the other prompt. The similarity is the mean of these cosines over each prompt's positions, averaged over the two
prompts. BERTScore (Zhang et al. 2020) uses the harmonic mean of the two instead. That has a pole where they add up to
0, which is possible because cosines may be negative. If the two are close to each other, so are both kinds of mean.

Only content positions are matched, without the start token, end token and padding. The start token's state is the same
in every prompt. Diffusion models also use the end token and the padding, which summarize the prompt if attention is
causal, but these are up to 74 nearly equal positions and would outweigh a few words. `flux` compares the end token's
own state; `similarity` compares the same state after projection. In a causal tower, padding does not affect the states
of the content, so it does not matter how a program pads. In other towers it
does, and the padding is that of this encoder.

The value describes the input of a diffusion model and does not predict images: it ignores the order of positions and
how much the image model attends to each. To reach 1, a soft prompt needs as many different states as the hard prompt,
so with fewer tokens it stays below. Where states share large components, as they do before the last layer, even
unrelated prompts are close to 1, so only values of the same family are comparable.

Shapes: r sets of soft tokens, b token rows, m and n positions, w width; R rows of a training batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import TrainConfig
from softprompt.encoders.clip.rows import EncoderOutput, rows_in_context
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, option
from softprompt.objectives.base import Evaluation, HardPrompt, SlotTarget
from softprompt.objectives.losses import cosines, row_losses
from softprompt.objectives.pooled import PooledObjective, PooledTarget, weigh_rows
from softprompt.text_states import HIDDEN_STATE_SPECS, ImageProgram, families_for

UNMATCHED = -2.0  # lower than any cosine


def best_match(a: Tensor, b: Tensor, a_is_content: Tensor, b_is_content: Tensor) -> Tensor:
    """Return the symmetric best-match cosine (…) of states `a` (…, m, w) and `b` (…, n, w).

    Only positions where `a_is_content` (…, m) or `b_is_content` (…, n) is true count.
    """
    cosines = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).transpose(-1, -2)
    # amax splits its gradient equally among ties, so the result does not depend on the order of positions
    best_of_a = cosines.masked_fill(~b_is_content.unsqueeze(-2), UNMATCHED).amax(-1)
    best_of_b = cosines.masked_fill(~a_is_content.unsqueeze(-1), UNMATCHED).amax(-2)
    return (_masked_mean(best_of_a, a_is_content) + _masked_mean(best_of_b, b_is_content)) / 2


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(-1) / mask.sum(-1)


@dataclass(frozen=True)
class HiddenStatesTarget(PooledTarget):
    """The targets of one training run: pooled embeddings and hidden states, for every turn."""

    hidden: tuple[EncoderOutput, ...]  # one per turn


class HiddenStatesObjective(PooledObjective):
    """The hidden and mixed objectives. `config.hidden_weight` is the weight of the hidden-state loss."""

    needs_all_positions = True

    def __init__(self, encoder: TextEncoder, config: TrainConfig, tokens: Sequence[int]) -> None:
        super().__init__(encoder, config, tokens)
        self.hidden: list[EncoderOutput] = []

    def prepare(self, prompts: Sequence[tuple[HardPrompt, TrainConfig, str]]) -> list[PooledTarget]:
        prepared: list[PooledTarget] = []
        for (prompt, config, _), pooled in zip(prompts, super().prepare(prompts), strict=True):
            hidden = tuple(
                HiddenStatesReference(self.encoder, prompt, contexts, config.family).output
                for contexts in pooled.contexts
            )
            prepared.append(HiddenStatesTarget(pooled.turns, pooled.contexts, pooled.skipped, hidden))
        return prepared

    def set_slots(self, slots: Sequence[SlotTarget]) -> None:
        super().set_slots(slots)
        self.hidden = [
            concat_outputs([(slot.target.hidden[turn], slot.rows) for slot in slots]) for turn in range(self.turns)
        ]

    def evaluate(self, vectors: Tensor, turn: int) -> Evaluation:
        turn_targets, hidden, weight = self.turn_targets[turn], self.hidden[turn], self.config.hidden_weight
        output = self.batches[turn].read_states(vectors, HIDDEN_STATE_SPECS[self.config.family])
        cosine = cosines(output.outputs, turn_targets.directions)
        pooled_loss: Tensor | float = 0
        if weight < 1:
            pooled_loss = row_losses(
                self.config.objective, output.outputs, cosine, turn_targets.targets, self.negatives
            )
        hidden_loss = 1 - best_match(output.states, hidden.states, output.is_content, hidden.is_content)
        return weigh_rows(weight * hidden_loss + (1 - weight) * pooled_loss, cosine, turn_targets)


def concat_outputs(slot_outputs: Sequence[tuple[EncoderOutput, int]]) -> EncoderOutput:
    """Repeat each slot's output for its rows, pad all to the longest n, and concatenate. States become (R, b, n, w)."""
    longest = max(output.is_content.shape[-1] for output, _ in slot_outputs)
    states, is_content, outputs = [], [], []
    for output, rows in slot_outputs:
        missing = longest - output.is_content.shape[-1]
        states.append(F.pad(output.states, (0, 0, 0, missing)).expand(rows, -1, -1, -1))
        is_content.append(F.pad(output.is_content, (0, missing)).expand(rows, -1, -1))
        outputs.append(output.outputs.expand(rows, -1, -1))
    return EncoderOutput(torch.cat(outputs), torch.cat(states), torch.cat(is_content))


class HiddenStatesReference:
    """Hidden states of a hard prompt in contexts, as a family uses them, for comparison with soft tokens.

    The context's own words are matched as well, because the family uses their states too.

    Raises:
        ConfigError: the family cannot be used with this encoder, or the prompt is a mix or in chunks.
    """

    def __init__(self, encoder: TextEncoder, prompt: HardPrompt, contexts: Sequence[str], family: ImageProgram) -> None:
        check_family(encoder, family)
        if len(prompt.chunks) != 1:
            raise ConfigError(
                f"the prompt consists of {len(prompt.chunks)} texts (a mix, or chunks of a long prompt), but hidden "
                f"states need a single text. Use {option('objective', 'cosine')}, or {option('long', 'cut')} for a "
                "long prompt."
            )
        self.spec = HIDDEN_STATE_SPECS[family]
        batch = encoder.batch_rows(
            [row for context in contexts for row in rows_in_context(encoder, context, prompt.chunks)]
        )
        with torch.no_grad():
            self.output = batch.read_states(None, self.spec)

    def similarities(self, output: EncoderOutput) -> Tensor:
        """Return the hidden-state similarities (r, b) of `output`: soft tokens in the same contexts."""
        return best_match(output.states, self.output.states, output.is_content, self.output.is_content)


def supported_families(encoder: TextEncoder) -> tuple[ImageProgram, ...]:
    """Return the families to measure on an encoder. flux needs an end token, which some tokenizers lack."""
    families = families_for(encoder.width, encoder.config.layers)
    return tuple(family for family in families if encoder.specials.end or not HIDDEN_STATE_SPECS[family].pooled)


def check_family(encoder: TextEncoder, family: ImageProgram) -> None:
    """Raise ConfigError if a family of diffusion models cannot be used with an encoder.

    An encoder of the family's shape with different weights is accepted as a stand-in, and so is one whose shape no
    family uses.
    """
    supported = supported_families(encoder)
    if family not in supported:
        raise ConfigError(
            f"family {family} cannot be used with {encoder.name} (width {encoder.width}, {encoder.config.layers} "
            f"layers). Supported families: {', '.join(supported)}. Example: {option('family', supported[0])}."
        )
