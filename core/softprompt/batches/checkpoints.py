"""What is under way in a batch: one file that says how far each training is, and the lock that keeps a batch to one process."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from softprompt.batches.record import SUFFIX
from softprompt.errors import HomeError, RunRefused
from softprompt.system.files import is_partial, read_file, replace_file, sweep
from softprompt.system.locks import take
from softprompt.system.paths import VARIABLE, data_folder, make_folder

STATE, LOCK = ".state", ".lock"
MAX_CHECKPOINT_BYTES = 4 << 30  # bytes
FORGOTTEN = 30 * 86_400.0  # seconds after which the state of a batch that nobody went on with is removed
_DIGEST, _LENGTH = 64, 8
log = logging.getLogger(__name__)


def batches_folder() -> Path:
    return make_folder(data_folder() / "batches")


class Held:
    """A lock file that this process holds, removed when it lets go. Raises RunRefused, saying `busy`, where another holds it."""

    def __init__(self, path: Path, busy: str) -> None:
        self.path = path
        try:
            descriptor = take(path)
        except OSError as error:
            raise HomeError(f"{path} cannot be made ({error.strerror}): free it, or set {VARIABLE}") from error
        if descriptor is None:
            raise RunRefused(busy)
        self._descriptor = descriptor

    def release(self) -> None:
        self.path.unlink(missing_ok=True)  # before it is let go: `take` looks whether it still has its name
        os.close(self._descriptor)


class BatchCheckpoint:
    """How far the trainings of a batch were when this was last written: bytes by the id of the entry, as they come from `to_bytes`."""

    def __init__(self, folder: Path, id: str) -> None:
        self.path = folder / f"{id}{STATE}"

    def read(self) -> dict[str, bytes]:
        """Nothing where there is none, or it is damaged: those trainings begin anew."""
        try:
            raw = read_file(self.path, MAX_CHECKPOINT_BYTES)
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("%s cannot be read (%s): what was under way begins anew", self.path, error)
            return {}
        digest, body = raw[:_DIGEST], memoryview(raw)[_DIGEST:]
        if hashlib.sha256(body).hexdigest().encode() != digest:
            log.warning("%s is damaged: what was under way begins anew", self.path)
            return {}
        end = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
        states = {}
        for key, length in json.loads(bytes(body[_LENGTH:end])).items():
            states[key] = bytes(body[end : end + length])
            end += length
        return states

    def write(self, states: Mapping[str, bytes]) -> None:
        """Replaces what there was, at once. Raises OSError."""
        head = json.dumps({key: len(state) for key, state in states.items()}).encode()
        body = b"".join((len(head).to_bytes(_LENGTH, "little"), head, *states.values()))
        replace_file(self.path, hashlib.sha256(body).hexdigest().encode() + body)

    def forget(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def remove_stale(folder: Path) -> None:
    """Removes what batches left that nobody went on with, and what a crash left half-written."""
    with suppress(OSError):
        for path in folder.iterdir():
            if is_partial(path.name):
                sweep(path)
            elif path.suffix in (STATE, LOCK, SUFFIX) and time.time() - path.stat().st_mtime > FORGOTTEN:
                with suppress(RunRefused, HomeError):
                    lock = Held(path.with_suffix(LOCK), "")
                    path.unlink(missing_ok=True)
                    lock.release()
