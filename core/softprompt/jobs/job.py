"""Job specifications: training, a sweep over token counts, or a search for a hard readout."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from softprompt.config import (
    DEFAULT_SWEEP,
    HardConfig,
    ModelKind,
    TrainConfig,
    check_device,
    check_precision,
    check_sweep,
    config_for,
)
from softprompt.encoders.catalog import MINI
from softprompt.errors import (
    ConfigError,
    PromptError,
    check_text,
    command,
    empty_prompt,
    examples_and_objective_differ,
    how_to_assign_prompt,
    wording,
)
from softprompt.library.names import check_name
from softprompt.prompts.lineage import Ancestor, WeightedText, ancestor_from_dict, check_meanings, meanings_from_dicts

if TYPE_CHECKING:
    from softprompt.composition.sentence import ParsedPrompt
    from softprompt.library.entry import Entry
    from softprompt.prompts.examples import ExampleSet
    from softprompt.prompts.soft_prompt import SoftPrompt


JobKind = Literal["train", "hard", "sweep"]
MAX_MODEL_LENGTH = 5000  # characters: longer than any path


@dataclass(frozen=True)
class Job:
    """Base class of TrainJob, SweepJob and HardReadoutJob.

    Attributes:
        name: name to save the result under, or "" to derive one from the prompt.
        meanings: the weighted texts of a mix; () for a single prompt.
        ancestry: the soft prompts that are used in the prompt.

    Raises:
        PromptError, BadName, ConfigError, DeviceError: the job cannot work on any model or machine.
    """

    kind: ClassVar[JobKind]

    prompt: str
    config: TrainConfig = field(default_factory=TrainConfig)
    model: str = MINI
    device: str = "auto"
    precision: str = "float32"
    name: str = ""
    meanings: tuple[WeightedText, ...] = ()
    ancestry: tuple[Ancestor, ...] = ()

    @property
    def batch_key(self) -> Hashable | None:
        """Key shared by jobs that can be trained in one batch, or None if this job must be trained alone."""
        return None

    @property
    def hard_config(self) -> HardConfig | None:
        """Settings of the search for a hard readout, or None if there is no search."""
        return None

    def __post_init__(self) -> None:
        if type(self) is Job:
            raise TypeError("a job is a TrainJob, a SweepJob or a HardReadoutJob")
        if not self.prompt.strip():
            raise empty_prompt()
        check_text("prompt", self.prompt)
        for meaning in self.meanings:
            check_text("prompt", meaning.text)
        for key in ("model", "device", "precision"):
            check_text(key, getattr(self, key), ConfigError)
        check_device(self.device)
        check_precision(self.precision)
        if len(self.model) > MAX_MODEL_LENGTH:
            raise ConfigError(
                f"the model name has {len(self.model):,} characters. "
                f"{command('models', 'softprompt.list_models()')} lists the models."
            )
        check_meanings(self.prompt, self.meanings)
        if self.name:
            check_name(self.name)

    def as_dict(self) -> dict[str, Any]:
        """Return the job as JSON values. All job types have the same keys; unused ones are empty."""
        values = {
            "meanings": [vars(meaning).copy() for meaning in self.meanings],
            "ancestry": [vars(ancestor).copy() for ancestor in self.ancestry],
            "config": self.config.as_dict(),
            "hard": None if self.hard_config is None else self.hard_config.as_dict(),
        }
        common = {shared.name: getattr(self, shared.name) for shared in fields(Job)}
        return {**common, "hard": None, "entry": "", "sweep": [], "examples": None} | values

    @staticmethod
    def from_dict(values: Any) -> AnyJob:
        """Create a job from the values of `as_dict`. Raises ConfigError if they are invalid or fit no job type."""
        try:
            texts = {key: values[key] for key in ("prompt", "model", "device", "precision", "name")}
            if not all(isinstance(text, str) for text in texts.values()):
                raise TypeError("the prompt, model, device, precision and name must be strings")
            # old jobs lack these keys
            hard, entry, sweep = values.get("hard"), values.get("entry", ""), tuple(values.get("sweep", ()))
            if not isinstance(entry, str) or not all(type(count) is int for count in sweep):
                raise TypeError("the entry must be a string, and the sweep a list of integers")
            common: dict[str, Any] = texts | {
                "config": TrainConfig.from_dict(values["config"]),
                "meanings": meanings_from_dicts(values.get("meanings", ())),
                "ancestry": tuple(map(ancestor_from_dict, values.get("ancestry", ()))),
            }
            hard_config = None if hard is None else HardConfig.from_dict(hard)
            examples = _examples_from_dict(values.get("examples"))
            if sweep and (hard_config or entry):
                raise _no_hard_sweep()
            if sweep:
                return SweepJob(**common, sweep=sweep)
            if entry and hard_config is None:
                raise ConfigError(
                    "the job searches for an entry's hard readout, but has no settings for the search. Set hard."
                )
            if entry and hard_config is not None:
                return HardReadoutJob(**common, hard=hard_config, entry=entry)
            return TrainJob(**common, hard=hard_config, examples=examples)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(f"this is not a valid job: {type(error).__name__} {error}") from error


@dataclass(frozen=True)
class TrainJob(Job):
    """A job that trains and saves a soft prompt. With `hard`, it also searches for a hard readout.

    Attributes:
        examples: with the objective "examples", what to train on; `prompt` is then their summary.
    """

    kind: ClassVar[JobKind] = "train"

    hard: HardConfig | None = None
    examples: ExampleSet | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.config.objective == "examples") != (self.examples is not None):
            raise examples_and_objective_differ(self.config.objective)

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"examples": None if self.examples is None else self.examples.as_dict()}

    @property
    def batch_key(self) -> Hashable | None:
        if self.hard or self.examples or self.config.tokens == "auto":
            return None
        return (self.model.lower(), self.device, self.precision, self.config.batch_key)

    @property
    def hard_config(self) -> HardConfig | None:
        return self.hard


@dataclass(frozen=True)
class SweepJob(Job):
    """A job that trains every token count of `sweep` in one batch. Nothing is saved until the user picks results."""

    kind: ClassVar[JobKind] = "sweep"

    sweep: tuple[int, ...] = DEFAULT_SWEEP

    def __post_init__(self) -> None:
        if self.config.tokens == "auto":
            raise _no_hard_sweep()
        if self.config.objective == "examples":
            raise examples_and_objective_differ(self.config.objective)
        check_sweep(self.sweep)
        super().__post_init__()

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"sweep": list(self.sweep)}


@dataclass(frozen=True)
class HardReadoutJob(Job):
    """A job that searches for a hard readout of the saved entry with id `entry`, and saves it there. Trains nothing."""

    kind: ClassVar[JobKind] = "hard"

    hard: HardConfig = field(default_factory=HardConfig)
    entry: str = ""

    @property
    def hard_config(self) -> HardConfig | None:
        return self.hard

    def __post_init__(self) -> None:
        if not check_text("entry", self.entry, ConfigError):
            raise ConfigError(
                "the job searches for a hard readout, but entry is empty. Set it to the id of a soft prompt."
            )
        super().__post_init__()

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"entry": self.entry}


AnyJob = TrainJob | SweepJob | HardReadoutJob


def _examples_from_dict(values: Any) -> ExampleSet | None:
    if values is None:
        return None
    from softprompt.prompts.examples import ExampleSet  # few jobs have examples

    return ExampleSet.from_dict(values)


def _no_hard_sweep() -> ConfigError:
    return ConfigError(
        "a sweep trains a list of token counts, without hard readouts. "
        f"{wording('Leave out --hard, and do not set tokens to auto', 'Set tokens to a number')}."
    )


def job_from_composition(parsed: ParsedPrompt, **settings: Any) -> TrainJob:
    """Create the job that trains a soft prompt to mean a whole composition.

    Args:
        settings: values for the other fields of TrainJob.

    Raises:
        PromptError: a soft prompt's hard prompt is unknown, or only some of its soft tokens are used.
    """
    if parsed.partial_names:
        raise PromptError(
            f"only some soft tokens of {parsed.partial_names[0]} are used, and these have no meaning of their own. "
            f"Use all of them with [{parsed.partial_names[0]}]."
        )
    meanings = parsed.reference_texts()
    if not meanings:
        raise PromptError(
            "one of the soft prompts comes from a file without a prompt, so there is no meaning to train on. "
            f"Set its prompt with {how_to_assign_prompt('NAME')}."
        )
    if len(meanings) == 1:
        return TrainJob(meanings[0].text, ancestry=parsed.ancestry, **settings)
    return TrainJob(parsed.display_text, meanings=meanings, ancestry=parsed.ancestry, **settings)


def hard_readout_job(entry: Entry, hard: HardConfig, device: str = "auto") -> HardReadoutJob:
    """Create the job that searches for an entry's hard readout. Raises PromptError if its prompt is unknown."""
    if not entry.prompt.hard_prompt:
        advice = how_to_assign_prompt(f"'{entry.prompt.name}'")
        raise PromptError(
            f"{entry.prompt.name} comes from a file without a prompt, so there is no meaning to search for. "
            f"Set its prompt with {advice}."
        )
    return HardReadoutJob(entry.prompt.hard_prompt, model=entry.prompt.model, device=device, hard=hard, entry=entry.id)


def saved_config(prompt: SoftPrompt) -> TrainConfig:
    """Return a soft prompt's training settings. Imported ones get the defaults with their own token count.

    Raises:
        ConfigError: the settings come from another program or version.
    """
    try:
        return TrainConfig.from_dict({"tokens": prompt.tokens} | prompt.config)
    except (ConfigError, TypeError, AttributeError) as error:
        raise ConfigError(f"this version cannot read the settings of {prompt.name}: {error}") from error


def port_config(prompt: SoftPrompt, kind: ModelKind) -> TrainConfig:
    """Return the settings for training a soft prompt again for another model. Raises ConfigError, see `saved_config`.

    Start vectors are not saved, and they belong to the old model, so init "soft" becomes "noise". Between a text
    encoder and a language model, only the seed stays.

    Args:
        kind: the kind of the other model.
    """
    config = saved_config(prompt)
    if config.objective == "examples":
        tune = command("tune FILE --model NAME", "softprompt.tune(encoder, examples)")
        raise ConfigError(
            f"{prompt.name} was tuned on examples, which are not in the library. Tune again for the other model with "
            f"{tune}."
        )
    if config.needs_language_model != (kind == "causal"):
        return config_for(kind, {"seed": config.seed})
    return replace(config, init="noise") if config.init == "soft" else config


def port_job(
    entry: Entry, model: str, config: TrainConfig, name: str, device: str = "auto", precision: str = "float32"
) -> TrainJob:
    """Create the job that trains an entry again for another model. Raises PromptError if its prompt is unknown.

    Args:
        config: the settings, as `port_config` returns them or changed.
        name: the new entry's name.
    """
    from softprompt.composition.sentence import make_ancestor  # few jobs need it

    prompt = entry.prompt
    if not prompt.reference_texts:
        advice = how_to_assign_prompt(f"'{prompt.name}'")
        raise PromptError(
            f"{prompt.name} cannot be trained for another model, because its prompt is unknown: the imported file does "
            f"not contain it. Set it with {advice}."
        )
    return TrainJob(
        prompt.hard_prompt, config, model, device, precision, name=name, meanings=prompt.meanings,
        ancestry=(make_ancestor("ported", entry),),
    )  # fmt: skip
