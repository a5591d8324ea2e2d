"""Settings for training and for the hard-readout search: frozen dataclasses, validated on creation."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, Literal, TypedDict, get_args

from softprompt.argument_types import check_ordered, describe, list_of_strings, plain_value
from softprompt.arguments import checked_fields
from softprompt.errors import ConfigError, DeviceError, check_text, command, option, wording
from softprompt.prompts.contexts import TRAINING_CONTEXTS, check_context
from softprompt.prompts.questions import MAX_QUESTIONS
from softprompt.text_states import ImageProgram

Init = Literal["noise", "vocabulary", "prompt", "first", "soft"]
ObjectiveName = Literal["cosine", "mse", "contrastive", "hidden", "mixed", "distill", "examples"]
ModelKind = Literal["text", "causal"]
"""A text encoder, or a causal language model."""
Placement = Literal["system", "user", "start"]
"""Where soft tokens stand: in place of the system text, before the user's text, or before a text without a template."""
LongPromptPolicy = Literal["refuse", "chunk", "cut"]
HardMethod = Literal["exchange", "pez"]
WordFilter = Literal["any", "ascii", "dictionary"]
HardInit = Literal["words", "random"]

MAX_STEPS, MAX_RESTARTS = 100_000, 256  # at both limits, one run's history takes 300 MB
MAX_HARD_TOKENS = 64
MAX_TOKENS = 4096  # far above any text encoder's context length
MAX_CONTEXTS = MAX_AGAINST = 1000  # each costs an encoded text or two
MAX_QUESTION_CHARACTERS = 300_000  # in all: a run's specification and an entry must hold them
MAX_SELF_STUDY = 1000
MAX_PATIENCE = 1_000_000_000
MAX_SWEPT_COUNTS = 64  # token counts in one sweep
PRECISIONS = ("float32", "bfloat16")
_DEVICE = re.compile(r"auto|(?:cpu|cuda|mps)(?::[0-9]{1,4})?")
AUTO_STOP_AT = 0.99  # the default similarity goal of tokens="auto"
AUTO_KL_SHARE = 0.4  # with the distill objective: the default share of the floor's KL


class TrainSettings(TypedDict, total=False):
    """The fields of TrainConfig, as keyword arguments: `train(encoder, text, tokens=3)`."""

    tokens: int | Literal["auto"]
    steps: int
    rate: float
    init: Init
    objective: ObjectiveName
    against: str | Sequence[str]
    family: ImageProgram
    hidden_share: float
    project_norm: bool
    contexts: str | Sequence[str]
    restarts: int
    stop_at: float | None
    patience: int | None
    seed: int
    long: LongPromptPolicy
    placement: Placement
    questions: str | Sequence[str]
    self_study: int
    instruction: str


class HardSettings(TypedDict, total=False):
    """The fields of HardConfig, without `tokens`, as keyword arguments: `find_hard(encoder, prompt, 8, seconds=5)`."""

    method: HardMethod
    steps: int | None
    restarts: int
    seconds: float | None
    init: HardInit
    words: WordFilter
    block: str | Sequence[str]
    seed: int


@checked_fields
@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. Raises ConfigError for invalid values.

    Attributes:
        tokens: number of soft tokens, or "auto" for the fewest that reach `stop_at`.
        steps: maximum number of optimizer steps, over which the learning rate falls to zero along a cosine.
        rate: Adam's learning rate in standard deviations of the token table, so that one value suits every model.
        init: what to start from: "noise" with the token table's standard deviation; "vocabulary", random ordinary
            tokens; "prompt", evenly spaced tokens of the prompt; "first", its first tokens; or "soft", the soft prompt
            passed as `start`.
        objective: "cosine" distance; "mse", the mean squared error before normalization; "contrastive", cosine distance
            plus an InfoNCE term that pushes away from `against`; "hidden", the distance between the hidden states that
            image programs of `family` use (softprompt.objectives.hidden_states); "mixed", the hidden loss with
            weight `hidden_share` plus cosine distance with the remaining weight; or, for causal language models only,
            "distill", the KL divergence from the model's own answers with the hard prompt in place, and "examples", the
            cross-entropy of the outputs of examples.
        against: prompts to push away from ("contrastive" only).
        family: the image programs whose hidden states are matched ("hidden" and "mixed" only).
        hidden_share: weight of the hidden loss ("mixed" only).
        project_norm: after each step, scale every soft token down to at most the vocabulary's mean norm.
        contexts: sentence templates with `{}`, by default sixteen short ones. The soft prompt is trained alone and
            inside them; with (), only alone.
        restarts: number of starts from different noise, trained in one batch. The best result counts.
        stop_at: stop when both the similarity alone and the mean similarity in the contexts reach this value. With
            the objective "distill", only tokens="auto" uses it: as the largest share of the floor's KL to accept.
        patience: stop when the loss has not fallen by 0.1 % within this many steps.
        seed: seed for noise and random choices. On the CPU, the same seed and the same number of threads give
            bit-identical results. The number of threads depends on the load; to fix it, call torch.set_num_threads(1)
            or set OMP_NUM_THREADS=1.
        long: what to do with a prompt longer than the context length: "refuse" it, "chunk" it and train on
            the mean of the chunks, or "cut" it.
        placement: where the soft tokens stand: in place of the system text ("system"), before the user's text
            ("user"), or before a plain text without a chat template ("start"). "distill" and "examples" only.
        questions: what the model is asked ("distill" only); with (), a built-in list. A quarter is held out for
            grading.
        self_study: number of questions that the model writes itself about the prompt, in addition ("distill" only).
        instruction: the text to start from with init="first" or "prompt", in place of a prompt ("examples" only).
    """

    tokens: int | Literal["auto"] = 3
    steps: int = 300
    rate: float = 1.0
    init: Init = "noise"
    objective: ObjectiveName = "cosine"
    against: tuple[str, ...] = ()
    family: ImageProgram = "sd1"
    hidden_share: float = 0.3  # costs almost no pooled or hidden-state similarity (tests/benchmarks/hidden.py)
    project_norm: bool = True
    contexts: tuple[str, ...] = TRAINING_CONTEXTS
    restarts: int = 1
    stop_at: float | None = None
    patience: int | None = None
    seed: int = 0
    long: LongPromptPolicy = "refuse"
    placement: Placement = "system"
    questions: tuple[str, ...] = ()
    self_study: int = 0
    instruction: str = ""

    def __post_init__(self) -> None:
        _convert_numbers(self)
        if self.needs_language_model and self.contexts is TRAINING_CONTEXTS:  # questions or examples take their place
            object.__setattr__(self, "contexts", ())
        for name in ("against", "contexts", "questions"):
            object.__setattr__(self, name, _as_texts(name, getattr(self, name)))
        if not isinstance(self.project_norm, bool):
            raise ConfigError(f"project_norm is {_format_value(self.project_norm)}; it must be True or False")
        if not isinstance(self.instruction, str):
            raise ConfigError(f"instruction is {_format_value(self.instruction)}; it must be a string.")
        check_text("instruction", self.instruction, ConfigError)
        self._check_examples()
        if not isinstance(self.tokens, str) or self.tokens != "auto":
            _check_whole("tokens", self.tokens, 1, MAX_TOKENS, "10 is typical; 3 is often enough")
        elif self.stop_at is None:
            is_distilled = self.objective == "distill"
            goal = "share of the floor's KL" if is_distilled else "target similarity"
            example = option("stop_at", AUTO_KL_SHARE if is_distilled else 0.99)
            raise ConfigError(f"tokens is auto, but stop_at is not set. Set a {goal}, for example with {example}.")
        _check_whole("steps", self.steps, 1, MAX_STEPS, "300 is typical")
        _check_whole(
            "restarts", self.restarts, 1, MAX_RESTARTS, "1 is typical; 4 or 8 give a slightly better soft prompt"
        )
        _check_whole("seed", self.seed, 0, 2**63 - 1, "0 is typical")
        _check_number(
            "rate", self.rate, 0.0, 100.0, "1 is typical; the unit is the standard deviation of the token table"
        )
        if self.stop_at is not None:
            _check_number("stop_at", self.stop_at, -1.0, 1.0, "It is a similarity, for example 0.99")
        if self.patience is not None:
            _check_whole("patience", self.patience, 1, MAX_PATIENCE, "50 is typical")
        for name, allowed in (
            ("init", Init),
            ("objective", ObjectiveName),
            ("family", ImageProgram),
            ("long", LongPromptPolicy),
            ("placement", Placement),
        ):
            check_choice(name, getattr(self, name), get_args(allowed))
        check_item_count("contexts", self.contexts, MAX_CONTEXTS)
        check_item_count("against", self.against, MAX_AGAINST)
        check_item_count("questions", self.questions, MAX_QUESTIONS)
        _check_whole("self_study", self.self_study, 0, MAX_SELF_STUDY, "0 is typical; 48 helps with facts")
        for text in self.questions:
            check_text("question", text, ConfigError)
        if (length := sum(map(len, self.questions))) > MAX_QUESTION_CHARACTERS:
            raise ConfigError(
                f"the questions have {length:,} characters in all; at most {MAX_QUESTION_CHARACTERS:,} can be stored. "
                "Use fewer or shorter ones."
            )
        if self.contexts is not TRAINING_CONTEXTS:  # skipping the defaults makes reading a run 10 % faster
            for context in self.contexts:
                check_context(check_text("context", context, ConfigError))
        for text in self.against:
            check_text("text in against", text, ConfigError)
        if self.objective == "contrastive" and not self.against:
            example = wording("--against TEXT", "against=['TEXT']")
            raise ConfigError(
                f"the contrastive objective needs at least one prompt to push away from. Add one with {example}."
            )
        if self.objective != "contrastive" and self.against:
            raise ConfigError(
                f"'against' is set, but the objective is {self.objective}: only the contrastive objective uses it. "
                f"Use {option('objective', 'contrastive')}, or remove 'against'."
            )

        _check_number(
            "hidden_share", self.hidden_share, 0.0, 1.0, "0.3 is typical; the rest is the weight of the pooled loss"
        )
        if self.family != TrainConfig.family and self.objective not in ("hidden", "mixed"):
            raise ConfigError(
                f"family is {self.family}, but the objective is {self.objective}: only hidden and mixed use it. "
                f"Use {option('objective', 'mixed')}, or remove 'family'."
            )
        if self.hidden_share != TrainConfig.hidden_share and self.objective != "mixed":
            raise ConfigError(
                f"'hidden_share' is set, but the objective is {self.objective}: only the mixed objective uses it. "
                f"Use {option('objective', 'mixed')}, or remove 'hidden_share'."
            )
        self._check_distillation()

    def _check_distillation(self) -> None:
        """Raise ConfigError for a setting that the objective "distill" does not use, or that only it uses."""
        if self.objective == "distill":
            if self.contexts:
                raise ConfigError(
                    "'contexts' is set, but the objective is distill, which asks questions instead. "
                    f"Remove 'contexts', or set {wording('--questions FILE', 'questions')}."
                )
            if self.long == "chunk":
                raise ConfigError(
                    f"long is 'chunk', but the objective is distill, which needs the whole prompt at once. "
                    f"Use {option('long', 'cut')} or {option('long', 'refuse')}."
                )
            if self.stop_at is not None and self.tokens != "auto":
                raise ConfigError(
                    "stop_at is set, but with the objective distill only tokens='auto' uses it, as the share of the "
                    f"floor's KL to reach. Use {option('tokens', 'auto')}, or remove 'stop_at'."
                )
            return
        for name in ("placement", "questions", "self_study"):
            if name == "placement" and self.objective == "examples":
                continue
            if getattr(self, name) != getattr(TrainConfig, name):
                raise ConfigError(
                    f"{name!r} is set, but the objective is {self.objective}: only distill uses it, with a causal "
                    f"language model. Use {option('objective', 'distill')}, or remove {name!r}."
                )

    def _check_examples(self) -> None:
        """Raise ConfigError for a setting that the objective "examples" does not use, or that only it uses."""
        if self.objective != "examples":
            if self.instruction:
                raise ConfigError(
                    f"'instruction' is set, but the objective is {self.objective}: only tuning on examples uses it. "
                    f"Use {command('tune FILE', 'softprompt.tune(encoder, examples)')}, or remove 'instruction'."
                )
            return
        for name, unused in (("contexts", ()), ("stop_at", None), ("long", TrainConfig.long)):
            if getattr(self, name) != unused:
                raise ConfigError(
                    f"{name!r} is set, but the objective is examples, which does not use it. Remove {name!r}."
                )
        if self.tokens == "auto":
            raise ConfigError("tokens is auto, but the objective is examples, which needs a number. 16 is typical.")
        starts_from_text = self.init in ("first", "prompt")
        if self.init == "soft":
            raise ConfigError(
                "init is soft, but the objective is examples, which starts from the vocabulary, from noise or from an "
                f"instruction. Use {option('init', 'vocabulary')}."
            )
        if starts_from_text and not self.instruction.strip():
            raise ConfigError(
                f"init is {self.init}, but there is no instruction to start from. Use {option('init', 'vocabulary')}, "
                f"or set {option('instruction')}."
            )
        if self.instruction and not starts_from_text:
            raise ConfigError(
                f"'instruction' is set, but init is {self.init}, which does not use it. Use {option('init', 'first')}, "
                "or remove 'instruction'."
            )

    @property
    def needs_language_model(self) -> bool:
        """Whether the objective is one for causal language models."""
        return self.objective in ("distill", "examples")

    @property
    def hidden_weight(self) -> float:
        """Weight of the hidden loss in the total loss, 0 to 1."""
        return {"hidden": 1.0, "mixed": self.hidden_share}.get(self.objective, 0.0)

    @property
    def batch_key(self) -> Hashable:
        """The settings that all training runs in a batch share. All other settings may differ."""
        return (
            self.tokens, self.contexts, self.objective, self.against, self.family, self.hidden_share,
            self.placement, self.questions, self.self_study,
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Create a configuration from a dict returned by `as_dict`. Raises ConfigError for unknown settings."""
        _check_settings(cls, values)
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        for name in ("contexts", "against", "questions"):
            texts = plain.get(name, ())
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise ConfigError(f"{name} is {_format_value(texts)}; it must be a list of strings.")
        if plain.get("contexts") == TRAINING_CONTEXTS:
            plain["contexts"] = TRAINING_CONTEXTS
        return cls(**plain)


# What serves causal language models best, where it differs from TrainConfig's defaults (tests/benchmarks/README.md)
_CAUSAL_DEFAULTS: dict[str, Any] = {
    "objective": "distill", "tokens": 16, "steps": 160, "rate": 0.3, "init": "first",
}  # fmt: skip


# for tuning a causal language model on examples (tests/benchmarks/README.md)
_EXAMPLE_DEFAULTS: dict[str, Any] = {
    "objective": "examples", "tokens": 16, "steps": 120, "rate": 0.3, "init": "vocabulary",
}  # fmt: skip


def config_for_examples(settings: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration for tuning on examples: its defaults, changed by `settings`. Raises ConfigError."""
    init = {"init": "first"} if settings.get("instruction") else {}
    return TrainConfig(**(_EXAMPLE_DEFAULTS | init | dict(settings)))


def config_for(kind: ModelKind, settings: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration for a kind of model: its defaults, changed by `settings`. Raises ConfigError."""
    return TrainConfig(**(_CAUSAL_DEFAULTS | dict(settings) if kind == "causal" else settings))


def check_objective(config: TrainConfig, kind: ModelKind, model: str) -> None:
    """Raise ConfigError if a model of this kind cannot be trained with the configured objective."""
    if kind == "causal" and not config.needs_language_model:
        raise ConfigError(
            f"the objective is {config.objective}, but {model} is a language model. Use "
            f"{option('objective', 'distill')}, or a text encoder such as mini."
        )
    if kind == "text" and config.needs_language_model:
        raise ConfigError(
            f"the objective is {config.objective}, which needs a language model, but {model} is a text encoder. Use "
            f"another objective, such as {option('objective', 'cosine')}, or {option('model', 'smollm2')}."
        )


@checked_fields
@dataclass(frozen=True)
class HardConfig:
    """Settings of the search for a hard readout: real words with the same meaning as the prompt.

    Raises ConfigError for invalid values.

    Attributes:
        tokens: length of the hard readout, or None to use the soft prompt's token count.
        method: "exchange", a coordinate search that ranks single-token swaps by gradient and scores them with the
            encoder, or "pez" (Wen et al. 2023).
        steps: number of rounds ("exchange") or optimizer steps ("pez"), or None for the method's default.
        seconds: time limit, or None. Without a limit, equal settings and seeds give equal results.
        init: what to start from: "words", the prompt's own words and random tokens, or "random", random tokens only.
        words: which tokens to allow: "any" that survive re-tokenizing (softprompt.discrete.vocabulary), "ascii" tokens
            only, or "dictionary", whole words of ASCII letters only.
        block: strings that must not appear in the hard readout.
    """

    tokens: int | None = None
    method: HardMethod = "exchange"
    steps: int | None = None
    restarts: int = 4
    seconds: float | None = None
    init: HardInit = "words"
    words: WordFilter = "any"
    block: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        _convert_numbers(self)
        object.__setattr__(self, "block", _as_texts("block", self.block))
        if self.tokens is not None:
            _check_whole("tokens (hard readout)", self.tokens, 1, MAX_HARD_TOKENS, "8 is typical")
        if self.steps is not None:
            _check_whole("steps (hard readout)", self.steps, 1, MAX_STEPS, "Leave it out to use the method's default")
        _check_whole("restarts (hard readout)", self.restarts, 1, MAX_RESTARTS, "4 is typical")
        _check_whole("seed", self.seed, 0, 2**63 - 1, "0 is typical")
        if self.seconds is not None:
            _check_number("seconds (hard readout)", self.seconds, 0.0, 86_400.0, "10 is typical")
        for name, allowed in (("method", HardMethod), ("init", HardInit), ("words", WordFilter)):
            check_choice(name, getattr(self, name), get_args(allowed))
        for text in self.block:
            check_text("text in block", text, ConfigError)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {**vars(self), "block": list(self.block)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> HardConfig:
        """Create a configuration from a dict returned by `as_dict`. Raises ConfigError for unknown settings."""
        _check_settings(cls, values)
        return cls(**values)


def _check_settings(config: type, values: object) -> None:
    """Raise ConfigError unless `values` is a dict whose keys are fields of a configuration."""
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError(f"the settings are {describe(values)}; they must be a dict of names and values")
    if unknown := set(values) - {field.name for field in fields(config)}:
        raise ConfigError(
            f"unknown settings: {', '.join(sorted(unknown))[:200]}. They may come from a newer version: "
            "update softprompt-tui."
        )


def _as_texts(name: str, value: object) -> tuple[str, ...]:
    """Return a setting's strings. A single string is one item, not a sequence of letters."""
    if type(value) is tuple and all(type(text) is str for text in value):
        return value
    check_ordered(name, value)
    texts = [str.__str__(value)] if isinstance(value, str) else list_of_strings(name, value)
    if texts is None:
        raise ConfigError(f"{name} is {describe(value)}; it must be a string or a list of strings.")
    return tuple(texts)


DEFAULT_SWEEP = tuple(range(1, 17))


def check_sweep(token_counts: Iterable[int]) -> tuple[int, ...]:
    """Return the token counts of a sweep, sorted and without duplicates.

    Raises:
        ConfigError: there are no token counts or too many (perhaps endlessly many), or one is out of bounds.
    """
    counts = set(islice(token_counts, MAX_TOKENS + 1))
    if not 1 <= len(counts) <= MAX_SWEPT_COUNTS:
        more = " or more" if len(counts) > MAX_TOKENS else ""
        example = wording("1-16, or a list such as 1,2,4,8", "range(1, 17), or a list such as [1, 2, 4, 8]")
        raise ConfigError(
            f"the sweep has {len(counts):,}{more} token counts; it must have 1 to {MAX_SWEPT_COUNTS}. "
            f"Use a range such as {example}."
        )
    for count in counts:
        _check_whole("a token count in the sweep", count, 1, MAX_TOKENS, "1 to 16 is typical")
    return tuple(sorted(counts))


def check_device(name: str) -> None:
    """Raise DeviceError unless `name` is a well-formed device name."""
    if not _DEVICE.fullmatch(name):
        raise DeviceError(
            f"device is {name[:40]!r}; it must be auto, cpu, cuda, cuda:1 or mps. auto picks the best device."
        )


def check_precision(name: str) -> None:
    """Raise ConfigError unless `name` is a supported precision."""
    if name not in PRECISIONS:
        raise ConfigError(f"precision is {name[:40]!r}; it must be {' or '.join(PRECISIONS)}. float32 is typical.")


def _convert_numbers(config: TrainConfig | HardConfig) -> None:
    """Replace the numbers of NumPy and the members of an Enum by Python's own, which JSON can represent."""
    for name, value in vars(config).items():
        if type(value) not in _PLAIN_TYPES:
            object.__setattr__(config, name, plain_value(value))


_PLAIN_TYPES = (int, float, str, bool, tuple, type(None))  # checked for every row of a batch, so it must be cheap


def check_item_count(name: str, items: Sequence[object], maximum: int) -> None:
    """Raise ConfigError for more items than a training run can use."""
    if len(items) > maximum:
        raise ConfigError(f"{name} has {len(items):,} items; it must have at most {maximum:,}")


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest choice, unless `value` is one of the allowed strings."""
    if not isinstance(value, str) or value not in allowed:
        from difflib import get_close_matches

        close = get_close_matches(value, allowed, 1) if isinstance(value, str) else []
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{name} is {_format_value(value)}; it must be one of: {', '.join(allowed)}.{hint}")


def _check_whole(name: str, value: object, minimum: int, maximum: int, advice: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        bounds = f"from {minimum:,} to {maximum:,}"
        raise ConfigError(f"{name} is {_format_value(value)}; it must be a whole number {bounds}. {advice}.")


def _format_value(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 300:  # Python refuses to print thousands of digits
        return "a very long number"
    return repr(value)[:80] if isinstance(value, str | int | float | None) else describe(value)


def _check_number(name: str, value: object, lower: float, maximum: float, advice: str) -> None:
    # the comparison also rejects NaN, and accepts integers of any length
    if not isinstance(value, int | float) or isinstance(value, bool) or not lower < value <= maximum:
        raise ConfigError(
            f"{name} is {_format_value(value)}; it must be greater than {lower:g} and at most {maximum:g}. {advice}."
        )


# Interrupted runs and batches are found again by a digest of their settings. It leaves these values out, which stay
# what they were in the first version, whatever the defaults are now.
_DIGEST_DEFAULTS = TrainConfig(tokens=10).as_dict()


_LATER_SETTINGS = ("placement", "questions", "self_study", "instruction")


def batch_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that identify a batch: all that the first version had, and later ones that are set."""
    return {
        name: value
        for name, value in config.as_dict().items()
        if name not in _LATER_SETTINGS or value != _DIGEST_DEFAULTS[name]
    }


def digested_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that a digest contains: those that differ from the first version's defaults.

    Settings that later versions add do not change the digest of a run that leaves them at their default.
    """
    return {name: value for name, value in config.as_dict().items() if value != _DIGEST_DEFAULTS[name]}
