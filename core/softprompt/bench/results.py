"""What was measured, as rows of typed figures. Needs no torch.

Times are seconds and medians; an error is 1 - similarity; a floor is what costs no training: the hard prompt cut to its first k tokens
(copy), or, for compositions, the hard prompts without the words around them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

STOCK, FAST = "stock PEZ", "fast PEZ"
INVERSION, TUNED = "textual inversion", "textual inversion, tuned"
OURS, DEFAULT, WARM, TOGETHER = "ours", "ours, shipped default", "ours, warm start", "ours, together"
COPY = "copy of the first k"


@dataclass(frozen=True)
class StepRow:
    """One step of each method with the same objective, contexts off. `limit` is the time of the plain step's matrix products alone."""

    part: ClassVar[str] = "speed"
    kind: ClassVar[str] = "steps"
    batch: int
    tokens: int
    vocabulary: int
    seconds: dict[str, float]
    limit: float

    def ratio(self, method: str) -> float:
        """How many times as long as ours a step of `method` takes."""
        return self.seconds[method] / self.seconds[OURS]

    @property
    def limit_ratio(self) -> float:
        return self.seconds[OURS] / self.limit

    def as_dict(self) -> dict[str, Any]:
        ratios = {method: self.ratio(method) for method in self.seconds}
        return asdict(self) | {"ratios": ratios, "limit_ratio": self.limit_ratio}


@dataclass(frozen=True)
class BatchRow:
    """So many prompts trained at once: alone (contexts off), and as shipped (contexts on).

    `prompts_per_second` are of whole trainings of `steps` steps; `memory` the most in use, bytes, or None where that is not known.
    """

    part: ClassVar[str] = "speed"
    kind: ClassVar[str] = "batches"
    method: str
    batch: int
    tokens: int
    seconds: float
    steps: int
    memory: int | None

    @property
    def prompts_per_second(self) -> float:
        return self.batch / (self.seconds * self.steps)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"prompts_per_second": self.prompts_per_second}


@dataclass(frozen=True)
class TimeRow:
    """From the hard prompt's text to the step that reaches `goal`. Those that do not reach it count with the time they were given."""

    part: ClassVar[str] = "time"
    kind: ClassVar[str] = "time"
    method: str
    goal: str
    tokens: int
    count: int
    reached: int
    seconds: float
    steps: float
    prompts_per_second: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SoftRow:
    """Quality of k soft tokens: similarity alone, and composition fidelity over the grading contexts of all prompts.

    `fidelity_decile` is the mean of the worst tenth; `floor` leaves the added words away; `copy` and `copy_fidelity` are copy-k's.
    """

    part: ClassVar[str] = "soft"
    kind: ClassVar[str] = "soft"
    method: str
    tokens: int
    count: int
    similarity: float
    similarity_worst: float
    fidelity: float
    fidelity_worst: float
    fidelity_decile: float
    floor: float
    copy: float
    copy_fidelity: float

    @property
    def error_to_floor(self) -> float:
        return (1 - self.fidelity) / max(1e-9, 1 - self.floor)

    @property
    def error_to_copy(self) -> float:
        return (1 - self.similarity) / max(1e-9, 1 - self.copy)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"error_to_floor": self.error_to_floor, "error_to_copy": self.error_to_copy}


@dataclass(frozen=True)
class PairRow:
    """Two soft prompts in one sentence: fidelity to the sentence with both written out; `floor` is the two without the sentence's words."""

    part: ClassVar[str] = "soft"
    kind: ClassVar[str] = "pairs"
    method: str
    tokens: int
    count: int
    fidelity: float
    fidelity_worst: float
    fidelity_decile: float
    floor: float

    @property
    def error_to_floor(self) -> float:
        return (1 - self.fidelity) / max(1e-9, 1 - self.floor)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"error_to_floor": self.error_to_floor}


@dataclass(frozen=True)
class HardRow:
    """Quality of k real tokens, found in `seconds` a prompt: of the text, decoded and tokenised again, as a user would paste it.

    `kept` is the share of texts that tokenise to the ids that were scored.
    """

    part: ClassVar[str] = "hard"
    kind: ClassVar[str] = "hard"
    method: str
    tokens: int
    count: int
    seconds: float
    similarity: float
    similarity_worst: float
    kept: float
    copy: float

    @property
    def error_to_copy(self) -> float:
        return (1 - self.similarity) / max(1e-9, 1 - self.copy)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"error_to_copy": self.error_to_copy}


Row = StepRow | BatchRow | TimeRow | SoftRow | PairRow | HardRow
KINDS = tuple(row.kind for row in (StepRow, BatchRow, TimeRow, SoftRow, PairRow, HardRow))


def figures(rows: list[Row]) -> dict[str, float]:
    """The ratios that sum the rows up, by name; of what was not measured there is none."""
    found: dict[str, float] = {}
    whole = max((row.vocabulary for row in rows if isinstance(row, StepRow)), default=0)
    for row in rows:
        if isinstance(row, StepRow) and row.tokens == 8 and row.vocabulary == whole:
            found |= {f"step ratio to stock PEZ, batch {row.batch}": row.ratio(STOCK)}
            found |= {f"step ratio to fast PEZ, batch {row.batch}": row.ratio(FAST)}
            found |= {f"step over the limit, batch {row.batch}": row.limit_ratio}
    times = {row.method: row for row in rows if isinstance(row, TimeRow)}
    if ours := times.get(OURS):
        for peer in (INVERSION, TUNED):
            if peer in times:
                found[f"time to {ours.goal}, {peer} to ours"] = times[peer].seconds / ours.seconds
        if together := times.get(TOGETHER):
            found["prompts per second, together to one at a time"] = (
                together.prompts_per_second / ours.prompts_per_second
            )
    for row in rows:
        if isinstance(row, SoftRow | PairRow) and row.method == DEFAULT:
            two = ", two in a sentence" if isinstance(row, PairRow) else ""
            found[f"composition error to the floor's, k {row.tokens}{two}"] = row.error_to_floor
    hard = {(row.method, row.tokens): row for row in rows if isinstance(row, HardRow)}
    for (method, tokens), row in hard.items():
        for peer in (STOCK, FAST):
            if method == OURS and (theirs := hard.get((peer, tokens))):
                found[f"hard error to {peer}'s, k {tokens}"] = (1 - row.similarity) / max(1e-9, 1 - theirs.similarity)
    return found
