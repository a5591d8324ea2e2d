"""Hidden-state similarity: how near two prompts are in what a diffusion model reads, which is not the pooled embedding.

The cross-attention of Stable Diffusion reads a state at every position, and prompts of different length have different numbers of
them. So each position is matched with the most similar one of the other prompt: the mean of these cosines over the one prompt's
positions, and over the other's, and the mean of the two (BERTScore, Zhang et al. 2020, which takes the harmonic mean: that one has a
pole where the two cancel, and cosines may be negative; where they are alike, the two means are too).

Only the words' positions are matched. The start token's state is the same in every prompt. The end token and the pads are read as well,
and where attention is causal they carry a summary of the prompt, but there are up to 74 of them against a few words, nearly alike among
themselves: matched too, they would hide the words. The end token's own state is what `flux` and, projected, `similarity` compare.
Pads never reach the words' states in a causal tower, so a program's own padding makes no difference; in others it is this encoder's.

It is a guide to what is read and no promise about images: a match disregards order, and nothing weighs positions by how much an image
model looks at them. One is reached only with as many different states as the hard prompt has; fewer soft tokens than words stay below.
It is close to one for unlike prompts too where states share large components, as before the last layer: compare values of one family.

Shapes: r sets of soft tokens, b rows, m and n positions, w width.
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
from softprompt.errors import ConfigError
from softprompt.objectives.base import Evaluation, HardPrompt, Seat
from softprompt.objectives.losses import cosines, row_losses
from softprompt.objectives.pooled import PooledObjective, PooledTarget, evaluation
from softprompt.text_states import READS, ImageProgram, families_of

UNMATCHED = -2.0  # below every cosine


def best_match(ours: Tensor, theirs: Tensor, our_words: Tensor, their_words: Tensor) -> Tensor:
    """(…) symmetric best-match cosine of states (…, m, w) and (…, n, w); (…, m) and (…, n) say which positions count."""
    cosines = F.normalize(ours, dim=-1) @ F.normalize(theirs, dim=-1).transpose(-1, -2)
    # amax shares its gradient among equals, so that nothing depends on the order of positions
    of_ours = cosines.masked_fill(~their_words.unsqueeze(-2), UNMATCHED).amax(-1)
    of_theirs = cosines.masked_fill(~our_words.unsqueeze(-1), UNMATCHED).amax(-2)
    return (_mean(of_ours, our_words) + _mean(of_theirs, their_words)) / 2


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return (values * counted).sum(-1) / counted.sum(-1)


@dataclass(frozen=True)
class MatchedTarget(PooledTarget):
    """What one training is compared with: pooled embeddings and, turn by turn, hidden states."""

    hidden: tuple[EncoderOutput, ...]


class HiddenStatesObjective(PooledObjective):
    """The best match of hidden states, alone or mixed with the pooled objective by `config.share_of_hidden`."""

    runs_whole_rows = True

    def __init__(self, encoder: TextEncoder, config: TrainConfig, tokens: Sequence[int]) -> None:
        super().__init__(encoder, config, tokens)
        self.hidden: list[EncoderOutput] = []

    def prepare(self, prompts: Sequence[tuple[HardPrompt, TrainConfig]]) -> list[PooledTarget]:
        prepared: list[PooledTarget] = []
        for (prompt, config), pooled in zip(prompts, super().prepare(prompts), strict=True):
            hidden = tuple(HiddenTarget(self.encoder, prompt, around, config.family).read for around in pooled.around)
            prepared.append(MatchedTarget(pooled.turns, pooled.around, pooled.skipped, hidden))
        return prepared

    def seat(self, seats: Sequence[Seat]) -> None:
        super().seat(seats)
        self.hidden = [joined([(seat.target.hidden[turn], seat.rows) for seat in seats]) for turn in range(self.turns)]

    def evaluate(self, vectors: Tensor, turn: int) -> Evaluation:
        seated, hidden, share = self.seated[turn], self.hidden[turn], self.config.share_of_hidden
        read = self.rows[turn].read(vectors, READS[self.config.family])
        cosine = cosines(read.outputs, seated.directions)
        pooled: Tensor | float = 0
        if share < 1:
            pooled = row_losses(self.config.objective, read.outputs, cosine, seated.targets, self.others)
        matched = 1 - best_match(read.states, hidden.states, read.words, hidden.words)
        return evaluation(share * matched + (1 - share) * pooled, cosine, seated)


def joined(reads: Sequence[tuple[EncoderOutput, int]]) -> EncoderOutput:
    """What trainings read of their hard prompts, each as often as it has rows: states (R, b, n, w), n being the longest's."""
    longest = max(read.words.shape[-1] for read, _ in reads)
    states, words, outputs = [], [], []
    for read, r in reads:
        missing = longest - read.words.shape[-1]
        states.append(F.pad(read.states, (0, 0, 0, missing)).expand(r, -1, -1, -1))
        words.append(F.pad(read.words, (0, missing)).expand(r, -1, -1))
        outputs.append(read.outputs.expand(r, -1, -1))
    return EncoderOutput(torch.cat(outputs), torch.cat(states), torch.cat(words))


class HiddenTarget:
    """What a family reads of a hard prompt in some contexts: how near soft tokens in the same contexts come to it.

    The context's words are matched as well, for they are read as well. Raises ConfigError for a family that does not read such an
    encoder, and for a prompt of several texts, which have no one sequence of states.
    """

    def __init__(self, encoder: TextEncoder, prompt: HardPrompt, contexts: Sequence[str], family: ImageProgram) -> None:
        check_family(encoder, family)
        if len(prompt.pieces) != 1:
            raise ConfigError(
                f"the prompt is {len(prompt.pieces)} texts (pieces of a long one, or those of a mix), which have no one sequence of "
                "hidden states: the objective cosine trains on their mean; of a long prompt, --long cut makes one text"
            )
        self.reads = READS[family]
        frame = encoder.batch_rows(
            [row for context in contexts for row in rows_in_context(encoder, context, prompt.pieces)]
        )
        with torch.no_grad():
            self.read = frame.read(None, self.reads)

    def similarities(self, read: EncoderOutput) -> Tensor:
        """(r, b) of what a frame of soft tokens in the same contexts reads."""
        return best_match(read.states, self.read.states, read.words, self.read.words)


def measured_families(encoder: TextEncoder) -> tuple[ImageProgram, ...]:
    """List the families that can be measured: flux reads the end token, which not every tokenizer writes."""
    fitting = families_of(encoder.width, encoder.config.layers)
    return tuple(family for family in fitting if encoder.specials.end or not READS[family].pooled)


def check_family(encoder: TextEncoder, family: ImageProgram) -> None:
    """Raises ConfigError for a family of diffusion models that reads an encoder of another shape.

    Other weights of the right shape may stand in for those that it reads.
    """
    fitting = measured_families(encoder)
    if family not in fitting:
        raise ConfigError(
            f"family is {family}, which does not read {encoder.name} (width {encoder.width}, {encoder.config.layers} layers); "
            f"what reads one of that shape: {', '.join(fitting)}, as in --family {fitting[0]}"
        )
