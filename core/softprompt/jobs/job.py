"""A training as it is asked for, and carrying it out: the one way from a prompt to a saved soft prompt, wherever it runs."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from softprompt.config import HardConfig, TrainConfig, check_device, check_precision, check_sweep
from softprompt.encoders.catalog import MINI
from softprompt.errors import ConfigError, PromptError, check_text, no_prompt
from softprompt.library.names import check_name
from softprompt.prompts.lineage import Ancestor, Meaning, ancestor_of, check_meanings, meanings_of

if TYPE_CHECKING:
    from softprompt.composition.sentence import Sentence
    from softprompt.library.entry import Entry


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


def hard_job(entry: Entry, hard: HardConfig, device: str = "auto") -> Job:
    """The job that looks for a saved soft prompt's hard readout. Raises PromptError where its hard prompt is not known."""
    if not entry.prompt.hard_prompt:
        raise PromptError(
            f"what {entry.prompt.name} means is not known, since the file that it came from does not say: nothing can be looked for. "
            f"`softprompt-tui assign '{entry.prompt.name}' --prompt TEXT` says it"
        )
    return Job(entry.prompt.hard_prompt, model=entry.prompt.model, device=device, hard=hard, entry=entry.id)
