"""Where an export goes, and how it gets there: a name that is safe anywhere, written whole or not at all, replacing nothing unasked.

Exports follow the umask, unlike the library's own files: they are meant for other programs, which often run as another user or in
a container.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import unicodedata
from contextlib import suppress
from pathlib import Path

from softprompt.errors import ExportRefused, FileInTheWay
from softprompt.system.files import PARTIAL, PUBLIC, replace_file, sync_folder, write_new

MAX_STEM_LENGTH = 120  # bytes of UTF-8; a file's name holds 255, of which a temporary name and a suffix take up to 60
NAMELESS = "soft-prompt"
_DEVICES = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)  # no file can bear these names on Windows
FORCE = "--force replaces it"


def safe_stem(name: str) -> str:
    """A file's name without suffix for a soft prompt of this name: letters of any script, digits, '-' and '_' stay."""
    kept = "".join(char if _plain(char) else "-" for char in unicodedata.normalize("NFC", name))
    stem = re.sub(r"-{2,}", "-", kept).strip("-").encode()[:MAX_STEM_LENGTH].decode(errors="ignore").rstrip("-")
    if not stem:
        return NAMELESS
    return f"{NAMELESS}-{stem}" if _DEVICES.fullmatch(stem) else stem


def _plain(char: str) -> bool:
    return char in "-_" or unicodedata.category(char)[0] in "LM" or char.isdecimal()


def place(out: Path | None, stem: str, suffix: str) -> Path:
    """The path to write to: `out`, or `stem` with `suffix` in it where it is a folder, or in the current one where it is None.

    Raises ExportRefused for a path with another suffix, or in a folder that is not there.
    """
    folder = Path.cwd() if out is None else out.absolute()
    if out is None or folder.is_dir():
        return folder / f"{stem}{suffix}"
    if not folder.parent.is_dir():
        raise ExportRefused(f"there is no folder {folder.parent}: make it first, or give another with --out")
    ending = Path(f"{stem}{suffix}").suffix
    if folder.suffix != ending and ending:
        raise ExportRefused(
            f"{folder.name} is no name for this file, which must end in {ending}: give {stem}{ending}, or a folder"
        )
    return folder


def write_file(path: Path, data: bytes, force: bool) -> None:
    """Writes the export; raises ExportRefused where it cannot be written, or there is one and `force` is not given."""
    try:
        if force and (path.is_fifo() or path.is_char_device() or path.is_block_device() or path.is_socket()):
            raise ExportRefused(f"{path} is no regular file, so it is not replaced: give another with --out")
        (replace_file if force else write_new)(path, data, PUBLIC)
    except OSError as error:
        raise _unwritten(path, error) from error


def write_folder(path: Path, files: dict[str, bytes], force: bool) -> None:
    """Writes a new folder with these files in it, which appears whole or not at all.

    With `force`, one with files of the same names, and no others, is replaced. Raises ExportRefused.
    """
    token = secrets.token_hex(8)
    partial = path.with_name(f".{path.name}.{token}{PARTIAL}")
    old = path.with_name(f".{path.name}.{token}.old{PARTIAL}")
    is_replaced = False
    try:
        if os.path.lexists(path):
            _check_replaceable(path, path, files, force)
        partial.mkdir()
        for name, data in files.items():
            write_new(partial / name, data, PUBLIC)
        if os.path.lexists(path):
            path.rename(old)
        try:
            if old.exists():  # under a name that nobody else knows, nothing is added to it any more
                _check_replaceable(old, path, files, force)
            partial.rename(path)
            is_replaced = True
        except BaseException:  # also Ctrl-C must not take away what was there; it goes on as it came
            if old.exists():
                old.rename(path)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        for left in (partial, old) if is_replaced else (partial,):
            with suppress(OSError):  # the export is there, or its failure is already on its way to the user
                shutil.rmtree(left)


def _check_replaceable(found: Path, path: Path, files: dict[str, bytes], force: bool) -> None:
    """Check the folder `found`, which has or had the name `path`. Raises ExportRefused, FileExistsError."""
    if not force:
        raise FileExistsError
    if found.is_symlink() or not found.is_dir():
        raise ExportRefused(f"{path} is no folder, so it is not replaced by one: give another with --out")
    # what bears such a name and is no file, a folder for example, would be lost with all that is in it
    others = {
        inner.name for inner in found.iterdir() if inner.name not in files or inner.is_symlink() or not inner.is_file()
    }
    if others:
        raise ExportRefused(
            f"{path} holds other files ({', '.join(sorted(others)[:3])}), so it is not replaced: give another with --out"
        )


def _unwritten(path: Path, error: OSError) -> ExportRefused:
    if isinstance(error, FileExistsError):
        return FileInTheWay(f"{path} is there already: {FORCE}, --out names another")
    return ExportRefused(f"{path} cannot be written ({error.strerror or error}); nothing was: give another with --out")
