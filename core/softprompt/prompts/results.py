"""Measurements of a soft prompt: its readout, hard readout and fidelity in contexts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from softprompt.arguments import checked_fields, convert_fields


@dataclass(frozen=True)
class Neighbour:
    """A vocabulary token near a soft token, and the cosine between them."""

    token: str
    cosine: float


@dataclass(frozen=True)
class ReadoutToken:
    """The vocabulary token nearest to one soft token, with the next nearest as alternatives."""

    token: str
    cosine: float
    alternatives: tuple[Neighbour, ...]


@checked_fields
@dataclass(frozen=True)
class HardReadout:
    """Real words with the same meaning as the prompt. They read like gibberish, but can be pasted anywhere.

    Attributes:
        tokens: number of tokens of `text`.
        similarity: similarity of `text`, once re-tokenized, to the prompt.
        composed: mean composition fidelity of `text`, or None if it fits into no context.
        evaluated: number of texts that the search scored.
    """

    text: str
    tokens: int
    similarity: float
    composed: float | None
    method: str
    evaluated: int
    seconds: float

    def __post_init__(self) -> None:
        convert_fields(self)


@dataclass(frozen=True)
class ContextScore:
    """Similarity of a composition to its reference text in one context. `floor` is that of the prompt alone."""

    context: str
    similarity: float
    floor: float


@dataclass(frozen=True)
class ContextFidelity:
    """Composition fidelity in contexts that were not used in training."""

    contexts: tuple[ContextScore, ...]

    def __post_init__(self) -> None:
        if not self.contexts:
            raise ValueError("the composition fidelity has no contexts")

    @property
    def mean(self) -> float:
        return _mean([score.similarity for score in self.contexts])

    @property
    def worst(self) -> float:
        return min(score.similarity for score in self.contexts)

    @property
    def floor(self) -> float:
        return _mean([score.floor for score in self.contexts])


@dataclass(frozen=True)
class AnswerScore:
    """How close a language model's answers are to those with the hard prompt.

    Attributes:
        kl: the KL divergence per token, in nats.
        agreement: the share of positions at which both expect the same token.
    """

    kl: float
    agreement: float


@dataclass(frozen=True)
class AnswerSample:
    """A held-out question, and the most likely answers with the soft prompt, the hard prompt and neither."""

    question: str
    soft: str
    hard: str
    none: str


@dataclass(frozen=True)
class AnswerFidelity:
    """How well soft tokens make a language model answer as with the hard prompt, on questions not used in training.

    Attributes:
        placement: where the soft tokens stand: "system", "user" or "start".
        template: digest of the chat template, or "" for the placement "start", which uses none. The soft tokens work
            in no other template.
        questions: number of held-out questions.
        score: of the soft tokens.
        floors: of cheap alternatives, by name: "no prompt", "first tokens", "first sentence".
        samples: answers to some of the questions.
    """

    placement: str
    template: str
    questions: int
    score: AnswerScore
    floors: dict[str, AnswerScore]
    samples: tuple[AnswerSample, ...] = ()

    @property
    def floor(self) -> float:
        """The lowest KL of the alternatives that take no more tokens than the soft prompt."""
        return min((score.kl for name, score in self.floors.items() if name != "no prompt"), default=math.nan)

    @property
    def kl_share(self) -> float:
        """The KL as a share of the floor's."""
        return self.score.kl / self.floor if self.floor > 0 else math.nan

    @property
    def equal_answers(self) -> float | None:
        """Share of the samples whose answers are equal, or None without samples."""
        return _share([sample.soft == sample.hard for sample in self.samples])

    @property
    def kept_answers(self) -> float | None:
        """Of the answers that the hard prompt leaves as they are without it, the share that the soft prompt leaves."""
        return _share([sample.soft == sample.hard for sample in self.samples if sample.hard == sample.none])


@dataclass(frozen=True)
class ExampleSource:
    """Where examples come from. Their texts are not kept.

    Attributes:
        file: the file's name, or "" for a list.
        sha256: of the file. For a list, of the JSON Lines file that has the same pairs.
        count: number of examples that were used.
    """

    file: str
    sha256: str
    count: int


@dataclass(frozen=True)
class ExampleScore:
    """How well a language model gives the outputs of examples.

    Attributes:
        loss: the cross-entropy per token of the output, in nats, averaged over the examples.
        accuracy: the share of examples whose most likely answer is exactly the output.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class ExampleSample:
    """A held-out example, and the answers with the soft prompt, the few-shot prompt and neither. Long texts are cut."""

    input: str
    output: str
    soft: str
    few_shot: str
    none: str


@dataclass(frozen=True)
class ExampleFidelity:
    """How well soft tokens make a language model answer as in examples, on examples not used in training.

    Attributes:
        placement: where the soft tokens stand: "system", "user" or "start".
        template: digest of the chat template, or "" for the placement "start", which uses none. The soft tokens work
            in no other template.
        training, held_out: where the examples come from.
        shots: number of training examples in the few-shot prompt: as many as fit.
        score: of the soft tokens.
        floors: of alternatives, by name: "untrained", the soft tokens before training; "few-shot"; "no prompt".
        samples: answers to some of the held-out examples.
    """

    placement: str
    template: str
    training: ExampleSource
    held_out: ExampleSource
    shots: int
    score: ExampleScore
    floors: dict[str, ExampleScore]
    samples: tuple[ExampleSample, ...] = ()


def _share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _mean(values: list[float]) -> float:
    import numpy as np  # not needed to list runs

    return float(np.mean(values))
