"""What the worker and its clients say to each other: JSON, a line a message, over a Unix socket.

A client begins with `hello`; the worker answers with its own `hello`, a `snapshot` with the first of the runs, `page`s with the rest of
them as the client reads, and events (`run`, `dropped`, `report`, `loading`, `bye`) as they happen, also between two pages. A page tells a
run as it is when the page is sent. A request has a `do` and an `id`; its `reply` or `error` bears the same id.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, ClassVar, NoReturn

from softprompt.errors import MessageTooLong, WorkerError, check_text

# 2: jobs may mean several texts together; 3: jobs may be sweeps and hard readouts; 4: the runs are told in pages
PROTOCOL = 4
MAX_LINE_BYTES = 4 << 20  # bytes; a prompt may have 200,000 characters, and JSON may need 12 bytes for one
MAX_READ_BYTES = 64 << 20  # bytes of a line that a client reads: older workers tell all their runs in one message
MAX_TEXTS = 64


def encode(message: dict[str, Any]) -> bytes:
    """The line of a message. Raises MessageTooLong for one that the other side would not read."""
    line = json.dumps(message, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise too_long(len(line))
    return line


def too_long(size: int) -> MessageTooLong:
    return MessageTooLong(
        f"a message of {size:,} bytes; at most {MAX_LINE_BYTES:,} are read. Shorten the prompt and what is compared with it"
    )


def decode(line: bytes) -> dict[str, Any]:
    """The message in a line; raises WorkerError for what is none."""
    try:
        message = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WorkerError(f"a line that is no message: {error}") from error
    if not isinstance(message, dict):
        raise WorkerError("a line that is no message: a JSON object was expected")
    return message


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@cache
def _version() -> str:
    from importlib.metadata import version  # 12 ms, and milliseconds more to find the package's metadata on the disk

    return version("softprompt-tui")


def hello() -> dict[str, Any]:
    return {"type": "hello", "protocol": PROTOCOL, "version": _version()}


def is_newer(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether who said `theirs` is of a later protocol or version than who said `ours`; a malformed hello is not."""
    return _age(theirs) > _age(ours)


def _age(said: dict[str, Any]) -> tuple[int, list[int]]:
    protocol = said.get("protocol")
    numbers = [int(part) for part in re.findall(r"\d{1,6}", str(said.get("version"))[:40])[:4]]
    return (protocol if isinstance(protocol, int) else 0, numbers)


def makes_way(message: dict[str, Any], last: str | None) -> bool:
    """Whether a message says that the last run of an older worker is out of its hands, so that it ends for a newer one."""
    return (
        message.get("type") == "run"
        and message["run"]["id"] == last
        and message["run"]["state"] not in ("running", "queued")
    )


Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _number(value: Any) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _object(needed: dict[str, Check], known: dict[str, Check]) -> Check:
    """An object that has the needed fields; those that are known have the right kind, others are nobody's business."""

    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and needed.keys() <= value.keys()
            and all(fits(value[name]) for name, fits in (needed | known).items() if name in value)
        )

    return check


_FIGURE = _or_none(_number)
_RESULT = _object(
    {"tokens": _whole},
    dict.fromkeys(("similarity", "composed", "worst", "floor", "readout_similarity"), _FIGURE)
    | {"readout_text": _or_none(_text), "knee": _flag},
)
_REPORTED = dict.fromkeys(("best_loss", "best_similarity", "seconds", "steps_per_second", "hard_similarity"), _FIGURE) | {
    "text": _text, "hard_step": _whole, "hard_steps": _whole, "steps": _whole, "restarts": _list_of(_FIGURE),
    "sweep": _list_of(lambda row: isinstance(row, list) and len(row) == 3 and _whole(row[0]) and all(map(_FIGURE, row[1:]))),
}  # fmt: skip
_RUN = _object(
    dict.fromkeys(("id", "prompt", "model", "device", "name", "created", "began", "ended", "error", "entry"), _text)
    | dict.fromkeys(("step", "loss", "similarity", "best_loss", "best_similarity", "seconds", "steps_per_second"), _FIGURE)
    | {"state": _text, "stopping": _flag, "position": _number, "steps": _whole,
       "tokens": lambda value: value == "auto" or _whole(value)},
    # an older worker does not tell these
    {"kind": _text, "sweep": _list_of(_whole), "results": _list_of(_RESULT), "of_entry": _text, "hard": _flag,
     "batch": _text, "rows": lambda value: _whole(value) and value > 0, "pausing": _flag},
)  # fmt: skip
MESSAGES: dict[str, Check] = {
    "hello": _object({}, {}),  # whoever it is; see `is_newer`
    "making_way": _object({"run": _text}, {}),
    "snapshot": _object({"runs": _list_of(_RUN)}, {"ready": _flag, "more": _flag}),
    "page": _object({"runs": _list_of(_RUN)}, {"more": _flag}),
    "ready": _object({}, {}),
    "loading": _object({"run": _text, "bytes": _whole, "of": _whole}, {}),
    "run": _object({"run": _RUN}, {}),
    "report": _object(
        {"run": _text, "step": _whole, "tokens": _whole, "loss": _FIGURE, "similarity": _FIGURE}, _REPORTED
    ),
    "dropped": _object({"run": _text}, {}),
    "bye": _object({}, {"again": _flag, "reason": _text}),
    "reply": _object({"id": _whole, "result": _object({}, {})}, {}),
    "error": _object({"id": _or_none(_whole), "kind": _text, "message": _text}, {"bad_input": _flag}),
}


def message_of(line: bytes) -> dict[str, Any]:
    """What a worker says in a line, its fields checked. Raises WorkerError."""
    message = decode(line)
    kind = message.get("type")
    fits = MESSAGES.get(kind) if isinstance(kind, str) else None
    if fits is None or not fits(message):
        raise WorkerError(
            f"the worker said what is no message of protocol {PROTOCOL}: {str(message)[:80]}. Update both sides"
        )
    return message


class Request:
    """What a client may ask for. A field without a default must be there."""

    do: ClassVar[str]


@dataclass(frozen=True)
class Submit(Request):
    """Puts a job (as `Job.as_dict`) in the queue; the reply comes when the run is durably on disk. `start`: an entry's id."""

    do = "submit"
    job: dict[str, Any]
    start: str = ""


@dataclass(frozen=True)
class Stop(Request):
    """Ends a run; what it has reached by then is saved."""

    do = "stop"
    run: str


@dataclass(frozen=True)
class Pause(Request):
    """Takes a run out of the queue, with all that it has done; the next one trains meanwhile."""

    do = "pause"
    run: str


@dataclass(frozen=True)
class Resume(Request):
    """Puts a paused or failed run back into the queue, or takes over one of another host that is no longer heard of."""

    do = "resume"
    run: str


@dataclass(frozen=True)
class Move(Request):
    """Puts a waiting run before another one in the queue, or last."""

    do = "move"
    run: str
    before: str = ""


@dataclass(frozen=True)
class Drop(Request):
    """Removes a run that is not training, and all that it has done; what is in the library stays there."""

    do = "drop"
    run: str


@dataclass(frozen=True)
class Status(Request):
    """The worker itself: process, models, memory, queue."""

    do = "status"


@dataclass(frozen=True)
class Curve(Request):
    """A run's curve so far, reduced to at most `points`: [step, loss, similarity, the loss of each restart where there are several]."""

    do = "curve"
    run: str
    points: int = 400


@dataclass(frozen=True)
class Shutdown(Request):
    """Ends the worker: at once, the running run being kept for the next one, or with `finish` when that run is done."""

    do = "shutdown"
    finish: bool = False


@dataclass(frozen=True)
class Keep(Request):
    """Saves those of a sweep's soft prompts that have these numbers of tokens, each once however often it is asked.

    The reply's `kept` has for each its `tokens`, `entry` (an id) and `name`.
    """

    do = "keep"
    run: str
    tokens: list[int]


@dataclass(frozen=True)
class Similarity(Request):
    """Similarities of texts, which may be compositions, and of each to itself with the hard prompts written out.

    The reply's `written_out` has for a text with soft prompts its `text` written out, "" where that is not known, the `tokens` of it and
    how many are `saved`, the `similarity` to it beside the `floor`, and `mixed`: as `softprompt.composition.composer.Figures` has them.
    """

    do = "similarity"
    model: str
    texts: list[str]
    device: str = "auto"
    opened: str = ""  # an entry's id: whose tokens [v1], [v2], … are


@dataclass(frozen=True)
class Neighbours(Request):
    """The vocabulary words nearest to the soft tokens of an entry, or of a run as it is now.

    The reply's `readout_similarity` is that of these words as text to what the soft tokens are trained on; null where that is not known.
    """

    do = "neighbours"
    entry: str = ""
    run: str = ""
    top: int = 5


@dataclass(frozen=True)
class Models(Request):
    """The models that can be had, and whether they are on disk or in memory."""

    do = "models"


QUERIES = (Similarity, Neighbours)  # answered by the thread that trains, between two steps
NEEDS_OURS = (
    Submit,
    Resume,
    Similarity,
)  # an older worker trains no further run, and may take jobs and compositions for others
_REQUESTS: dict[str, type[Request]] = {
    kind.do: kind
    for kind in (Submit, Stop, Pause, Resume, Move, Drop, Status, Curve, Shutdown, Keep, Similarity, Neighbours, Models)
}
_KINDS: dict[str, type] = {
    "str": str,
    "int": int,
    "bool": bool,
    "dict[str, Any]": dict,
    "list[str]": list,
    "list[int]": list,
}


def request_of(message: dict[str, Any]) -> Request:
    """The request in a message, its fields checked; raises WorkerError, and PromptError for what is no text."""
    kind = _REQUESTS.get(str(message.get("do")))
    if kind is None:
        raise WorkerError(f"{str(message.get('do'))[:40]!r} is no request; there are {', '.join(_REQUESTS)}")
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]  # every kind is a dataclass
        value = message.get(field.name, field.default)
        if value is MISSING or type(value) is not _KINDS[str(field.type)]:
            raise WorkerError(f"{kind.do} needs {field.name} as {field.type}, and got {str(value)[:40]!r}")
        of, words = (int, "whole numbers") if field.type == "list[int]" else (str, "texts")
        if isinstance(value, list) and (len(value) > MAX_TEXTS or not all(type(one) is of for one in value)):
            raise WorkerError(f"{kind.do} takes up to {MAX_TEXTS} {words} as {field.name}")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                check_text(field.name, text)
        values[field.name] = value
    return kind(**values)


def number_of(message: dict[str, Any]) -> int | None:
    """What the answer to a request is known by. Raises WorkerError."""
    number = message.get("id")
    if number is not None and not _whole(number):
        raise WorkerError(f"id is {str(number)[:40]!r}; it must be a whole number below 2**63")
    return number


def as_message(request: Request, number: int) -> dict[str, Any]:
    return {"do": request.do, "id": number, **vars(request)}
