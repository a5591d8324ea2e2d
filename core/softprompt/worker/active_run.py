"""The interface between the worker and its trainer: an active run and two protocols.

The server and its queue use a `Trainer` to start runs, send queries, request stops and receive events. The code that
executes runs uses `Services`. Neither side depends on the trainer being a thread.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from softprompt.errors import SoftPromptError
from softprompt.worker.leases import Lease
from softprompt.worker.protocol import Request
from softprompt.worker.run_folder import Run, RunFolder

if TYPE_CHECKING:
    from softprompt.library import Library
    from softprompt.worker.model_cache import ModelCache

QUERY_SECONDS_PER_STEP = 0.05  # time for queries between two training steps

StopRequest = Literal["", "stop", "pause", "leave"]  # "leave": stop, and let the next worker continue the run
EventKind = Literal["ready", "died", "loading", "event", "ended"]


class RunInterrupted(BaseException):
    """Raised to stop a run immediately. Not an Exception, so that no handler mistakes it for a failure."""


class Superseded(SoftPromptError):
    """A newer query of the same kind replaced this one."""


class Busy(SoftPromptError):
    """The query needs a model that cannot be loaded while a run is training."""


@dataclass
class ActiveRun:
    """A run in the trainer. `run` is its state before the trainer began.

    The queue's thread sets `stop_request`, and the trainer checks it between steps. The trainer sets `vectors`.
    """

    run: Run
    folder: RunFolder
    lease: Lease
    stop_request: StopRequest = ""
    vectors: Any = None  # the encoder and the best vectors so far, (k, w)
    target: Any = None  # (e,) target without a context; computed when a query first needs it

    @property
    def id(self) -> str:
        return self.folder.id


class Trainer(Protocol):
    """The part of the worker that trains.

    It reports by calling `post(kind, run id, values)` from its own thread: "ready" once it can train, "loading"
    (stage, bytes, of), "event" (a run's event, already on disk), "ended" (event, device_lost) when it has finished
    with a run, and "died" (why, left) if it can no longer train.
    """

    def start(self) -> None:
        """Start up in the background. This takes a few seconds."""
        ...

    def begin(self, runs: list[ActiveRun]) -> None:
        """Start training these runs. They must be able to share a batch, and no other run may be active."""
        ...

    def ask(self, client: int, request: Request) -> Future[dict[str, Any]]:
        """Answer a query between two steps. An older query of the same kind from this client fails with Superseded."""
        ...

    def loaded_models(self) -> list[str]:
        """Return a label for each loaded model, such as "mini on cpu"."""
        ...

    @property
    def is_dead(self) -> bool:
        """Return whether the trainer was started but is no longer running."""
        ...

    def end(self) -> None:
        """End the trainer. Every active run must already have a stop request."""
        ...


class Services(Protocol):
    """What the code that executes a run needs from its process."""

    library: Library
    models: ModelCache | None
    active: dict[str, ActiveRun]

    def post(self, kind: EventKind, run: str, values: dict[str, Any]) -> None:
        """Report an event to the worker."""
        ...

    def answer_queries(self, max_seconds: float = float("inf")) -> None:
        """Answer pending queries for at most `max_seconds`."""
        ...

    def finish(self, active: ActiveRun, event: dict[str, Any]) -> None:
        """Report how a run ended and mark it as inactive. This writes nothing to disk."""
        ...
