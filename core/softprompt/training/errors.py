"""The errors of training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompt.errors import SoftPromptError

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt


class TrainingFailed(SoftPromptError):
    """Training failed. `best` is the best soft prompt so far, or None."""

    def __init__(self, message: str, best: SoftPrompt | None = None) -> None:
        super().__init__(message)
        self.best = best


class StateLost(SoftPromptError):
    """A report has no training state: it was pickled or copied, or training has gone on to another step."""

    bad_input = True
