"""Download a causal language model from the Hugging Face hub: `hf:OWNER/NAME`.

Small files come first, so that a model that cannot be used is refused before gigabytes arrive.
"""

from __future__ import annotations

import re
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
)
from softprompt.encoders.causal_lm.tokenizer import TOKENIZER_FILE
from softprompt.encoders.download import fetch, fetch_if_present
from softprompt.errors import UnknownModel

if TYPE_CHECKING:
    from softprompt.encoders.download import OnBytes

HUB_PREFIX = "hf:"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
OPTIONAL_FILES = (GENERATION_FILE, TOKENIZER_CONFIG_FILE, "special_tokens_map.json", TEMPLATE_FILE)
OTHER_TOKENIZER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")


def fetch_folder(name: str, on_progress: OnBytes | None = None) -> Path:
    """Return the folder of `hf:OWNER/NAME` in the hub's cache, downloading what is missing.

    A model whose configuration, tokenizer and weights are in the cache needs no network.

    Raises:
        UnknownModel: the name is not that of a repository.
        ModelRefused: the model cannot be used.
        ModelUnavailable: the download failed, or this user has no access to the model.
    """
    repository = name.removeprefix(HUB_PREFIX)
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise UnknownModel(f"{name!r} names no repository. Write hf:OWNER/NAME, such as hf:Qwen/Qwen3-0.6B.")
    if folder := _cached_folder(name, repository):
        return folder
    folder = fetch(_file(name, repository, CONFIG_FILE), on_progress).parent
    for file in OPTIONAL_FILES:
        fetch_if_present(_file(name, repository, file), on_progress)
    check_folder(name, folder)
    if fetch_if_present(_file(name, repository, TOKENIZER_FILE), on_progress) is None:
        for file in OTHER_TOKENIZER_FILES:
            fetch_if_present(_file(name, repository, file), on_progress)
    if fetch_if_present(_file(name, repository, WEIGHTS_FILE), on_progress):
        return folder
    index = fetch_if_present(_file(name, repository, INDEX_FILE), on_progress)
    if index is None:
        raise causal_lm_refused(
            name,
            f"its repository has no {WEIGHTS_FILE}, and other formats are not read",
            "Choose another version of the model",
        )
    for shard in shard_names(index):
        fetch(_file(name, repository, shard), on_progress)
    return folder


def _file(name: str, repository: str, file: str) -> ModelInfo:
    return ModelInfo(name, 0, 0, 0, 0, repository, (file,))


def _cached_folder(name: str, repository: str) -> Path | None:
    """Return the folder of a repository in the cache if it holds a tokenizer, the configuration and all weights."""

    def find(file: str) -> Path | None:
        return _file(name, repository, file).weights_path

    config = find(CONFIG_FILE)
    if config is None or not any(find(file) for file in (TOKENIZER_FILE, *OTHER_TOKENIZER_FILES)):
        return None
    if find(WEIGHTS_FILE):
        return config.parent
    index = find(INDEX_FILE)
    return config.parent if index and all(find(shard) for shard in shard_names(index)) else None
