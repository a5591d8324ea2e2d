"""Detect a file's format from its bytes, never from its name, and parse it.

Runs in the child process. Raises FileRefused, with the reason as its message, for unsupported files.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import replace
from typing import Any

from softprompt.errors import EntryDamaged, FileRefused
from softprompt.formats.readers import kobold, png_card, torch_file
from softprompt.formats.readers.layouts import LEFT_OUT, add_metadata, parse_value
from softprompt.formats.readers.parsed_file import ParsedFile
from softprompt.formats.readers.zip_file import Zip
from softprompt.library.entry import TENSORS, unpack
from softprompt.prompts import safetensors_file
from softprompt.prompts.prompt_file import CHECKSUM_KEY, PROVENANCE_KEY, TENSORS_KEY, unpack_tensors
from softprompt.prompts.safetensors_header import ROWS_KEY, strict_json
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.prompts.tensors import DataReader, Tensor, read_vectors
from softprompt.prompts.validation import check_source_size

MAX_NOTICE_BYTES = 2000  # longer text files are not quoted in the error message
# the files of a PEFT folder
CONFIG, WEIGHTS, LEGACY_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
NEW_TOKENS, HEAD = ".trainable_tokens_delta", ".lm_head."  # in the keys of tensors in a folder with new tokens
_ROWS = re.compile(r"([0-9]{1,5}):([0-9]{1,5})")
_FILE_SIGNATURES = {
    b"\xff\xd8\xff": "a JPEG image", b"RIFF": "a WebP image", b"GIF8": "a GIF image",
    b"\x1f\x8b": "a gzip archive", b"GGUF": "a GGUF model", b"\x89HDF": "an HDF5 file", b"\x7fELF": "a program",
    b"BZh": "a bzip2 archive", b"\xfd7zXZ": "an xz archive", b"7z\xbc\xaf": "a 7z archive",
    b"SQLite format": "a database", b"%PDF": "a PDF", b"#!": "a script", b"MZ": "a program",
}  # fmt: skip


def parse_file(raw: bytes) -> ParsedFile:
    """Parse the bytes of a file."""
    if not raw:
        raise FileRefused("it is empty")
    if raw.startswith(png_card.SIGNATURE):
        value, data = png_card.read_embedding(raw)
        return _with_format("AUTOMATIC1111 embedding card (PNG)", parse_value(value, data, {}))
    if raw.startswith(kobold.MAGIC):
        tensor, data = kobold.from_npy(raw)
        return _with_format("numpy array (.npy)", parse_value(tensor, data, {}))
    if safetensors_file.is_safetensors(raw):
        return _from_safetensors(raw)
    if raw.startswith(b"PK"):
        return _from_zip(raw)
    if raw.startswith(torch_file.LEGACY_PREFIX):
        value, data = torch_file.from_stream(raw)
        return _from_torch(value, data, "torch's older format")
    raise FileRefused(_describe_unsupported(raw))


def parse_folder(parts: dict[str, bytes]) -> ParsedFile:
    """Parse the files of a PEFT folder, given by name: prompt tuning, or new tokens of a vocabulary."""
    if CONFIG not in parts:
        raise FileRefused(f"the folder has no {CONFIG}, so it is not a PEFT prompt-tuning folder")
    if problem := _detect_failed_download(parts[CONFIG]):
        raise FileRefused(f"{CONFIG} is invalid: {problem}")
    try:
        config = strict_json(parts[CONFIG])
    except (ValueError, TypeError, RecursionError) as error:
        raise FileRefused(f"{CONFIG} is invalid ({type(error).__name__}: {str(error)[:80]})") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in ("PROMPT_TUNING", "TRAINABLE_TOKENS"):
        raise FileRefused(f"{CONFIG} has peft_type {str(kind)[:40]!r} instead of PROMPT_TUNING or TRAINABLE_TOKENS")
    header: dict[str, str] = {}
    if WEIGHTS in parts:
        if not safetensors_file.is_safetensors(parts[WEIGHTS]):
            raise FileRefused(f"{WEIGHTS} is not a safetensors file: {_describe_unsupported(parts[WEIGHTS])}")
        tensors, header, data = safetensors_file.read_tensors(parts[WEIGHTS])
        value: Any = tensors
    elif LEGACY_WEIGHTS in parts:
        value, data = _torch_value(parts[LEGACY_WEIGHTS])
    else:
        raise FileRefused(f"the folder has neither {WEIGHTS} nor {LEGACY_WEIGHTS}")
    metadata: dict[str, Any] = {}
    if kind == "PROMPT_TUNING":
        vectors = _read_virtual_tokens(config, value, data, metadata)
    else:
        vectors = _read_new_tokens(config, value, data, metadata)
    add_metadata(metadata, {"checkpoint": config.pop("base_model_name_or_path", None), **config})
    parsed = ParsedFile("PEFT prompt tuning" if kind == "PROMPT_TUNING" else "PEFT new tokens", {"": vectors}, metadata)
    if ROWS_KEY not in header or PROVENANCE_KEY not in header:
        return parsed
    return _with_provenance(replace(parsed, vectors={"": _own_rows(vectors, header[ROWS_KEY])}), header)


def _read_virtual_tokens(config: dict[str, Any], value: Any, data: DataReader, metadata: dict[str, Any]) -> Array:
    """Read the vectors of a prompt-tuning folder."""
    tensor = value.get("prompt_embeddings") if isinstance(value, dict) else None
    if not isinstance(tensor, Tensor):
        raise FileRefused("the weights have no tensor named prompt_embeddings")
    vectors = read_vectors(tensor, data, metadata)
    declared = (config.get("num_virtual_tokens"), config.get("token_dim"))
    if vectors.ndim != 2 or any(value not in (None, size) for value, size in zip(declared, vectors.shape, strict=True)):
        raise FileRefused(
            f"{CONFIG} declares {declared[0]} tokens of width {declared[1]}, but the weights have shape {vectors.shape}"
        )
    return vectors


def _read_new_tokens(config: dict[str, Any], value: Any, data: DataReader, metadata: dict[str, Any]) -> Array:
    """Read the vectors of a folder with new tokens of a vocabulary. A tied head repeats them."""
    tensors = {key: value[key] for key in value if HEAD not in str(key)} if isinstance(value, dict) else {}
    keys = [key for key in tensors if isinstance(key, str) and key.endswith(NEW_TOKENS)]
    if len(keys) != 1 or not isinstance(tensors[keys[0]], Tensor):
        raise FileRefused(f"the weights have {len(keys)} tensors whose names end in {NEW_TOKENS} instead of one")
    vectors = read_vectors(tensors[keys[0]], data, metadata)
    indices = config.get("token_indices")
    if vectors.ndim != 2 or not isinstance(indices, list) or len(indices) != len(vectors):
        raise FileRefused(f"{CONFIG} does not declare one index for each token of the weights, {vectors.shape}")
    if others := len(tensors) - 1:
        metadata[LEFT_OUT] = f"{others} other {'tensor' if others == 1 else 'tensors'} in the file"
    return vectors


def _own_rows(vectors: Array, text: str) -> Array:
    """Return the soft tokens among the rows of an export of this program, which can have the template's tokens too."""
    match = _ROWS.fullmatch(text)
    start, end = map(int, match.groups()) if match else (0, 0)
    if not 0 <= start < end <= len(vectors):
        raise FileRefused(f"its softprompt-tui provenance is damaged (it names the rows {text[:40]!r})")
    return vectors[start:end]


def _from_safetensors(raw: bytes) -> ParsedFile:
    tensors, header, data = safetensors_file.read_tensors(raw)
    if tensors.keys() == set(TENSORS) and PROVENANCE_KEY in header:
        return _from_entry(raw)
    metadata: dict[str, Any] = {}
    export = {key: header.pop(key) for key in (PROVENANCE_KEY, TENSORS_KEY, CHECKSUM_KEY) if key in header}
    if header.get("format") in ("pt", "np"):  # set by the safetensors library; not about the soft prompt
        header.pop("format")
    add_metadata(metadata, header)
    parsed = parse_value(tensors, data, metadata)
    if PROVENANCE_KEY in export:
        return _with_provenance(parsed, export)
    return _with_format(f"{parsed.format}, safetensors", parsed)


def _from_entry(raw: bytes) -> ParsedFile:
    """Parse an entry file copied from this program's library."""
    try:
        entry = unpack(raw, "the entry")
        check_source_size(entry.prompt.source)
    except (EntryDamaged, ValueError) as error:
        raise FileRefused(str(error)) from error
    prompt = entry.prompt
    stored = {"id": entry.id, "revision": entry.revision, "tags": list(entry.tags), "note": entry.note}
    provenance = prompt.as_dict() | {"entry": stored}
    extra = {"": prompt.extra_tensors}
    return ParsedFile("entry of a softprompt-tui library", {"": prompt.vectors}, {}, {"": provenance}, extra)


def _with_provenance(parsed: ParsedFile, export: dict[str, str]) -> ParsedFile:
    """Add the provenance and the other tensors, which this program stores in the metadata of its exports."""
    try:
        provenance, packed = strict_json(export[PROVENANCE_KEY]), strict_json(export.get(TENSORS_KEY, "{}"))
        if len(parsed.vectors) == 1:
            (vectors,) = parsed.vectors.values()
            parsed, provenance, packed = replace(parsed, vectors={"": vectors}), {"": provenance}, {"": packed}
        elif provenance.keys() != parsed.vectors.keys():
            raise ValueError("it describes different soft prompts")
        extra = {key: _unpack_tensors(provenance[key], vectors, packed[key]) for key, vectors in parsed.vectors.items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, binascii.Error) as error:
        raise FileRefused(
            f"its softprompt-tui provenance is damaged ({type(error).__name__}: {str(error)[:80]})"
        ) from error
    return replace(parsed, format="export of softprompt-tui", provenance=provenance, extra_tensors=extra)


def _unpack_tensors(provenance: Any, vectors: Array, packed: Any) -> dict[str, Array]:
    """Decode a soft prompt's other tensors from the metadata. Raises the same errors as `SoftPrompt.from_dict`."""
    if not isinstance(provenance, dict):
        raise TypeError("not an object")
    tensors = unpack_tensors(packed)
    # only library entries have the key `entry`: an export must not choose its own id
    provenance.pop("entry", None)
    check_source_size(SoftPrompt.from_dict(provenance, vectors, **tensors).source)
    return tensors


def _from_zip(raw: bytes) -> ParsedFile:
    zipped = Zip(raw)
    if kobold.is_kobold(zipped):
        tensor, data, meta = kobold.from_zip(zipped)
        metadata: dict[str, Any] = {}
        add_metadata(metadata, meta)
        return _with_format("KoboldAI soft prompt", parse_value(tensor, data, metadata))
    archive = torch_file.find_archive(zipped)
    if archive is None:
        raise FileRefused("it is a ZIP file that neither torch nor KoboldAI wrote")
    value, data = torch_file.from_zip(zipped, archive)
    return _from_torch(value, data, "torch")


def _torch_value(raw: bytes) -> tuple[Any, DataReader]:
    if raw.startswith(torch_file.LEGACY_PREFIX):
        return torch_file.from_stream(raw)
    if not raw.startswith(b"PK"):
        raise FileRefused(f"{LEGACY_WEIGHTS} is not a torch file: {_describe_unsupported(raw)}")
    zipped = Zip(raw)
    archive = torch_file.find_archive(zipped)
    if archive is None:
        raise FileRefused(f"{LEGACY_WEIGHTS} is not a torch file")
    return torch_file.from_zip(zipped, archive)


def _from_torch(value: Any, data: DataReader, kind: str) -> ParsedFile:
    parsed = parse_value(value, data, {})
    return _with_format(f"{parsed.format}, {kind}", parsed)


def _with_format(format: str, parsed: ParsedFile) -> ParsedFile:
    return replace(parsed, format=format)


def _detect_failed_download(raw: bytes) -> str:
    """Describe what a website or git delivered instead of the file, or return ""."""
    start = raw[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<!--", b"<?xml", b"<error")):
        return (
            "it is a web page, not the file itself. Download the file through its direct link, "
            "and sign in if the site requires it"
        )
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        return "it is a Git LFS pointer, not the file itself. Run `git lfs pull` in its repository"
    if start.startswith(b"{") and b'"error"' in start:
        return "it is a website's error message (JSON), not the file itself. Download it again"
    return ""


def _describe_unsupported(raw: bytes) -> str:
    if problem := _detect_failed_download(raw):
        return problem
    if raw[8:9] == b"{" and raw[:8].rstrip(b"\0"):
        return "it looks like a safetensors file, but its header length is invalid"
    if raw[:1] == b"\x80":
        return "it is a Python pickle that torch.save did not write. Pickles can run code, so they are never loaded"
    start = raw.lstrip()[:1]
    if start in (b"{", b"["):
        return (
            "it is JSON. mkultra soft prompts are JSON around a pickle, which can run code, so they are never loaded"
            if b"tensor" in raw[:4096] or b"gASV" in raw
            else "it is JSON, but not a known soft prompt format"
        )
    for signature, kind in _FILE_SIGNATURES.items():
        if raw.startswith(signature):
            return f"it is {kind}"
    if len(raw) <= MAX_NOTICE_BYTES and (text := _decode_printable(raw)):  # such as "Invalid username or password."
        return f"it contains only the text {text[:80]!r}. A website may have sent that instead of the file"
    return "its format is unknown"


def _decode_printable(raw: bytes) -> str:
    """Return the bytes as one line of text, or "" if they are not printable text."""
    try:
        text = " ".join(raw.decode().split())
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""
