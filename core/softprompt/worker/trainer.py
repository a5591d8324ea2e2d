"""The trainer, a thread that uses torch to execute runs (executor.py) and to answer queries between training steps.

If an error ends the thread, it posts "died".
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
    """The server's `Trainer`, which also provides the `Services` for its runs. It calls `post` from its own thread."""

    def __init__(
        self, library: Library, post: Callable[[EventKind, str, dict[str, Any]], None], release_after: float
    ) -> None:
        super().__init__(name="trainer", daemon=True)
        self.library = library
        self.post = post
        self.release_after = release_after
        self.active: dict[str, ActiveRun] = {}  # by run id; the main thread adds runs and `finish` removes them
        self.models: ModelCache | None = None
        self._queries: dict[tuple[int, str], PendingQuery] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = self._is_executing = False

    def begin(self, runs: list[ActiveRun]) -> None:
        self.active = {active.id: active for active in runs}
        self._wake.set()

    def ask(self, client: int, request: Request) -> Future[dict[str, Any]]:
        query = PendingQuery(request)
        with self._lock:
            older = self._queries.pop((client, request.do), None)
            self._queries[client, request.do] = query
        if older is not None:
            older.answer.set_exception(Superseded("a newer query replaced this one"))
        self._wake.set()
        return query.answer

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
        except BaseException as error:  # such as a broken torch or no memory: nothing else would report it
            log.critical("the trainer's thread has died", exc_info=error)
            why = f"{type(error).__name__}: {error}"
            self.post("died", "", {"why": why, "left": {run: self._write_failure(run, why) for run in self.active}})

    def _write_failure(self, run: str, why: str) -> dict[str, Any]:
        """Mark a run as failed because this thread has died. Return the event, or {} if the run had not started.

        Otherwise, the run might also kill the next worker. The user can resume it. A run that had not started stays in
        the queue for a worker that can train.
        """
        active = self.active[run]
        if not self._is_executing:
            return {}
        event, lease = {"event": "failed", "error": f"its trainer died ({why})"}, active.lease.number
        try:
            return active.folder.append(event, lease)
        except OSError as error:
            log.warning("run %s: cannot write its failure: %s", run, error)
            return active.folder.stamp(event, lease)

    def _work(self) -> None:
        import softprompt.training.trainer  # noqa: F401  # imports torch (2-4 s) while the main thread already answers
        from softprompt.worker.executor import RunExecutor
        from softprompt.worker.model_cache import ModelCache

        self.models = ModelCache()
        self.post("ready", "", {})
        last_used = time.monotonic()
        while not self._ending:
            is_awake = self._wake.wait(max(0.01, last_used + self.release_after - time.monotonic()))
            self._wake.clear()
            self.answer_queries()
            if self.active:
                self._is_executing = True
                RunExecutor(self, list(self.active.values())).run()
                self._is_executing = False
            elif not is_awake:
                self.models.release()
            last_used = time.monotonic()

    def finish(self, active: ActiveRun, event: dict[str, Any]) -> None:
        self.active.pop(active.id, None)
        is_device_lost = False
        if event.get("event") == "failed" and self.models is not None:
            if not self.active:
                self.models.release()  # the run may have run out of memory, so free it for the next one
            is_device_lost = not self.models.device_works(active.run.job.device)
        self.post("ended", active.id, {"event": event, "device_lost": is_device_lost})

    # queries

    def answer_queries(self, max_seconds: float = float("inf")) -> None:
        began = time.monotonic()
        while time.monotonic() - began < max_seconds:
            with self._lock:
                key = next(iter(self._queries), None)
                if key is None:
                    return
                query = self._queries.pop(key)
            try:
                query.answer.set_result(inference.answer_query(query.request, self))
            except Exception as error:  # report it to the client; a query must not end the thread
                if not isinstance(error, SoftPromptError):
                    log.exception("a query failed: %s", query.request.do)
                query.answer.set_exception(error)
