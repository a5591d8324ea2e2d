"""Writing a file so that it is either whole or not there."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_new(path: Path, data: bytes) -> None:
    """Writes `data` as the new file `path`, durably; raises FileExistsError if there is one, OSError with nothing left behind.

    A private temporary file in the same folder, synced, then given its name; then the folder is synced. Only after that does
    it return.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _name_new(partial, path)
    except BaseException:  # also Ctrl-C must leave no litter; it goes on as it came
        partial.unlink(missing_ok=True)
        raise
    try:
        sync_folder(path.parent)
    except OSError:  # whether the name would outlive a crash is not known: better none, and said so
        path.unlink(missing_ok=True)
        raise


def _name_new(partial: Path, path: Path) -> None:
    """Renames without replacing: a hard link refuses an existing name, which rename would overwrite."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links (exFAT, some network mounts)
        if path.exists():
            raise FileExistsError(path) from None
        partial.rename(path)
        return
    try:
        partial.unlink()
    except OSError:  # who is told that the save failed must not find it
        path.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Writes `data` as `path` whether it is there or not, durably and at once; raises OSError with the old file as it was."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    write_new(partial, data)
    try:
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
