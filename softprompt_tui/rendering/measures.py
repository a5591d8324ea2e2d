"""The names of the two figures that training shows, which depend on the objective."""

from __future__ import annotations

_NAMES = {"distill": ("KL", "agreement"), "examples": ("loss", "accuracy")}


def is_for_language_model(objective: str) -> bool:
    """Return whether an objective trains soft tokens for a language model."""
    return objective in _NAMES


def measure_names(objective: str) -> tuple[str, str]:
    """Return what the loss and the similarity of an objective are called."""
    return _NAMES.get(objective, ("loss", "similarity"))
