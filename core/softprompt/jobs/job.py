"""A training as it is asked for, and carrying it out: the one way from a prompt to a saved soft prompt, wherever it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from softprompt.config import HardConfig, TrainConfig, check_device, check_precision, check_sweep
from softprompt.encoders.catalog import MINI
from softprompt.errors import ConfigError, PromptError, check_text, no_prompt
from softprompt.library.names import check_name
from softprompt.prompts.lineage import Ancestor, Meaning, ancestor_of, check_meanings, meanings_of
from softprompt.training.errors import TrainingFailed

if TYPE_CHECKING:
    from softprompt.composition.sentence import Sentence
    from softprompt.discrete import HardReport
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.library import Library
    from softprompt.library.entry import Entry
    from softprompt.prompts.soft_prompt import HardReadout, SoftPrompt
    from softprompt.training.loop import Interval, Report
    from softprompt.training.task import TrainState


Kind = Literal["train", "hard", "sweep"]
LONGEST_MODEL = 5000  # characters of a model's name: as many as a path may have, and some


@dataclass(frozen=True)
class Job:
    """One training: hard prompt, settings, model, device, and the name to save under ("" for one made from the prompt).

    With `hard`, a hard readout is looked for too; with `entry`, an entry's id, for that one, and nothing is trained. With `sweep`, so many
    numbers of tokens are trained at once, and nothing is saved before it is chosen. `meanings` are the texts of a prompt that means several together, `ancestry` the soft prompts that it is made from. Raises PromptError, BadName, ConfigError and DeviceError for what cannot work on any model
    or machine.
    """

    prompt: str
    config: TrainConfig = field(default_factory=TrainConfig)
    model: str = MINI
    device: str = "auto"
    precision: str = "float32"
    name: str = ""
    meanings: tuple[Meaning, ...] = ()
    ancestry: tuple[Ancestor, ...] = ()
    hard: HardConfig | None = None
    entry: str = ""
    sweep: tuple[int, ...] = ()

    @property
    def kind(self) -> Kind:
        return "sweep" if self.sweep else "hard" if self.entry else "train"

    @property
    def batch(self) -> Hashable | None:
        """What jobs have in common that can be trained in one batch; None for one that is trained by itself."""
        if self.kind != "train" or self.hard or self.config.tokens == "auto":
            return None
        return (self.model.lower(), self.device, self.precision, self.config.plan)

    def __post_init__(self) -> None:
        if self.entry and self.hard is None:
            raise ConfigError("a hard readout of an entry is asked for without its settings")
        if self.sweep and (self.hard or self.config.tokens == "auto"):
            raise ConfigError("a sweep tries each number of tokens, without hard readouts: neither auto nor --hard goes with it")
        if self.sweep:
            check_sweep(self.sweep)
        if not self.prompt.strip():
            raise no_prompt()
        check_text("prompt", self.prompt)
        for meaning in self.meanings:
            check_text("prompt", meaning.text)
        for key in ("model", "device", "precision", "entry"):
            check_text(key, getattr(self, key), ConfigError)
        check_device(self.device)
        check_precision(self.precision)
        if len(self.model) > LONGEST_MODEL:
            raise ConfigError(
                f"model is a name of {len(self.model):,} characters; `softprompt-tui models` lists those that there are"
            )
        check_meanings(self.prompt, self.meanings)
        if self.name:
            check_name(self.name)

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        made = {"meanings": [vars(one).copy() for one in self.meanings], "ancestry": [vars(one).copy() for one in self.ancestry]}
        hard = None if self.hard is None else self.hard.as_dict()
        return {**vars(self), "config": self.config.as_dict(), "hard": hard, "sweep": list(self.sweep), **made}

    @classmethod
    def from_dict(cls, values: Any) -> Job:
        """The inverse of `as_dict`; raises ConfigError for values of another kind."""
        try:
            texts = {key: values[key] for key in ("prompt", "model", "device", "precision", "name")}
            if not all(isinstance(text, str) for text in texts.values()):
                raise TypeError("a text is expected")
            # jobs of before these were known have none of them
            meanings = meanings_of(values.get("meanings", ()))
            ancestry = tuple(map(ancestor_of, values.get("ancestry", ())))
            hard, entry, sweep = values.get("hard"), values.get("entry", ""), tuple(values.get("sweep", ()))
            if not isinstance(entry, str) or not all(type(k) is int for k in sweep):
                raise TypeError("an entry's id and whole numbers of tokens are expected")
            made_of: dict[str, Any] = {"meanings": meanings, "ancestry": ancestry, "entry": entry, "sweep": sweep}
            return cls(
                config=TrainConfig.from_dict(values["config"]),
                hard=None if hard is None else HardConfig.from_dict(hard),
                **made_of,
                **texts,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(f"this is no training job: {type(error).__name__} {error}") from error


def job_of_sentence(sentence: Sentence, **settings: Any) -> Job:
    """The training of a soft prompt that means a whole composition; `settings` are the other fields of a Job. Raises what Job raises,
    and PromptError where a hard prompt is not known, or stands there in part."""
    if sentence.in_part:
        raise PromptError(
            f"not all soft tokens of {sentence.in_part[0]} stand in it, and a part of them has no meaning that could be trained on: "
            f"write [{sentence.in_part[0]}]"
        )
    meanings = sentence.written_out()
    if not meanings:
        raise PromptError(
            "what one of its soft prompts means is not known, since the file that it came from does not say: it can be used as a "
            "word, but no soft prompt can be trained on it"
        )
    if len(meanings) == 1:
        return Job(meanings[0].text, ancestry=sentence.ancestry, **settings)
    return Job(sentence.readable, meanings=meanings, ancestry=sentence.ancestry, **settings)


@dataclass(frozen=True)
class Outcome:
    """What became of a job: the saved entry, or None where there was nothing to save, and why it failed, or ""."""

    entry: Entry | None
    failure: str = ""


OnHard = Callable[["HardReport"], "bool | None"]


def carry_out(
    job: Job,
    encoder: TextEncoder,
    library: Library,
    *,
    start: SoftPrompt | None = None,
    entry_id: str | None = None,
    interval: Interval = 10,
    resume: TrainState | None = None,
    on_report: Callable[[Report], bool | None] | None = None,
    on_hard: OnHard | None = None,
) -> Outcome:
    """Trains and saves; where the training fails, the best until then is saved. Of a job for an entry's hard readout: see `harden`.

    With `job.hard` a hard readout of what was trained is saved with it, unless the training failed or was interrupted; `on_hard` is
    called each round of looking for it, and ends that by returning True. With `entry_id` it is saved once under that id, however
    often this is called; what a failure left, under another. The other arguments are `train`'s. Raises PromptError, ConfigError,
    LibraryError.
    """
    if job.kind == "hard":
        return harden(job, encoder, library, on_hard)
    from softprompt.training.trainer import train

    if job.hard:
        from softprompt.discrete import check_hard

        check_hard(encoder, job.hard)
    failure = ""
    try:
        made = train(
            encoder,
            job.prompt,
            job.config,
            meanings=job.meanings,
            start=start,
            interval=interval,
            resume=resume,
            on_report=on_report,
        )
    except TrainingFailed as error:
        failure = str(error)
        if error.best is None:
            return Outcome(None, failure)
        made = error.best
    unfinished = failure
    if job.hard and not failure and made.stopped != "interrupted":
        try:
            made = replace(made, hard=_hard_readout(encoder, made, job.hard, on_hard))
        except (TrainingFailed, ConfigError) as error:  # what was trained is not lost for that
            failure = str(error)
    outcome = kept(job, made, library, entry_id, unfinished)
    return replace(outcome, failure=failure)


def kept(job: Job, made: SoftPrompt, library: Library, entry_id: str | None = None, failure: str = "") -> Outcome:
    """Saves what a job made, as `carry_out` does; raises LibraryError."""
    if failure and entry_id:  # that id is for what the job was to make, should it be tried again
        entry_id = hashlib.sha256(f"{entry_id} failed at {made.steps}".encode()).hexdigest()[: len(entry_id)]
    return Outcome(library.save(replace(made, name=job.name, ancestry=job.ancestry), entry_id), failure)


def harden(job: Job, encoder: TextEncoder, library: Library, on_hard: OnHard | None = None) -> Outcome:
    """Looks for the hard readout of the entry `job.entry` and saves it as the entry's next revision.

    Raises PromptError where what the entry means is not known, ConfigError, EntryNotFound and the other LibraryErrors.
    """
    assert job.hard is not None  # Job sees to it
    entry = library.open(job.entry)
    try:
        hard = _hard_readout(encoder, entry.prompt, job.hard, on_hard)
    except TrainingFailed as error:
        return Outcome(None, str(error))
    return Outcome(library.harden(entry.id, hard))


def hard_job(entry: Entry, hard: HardConfig, device: str = "auto") -> Job:
    """The job that looks for a saved soft prompt's hard readout. Raises PromptError where its hard prompt is not known."""
    if not entry.prompt.hard_prompt:
        raise PromptError(
            f"what {entry.prompt.name} means is not known, since the file that it came from does not say: nothing can be looked for. "
            f"`softprompt-tui assign '{entry.prompt.name}' --prompt TEXT` says it"
        )
    return Job(entry.prompt.hard_prompt, model=entry.prompt.model, device=device, hard=hard, entry=entry.id)


def _hard_readout(encoder: TextEncoder, made: SoftPrompt, config: HardConfig, on_hard: OnHard | None) -> HardReadout:
    """Raises TrainingFailed where the device fails, and what `find_hard` raises."""
    from softprompt.discrete import find_hard
    from softprompt.objectives.pooled import meant_prompt
    from softprompt.training.loop import device_failure

    encoder.check_belongs(made)
    prompt = meant_prompt(encoder, made.hard_prompt, made.meanings, made.config.get("long", TrainConfig.long))
    try:
        return find_hard(encoder, prompt, config.tokens or made.tokens, config, on_hard)
    except RuntimeError as error:  # torch's type for a lost or full device, whichever it is
        raise TrainingFailed(device_failure(error, encoder.device)) from error
