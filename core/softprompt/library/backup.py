"""A backup: one zip of all the library's files as they are, with a manifest of their SHA-256.

Nothing in it is packed, so that any tool can take an entry out, and no archive can unfold to more than its own size.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import ArchiveError, EntryDamaged
from softprompt.library.header import MAX_ENTRY_BYTES, strict_json
from softprompt.library.revisions import NAME
from softprompt.system.files import PARTIAL, name_new, read_file, sync_folder, write_new
from softprompt.system.filesystems import set_mode, sync
from softprompt.system.paths import make_folder

if TYPE_CHECKING:
    from softprompt.library.revisions import Revisions

FORMAT = 1
MANIFEST, FOLDER = "manifest.json", "entries/"
MAX_MANIFEST_BYTES = 1 << 30  # bytes; 100 an entry
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the times of the entries stand in them

OnProgress = Callable[[int, int], None]


@dataclass
class Archived:
    """What went into a backup or came out of one: files, those left out because they are damaged, those that were here already.

    `beside` lists ids that stand for something else here: what the backup has of them was saved under new ids.
    """

    files: int = 0
    damaged: list[EntryDamaged] = field(default_factory=list)
    present: int = 0
    beside: list[str] = field(default_factory=list)


def back_up(revisions: Revisions, path: Path, on_progress: OnProgress | None = None) -> Archived:
    """Writes all entries, the trash included, to the new file `path`, and reads it again before it gets that name.

    Raises ArchiveError where it cannot be written, or is there already.
    """
    done, digests = Archived(), {}
    names = sorted(revisions.scan())
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        if os.path.lexists(path):
            raise FileExistsError(0, "there is a file of that name already")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w+b") as file:
            set_mode(descriptor, 0o600)
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for i, name in enumerate(names):
                    entry_id, number, _ = name.split(".")
                    try:
                        revisions.read(entry_id, int(number))
                        raw = read_file(revisions.folder / name, MAX_ENTRY_BYTES)
                    except EntryDamaged as error:
                        done.damaged.append(error)
                        continue
                    except FileNotFoundError:  # purged meanwhile
                        continue
                    archive.writestr(zipfile.ZipInfo(FOLDER + name, _EPOCH), raw)
                    digests[name] = hashlib.sha256(raw).hexdigest()
                    if on_progress:
                        on_progress(i + 1, len(names))
                manifest = {"format": FORMAT, "entries": digests}
                archive.writestr(zipfile.ZipInfo(MANIFEST, _EPOCH), json.dumps(manifest, sort_keys=True).encode())
            file.flush()
            sync(descriptor)
            file.seek(0)
            for _ in _verified(file, str(path)):
                done.files += 1
        name_new(partial, path)
        sync_folder(path.parent)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ArchiveError(f"{path} cannot be written ({why}); nothing was: give another file") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return done


def bring_back(
    revisions: Revisions, path: Path, new_name: Callable[[str], str], on_progress: OnProgress | None = None
) -> Archived:
    """Adds what a backup has and the library has not. Everything in the archive is verified before the first file is written.

    `new_name` finds a name for an entry that must be saved under another id. Raises ArchiveError, HomeError.
    """
    from softprompt.library.entry import Tombstone, unpack_any

    done = Archived()
    heads: dict[str, str] = {}  # of the ids that have gone another way here: their last file in the backup
    try:
        with path.open("rb") as file:
            total = 0
            for name, raw in _verified(file, str(path)):
                total += 1
                if name[:16] in heads or _differs(revisions.folder / name, raw):
                    heads[name[:16]] = name
            make_folder(revisions.folder)
            # from the lowest revision on, so that what a crash leaves is a state that the entry has been in
            for i, (name, raw) in enumerate(_verified(file, str(path))):
                if name[:16] not in heads:
                    try:
                        write_new(revisions.folder / name, raw)
                        done.files += 1
                    except FileExistsError:
                        done.present += 1
                if on_progress:
                    on_progress(i + 1, total)
            for name in heads.values():
                raw = _Archive(file, str(path)).read(name)
                entry = unpack_any(raw, name)
                if isinstance(entry, Tombstone):
                    continue
                # an id made of what it holds, so that doing it again does not add it again
                made = replace(entry, id=hashlib.sha256(raw).hexdigest()[:16], revision=1)
                if revisions.numbers(made.id):
                    done.present += 1
                    continue
                revisions.write(replace(made, prompt=entry.prompt.named(new_name(entry.prompt.name))))
                done.beside.append(made.id)
    except OSError as error:
        raise ArchiveError(
            f"{path} could not be brought back wholly ({error.strerror}): mend that, and do it again"
        ) from error
    return done


class _Archive:
    """A backup that is opened, its manifest read. Raises ArchiveError."""

    def __init__(self, file: io.BufferedIOBase | Any, where: str) -> None:
        self.where, self._file = where, file
        try:
            self.zip = zipfile.ZipFile(file)
            self.infos = {info.filename: info for info in self.zip.infolist()}
            if len(self.infos) != len(self.zip.infolist()):
                raise ValueError("a name stands twice")
            manifest = strict_json(self._bytes(MANIFEST, MAX_MANIFEST_BYTES))
            if manifest["format"] != FORMAT:
                raise ArchiveError(
                    f"{where} has format {manifest['format']}, this version reads {FORMAT}: update softprompt-tui"
                )
            self.digests: dict[str, str] = dict(manifest["entries"])
            if {FOLDER + name for name in self.digests} != self.infos.keys() - {MANIFEST}:
                raise ValueError("its manifest names other files than it holds")
            if not all(NAME.fullmatch(name) for name in self.digests):
                raise ValueError("it holds files that are no entries")
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError, RuntimeError, EOFError) as error:
            raise ArchiveError(f"{where} is no whole backup of a library ({error}): give another") from error

    def read(self, name: str) -> bytes:
        raw = self._bytes(FOLDER + name, MAX_ENTRY_BYTES)
        if hashlib.sha256(raw).hexdigest() != self.digests[name]:
            raise ArchiveError(
                f"{self.where} is damaged: {name} in it is not what was saved. Nothing was taken from it"
            )
        return raw

    def _bytes(self, name: str, most: int) -> bytes:
        info = self.infos[name]
        if info.flag_bits & 0x61:
            raise ValueError(f"{name} in it is encrypted or patched")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.file_size > most:
            raise ValueError(f"{name} in it is packed, or too large")
        self._file.seek(info.header_offset)  # zipfile reads the directory only, and passes over what stands twice
        header = info.FileHeader()
        if self._file.read(len(header)) != header:
            raise ValueError(f"the head of {name} in it is not as it was written")
        return self.zip.read(info)


def _verified(file: io.BufferedIOBase | Any, where: str) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each entry in a backup, the lowest revisions first, each checked as it comes. Raises ArchiveError."""
    from softprompt.library.entry import unpack_any

    archive = _Archive(file, where)
    for name in sorted(archive.digests, key=lambda name: (int(name.split(".")[1]), name)):
        try:
            raw = archive.read(name)
            found = unpack_any(raw, f"{name} in {where}")
        except (zipfile.BadZipFile, EntryDamaged, ValueError, RuntimeError, EOFError) as error:
            raise ArchiveError(f"{where} is damaged ({error}). Nothing was taken from it") from error
        if name != f"{found.id}.{found.revision}.safetensors":
            raise ArchiveError(f"{where} is damaged: {name} in it is another entry. Nothing was taken from it")
        yield name, raw


def _differs(path: Path, raw: bytes) -> bool:
    """Whether there is a file of that name with other bytes."""
    try:
        return read_file(path, MAX_ENTRY_BYTES) != raw
    except FileNotFoundError:
        return False
    except OSError:
        return True
