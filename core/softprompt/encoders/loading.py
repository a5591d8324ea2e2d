"""Load a text encoder by name: the built-in `mini`, an open_clip model (`MODEL/TAG`) or `local-dir:FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.config import check_device, check_precision
from softprompt.encoders.catalog import MINI, resolve
from softprompt.errors import DeviceError, ModelUnavailable, describe_error

if TYPE_CHECKING:
    import torch

    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.encoders.download import OnBytes


def load_encoder(
    name: str = MINI,
    device: str = "auto",
    precision: str = "float32",
    on_progress: OnBytes | None = None,
) -> TextEncoder:
    """Load a text encoder by name, downloading its weights if necessary.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "float32" or "bfloat16", for the text tower. Soft tokens, losses and results are always float32.
        on_progress: called during a download with the bytes received so far and the total.

    Raises:
        UnknownModel: no model has this name.
        ModelRefused: this version cannot run the model faithfully.
        ModelUnavailable: the model cannot be downloaded or loaded at the moment.
        ConfigError: `precision` is unknown.
        DeviceError: this machine has no such device.

    Example:
        encoder = load_encoder("mini")
        encoder.encode(["a cat", "a dog"]).shape  # (2, 384)
    """
    check_precision(precision)
    check_device(device)
    import torch

    torch_device = pick_device(device)
    if name.lower() == MINI:
        from softprompt.encoders.clip import mini

        encoder = mini.load_mini()
    else:
        from softprompt.encoders.clip.openclip import load_by_name

        encoder = load_by_name(name, on_progress)
    try:
        return encoder.to(torch_device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    except RuntimeError as error:  # torch raises it if the device is lost or out of memory
        raise ModelUnavailable(
            f"{encoder.name} cannot be moved to {torch_device}: {describe_error(error)}. Try --device cpu."
        ) from error


def pick_device(name: str) -> torch.device:
    """Return the device with this name. "auto" prefers the first CUDA device, then MPS, then the CPU.

    Raises:
        DeviceError: this machine has no such device.
    """
    check_device(name)
    import torch

    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return torch.device("cuda:0" if counts["cuda"] else "mps" if counts["mps"] else "cpu")
    kind, _, index = name.partition(":")
    if counts[kind] > int(index or 0):
        return torch.device(f"cuda:{index or 0}" if kind == "cuda" else kind)
    available = [f"{kind}:{i}" if kind == "cuda" else kind for kind, count in counts.items() for i in range(count)]
    raise DeviceError(f"this machine has no device {name!r}. Use {', '.join(available)}.")


def pull(name: str, on_progress: OnBytes | None = None) -> Path:
    """Download everything needed to load a model, including its tokenizer. Return the path of the weights."""
    from softprompt.encoders.download import fetch

    info = resolve(name)
    if info.tokenizer:
        from softprompt.encoders.clip.openclip import load_tokenizer, pretrained_config  # imports torch

        load_tokenizer(info.name, pretrained_config(info)["text_cfg"])
    return fetch(info, on_progress)
