"""What reads bytes from outside, and what it may answer. Each has seeds that it reads, words its format is made of, and a mender.

A mender makes checksums right again, so that a change reaches what lies behind them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from softprompt.errors import EntryDamaged, WorkerError
from softprompt.library.entry import BLANK, Entry, Tombstone, pack, unpack_any
from softprompt.library.header import digest_at
from softprompt.worker import protocol
from softprompt_tui import settings
from tests.library_model import a_prompt

TYPES = [b'"F32"', b'"F16"', b'"BF16"', b'"F64"', b'"I64"', b'"dtype":', b'"shape":', b'"data_offsets":', b'"__metadata__":']


@dataclass(frozen=True)
class Target:
    name: str
    parse: Callable[[bytes], Any]
    typed: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    mend: Callable[[bytes], bytes] | None = None


def _entries() -> list[bytes]:
    entry = Entry("0123456789abcdef", 3, a_prompt(name="Fox"), ("tag",), "a note", "2026-01-01T00:00:00+00:00")
    unknown = a_prompt(name="x", similarity=None, composition=None, hidden={"sd1": 0.5}, source={"file": "a.pt"})
    return [pack(entry), pack(Entry("0123456789abcdef", 1, unknown)), pack(Tombstone("0123456789abcdef", 4, "2026"))]


def with_digest(raw: bytes) -> bytes:
    """The bytes of an entry with the checksum that they should have."""
    at = digest_at(raw)
    if at < 0:
        return raw
    digest = hashlib.sha256(raw[:at] + BLANK.encode() + raw[at + 64 :]).hexdigest()
    return raw[:at] + digest.encode() + raw[at + 64 :]


def _settings(raw: bytes) -> None:
    settings._checked(json.loads(raw))


def _request(raw: bytes) -> None:
    protocol.request_of(protocol.decode(raw))


def _requests() -> list[bytes]:
    made = (
        protocol.Submit({"prompt": "a lake"}, "0123"), protocol.Curve("3f2a", 10), protocol.Shutdown(True),
        protocol.Similarity("mini", ["a", "[b] c"]), protocol.Neighbours(entry="0123"), protocol.Move("1", "2"), protocol.Status(),
    )  # fmt: skip
    return [protocol.encode(protocol.as_message(request, number)) for number, request in enumerate(made)]


_ALL = (
    Target("entry", lambda raw: unpack_any(raw, "x"), (EntryDamaged,), _entries, tuple(TYPES), with_digest),
    Target("settings", _settings, (ValueError, TypeError, RecursionError),
           lambda: [json.dumps(asdict(settings.Settings(prompts=["a", "b"]))).encode()], (b'"train":', b'"prompts":')),
    Target("protocol", _request, (WorkerError,), _requests, (b'"do":', b'"submit"', b'"texts":', b'"similarity"')),
)  # fmt: skip
TARGETS = {target.name: target for target in _ALL}
