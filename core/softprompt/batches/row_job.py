"""Turn a row into a training job and derive its entry id. Equal jobs get the same id in every run."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

from softprompt.argument_types import check_ordered, list_of_strings, plain_value
from softprompt.config import AUTO_KL_SHARE, AUTO_STOP_AT, TrainConfig, batch_settings, config_for, digested_settings
from softprompt.encoders.catalog import MINI, model_kind
from softprompt.errors import ConfigError, PromptError, check_text
from softprompt.jobs.job import TrainJob
from softprompt.jobs.parsing import LIST_SEPARATOR, NO_WORDS, YES_WORDS, split_list
from softprompt.library.names import as_tag_list, check_tags

LIST_KEYS = ("contexts", "against")
INTEGER_KEYS = ("tokens", "steps", "restarts", "patience", "seed")
FLOAT_KEYS = ("rate", "stop_at", "hidden_share")
TAGS = "tags"  # only in a caller's mapping: the tags column of a file can mean anything
ROW_KEYS = frozenset({setting.name for setting in fields(TrainConfig)} | {"name", "model"})
_DEFAULT_JOB = TrainJob("-")


@dataclass(frozen=True)
class Defaults:
    """Settings used where a row gives none.

    Every saved entry gets `tags`. `plain` removes image-program syntax from every prompt.
    """

    config: TrainConfig = field(default_factory=TrainConfig)
    model: str = MINI
    device: str = "auto"
    precision: str = "float32"
    tags: tuple[str, ...] = ()
    plain: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", tuple(as_tag_list(self.tags)))
        if self.config.init == "soft":
            raise _no_start()

    def as_dict(self) -> dict[str, Any]:
        return {"config": batch_settings(self.config), "model": self.model, "precision": self.precision}


def job_from_row(values: dict[str, Any], defaults: Defaults) -> TrainJob:
    """Return the training job for a row. Raises PromptError, ConfigError or BadName."""
    row_tags(values, defaults)
    prompt, name, model = (_parse_text(key, values.get(key)) for key in ("prompt", "name", "model"))
    settings = {
        key: _parse_setting(key, value)
        for key, value in values.items()
        if key not in ("prompt", "name", "model", TAGS) and value is not None
    }
    model = model.strip() or defaults.model
    kind = model_kind(model)
    if settings.get("tokens") == "auto" and defaults.config.stop_at is None:
        settings.setdefault("stop_at", AUTO_STOP_AT if kind == "text" else AUTO_KL_SHARE)
    if settings.get("init") == "soft":
        raise _no_start()
    if kind != model_kind(defaults.model):  # the settings of all rows are for the other kind of model
        config = config_for(kind, settings)
    else:
        config = replace(defaults.config, **settings) if settings else defaults.config
    return TrainJob(prompt.strip(), config, model, defaults.device, defaults.precision, name.strip())


def _no_start() -> ConfigError:
    return ConfigError(
        "init 'soft' needs a saved soft prompt, which a batch cannot use. Use noise, vocabulary, prompt or first."
    )


def plain_row(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a caller's mapping as JSON values.

    pandas writes NaN for a missing value, which leaves the setting out, and then writes the 1 of another row as 1.0.

    Raises:
        ArgumentError: a list has no order or too many items.
    """
    plain: dict[str, Any] = {}
    for key, value in values.items():
        value = plain_value(value)
        if isinstance(value, float):
            value = int(value) if key in INTEGER_KEYS and value.is_integer() else None if math.isnan(value) else value
        elif type(value).__name__ in ("NAType", "NaTType"):
            value = None
        elif key in (*LIST_KEYS, TAGS) and not isinstance(value, str | bool | None):
            if key != TAGS:
                check_ordered(key, value)
            texts = list_of_strings(key, value)
            value = value if texts is None else texts
        plain[key] = value
    return plain


def row_tags(values: dict[str, Any], defaults: Defaults) -> tuple[str, ...]:
    """Return the tags of a row and those of all rows. Raises BadName or ConfigError."""
    tags = values.get(TAGS)
    if tags is None:
        return defaults.tags
    if not isinstance(tags, str | list) or not all(isinstance(tag, str) for tag in tags):
        raise ConfigError(f"tags is {tags!r:.40}; it must be a string or a list of strings")
    return check_tags([*defaults.tags, *as_tag_list(tags)])


def job_digest(job: TrainJob) -> bytes:
    """Return an 8-byte digest of a job.

    The digest excludes default values, so that settings added in later versions do not change it. It also excludes the
    device, so that a batch can continue on another device.
    """
    default = _DEFAULT_JOB.as_dict()
    values = {key: value for key, value in job.as_dict().items() if value != default[key]}
    values["config"] = digested_settings(job.config)
    for key in ("device", "meanings", "ancestry", "sweep"):
        values.pop(key, None)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()[:8]


def entry_id(digest: bytes, number: int) -> str:
    """Return the entry id for the `number`th job (counted from 1) with this digest in a file."""
    return hashlib.sha256(digest + b" %d" % number).hexdigest()[:16]


def _parse_text(key: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise PromptError(f"{key} is {value!r:.40}; it must be a string")
    return check_text(key, value)


def _parse_setting(key: str, value: Any) -> Any:
    """Parse a setting from a CSV cell or a JSON value. TrainConfig checks the bounds. Raises ConfigError."""
    if key in LIST_KEYS:
        return _parse_list(key, value)
    if key == "project_norm":
        answer = str(value).strip().lower()
        if answer not in YES_WORDS + NO_WORDS:
            raise ConfigError(f"project_norm is {value!r:.40}; it must be yes or no")
        return answer in YES_WORDS
    if not isinstance(value, str):
        if isinstance(value, list | dict | bool):
            raise ConfigError(f"{key} is {value!r:.40}; it must be a single value")
        return value
    value = value.strip()
    if value == "auto" or (key not in INTEGER_KEYS and key not in FLOAT_KEYS):
        return value
    try:
        return int(value) if key in INTEGER_KEYS else float(value)
    except ValueError:
        raise ConfigError(
            f"{key} is {value!r:.60}; it must be a {'whole ' if key in INTEGER_KEYS else ''}number"
        ) from None


def _parse_list(key: str, value: Any) -> tuple[str, ...]:
    """Parse a list from a CSV cell (separated by |) or from JSON. "no" means an empty list, "yes" the default list."""
    if value is True or (isinstance(value, str) and value.strip().lower() in YES_WORDS):
        return getattr(_DEFAULT_JOB.config, key)  # type: ignore[no-any-return]
    if value is False or (isinstance(value, str) and value.strip().lower() in NO_WORDS):
        return ()
    if isinstance(value, str):
        value = [*split_list(value)]
    elif not isinstance(value, list):
        raise ConfigError(
            f"{key} is {value!r:.40}; it must be a list of strings, or one string separated by {LIST_SEPARATOR}"
        )
    return tuple(_parse_text(key, text) for text in value)
