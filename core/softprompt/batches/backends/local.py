"""Carrying out a batch: what is done, what is under way, what comes next."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from softprompt.batches.checkpoints import BatchCheckpoint
from softprompt.batches.output import OutFile
from softprompt.batches.results import BatchProgress, Result, State
from softprompt.batches.spool import BatchRequest, Spool
from softprompt.errors import EntryDamaged, HomeError, LibraryError, SoftPromptError
from softprompt.library import Library
from softprompt.library.names import name_for

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.library.entry import Entry
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.batch import TrainingBatch
    from softprompt.training.task import TrainingState, TrainingTask

CHECKPOINT_FIRST, CHECKPOINT_EVERY = 1.0, 10.0  # seconds; sooner at first: who is killed often gets on all the same
CHECKPOINT_SHARE = 0.05  # of the time at most
TELL_EVERY = 0.1  # seconds
Load = Callable[[str, str, str], "TextEncoder"]
log = logging.getLogger(__name__)


class BatchRunner:
    """One run of a batch, from what there is to the last result."""

    def __init__(
        self,
        spool: Spool,
        library: Library,
        under_way: BatchCheckpoint,
        file: OutFile | None,
        on_progress: Callable[[BatchProgress], bool | None],
        load: Load,
    ) -> None:
        self.spool = spool
        self.library = library
        self.known = library.known()
        self.under_way = under_way
        self.file = file
        self.on_progress = on_progress
        self.load = load
        self.progress = BatchProgress(len(spool))
        self.left: dict[str, bytes] = {}  # states of an earlier run that no training has gone on from yet
        self.begun: dict[
            str, bytes
        ] = {}  # the last known ones of those drawn and not done, in their places or waiting for one
        self.from_step: dict[str, int] = {}  # where those of an earlier run went on
        self.stopped = False
        self.began = self.told = self.saved = time.monotonic()
        self.checkpoint_after = CHECKPOINT_FIRST

    def results(self, places: int | None) -> Iterator[Result]:
        todo: dict[int, array[int]] = {}
        for index, how in enumerate(self.spool.how):
            result = self._there(index, how)
            if result is not None:
                yield self._told(result)
            elif how >= 0 and not self._is_written(index):
                todo.setdefault(how, array("L")).append(index)
            if self.stopped or self._tell():
                return
        if todo:
            self.left = self.under_way.read()
            yield from self._trained(todo, places)
        if self.progress.done == self.progress.total:  # else it was stopped
            self.under_way.forget()
        if self.file:
            self.file.sync()
        self._tell(now=True)

    def _is_written(self, index: int) -> bool:
        return self.file is not None and self.spool.ids[index] in self.file.ids

    def _there(self, index: int, how: int) -> Result | None:
        """What is known of a row before anything is trained; None where it is to be trained, or its result is written already."""
        if how < 0:
            asked = self.spool[index]
            return Result(asked.line, "failed", asked.prompt, error=asked.error)
        if self._is_written(index):
            self.progress.done += 1
            self.progress.before += 1
            return None
        if not self.known.has(f"{self.spool.ids[index]:016x}"):
            return None
        asked = self.spool[index]
        return self._from_before(asked)

    def _from_before(self, asked: BatchRequest) -> Result | None:
        entry, state = self.known.look(asked.id)
        if entry is None:  # purged from the trash, or nothing of it is whole: it is trained again
            return None
        return Result.of(asked.line, "trashed" if state == "trashed" else "before", asked.prompt, entry)

    def _trained(self, todo: dict[int, array[int]], places: int | None) -> Iterator[Result]:
        """Trains, those of one model and one plan together; each model is loaded once."""
        from softprompt.batches.sequential import train_singly
        from softprompt.training.trainer import train_many

        groups: dict[str, list[array[int]]] = {}
        for how, indices in todo.items():
            groups.setdefault(self.spool.hows[how].model, []).append(indices)
        for model, plans in groups.items():
            self.progress.phase, self.progress.model = "loading", model
            self._tell(now=True)
            try:
                encoder = self.load(model, self.spool.defaults.device, self.spool.defaults.precision)
            except SoftPromptError as error:
                if model == self.spool.defaults.model:
                    raise
                yield from map(self._told, (self._failed(self.spool[i], error) for plan in plans for i in plan))
                continue
            self.progress.phase = "training"
            if not self.progress.trained:
                self.began = time.monotonic()
            for together in plans:
                asked: dict[str, BatchRequest] = {}
                first = self.spool[together[0]].job
                train = train_singly if first and first.config.tokens == "auto" else train_many
                tasks = self._tasks(together, encoder, asked)
                for task, outcome in train(encoder, tasks, places=places, on_step=self._on_step):
                    yield self._told(self._result(asked.pop(task.key), outcome))
                if self.stopped:
                    return
            del encoder

    def _tasks(
        self, indices: array[int], encoder: TextEncoder, asked: dict[str, BatchRequest]
    ) -> Iterator[TrainingTask]:
        """What is to be trained, drawn when there is a place for it; those that were under way first."""
        from softprompt.training.task import TrainingTask

        begun = {int(key, 16) for key in self.left}
        order = sorted(indices, key=lambda index: (self.spool.ids[index] not in begun, index))
        for index in order:
            one = self.spool[index]
            assert one.job is not None
            asked[one.id] = one
            state = self.left.pop(one.id, None)
            resume = None if state is None else _state_in(state, encoder)
            if state is not None and resume is not None:
                self.begun[one.id], self.from_step[one.id] = state, resume.step
            yield TrainingTask(one.job.prompt, one.job.config, resume=resume, key=one.id)

    def _result(self, asked: BatchRequest, outcome: SoftPrompt | SoftPromptError) -> Result:
        if isinstance(outcome, SoftPromptError):
            return self._failed(asked, outcome)
        try:
            entry, state = self._save(asked, outcome)
        except HomeError:  # nothing can be saved any more
            raise
        except LibraryError as error:
            return self._failed(asked, error)
        self.progress.trained += 1
        return Result.of(asked.line, state, asked.prompt, entry)

    def _save(self, asked: BatchRequest, made: SoftPrompt) -> tuple[Entry, State]:
        from softprompt.library.entry import Entry

        assert asked.job is not None
        name = asked.job.name or name_for(made.hard_prompt, ())
        entry = Entry(asked.id, 1, replace(made, name=name), self.spool.defaults.tags)
        try:
            return self.library.save_all([entry], self.known)[asked.id], "trained"
        except HomeError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
            self.known = self.library.known()  # another process with the same prompt was quicker
            there, _ = self.known.look(asked.id)
            if there is None:
                raise
            return there, "before"

    def _failed(self, asked: BatchRequest, error: SoftPromptError) -> Result:
        return Result(asked.line, "failed", asked.prompt, asked.id, error=(type(error).__name__, str(error)))

    def _told(self, result: Result) -> Result:
        """Counts a result and writes it down; by now its entry is saved, so that a kill in between loses nothing."""
        self.progress.done += 1
        self.progress.before += result.state in ("before", "trashed")
        self.progress.failed += result.state == "failed"
        self.begun.pop(result.id, None)
        self.from_step.pop(result.id, None)
        if self.file:
            self.file.add(result.as_line())
        return result

    def _tell(self, now: bool = False) -> bool:
        """Tells how far this is, a few times a second; returns whether to stop."""
        if now or time.monotonic() - self.told >= TELL_EVERY:
            self.told = time.monotonic()
            if self.progress.phase == "training":
                self.progress.seconds = self.told - self.began
            self.stopped |= bool(self.on_progress(self.progress))
        return self.stopped

    def _on_step(self, pool: TrainingBatch) -> bool:
        if time.monotonic() - self.told >= TELL_EVERY:
            self.progress.under_way = sum(
                (member.step - self.from_step.get(member.key, 0)) / member.config.steps for member in pool.slots
            )
            self._tell(now=True)
        if self.stopped or time.monotonic() - self.saved >= self.checkpoint_after:
            self._checkpoint(pool)
        return self.stopped

    def _checkpoint(self, pool: TrainingBatch) -> None:
        from softprompt.jobs.checkpoint import to_bytes

        began = time.monotonic()
        try:
            self.begun |= {key: to_bytes(state) for key, state in pool.states().items()}
            self.under_way.write(self.left | self.begun)
            if self.file:
                self.file.sync()
        except OSError as error:  # a full disk: the training goes on, and the next one is another file
            log.warning("what is under way was not written down: %s", error)
        self.saved = time.monotonic()
        self.checkpoint_after = max(
            min(2 * self.checkpoint_after, CHECKPOINT_EVERY), (self.saved - began) / CHECKPOINT_SHARE
        )


def _state_in(raw: bytes, encoder: TextEncoder) -> TrainingState | None:
    """Where a training can go on; None, for the beginning, where that is of another version or of other weights."""
    from softprompt.jobs.checkpoint import from_bytes

    try:
        state = from_bytes(raw, "the state of a training")
    except EntryDamaged as error:
        log.warning("a training begins anew: %s", error)
        return None
    return state if state.tensors["vectors"].shape[-1] == encoder.width else None
