"""From a file's bytes to what it holds, by the bytes alone: the ending of its name says nothing.

Runs in the child process. Raises FileRefused for what is not read, with what was wrong as its message.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from typing import Any

import numpy as np

from softprompt.errors import EntryDamaged, FileRefused
from softprompt.formats.readers import kobold, png_card, safetensors_file, torch_file
from softprompt.formats.readers.layouts import found_in, say
from softprompt.formats.readers.parsed_file import ParsedFile
from softprompt.formats.readers.tensors import Data, Tensor, finite, vectors_of
from softprompt.formats.readers.zip_file import Zip
from softprompt.library.entry import TENSORS, unpack
from softprompt.library.header import strict_json
from softprompt.prompts.serialization import from_dict, to_dict
from softprompt.prompts.soft_prompt import Array
from softprompt.prompts.validation import check_source_size

OURS = "softprompt"
OUR_TENSORS = "softprompt_tensors"  # in the metadata of an export: what has no place among its tensors
MAX_NOTICE_LENGTH = 2000  # bytes of a text that is quoted
CONFIG, WEIGHTS, OLD_WEIGHTS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
)  # of a PEFT folder
_KNOWN = {
    b"\xff\xd8\xff": "a JPEG picture", b"RIFF": "a WebP picture", b"GIF8": "a GIF picture", b"\x1f\x8b": "a gzip archive", b"GGUF": "a GGUF model",
    b"\x89HDF": "an HDF5 file", b"\x7fELF": "a program", b"BZh": "a bzip2 archive", b"\xfd7zXZ": "an xz archive", b"7z\xbc\xaf": "a 7z archive",
    b"SQLite format": "a database", b"%PDF": "a PDF", b"#!": "a script", b"MZ": "a program",
}  # fmt: skip


def found_in_file(raw: bytes) -> ParsedFile:
    """What the bytes of a file hold."""
    if not raw:
        raise FileRefused("it is empty")
    if raw.startswith(png_card.SIGNATURE):
        value, data = png_card.embedding_of(raw)
        return _named("AUTOMATIC1111 embedding card (PNG)", found_in(value, data, {}))
    if raw.startswith(kobold.MAGIC):
        tensor, data = kobold.from_npy(raw)
        return _named("numpy array (.npy)", found_in(tensor, data, {}))
    if safetensors_file.looks_so(raw):
        return _from_safetensors(raw)
    if raw.startswith(b"PK"):
        return _from_zip(raw)
    if raw.startswith(torch_file.LEGACY):
        value, data = torch_file.from_stream(raw)
        return _from_torch(value, data, "torch's older format")
    raise FileRefused(_what_else(raw))


def found_in_folder(parts: dict[str, bytes]) -> ParsedFile:
    """What a PEFT folder holds; `parts` are the files of interest in it."""
    if CONFIG not in parts:
        raise FileRefused(f"it is a folder without {CONFIG}: of folders, those of PEFT's prompt tuning are read")
    if instead := _downloaded_instead(parts[CONFIG]):
        raise FileRefused(f"its {CONFIG} cannot be read: {instead}")
    try:
        config = strict_json(parts[CONFIG])
    except (ValueError, TypeError, RecursionError) as error:
        raise FileRefused(f"its {CONFIG} cannot be read ({type(error).__name__}: {str(error)[:80]})") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "PROMPT_TUNING":
        raise FileRefused(f"its {CONFIG} is of the type {str(kind)[:40]!r}: PROMPT_TUNING is read")
    if WEIGHTS in parts:
        if not safetensors_file.looks_so(parts[WEIGHTS]):
            raise FileRefused(f"its {WEIGHTS} is no safetensors file: {_what_else(parts[WEIGHTS])}")
        tensors, _, data = safetensors_file.tensors_of(parts[WEIGHTS])
        value: Any = tensors
    elif OLD_WEIGHTS in parts:
        value, data = _torch_value(parts[OLD_WEIGHTS])
    else:
        raise FileRefused(f"it is a PEFT folder without {WEIGHTS} and {OLD_WEIGHTS}")
    tensor = value.get("prompt_embeddings") if isinstance(value, dict) else None
    if not isinstance(tensor, Tensor):
        raise FileRefused("its weights hold no tensor prompt_embeddings")
    said: dict[str, Any] = {}
    vectors = vectors_of(tensor, data, said)
    claimed = (config.get("num_virtual_tokens"), config.get("token_dim"))
    if vectors.ndim != 2 or any(claim not in (None, size) for claim, size in zip(claimed, vectors.shape, strict=True)):
        raise FileRefused(
            f"its {CONFIG} speaks of {claimed[0]} tokens of width {claimed[1]}, and its weights are {vectors.shape}"
        )
    say(said, {"checkpoint": config.pop("base_model_name_or_path", None), **config})
    return ParsedFile("PEFT prompt tuning", {"": vectors}, said)


def _from_safetensors(raw: bytes) -> ParsedFile:
    tensors, metadata, data = safetensors_file.tensors_of(raw)
    if tensors.keys() == set(TENSORS) and OURS in metadata:
        return _from_entry(raw)
    said: dict[str, Any] = {}
    ours = {key: metadata.pop(key) for key in (OURS, OUR_TENSORS) if key in metadata}
    if metadata.get("format") in ("pt", "np"):  # which of the library's writers it was
        metadata.pop("format")
    say(said, metadata)
    found = found_in(tensors, data, said)
    if OURS in ours:
        return _with_provenance(found, ours)
    return _named(f"{found.format}, safetensors", found)


def _from_entry(raw: bytes) -> ParsedFile:
    """An entry of a library of this program."""
    try:
        entry = unpack(raw, "it")
        check_source_size(entry.prompt.source)
    except (EntryDamaged, ValueError) as error:
        raise FileRefused(str(error)) from error
    prompt = entry.prompt
    kept = {"id": entry.id, "revision": entry.revision, "tags": list(entry.tags), "note": entry.note}
    beside = {name: getattr(prompt, name) for name in TENSORS[1:]}
    provenance = to_dict(prompt) | {"entry": kept}
    return ParsedFile("entry of a softprompt-tui library", {"": prompt.vectors}, {}, {"": provenance}, {"": beside})


def _with_provenance(found: ParsedFile, ours: dict[str, str]) -> ParsedFile:
    """An export of this program, with everything it knew."""
    try:
        provenance, packed = strict_json(ours[OURS]), strict_json(ours.get(OUR_TENSORS, "{}"))
        if len(found.vectors) == 1:
            (vectors,) = found.vectors.values()
            found, provenance, packed = replace(found, vectors={"": vectors}), {"": provenance}, {"": packed}
        elif provenance.keys() != found.vectors.keys():
            raise ValueError("of other soft prompts")
        beside = {
            key: _checked_tensors(provenance[key], vectors, packed[key]) for key, vectors in found.vectors.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, binascii.Error) as error:
        raise FileRefused(
            f"its provenance is not as this program writes it ({type(error).__name__}: {str(error)[:80]})"
        ) from error
    return replace(found, format="export of softprompt-tui", provenance=provenance, beside=beside)


def _checked_tensors(provenance: Any, vectors: Array, packed: Any) -> dict[str, Array]:
    """The other tensors of a soft prompt, out of the metadata; raises what `from_dict` raises where its provenance is damaged."""
    if not isinstance(provenance, dict) or not isinstance(packed, dict):
        raise TypeError("no object")
    tensors = {
        name: np.frombuffer(base64.b64decode(packed.get(name, ""), validate=True), "<f4") for name in TENSORS[1:]
    }
    finite(tensors["target"])
    # `entry` is this program's word for what is no provenance: a file from outside does not choose an id
    provenance.pop("entry", None)
    check_source_size(from_dict(provenance, vectors, **tensors).source)
    return tensors


def _from_zip(raw: bytes) -> ParsedFile:
    zipped = Zip(raw)
    if kobold.is_kobold(zipped):
        tensor, data, meta = kobold.from_zip(zipped)
        said: dict[str, Any] = {}
        say(said, meta)
        return _named("KoboldAI soft prompt", found_in(tensor, data, said))
    archive = torch_file.archive_name(zipped)
    if archive is None:
        raise FileRefused("it is a zip, but neither torch's nor KoboldAI's")
    value, data = torch_file.from_zip(zipped, archive)
    return _from_torch(value, data, "torch")


def _torch_value(raw: bytes) -> tuple[Any, Data]:
    if raw.startswith(torch_file.LEGACY):
        return torch_file.from_stream(raw)
    if not raw.startswith(b"PK"):
        raise FileRefused(f"its {OLD_WEIGHTS} is no file of torch: {_what_else(raw)}")
    zipped = Zip(raw)
    archive = torch_file.archive_name(zipped)
    if archive is None:
        raise FileRefused(f"its {OLD_WEIGHTS} is no file of torch")
    return torch_file.from_zip(zipped, archive)


def _from_torch(value: Any, data: Data, kind: str) -> ParsedFile:
    found = found_in(value, data, {})
    return _named(f"{found.format}, {kind}", found)


def _named(format: str, found: ParsedFile) -> ParsedFile:
    return replace(found, format=format)


def _downloaded_instead(raw: bytes) -> str:
    """What a site or git left in the place of the file, "" where that is not so."""
    start = raw[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<!--", b"<?xml", b"<error")):
        return (
            "it is a web page, and not the file itself: the download went wrong. Download it again, signed in where the site asks "
            "for it, by the link that gives the file and not the page about it"
        )
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return (
            "it is a Git LFS pointer, and not the file itself: run `git lfs pull` in the repository that it comes from"
        )
    if start.startswith(b"{") and b'"error"' in start:
        return (
            "it is a site's error message in JSON, and not the file itself: the download went wrong. Download it again"
        )
    return ""


def _what_else(raw: bytes) -> str:
    if instead := _downloaded_instead(raw):
        return instead
    if raw[8:9] == b"{" and raw[:8].rstrip(b"\0"):
        return "it looks like a safetensors file, with a header of impossible length"
    if raw[:1] == b"\x80":
        return "it is a Python pickle that torch.save did not write; pickles are programs, and are never run"
    start = raw.lstrip()[:1]
    if start in (b"{", b"["):
        return (
            "it is JSON. mkultra's soft prompts are JSON around a pickle, which would have to be run: they are never loaded"
            if b"tensor" in raw[:4096] or b"gASV" in raw
            else "it is JSON, and no soft prompt that is known here"
        )
    for beginning, what in _KNOWN.items():
        if raw.startswith(beginning):
            return f"it is {what}"
    if len(raw) <= MAX_NOTICE_LENGTH and (words := _as_text(raw)):  # "Invalid username or password.", say
        return f"it is the text {words[:80]!r}, and no soft prompt: a site may have answered that instead of the file"
    return "what it is, is not known here"


def _as_text(raw: bytes) -> str:
    """The bytes as printable text, "" where they are none."""
    try:
        words = " ".join(raw.decode().split())
    except UnicodeDecodeError:
        return ""
    return words if words.isprintable() else ""
