"""The protocol between the worker and its clients: JSON over a Unix socket, one message per line.

A client starts with `hello`. The worker answers with its own `hello` and a `snapshot` of the first runs. The other
runs follow in `page`s, as fast as the client reads them. A page shows each run in its state at the time of sending.
Events (`run`, `dropped`, `report`, `loading`, `bye`) are sent as they happen, even between two pages. A request has a
`do` and an `id`, and its `reply` or `error` has the same `id`.
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

# 2: jobs may mix several texts; 3: jobs may be sweeps and hard readouts; 4: runs arrive in pages; 5: devices, and the
# stages of loading a model
PROTOCOL = 5
MAX_LINE_BYTES = 4 << 20  # a prompt may have 200,000 characters, and JSON may need 12 bytes for each
MAX_READ_BYTES = 64 << 20  # the longest line a client accepts; older workers send all their runs in one message
MAX_TEXTS = 64


def encode(message: dict[str, Any]) -> bytes:
    """Encode a message as a line. Raises MessageTooLong if the line exceeds MAX_LINE_BYTES."""
    line = json.dumps(message, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise message_too_long(len(line))
    return line


def message_too_long(size: int) -> MessageTooLong:
    return MessageTooLong(
        f"the message has {size:,} bytes; the limit is {MAX_LINE_BYTES:,}. Shorten the prompt and its reference texts."
    )


def decode(line: bytes) -> dict[str, Any]:
    """Decode a line. Raises WorkerError if it is not a JSON object."""
    try:
        message = json.loads(line, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise WorkerError(f"cannot read a message: {error}") from error
    if not isinstance(message, dict):
        raise WorkerError("cannot read a message: it is not a JSON object")
    return message


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


@cache
def _version() -> str:
    from importlib.metadata import version  # 12 ms, and a few more to find the package's metadata on disk

    return version("softprompt-tui")


def hello() -> dict[str, Any]:
    return {"type": "hello", "protocol": PROTOCOL, "version": _version()}


def is_newer(hello: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether the sender of `hello` has a later protocol or version. A malformed hello counts as old."""
    return _version_key(hello) > _version_key(other)


def _version_key(hello: dict[str, Any]) -> tuple[int, list[int]]:
    protocol = hello.get("protocol")
    numbers = [int(part) for part in re.findall(r"\d{1,6}", str(hello.get("version"))[:40])[:4]]
    return (protocol if isinstance(protocol, int) else 0, numbers)


def frees_older_worker(message: dict[str, Any], last_run: str | None) -> bool:
    """Return whether a message shows that an older worker has finished its last run and is about to end."""
    return (
        message.get("type") == "run"
        and message["run"]["id"] == last_run
        and message["run"]["state"] not in ("running", "queued")
    )


Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _object(required: dict[str, Check], optional: dict[str, Check]) -> Check:
    """Return a check for an object that has all required fields. Unknown fields are not checked."""

    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and required.keys() <= value.keys()
            and all(fits(value[name]) for name, fits in (required | optional).items() if name in value)
        )

    return check


_OPTIONAL_NUMBER = _optional(_is_number)
_RESULT = _object(
    {"tokens": _is_whole},
    dict.fromkeys(
        ("similarity", "composed", "worst", "floor", "readout_similarity", "kl", "kl_share"), _OPTIONAL_NUMBER
    )
    | {"readout_text": _optional(_is_text), "knee": _is_flag},
)
_REPORT_FIELDS = dict.fromkeys(
    ("best_loss", "best_similarity", "seconds", "steps_per_second", "hard_similarity"), _OPTIONAL_NUMBER
) | {
    "text": _is_text,
    "hard_step": _is_whole,
    "hard_steps": _is_whole,
    "steps": _is_whole,
    "restarts": _list_of(_OPTIONAL_NUMBER),
    "sweep": _list_of(
        lambda row: (
            isinstance(row, list) and len(row) == 3 and _is_whole(row[0]) and all(map(_OPTIONAL_NUMBER, row[1:]))
        )
    ),
}
_RUN = _object(
    dict.fromkeys(("id", "prompt", "model", "device", "name", "created", "began", "ended", "error", "entry"), _is_text)
    | dict.fromkeys(
        ("step", "loss", "similarity", "best_loss", "best_similarity", "seconds", "steps_per_second"), _OPTIONAL_NUMBER
    )
    | {"state": _is_text, "stopping": _is_flag, "position": _is_number, "steps": _is_whole,
       "tokens": lambda value: value == "auto" or _is_whole(value)},
    # older workers do not send these
    {"kind": _is_text, "sweep": _list_of(_is_whole), "results": _list_of(_RESULT), "of_entry": _is_text,
     "hard": _is_flag, "error_kind": _is_text, "digest": _is_text, "batch": _is_text, "objective": _is_text,
     "rows": lambda value: _is_whole(value) and value > 0, "pausing": _is_flag},
)  # fmt: skip
MESSAGES: dict[str, Check] = {
    "hello": _object({}, {}),  # any version; see `is_newer`
    "making_way": _object({"run": _is_text}, {}),
    "snapshot": _object({"runs": _list_of(_RUN)}, {"ready": _is_flag, "more": _is_flag}),
    "page": _object({"runs": _list_of(_RUN)}, {"more": _is_flag}),
    "ready": _object({}, {}),
    "loading": _object({"run": _is_text, "stage": _is_text, "bytes": _is_whole, "of": _is_whole}, {}),
    "run": _object({"run": _RUN}, {}),
    "report": _object(
        {
            "run": _is_text,
            "step": _is_whole,
            "tokens": _is_whole,
            "loss": _OPTIONAL_NUMBER,
            "similarity": _OPTIONAL_NUMBER,
        },
        _REPORT_FIELDS,
    ),
    "dropped": _object({"run": _is_text}, {}),
    "bye": _object({}, {"again": _is_flag, "reason": _is_text}),
    "reply": _object({"id": _is_whole, "result": _object({}, {})}, {}),
    "error": _object({"id": _optional(_is_whole), "kind": _is_text, "message": _is_text}, {"bad_input": _is_flag}),
}


def parse_message(line: bytes) -> dict[str, Any]:
    """Parse a worker's message and check its fields. Raises WorkerError."""
    message = decode(line)
    kind = message.get("type")
    fits = MESSAGES.get(kind) if isinstance(kind, str) else None
    if fits is None or not fits(message):
        raise WorkerError(
            f"the worker sent an invalid message for protocol {PROTOCOL}: {str(message)[:80]}. "
            "Update softprompt-tui and restart the worker."
        )
    return message


class Request:
    """A client's request. Fields without a default are required."""

    do: ClassVar[str]


@dataclass(frozen=True)
class Submit(Request):
    """Queue a job (`Job.as_dict`). The worker replies once the run is safely on disk.

    `start` is the id of the entry to start from, or "".
    """

    do = "submit"
    job: dict[str, Any]
    start: str = ""


@dataclass(frozen=True)
class Stop(Request):
    """Stop a run and save its best result so far."""

    do = "stop"
    run: str


@dataclass(frozen=True)
class Pause(Request):
    """Pause a run, keeping its progress. The next queued run starts in its place."""

    do = "pause"
    run: str


@dataclass(frozen=True)
class Resume(Request):
    """Put a paused or failed run back in the queue, or take over a run from a host that has gone silent."""

    do = "resume"
    run: str


@dataclass(frozen=True)
class Move(Request):
    """Move a waiting run in front of run `before`, or to the end of the queue."""

    do = "move"
    run: str
    before: str = ""


@dataclass(frozen=True)
class Drop(Request):
    """Hide a run that is not training. Its library entry is not affected. `restore` brings it back for a day."""

    do = "drop"
    run: str


@dataclass(frozen=True)
class Restore(Request):
    """Bring a dropped run back in the state that it had. `run` is its whole id."""

    do = "restore"
    run: str


@dataclass(frozen=True)
class Status(Request):
    """Return information about the worker: its process, loaded models, clients and queue."""

    do = "status"


@dataclass(frozen=True)
class Curve(Request):
    """Return a run's curve so far, reduced to at most `points` points.

    A point is [step, loss, similarity], followed by the loss of each restart if there are several.
    """

    do = "curve"
    run: str
    points: int = 400


@dataclass(frozen=True)
class Shutdown(Request):
    """End the worker: at once, leaving its active runs to the next worker, or with `finish`, once they are done."""

    do = "shutdown"
    finish: bool = False


@dataclass(frozen=True)
class Keep(Request):
    """Save a sweep's soft prompts with these token counts. Repeating the request saves nothing twice.

    The reply's `kept` lists the `tokens`, `entry` (an id) and `name` of each saved prompt.
    """

    do = "keep"
    run: str
    tokens: list[int]


@dataclass(frozen=True)
class Similarity(Request):
    """Return the similarities between texts, and between each composition and its reference text.

    For each composition, the reply's `written_out` has the reference `text` ("" if unknown), its number of `tokens`,
    the number of tokens `saved`, the `similarity`, the `floor`, and `mixed`. See `CompositionScore`.
    """

    do = "similarity"
    model: str
    texts: list[str]
    device: str = "auto"
    opened: str = ""  # id of the entry that [v1], [v2], … refer to


@dataclass(frozen=True)
class Neighbours(Request):
    """Return the vocabulary words nearest to the soft tokens of an entry, or of a run in its current state.

    The reply's `readout_similarity` is the similarity between the training target and the nearest words when these are
    used as an ordinary text prompt. It is null if the target is unknown.
    """

    do = "neighbours"
    entry: str = ""
    run: str = ""
    top: int = 5


@dataclass(frozen=True)
class Models(Request):
    """List the available models, including which are on disk and which are loaded."""

    do = "models"


@dataclass(frozen=True)
class Devices(Request):
    """List the devices that can train (`DeviceFacts.as_dict`), the one of "auto" first. `training` names those in use.

    The worker answers because it has torch loaded: the interface must not open a CUDA context of its own.
    """

    do = "devices"


QUERIES = (Similarity, Neighbours)  # the trainer's thread answers these between training steps
NEEDS_CURRENT_WORKER = (
    Submit,
    Resume,
    Restore,
    Similarity,
)  # an older worker does not start any more runs, and may misinterpret jobs and compositions
_REQUESTS: dict[str, type[Request]] = {
    kind.do: kind
    for kind in (
        Submit,
        Stop,
        Pause,
        Resume,
        Move,
        Drop,
        Restore,
        Status,
        Curve,
        Shutdown,
        Keep,
        Similarity,
        Neighbours,
        Models,
        Devices,
    )
}
_FIELD_TYPES: dict[str, type] = {
    "str": str,
    "int": int,
    "bool": bool,
    "dict[str, Any]": dict,
    "list[str]": list,
    "list[int]": list,
}


def parse_request(message: dict[str, Any]) -> Request:
    """Parse a request and check its fields. Raises WorkerError, or PromptError for a string with invalid characters."""
    kind = _REQUESTS.get(str(message.get("do")))
    if kind is None:
        raise WorkerError(f"{str(message.get('do'))[:40]!r} is not a request. Choose from {', '.join(_REQUESTS)}.")
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]  # every kind is a dataclass
        value = message.get(field.name, field.default)
        if value is MISSING or type(value) is not _FIELD_TYPES[str(field.type)]:
            raise WorkerError(f"{kind.do}: {field.name} must be {field.type}, not {str(value)[:40]!r}")
        item_type, items = (int, "integers") if field.type == "list[int]" else (str, "strings")
        if isinstance(value, list) and (len(value) > MAX_TEXTS or not all(type(item) is item_type for item in value)):
            raise WorkerError(f"{kind.do}: {field.name} must be a list of at most {MAX_TEXTS} {items}")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                check_text(field.name, text)
        values[field.name] = value
    return kind(**values)


def parse_id(message: dict[str, Any]) -> int | None:
    """Return the id of a request, or None if it has none. Raises WorkerError."""
    request_id = message.get("id")
    if request_id is not None and not _is_whole(request_id):
        raise WorkerError(f"id is {str(request_id)[:40]!r}; it must be an integer below 2**63")
    return request_id


def as_message(request: Request, request_id: int) -> dict[str, Any]:
    return {"do": request.do, "id": request_id, **vars(request)}
