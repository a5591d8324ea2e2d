"""Write exports: choose a path with a safe name, and write the whole file or nothing. Replace files only on request.

Unlike the library's own files, exports follow the umask, because other programs read them, often as another user or in
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

from softprompt.errors import ExportRefused, FileInTheWay, option, wording
from softprompt.system.files import PARTIAL_SUFFIX, PUBLIC_MODE, sync_folder, write_chosen_file, write_new

MAX_STEM_LENGTH = 120  # bytes of UTF-8. File names have at most 255; a temporary name and a suffix add up to 60
DEFAULT_STEM = "soft-prompt"
_WINDOWS_DEVICES = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)  # reserved names on Windows


def safe_stem(name: str) -> str:
    """Return `name` as a file name without a suffix. Keeps letters of any script, digits, '-' and '_'."""
    safe = "".join(char if _is_safe(char) else "-" for char in unicodedata.normalize("NFC", name))
    stem = re.sub(r"-{2,}", "-", safe).strip("-").encode()[:MAX_STEM_LENGTH].decode(errors="ignore").rstrip("-")
    if not stem:
        return DEFAULT_STEM
    return f"{DEFAULT_STEM}-{stem}" if _WINDOWS_DEVICES.fullmatch(stem) else stem


def _is_safe(char: str) -> bool:
    return char in "-_" or unicodedata.category(char)[0] in "LM" or char.isdecimal()


def output_path(out: Path | None, stem: str, suffix: str) -> Path:
    """Return the path to write: `out`, or the file `stem` + `suffix` in `out` if that is a folder.

    None means the current folder. Raises ExportRefused if the suffix is wrong or the folder does not exist.
    """
    folder = out or Path()
    try:
        folder = folder.absolute()
        is_folder, has_parent = folder.is_dir(), folder.parent.is_dir()
    except OSError as error:  # the name is too long, or the working folder is gone
        raise _write_error(folder, error) from error
    if out is None or is_folder:
        return folder / f"{stem}{suffix}"
    if not has_parent:
        raise ExportRefused(f"the folder {folder.parent} does not exist. Create it, or choose {_another_path()}.")
    ending = Path(f"{stem}{suffix}").suffix
    if folder.suffix != ending and ending:
        raise ExportRefused(
            f"{folder.name} has the wrong suffix: the name must end in {ending}. Use {stem}{ending}, or pass a folder."
        )
    return folder


def write_file(path: Path, data: bytes, force: bool) -> None:
    """Write the file. Raises ExportRefused if writing fails, or if the file exists and `force` is false."""
    try:
        write_chosen_file(path, data, force)
    except OSError as error:
        raise _write_error(path, error) from error


def write_folder(path: Path, files: dict[str, bytes], force: bool) -> None:
    """Write a new folder with these files. The folder appears complete or not at all. Raises ExportRefused.

    With `force`, replace an existing folder, but only if all its files have these names.
    """
    token = secrets.token_hex(8)
    partial = path.with_name(f".{path.name}.{token}{PARTIAL_SUFFIX}")
    old = path.with_name(f".{path.name}.{token}.old{PARTIAL_SUFFIX}")
    is_replaced = False
    try:
        if os.path.lexists(path):
            _check_replaceable(path, path, files, force)
        partial.mkdir()
        for name, data in files.items():
            write_new(partial / name, data, PUBLIC_MODE)
        if os.path.lexists(path):
            path.rename(old)
        try:
            if old.exists():  # no other program knows its new name, so nobody can add files any more
                _check_replaceable(old, path, files, force)
            partial.rename(path)
            is_replaced = True
        except BaseException:  # even Ctrl-C must not lose the old folder
            if old.exists():
                old.rename(path)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        for leftover in (partial, old) if is_replaced else (partial,):
            with suppress(OSError):  # the export is complete, or its own error matters more
                shutil.rmtree(leftover)


def _check_replaceable(folder: Path, path: Path, files: dict[str, bytes], force: bool) -> None:
    """Check that `folder`, which is or was at `path`, may be replaced. Raises ExportRefused or FileExistsError."""
    if not force:
        raise FileExistsError
    if folder.is_symlink() or not folder.is_dir():
        raise ExportRefused(f"{path} is not a folder, so it was not replaced. Choose {_another_path()}.")
    # a folder with one of these names counts as another file, because replacing it would lose its contents
    others = {
        item.name for item in folder.iterdir() if item.name not in files or item.is_symlink() or not item.is_file()
    }
    if others:
        raise ExportRefused(
            f"{path} contains other files ({', '.join(sorted(others)[:3])}), so it was not replaced. "
            f"Choose {_another_path()}."
        )


def _write_error(path: Path, error: OSError) -> ExportRefused:
    if isinstance(error, FileExistsError):
        return FileInTheWay(
            f"{path} already exists. Use {option('force', True)} to replace it, or choose {_another_path()}."
        )
    return ExportRefused(
        f"cannot write {path}: {error.strerror or error}. Nothing was written. Fix this, or choose {_another_path()}."
    )


def _another_path() -> str:
    return f"another path with {wording('--out', '`path`')}"
