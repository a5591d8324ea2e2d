"""Back up the library as one ZIP file with all entry files and a manifest of their SHA-256 digests.

The ZIP file is not compressed, so any tool can extract an entry, and no backup can unpack to more than its own size.
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
from softprompt.library.header import MAX_ENTRY_BYTES
from softprompt.library.revisions import FILE_NAME
from softprompt.prompts.safetensors_header import strict_json
from softprompt.system.files import PARTIAL_SUFFIX, read_file, rename_new, sync_folder, write_new
from softprompt.system.filesystems import set_mode, sync
from softprompt.system.paths import make_folder

if TYPE_CHECKING:
    from softprompt.library.revisions import Revisions

FORMAT = 1
MANIFEST, ENTRIES_PREFIX = "manifest.json", "entries/"
MAX_MANIFEST_BYTES = 1 << 30  # about 100 bytes per entry
_EPOCH = (1980, 1, 1, 0, 0, 0)  # modification time of every ZIP member; the real times are inside the entries

OnProgress = Callable[[int, int], None]


@dataclass
class BackupReport:
    """The result of writing or restoring a backup.

    Attributes:
        files: files written to the backup, or added to the library.
        damaged: errors for the files that were left out.
        present: files that the library already had.
        new_ids: new ids of entries whose original id has different content in this library.
    """

    files: int = 0
    damaged: list[EntryDamaged] = field(default_factory=list)
    present: int = 0
    new_ids: list[str] = field(default_factory=list)


def back_up(revisions: Revisions, path: Path, on_progress: OnProgress | None = None) -> BackupReport:
    """Write all entries, including the trash, to the new file `path`.

    The file is written under a temporary name, verified, and then renamed. Raises ArchiveError if `path` exists or
    cannot be written.
    """
    report, digests = BackupReport(), {}
    names = sorted(revisions.scan())
    partial = path.absolute().parent / f".{path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}"  # "." has no name
    try:
        if os.path.lexists(path):
            raise FileExistsError(0, "the file already exists")
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
                        report.damaged.append(error)
                        continue
                    except FileNotFoundError:  # purged in the meantime
                        continue
                    archive.writestr(zipfile.ZipInfo(ENTRIES_PREFIX + name, _EPOCH), raw)
                    digests[name] = hashlib.sha256(raw).hexdigest()
                    if on_progress:
                        on_progress(i + 1, len(names))
                manifest = {"format": FORMAT, "entries": digests}
                archive.writestr(zipfile.ZipInfo(MANIFEST, _EPOCH), json.dumps(manifest, sort_keys=True).encode())
            file.flush()
            sync(descriptor)
            file.seek(0)
            for _ in _verify_files(file, str(path)):
                report.files += 1
        rename_new(partial, path)
        sync_folder(path.parent)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ArchiveError(
            f"cannot write {path}: {reason}. Nothing was written. Fix this, or choose another file."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return report


def restore_backup(
    revisions: Revisions, path: Path, new_name: Callable[[str], str], on_progress: OnProgress | None = None
) -> BackupReport:
    """Add missing entries from a backup. The whole backup is verified before the first file is written.

    Args:
        new_name: returns a free name for an entry that must be saved under a new id.

    Raises:
        ArchiveError: the backup is damaged or cannot be read.
        HomeError: the library cannot be written.
    """
    from softprompt.library.entry import Tombstone, unpack_any

    if os.path.lexists(path) and not path.is_file():  # a device can be endless
        raise ArchiveError(f"cannot read {path}: it is not a regular file. Use a file that `back_up` wrote.")
    report = BackupReport()
    conflicts: dict[str, str] = {}  # id with different content in this library: newest file in the backup
    try:
        with path.open("rb") as file:
            total = 0
            for name, raw in _verify_files(file, str(path)):
                total += 1
                if name[:16] in conflicts or _has_other_bytes(revisions.folder / name, raw):
                    conflicts[name[:16]] = name
            make_folder(revisions.folder)
            # in order of revision, so that a crash leaves each entry in a state that it has been in before
            for i, (name, raw) in enumerate(_verify_files(file, str(path))):
                if name[:16] not in conflicts:
                    try:
                        write_new(revisions.folder / name, raw)
                        report.files += 1
                    except FileExistsError:
                        report.present += 1
                if on_progress:
                    on_progress(i + 1, total)
            for name in conflicts.values():
                raw = _BackupFile(file, str(path)).read(name)
                entry = unpack_any(raw, name)
                if isinstance(entry, Tombstone):
                    continue
                # the id is a digest of the content, so restoring the backup again does not add the entry again
                renamed = replace(entry, id=hashlib.sha256(raw).hexdigest()[:16], revision=1)
                if revisions.revision_numbers(renamed.id):
                    report.present += 1
                    continue
                revisions.write(replace(renamed, prompt=entry.prompt.named(new_name(entry.prompt.name))))
                report.new_ids.append(renamed.id)
    except OSError as error:
        raise ArchiveError(
            f"cannot restore all of {path}: {error.strerror}. Fix this, then restore the backup again."
        ) from error
    return report


class _BackupFile:
    """An open backup with its manifest. Raises ArchiveError."""

    def __init__(self, file: io.BufferedIOBase | Any, label: str) -> None:
        self.label, self._file = label, file
        try:
            self.zip = zipfile.ZipFile(file)
            self.infos = {info.filename: info for info in self.zip.infolist()}
            if len(self.infos) != len(self.zip.infolist()):
                raise ValueError("it has two files with the same name")
            manifest = strict_json(self._bytes(MANIFEST, MAX_MANIFEST_BYTES))
            if manifest["format"] != FORMAT:
                raise ArchiveError(
                    f"{label} has format {manifest['format']}, but this version reads {FORMAT}. Update softprompt-tui."
                )
            self.digests: dict[str, str] = dict(manifest["entries"])
            if {ENTRIES_PREFIX + name for name in self.digests} != self.infos.keys() - {MANIFEST}:
                raise ValueError("its manifest does not match its files")
            if not all(FILE_NAME.fullmatch(name) for name in self.digests):
                raise ValueError("it has files that are not entries")
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError, RuntimeError, EOFError) as error:
            raise ArchiveError(f"{label} is not an intact library backup ({error}). Choose another file.") from error

    def read(self, name: str) -> bytes:
        raw = self._bytes(ENTRIES_PREFIX + name, MAX_ENTRY_BYTES)
        if hashlib.sha256(raw).hexdigest() != self.digests[name]:
            raise ArchiveError(f"{self.label} is damaged: {name} does not match its checksum. Nothing was restored.")
        return raw

    def _bytes(self, name: str, max_bytes: int) -> bytes:
        info = self.infos[name]
        if info.flag_bits & 0x61:
            raise ValueError(f"{name} is encrypted or patched")
        if (
            info.compress_type != zipfile.ZIP_STORED
            or info.file_size != info.compress_size
            or info.file_size > max_bytes
        ):
            raise ValueError(f"{name} is compressed or too large")
        self._file.seek(info.header_offset)  # zipfile only reads the directory, so check the local header too
        header = info.FileHeader()
        if self._file.read(len(header)) != header:
            raise ValueError(f"the ZIP header of {name} is damaged")
        return self.zip.read(info)


def _verify_files(file: io.BufferedIOBase | Any, label: str) -> Iterator[tuple[str, bytes]]:
    """Verify each file in a backup and yield its name and bytes, lowest revisions first. Raises ArchiveError."""
    from softprompt.library.entry import unpack_any

    archive = _BackupFile(file, label)
    for name in sorted(archive.digests, key=lambda name: (int(name.split(".")[1]), name)):
        try:
            raw = archive.read(name)
            entry = unpack_any(raw, f"{name} in {label}")
        except (zipfile.BadZipFile, EntryDamaged, ValueError, RuntimeError, EOFError) as error:
            raise ArchiveError(f"{label} is damaged ({error}). Nothing was restored.") from error
        if name != f"{entry.id}.{entry.revision}.safetensors":
            raise ArchiveError(f"{label} is damaged: {name} contains a different entry. Nothing was restored.")
        yield name, raw


def _has_other_bytes(path: Path, raw: bytes) -> bool:
    """Return whether `path` exists and has different bytes."""
    try:
        return read_file(path, MAX_ENTRY_BYTES) != raw
    except FileNotFoundError:
        return False
    except OSError:
        return True
