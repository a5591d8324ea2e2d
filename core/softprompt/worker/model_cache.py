"""The text encoders that are kept loaded, so that the next training and every question find them warm."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING

from softprompt.encoders.loading import load_encoder, pick_device
from softprompt.errors import DeviceError

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.encoders.download import OnBytes

log = logging.getLogger(__name__)
MAX_MODELS = 2  # encoders kept at once: the one in training, and another that is asked about


class ModelCache:
    """A few loaded encoders, by model, device and precision."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str, str], TextEncoder] = {}  # the one used last is last

    def get(
        self, model: str, device: str, precision: str = "float32", on_progress: OnBytes | None = None
    ) -> TextEncoder:
        """The encoder, loaded if need be. Raises what `load_encoder` raises."""
        key = self._key(model, device, precision)
        encoder = self._loaded.pop(key, None)
        if encoder is None:
            while len(self._loaded) >= MAX_MODELS:  # room first: two large models may not fit
                del self._loaded[next(iter(self._loaded))]
                self._free()
            encoder = load_encoder(model, key[1], precision, on_progress)
        self._loaded[key] = encoder
        return encoder

    def has(self, model: str, device: str, precision: str = "float32") -> bool:
        return self._key(model, device, precision) in self._loaded

    def names(self) -> list[str]:
        """What is loaded, such as "mini on cpu"."""
        return [f"{model} on {device}" for model, device, _ in self._loaded]

    def release(self, everything: bool = False) -> None:
        """Lets go of the encoders that are not on the cpu, whose memory others may need, or of all."""
        self._loaded = {} if everything else {key: encoder for key, encoder in self._loaded.items() if key[1] == "cpu"}
        self._free()

    def device_works(self, device: str) -> bool:
        """Whether the device still computes: a GPU that failed once refuses this process for good."""
        import torch

        try:
            return float(torch.ones(2, device=pick_device(device)).sum()) == 2
        except DeviceError:
            return True  # there never was one
        except RuntimeError:
            return False

    def _key(self, model: str, device: str, precision: str) -> tuple[str, str, str]:
        return (model.lower(), str(pick_device(device)), precision)

    def _free(self) -> None:
        import torch

        gc.collect()
        try:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        except RuntimeError as error:  # a GPU that failed refuses this too; `device_works` is what finds out
            log.warning("the GPU's memory cannot be given back: %s", error)
