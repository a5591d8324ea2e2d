"""Load and list models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.api.progress import ProgressBar
from softprompt.arguments import checked
from softprompt.encoders import catalog, loading
from softprompt.encoders.catalog import MINI, ModelInfo
from softprompt.encoders.causal_lm import loading as causal_lm_loading

if TYPE_CHECKING:
    import torch

    from softprompt.encoders.causal_lm.model import CausalLM
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
        ModelRefused: this version cannot run the model faithfully, or it is a language model.
        ModelUnavailable: the model cannot be downloaded or loaded at the moment.
        ConfigError: `precision` is unknown.
        DeviceError: this machine has no such device.

    Example:
        encoder = load_encoder("mini")
        encoder.encode(["a cat", "a dog"]).shape  # (2, 384)
    """
    with _download_bar(progress, name, on_progress) as show:
        return loading.load_encoder(name, str(device), _precision_name(precision), show)


@checked
def load_causal_lm(
    name: str | Path,
    device: str | torch.device = "auto",
    precision: str | torch.dtype = "float32",
    on_progress: Callable[[int, int], object] | None = None,
    *,
    progress: bool = False,
) -> CausalLM:
    """Load a causal language model, downloading its weights if necessary.

    It needs the extra packages of `softprompt-tui[llm]`.

    Args:
        name: a name of `list_models` such as "smollm2", "hf:OWNER/NAME" for a model on the Hugging Face hub, or the
            path of a folder or .gguf file. A GGUF file is converted once, which takes about a minute.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "float32" or "bfloat16", for the weights. Embeddings and logits are always float32.
        on_progress: called during a download with the bytes received so far and the total.
        progress: show a progress bar during a download.

    Raises:
        UnknownModel: no model has this name, and there is no such folder or file.
        ModelRefused: this version cannot run the model faithfully, or it asks for code or is a text encoder.
        ModelUnavailable: the model cannot be downloaded or loaded at the moment, or a package is missing.
        ConfigError: `precision` is unknown.
        DeviceError: this machine has no such device.

    Example:
        model = load_causal_lm("smollm2", precision="bfloat16")
        model.width  # 576
    """
    with _download_bar(progress, str(name), on_progress) as show:
        return causal_lm_loading.load_causal_lm(name, str(device), _precision_name(precision), show)


@contextmanager
def _download_bar(
    progress: bool, name: str, on_progress: Callable[[int, int], object] | None
) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows the bytes of a download and passes them on."""
    with ProgressBar(progress, name, "B", at_once=False) as bar:  # no bar if the weights are on disk

        def show(received: int, total: int) -> None:
            if not total:  # the hub has not told the size yet
                return
            bar.show(received, total)
            if on_progress is not None:
                on_progress(received, total)

        yield show


def _precision_name(precision: str | torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


@checked
def list_models() -> tuple[ModelInfo, ...]:
    """Return `mini`, the named language models, then all models for which open_clip has weights, in its order.

    The first call of a new installation imports open_clip, which takes seconds.
    """
    return catalog.list_models()
