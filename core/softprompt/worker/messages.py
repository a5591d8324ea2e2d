"""What the worker tells its clients of a run and of a request, each message far below the protocol's longest line."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from softprompt.errors import MessageTooLong, SoftPromptError, is_bad_input, shortened
from softprompt.worker.protocol import encode

if TYPE_CHECKING:
    from softprompt.worker.run_folder import AnyRun

PAGE_BYTES = 64 << 10  # of runs in a page, after which it is sent; a client paints after the first
MAX_SHOWN_LENGTH = 400  # characters of a text: a prompt stands whole in the run's folder
MAX_ERROR_LENGTH = 2000  # characters
MAX_RESULTS = 64  # of a sweep
FIGURES_OF_A_POINT = 3 + 16  # step, loss, similarity, and the losses of restarts

log = logging.getLogger(__name__)


def shown(run: AnyRun) -> dict[str, Any]:
    """A run as clients are told it: its texts may be longer than all else together."""
    values = run.as_dict()
    error, results = (
        shortened(values["error"], MAX_ERROR_LENGTH),
        [_cut(result) for result in values["results"][:MAX_RESULTS]],
    )
    return _cut(values) | {"error": error, "results": results, "sweep": values["sweep"][:MAX_RESULTS]}


class RunLines:
    """Messages with runs in them. What a run looks like is made once, though many clients are told it."""

    def __init__(self) -> None:
        self._encoded: dict[str, tuple[AnyRun, bytes]] = {}

    def page(self, head: dict[str, Any], runs: Sequence[AnyRun], more: bool) -> bytes:
        """A snapshot or page, `head` being what stands in it beside its runs."""
        return _with({**head, "more": more}, b'"runs":[' + b",".join(map(self._of, runs)) + b"]")

    def news(self, run: AnyRun) -> bytes:
        return _with({"type": "run"}, b'"run":' + self._of(run))

    def size(self, run: AnyRun) -> int:
        return len(self._of(run))

    def forget(self, run: str) -> None:
        self._encoded.pop(run, None)

    def _of(self, run: AnyRun) -> bytes:
        known, encoded = self._encoded.get(run.id, (None, b""))
        if known is not run:
            encoded = encode(shown(run)).rstrip()
            self._encoded[run.id] = run, encoded
        return encoded


def _with(head: dict[str, Any], member: bytes) -> bytes:
    """A message with one more member, which is encoded already."""
    return encode(head)[:-2] + b"," + member + b"}\n"


def _cut(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: shortened(value, MAX_SHOWN_LENGTH) if isinstance(value, str) else value for key, value in values.items()
    }


def reply(number: int | None, result: dict[str, Any]) -> bytes:
    try:
        return encode({"type": "reply", "id": number, "result": result})
    except MessageTooLong as too_long:
        log.warning("an answer is not sent: %s", too_long)
        return error(number, too_long)


def error(number: int | None, raised: Exception) -> bytes:
    bad_input = isinstance(raised, SoftPromptError) and is_bad_input(raised)
    message = shortened(str(raised) or type(raised).__name__, MAX_ERROR_LENGTH)
    return encode(
        {"type": "error", "id": number, "kind": type(raised).__name__, "bad_input": bad_input, "message": message}
    )
