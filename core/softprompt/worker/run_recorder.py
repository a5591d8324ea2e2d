"""Record an active run: write and report its events, save checkpoints, and obey stop requests."""

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
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.loop import Report
    from softprompt.training.model_kinds import Model
    from softprompt.training.task import TrainingState

CHECKPOINT_SECONDS = 5.0  # a crash loses at most twice this much work
REPORT_SECONDS = 0.25  # how often to report if ten steps take longer than this
MAX_RESTARTS_REPORTED = 16  # a plot with more curves is unreadable

log = logging.getLogger(__name__)


class RunRecorder:
    """Records one run, from `begin` to `end`."""

    def __init__(self, services: Services, active: ActiveRun) -> None:
        self.services, self.active = services, active
        self.folder, self.job = active.folder, active.run.job
        self.latest = dict(active.run.latest)
        self.began = active.run.began
        self.state: TrainingState | None = None  # the checkpoint that the run resumed from
        self._final_state: Callable[[], TrainingState] | None = None
        self.last_report = self.last_save = time.monotonic()

    def begin(self) -> TrainingState | None:
        """Record the start and return the state to resume from, or None to start over."""
        try:
            self.state = from_bytes(self.folder.read_bytes(CHECKPOINT), str(self.folder.path / CHECKPOINT))
        except FileNotFoundError:
            pass
        except (OSError, EntryDamaged) as error:
            log.warning("run %s starts over: %s", self.folder.id, error)
        step, tokens = (self.state.step, self.state.tokens) if self.state else (0, 0)
        event = self.record_event({"event": "began", "step": step, "tokens": tokens}, durable=True)
        self.began = self.began or event["at"]
        return self.state

    def is_report_due(self, step: int) -> bool:
        return step % 10 == 0 or bool(self.active.stop_request) or time.monotonic() - self.last_report >= REPORT_SECONDS

    def must_leave(self) -> bool:
        """Return whether to pause or leave, or to stop although there is nothing to save."""
        request = self.active.stop_request
        has_progress = self.state is not None or self._final_state is not None
        return request in ("pause", "leave") or (request == "stop" and not has_progress)

    def report(self, encoder: Model, report: Report) -> bool:
        """Record a report, save a checkpoint if it is due, and return whether to stop and save the result.

        Raises:
            RunInterrupted: the user paused the run, or the worker is ending.
        """
        self.active.vectors = (encoder, report.vectors)
        self.record_report(event_from_report(report))
        self._final_state = report.state
        request = self.active.stop_request
        if request in ("pause", "leave") or self.last_report - self.last_save >= CHECKPOINT_SECONDS:
            self._write_checkpoint(report.state)
            self.last_save = time.monotonic()
        self.interrupt_if_requested()
        return request == "stop"

    def record_report(self, event: dict[str, Any]) -> None:
        """Record a report without syncing it to disk. A crash may lose it."""
        self.last_report = time.monotonic()
        self.latest = event
        self.record_event(event, durable=False)

    def save_final_state(self) -> None:
        """Save a checkpoint at the end of training, so that a restarted run resumes with the hard readout."""
        if self._final_state is not None:
            self._write_checkpoint(self._final_state)
            self._final_state = None

    def interrupt_if_requested(self) -> None:
        if self.active.stop_request in ("pause", "leave"):
            raise RunInterrupted

    def record_event(self, event: dict[str, Any], durable: bool) -> dict[str, Any]:
        event = self._append(event, durable)
        self.services.post("event", self.folder.id, event)
        return event

    def end(self, event: dict[str, Any]) -> None:
        """Record the run's last event. If `event` is empty, leave the run to the next worker."""
        if event:
            event = self._append(event)
        if event.get("event") in ("done", "stopped") and self.holds_lease():
            self.folder.remove_progress()
        self.services.finish(self.active, event)

    def leave(self) -> None:
        """End the run without a result: pause it, stop it if it has no progress, or leave it to the next worker."""
        states = {"pause": "paused"} | ({} if self.state else {"stop": "stopped"})
        state = states.get(self.active.stop_request)
        self.end({"event": state} if state else {})

    def end_with_outcome(self, outcome: Outcome) -> None:
        """End the run with the outcome of its job. The last event contains everything that clients show."""
        ended: dict[str, Any] = {"event": "failed" if outcome.failure else "done", "error": outcome.failure}
        if outcome.failure:
            ended["error_kind"] = outcome.failure_kind
        if outcome.entry is not None:
            prompt = outcome.entry.prompt
            if prompt.stopped == "interrupted" and not outcome.failure and self.job.kind == "train":
                ended["event"] = "stopped"
            ended |= {"entry": outcome.entry.id, "name": prompt.name, "similarity": prompt.similarity}
        self.end(ended | {"latest": self.latest, "began": self.began})

    def _write_checkpoint(self, state: Callable[[], TrainingState]) -> None:
        """Write a checkpoint. Raises RunInterrupted if another process has taken over the run."""
        try:
            self.interrupt_if_lost()
            replace_file(self.folder.path / CHECKPOINT, to_bytes(state()))
        except OSError as error:  # such as a full disk: training continues, and the next checkpoint may succeed
            log.warning("run %s: cannot write a checkpoint: %s", self.folder.id, error)

    def interrupt_if_lost(self) -> None:
        """Raise RunInterrupted if another process has taken over the run."""
        if not self.holds_lease():
            log.warning("run %s was taken over by another host", self.folder.id)
            self.active.stop_request = "leave"
            raise RunInterrupted

    def holds_lease(self) -> bool:
        """Return whether this process still owns the run."""
        try:
            return self.active.lease.is_current()
        except OSError:
            return False

    def _append(self, event: dict[str, Any], durable: bool = True) -> dict[str, Any]:
        number = self.active.lease.number
        try:
            return self.folder.append(event, number, durable)
        except OSError as error:  # such as a full disk or a deleted folder: training continues
            log.warning("run %s: cannot write an event: %s", self.folder.id, error)
            return self.folder.stamp(event, number)


def event_from_report(report: Report) -> dict[str, Any]:
    """Convert a report to an event. NaN and infinity become null, because JSON has neither."""
    figures = {
        "loss": report.loss, "similarity": report.similarity,
        "best_loss": report.best_loss, "best_similarity": report.best_similarity,
        "seconds": round(report.seconds, 3), "steps_per_second": round(report.steps_per_second, 1),
    }  # fmt: skip
    event: dict[str, Any] = {
        "event": "report", "step": report.step, "tokens": len(report.vectors), **finite_or_none(figures)
    }  # fmt: skip
    if report.restarts:
        event["restarts"] = round_losses(report.restarts)
    return event


def event_from_prompt(prompt: SoftPrompt) -> dict[str, Any]:
    """Return the last report of a training run as an event, derived from the run's result."""
    figures = {
        "loss": float(prompt.losses[-1]), "similarity": float(prompt.similarities[-1]),
        "best_loss": prompt.loss or 0.0, "best_similarity": prompt.similarity or 0.0,
        "seconds": round(prompt.seconds, 3), "steps_per_second": round(prompt.steps_per_second, 1),
    }  # fmt: skip
    return {"event": "report", "step": prompt.steps, "tokens": prompt.tokens, **finite_or_none(figures)}


def finite_or_none(figures: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in figures.items()}


def round_losses(values: tuple[float, ...]) -> list[float | None]:
    return [float(f"{loss:.4g}") if math.isfinite(loss) else None for loss in values[:MAX_RESTARTS_REPORTED]]
