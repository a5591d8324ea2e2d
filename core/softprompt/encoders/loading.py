"""Load a text encoder by name: the built-in `mini`, an open_clip model (`MODEL/TAG`) or `local-dir:FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.config import check_device, check_precision
from softprompt.encoders.catalog import MINI, resolve
from softprompt.encoders.devices import pick_device
from softprompt.errors import ModelUnavailable, describe_error, option
from softprompt.system.threads import spin_limited

if TYPE_CHECKING:
    from softprompt.encoders.base import OnStage
    from softprompt.encoders.causal_lm.model import CausalLM
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.encoders.download import OnBytes


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


def load_model(
    name: str,
    device: str = "auto",
    precision: str = "float32",
    on_progress: OnBytes | None = None,
    on_stage: OnStage | None = None,
) -> TextEncoder | CausalLM:
    if name.startswith("local-dir:") and "SmolLM2" in name:
        from softprompt.encoders.causal_lm.loading import load_causal_lm

        return load_causal_lm(name.removeprefix("local-dir:"), device, precision, on_progress, on_stage)
    return load_encoder(name, device, precision, on_progress, on_stage)


def _ignore_stage(stage: str) -> None:
    pass


def pull(name: str, on_progress: OnBytes | None = None) -> Path:
    """Download everything needed to load a model, including its tokenizer. Return the path of the weights."""
    from softprompt.encoders.download import fetch

    info = resolve(name)
    if info.tokenizer:
        from softprompt.encoders.clip.openclip import load_tokenizer, pretrained_config  # imports torch

        load_tokenizer(info.name, pretrained_config(info)["text_cfg"])
    return fetch(info, on_progress)
