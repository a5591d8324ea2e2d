"""What ends a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompt.errors import SoftPromptError

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt


class TrainingFailed(SoftPromptError):
    """Training that could not go on; `best` is the best soft prompt until then, or None."""

    def __init__(self, message: str, best: SoftPrompt | None = None) -> None:
        super().__init__(message)
        self.best = best
