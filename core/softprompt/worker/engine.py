"""The thread that owns torch: it trains one run at a time and answers questions between two steps.

It tells the main thread what happens through `post`, and reads what is wished of it from the training's `wish`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from softprompt.errors import EntryDamaged, SoftPromptError
from softprompt.files import replace_file
from softprompt.job import carry_out
from softprompt.library import Library
from softprompt.worker import queries
from softprompt.worker.leases import Lease
from softprompt.worker.protocol import Request
from softprompt.worker.runfolder import CHECKPOINT, Record, RunFolder

if TYPE_CHECKING:
    from softprompt.pool import TrainState
    from softprompt.prompt import SoftPrompt
    from softprompt.training import Report
    from softprompt.worker.warm import Warm

CHECKPOINT_EVERY = 5.0  # seconds; what a crash costs at most, twice over
REPORT_EVERY = 0.25  # seconds, where ten steps take longer
RESTARTS_TOLD = 16  # more curves in one plot tell nothing
QUERIES_A_STEP = 0.05  # seconds that questions may take of a training between two steps

log = logging.getLogger(__name__)
Wish = Literal["", "stop", "pause", "leave"]  # "leave": as it is, for the next worker


class Left(BaseException):
    """A training is left where it is; no Exception, so that nothing on the way takes it for a failure."""


class Superseded(SoftPromptError):
    """A question that a newer one of the same kind made pointless."""


class Busy(SoftPromptError):
    """A question about a model that would have to be loaded while another is training."""


@dataclass
class Training:
    """A run that is being trained, as both threads see it: the main thread sets the wish, the engine `vectors`."""

    record: Record
    folder: RunFolder
    lease: Lease
    wish: Wish = ""
    vectors: Any = None  # (k, w) the best so far, and the model they belong to
    target: Any = None  # (e,) what it is trained on, alone; made when it is first asked about


@dataclass
class Question:
    request: Request
    answer: Future[dict[str, Any]] = field(default_factory=Future)


class Engine(threading.Thread):
    """Trains and answers until `end` is called. `post(kind, run id, values)` is called from this thread."""

    def __init__(self, library: Library, post: Callable[[str, str, dict[str, Any]], None], release_after: float) -> None:
        super().__init__(name="engine", daemon=True)
        self.library = library
        self.post = post
        self.release_after = release_after
        self.training: Training | None = None  # given by the main thread, taken back by "ended"
        self.warm: Warm | None = None
        self._questions: dict[tuple[int, str], Question] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = False

    def begin(self, training: Training) -> None:
        """Gives it a run to train; there must be none under way."""
        self.training = training
        self._wake.set()

    def ask(self, client: int, request: Request) -> Future[dict[str, Any]]:
        """The answer to come; a client's older question of this kind that still waits gets Superseded."""
        question = Question(request)
        with self._lock:
            older = self._questions.pop((client, request.do), None)
            self._questions[client, request.do] = question
        if older is not None:
            older.answer.set_exception(Superseded("a newer question of this kind came"))
        self._wake.set()
        return question.answer

    def end(self) -> None:
        """Ends the thread; a training is to be told by its wish first."""
        self._ending = True
        self._wake.set()

    def run(self) -> None:
        import softprompt.trainer  # noqa: F401  # torch, 2-4 s, while the main thread answers already
        from softprompt.worker.warm import Warm

        self.warm = Warm()
        self.post("ready", "", {})
        used = time.monotonic()
        while not self._ending:
            woken = self._wake.wait(max(0.01, used + self.release_after - time.monotonic()))
            self._wake.clear()
            self._answer()
            if self.training is not None:
                self._train(self.training)
            elif not woken:
                self.warm.release()
            used = time.monotonic()

    # questions

    def _answer(self, at_most: float = float("inf")) -> None:
        began = time.monotonic()
        while time.monotonic() - began < at_most:
            with self._lock:
                key = next(iter(self._questions), None)
                if key is None:
                    return
                question = self._questions.pop(key)
            try:
                question.answer.set_result(queries.answer(question.request, self))
            except Exception as error:  # to whom asked; a question must not end the thread
                if not isinstance(error, SoftPromptError):
                    log.exception("a question failed: %s", question.request.do)
                question.answer.set_exception(error)

    # training

    def _train(self, training: Training) -> None:
        """Carries a run out, writes down what became of it, and posts "ended"."""
        folder = training.folder
        try:
            event = self._carried_out(training)
        except Left:
            event = {"event": "paused"} if training.wish == "pause" else {}
        except SoftPromptError as error:
            event = {"event": "failed", "error": str(error)}
        except Exception as error:  # whatever it is, the next run must train
            log.exception("run %s failed", folder.id)
            event = {"event": "failed", "error": f"{type(error).__name__}: {error}. The worker's log tells more"}
        if event:
            event = self._write_down(folder, event)
        if event.get("event") in ("done", "stopped"):
            folder.forget_progress()
        self.training = None
        lost = False
        if event.get("event") == "failed" and self.warm is not None:
            self.warm.release()  # out of memory: what is kept must not be the next run's trouble
            lost = not self.warm.device_works(training.record.job.device)
        self.post("ended", folder.id, {"event": event, "device_lost": lost})

    def _carried_out(self, training: Training) -> dict[str, Any]:
        assert self.warm is not None
        folder, job = training.folder, training.record.job
        state = self._checkpoint(folder)
        began = {"event": "began", "step": state.step if state else 0, "tokens": state.tokens if state else 0}
        self.post("event", folder.id, self._write_down(folder, began))

        def loading(here: int, size: int) -> None:
            self._answer(QUERIES_A_STEP)
            self.post("loading", folder.id, {"bytes": here, "of": size})
            if training.wish:
                raise Left

        encoder = self.warm.get(job.model, job.device, job.precision, loading)
        reported = saved = time.monotonic()
        latest: dict[str, Any] = {}

        def due(step: int) -> bool:
            self._answer(QUERIES_A_STEP)
            return step % 10 == 0 or bool(training.wish) or time.monotonic() - reported >= REPORT_EVERY

        def on_report(report: Report) -> bool:
            nonlocal reported, saved, latest
            reported = time.monotonic()
            training.vectors = (encoder, report.vectors)
            latest = event_of(report)
            self.post("event", folder.id, self._write_down(folder, latest, durable=False))
            if training.wish in ("pause", "leave") or reported - saved >= CHECKPOINT_EVERY:
                self._save(training, report)
                saved = time.monotonic()
            if training.wish in ("pause", "leave"):
                raise Left
            return training.wish == "stop"

        outcome = carry_out(
            job,
            encoder,
            self.library,
            start=_start(folder),
            entry_id=folder.id,
            interval=due,
            resume=state,
            on_report=on_report,
        )
        ended: dict[str, Any] = {"event": "failed" if outcome.failure else "done", "error": outcome.failure}
        if outcome.entry is not None:
            made = outcome.entry.prompt
            if made.stopped == "interrupted" and not outcome.failure:
                ended["event"] = "stopped"
            ended |= {"entry": outcome.entry.id, "name": made.name, "similarity": made.similarity}
        return ended | {"latest": latest, "began": training.record.began}  # all that is shown of a run stands in its last event

    def _checkpoint(self, folder: RunFolder) -> TrainState | None:
        """Where the run can go on; None for the beginning, which comes to the same bits."""
        from softprompt.worker.checkpoint import from_bytes

        try:
            return from_bytes(folder.bytes_of(CHECKPOINT), str(folder.path / CHECKPOINT))
        except FileNotFoundError:
            return None
        except (OSError, EntryDamaged) as error:
            log.warning("run %s begins anew: %s", folder.id, error)
            return None

    def _save(self, training: Training, report: Report) -> None:
        """Writes a checkpoint; leaves the run where another process has taken it."""
        from softprompt.worker.checkpoint import to_bytes

        try:
            if not training.lease.is_ours():
                log.warning("run %s was taken by another host", training.folder.id)
                training.wish = "leave"
                raise Left
            replace_file(training.folder.path / CHECKPOINT, to_bytes(report.state()))
        except OSError as error:  # a full disk: the training goes on, and the next checkpoint is another file
            log.warning("run %s: no checkpoint: %s", training.folder.id, error)

    def _write_down(self, folder: RunFolder, event: dict[str, Any], durable: bool = True) -> dict[str, Any]:
        try:
            return folder.append(event, durable)
        except OSError as error:  # a full disk, or a folder that was removed: the training goes on
            log.warning("run %s: an event was not written: %s", folder.id, error)
            return folder.stamped(event)


def event_of(report: Report) -> dict[str, Any]:
    """A report as an event; what is no number any more is null, which JSON can hold."""
    figures = {
        "loss": report.loss, "similarity": report.similarity, "best_loss": report.best_loss, "best_similarity": report.best_similarity,
        "seconds": round(report.seconds, 3), "steps_per_second": round(report.steps_per_second, 1),
    }  # fmt: skip
    numbers = {key: value if math.isfinite(value) else None for key, value in figures.items()}
    event: dict[str, Any] = {"event": "report", "step": report.step, "tokens": len(report.vectors), **numbers}
    if report.restarts:
        event["restarts"] = [float(f"{loss:.4g}") if math.isfinite(loss) else None for loss in report.restarts[:RESTARTS_TOLD]]
    return event


def _start(folder: RunFolder) -> SoftPrompt | None:
    from softprompt.library.entry import unpack

    raw = folder.start()
    return unpack(raw, str(folder.path)).prompt if raw else None
