"""How a soft prompt is trained: one frozen dataclass, checked when it is built."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, Literal, get_args

from softprompt.errors import ConfigError, DeviceError, check_text
from softprompt.prompts.contexts import TRAINING_CONTEXTS, check_context
from softprompt.text_states import ImageProgram

Init = Literal["noise", "vocabulary", "prompt", "soft"]
ObjectiveName = Literal["cosine", "mse", "contrastive", "hidden", "mixed"]
Long = Literal["refuse", "chunk", "cut"]
Method = Literal["exchange", "pez"]
Words = Literal["any", "ascii", "dictionary"]
HardInit = Literal["words", "random"]

MAX_STEPS, MAX_RESTARTS = 100_000, 256  # a history of 300 MB
MAX_HARD_TOKENS = 64
MAX_TOKENS = 4096  # no text encoder's context is nearly that long
MAX_SWEPT_COUNTS = 64  # numbers of tokens in one sweep
PRECISIONS = ("float32", "bfloat16")
_DEVICE = re.compile(r"auto|(?:cpu|cuda|mps)(?::[0-9]{1,4})?")
AUTO_STOP_AT = 0.99  # what "auto" is to reach where nothing else is said


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training. Raises ConfigError for what cannot work.

    tokens: how many soft tokens, or "auto" for the fewest that reach `stop_at`.
    steps: the most optimizer steps; the learning rate falls to zero over them along a cosine.
    rate: Adam's learning rate, in standard deviations of the model's token table, so that it means the same on every model.
    init: noise of the token table's deviation, random vocabulary tokens, the prompt's own words, or a given soft prompt.
    objective: cosine distance; mean squared error before normalisation; or cosine distance with a contrastive term (InfoNCE)
        that also pushes away from the prompts in `against`; or hidden, the distance of the states that diffusion models of `family`
        read (softprompt.objectives.hidden_states), and mixed, `hidden_share` of that and the rest of cosine distance.
    project_norm: hold every soft token at or under the vocabulary's mean norm (a projection after each step).
    contexts: sentences around `{}` that the soft prompt is trained inside as well as alone; () trains it alone.
    restarts: trained at once in one batch, from different noise; the best is kept.
    stop_at: stop when the similarity (always the pooled one) alone, and the mean in the training contexts, reach this.
    patience: stop when the loss has not fallen by a thousandth of itself for this many steps.
    seed: decides noise and choice; on cpu, the same seed gives the same bits.
    long: what to do with a hard prompt longer than the context: refuse it, train on the mean of its chunks, or cut it.
    """

    tokens: int | Literal["auto"] = 10
    steps: int = 300
    rate: float = 1.0
    init: Init = "noise"
    objective: ObjectiveName = "cosine"
    against: tuple[str, ...] = ()
    family: ImageProgram = "sd1"
    hidden_share: float = (
        0.3  # keeps nearly all of the pooled similarity and of the hidden states': tests/benchmarks/hidden.py
    )
    project_norm: bool = True
    contexts: tuple[str, ...] = TRAINING_CONTEXTS
    restarts: int = 1
    stop_at: float | None = None
    patience: int | None = None
    seed: int = 0
    long: Long = "refuse"

    def __post_init__(self) -> None:
        for name in ("against", "contexts"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        if self.tokens != "auto":
            _whole("tokens", self.tokens, 1, MAX_TOKENS, "10 soft tokens are usual, 3 are often enough")
        elif self.stop_at is None:
            raise ConfigError(
                "tokens is auto, but stop_at is not set: auto finds the fewest tokens that reach it; --stop-at 0.99, for example"
            )
        _whole("steps", self.steps, 1, MAX_STEPS, "300 are usual")
        _whole("restarts", self.restarts, 1, MAX_RESTARTS, "1 is usual, 4 or 8 find a slightly better soft prompt")
        _whole("seed", self.seed, 0, 2**63 - 1, "0 is usual")
        _number("rate", self.rate, 0.0, 100.0, "1 is usual; it is given in standard deviations of the token table")
        if self.stop_at is not None:
            _number("stop_at", self.stop_at, -1.0, 1.0, "a similarity such as 0.99")
        if self.patience is not None:
            _whole("patience", self.patience, 1, None, "50 steps, for example")
        for name, allowed in (("init", Init), ("objective", ObjectiveName), ("family", ImageProgram), ("long", Long)):
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise ConfigError(f"{name} is {value!r}; it can be {', '.join(get_args(allowed))}")
        if self.contexts is not TRAINING_CONTEXTS:  # a tenth of the time to read a run, of which there may be thousands
            for context in self.contexts:
                check_context(check_text("context", context, ConfigError))
        for other in self.against:
            check_text("text of against", other, ConfigError)
        if self.objective == "contrastive" and not self.against:
            raise ConfigError(
                "the contrastive objective needs at least one other prompt to be told apart from: --against TEXT"
            )
        if self.objective != "contrastive" and self.against:
            raise ConfigError(
                f"against is set, but the objective is {self.objective}: only the contrastive objective uses it"
            )

        _number("hidden_share", self.hidden_share, 0.0, 1.0, "0.3 is usual; the rest is the pooled similarity's")
        if self.family != TrainConfig.family and self.objective not in ("hidden", "mixed"):
            raise ConfigError(
                f"family is {self.family}, but the objective is {self.objective}: only hidden and mixed train for one; --objective mixed"
            )
        if self.hidden_share != TrainConfig.hidden_share and self.objective != "mixed":
            raise ConfigError(
                f"hidden_share is set, but the objective is {self.objective}: only the mixed objective uses it"
            )

    @property
    def share_of_hidden(self) -> float:
        """Which share of the loss is the hidden states'."""
        return {"hidden": 1.0, "mixed": self.hidden_share}.get(self.objective, 0.0)

    @property
    def plan(self) -> Hashable:
        """What trainings must have in common to be one batch; rate, steps, restarts, seed and ends are each one's own."""
        return (self.tokens, self.contexts, self.objective, self.against, self.family, self.hidden_share)

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `as_dict`; settings that this version does not know are an error."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ConfigError(
                f"unknown settings: {', '.join(sorted(unknown))[:200]}; a newer version may know them: update softprompt-tui"
            )
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        for name in ("contexts", "against"):
            texts = plain.get(name, ())
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise ConfigError(f"{name} is {_shown(texts)}; it must be a list of texts")
        if plain.get("contexts") == TRAINING_CONTEXTS:
            plain["contexts"] = TRAINING_CONTEXTS
        return cls(**plain)


@dataclass(frozen=True)
class HardConfig:
    """How a hard readout is looked for: real tokens whose typed text means the hard prompt. Raises ConfigError for what cannot work.

    tokens: how many; None for as many as the soft prompt has.
    method: exchange of single tokens, which the gradient proposes and the encoder judges, or PEZ (Wen et al. 2023).
    steps: rounds of the one, optimizer steps of the other; None for the method's own number.
    seconds: end after so long, whatever the steps; None for no such end, and the same result for the same seed.
    init: the prompt's own words beside random tokens, or random tokens only.
    words: any token that survives being typed, those in ASCII, or those that are whole words of ASCII letters.
    block: texts that must not stand in it.
    """

    tokens: int | None = None
    method: Method = "exchange"
    steps: int | None = None
    restarts: int = 4
    seconds: float | None = None
    init: HardInit = "words"
    words: Words = "any"
    block: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", _texts("block", self.block))
        if self.tokens is not None:
            _whole("tokens of the hard readout", self.tokens, 1, MAX_HARD_TOKENS, "8 are usual")
        if self.steps is not None:
            _whole("steps of the hard readout", self.steps, 1, MAX_STEPS, "leave it out for the method's own number")
        _whole("restarts of the hard readout", self.restarts, 1, MAX_RESTARTS, "4 are usual")
        _whole("seed", self.seed, 0, 2**63 - 1, "0 is usual")
        if self.seconds is not None:
            _number("seconds of the hard readout", self.seconds, 0.0, 86_400.0, "10, for example")
        for name, allowed in (("method", Method), ("init", HardInit), ("words", Words)):
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise ConfigError(f"{name} is {value!r}; it can be {', '.join(get_args(allowed))}")
        for text in self.block:
            check_text("text of block", text, ConfigError)

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {**vars(self), "block": list(self.block)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> HardConfig:
        """The inverse of `as_dict`; raises ConfigError or TypeError for other values."""
        return cls(**values)


def _texts(name: str, value: object) -> tuple[str, ...]:
    """Return the texts of a setting. One text is a list of one, not of its letters."""
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not all(isinstance(text, str) for text in texts) or (not texts and value not in ((), [])):
        raise ConfigError(f"{name} is {value!r:.80}; it must be a text or a list of texts")
    return texts


USUAL_SWEEP = tuple(range(1, 17))


def check_sweep(numbers: Iterable[int]) -> tuple[int, ...]:
    """The numbers of tokens of a sweep, each once and in order. Raises ConfigError, also for a range without end."""
    given = set(islice(numbers, MAX_TOKENS + 1))
    if not 1 <= len(given) <= MAX_SWEPT_COUNTS:
        more = " or more" if len(given) > MAX_TOKENS else ""
        raise ConfigError(
            f"a sweep of {len(given):,}{more} numbers of tokens; it takes from 1 to {MAX_SWEPT_COUNTS} of them: 1-16, or 1,2,4,8"
        )
    for number in given:
        _whole("a number of tokens", number, 1, MAX_TOKENS, "1 to 16 are usual")
    return tuple(sorted(given))


def check_device(name: str) -> None:
    """Raises DeviceError for what is the name of a device on no machine."""
    if not _DEVICE.fullmatch(name):
        raise DeviceError(
            f"device is {name[:40]!r}; it can be auto, cpu, cuda, cuda:1 or mps: auto finds the best one here"
        )


def check_precision(name: str) -> None:
    """Raises ConfigError for a precision that no model is run in."""
    if name not in PRECISIONS:
        raise ConfigError(f"precision is {name[:40]!r}; it can be {' or '.join(PRECISIONS)}: float32 is usual")


def _whole(name: str, value: object, least: int, most: int | None, advice: str) -> None:
    bound = f"at least {least:,}" if most is None else f"from {least:,} to {most:,}"
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        raise ConfigError(f"{name} is {_shown(value)}; it must be a whole number {bound} ({advice})")


def _shown(value: object) -> str:
    """A value in a message: of a number with thousands of digits, which Python would not even print, only that it is large."""
    return "a number of very many digits" if isinstance(value, int) and value.bit_length() > 300 else repr(value)[:80]


def _number(name: str, value: object, over: float, most: float, advice: str) -> None:
    # a comparison refuses what is no number as well, and takes whole numbers of any length
    if not isinstance(value, int | float) or isinstance(value, bool) or not over < value <= most:
        raise ConfigError(f"{name} is {_shown(value)}; it must be over {over:g} and at most {most:g} ({advice})")
