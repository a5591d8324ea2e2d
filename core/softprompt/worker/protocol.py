"""What the worker and its clients say to each other: JSON, a line a message, over a Unix socket.

A client begins with `hello`; the worker answers with its own `hello`, a `snapshot` of the runs, and then events (`run`, `report`,
`loading`, `bye`) as they happen. A request has a `do` and an `id`; its `reply` or `error` bears the same id.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, dataclass, fields
from importlib.metadata import version
from typing import Any, ClassVar

from softprompt.errors import WorkerError
from softprompt.refusals import check_text

PROTOCOL = 3  # 2: jobs may mean several texts together; 3: jobs may be sweeps and hard readouts
LONGEST_LINE = 4 << 20  # bytes; a prompt may have a million characters
MOST_TEXTS = 64


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message in a line; raises WorkerError for what is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WorkerError(f"a line that is no message: {error}") from error
    if not isinstance(message, dict):
        raise WorkerError("a line that is no message: a JSON object was expected")
    return message


def hello() -> dict[str, Any]:
    return {"type": "hello", "protocol": PROTOCOL, "version": version("softprompt-tui")}


def is_newer(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether who said `theirs` is of a later protocol or version than who said `ours`; a malformed hello is not."""
    return _age(theirs) > _age(ours)


def _age(said: dict[str, Any]) -> tuple[int, list[int]]:
    protocol = said.get("protocol")
    numbers = [int(part) for part in re.findall(r"\d{1,6}", str(said.get("version"))[:40])[:4]]
    return (protocol if isinstance(protocol, int) else 0, numbers)


def makes_way(message: dict[str, Any], last: str | None) -> bool:
    """Whether a message says that the last run of an older worker is out of its hands, so that it ends for a newer one."""
    return message.get("type") == "run" and message["run"]["id"] == last and message["run"]["state"] not in ("running", "queued")


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
    how many are `saved`, the `similarity` to it beside the `floor`, and `mixed`: as `softprompt.composing.Figures` has them.
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
NEEDS_OURS = (Submit, Resume, Similarity)  # an older worker trains no further run, and may take jobs and compositions for others
_REQUESTS: dict[str, type[Request]] = {
    kind.do: kind
    for kind in (Submit, Stop, Pause, Resume, Move, Drop, Status, Curve, Shutdown, Keep, Similarity, Neighbours, Models)
}
_KINDS: dict[str, type] = {"str": str, "int": int, "bool": bool, "dict[str, Any]": dict, "list[str]": list, "list[int]": list}


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
        if isinstance(value, list) and (len(value) > MOST_TEXTS or not all(type(one) is of for one in value)):
            raise WorkerError(f"{kind.do} takes up to {MOST_TEXTS} {words} as {field.name}")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                check_text(field.name, text)
        values[field.name] = value
    return kind(**values)


def as_message(request: Request, number: int) -> dict[str, Any]:
    return {"do": request.do, "id": number, **vars(request)}
