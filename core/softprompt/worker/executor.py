"""Execute runs of every kind: training (one run, or several in a batch), sweeps and hard readouts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from softprompt.errors import SoftPromptError
from softprompt.jobs.execute import run_job, save_result
from softprompt.jobs.job import HardReadoutJob, SweepJob, TrainJob
from softprompt.library.entry import Entry, pack, unpack
from softprompt.objectives.workspace import Workspace
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.system.files import replace_file
from softprompt.system.generators import drive
from softprompt.training.batch import TrainingBatch
from softprompt.training.errors import TrainingFailed
from softprompt.training.init import as_start_tensor
from softprompt.training.loop import build_report
from softprompt.training.task import TrainingTask
from softprompt.training.token_sweep import SweepReport, sweep_results
from softprompt.training.trainer import sweep, train_many
from softprompt.worker.active_run import QUERY_SECONDS_PER_STEP, ActiveRun, RunInterrupted, Services
from softprompt.worker.run_folder import RunFolder, sweep_file_name
from softprompt.worker.run_recorder import RunRecorder, event_from_prompt, finite_or_none, round_losses

if TYPE_CHECKING:
    from softprompt.discrete import HardReport
    from softprompt.training.model_kinds import Model

SILENT_SECONDS = 5  # a download that has received nothing for this long says so
log = logging.getLogger(__name__)


class RunExecutor:
    """Executes one run of any kind, or several training runs in one batch."""

    def __init__(self, services: Services, runs: list[ActiveRun]) -> None:
        self.services = services
        self.runs = [RunRecorder(services, active) for active in runs]

    def run(self) -> None:
        """Execute the runs. None of them is active on return."""
        try:
            if len(self.runs) > 1:
                self._train_batch()
            else:
                run = self.runs[0]
                self._run_sweep(run, run.job) if isinstance(run.job, SweepJob) else self._train(run, run.job)
        except RunInterrupted:
            self._end_all(RunRecorder.leave)
        except SoftPromptError as error:
            failed = failed_event(error)
            self._end_all(lambda run: run.end(failed))
        except Exception as error:  # a failed run must not prevent the next one
            log.exception("run %s failed", " ".join(run.folder.id for run in self.runs))
            failed = failed_event(error, f"{type(error).__name__}: {error}. See the worker's log.")
            self._end_all(lambda run: run.end(failed))

    def _end_all(self, end: Callable[[RunRecorder], None]) -> None:
        """End the runs that are still active."""
        for run in self.runs:
            if run.folder.id in self.services.active:
                end(run)

    def post_stage(self, stage: str) -> None:
        """Show what the runs are doing besides training, and answer queries meanwhile.

        Raises:
            RunInterrupted: a run is to pause or leave, or to stop although it has no progress.
        """
        self.services.answer_queries(QUERY_SECONDS_PER_STEP)
        self._post_stage(stage)
        if any(run.must_leave() for run in self.runs):
            raise RunInterrupted

    def _load_encoder(self) -> Model:
        """Return the model that the runs share, downloading it if necessary.

        Raises:
            RunInterrupted: one of the runs was interrupted during the download.
        """
        job = self.runs[0].job
        last_loaded, heard_at = -1, time.monotonic()

        def on_progress(loaded: int, size: int) -> None:
            nonlocal last_loaded, heard_at
            self.services.answer_queries(QUERY_SECONDS_PER_STEP)
            if loaded != last_loaded:
                last_loaded, heard_at = loaded, time.monotonic()
            silence = int(time.monotonic() - heard_at)
            stage = "downloading the weights" if size else "waiting for the hub"
            self._post_stage(f"no bytes for {silence} s" if silence >= SILENT_SECONDS else stage, loaded, size)
            if any(run.must_leave() for run in self.runs):
                raise RunInterrupted  # a run with progress is stopped later: saving its result needs the model

        assert self.services.models is not None
        encoder = self.services.models.get(job.model, job.device, job.precision, on_progress, self._post_stage)
        if encoder.kind == "text":
            self._post_stage("encoding the prompt and its contexts")
        return encoder

    def _post_stage(self, stage: str, loaded: int = 0, size: int = 0) -> None:
        for run in self.runs:
            self.services.post("loading", run.folder.id, {"stage": stage, "bytes": loaded, "of": size})

    def _train(self, run: RunRecorder, job: TrainJob | HardReadoutJob) -> None:
        """Train a soft prompt, search for a hard readout, or do both in that order."""
        state = run.begin()
        encoder = self._load_encoder()
        training_steps = job.config.steps if isinstance(job, TrainJob) else 0

        def is_due(step: int) -> bool:
            self.services.answer_queries(QUERY_SECONDS_PER_STEP)
            return run.is_report_due(step)

        def on_hard(report: HardReport) -> bool:
            run.save_final_state()
            self.services.answer_queries(QUERY_SECONDS_PER_STEP)
            run.record_report(event_from_hard_report(report, run.latest, training_steps))
            run.interrupt_if_requested()
            return run.active.stop_request == "stop"

        outcome = run_job(
            job,
            encoder,
            self.services.library,
            start=_read_start(run),
            entry_id=run.folder.id,
            interval=is_due,
            resume=state,
            on_report=lambda report: run.report(encoder, report),
            on_hard=on_hard,
            workspace=RunWorkspace(self),
        )
        run.end_with_outcome(outcome)

    def _train_batch(self) -> None:
        states = {run.folder.id: run.begin() for run in self.runs}
        encoder = self._load_encoder()
        run_by_key = {run.folder.id: run for run in self.runs}

        def tasks() -> Iterator[TrainingTask]:
            for run in self.runs:
                key = run.folder.id
                try:
                    start = as_start_tensor(encoder, _read_start(run))
                except SoftPromptError as error:  # only this run fails
                    run.end(failed_event(error))
                    continue
                yield TrainingTask(run.job.prompt, run.job.config, run.job.meanings, start, states[key], key)

        def on_step(batch: TrainingBatch) -> None:
            self.services.answer_queries(QUERY_SECONDS_PER_STEP)
            due = [slot for slot in batch.slots if run_by_key[slot.key].is_report_due(slot.step)]
            if not due:
                return
            batch.sync(due)
            interrupted = []
            for slot in due:
                try:
                    if run_by_key[slot.key].report(encoder, build_report(batch, slot)):
                        slot.stopped = "interrupted"
                except RunInterrupted:
                    interrupted.append(slot)
            batch.remove(interrupted)
            for slot in interrupted:
                run_by_key[slot.key].leave()

        rows = sum(run.job.config.restarts for run in self.runs)
        workspace = RunWorkspace(self)
        for task, result in train_many(encoder, tasks(), row_limit=rows, on_step=on_step, workspace=workspace):
            try:
                self._save(run_by_key[task.key], result)
            except SoftPromptError as error:
                run_by_key[task.key].end(failed_event(error))

    def _save(self, run: RunRecorder, result: SoftPrompt | SoftPromptError) -> None:
        """Save the result of one slot of a batch, and end its run."""
        failure, kind = (str(result), type(result).__name__) if isinstance(result, SoftPromptError) else ("", "")
        best = (
            result.best
            if isinstance(result, TrainingFailed)
            else None
            if isinstance(result, SoftPromptError)
            else result
        )
        if best is None:
            run.end({"event": "failed", "error": failure, "error_kind": kind})
            return
        assert isinstance(run.job, TrainJob)  # only training jobs share a batch
        outcome = save_result(run.job, best, self.services.library, run.folder.id, failure, kind)
        if len(best.losses):
            run.record_report(event_from_prompt(best))
        run.end_with_outcome(outcome)

    def _run_sweep(self, run: RunRecorder, job: SweepJob) -> None:
        """Run a token sweep. The results stay in the run's folder until the user chooses which to save."""
        run.begin()
        encoder = self._load_encoder()

        def is_due(step: int) -> bool:
            self.services.answer_queries(QUERY_SECONDS_PER_STEP)
            return run.is_report_due(step)

        def on_report(report: SweepReport) -> bool:
            run.record_report(event_from_sweep_report(report))
            run.interrupt_if_requested()
            return run.active.stop_request == "stop"

        training = sweep(
            encoder, job.prompt, job.sweep, job.config, meanings=job.meanings, interval=is_due,
            workspace=RunWorkspace(self),
        )  # fmt: skip
        prompts = drive(training, on_report)
        run.interrupt_if_lost()
        for prompt in prompts:
            replace_file(run.folder.path / sweep_file_name(prompt.tokens), pack(Entry("0" * 16, 1, prompt)))
        event = "stopped" if any(prompt.stopped == "interrupted" for prompt in prompts) else "done"
        run.end(
            {
                "event": event,
                "results": [asdict(result) for result in sweep_results(prompts)],
                "latest": run.latest,
                "began": run.began,
            }
        )


class RunWorkspace(Workspace):
    """Keeps what an objective computes in the folder of each run. A run that trains alone has the key ""."""

    def __init__(self, executor: RunExecutor) -> None:
        self._executor = executor

    def read(self, run: str, name: str) -> bytes | None:
        try:
            return self._folder(run).read_target(name)
        except OSError:  # there is none, or it cannot be read: it is computed again
            return None

    def write(self, run: str, name: str, data: bytes) -> None:
        try:
            self._folder(run).write_target(name, data)
        except OSError as error:  # such as a full disk: training continues
            log.warning("run %s: cannot keep the answers: %s", run, error)

    def post_stage(self, stage: str) -> None:
        self._executor.post_stage(stage)

    def _folder(self, run: str) -> RunFolder:
        folders = [recorder.folder for recorder in self._executor.runs]
        return next((folder for folder in folders if folder.id == run), folders[0])


def failed_event(error: Exception, message: str = "") -> dict[str, Any]:
    """Return the event of a run that ends with this error. Clients choose their advice by its type."""
    return {"event": "failed", "error": message or str(error), "error_kind": type(error).__name__}


def event_from_hard_report(report: HardReport, latest: dict[str, Any], training_steps: int) -> dict[str, Any]:
    """Convert a hard readout's report to an event. If training came first, include its latest figures."""
    search = {
        "text": report.text,
        "hard_similarity": report.similarity if report.text else None,
        "hard_step": report.step,
        "hard_steps": report.steps,
    }
    if training_steps:
        return {**latest, "event": "report", **search}
    speed = report.step / report.seconds if report.seconds else 0.0
    figures = {
        "loss": 1 - report.similarity,
        "similarity": report.similarity,
        "best_loss": 1 - report.similarity,
        "best_similarity": report.similarity,
    }
    progress = {
        "event": "report",
        "step": report.step,
        "steps": report.steps,
        "tokens": 0,
        "seconds": round(report.seconds, 3),
    }
    return {**progress, "steps_per_second": round(speed, 1), **finite_or_none(figures), **search}


def event_from_sweep_report(report: SweepReport) -> dict[str, Any]:
    """Convert a sweep's report to an event with the figures of the largest token count and a row per count."""
    tokens, similarity, _ = report.results[-1]
    figures = {
        "loss": report.losses[-1], "similarity": similarity,
        "best_loss": report.losses[-1], "best_similarity": similarity,
        "seconds": round(report.seconds, 3), "steps_per_second": round(report.steps_per_second, 1),
    }  # fmt: skip
    rows = [
        [k, *finite_or_none({"similarity": alone, "composed": composed}).values()]
        for k, alone, composed in report.results
    ]
    event: dict[str, Any] = {"event": "report", "step": report.step, "tokens": tokens, **finite_or_none(figures)}
    return event | {"restarts": round_losses(report.losses), "sweep": rows}


def _read_start(run: RunRecorder) -> SoftPrompt | None:
    raw = run.folder.read_start()
    return unpack(raw, str(run.folder.path)).prompt if raw else None
