"""Download a causal language model from the Hugging Face hub: `hf:OWNER/NAME`.

Small files come first, so that a model that cannot be used is refused before gigabytes arrive.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.encoders.catalog import ModelInfo
from softprompt.encoders.causal_lm.folder import (
    CONFIG_FILE,
    GENERATION_FILE,
    INDEX_FILE,
    TEMPLATE_FILE,
    TOKENIZER_CONFIG_FILE,
    WEIGHTS_FILE,
    causal_lm_refused,
    check_folder,
    shard_names,
    total_shard_bytes,
)
from softprompt.encoders.causal_lm.tokenizer import TOKENIZER_FILE
from softprompt.encoders.download import fetch, fetch_if_present

if TYPE_CHECKING:
    from softprompt.encoders.download import OnBytes

OPTIONAL_FILES = (GENERATION_FILE, TOKENIZER_CONFIG_FILE, "special_tokens_map.json", TEMPLATE_FILE)
OTHER_TOKENIZER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")


def fetch_folder(info: ModelInfo, on_progress: OnBytes | None = None) -> Path:
    """Return the folder of a model in the hub's cache, downloading what is missing.

    A model whose configuration, tokenizer and weights are in the cache needs no network.

    Args:
        on_progress: called with the bytes of the weights. While smaller files arrive, both numbers are 0.

    Raises:
        ModelRefused: the model cannot be used.
        ModelUnavailable: the download failed, or this user has no access to the model.
    """
    if folder := _cached_folder(info):
        return folder

    def on_poll(_received: int, _total: int) -> None:
        if on_progress is not None:
            on_progress(0, 0)

    config = fetch_if_present(_file(info, CONFIG_FILE), on_poll)
    if config is None:
        raise causal_lm_refused(
            info.name,
            f"its repository has no {CONFIG_FILE}",
            "Choose a version that transformers reads, or download a .gguf file and give its path",
        )
    folder = config.parent
    for file in OPTIONAL_FILES:
        fetch_if_present(_file(info, file), on_poll)
    check_folder(info.name, folder)
    if fetch_if_present(_file(info, TOKENIZER_FILE), on_poll) is None:
        for file in OTHER_TOKENIZER_FILES:
            fetch_if_present(_file(info, file), on_poll)
    if fetch_if_present(_file(info, WEIGHTS_FILE), on_progress):
        return folder
    index = fetch_if_present(_file(info, INDEX_FILE), on_poll)
    if index is None:
        raise causal_lm_refused(
            info.name,
            f"its repository has no {WEIGHTS_FILE}, and other formats are not read",
            "Choose another version of the model",
        )
    _fetch_shards(info, index, on_progress)
    return folder


def _fetch_shards(info: ModelInfo, index: Path, on_progress: OnBytes | None) -> None:
    """Download the weights that an index lists, and report the bytes of all files together."""
    complete, total = 0, total_shard_bytes(index)

    def report(received: int, size: int) -> None:
        if on_progress is not None:  # the index counts only tensors, so the files are a little larger
            on_progress(complete + received, max(total, complete + size) if size else 0)

    for shard in shard_names(index):
        size = fetch(_file(info, shard), report).stat().st_size
        report(size, size)  # also for a file that was on disk already
        complete += size


def _file(info: ModelInfo, file: str) -> ModelInfo:
    """Return what to download for one file of a model's repository."""
    return replace(info, files=(file,), kind="text")  # then `weights_path` looks for exactly this file


def _cached_folder(info: ModelInfo) -> Path | None:
    """Return the folder of a repository in the cache if it holds a tokenizer, the configuration and all weights."""
    folder = info.config_folder
    if folder is None or not info.weight_files:
        return None
    return folder if any((folder / file).is_file() for file in (TOKENIZER_FILE, *OTHER_TOKENIZER_FILES)) else None
