"""Train a batch on this machine."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from softprompt.batches.checkpoints import BatchCheckpoint
from softprompt.batches.output import OutputFile
from softprompt.batches.results import BatchProgress, Result, State
from softprompt.batches.spool import BatchRequest, Spool
from softprompt.errors import EntryDamaged, HomeError, LibraryError, SoftPromptError
from softprompt.library import Library
from softprompt.library.names import name_from_prompt

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.batch import TrainingBatch
    from softprompt.training.model_kinds import Model
    from softprompt.training.task import TrainingState, TrainingTask

# checkpoint intervals: short at first, so that even a batch that is killed often makes progress
FIRST_CHECKPOINT_SECONDS, CHECKPOINT_SECONDS = 1.0, 10.0
MAX_CHECKPOINT_SHARE = 0.05  # maximum share of the running time
REPORT_SECONDS = 0.1
Load = Callable[[str, str, str], "Model"]
log = logging.getLogger(__name__)


class BatchRunner:
    """Runs a batch once: first yields the existing results, then trains the other prompts."""

    def __init__(
        self,
        spool: Spool,
        library: Library,
        checkpoint: BatchCheckpoint,
        output: OutputFile | None,
        on_progress: Callable[[BatchProgress], bool | None],
        load: Load,
    ) -> None:
        self.spool = spool
        self.library = library
        self.snapshot = library.snapshot()
        self.checkpoint = checkpoint
        self.output = output
        self.on_progress = on_progress
        self.load = load
        self.progress = BatchProgress(len(spool))
        self.unclaimed_states: dict[str, bytes] = {}  # states from an earlier run that have not been resumed yet
        self.latest_states: dict[
            str, bytes
        ] = {}  # the latest known states of unfinished prompts, whether training or waiting for rows
        self.resumed_at: dict[str, int] = {}  # the steps at which prompts from an earlier run resumed
        self.is_stopped = False
        self.started_at = self.reported_at = self.saved_at = time.monotonic()
        self.checkpoint_after = FIRST_CHECKPOINT_SECONDS

    def results(self, row_limit: int | None) -> Iterator[Result]:
        pending: dict[int, array[int]] = {}
        for index, group_number in enumerate(self.spool.group_numbers):
            result = self._existing_result(index, group_number)
            if result is not None:
                yield self._record(result)
            elif group_number >= 0 and not self._is_written(index):
                pending.setdefault(group_number, array("L")).append(index)
            if self.is_stopped or self._report_progress():
                return
        if pending:
            self.unclaimed_states = self.checkpoint.read()
            yield from self._train_groups(pending, row_limit)
        if self.progress.done == self.progress.total:  # not stopped early
            self.checkpoint.delete()
        if self.output:
            self.output.sync()
        self._report_progress(now=True)

    def _is_written(self, index: int) -> bool:
        return self.output is not None and self.spool.ids[index] in self.output.ids

    def _existing_result(self, index: int, group_number: int) -> Result | None:
        """Return a row's result without training, or None if it needs training or its result is already written."""
        if group_number < 0:
            request = self.spool[index]
            return Result(request.line, "failed", request.prompt, error=request.error)
        if self._is_written(index):
            self.progress.done += 1
            self.progress.before += 1
            return None
        if not self.snapshot.has(f"{self.spool.ids[index]:016x}"):
            return None
        request = self.spool[index]
        return self._result_from_library(request)

    def _result_from_library(self, request: BatchRequest) -> Result | None:
        entry, state = self.snapshot.read(request.id)
        if entry is None:  # purged or without an intact revision: train it again
            return None
        return Result.from_entry(request.line, "trashed" if state == "trashed" else "before", request.prompt, entry)

    def _train_groups(self, pending: dict[int, array[int]], row_limit: int | None) -> Iterator[Result]:
        """Train the pending rows one group at a time. Each model is loaded only once."""
        from softprompt.batches.sequential import train_sequentially
        from softprompt.training.trainer import train_many

        groups: dict[str, list[array[int]]] = {}
        for group_number, indices in pending.items():
            groups.setdefault(self.spool.groups[group_number].model, []).append(indices)
        for model, index_lists in groups.items():
            self.progress.phase, self.progress.model = "loading", model
            self._report_progress(now=True)
            try:
                encoder = self.load(model, self.spool.defaults.device, self.spool.defaults.precision)
            except SoftPromptError as error:
                if model == self.spool.defaults.model:
                    raise
                yield from map(
                    self._record,
                    (self._failed_result(self.spool[i], error) for indices in index_lists for i in indices),
                )
                continue
            self.progress.phase = "training"
            if not self.progress.trained:
                self.started_at = time.monotonic()
            for group_rows in index_lists:
                requests: dict[str, BatchRequest] = {}
                job = self.spool[group_rows[0]].job
                train = train_sequentially if job and job.config.tokens == "auto" else train_many
                tasks = self._iter_tasks(group_rows, encoder, requests)
                for task, outcome in train(encoder, tasks, row_limit=row_limit, on_step=self._on_step):
                    yield self._record(self._save_outcome(requests.pop(task.key), outcome))
                if self.is_stopped:
                    return
            del encoder

    def _iter_tasks(
        self, indices: array[int], encoder: Model, requests: dict[str, BatchRequest]
    ) -> Iterator[TrainingTask]:
        """Yield the tasks for these rows on demand, starting with those that have a saved state.

        Adds each request to `requests`.
        """
        from softprompt.training.task import TrainingTask

        resumable = {int(key, 16) for key in self.unclaimed_states}
        order = sorted(indices, key=lambda index: (self.spool.ids[index] not in resumable, index))
        for index in order:
            request = self.spool[index]
            assert request.job is not None
            requests[request.id] = request
            state = self.unclaimed_states.pop(request.id, None)
            resume = None if state is None else _parse_state(state, encoder)
            if state is not None and resume is not None:
                self.latest_states[request.id], self.resumed_at[request.id] = state, resume.step
                self.progress.resumed += 1
            yield TrainingTask(request.job.prompt, request.job.config, resume=resume, key=request.id)

    def _save_outcome(self, request: BatchRequest, outcome: SoftPrompt | SoftPromptError) -> Result:
        if isinstance(outcome, SoftPromptError):
            return self._failed_result(request, outcome)
        try:
            entry, state = self._save(request, outcome)
        except HomeError:  # the library is no longer writable
            raise
        except LibraryError as error:
            return self._failed_result(request, error)
        self.progress.trained += 1
        return Result.from_entry(request.line, state, request.prompt, entry)

    def _save(self, request: BatchRequest, prompt: SoftPrompt) -> tuple[Entry, State]:
        from softprompt.library.entry import Entry

        assert request.job is not None
        name = request.job.name or name_from_prompt(prompt.hard_prompt, ())
        entry = Entry(request.id, 1, replace(prompt, name=name), request.tags)
        try:
            return self.library.save_all([entry], self.snapshot)[request.id], "trained"
        except HomeError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
            self.snapshot = self.library.snapshot()  # another process has saved the same job
            existing, _ = self.snapshot.read(request.id)
            if existing is None:
                raise
            return existing, "before"

    def _failed_result(self, request: BatchRequest, error: SoftPromptError) -> Result:
        return Result(request.line, "failed", request.prompt, request.id, error=(type(error).__name__, str(error)))

    def _record(self, result: Result) -> Result:
        """Count a finished result and write it to the output file.

        The entry has already been saved, so nothing is lost if the process is killed here.
        """
        self.progress.done += 1
        self.progress.before += result.state in ("before", "trashed")
        self.progress.failed += result.state == "failed"
        self.latest_states.pop(result.id, None)
        self.resumed_at.pop(result.id, None)
        if self.output:
            self.output.add(result.as_line())
        return result

    def _report_progress(self, now: bool = False) -> bool:
        """Report progress, but only a few times per second unless `now` is set. Return whether to stop."""
        if now or time.monotonic() - self.reported_at >= REPORT_SECONDS:
            self.reported_at = time.monotonic()
            if self.progress.phase == "training":
                self.progress.seconds = self.reported_at - self.started_at
            self.is_stopped |= bool(self.on_progress(self.progress))
        return self.is_stopped

    def _on_step(self, batch: TrainingBatch) -> bool:
        if time.monotonic() - self.reported_at >= REPORT_SECONDS:
            self.progress.in_progress = sum(
                (slot.step - self.resumed_at.get(slot.key, 0)) / slot.config.steps for slot in batch.slots
            )
            self._report_progress(now=True)
        if self.is_stopped or time.monotonic() - self.saved_at >= self.checkpoint_after:
            self._save_checkpoint(batch)
        return self.is_stopped

    def _save_checkpoint(self, batch: TrainingBatch) -> None:
        from softprompt.jobs.checkpoint import to_bytes

        started_at = time.monotonic()
        try:
            self.latest_states |= {key: to_bytes(state) for key, state in batch.states().items()}
            self.checkpoint.write(self.unclaimed_states | self.latest_states)
            if self.output:
                self.output.sync()
        except OSError as error:  # such as a full disk: training continues, and the next checkpoint is a new file
            log.warning("cannot save a checkpoint of the batch: %s", error)
        self.saved_at = time.monotonic()
        self.checkpoint_after = max(
            min(2 * self.checkpoint_after, CHECKPOINT_SECONDS), (self.saved_at - started_at) / MAX_CHECKPOINT_SHARE
        )


def _parse_state(raw: bytes, encoder: Model) -> TrainingState | None:
    """Return a saved state, or None to start over if it is from another version or for different weights."""
    from softprompt.jobs.checkpoint import from_bytes

    try:
        state = from_bytes(raw, "a saved training state")
    except EntryDamaged as error:
        log.warning("a prompt starts over: %s", error)
        return None
    return state if state.tensors["vectors"].shape[-1] == encoder.width else None
