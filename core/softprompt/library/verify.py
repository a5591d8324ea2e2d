"""Verify a whole library: read every file and check every byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softprompt.errors import EntryDamaged
from softprompt.library.revisions import FILE_NAME
from softprompt.system.files import is_partial

if TYPE_CHECKING:
    from softprompt.library.revisions import Revisions


@dataclass
class CheckReport:
    """The result of a check.

    Attributes:
        files, bytes: number of files and bytes read.
        unknown_files: names of files that are not entries.
        unfinished: number of temporary files from writes that are in progress or were interrupted.
    """

    files: int = 0
    bytes: int = 0
    damaged: list[EntryDamaged] = field(default_factory=list)
    unknown_files: list[str] = field(default_factory=list)
    unfinished: int = 0


def check(revisions: Revisions, on_progress: Callable[[int, int], None] | None = None) -> CheckReport:
    """Read every revision of every entry. Calls `on_progress(files_read, total)`. Raises HomeError."""
    report = CheckReport()
    names = sorted(revisions.scan())
    report.files = len(names)
    for i, name in enumerate(names):
        entry_id, number, _ = name.split(".")
        try:
            revisions.read(entry_id, int(number))
            report.bytes += (revisions.folder / name).stat().st_size
        except EntryDamaged as error:
            report.damaged.append(error)
        except FileNotFoundError:  # purged in the meantime
            report.files -= 1
        if on_progress:
            on_progress(i + 1, len(names))
    for name in sorted(path.name for path in revisions.folder.iterdir()) if revisions.folder.is_dir() else ():
        if is_partial(name):
            report.unfinished += 1  # `scan` removes it once it is older than any write could be
        elif not FILE_NAME.fullmatch(name):
            report.unknown_files.append(name)
    return report
