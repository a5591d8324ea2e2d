"""The thread that owns torch: it carries out runs (carrying.py) and answers questions between two steps.

It tells the main thread what happens through `post`, and reads what is wished of it from the training's `wish`. Whatever ends the
thread before it was told to end is posted as "died".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from softprompt.errors import SoftPromptError
from softprompt.library import Library
from softprompt.worker import inference
from softprompt.worker.leases import Lease
from softprompt.worker.protocol import Request
from softprompt.worker.run_folder import Run, RunFolder

if TYPE_CHECKING:
    from softprompt.worker.model_cache import Warm

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
    """A run that is being trained: the queue's thread sets the wish, the engine `vectors`. `run` is as it was before it began."""

    run: Run
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
        self.training: dict[str, Training] = {}  # by run: given by the main thread, taken back by "ended"
        self.warm: Warm | None = None
        self._questions: dict[tuple[int, str], Question] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = self._is_carrying = False

    def begin(self, trainings: list[Training]) -> None:
        """Gives it runs to train, several only where they can share a batch; there must be none under way."""
        self.training = {one.folder.id: one for one in trainings}
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
        try:
            self._work()
        except BaseException as error:  # a broken torch, no memory: nobody else would hear of it
            log.critical("the thread that trains has died", exc_info=error)
            why = f"{type(error).__name__}: {error}"
            self.post("died", "", {"why": why, "left": {run: self._left(run, why) for run in self.training}})

    def _left(self, run: str, why: str) -> dict[str, Any]:
        """The event that ends a run of which this thread died: the next worker would die of it too. It can be resumed.

        Nothing ends a run that had not begun: it waits for a worker that can train.
        """
        training = self.training[run]
        if not self._is_carrying:
            return {}
        event, lease = {"event": "failed", "error": f"the thread that trained it died ({why})"}, training.lease.number
        try:
            return training.folder.append(event, lease)
        except OSError as error:
            log.warning("run %s: its failure was not written: %s", run, error)
            return training.folder.stamped(event, lease)

    def _work(self) -> None:
        import softprompt.training.trainer  # noqa: F401  # torch, 2-4 s, while the main thread answers already
        from softprompt.worker.executor import Carrying
        from softprompt.worker.model_cache import Warm

        self.warm = Warm()
        self.post("ready", "", {})
        used = time.monotonic()
        while not self._ending:
            woken = self._wake.wait(max(0.01, used + self.release_after - time.monotonic()))
            self._wake.clear()
            self.answer()
            if self.training:
                self._is_carrying = True
                Carrying(self, list(self.training.values())).run()
                self._is_carrying = False
            elif not woken:
                self.warm.release()
            used = time.monotonic()

    def ended(self, training: Training, event: dict[str, Any]) -> None:
        """Tells what became of a run, and that it is out of the engine's hands; writes nothing."""
        self.training.pop(training.folder.id, None)
        lost = False
        if event.get("event") == "failed" and self.warm is not None:
            if not self.training:
                self.warm.release()  # out of memory: what is kept must not be the next run's trouble
            lost = not self.warm.device_works(training.run.job.device)
        self.post("ended", training.folder.id, {"event": event, "device_lost": lost})

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
