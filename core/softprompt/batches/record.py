"""A record of which output file we wrote, and how much of it. It later proves that the file is ours."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from softprompt.system.files import read_file, replace_file

SUFFIX = ".written"
MAX_RECORD_BYTES = 4096  # a record takes about 200
MAX_FILES = 2
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WrittenFile:
    """A file that we wrote, identified by its device and inode. `length` counts the bytes of complete lines on disk."""

    device: int
    inode: int
    length: int

    @classmethod
    def from_status(cls, status: os.stat_result, length: int) -> WrittenFile:
        return cls(status.st_dev, status.st_ino, length)

    def proves(self, descriptor: int) -> bool:
        """Return whether the open file is this file and still has a line end at the recorded length."""
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != (self.device, self.inode) or status.st_size < self.length:
            return False
        return not self.length or os.pread(descriptor, 1, self.length - 1) == b"\n"


@dataclass(frozen=True)
class OutputRecord:
    """Evidence that we wrote the output file at a path.

    Attributes:
        files: usually one file, but two while a new file replaces an old one, because a crash can leave either of them.
        batch: id of the batch that wrote all lines, or "" if several batches did or the batch is unknown.
    """

    files: tuple[WrittenFile, ...] = ()
    batch: str = ""

    def find_proof(self, descriptor: int) -> WrittenFile | None:
        """Return the recorded file that matches the open file and so proves that it is ours, or None."""
        return next((file for file in self.files if file.proves(descriptor)), None)


def parse_record(raw: bytes) -> OutputRecord:
    """Parse a record. Raises ValueError if it is malformed."""
    try:
        values = json.loads(raw)
        files = tuple(
            WrittenFile(file["device"], file["inode"], file["length"]) for file in values["files"][: MAX_FILES + 1]
        )
        numbers = [number for file in files for number in (file.device, file.inode, file.length)]
        if len(files) > MAX_FILES or not all(type(number) is int and 0 <= number < 1 << 64 for number in numbers):
            raise ValueError("its list of files is malformed")
        if not isinstance(values["batch"], str):
            raise ValueError("its batch is not a string")
        return OutputRecord(files, values["batch"])
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"it is not a record ({type(error).__name__})") from error


def load_record(path: Path) -> OutputRecord:
    """Load a record. Return an empty record, which proves nothing, if it is missing or damaged."""
    try:
        return parse_record(read_file(path, MAX_RECORD_BYTES))
    except FileNotFoundError:
        return OutputRecord()
    except (OSError, ValueError) as error:
        log.warning("cannot read %s: %s. The output file is checked by its lines instead", path, error)
        return OutputRecord()


def save_record(path: Path, record: OutputRecord) -> None:
    """Save a record and sync it to disk. If this fails, the next run checks the output file only by its lines."""
    try:
        replace_file(path, json.dumps(asdict(record)).encode())
    except OSError as error:
        log.warning("cannot write %s: %s", path, error)
