"""Validate the provenance of a soft prompt from any source. Display, sorting and training rely on these types."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

# number of values in `source`, characters per value, characters in total
MAX_SOURCE_VALUES, MAX_SOURCE_LENGTH, MAX_TOTAL_SOURCE_LENGTH = (64, 4000, 100_000)
_FIRST_YEAR, _LAST_YEAR = 2, 9998  # one year inside datetime's range, so that any time zone can express the time


def parse_number(value: Any) -> float:
    """Return `value` as a float. Raises TypeError if it is not a number, or ValueError if it is not finite."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{str(value)[:40]} is not a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError("a number is too large") from error
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


def check_time(text: str) -> None:
    """Raise ValueError unless `text` is an ISO 8601 date and time with a UTC offset that any time zone can express."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError("it has no time zone")
        if not _FIRST_YEAR <= time.astimezone(UTC).year <= _LAST_YEAR:
            raise ValueError("its year is out of bounds")
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text[:40]!r} is not a valid time ({str(error)[:60]})") from error


def check_config(config: dict[str, Any]) -> None:
    """Raise TypeError if a known setting has the wrong type. Unknown settings are ignored."""
    for key, value in config.items():
        if key in _SETTING_CHECKS and not _SETTING_CHECKS[key](value):
            raise TypeError(f"the setting {key} cannot be {str(value)[:40]}")


def check_texts(what: str, values: dict[str, Any]) -> None:
    """Raise TypeError unless all values are strings."""
    if not all(isinstance(value, str) for value in values.values()):
        raise TypeError(f"{what} must be strings")


def check_source(source: dict[str, Any]) -> None:
    """Raise TypeError or ValueError unless all values are strings, finite numbers, booleans or None."""
    for value in source.values():
        if isinstance(value, float):
            parse_number(value)
        elif not isinstance(value, (str, int, type(None))):
            raise TypeError(f"its source contains a {type(value).__name__}")


def check_source_size(source: dict[str, Any]) -> None:
    """Raise ValueError if `source` is larger than this program writes: the file comes from elsewhere."""
    if len(source) > MAX_SOURCE_VALUES or truncate_source(source) != source:
        raise ValueError(
            f"its source has more than {MAX_SOURCE_VALUES} values, {MAX_SOURCE_LENGTH:,} characters in one value, "
            f"or {MAX_TOTAL_SOURCE_LENGTH:,} characters in total"
        )


def truncate_source(source: dict[str, Any]) -> dict[str, Any]:
    """Return the first values that fit within the limits."""
    stored: dict[str, Any] = {}
    remaining = MAX_TOTAL_SOURCE_LENGTH
    for key, value in source.items():
        size = len(key) + len(str(value))
        # a shortened value has one more character, the ellipsis
        if (
            len(stored) < MAX_SOURCE_VALUES
            and size <= remaining
            and max(len(key), len(str(value)) - 1) <= MAX_SOURCE_LENGTH
        ):
            stored[key] = value
            remaining -= size
    return stored


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_SETTING_CHECKS: dict[str, Callable[[Any], bool]] = {
    "tokens": lambda value: value == "auto" or _is_whole(value),
    "project_norm": lambda value: isinstance(value, bool),
    "stop_at": _optional(_is_number),
    "patience": _optional(_is_whole),
    **dict.fromkeys(("steps", "restarts", "seed", "self_study"), _is_whole),
    **dict.fromkeys(("rate", "hidden_share"), _is_number),
    **dict.fromkeys(("init", "objective", "family", "long", "placement", "instruction"), _is_text),
    **dict.fromkeys(("against", "contexts", "questions"), _is_text_list),
}
