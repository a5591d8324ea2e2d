"""Carrying out runs, each in its kind: one training, several in one batch, a sweep, a hard readout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from softprompt.errors import SoftPromptError
from softprompt.jobs.execute import run_job, save_result
from softprompt.jobs.job import HardReadoutJob, SweepJob, TrainJob
from softprompt.library.entry import Entry, pack, unpack
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.system.files import replace_file
from softprompt.system.generators import drive
from softprompt.training.batch import TrainingBatch
from softprompt.training.errors import TrainingFailed
from softprompt.training.init import as_start_tensor
from softprompt.training.loop import report_of
from softprompt.training.task import TrainingTask
from softprompt.training.token_sweep import SweepReport, results
from softprompt.training.trainer import sweep, train_many
from softprompt.worker.active_run import QUERIES_A_STEP, ActiveRun, RunInterrupted, Services
from softprompt.worker.run_folder import swept_file
from softprompt.worker.run_recorder import RunRecorder, event_of_made, losses, numbers

if TYPE_CHECKING:
    from softprompt.discrete import HardReport
    from softprompt.encoders.clip.text_encoder import TextEncoder

log = logging.getLogger(__name__)


class RunExecutor:
    """Carries out runs that were given to the trainer; several are trainings that can share a batch."""

    def __init__(self, services: Services, runs: list[ActiveRun]) -> None:
        self.services = services
        self.runs = [RunRecorder(services, active) for active in runs]

    def run(self) -> None:
        """Returns when none of them is under way any more."""
        try:
            if len(self.runs) > 1:
                self._together()
            else:
                run = self.runs[0]
                self._sweep(run, run.job) if isinstance(run.job, SweepJob) else self._train(run, run.job)
        except RunInterrupted:
            self._end_all(RunRecorder.leave)
        except SoftPromptError as error:
            failed = {"event": "failed", "error": str(error)}
            self._end_all(lambda run: run.end(failed))
        except Exception as error:  # whatever it is, the next run must train
            log.exception("run %s failed", " ".join(run.folder.id for run in self.runs))
            failed = {"event": "failed", "error": f"{type(error).__name__}: {error}. The worker's log tells more"}
            self._end_all(lambda run: run.end(failed))

    def _end_all(self, end: Callable[[RunRecorder], None]) -> None:
        """Ends those that are still under way."""
        for run in self.runs:
            if run.folder.id in self.services.active:
                end(run)

    def _encoder(self) -> TextEncoder:
        """The model that they are on, which may have to be fetched first. Raises RunInterrupted where one of them is not to go on."""
        job = self.runs[0].job

        def loading(here: int, size: int) -> None:
            self.services.answer(QUERIES_A_STEP)
            for run in self.runs:
                self.services.post("loading", run.folder.id, {"bytes": here, "of": size})
            requests = [(run.active.stop_request, run.state) for run in self.runs]
            if any(
                request in ("pause", "leave") or (request == "stop" and state is None) for request, state in requests
            ):
                raise RunInterrupted  # who has come somewhere needs the model to save it, also when it is to stop

        assert self.services.models is not None
        return self.services.models.get(job.model, job.device, job.precision, loading)

    def _train(self, run: RunRecorder, job: TrainJob | HardReadoutJob) -> None:
        """A training, a hard readout, or the one and then the other."""
        state = run.begin()
        encoder = self._encoder()
        trained = job.config.steps if isinstance(job, TrainJob) else 0

        def due(step: int) -> bool:
            self.services.answer(QUERIES_A_STEP)
            return run.is_due(step)

        def hard(report: HardReport) -> bool:
            run.is_trained()
            self.services.answer(QUERIES_A_STEP)
            run.heed(event_of_hard(report, run.latest, trained))
            run.leave_if_asked()
            return run.active.stop_request == "stop"

        outcome = run_job(
            job,
            encoder,
            self.services.library,
            start=_start(run),
            entry_id=run.folder.id,
            interval=due,
            resume=state,
            on_report=lambda report: run.report(encoder, report),
            on_hard=hard,
        )
        run.end_with(outcome)

    def _together(self) -> None:
        states = {run.folder.id: run.begin() for run in self.runs}
        encoder = self._encoder()
        by_key = {run.folder.id: run for run in self.runs}

        def tasks() -> Iterator[TrainingTask]:
            for run in self.runs:
                key = run.folder.id
                try:
                    start = as_start_tensor(encoder, _start(run))
                except SoftPromptError as error:  # the others have nothing to do with it
                    run.end({"event": "failed", "error": str(error)})
                    continue
                yield TrainingTask(run.job.prompt, run.job.config, run.job.meanings, start, states[key], key)

        def on_step(pool: TrainingBatch) -> None:
            self.services.answer(QUERIES_A_STEP)
            due = [member for member in pool.slots if by_key[member.key].is_due(member.step)]
            if not due:
                return
            pool.sync(due)
            left = []
            for member in due:
                try:
                    if by_key[member.key].report(encoder, report_of(pool, member)):
                        member.stopped = "interrupted"
                except RunInterrupted:
                    left.append(member)
            pool.remove(left)
            for member in left:
                by_key[member.key].leave()

        rows = sum(run.job.config.restarts for run in self.runs)
        for task, made in train_many(encoder, tasks(), places=rows, on_step=on_step):
            try:
                self._end(by_key[task.key], made)
            except SoftPromptError as error:  # it cannot be saved
                by_key[task.key].end({"event": "failed", "error": str(error)})

    def _end(self, run: RunRecorder, made: SoftPrompt | SoftPromptError) -> None:
        """Saves what one of several came to."""
        failure = str(made) if isinstance(made, SoftPromptError) else ""
        best = made.best if isinstance(made, TrainingFailed) else None if isinstance(made, SoftPromptError) else made
        if best is None:
            run.end({"event": "failed", "error": failure})
            return
        assert isinstance(run.job, TrainJob)  # nothing else shares a batch
        outcome = save_result(run.job, best, self.services.library, run.folder.id, failure)
        if len(best.losses):
            run.heed(event_of_made(best))
        run.end_with(outcome)

    def _sweep(self, run: RunRecorder, job: SweepJob) -> None:
        """What it comes to stays with the run, until it is said which of it is to be kept."""
        run.begin()
        encoder = self._encoder()

        def due(step: int) -> bool:
            self.services.answer(QUERIES_A_STEP)
            return run.is_due(step)

        def report(report: SweepReport) -> bool:
            run.heed(event_of_sweep(report))
            run.leave_if_asked()
            return run.active.stop_request == "stop"

        made = drive(sweep(encoder, job.prompt, job.sweep, job.config, meanings=job.meanings, interval=due), report)
        run.leave_if_lost()
        for one in made:
            replace_file(run.folder.path / swept_file(one.tokens), pack(Entry("0" * 16, 1, one)))
        ended = "stopped" if any(one.stopped == "interrupted" for one in made) else "done"
        run.end(
            {
                "event": ended,
                "results": [asdict(result) for result in results(made)],
                "latest": run.latest,
                "began": run.began,
            }
        )


def event_of_hard(report: HardReport, latest: dict[str, Any], trained: int) -> dict[str, Any]:
    """A report as an event; of a training that is over by then, its own figures stay beside the text that is looked for."""
    found = {
        "text": report.text,
        "hard_similarity": report.similarity if report.text else None,
        "hard_step": report.step,
        "hard_steps": report.steps,
    }
    if trained:
        return {**latest, "event": "report", **found}
    speed = report.step / report.seconds if report.seconds else 0.0
    figures = {
        "loss": 1 - report.similarity,
        "similarity": report.similarity,
        "best_loss": 1 - report.similarity,
        "best_similarity": report.similarity,
    }
    told = {
        "event": "report",
        "step": report.step,
        "steps": report.steps,
        "tokens": 0,
        "seconds": round(report.seconds, 3),
    }
    return {**told, "steps_per_second": round(speed, 1), **numbers(figures), **found}


def event_of_sweep(report: SweepReport) -> dict[str, Any]:
    """A report as an event: the loss and similarity of the most tokens, and of all of them."""
    tokens, similarity, _ = report.results[-1]
    figures = {
        "loss": report.losses[-1], "similarity": similarity, "best_loss": report.losses[-1], "best_similarity": similarity,
        "seconds": round(report.seconds, 3), "steps_per_second": round(report.steps_per_second, 1),
    }  # fmt: skip
    rows = [
        [k, *numbers({"similarity": alone, "composed": composed}).values()] for k, alone, composed in report.results
    ]
    event: dict[str, Any] = {"event": "report", "step": report.step, "tokens": tokens, **numbers(figures)}
    return event | {"restarts": losses(report.losses), "sweep": rows}


def _start(run: RunRecorder) -> SoftPrompt | None:
    raw = run.folder.start()
    return unpack(raw, str(run.folder.path)).prompt if raw else None
