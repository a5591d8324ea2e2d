"""Convert a GGUF file once into a folder that transformers loads quickly: float16 safetensors in the cache.

transformers needs half a minute to unpack even a small GGUF file; the folder loads in a second or two.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.encoders.causal_lm.facts import PARTIAL_PREFIX, converted_folder
from softprompt.encoders.causal_lm.folder import FAMILIES, causal_lm_refused
from softprompt.encoders.causal_lm.packages import check_packages
from softprompt.encoders.unattended import silent_transformers, unattended
from softprompt.errors import ModelUnavailable, SoftPromptError, UnknownModel, describe_error_with_type
from softprompt.system.devices import cpu_device
from softprompt.system.files import sync_folder
from softprompt.system.filesystems import sync
from softprompt.system.paths import make_folder

if TYPE_CHECKING:
    from softprompt.encoders.base import OnStage

MAGIC = b"GGUF"
STALE_SECONDS = 24 * 3600.0  # a conversion takes minutes, so an older folder was left by a crash
BYTES_PER_WEIGHT = 2  # float16


def convert_gguf(path: Path, on_stage: OnStage) -> Path:
    """Return the folder with the contents of a GGUF file, converting the file unless that has been done already.

    The folder's name contains the file's SHA-256. It gets its name last, so an unfinished folder never counts.

    Raises:
        UnknownModel: there is no such file.
        ModelUnavailable: a package is missing, the file is damaged, or there is too little memory or disk space.
        ModelRefused: the architecture is not supported.
    """
    digest = _hash_file(path, on_stage)
    folder = converted_folder(path.stem, digest)
    if folder.is_dir():
        return folder
    parent = make_folder(folder.parent)
    check_packages("transformers", "gguf", "accelerate")  # transformers reads GGUF only with accelerate
    _remove_stale(parent)
    partial = parent / f"{PARTIAL_PREFIX}{secrets.token_hex(8)}"
    try:
        _check_contents(path, parent, on_stage)
        partial.mkdir(mode=0o700)
        _convert(path, partial, on_stage)
        _sync(partial)
        _rename(partial, folder)
        sync_folder(parent)
    except SoftPromptError:
        raise
    except OSError as error:
        raise ModelUnavailable(
            f"cannot convert {path}: {describe_error_with_type(error)}. The converted model belongs into {parent}; "
            "free some space there, or set SOFTPROMPT_HOME to another folder."
        ) from error
    except Exception as error:  # gguf and transformers raise errors of any type
        raise ModelUnavailable(
            f"cannot convert {path}: {describe_error_with_type(error)}. The file may be damaged; download it again."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _hash_file(path: Path, on_stage: OnStage) -> str:
    """Return the SHA-256 of a GGUF file. Raises UnknownModel or ModelUnavailable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ModelUnavailable(f"{path} is not a regular file. Name a .gguf file.")
            if file.read(len(MAGIC)) != MAGIC:
                raise ModelUnavailable(f"{path} is not a GGUF file. Name a .gguf file, or a folder with safetensors.")
            on_stage(f"reading {path.name}")
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise UnknownModel(f"there is no file {path}. Name a .gguf file, or a folder with safetensors.") from error
    except OSError as error:
        raise ModelUnavailable(f"cannot read {path}: {error.strerror}. Check who may read it.") from error


def _check_contents(path: Path, parent: Path, on_stage: OnStage) -> None:
    """Check the architecture, the free memory and the free disk space before the weights are unpacked."""
    from gguf import GGUFReader

    on_stage(f"checking {path.name}")
    reader = GGUFReader(str(path))
    field: Any = reader.fields.get("general.architecture")
    architecture = str(field.contents()) if field else ""
    if architecture not in FAMILIES:
        raise causal_lm_refused(
            str(path), f"its architecture is {architecture[:40]!r}", f"Supported: {', '.join(FAMILIES)}"
        )
    needed = BYTES_PER_WEIGHT * sum(int(tensor.n_elements) for tensor in reader.tensors)
    for place, free in (("memory", cpu_device().free_bytes), (f"space in {parent}", shutil.disk_usage(parent).free)):
        if free is not None and needed > free:
            raise ModelUnavailable(
                f"{path.name} needs {needed / 1e9:,.1f} GB as float16, but only {free / 1e9:,.1f} GB of {place} are "
                "free. Free some, or choose a smaller model."
            )


def _convert(path: Path, partial: Path, on_stage: OnStage) -> None:
    """Write the tokenizer and the weights of a GGUF file to the folder `partial`."""
    import torch
    import transformers

    # alone in a folder, because transformers would also read configurations and adapters beside the file
    source = partial / "source"
    source.mkdir()
    (source / "model.gguf").symlink_to(path.absolute())
    arguments = {"gguf_file": "model.gguf", "local_files_only": True, "trust_remote_code": False}
    # newer versions of transformers keep the weights quantized unless they are asked to dequantize them
    gguf_config = getattr(transformers, "GgufConfig", None)
    quantization = {"quantization_config": gguf_config(dequantize=True)} if gguf_config else {}
    on_stage("unpacking the tokenizer")  # outside of `_silence`, which would discard what it prints
    with _silence():
        transformers.AutoTokenizer.from_pretrained(str(source), **arguments).save_pretrained(partial)
    on_stage("unpacking the weights")
    with _silence():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(source), dtype=torch.float16, **arguments, **quantization
        )
    on_stage("saving the weights as float16")
    with _silence():
        model.save_pretrained(partial)
    shutil.rmtree(source)


@contextmanager
def _silence() -> Iterator[None]:
    """Let transformers neither ask nor print. Its progress bar for GGUF files has no switch."""
    with silent_transformers(), unattended(), redirect_stderr(io.StringIO()):
        yield


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)


def _rename(partial: Path, folder: Path) -> None:
    """Give a finished folder its name. Another process may have converted the same file meanwhile."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _remove_stale(parent: Path) -> None:
    for partial in parent.glob(f"{PARTIAL_PREFIX}*"):
        with suppress(OSError):
            if time.time() - partial.lstat().st_mtime > STALE_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)
