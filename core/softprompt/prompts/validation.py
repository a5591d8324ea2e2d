"""What a soft prompt's provenance may hold, whoever wrote it: what is shown, sorted and trained again relies on these kinds."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

MAX_SOURCE_VALUES, MAX_SOURCE_LENGTH, MAX_SOURCE_BYTES = (
    64,
    4000,
    100_000,
)  # values of `source`, characters of one, characters of all
_FIRST_YEAR, _LAST_YEAR = 2, 9998  # one year away from what no other zone can express


def number(value: Any) -> float:
    """The number; raises TypeError or ValueError for what is none, NaN and the infinite among it."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{str(value)[:40]} is no number")
    try:
        made = float(value)
    except OverflowError as error:
        raise ValueError("a number is too large") from error
    if not math.isfinite(made):
        raise ValueError(f"{made} is no finite number")
    return made


def check_time(text: str) -> None:
    """Raises ValueError for what is no ISO date with a time and a zone, or none that every zone can express."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError("it has no zone")
        if not _FIRST_YEAR <= time.astimezone(UTC).year <= _LAST_YEAR:
            raise ValueError("its year is out of bounds")
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text[:40]!r} is no time ({str(error)[:60]})") from error


def check_config(config: dict[str, Any]) -> None:
    """Raises TypeError where a setting that this version knows is of another kind than `TrainConfig.as_dict` writes; others may stay."""
    for key, value in config.items():
        if key in _SETTINGS and not _SETTINGS[key](value):
            raise TypeError(f"the setting {key} is {str(value)[:40]}")


def check_texts(what: str, values: dict[str, Any]) -> None:
    """Raises TypeError for other values than texts."""
    if not all(isinstance(value, str) for value in values.values()):
        raise TypeError(f"{what} are not texts")


def check_source(source: dict[str, Any]) -> None:
    """Raises TypeError or ValueError for other values than texts, numbers, yes and no, and nothing."""
    for value in source.values():
        if isinstance(value, float):
            number(value)
        elif not isinstance(value, (str, int, type(None))):
            raise TypeError(f"its source holds a {type(value).__name__}")


def check_source_size(source: dict[str, Any]) -> None:
    """Raises ValueError for more than is kept of what a file says: of a file from outside that says that it is this program's."""
    if len(source) > MAX_SOURCE_VALUES or bounded(source) != source:
        raise ValueError(
            f"its source has more than {MAX_SOURCE_VALUES} values, or {MAX_SOURCE_LENGTH:,} characters in one or {MAX_SOURCE_BYTES:,} in all"
        )


def bounded(source: dict[str, Any]) -> dict[str, Any]:
    """The first of these values, as many as are kept."""
    kept: dict[str, Any] = {}
    left = MAX_SOURCE_BYTES
    for key, value in source.items():
        size = len(key) + len(str(value))
        # a value that was cut has one character more, which says so
        if len(kept) < MAX_SOURCE_VALUES and size <= left and max(len(key), len(str(value)) - 1) <= MAX_SOURCE_LENGTH:
            kept[key] = value
            left -= size
    return kept


def _whole(value: Any) -> bool:
    return type(value) is int


def _number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _maybe(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or kind(value)


_SETTINGS: dict[str, Callable[[Any], bool]] = {
    "tokens": lambda value: value == "auto" or _whole(value),
    "project_norm": lambda value: isinstance(value, bool),
    "stop_at": _maybe(_number),
    "patience": _maybe(_whole),
    **dict.fromkeys(("steps", "restarts", "seed"), _whole),
    **dict.fromkeys(("rate", "hidden_share"), _number),
    **dict.fromkeys(("init", "objective", "family", "long"), _text),
    **dict.fromkeys(("against", "contexts"), _texts),
}
