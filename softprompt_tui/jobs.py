"""From what is typed to a training job. Messages name the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from softprompt.config import TrainConfig
from softprompt.errors import ConfigError
from softprompt.job import Job
from softprompt.models import LOCAL

AUTO_STOP_AT = 0.99
YES, NO = ("yes", "y", "on", "1", "true", ""), ("no", "n", "off", "0", "false")


def job_of(prompt: str, fields: dict[str, str], more: dict[str, str]) -> Job:
    """The job for a prompt and the fields as they are typed. Raises ConfigError, PromptError, BadName."""
    settings: dict[str, Any] = {}
    tokens = fields["tokens"].lower()
    settings["tokens"] = "auto" if tokens == "auto" else _whole("tokens", fields["tokens"] or "10")
    settings["steps"] = _whole("steps", fields["steps"] or "300")
    if fields["stop_at"]:
        settings["stop_at"] = _number("stop at", fields["stop_at"])
    elif tokens == "auto":
        settings["stop_at"] = AUTO_STOP_AT
    contexts = fields["contexts"].lower()
    if contexts in NO:
        settings["contexts"] = ()
    elif contexts not in YES:
        raise ConfigError(f"contexts is {fields['contexts']!r}: yes trains inside sentences too, no trains alone")
    for name in ("restarts", "seed", "patience"):
        if more.get(name):
            settings[name] = _whole(name, more[name])
    if more.get("rate"):
        settings["rate"] = _number("rate", more["rate"])
    settings |= {name: more[name] for name in ("init", "objective", "long") if more.get(name)}
    model = fields["model"] or "mini"
    if model.startswith(LOCAL):
        try:
            model = f"{LOCAL}{Path(model.removeprefix(LOCAL)).expanduser().absolute()}"
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"model is {model!r}: there is no such folder ({error})") from error
    precision = more.get("precision") or "float32"
    return Job(prompt, TrainConfig(**settings), model, fields["device"] or "auto", precision, more.get("name", ""))


def fields_of(config: dict[str, Any], model: str) -> dict[str, str]:
    """The fields that make a job like that of an entry's `config`."""
    stop_at = config.get("stop_at")
    return {
        "tokens": str(config.get("tokens", 3)),
        "steps": str(config.get("steps", 300)),
        "stop_at": "" if stop_at is None else f"{stop_at:g}",
        "contexts": "yes" if config.get("contexts") else "no",
        "model": model,
    }


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}: a whole number is needed") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}: a number such as .99 is needed") from None
