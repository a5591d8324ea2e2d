"""Verifying a whole library: every file of it read, every byte checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softprompt.errors import EntryDamaged
from softprompt.library.revisions import NAME
from softprompt.system.files import is_partial

if TYPE_CHECKING:
    from softprompt.library.revisions import Revisions


@dataclass
class Checked:
    """What a check found: files and bytes read, what is damaged, names that do not belong there, writes begun and not ended."""

    files: int = 0
    bytes: int = 0
    damaged: list[EntryDamaged] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    unfinished: int = 0


def check(revisions: Revisions, on_progress: Callable[[int, int], None] | None = None) -> Checked:
    """Reads every revision of every entry; `on_progress` gets (files read, files in all). Raises HomeError."""
    done = Checked()
    names = sorted(revisions.scan())
    done.files = len(names)
    for i, name in enumerate(names):
        entry_id, number, _ = name.split(".")
        try:
            revisions.read(entry_id, int(number))
            done.bytes += (revisions.folder / name).stat().st_size
        except EntryDamaged as error:
            done.damaged.append(error)
        except FileNotFoundError:  # purged meanwhile
            done.files -= 1
        if on_progress:
            on_progress(i + 1, len(names))
    for name in sorted(path.name for path in revisions.folder.iterdir()) if revisions.folder.is_dir() else ():
        if is_partial(name):
            done.unfinished += (
                1  # by a process that is at it, or was killed: swept when it is older than any write takes
            )
        elif not NAME.fullmatch(name):
            done.strangers.append(name)
    return done
