"""A run as clients and scripts see it: what they are told of it, typed, whichever process it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from softprompt.errors import WorkerError
from softprompt.prompts.sweep_result import SweepResult

ENDED = ("done", "stopped", "failed")
RowOfSweep = tuple[int, float | None, float | None]  # number of tokens, similarity alone, mean in the training contexts


@dataclass(frozen=True)
class RunReport:
    """How far a run is. What is not known, or not measured by this kind of run, is None."""

    run: str
    step: int
    tokens: int
    loss: float | None = None
    similarity: float | None = None
    steps: int | None = None
    best_loss: float | None = None
    best_similarity: float | None = None
    seconds: float | None = None
    steps_per_second: float | None = None
    restarts: tuple[float | None, ...] = ()
    sweep: tuple[RowOfSweep, ...] = ()
    text: str | None = None  # the best of the search for a hard readout, "" before there is one
    hard_similarity: float | None = None
    hard_step: int | None = None
    hard_steps: int | None = None
    told: frozenset[str] = frozenset()  # what the message had: None is news there

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> RunReport:
        """The report in a message whose fields are checked."""
        told = {name: message[name] for name in _REPORTED if name in message}
        told["told"] = frozenset(told)
        told["restarts"] = tuple(told.get("restarts", ()))
        told["sweep"] = tuple((row[0], row[1], row[2]) for row in told.get("sweep", ()))
        return cls(**told)


@dataclass(frozen=True)
class RunSummary:
    """A run. `state`: queued, running, paused, done, stopped (by its user), failed, or unreadable, with the reason as its `error`."""

    id: str
    state: str
    prompt: str = ""
    model: str = ""
    device: str = ""
    tokens: int | str = 0  # or "auto"
    steps: int = 0
    name: str = ""
    position: float = 0.0
    created: str = ""
    began: str = ""
    kind: str = "train"
    sweep: tuple[int, ...] = ()
    results: tuple[SweepResult, ...] = ()
    of_entry: str = ""  # whose hard readout it looks for
    hard: bool = False
    batch: str = ""  # the same for runs that can train in one batch
    rows: int = 1
    ended: str = ""
    stopping: bool = False
    pausing: bool = False
    error: str = ""
    entry: str = ""
    step: int | None = None
    loss: float | None = None
    similarity: float | None = None
    best_loss: float | None = None
    best_similarity: float | None = None
    seconds: float | None = None
    steps_per_second: float | None = None
    # only reports tell these
    swept: tuple[RowOfSweep, ...] = ()
    text: str | None = None
    hard_similarity: float | None = None
    hard_step: int | None = None
    hard_steps: int | None = None

    @classmethod
    def from_message(cls, values: Mapping[str, Any]) -> RunSummary:
        """The run in a message; what an older worker does not tell has its default. Raises WorkerError for what is no run."""
        told = {name: values[name] for name in _TOLD if name in values}
        try:
            told["sweep"] = tuple(told.get("sweep", ()))
            told["results"] = tuple(map(SweepResult.from_dict, told.get("results", ())))
            return cls(**told)
        except (TypeError, ValueError, AttributeError) as error:
            raise WorkerError(f"the worker told of a run in a way that cannot be read ({error}): update both sides") from error

    def as_dict(self) -> dict[str, Any]:
        """Plain values for messages and scripts."""
        told = {name: getattr(self, name) for name in _TOLD}
        return told | {"sweep": list(self.sweep), "results": [asdict(result) for result in self.results]}

    def with_report(self, report: RunReport) -> RunSummary:
        """The run after a report, which tells only what its kind measures."""
        told = {name: value for name in _IN_BOTH if (value := getattr(report, name)) is not None or name in report.told}
        swept = report.sweep or self.swept
        return replace(self, **told, step=report.step, loss=report.loss, similarity=report.similarity, swept=swept)

    def with_reports_of(self, before: RunSummary) -> RunSummary:
        """The run with what only the reports on it have told before."""
        return replace(self, **{name: getattr(before, name) for name in _LIVE})

    @property
    def called(self) -> str:
        """Its name, or the beginning of its prompt."""
        return self.name or self.prompt[:40]


_LIVE = ("swept", "text", "hard_similarity", "hard_step", "hard_steps")
_TOLD = tuple(field.name for field in fields(RunSummary) if field.name not in _LIVE)
_REPORTED = tuple(field.name for field in fields(RunReport))
_IN_BOTH = tuple(
    field.name
    for field in fields(RunSummary)
    if field.name in _REPORTED and field.name not in ("tokens", "sweep", "step", "loss", "similarity")
)
