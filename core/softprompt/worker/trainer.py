"""The trainer as a thread that owns torch: it carries out runs (executor.py) and answers questions between two steps.

Whatever ends the thread before it was told to end is posted as "died".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from softprompt.errors import SoftPromptError
from softprompt.library import Library
from softprompt.worker import inference
from softprompt.worker.active_run import ActiveRun, EventKind, Superseded
from softprompt.worker.protocol import Request

if TYPE_CHECKING:
    from softprompt.worker.model_cache import ModelCache

log = logging.getLogger(__name__)


@dataclass
class PendingQuery:
    request: Request
    answer: Future[dict[str, Any]] = field(default_factory=Future)


class ThreadTrainer(threading.Thread):
    """A `Trainer` and its `Services`. `post` is called from this thread."""

    def __init__(
        self, library: Library, post: Callable[[EventKind, str, dict[str, Any]], None], release_after: float
    ) -> None:
        super().__init__(name="trainer", daemon=True)
        self.library = library
        self.post = post
        self.release_after = release_after
        self.active: dict[str, ActiveRun] = {}  # by run: given by the main thread, taken back by `finish`
        self.models: ModelCache | None = None
        self._questions: dict[tuple[int, str], PendingQuery] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = self._is_carrying = False

    def begin(self, runs: list[ActiveRun]) -> None:
        self.active = {active.id: active for active in runs}
        self._wake.set()

    def ask(self, client: int, request: Request) -> Future[dict[str, Any]]:
        question = PendingQuery(request)
        with self._lock:
            older = self._questions.pop((client, request.do), None)
            self._questions[client, request.do] = question
        if older is not None:
            older.answer.set_exception(Superseded("a newer question of this kind came"))
        self._wake.set()
        return question.answer

    def loaded_models(self) -> list[str]:
        return self.models.names() if self.models else []

    @property
    def is_dead(self) -> bool:
        return self.ident is not None and not self.is_alive()

    def end(self) -> None:
        self._ending = True
        self._wake.set()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # a broken torch, no memory: nobody else would hear of it
            log.critical("the thread that trains has died", exc_info=error)
            why = f"{type(error).__name__}: {error}"
            self.post("died", "", {"why": why, "left": {run: self._left(run, why) for run in self.active}})

    def _left(self, run: str, why: str) -> dict[str, Any]:
        """The event that ends a run of which this thread died: the next worker would die of it too. It can be resumed.

        Nothing ends a run that had not begun: it waits for a worker that can train.
        """
        active = self.active[run]
        if not self._is_carrying:
            return {}
        event, lease = {"event": "failed", "error": f"the thread that trained it died ({why})"}, active.lease.number
        try:
            return active.folder.append(event, lease)
        except OSError as error:
            log.warning("run %s: its failure was not written: %s", run, error)
            return active.folder.stamped(event, lease)

    def _work(self) -> None:
        import softprompt.training.trainer  # noqa: F401  # torch, 2-4 s, while the main thread answers already
        from softprompt.worker.executor import RunExecutor
        from softprompt.worker.model_cache import ModelCache

        self.models = ModelCache()
        self.post("ready", "", {})
        used = time.monotonic()
        while not self._ending:
            woken = self._wake.wait(max(0.01, used + self.release_after - time.monotonic()))
            self._wake.clear()
            self.answer()
            if self.active:
                self._is_carrying = True
                RunExecutor(self, list(self.active.values())).run()
                self._is_carrying = False
            elif not woken:
                self.models.release()
            used = time.monotonic()

    def finish(self, active: ActiveRun, event: dict[str, Any]) -> None:
        self.active.pop(active.id, None)
        lost = False
        if event.get("event") == "failed" and self.models is not None:
            if not self.active:
                self.models.release()  # out of memory: what is kept must not be the next run's trouble
            lost = not self.models.device_works(active.run.job.device)
        self.post("ended", active.id, {"event": event, "device_lost": lost})

    # questions

    def answer(self, at_most: float = float("inf")) -> None:
        began = time.monotonic()
        while time.monotonic() - began < at_most:
            with self._lock:
                key = next(iter(self._questions), None)
                if key is None:
                    return
                question = self._questions.pop(key)
            try:
                question.answer.set_result(inference.answer(question.request, self))
            except Exception as error:  # to whom asked; a question must not end the thread
                if not isinstance(error, SoftPromptError):
                    log.exception("a question failed: %s", question.request.do)
                question.answer.set_exception(error)
