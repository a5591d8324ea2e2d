"""The interface between the worker and its trainer: an active run, and two protocols.

The server and its queue use a `Trainer`: they start runs, send queries, request stops and receive events. The code that
executes runs uses `Services`. Neither side knows that the trainer is a thread today.
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

QUERY_SECONDS_PER_STEP = 0.05  # time that queries may take from a training between two steps

StopRequest = Literal["", "stop", "pause", "leave"]  # "leave": stop and keep the run for the next worker
EventKind = Literal["ready", "died", "loading", "event", "ended"]


class RunInterrupted(BaseException):
    """A run stops where it is. Not an Exception, so that no handler on the way mistakes it for a failure."""


class Superseded(SoftPromptError):
    """A newer query of the same kind replaced this one."""


class Busy(SoftPromptError):
    """The query needs a model that cannot be loaded during a training."""


@dataclass
class ActiveRun:
    """A run that is training. `run` is its state before it began.

    The queue's thread sets `stop_request`; the trainer reads it between two steps. The trainer sets `vectors`.
    """

    run: Run
    folder: RunFolder
    lease: Lease
    stop_request: StopRequest = ""
    vectors: Any = None  # the encoder and its best vectors so far, (k, w)
    target: Any = None  # (e,) target without context, computed for the first query that needs it

    @property
    def id(self) -> str:
        return self.folder.id


class Trainer(Protocol):
    """The part of the worker that trains.

    It reports through `post(kind, run id, values)`, called from its own thread: "ready" once it can train, "loading"
    (bytes, of), "event" (a run's event, already on disk), "ended" (event, device_lost) when it is done with a run, and
    "died" (why, left) if it cannot train any more.
    """

    def start(self) -> None:
        """Start up in the background, which takes seconds."""
        ...

    def begin(self, runs: list[ActiveRun]) -> None:
        """Train these runs. They must be able to share a batch, and no other run may be active."""
        ...

    def ask(self, client: int, request: Request) -> Future[dict[str, Any]]:
        """Answer a query between two steps. The client's older query of the same kind fails with Superseded."""
        ...

    def loaded_models(self) -> list[str]:
        """Return the loaded models, such as "mini on cpu"."""
        ...

    @property
    def is_dead(self) -> bool:
        """Return whether the trainer was started and no longer exists."""
        ...

    def end(self) -> None:
        """End the trainer. Active runs must have a stop request by then."""
        ...


class Services(Protocol):
    """The parts of the process that a running run needs."""

    library: Library
    models: ModelCache | None
    active: dict[str, ActiveRun]

    def post(self, kind: EventKind, run: str, values: dict[str, Any]) -> None:
        """Report an event to the worker."""
        ...

    def answer_queries(self, max_seconds: float = float("inf")) -> None:
        """Answer waiting queries for at most `max_seconds`."""
        ...

    def finish(self, active: ActiveRun, event: dict[str, Any]) -> None:
        """Report how a run ended, and mark it as inactive. Writes nothing to disk."""
        ...
