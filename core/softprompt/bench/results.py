"""Benchmark results as typed rows. Needs no torch.

Times are medians in seconds. An error is 1 - similarity. A floor needs no training: the first k tokens of the hard
prompt (copy) or, for compositions, the hard prompts without the words around them.
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
    """The time of one step of each method, with the same objective and no contexts.

    `limit` is the time of a plain step's matrix products alone.
    """

    part: ClassVar[str] = "speed"
    kind: ClassVar[str] = "steps"
    batch: int
    tokens: int
    vocabulary: int
    seconds: dict[str, float]
    limit: float

    def ratio(self, method: str) -> float:
        """Return the step time of `method` divided by ours."""
        return self.seconds[method] / self.seconds[OURS]

    @property
    def limit_ratio(self) -> float:
        return self.seconds[OURS] / self.limit

    def as_dict(self) -> dict[str, Any]:
        ratios = {method: self.ratio(method) for method in self.seconds}
        return asdict(self) | {"ratios": ratios, "limit_ratio": self.limit_ratio}


@dataclass(frozen=True)
class BatchRow:
    """The speed of `batch` prompts trained at once, with or without contexts.

    `prompts_per_second` counts whole training runs of `steps` steps. `memory` is the peak in bytes, or None if unknown.
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
    """The time from the hard prompt's text to the step that reaches `goal`.

    A training run that misses the goal counts with its full time.
    """

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
    """The quality of k soft tokens: similarity alone, and composition fidelity in the grading contexts.

    `fidelity_decile` is the mean of the worst tenth. `floor` is the fidelity without the added words. `copy` and
    `copy_fidelity` are the values for a copy of the first k tokens.
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
    """The quality of two soft prompts in one sentence: fidelity to the sentence with both hard prompts.

    `floor` is the fidelity of the two hard prompts without the sentence's words.
    """

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
    """The quality of k real tokens found in `seconds` per prompt, after decoding and re-tokenizing them.

    `kept` is the fraction of texts that tokenize to the ids that were scored.
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


def compute_ratios(rows: list[Row]) -> dict[str, float]:
    """Return the ratios that summarize the rows, by name. Ratios of rows that were not measured are left out."""
    ratios: dict[str, float] = {}
    vocabulary = max((row.vocabulary for row in rows if isinstance(row, StepRow)), default=0)
    for row in rows:
        if isinstance(row, StepRow) and row.tokens == 8 and row.vocabulary == vocabulary:
            ratios |= {f"step ratio to stock PEZ, batch {row.batch}": row.ratio(STOCK)}
            ratios |= {f"step ratio to fast PEZ, batch {row.batch}": row.ratio(FAST)}
            ratios |= {f"step over the limit, batch {row.batch}": row.limit_ratio}
    times = {row.method: row for row in rows if isinstance(row, TimeRow)}
    if our_row := times.get(OURS):
        for peer in (INVERSION, TUNED):
            if peer in times:
                ratios[f"time to {our_row.goal}, {peer} to ours"] = times[peer].seconds / our_row.seconds
        if together := times.get(TOGETHER):
            ratios["prompts per second, together to one at a time"] = (
                together.prompts_per_second / our_row.prompts_per_second
            )
    for row in rows:
        if isinstance(row, SoftRow | PairRow) and row.method == DEFAULT:
            suffix = ", two in a sentence" if isinstance(row, PairRow) else ""
            ratios[f"composition error to the floor's, k {row.tokens}{suffix}"] = row.error_to_floor
    hard = {(row.method, row.tokens): row for row in rows if isinstance(row, HardRow)}
    for (method, tokens), row in hard.items():
        for peer in (STOCK, FAST):
            if method == OURS and (peer_row := hard.get((peer, tokens))):
                ratios[f"hard error to {peer}'s, k {tokens}"] = (1 - row.similarity) / max(
                    1e-9, 1 - peer_row.similarity
                )
    return ratios
