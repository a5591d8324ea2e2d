"""The result of one prompt in a batch, and the progress of the batch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from softprompt.prompts.visible_text import short_repr

if TYPE_CHECKING:
    from softprompt.library.entry import Entry

State = Literal["trained", "before", "trashed", "failed"]
Phase = Literal["reading", "loading", "training"]


@dataclass(frozen=True, repr=False)
class Result:
    """The result of one row. The field names are the keys of a result line.

    Attributes:
        line: the line where the row starts in the file.
        state: "trained" in this run, already in the library ("before") or in its trash ("trashed"), or "failed".
        id: id of the entry, or "" if the row is not a valid job.
        error: kind and message of the error if the state is "failed".
    """

    line: int
    state: State
    prompt: str
    id: str = ""
    name: str = ""
    model: str = ""
    tokens: int | None = None
    similarity: float | None = None
    composed: float | None = None
    worst: float | None = None
    floor: float | None = None
    steps: int | None = None
    seconds: float | None = None
    readout_text: str = ""
    readout_similarity: float | None = None
    error: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return short_repr(
            "Result",
            self.prompt,
            line=self.line,
            state=self.state,
            name=self.name,
            tokens=self.tokens,
            similarity=self.similarity,
            error=self.error and self.error[1],
        )

    @classmethod
    def from_entry(cls, line: int, state: State, prompt: str, entry: Entry) -> Result:
        soft_prompt, composition = entry.prompt, entry.prompt.composition
        return cls(
            line, state, prompt, entry.id, soft_prompt.name, soft_prompt.model, soft_prompt.tokens,
            soft_prompt.similarity,
            None if composition is None else composition.mean, None if composition is None else composition.worst,
            None if composition is None else composition.floor,
            soft_prompt.steps, round(soft_prompt.seconds, 3), soft_prompt.readout_text, soft_prompt.readout_similarity,
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; non-finite numbers become null."""
        error = None if self.error is None else {"kind": self.error[0], "message": self.error[1]}
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in vars(self).items()
        }  # fmt: skip
        return plain | {"error": error}

    def as_line(self) -> bytes:
        """Return one line of ASCII JSON."""
        return json.dumps(self.as_dict(), ensure_ascii=True, allow_nan=False).encode() + b"\n"


@dataclass
class BatchProgress:
    """The progress of a batch, counted in prompts.

    Attributes:
        done: results so far, including `before` (from earlier runs) and `failed`.
        trained: prompts trained in this run, which took `seconds`.
        resumed: prompts that continued from a checkpoint of an earlier run.
        in_progress: sum of the finished fractions of all prompts that are training now.
    """

    total: int
    phase: Phase = "reading"
    model: str = ""
    done: int = 0
    before: int = 0
    failed: int = 0
    trained: int = 0
    in_progress: float = 0.0
    seconds: float = 0.0
    resumed: int = 0

    @property
    def prompts_per_second(self) -> float:
        return (self.trained + self.in_progress) / self.seconds if self.seconds else 0.0
