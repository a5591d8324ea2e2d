"""A cache of loaded models, so that the next run and all queries can start immediately."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING

from softprompt.encoders.catalog import LOCAL_PREFIX, model_kind, resolve
from softprompt.encoders.devices import pick_device
from softprompt.encoders.loading import load_model
from softprompt.errors import DeviceError

if TYPE_CHECKING:
    from softprompt.encoders.base import OnStage
    from softprompt.encoders.causal_lm.model import CausalLM
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.encoders.download import OnBytes

log = logging.getLogger(__name__)
MAX_MODELS = 2  # one model for training, another for queries


class ModelCache:
    """Up to MAX_MODELS loaded models, keyed by name, device and precision."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str, str], TextEncoder | CausalLM] = {}  # the most recently used comes last

    def get(
        self,
        model: str,
        device: str,
        precision: str = "float32",
        on_progress: OnBytes | None = None,
        on_stage: OnStage | None = None,
    ) -> TextEncoder | CausalLM:
        """Return the model, loading it if necessary. Raises the same errors as `load_model`."""
        key = self._key(model, device, precision)
        loaded = self._loaded.pop(key, None)
        if loaded is None:
            while len(self._loaded) >= MAX_MODELS:  # free memory first, because two large models may not fit
                del self._loaded[next(iter(self._loaded))]
                self._free()
            loaded = load_model(model, key[1], precision, on_progress, on_stage)
        self._loaded[key] = loaded
        return loaded

    def has(self, model: str, device: str, precision: str = "float32") -> bool:
        return self._key(model, device, precision) in self._loaded

    def names(self) -> list[str]:
        """Return a label for each loaded model, such as "mini on cpu"."""
        return [f"{model} on {device}" for model, device, _ in self._loaded]

    def release(self, everything: bool = False) -> None:
        """Release the models on a GPU, because other programs may need the memory. With `everything`, release all."""
        self._loaded = {} if everything else {key: loaded for key, loaded in self._loaded.items() if key[1] == "cpu"}
        self._free()

    def device_works(self, device: str) -> bool:
        """Return whether the device still works. Once a GPU has failed, it stays unusable for this process."""
        import torch

        try:
            return float(torch.ones(2, device=pick_device(device)).sum()) == 2
        except DeviceError:
            return True  # this machine has no such device, so there is nothing to be broken
        except RuntimeError:
            return False

    def _key(self, model: str, device: str, precision: str) -> tuple[str, str, str]:
        if model.startswith(LOCAL_PREFIX):  # file names differ by case
            name = model
        else:
            name = resolve(model).name if model_kind(model) == "causal" else model.lower()
        return (name, str(pick_device(device)), precision)

    def _free(self) -> None:
        import torch

        gc.collect()
        try:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        except RuntimeError as error:  # this also fails on a broken GPU, which `device_works` detects
            log.warning("cannot release the GPU's memory: %s", error)
