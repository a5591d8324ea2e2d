"""Check the events of a run. A file may contain anything, so the type and range of every value are checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker.summary import ENDED

MAX_LINE_BYTES = 1 << 20
MAX_NUMBER = 1 << 52  # up to here, floats represent integers exactly, and every JSON parser accepts them
MAX_TEXT_LENGTH = 10_000  # characters of an error message or a readout
MAX_LIST_LENGTH = 1024  # restarts or token counts

STATE_EVENTS = ("queued", "paused", *ENDED)  # events that set a run's state regardless of earlier events


class BadEvent(ValueError):
    """An event that changes its run's state has an invalid value, so the run is unreadable."""


@dataclass(frozen=True)
class Event:
    """A validated run event. `lease` is the writer's lease number, or 0 if the event has none."""

    kind: str
    at: str
    lease: int
    values: Mapping[str, Any]


Check = Callable[[Any], Any]  # returns the value in its proper type, or raises a ValueError that says what is allowed


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line, or None if the line is incomplete or is not a JSON object."""
    try:
        values = decode(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def decode(raw: bytes) -> Any:
    """Decode JSON and replace lone surrogates, because neither files nor terminals accept them.

    Raises:
        ValueError: `raw` is not valid UTF-8 JSON.
        RecursionError: the values are nested too deeply.
    """
    values = json.loads(raw.decode("utf-8"))
    return _replace_surrogates(values) if b"\\ud" in raw.lower() else values


def check_event(values: Mapping[str, Any]) -> Event | None:
    """Return the event in a JSON object, or None if its kind is unknown or it is an invalid report.

    Raises:
        BadEvent: a value that affects the run's state is invalid.
    """
    kind = values.get("event")
    if not isinstance(kind, str) or kind not in _CHECKS:
        return None
    try:
        at, lease = check_time(values.get("at")), _check_field("lease", check_count, values.get("lease", 0))
        checked = {
            key: _check_field(key, check, values[key])
            for key, check in _CHECKS[kind].items()
            if values.get(key) is not None
        }
        if missing := [key for key in _REQUIRED.get(kind, ()) if key not in checked]:
            raise ValueError(f"{missing[0]} is missing")
    except ValueError as error:
        if kind == "report":  # the curve only loses one point
            return None
        raise BadEvent(f"cannot read the event {kind!r}: {error}") from error
    return Event(kind, at, lease, checked)


def _check_field(key: str, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{key} is {_describe_value(value)}; {error}") from error


def _describe_value(value: Any) -> str:
    """Describe a value for a message. Python cannot print integers with thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a very long number"
    return repr(value)[:60] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    return (
        {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
        if isinstance(value, dict)
        else value
    )


# checks of values


def check_count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        raise ValueError("it must be a non-negative integer")
    return value


def check_number(value: Any) -> float:
    if type(value) not in (int, float) or not -MAX_NUMBER <= value <= MAX_NUMBER:  # NaN fails this too
        raise ValueError("it must be a finite number")
    return float(value)


def check_figure(value: Any) -> float | None:
    """Check a measured value, which may be None: NaN and infinity are stored as null."""
    return None if value is None else check_number(value)


def check_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it must be a string")
    return value if len(value) <= MAX_TEXT_LENGTH else f"{value[: MAX_TEXT_LENGTH - 1]}…"


def check_time(value: Any) -> str:
    """Check an ISO 8601 time and return it unchanged."""
    try:
        if isinstance(value, str) and len(value) <= 40 and datetime.fromisoformat(value):
            return value
    except ValueError:
        pass
    raise ValueError(f"its time is {_describe_value(value)}; it must be in ISO 8601 format")


def check_optional_time(value: Any) -> str:
    return check_time(value) if value != "" else ""


def _check_figures(value: Any) -> tuple[float | None, ...]:
    return tuple(map(check_figure, _check_list(value)))


def _check_sweep_rows(value: Any) -> list[list[float | None]]:
    """Check the rows of a sweep. Each has a token count and its similarities."""
    return [[check_count(row[0]), *_check_figures(row[1:])] for row in map(_check_list, _check_list(value)) if row]


def _check_list(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) > MAX_LIST_LENGTH:
        raise ValueError(f"it must be a list of at most {MAX_LIST_LENGTH} items")
    return value


def _check_results(value: Any) -> tuple[SweepResult, ...]:
    results = []
    for result in _check_list(value):
        if not isinstance(result, dict) or "tokens" not in result:
            raise ValueError("it must be a list of objects with a `tokens` field")
        known = {key: _check_field(key, check, result[key]) for key, check in _RESULT.items() if key in result}
        results.append(SweepResult.from_dict(known))
    return tuple(results)


def _check_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it must be true or false")
    return value


def _check_report(value: Any) -> dict[str, Any]:
    """Check the last report, which is part of the event that ends a run."""
    if not isinstance(value, dict):
        raise ValueError("it must be an object")
    return {key: _check_field(key, check, value[key]) for key, check in _REPORT.items() if value.get(key) is not None}


_RESULT: dict[str, Check] = {
    "tokens": check_count, "similarity": check_figure, "composed": check_figure, "worst": check_figure,
    "floor": check_figure, "readout_text": check_text, "readout_similarity": check_figure, "knee": _check_flag,
    "kl": check_figure, "kl_share": check_figure,
}  # fmt: skip
_REPORT: dict[str, Check] = {
    "step": check_count, "steps": check_count, "tokens": check_count,
    "loss": check_figure, "similarity": check_figure, "best_loss": check_figure, "best_similarity": check_figure,
    "seconds": check_figure, "steps_per_second": check_figure, "restarts": _check_figures, "sweep": _check_sweep_rows,
    "text": check_text, "hard_similarity": check_figure, "hard_step": check_count, "hard_steps": check_count,
}  # fmt: skip
_END: dict[str, Check] = {
    "error": check_text, "error_kind": check_text, "began": check_optional_time, "entry": check_text,
    "name": check_text, "results": _check_results, "latest": _check_report,
}  # fmt: skip
_CHECKS: dict[str, dict[str, Check]] = {
    "queued": {"position": check_number},
    "paused": {"position": check_number},
    "moved": {"position": check_number},
    "stopping": {},
    "pausing": {},
    "began": {"step": check_count},
    "report": _REPORT,
    **dict.fromkeys(ENDED, _END),
}
_REQUIRED = {"moved": ("position",), "began": ("step",), "report": ("step", "tokens")}
