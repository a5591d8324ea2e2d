"""Load and list models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from softprompt.api.progress import ProgressBar
from softprompt.arguments import checked
from softprompt.encoders import catalog, loading
from softprompt.encoders.catalog import MINI, ModelInfo

if TYPE_CHECKING:
    import torch

    from softprompt.encoders.clip.text_encoder import TextEncoder


@checked
def load_encoder(
    name: str = MINI,
    device: str | torch.device = "auto",
    precision: str | torch.dtype = "float32",
    on_progress: Callable[[int, int], object] | None = None,
    *,
    progress: bool = False,
) -> TextEncoder:
    """Load a text encoder by name, downloading its weights if necessary.

    Args:
        name: "mini", which comes with the package, an open_clip model such as "ViT-L-14-quickgelu/openai", or
            "local-dir:FOLDER". `list_models` lists them.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "float32" or "bfloat16", for the text tower. Soft tokens, losses and results are always float32.
        on_progress: called during a download with the bytes received so far and the total.
        progress: show a progress bar during a download.

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
    with ProgressBar(progress, name, "B", at_once=False) as bar:  # no bar if the weights are on disk

        def show(received: int, total: int) -> None:
            if not total:  # the hub has not told the size yet
                return
            bar.show(received, total)
            if on_progress is not None:
                on_progress(received, total)

        return loading.load_encoder(name, str(device), str(precision).removeprefix("torch."), show)


@checked
def list_models() -> tuple[ModelInfo, ...]:
    """Return `mini`, then all models for which open_clip has weights, in open_clip's order.

    The first call of a new installation imports open_clip, which takes seconds.
    """
    return catalog.list_models()
