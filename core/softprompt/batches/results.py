"""What became of one prompt of a batch, and how far the batch is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from softprompt.library.entry import Entry

State = Literal["trained", "before", "trashed", "failed"]
Phase = Literal["reading", "loading", "training"]


@dataclass(frozen=True)
class Result:
    """One row's result. `line` is where the row begins in the file; `id` is the entry's in the library, "" where there can be none.

    `state`: trained just now; there from before; there, in the trash; or failed, and `error` is the kind and the message.
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

    @classmethod
    def of(cls, line: int, state: State, prompt: str, entry: Entry) -> Result:
        made, composition = entry.prompt, entry.prompt.composition
        return cls(
            line, state, prompt, entry.id, made.name, made.model, made.tokens, made.similarity,
            None if composition is None else composition.mean, None if composition is None else composition.worst,
            None if composition is None else composition.floor,
            made.steps, round(made.seconds, 3), made.readout_text, made.readout_similarity,
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; what is no number is null."""
        error = None if self.error is None else {"kind": self.error[0], "message": self.error[1]}
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in vars(self).items()
        }  # fmt: skip
        return plain | {"error": error}

    def as_line(self) -> bytes:
        """One line of JSON, in ASCII."""
        return json.dumps(self.as_dict(), ensure_ascii=True, allow_nan=False).encode() + b"\n"


@dataclass
class BatchProgress:
    """How far a batch is. `done` counts results, of them `before` from earlier runs and `failed`; `trained` is how many this run has
    trained since `seconds` ago, and `under_way` what it has done of the next, in prompts."""

    total: int
    phase: Phase = "reading"
    model: str = ""
    done: int = 0
    before: int = 0
    failed: int = 0
    trained: int = 0
    under_way: float = 0.0
    seconds: float = 0.0

    @property
    def prompts_per_second(self) -> float:
        return (self.trained + self.under_way) / self.seconds if self.seconds else 0.0
