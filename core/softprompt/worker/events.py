"""The events of a run, checked: a file may hold anything, so every value has its type and its bounds before it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker.summary import ENDED

MAX_LINE_BYTES = 1 << 20  # of one event
MAX_NUMBER = 1 << 52  # up to here a position has a next one, and JSON of every language holds a whole number
MAX_TEXT = 10_000  # characters of an error or a readout
MAX_LIST = 1024  # restarts, numbers of tokens

WHOLE = ("queued", "paused", *ENDED)  # events that set the state of a run, whatever was before


class BadEvent(ValueError):
    """An event that changes its run's state holds a value it cannot have, so the run cannot be read."""


@dataclass(frozen=True)
class Event:
    """What happened, when, and under which lease of the run; 0 where that was not written. `values` holds what was given, checked."""

    kind: str
    at: str
    lease: int
    values: Mapping[str, Any]


Check = Callable[[Any], Any]  # the value in its type; raises ValueError, saying what is expected


def read_line(line: bytes) -> dict[str, Any] | None:
    """The JSON object in a line; None for a torn line, or what is none."""
    try:
        values = decode(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def decode(raw: bytes) -> Any:
    """The JSON in `raw`, without lone surrogates, which no file and no terminal takes. Raises ValueError and RecursionError."""
    values = json.loads(raw.decode("utf-8"))
    return _clean(values) if b"\\ud" in raw.lower() else values


def check_event(values: Mapping[str, Any]) -> Event | None:
    """The event in a JSON object; None for a kind that this version does not know, and for a report that cannot be drawn.

    Raises BadEvent where a value decides about the run and is not what it can be.
    """
    kind = values.get("event")
    if not isinstance(kind, str) or kind not in _CHECKS:
        return None
    try:
        at, lease = time(values.get("at")), _checked("lease", count, values.get("lease", 0))
        checked = {
            key: _checked(key, check, values[key])
            for key, check in _CHECKS[kind].items()
            if values.get(key) is not None
        }
        if missing := [key for key in _NEEDED.get(kind, ()) if key not in checked]:
            raise ValueError(f"{missing[0]} is missing")
    except ValueError as error:
        if kind == "report":  # a point of a curve less
            return None
        raise BadEvent(f"the event {kind!r} cannot be read: {error}") from error
    return Event(kind, at, lease, checked)


def _checked(key: str, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{key} is {_brief(value)}; {error}") from error


def _brief(value: Any) -> str:
    """A value in a message. It may be a number of thousands of digits, which Python does not even print, or nested deeply."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of very many digits"
    return repr(value)[:60] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_clean(part) for part in value]
    return {_clean(key): _clean(part) for key, part in value.items()} if isinstance(value, dict) else value


# values


def count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        raise ValueError("a whole number from 0 is expected")
    return value


def number(value: Any) -> float:
    if type(value) not in (int, float) or not -MAX_NUMBER <= value <= MAX_NUMBER:  # NaN is in no range
        raise ValueError("a finite number is expected")
    return float(value)


def figure(value: Any) -> float | None:
    """A measured number; what is none any more is written as null."""
    return None if value is None else number(value)


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is expected")
    return value if len(value) <= MAX_TEXT else f"{value[: MAX_TEXT - 1]}…"


def time(value: Any) -> str:
    """An ISO time, as it was written."""
    try:
        if isinstance(value, str) and len(value) <= 40 and datetime.fromisoformat(value):
            return value
    except ValueError:
        pass
    raise ValueError(f"its time is {_brief(value)}; an ISO time is expected")


def time_or_none(value: Any) -> str:
    return time(value) if value != "" else ""


def _figures(value: Any) -> tuple[float | None, ...]:
    return tuple(map(figure, _listed(value)))


def _rows(value: Any) -> list[list[float | None]]:
    """Of a sweep: the number of tokens with its similarities, for each."""
    return [[count(row[0]), *_figures(row[1:])] for row in map(_listed, _listed(value)) if row]


def _listed(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) > MAX_LIST:
        raise ValueError(f"a list of at most {MAX_LIST} is expected")
    return value


def _results(value: Any) -> tuple[SweepResult, ...]:
    """What each number of tokens of a sweep came to."""
    results = []
    for result in _listed(value):
        if not isinstance(result, dict) or "tokens" not in result:
            raise ValueError("a list of objects with tokens is expected")
        known = {key: _checked(key, check, result[key]) for key, check in _RESULT.items() if key in result}
        results.append(SweepResult.from_dict(known))
    return tuple(results)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is expected")
    return value


def _report(value: Any) -> dict[str, Any]:
    """The last report, as it stands in the event that ends a run."""
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    return {key: _checked(key, check, value[key]) for key, check in _REPORT.items() if value.get(key) is not None}


_RESULT: dict[str, Check] = {
    "tokens": count, "similarity": figure, "composed": figure, "worst": figure, "floor": figure,
    "readout_text": text, "readout_similarity": figure, "knee": _flag,
}  # fmt: skip
_REPORT: dict[str, Check] = {
    "step": count, "steps": count, "tokens": count, "loss": figure, "similarity": figure, "best_loss": figure, "best_similarity": figure,
    "seconds": figure, "steps_per_second": figure, "restarts": _figures, "sweep": _rows,
    "text": text, "hard_similarity": figure, "hard_step": count, "hard_steps": count,
}  # fmt: skip
_END: dict[str, Check] = {
    "error": text, "began": time_or_none, "entry": text, "name": text, "results": _results, "latest": _report,
}  # fmt: skip
_CHECKS: dict[str, dict[str, Check]] = {
    "queued": {"position": number},
    "paused": {"position": number},
    "moved": {"position": number},
    "stopping": {},
    "pausing": {},
    "began": {"step": count},
    "report": _REPORT,
    **dict.fromkeys(ENDED, _END),
}
_NEEDED = {"moved": ("position",), "began": ("step",), "report": ("step", "tokens")}
