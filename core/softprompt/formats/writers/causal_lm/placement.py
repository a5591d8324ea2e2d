"""Where a language model's soft prompt belongs: its place in a chat template."""

from __future__ import annotations

from dataclasses import dataclass

from softprompt.prompts.soft_prompt import SoftPrompt


@dataclass(frozen=True)
class TrainedPlace:
    """The placement in the chat template, and the template's digest."""

    placement: str
    template: str


def is_language_model(prompt: SoftPrompt) -> bool:
    """Return whether a soft prompt was trained for a language model."""
    return prompt.is_for_language_model


def trained_place(prompt: SoftPrompt) -> TrainedPlace:
    """Return where a language model's soft prompt was trained."""
    fidelity = prompt.answers or prompt.examples
    assert fidelity is not None
    return TrainedPlace(fidelity.placement, fidelity.template)
