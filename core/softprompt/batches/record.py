"""Our own record of a file of results: which file we wrote, and how much of it. It proves later that the file is ours."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from softprompt.system.files import read_file, replace_file

SUFFIX = ".written"
MAX_RECORD_BYTES = 4096  # bytes; a record has about 200
MAX_FILES = 2
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """A file that we wrote: its device and inode, and how many bytes of whole lines are on disk."""

    device: int
    inode: int
    length: int

    @classmethod
    def of(cls, status: os.stat_result, length: int) -> Written:
        return cls(status.st_dev, status.st_ino, length)

    def proves(self, descriptor: int) -> bool:
        """Return whether the open file is this one, and still ends a line where we last noted its length."""
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != (self.device, self.inode) or status.st_size < self.length:
            return False
        return not self.length or os.pread(descriptor, 1, self.length - 1) == b"\n"


@dataclass(frozen=True)
class Record:
    """What we wrote at one path.

    files: usually one; two while a new file takes the place of the old one, whichever of them a crash leaves there.
    batch: the id of the batch that wrote every line; "" where there were several, or where that is not known.
    """

    files: tuple[Written, ...] = ()
    batch: str = ""

    def proof(self, descriptor: int) -> Written | None:
        """Return the note that proves that the open file is ours, or None."""
        return next((file for file in self.files if file.proves(descriptor)), None)


def parse_record(raw: bytes) -> Record:
    """Parse the bytes of a record. Raises ValueError for any others."""
    try:
        values = json.loads(raw)
        files = tuple(
            Written(file["device"], file["inode"], file["length"]) for file in values["files"][: MAX_FILES + 1]
        )
        numbers = [number for file in files for number in (file.device, file.inode, file.length)]
        if len(files) > MAX_FILES or not all(type(number) is int and 0 <= number < 1 << 64 for number in numbers):
            raise ValueError("its files are not noted as this program notes them")
        if not isinstance(values["batch"], str):
            raise ValueError("its batch is no text")
        return Record(files, values["batch"])
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"it is no record ({type(error).__name__})") from error


def load_record(path: Path) -> Record:
    """Load a record. One that is missing or damaged proves nothing."""
    try:
        return parse_record(read_file(path, MAX_RECORD_BYTES))
    except FileNotFoundError:
        return Record()
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read (%s): the file of results must prove itself by its lines", path, error)
        return Record()


def save_record(path: Path, record: Record) -> None:
    """Save a record durably. Where that fails, the next run judges the file of results by its lines alone."""
    try:
        replace_file(path, json.dumps(asdict(record)).encode())
    except OSError as error:
        log.warning("%s cannot be written (%s)", path, error)
