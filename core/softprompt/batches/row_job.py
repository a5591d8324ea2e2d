"""From a row to a training job, and the id that its result has in the library: the same whenever the same is asked for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from typing import Any

from softprompt.config import AUTO_STOP_AT, TrainConfig
from softprompt.encoders.catalog import MINI
from softprompt.errors import ConfigError, PromptError, check_text
from softprompt.jobs.job import TrainJob
from softprompt.jobs.parsing import BETWEEN, NO, YES, split_list
from softprompt.library.names import listed_tags

LISTS = ("contexts", "against")
WHOLE = ("tokens", "steps", "restarts", "patience", "seed")
NUMBERS = ("rate", "stop_at", "hidden_share")
OF_A_ROW = frozenset({one.name for one in fields(TrainConfig)} | {"name", "model"})
_UNASKED = TrainJob("-")
_USUAL = _UNASKED.config.as_dict()


@dataclass(frozen=True)
class Defaults:
    """How a prompt is trained whose row says nothing else.

    `tags` are given to what is saved. `plain` removes what image programs read as syntax from every prompt.
    """

    config: TrainConfig = field(default_factory=TrainConfig)
    model: str = MINI
    device: str = "auto"
    precision: str = "float32"
    tags: tuple[str, ...] = ()
    plain: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", tuple(listed_tags(self.tags)))
        if self.config.init == "soft":
            raise ConfigError(
                "init is 'soft', which begins from a saved soft prompt: a batch begins from noise, vocabulary or prompt"
            )

    def as_dict(self) -> dict[str, Any]:
        return {"config": self.config.as_dict(), "model": self.model, "precision": self.precision}


def job_from_row(values: dict[str, Any], defaults: Defaults) -> TrainJob:
    """The job that a row asks for. Raises PromptError, ConfigError, BadName."""
    prompt, name, model = (_text(key, values.get(key)) for key in ("prompt", "name", "model"))
    settings = {
        key: _setting(key, value)
        for key, value in values.items()
        if key not in ("prompt", "name", "model") and value is not None
    }
    if settings.get("tokens") == "auto" and defaults.config.stop_at is None:
        settings.setdefault("stop_at", AUTO_STOP_AT)
    if settings.get("init") == "soft":
        raise ConfigError(
            "init is 'soft', which begins from a saved soft prompt: a batch begins from noise, vocabulary or prompt"
        )
    config = replace(defaults.config, **settings) if settings else defaults.config
    return TrainJob(
        prompt.strip(), config, model.strip() or defaults.model, defaults.device, defaults.precision, name.strip()
    )


def digest_of(job: TrainJob) -> bytes:
    """What is asked for, as 8 bytes. Settings that have their usual values do not count, so that a setting that a later version adds
    changes nothing; nor does the device, so that a batch can go on on another."""
    usual = _UNASKED.as_dict()
    asked = {key: value for key, value in job.as_dict().items() if value != usual[key]}
    asked["config"] = {key: value for key, value in job.config.as_dict().items() if value != _USUAL[key]}
    for key in ("device", "meanings", "ancestry", "sweep"):
        asked.pop(key, None)
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()[:8]


def entry_id(digest: bytes, number: int) -> str:
    """The id of what becomes of the `number`th job of a file that asks for this."""
    return hashlib.sha256(digest + b" %d" % number).hexdigest()[:16]


def _text(key: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PromptError(f"{key} is {value!r:.40}: a text is expected")
    return check_text(key, value)


def _setting(key: str, value: Any) -> Any:
    """A setting's value from a cell or from JSON; the bounds are TrainConfig's. Raises ConfigError."""
    if key in LISTS:
        return _several(key, value)
    if key == "project_norm":
        answer = str(value).strip().lower()
        if answer not in YES + NO:
            raise ConfigError(f"project_norm is {value!r:.40}: yes or no is expected")
        return answer in YES
    if not isinstance(value, str):
        if isinstance(value, list | dict | bool):
            raise ConfigError(f"{key} is {value!r:.40}: one value is expected")
        return value
    value = value.strip()
    if value == "auto" or (key not in WHOLE and key not in NUMBERS):
        return value
    try:
        return int(value) if key in WHOLE else float(value)
    except ValueError:
        raise ConfigError(f"{key} is {value!r:.60}: a {'whole ' if key in WHOLE else ''}number is expected") from None


def _several(key: str, value: Any) -> tuple[str, ...]:
    """The texts of a cell, parted by |, or of a list; no for none of them, yes for the usual ones."""
    if value is True or (isinstance(value, str) and value.strip().lower() in YES):
        return getattr(_UNASKED.config, key)  # type: ignore[no-any-return]
    if value is False or (isinstance(value, str) and value.strip().lower() in NO):
        return ()
    if isinstance(value, str):
        value = [*split_list(value)]
    elif not isinstance(value, list):
        raise ConfigError(f"{key} is {value!r:.40}: a list of texts is expected, or texts with {BETWEEN} between them")
    return tuple(_text(key, one) for one in value)
