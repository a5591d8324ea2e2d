"""The names of the two figures that training shows, which depend on the objective."""

from __future__ import annotations


def measure_names(objective: str) -> tuple[str, str]:
    """Return what the loss and the similarity of an objective are called."""
    return ("KL", "agreement") if objective == "distill" else ("loss", "similarity")
