"""Encode the worker's messages to its clients. Each stays far below the protocol's limit for a line."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from softprompt.errors import MessageTooLong, SoftPromptError, is_bad_input, shorten
from softprompt.worker.protocol import encode

if TYPE_CHECKING:
    from softprompt.worker.run_folder import AnyRun

PAGE_BYTES = 64 << 10  # a page is full once its runs reach this size; a client draws its screen after the first page
MAX_SHOWN_LENGTH = 400  # characters of a string; the run's folder has the full prompt
MAX_ERROR_LENGTH = 2000  # characters
MAX_RESULTS = 64  # results of a sweep
MAX_POINT_VALUES = 3 + 16  # step, loss, similarity, and one loss per restart

log = logging.getLogger(__name__)


def describe_run(run: AnyRun) -> dict[str, Any]:
    """Return a run's values for clients, with long strings and lists shortened."""
    values = run.as_dict()
    error, results = (
        shorten(values["error"], MAX_ERROR_LENGTH),
        [_shorten_texts(result) for result in values["results"][:MAX_RESULTS]],
    )
    return _shorten_texts(values) | {"error": error, "results": results, "sweep": values["sweep"][:MAX_RESULTS]}


class RunMessages:
    """Encodes messages that contain runs. Each state of a run is encoded only once, even for many clients."""

    def __init__(self) -> None:
        self._encoded: dict[str, tuple[AnyRun, bytes]] = {}

    def encode_page(self, head: dict[str, Any], runs: Sequence[AnyRun], more: bool) -> bytes:
        """Encode a snapshot or a page with the fields of `head` and the runs."""
        return _append_member({**head, "more": more}, b'"runs":[' + b",".join(map(self._encode, runs)) + b"]")

    def encode_run(self, run: AnyRun) -> bytes:
        return _append_member({"type": "run"}, b'"run":' + self._encode(run))

    def encoded_size(self, run: AnyRun) -> int:
        return len(self._encode(run))

    def forget(self, run: str) -> None:
        self._encoded.pop(run, None)

    def _encode(self, run: AnyRun) -> bytes:
        cached, encoded = self._encoded.get(run.id, (None, b""))
        if cached is not run:
            encoded = encode(describe_run(run)).rstrip()
            self._encoded[run.id] = run, encoded
        return encoded


def _append_member(head: dict[str, Any], member: bytes) -> bytes:
    """Encode a message and append a member that is already encoded."""
    return encode(head)[:-2] + b"," + member + b"}\n"


def _shorten_texts(values: dict[str, Any]) -> dict[str, Any]:
    return {key: shorten(value, MAX_SHOWN_LENGTH) if isinstance(value, str) else value for key, value in values.items()}


def encode_reply(request_id: int | None, result: dict[str, Any]) -> bytes:
    """Encode a reply, or an error if the reply does not fit in a line."""
    try:
        return encode({"type": "reply", "id": request_id, "result": result})
    except MessageTooLong as error:
        log.warning("a reply is too long: %s", error)
        return encode_error(request_id, error)


def encode_error(request_id: int | None, error: Exception) -> bytes:
    bad_input = isinstance(error, SoftPromptError) and is_bad_input(error)
    message = shorten(str(error) or type(error).__name__, MAX_ERROR_LENGTH)
    return encode(
        {"type": "error", "id": request_id, "kind": type(error).__name__, "bad_input": bad_input, "message": message}
    )
