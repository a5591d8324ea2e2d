"""Jobs as they are asked for, as data: a training, a sweep over numbers of tokens, the search for a hard readout."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from softprompt.config import USUAL_SWEEP, HardConfig, TrainConfig, check_device, check_precision, check_sweep
from softprompt.encoders.catalog import MINI
from softprompt.errors import ConfigError, PromptError, check_text, no_prompt
from softprompt.library.names import check_name
from softprompt.prompts.lineage import Ancestor, WeightedText, ancestor_of, check_meanings, meanings_of

if TYPE_CHECKING:
    from softprompt.composition.sentence import ParsedPrompt
    from softprompt.library.entry import Entry


Kind = Literal["train", "hard", "sweep"]
MAX_MODEL_LENGTH = 5000  # characters of a model's name: as many as a path may have, and some
NO_HARD_SWEEP = "a sweep tries each number of tokens, without hard readouts: neither auto nor --hard goes with it"


@dataclass(frozen=True)
class Job:
    """What every job has: a hard prompt, settings, a model, a device, and the name to save under ("" for one made from the prompt).

    A job is a TrainJob, a SweepJob or a HardReadoutJob. `meanings` are the texts of a prompt that means several together,
    `ancestry` the soft prompts that it is made from. Raises PromptError, BadName, ConfigError and DeviceError for what
    cannot work on any model or machine.
    """

    kind: ClassVar[Kind]

    prompt: str
    config: TrainConfig = field(default_factory=TrainConfig)
    model: str = MINI
    device: str = "auto"
    precision: str = "float32"
    name: str = ""
    meanings: tuple[WeightedText, ...] = ()
    ancestry: tuple[Ancestor, ...] = ()

    @property
    def batch(self) -> Hashable | None:
        """What jobs have in common that can be trained in one batch; None for one that is trained by itself."""
        return None

    @property
    def hard_config(self) -> HardConfig | None:
        """The settings of the hard readout that is looked for too, or None."""
        return None

    def __post_init__(self) -> None:
        if type(self) is Job:
            raise TypeError("a job is a TrainJob, a SweepJob or a HardReadoutJob")
        if not self.prompt.strip():
            raise no_prompt()
        check_text("prompt", self.prompt)
        for meaning in self.meanings:
            check_text("prompt", meaning.text)
        for key in ("model", "device", "precision"):
            check_text(key, getattr(self, key), ConfigError)
        check_device(self.device)
        check_precision(self.precision)
        if len(self.model) > MAX_MODEL_LENGTH:
            raise ConfigError(
                f"model is a name of {len(self.model):,} characters; `softprompt-tui models` lists those that there are"
            )
        check_meanings(self.prompt, self.meanings)
        if self.name:
            check_name(self.name)

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold. Jobs of all types have the same keys: what one has not is empty."""
        plain = {
            "meanings": [vars(meaning).copy() for meaning in self.meanings],
            "ancestry": [vars(ancestor).copy() for ancestor in self.ancestry],
            "config": self.config.as_dict(),
            "hard": None if self.hard_config is None else self.hard_config.as_dict(),
        }
        common = {of_all.name: getattr(self, of_all.name) for of_all in fields(Job)}
        return {**common, "hard": None, "entry": "", "sweep": []} | plain

    @staticmethod
    def from_dict(values: Any) -> AnyJob:
        """The inverse of `as_dict`; raises ConfigError for values of another kind, and of no one type."""
        try:
            texts = {key: values[key] for key in ("prompt", "model", "device", "precision", "name")}
            if not all(isinstance(text, str) for text in texts.values()):
                raise TypeError("a text is expected")
            # jobs of before these were known have none of them
            hard, entry, sweep = values.get("hard"), values.get("entry", ""), tuple(values.get("sweep", ()))
            if not isinstance(entry, str) or not all(type(k) is int for k in sweep):
                raise TypeError("an entry's id and whole numbers of tokens are expected")
            common: dict[str, Any] = texts | {
                "config": TrainConfig.from_dict(values["config"]),
                "meanings": meanings_of(values.get("meanings", ())),
                "ancestry": tuple(map(ancestor_of, values.get("ancestry", ()))),
            }
            hard_config = None if hard is None else HardConfig.from_dict(hard)
            if sweep and (hard_config or entry):
                raise ConfigError(NO_HARD_SWEEP)
            if sweep:
                return SweepJob(**common, sweep=sweep)
            if entry and hard_config is None:
                raise ConfigError("a hard readout of an entry is asked for without its settings")
            if entry and hard_config is not None:
                return HardReadoutJob(**common, hard=hard_config, entry=entry)
            return TrainJob(**common, hard=hard_config)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(f"this is no training job: {type(error).__name__} {error}") from error


@dataclass(frozen=True)
class TrainJob(Job):
    """Train a soft prompt and save it; with `hard`, look for its hard readout too."""

    kind: ClassVar[Kind] = "train"

    hard: HardConfig | None = None

    @property
    def batch(self) -> Hashable | None:
        if self.hard or self.config.tokens == "auto":
            return None
        return (self.model.lower(), self.device, self.precision, self.config.plan)

    @property
    def hard_config(self) -> HardConfig | None:
        return self.hard


@dataclass(frozen=True)
class SweepJob(Job):
    """Train with each of `sweep` soft tokens at once. Nothing is saved before it is said which of them is to be kept."""

    kind: ClassVar[Kind] = "sweep"

    sweep: tuple[int, ...] = USUAL_SWEEP

    def __post_init__(self) -> None:
        if self.config.tokens == "auto":
            raise ConfigError(NO_HARD_SWEEP)
        check_sweep(self.sweep)
        super().__post_init__()

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"sweep": list(self.sweep)}


@dataclass(frozen=True)
class HardReadoutJob(Job):
    """Look for the hard readout of the saved soft prompt whose id is `entry`, and save it there. Nothing is trained."""

    kind: ClassVar[Kind] = "hard"

    hard: HardConfig = field(default_factory=HardConfig)
    entry: str = ""

    @property
    def hard_config(self) -> HardConfig | None:
        return self.hard

    def __post_init__(self) -> None:
        if not check_text("entry", self.entry, ConfigError):
            raise ConfigError("a hard readout is looked for without the id of the soft prompt that it is for")
        super().__post_init__()

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"entry": self.entry}


AnyJob = TrainJob | SweepJob | HardReadoutJob


def job_from_composition(sentence: ParsedPrompt, **settings: Any) -> TrainJob:
    """The training of a soft prompt that means a whole composition; `settings` are the other fields of a TrainJob. Raises what Job raises,
    and PromptError where a hard prompt is not known, or stands there in part."""
    if sentence.in_part:
        raise PromptError(
            f"not all soft tokens of {sentence.in_part[0]} stand in it, and a part of them has no meaning that could be trained on: "
            f"write [{sentence.in_part[0]}]"
        )
    meanings = sentence.reference_texts()
    if not meanings:
        raise PromptError(
            "what one of its soft prompts means is not known, since the file that it came from does not say: it can be used as a "
            "word, but no soft prompt can be trained on it"
        )
    if len(meanings) == 1:
        return TrainJob(meanings[0].text, ancestry=sentence.ancestry, **settings)
    return TrainJob(sentence.readable, meanings=meanings, ancestry=sentence.ancestry, **settings)


def hard_readout_job(entry: Entry, hard: HardConfig, device: str = "auto") -> HardReadoutJob:
    """The job that looks for a saved soft prompt's hard readout. Raises PromptError where its hard prompt is not known."""
    if not entry.prompt.hard_prompt:
        raise PromptError(
            f"what {entry.prompt.name} means is not known, since the file that it came from does not say: nothing can be looked for. "
            f"`softprompt-tui assign '{entry.prompt.name}' --prompt TEXT` says it"
        )
    return HardReadoutJob(entry.prompt.hard_prompt, model=entry.prompt.model, device=device, hard=hard, entry=entry.id)
