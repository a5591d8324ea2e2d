"""Check the folder of a causal language model before transformers reads it. Nothing in the folder is trusted."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt.encoders.model_folder import find_code_reference, read_json
from softprompt.errors import ModelRefused, ModelUnavailable, UnknownModel

CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
ADAPTER_FILE = "adapter_config.json"
TOKENIZER_CONFIG_FILE, TEMPLATE_FILE = "tokenizer_config.json", "chat_template.jinja"
# the classes of transformers by the `model_type` of a configuration; others are not tested, so they are refused
FAMILIES = {
    "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma": "Gemma", "gemma2": "Gemma2",
    "phi": "Phi", "gpt2": "GPT2", "opt": "OPT",
}  # fmt: skip
# a model is built before its weights are compared with it, so a configuration must not ask for a million layers
MAX_SETTINGS = {
    "num_hidden_layers": 1 << 10, "n_layer": 1 << 10, "hidden_size": 1 << 16, "n_embd": 1 << 16, "vocab_size": 1 << 24,
    "intermediate_size": 1 << 20, "ffn_dim": 1 << 20, "n_inner": 1 << 20, "num_attention_heads": 1 << 12,
    "n_head": 1 << 12, "head_dim": 1 << 16, "num_key_value_heads": 1 << 12, "max_position_embeddings": 1 << 26,
    "n_positions": 1 << 26, "word_embed_proj_dim": 1 << 16,
}  # fmt: skip
_SHARD_NAME = re.compile(r"[\w.-]+\.safetensors")


@dataclass(frozen=True)
class CausalLMFolder:
    """The folder of a causal language model with a valid configuration.

    Attributes:
        config: the contents of config.json.
        family: the prefix of the family's classes in transformers, such as "Qwen2".
    """

    name: str
    path: Path
    config: dict[str, Any]
    family: str


def causal_lm_refused(name: str, reason: str, advice: str) -> ModelRefused:
    return ModelRefused(f"{name} is not supported: {reason}. {advice}.")


def check_folder(name: str, path: Path) -> CausalLMFolder:
    """Read and check the configuration of a model folder. The weights may still be missing.

    Raises:
        UnknownModel: there is no such folder.
        ModelUnavailable: the configuration is missing or broken.
        ModelRefused: the family is not supported, or the folder asks for code, another model or packed weights.
    """
    if not os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises an error if the name is too long
        raise UnknownModel(f"there is no folder {path}. Name a folder with {CONFIG_FILE} and {WEIGHTS_FILE}.")
    if (path / ADAPTER_FILE).exists():  # transformers would load the model that this file names
        raise causal_lm_refused(
            name, f"its {ADAPTER_FILE} makes it an adapter of another model", "Merge the adapter into its model first"
        )
    config = _read_config(path / CONFIG_FILE)
    if file := find_code_reference(path):
        raise causal_lm_refused(
            name,
            f"its {file} refers to Python code (auto_map). Code in a model is never run",
            "Choose a version of the model without code",
        )
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise causal_lm_refused(
            name, f"its model_type is {str(config.get('model_type'))[:40]!r}", f"Supported: {', '.join(FAMILIES)}"
        )
    for key in ("quantization_config", "compression_config"):
        if config.get(key):
            raise causal_lm_refused(
                name,
                f"its weights are quantized ({key})",
                "Choose the version in float16, bfloat16 or float32, or a .gguf file",
            )
    for key, maximum in MAX_SETTINGS.items():
        value = config.get(key)
        if value is not None and not (type(value) is int and 1 <= value <= maximum):
            raise causal_lm_refused(
                name, f"its config.json has {key} = {repr(value)[:40]}", f"It must be 1 to {maximum:,}"
            )
    return CausalLMFolder(name, path, config, family)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
        if not isinstance(config, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelUnavailable(
            f"{path.parent} is not a language model: {CONFIG_FILE} cannot be read ({reason}). Name a folder that "
            "transformers' save_pretrained wrote, or a .gguf file."
        ) from error
    return config


def read_end_ids(folder: CausalLMFolder) -> tuple[int, ...]:
    """Return the ids that end an answer, as generation_config.json and config.json name them."""
    try:
        generation = read_json(folder.path / GENERATION_FILE)
    except (OSError, ValueError):  # the file is optional
        generation = {}
    ids: list[int] = []
    for source in (generation, folder.config):
        value = source.get("eos_token_id") if isinstance(source, dict) else None
        ids += [i for i in (value if isinstance(value, list) else [value]) if type(i) is int and i >= 0]
    return tuple(dict.fromkeys(ids))


def shard_names(index: Path) -> list[str]:
    """Return the names of the weight files that an index lists. Raises ModelUnavailable if the index is broken."""
    try:
        value = read_json(index)
        names = sorted(set(value["weight_map"].values())) if isinstance(value, dict) else []
        if not names or not all(isinstance(name, str) and _SHARD_NAME.fullmatch(name) for name in names):
            raise ValueError("its weight_map must name .safetensors files of the same folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnavailable(f"{index} cannot be read ({error}). Download or copy the model again.") from error
    return names


def total_shard_bytes(index: Path) -> int:
    """Return the size of all weights as an index states it, or 0 if it does not."""
    try:
        value = read_json(index)
    except (OSError, ValueError):
        return 0
    metadata = value.get("metadata") if isinstance(value, dict) else None
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return total if type(total) is int and total > 0 else 0


def find_weights(folder: CausalLMFolder) -> list[Path]:
    """Return the paths of a folder's weights: one safetensors file, or the files that the index lists.

    Raises:
        ModelRefused: there are only weights in other formats.
        ModelUnavailable: there are no weights, or a file is missing.
    """
    if (folder.path / WEIGHTS_FILE).is_file():
        return [folder.path / WEIGHTS_FILE]
    if not (folder.path / INDEX_FILE).is_file():
        others = sorted(file.name for file in folder.path.iterdir() if file.suffix in (".bin", ".pt", ".pth"))
        if others:
            raise causal_lm_refused(
                folder.name,
                f"its only weights are a pickle ({others[0]}), which can run code",
                f"Choose a version with {WEIGHTS_FILE}",
            )
        raise ModelUnavailable(
            f"{folder.name} has no weights. Add {WEIGHTS_FILE}, or {INDEX_FILE} with the files that it lists."
        )
    paths = [folder.path / shard for shard in shard_names(folder.path / INDEX_FILE)]
    for path in paths:
        if not path.is_file():
            raise ModelUnavailable(
                f"{folder.name} cannot be loaded: {path.name} is missing. Download or copy it again."
            )
    return paths
