"""Soft prompts for CLIP text encoders: a few trained token embeddings that mean the same as a long prompt.

    encoder = softprompt.load_encoder("mini")
    prompt = softprompt.train(encoder, "image of serene landscape at sunrise", tokens=3)
    softprompt.Library().save(prompt)

Importing this package is cheap: it imports torch only when a function needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from softprompt.errors import SoftPromptError

if TYPE_CHECKING:
    from softprompt.batches import train_batch
    from softprompt.config import HardConfig, TrainConfig
    from softprompt.discrete import find_hard
    from softprompt.encoders.catalog import ModelInfo, list_models
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.encoders.loading import load_encoder
    from softprompt.evaluation.fidelity import grade
    from softprompt.evaluation.readout import read_out
    from softprompt.library import Library
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.loop import Report
    from softprompt.training.trainer import iter_train, train

_MODULES = {
    "HardConfig": "config",
    "Library": "library",
    "ModelInfo": "encoders.catalog",
    "Report": "training.loop",
    "SoftPrompt": "prompts.soft_prompt",
    "TextEncoder": "encoders.clip.text_encoder",
    "TrainConfig": "config",
    "find_hard": "discrete",
    "grade": "evaluation.fidelity",
    "iter_train": "training.trainer",
    "list_models": "encoders.catalog",
    "load_encoder": "encoders.loading",
    "read_out": "evaluation.readout",
    "train": "training.trainer",
    "train_batch": "batches",
}

__all__ = [
    "HardConfig", "Library", "ModelInfo", "Report", "SoftPrompt", "SoftPromptError", "TextEncoder", "TrainConfig",
    "find_hard", "grade", "iter_train", "list_models", "load_encoder", "read_out", "train", "train_batch",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
