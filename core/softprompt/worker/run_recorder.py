"""One run as it is carried out: its events are written down and told, its state is saved, and its user's requests are followed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from softprompt.errors import EntryDamaged
from softprompt.jobs.checkpoint import from_bytes, to_bytes
from softprompt.jobs.execute import Outcome
from softprompt.system.files import replace_file
from softprompt.worker.active_run import ActiveRun, RunInterrupted, Services
from softprompt.worker.run_folder import CHECKPOINT

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.loop import Report
    from softprompt.training.task import TrainingState

CHECKPOINT_EVERY = 5.0  # seconds; what a crash costs at most, twice over
REPORT_EVERY = 0.25  # seconds, where ten steps take longer
RESTARTS_TOLD = 16  # more curves in one plot tell nothing

log = logging.getLogger(__name__)


class RunRecorder:
    """What becomes of one run, from `begin` to `end`."""

    def __init__(self, services: Services, active: ActiveRun) -> None:
        self.services, self.active = services, active
        self.folder, self.job = active.folder, active.run.job
        self.latest = dict(active.run.latest)
        self.began = active.run.began
        self.state: TrainingState | None = None  # where it went on
        self._ended: Callable[[], TrainingState] | None = None
        self.reported = self.saved = time.monotonic()

    def begin(self) -> TrainingState | None:
        """Tells that it begins, and returns where it can go on: None for the beginning, which comes to the same bits."""
        try:
            self.state = from_bytes(self.folder.bytes_of(CHECKPOINT), str(self.folder.path / CHECKPOINT))
        except FileNotFoundError:
            pass
        except (OSError, EntryDamaged) as error:
            log.warning("run %s begins anew: %s", self.folder.id, error)
        step, tokens = (self.state.step, self.state.tokens) if self.state else (0, 0)
        event = self.tell({"event": "began", "step": step, "tokens": tokens}, durable=True)
        self.began = self.began or event["at"]
        return self.state

    def is_due(self, step: int) -> bool:
        return step % 10 == 0 or bool(self.active.stop_request) or time.monotonic() - self.reported >= REPORT_EVERY

    def report(self, encoder: TextEncoder, report: Report) -> bool:
        """Tells a report, saves the state where that is due, and returns whether to stop. Raises RunInterrupted where the run is to be left as it is."""
        self.active.vectors = (encoder, report.vectors)
        self.heed(event_of(report))
        self._ended = report.state
        request = self.active.stop_request
        if request in ("pause", "leave") or self.reported - self.saved >= CHECKPOINT_EVERY:
            self._save(report.state)
            self.saved = time.monotonic()
        self.leave_if_asked()
        return request == "stop"

    def heed(self, event: dict[str, Any]) -> None:
        """Tells a report that can be lost."""
        self.reported = time.monotonic()
        self.latest = event
        self.tell(event, durable=False)

    def is_trained(self) -> None:
        """What comes now goes on from where the training ended."""
        if self._ended is not None:
            self._save(self._ended)
            self._ended = None

    def leave_if_asked(self) -> None:
        if self.active.stop_request in ("pause", "leave"):
            raise RunInterrupted

    def tell(self, event: dict[str, Any], durable: bool) -> dict[str, Any]:
        event = self._written(event, durable)
        self.services.post("event", self.folder.id, event)
        return event

    def end(self, event: dict[str, Any]) -> None:
        """Writes down what became of the run; {} for nothing, since it is left for the next worker."""
        if event:
            event = self._written(event)
        if event.get("event") in ("done", "stopped") and self.is_ours():
            self.folder.forget_progress()
        self.services.finish(self.active, event)

    def leave(self) -> None:
        """As it is; one that is to stop and has done nothing yet is over."""
        states = {"pause": "paused"} | ({} if self.state else {"stop": "stopped"})
        state = states.get(self.active.stop_request)
        self.end({"event": state} if state else {})

    def end_with(self, outcome: Outcome) -> None:
        """What a job came to; all that is shown of a run stands in its last event."""
        ended: dict[str, Any] = {"event": "failed" if outcome.failure else "done", "error": outcome.failure}
        if outcome.entry is not None:
            made = outcome.entry.prompt
            if made.stopped == "interrupted" and not outcome.failure and self.job.kind == "train":
                ended["event"] = "stopped"
            ended |= {"entry": outcome.entry.id, "name": made.name, "similarity": made.similarity}
        self.end(ended | {"latest": self.latest, "began": self.began})

    def _save(self, state: Callable[[], TrainingState]) -> None:
        """Writes a checkpoint; leaves the run where another process has taken it."""
        try:
            self.leave_if_lost()
            replace_file(self.folder.path / CHECKPOINT, to_bytes(state()))
        except OSError as error:  # a full disk: the training goes on, and the next checkpoint is another file
            log.warning("run %s: no checkpoint: %s", self.folder.id, error)

    def leave_if_lost(self) -> None:
        """Leaves the run where another process has taken it. Raises RunInterrupted."""
        if not self.is_ours():
            log.warning("run %s was taken by another host", self.folder.id)
            self.active.stop_request = "leave"
            raise RunInterrupted

    def is_ours(self) -> bool:
        """Whether the run is still this process's to change."""
        try:
            return self.active.lease.is_ours()
        except OSError:
            return False

    def _written(self, event: dict[str, Any], durable: bool = True) -> dict[str, Any]:
        number = self.active.lease.number
        try:
            return self.folder.append(event, number, durable)
        except OSError as error:  # a full disk, or a folder that was removed: the training goes on
            log.warning("run %s: an event was not written: %s", self.folder.id, error)
            return self.folder.stamped(event, number)


def event_of(report: Report) -> dict[str, Any]:
    """A report as an event; what is no number any more is null, which JSON can hold."""
    figures = {
        "loss": report.loss, "similarity": report.similarity, "best_loss": report.best_loss, "best_similarity": report.best_similarity,
        "seconds": round(report.seconds, 3), "steps_per_second": round(report.steps_per_second, 1),
    }  # fmt: skip
    event: dict[str, Any] = {"event": "report", "step": report.step, "tokens": len(report.vectors), **numbers(figures)}
    if report.restarts:
        event["restarts"] = losses(report.restarts)
    return event


def event_of_made(made: SoftPrompt) -> dict[str, Any]:
    """The last report of a training, from what it came to."""
    figures = {
        "loss": float(made.losses[-1]), "similarity": float(made.similarities[-1]), "best_loss": made.loss or 0.0, "best_similarity": made.similarity or 0.0,
        "seconds": round(made.seconds, 3), "steps_per_second": round(made.steps_per_second, 1),
    }  # fmt: skip
    return {"event": "report", "step": made.steps, "tokens": made.tokens, **numbers(figures)}


def numbers(figures: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in figures.items()}


def losses(values: tuple[float, ...]) -> list[float | None]:
    return [float(f"{loss:.4g}") if math.isfinite(loss) else None for loss in values[:RESTARTS_TOLD]]
