"""Typed summaries and progress reports of runs, for clients and scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from softprompt.errors import WorkerError, shorten
from softprompt.prompts.sweep_result import SweepResult

ENDED = ("done", "stopped", "failed")
MAX_LABEL_LENGTH = 40  # characters of a prompt that stands for its run's name
MAX_TITLE_LENGTH = 400  # characters; more than the widest line has
SweepRow = tuple[int, float | None, float | None]  # token count, similarity, mean similarity in training contexts


@dataclass(frozen=True)
class RunReport:
    """The progress of a run. A value is None if it is unknown or not measured for this kind of run."""

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
    sweep: tuple[SweepRow, ...] = ()
    text: str | None = None  # the best hard readout so far, or "" if there is none yet
    hard_similarity: float | None = None
    hard_step: int | None = None
    hard_steps: int | None = None
    reported: frozenset[str] = frozenset()  # the fields that the message contains, even those that are None

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> RunReport:
        """Build a report from a worker message whose fields the caller has already validated."""
        values = {name: message[name] for name in _REPORT_FIELDS if name in message}
        values["reported"] = frozenset(values)
        values["restarts"] = tuple(values.get("restarts", ()))
        values["sweep"] = tuple((row[0], row[1], row[2]) for row in values.get("sweep", ()))
        return cls(**values)


@dataclass(frozen=True)
class RunSummary:
    """A summary of a run. `state` is queued, running, paused, done, stopped (by the user), failed, or unreadable.

    If it is unreadable, `error` contains the reason.
    """

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
    of_entry: str = ""  # the entry that gets the hard readout
    hard: bool = False
    batch: str = ""  # the same for all runs that can train in one batch
    objective: str = ""  # which figures `loss` and `similarity` are
    digest: str = ""  # the same for trainings with the same result, on one model; see `training_digest`
    rows: int = 1
    ended: str = ""
    stopping: bool = False
    pausing: bool = False
    error: str = ""
    error_kind: str = ""  # name of the error's type, or "" if unknown
    entry: str = ""
    step: int | None = None
    loss: float | None = None
    similarity: float | None = None
    best_loss: float | None = None
    best_similarity: float | None = None
    seconds: float | None = None
    steps_per_second: float | None = None
    # only reports set these
    sweep_rows: tuple[SweepRow, ...] = ()
    text: str | None = None
    hard_similarity: float | None = None
    hard_step: int | None = None
    hard_steps: int | None = None
    stage: str = ""  # the current stage of loading its model, until the first report

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> RunSummary:
        """Build a summary from a worker's message. Fields that an older worker does not send get default values.

        Raises:
            WorkerError: the message does not contain a valid run.
        """
        values = {name: message[name] for name in _SUMMARY_FIELDS if name in message}
        try:
            values["sweep"] = tuple(values.get("sweep", ()))
            values["results"] = tuple(map(SweepResult.from_dict, values.get("results", ())))
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise WorkerError(
                f"cannot read a run from the worker ({error}): the versions differ. "
                "Update softprompt-tui and restart the worker."
            ) from error

    def as_dict(self) -> dict[str, Any]:
        """Return the values for messages and scripts, ready for JSON."""
        values = {name: getattr(self, name) for name in _SUMMARY_FIELDS}
        return values | {"sweep": list(self.sweep), "results": [asdict(result) for result in self.results]}

    def with_report(self, report: RunReport) -> RunSummary:
        """Return the summary updated with a report. Values that the report does not contain stay as they are."""
        values = {name: getattr(report, name) for name in _SHARED_FIELDS}
        values = {name: value for name, value in values.items() if value is not None or name in report.reported}
        sweep_rows = report.sweep or self.sweep_rows
        return replace(
            self, **values, step=report.step, loss=report.loss, similarity=report.similarity, sweep_rows=sweep_rows,
            stage="",
        )  # fmt: skip

    def with_report_values_of(self, before: RunSummary) -> RunSummary:
        """Return a copy in which the values that only reports set come from `before`."""
        values = {name: getattr(before, name) for name in _REPORT_ONLY}
        return replace(self, **values | {"stage": before.stage if self.state == "running" else ""})

    @property
    def display_name(self) -> str:
        """The run's name, or the start of its prompt."""
        return self.name or shorten(self.prompt, MAX_LABEL_LENGTH)

    @property
    def title(self) -> str:
        """The run's name, or its prompt in one line, for a place that cuts it to its own width."""
        return self.name or " ".join(shorten(self.prompt, MAX_TITLE_LENGTH).split())


_REPORT_ONLY = ("sweep_rows", "text", "hard_similarity", "hard_step", "hard_steps", "stage")
_SUMMARY_FIELDS = tuple(field.name for field in fields(RunSummary) if field.name not in _REPORT_ONLY)
_REPORT_FIELDS = tuple(field.name for field in fields(RunReport))
_SHARED_FIELDS = tuple(
    field.name
    for field in fields(RunSummary)
    if field.name in _REPORT_FIELDS and field.name not in ("tokens", "sweep", "step", "loss", "similarity")
)
