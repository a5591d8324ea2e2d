"""From what is typed to a training job. Messages name the field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.config import AUTO_STOP_AT, MAX_SWEPT_COUNTS, HardConfig, TrainConfig
from softprompt.encoders.catalog import LOCAL
from softprompt.errors import ConfigError
from softprompt.jobs.job import SweepJob, TrainJob
from softprompt.jobs.parsing import BETWEEN, NO, YES, split_list
from softprompt.prompts.contexts import TRAINING_CONTEXTS

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.prompts.syntax import PreparedPrompt
    from softprompt_tui.state.settings import Form

SWEEP = "1-16"


def typed_prompt(prompt: str, more: dict[str, str]) -> PreparedPrompt:
    """The prompt to train, and what image programs would read as syntax in it. Raises ConfigError."""
    from softprompt.prompts.syntax import prepare_prompt  # commands that read no prompt do not wait for its patterns

    plain = more.get("plain", "no").lower()
    if plain not in (*YES, *NO, ""):
        raise ConfigError(
            f"plain is {more['plain']!r}: yes removes weights, LoRA tags and wildcards, no leaves them{_where('plain')}"
        )
    return prepare_prompt(prompt, plain in YES)


def job_from_form(form: Form, more: dict[str, str]) -> TrainJob:
    """The training that is typed. Raises ConfigError, PromptError, BadName."""
    fields, settings = form.fields, dict[str, Any]()
    tokens = fields["tokens"].lower()
    settings["tokens"] = "auto" if tokens == "auto" else _whole("tokens", fields["tokens"] or "10")
    settings["steps"] = _whole("steps", fields["steps"] or "300")
    if fields["stop_at"]:
        settings["stop_at"] = _number("stop at", fields["stop_at"])
    elif tokens == "auto":
        settings["stop_at"] = AUTO_STOP_AT
    contexts = fields["contexts"]
    if contexts.lower() in NO:
        settings["contexts"] = ()
    elif contexts.lower() not in (*YES, ""):
        settings["contexts"] = split_list(contexts)
        if not all("{}" in one for one in settings["contexts"]):
            raise ConfigError(
                f"contexts is {contexts!r}: yes trains inside sentences too, no trains alone; or give sentences, such as a photo of {{}} | {{}} at night"
            )
    prompt = typed_prompt(form.prompt, more).text
    for name in ("restarts", "seed", "patience"):
        if more.get(name):
            settings[name] = _whole(name, more[name])
    if more.get("rate"):
        settings["rate"] = _number("rate", more["rate"])
    if more.get("share"):
        settings["hidden_share"] = _number("share", more["share"])
    settings |= {name: more[name] for name in ("init", "objective", "family", "long") if more.get(name)}
    if more.get("against"):
        settings["against"] = split_list(more["against"])
    norms = more.get("norms", "held")
    if norms not in ("held", "free"):
        raise ConfigError(
            f"norms is {norms!r}: held keeps every soft token at or under a usual word's length, free lets it grow"
        )
    settings["project_norm"] = norms == "held"
    model = fields["model"] or "mini"
    if model.startswith(LOCAL):
        try:
            model = f"{LOCAL}{Path(model.removeprefix(LOCAL)).expanduser().absolute()}"
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"model is {model!r}: there is no such folder ({error})") from error
    precision = more.get("precision") or "float32"
    hard = None if more.get("hard", "no").lower() in (*NO, "") else hard_of(more)
    return TrainJob(
        prompt, TrainConfig(**settings), model, fields["device"] or "auto", precision, more.get("name", ""), hard=hard
    )


def sweep_of(form: Form, more: dict[str, str]) -> SweepJob:
    """The sweep over several numbers of tokens, with the other settings as they are typed. Raises as `job_of`."""
    fields, numbers = form.fields, numbers_of(more.get("sweep") or SWEEP)
    stop_at = (
        fields["stop_at"] if fields["tokens"].lower() != "auto" else ""
    )  # what auto is to reach ends no training early
    job = job_from_form(
        form._replace(fields=fields | {"tokens": f"{numbers[-1]}", "stop_at": stop_at}), more | {"hard": ""}
    )
    return SweepJob(job.prompt, job.config, job.model, job.device, job.precision, job.name, sweep=numbers)


def numbers_of(text: str) -> tuple[int, ...]:
    """Numbers of tokens, as 1-16 or 1,2,4,8 or both say them, in their order. Raises ConfigError."""
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d{1,4})(?:\s*-\s*(\d{1,4}))?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise ConfigError(f"numbers of tokens are {text!r}: 1-16 is a range from 1 on, 1,2,4,8 are some")
        found.update(range(first, last + 1))
    if not 1 <= len(found) <= MAX_SWEPT_COUNTS:
        raise ConfigError(
            f"numbers of tokens are {text!r}: a sweep takes from one to {MAX_SWEPT_COUNTS} of them, such as 1-16 or 1,2,4,8"
        )
    return tuple(sorted(found))


def hard_of(more: dict[str, str], seed: int = 0) -> HardConfig:
    """How a hard readout is looked for, by the fields that say so. Raises ConfigError."""
    tokens = more.get("hard", "").lower()
    counted = None if tokens in (*YES, *NO, "") and tokens != "1" else _whole("hard", tokens)
    words: Any = more.get("words") or "any"
    return HardConfig(tokens=counted, words=words, block=split_list(more.get("block", "")), seed=seed)


def settings_of(made: SoftPrompt) -> TrainConfig:
    """The settings that it was trained with, the usual ones and its number of tokens for one from a file.

    Raises ConfigError for those of another version, or of another program.
    """
    try:
        return TrainConfig.from_dict({"tokens": made.tokens} | made.config)
    except (ConfigError, TypeError, AttributeError) as error:
        raise ConfigError(f"the settings of {made.name} are not of this version: {error}") from error


def variation_of(made: SoftPrompt) -> tuple[dict[str, str], dict[str, str]]:
    """(the fields, the other settings) that train such a soft prompt again, from another seed: with the same one it would come to the same bits."""
    if made.meanings:
        raise ConfigError(
            f"{made.name} means several texts together: `softprompt-tui compose TEMPLATE --save NAME` makes such ones"
        )
    config = settings_of(made)
    contexts = "yes" if config.contexts == TRAINING_CONTEXTS else _joined(config.contexts) or "no"
    fields = {
        "tokens": f"{config.tokens}",
        "steps": f"{config.steps}",
        "stop_at": "" if config.stop_at is None else f"{config.stop_at:g}",
        "contexts": contexts,
        "model": made.model,
    }
    more = {
        "restarts": f"{config.restarts}",
        "rate": f"{config.rate:g}",
        "init": config.init if config.init != "soft" else "noise",  # what it began from is not kept
        "objective": config.objective,
        "family": config.family,
        "share": f"{config.hidden_share:g}",
        "against": _joined(config.against),
        "patience": "" if config.patience is None else f"{config.patience}",
        "norms": "held" if config.project_norm else "free",
        "seed": f"{config.seed + 1}",
        "long": config.long,
        "precision": made.device.rpartition(", ")[2] or "float32",
    }
    return fields, more


def _joined(texts: tuple[str, ...]) -> str:
    return f" {BETWEEN} ".join(texts)


def _where(name: str) -> str:
    return "" if name in ("tokens", "steps", "stop at") else " (F8)"


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}: a whole number is needed{_where(name)}") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}: a number such as .99 is needed{_where(name)}") from None
