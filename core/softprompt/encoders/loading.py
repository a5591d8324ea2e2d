"""Which text encoders there are, and loading one: the built-in `mini`, `MODEL/TAG` of open_clip, `local-dir:FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.config import check_device, check_precision
from softprompt.encoders.catalog import MINI, resolve
from softprompt.errors import DeviceError, ModelUnavailable, reason

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
    """Loads a text encoder by name onto a device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Weights that are not on disk are fetched, `on_progress` being told (bytes here, bytes in all). `precision` is "float32", or "bfloat16" for the tower's arithmetic (soft tokens, losses and results stay float32). Raises
    UnknownModel, ModelRefused, ModelUnavailable, ConfigError, DeviceError.
    """
    check_precision(precision)
    check_device(device)
    import torch

    place = pick_device(device)
    if name.lower() == MINI:
        from softprompt.encoders.clip import mini

        encoder = mini.load_mini()
    else:
        from softprompt.encoders.clip.openclip import load_by_name

        encoder = load_by_name(name, on_progress)
    try:
        return encoder.to(place, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    except RuntimeError as error:  # torch's type for a lost or full device
        raise ModelUnavailable(f"{encoder.name} cannot be put on {place}: {reason(error)}. Try --device cpu") from error


def pick_device(name: str) -> torch.device:
    """The device of this name, if this machine has it; "auto" is the first cuda device, else mps, else the cpu. Raises DeviceError."""
    check_device(name)
    import torch

    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return torch.device("cuda:0" if counts["cuda"] else "mps" if counts["mps"] else "cpu")
    kind, _, index = name.partition(":")
    if counts[kind] > int(index or 0):
        return torch.device(f"cuda:{index or 0}" if kind == "cuda" else kind)
    here = [f"{kind}:{i}" if kind == "cuda" else kind for kind, count in counts.items() for i in range(count)]
    raise DeviceError(f"the device {name!r} is not on this machine; it has {', '.join(here)}")


def pull(name: str, on_progress: OnBytes | None = None) -> Path:
    """Fetches all that loading the model of this name needs, its tokenizer too; returns the file of its weights."""
    from softprompt.encoders.download import fetch

    info = resolve(name)
    if info.tokenizer:
        from softprompt.encoders.clip.openclip import (
            known_config,
            tokenizer_of,
        )  # torch, which fetching needs for nothing else

        tokenizer_of(info.name, known_config(info)["text_cfg"])
    return fetch(info, on_progress)
