"""The seam between the worker and what trains: an active run, what may be asked of it, and the two contracts.

The server and its queue know a `Trainer`: they start runs, ask questions, request stops and hear of events. What carries
runs out knows `Services`. Neither side needs to know that the trainer is a thread today.
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

QUERIES_A_STEP = 0.05  # seconds that questions may take of a training between two steps

StopRequest = Literal["", "stop", "pause", "leave"]  # "leave": as it is, for the next worker
EventKind = Literal["ready", "died", "loading", "event", "ended"]


class RunInterrupted(BaseException):
    """A run is left where it is; no Exception, so that nothing on the way takes it for a failure."""


class Superseded(SoftPromptError):
    """A question that a newer one of the same kind made pointless."""


class Busy(SoftPromptError):
    """A question about a model that would have to be loaded while another is training."""


@dataclass
class ActiveRun:
    """A run that is being trained. `run` is as it was before it began.

    The queue's thread sets the stop request, the trainer reads it between two steps, and sets `vectors`.
    """

    run: Run
    folder: RunFolder
    lease: Lease
    stop_request: StopRequest = ""
    vectors: Any = None  # (k, w) the best so far, and the model they belong to
    target: Any = None  # (e,) what it is trained on, alone; made when it is first asked about

    @property
    def id(self) -> str:
        return self.folder.id


class Trainer(Protocol):
    """What trains, as the worker knows it.

    It tells what happens by calling `post(kind, run id, values)`, from a thread of its own: "ready" once it can train,
    "loading" (bytes, of), "event" (an event of a run, which stands on disk), "ended" (event, device_lost) when it is done
    with a run, and "died" (why, left) if it can train no more.
    """

    def start(self) -> None:
        """Get ready: this takes seconds, and nothing waits for it."""
        ...

    def begin(self, runs: list[ActiveRun]) -> None:
        """Train these runs, several only if they can share a batch. None may be active."""
        ...

    def ask(self, client: int, request: Request) -> Future[dict[str, Any]]:
        """Answer a question between two steps. A client's older question of the same kind gets Superseded."""
        ...

    def loaded_models(self) -> list[str]:
        """The models that are loaded, such as "mini on cpu"."""
        ...

    @property
    def is_dead(self) -> bool:
        """Whether it was started and is gone."""
        ...

    def end(self) -> None:
        """Train no more; active runs are to have a stop request first."""
        ...


class Services(Protocol):
    """What a run that is carried out needs of the process that it is in."""

    library: Library
    models: ModelCache | None
    active: dict[str, ActiveRun]

    def post(self, kind: EventKind, run: str, values: dict[str, Any]) -> None:
        """Tell the worker what happens."""
        ...

    def answer(self, at_most: float = float("inf")) -> None:
        """Answer waiting questions, for at most so many seconds."""
        ...

    def finish(self, active: ActiveRun, event: dict[str, Any]) -> None:
        """Tell what became of a run, and that it is active no more; write nothing."""
        ...
