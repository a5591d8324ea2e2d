"""A batch's lock, and its checkpoint file with the training states of all unfinished prompts."""

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
from softprompt.system.files import is_partial, read_file, remove_stale_partial, replace_file
from softprompt.system.locks import try_lock
from softprompt.system.paths import HOME_VARIABLE, data_folder, make_folder

STATE_SUFFIX, LOCK_SUFFIX = ".state", ".lock"
MAX_CHECKPOINT_BYTES = 4 << 30
STALE_SECONDS = 30 * 86_400.0  # files of abandoned batches are removed after 30 days
_DIGEST_BYTES, _LENGTH_BYTES = 64, 8
log = logging.getLogger(__name__)


def batches_folder() -> Path:
    return make_folder(data_folder() / "batches")


class ProcessLock:
    """A lock file that this process holds until `release`. Raises RunRefused with `message` if it is already locked."""

    def __init__(self, path: Path, message: str) -> None:
        self.path = path
        try:
            descriptor = try_lock(path)
        except OSError as error:
            raise HomeError(
                f"cannot create {path}: {error.strerror}. Fix the problem, or set {HOME_VARIABLE} to another folder."
            ) from error
        if descriptor is None:
            raise RunRefused(message)
        self._descriptor = descriptor

    def release(self) -> None:
        self.path.unlink(
            missing_ok=True
        )  # before releasing the lock: `try_lock` checks that the file still exists under its name
        os.close(self._descriptor)


class BatchCheckpoint:
    """The saved training states of a batch, keyed by entry id and serialized with `jobs.checkpoint.to_bytes`."""

    def __init__(self, folder: Path, id: str) -> None:
        self.path = folder / f"{id}{STATE_SUFFIX}"

    def read(self) -> dict[str, bytes]:
        """Return the saved states, or {} if the file is missing or damaged (training then starts over)."""
        try:
            raw = read_file(self.path, MAX_CHECKPOINT_BYTES)
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("cannot read %s: %s. Unfinished prompts start over", self.path, error)
            return {}
        digest, body = raw[:_DIGEST_BYTES], memoryview(raw)[_DIGEST_BYTES:]
        if hashlib.sha256(body).hexdigest().encode() != digest:
            log.warning("%s is damaged. Unfinished prompts start over", self.path)
            return {}
        end = _LENGTH_BYTES + int.from_bytes(body[:_LENGTH_BYTES], "little")
        states = {}
        for key, length in json.loads(bytes(body[_LENGTH_BYTES:end])).items():
            states[key] = bytes(body[end : end + length])
            end += length
        return states

    def write(self, states: Mapping[str, bytes]) -> None:
        """Replace the saved states atomically. Raises OSError."""
        header = json.dumps({key: len(state) for key, state in states.items()}).encode()
        body = b"".join((len(header).to_bytes(_LENGTH_BYTES, "little"), header, *states.values()))
        replace_file(self.path, hashlib.sha256(body).hexdigest().encode() + body)

    def delete(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def remove_stale(folder: Path) -> None:
    """Remove the files of abandoned batches, and temporary files left by a crash."""
    with suppress(OSError):
        for path in folder.iterdir():
            if is_partial(path.name):
                remove_stale_partial(path)
            elif (
                path.suffix in (STATE_SUFFIX, LOCK_SUFFIX, SUFFIX)
                and time.time() - path.stat().st_mtime > STALE_SECONDS
            ):
                with suppress(RunRefused, HomeError):
                    lock = ProcessLock(path.with_suffix(LOCK_SUFFIX), "")
                    path.unlink(missing_ok=True)
                    lock.release()
