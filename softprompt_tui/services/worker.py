"""The interface's connection to the worker. It delivers messages, sends requests, and never blocks the screen."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from softprompt.errors import SoftPromptError, WorkerError
from softprompt.system.devices import DeviceFacts
from softprompt.worker import protocol as p
from softprompt.worker.client import (
    ANSWER_SECONDS,
    CONTROL_SECONDS,
    connect,
    error_from_message,
    not_answering,
    older_worker_error,
)
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.lines import read_line
from softprompt.worker.summary import RunReport, RunSummary
from softprompt_tui.state.series import Point

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob

# messages from the worker


class ConnectionState(NamedTuple):
    """The state of the connection: "starting", "up" or "gone". `reason` tells the user why, or is ""."""

    state: str
    reason: str


class RunsReply(NamedTuple):
    """One page of the worker's list of runs."""

    runs: tuple[RunSummary, ...]
    is_first: bool
    has_more: bool


class RunDropped(NamedTuple):
    """A run was removed."""

    run: str


class LoadingStage(NamedTuple):
    """The current stage of loading a run's model. `of` is the size of a download in bytes, or 0."""

    run: str
    stage: str
    received: int
    of: int


WorkerMessage = ConnectionState | RunsReply | RunSummary | RunReport | RunDropped | LoadingStage
MessageHandler = Callable[[WorkerMessage], None]

# replies to requests


class ReferenceText(NamedTuple):
    """The reference text of a composition: the composition with each soft prompt replaced by its hard prompt.

    The field names are the keys of the worker's reply.
    """

    text: str
    tokens: int | None
    saved: int | None  # tokens that the composition saves
    similarity: float | None
    floor: float | None
    mixed: str


class MeasuredComposition(NamedTuple):
    """A composition's token count, reference text, and similarity to the other text, if any."""

    tokens: int
    max_tokens: int
    reference: ReferenceText | None
    other_similarity: float | None


class NearestTokens(NamedTuple):
    """The tokens nearest to each soft token, with their cosines."""

    text: str
    rows: tuple[tuple[tuple[str, float], ...], ...]
    as_text: float | None  # similarity of `text`; None if unknown


class ListedDevices(NamedTuple):
    """The devices, the one of "auto" first, and the names of those that train."""

    devices: tuple[DeviceFacts, ...]
    training: tuple[str, ...]


def _parse_composition(reply: dict[str, Any]) -> MeasuredComposition:
    reference, similarities = reply["written_out"][0], reply["similarities"]
    return MeasuredComposition(
        reply["tokens"][0],
        reply["room"],
        None if reference is None else ReferenceText(**{name: reference[name] for name in ReferenceText._fields}),
        similarities[0][1] if len(similarities) > 1 else None,
    )


def _parse_nearest_tokens(reply: dict[str, Any]) -> NearestTokens:
    rows = tuple(tuple((near["token"], near["cosine"]) for near in row) for row in reply["neighbours"])
    # an older worker does not send the similarity
    return NearestTokens(reply["readout_text"], rows, reply.get("readout_similarity"))


class WorkerConnection:
    """A connection that reconnects on request. `on_message` gets every message from the worker.

    Requests raise the worker's errors, or WorkerError if there is no connection or no valid reply.
    """

    def __init__(self, on_message: MessageHandler) -> None:
        self.on_message = on_message
        self.state = ""
        self._writer: asyncio.StreamWriter | None = None
        self._last_request = 0
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reconnect_requested, self._settled = asyncio.Event(), asyncio.Event()
        self._hello: dict[str, Any] = {}  # of the worker
        self._last_run = ""  # the run that an older worker is still finishing

    async def run(self) -> None:
        """Connect, start the worker if there is none, and deliver messages until cancelled."""
        while True:
            self._reconnect_requested.clear()
            again = False
            try:
                self._set_state("starting", "")
                await self._start_worker()
                again = await self._listen()
                self._set_state("gone", "the worker has ended")
            except (SoftPromptError, OSError) as error:
                self._set_state("gone", str(error))
            finally:
                self._disconnect()
            if not again:
                await self._reconnect_requested.wait()

    def reconnect(self) -> None:
        """Connect again if the connection is down."""
        if self.state == "gone":
            self._set_state("starting", "")  # who waits until the worker is up must not see the old state
            self._reconnect_requested.set()

    @property
    def is_connected(self) -> bool:
        """Whether a worker takes requests. It may be of an older version."""
        return self._writer is not None

    @property
    def has_other_variables(self) -> bool:
        """Whether the worker was started with other Hugging Face variables than this interface."""
        from softprompt.worker.hub_variables import has_other_variables

        return has_other_variables(self._hello)

    async def wait_until_up(self) -> bool:
        """Wait while the connection starts. Return whether it is up."""
        while self.state == "starting":
            await self._settled.wait()
        return self.state == "up"

    def check(self, outcome: str) -> None:
        """Raise WorkerError if there is no worker and none is starting.

        Args:
            outcome: what would have happened to the request, such as "submitted", for the message.
        """
        if self.state == "gone":
            raise WorkerError(f"not {outcome}: no worker answers. ctrl+r starts one.")

    async def submit(self, job: AnyJob) -> RunSummary:
        return RunSummary.from_message(await self.ask(p.Submit(job.as_dict())))

    async def curve(self, run: str, points: int) -> list[Point]:
        """Return the curve of a run so far, downsampled to `points` points."""
        with _convert_errors():
            return [tuple(point) for point in (await self.ask(p.Curve(run, points)))["points"]]

    async def nearest_tokens(self, run: str) -> NearestTokens:
        """Return the nearest tokens of a run's current soft tokens."""
        with _convert_errors():
            return _parse_nearest_tokens(await self.ask(p.Neighbours(run=run)))

    async def measure_composition(
        self, model: str, texts: Sequence[str], device: str, opened: str
    ) -> MeasuredComposition:
        """Measure the first text, a composition, and compare it with the second text, if any."""
        with _convert_errors():
            return _parse_composition(await self.ask(p.Similarity(model, list(texts), device, opened)))

    async def devices(self) -> ListedDevices:
        """Return the devices of the worker's machine. The first answer waits until the worker has loaded torch."""
        with _convert_errors():
            reply = await self.ask(p.Devices())
            devices = map(DeviceFacts.from_dict, reply["devices"])
            return ListedDevices(tuple(devices), tuple(map(str, reply["training"])))

    async def keep(self, run: str, token_counts: Sequence[int]) -> list[str]:
        """Save the sweep's soft prompts with these token counts. Return their entries."""
        with _convert_errors():
            return [str(saved["entry"]) for saved in (await self.ask(p.Keep(run, sorted(token_counts))))["kept"]]

    async def ask(self, request: p.Request, timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Send a request and return the raw reply."""
        if self._writer is None:
            raise WorkerError("there is no worker: ctrl+r starts one")
        if self._last_run and isinstance(request, p.NEEDS_CURRENT_WORKER):
            raise older_worker_error(self._last_run)
        self._last_request += 1
        number, answer = self._last_request, asyncio.get_running_loop().create_future()
        line = p.encode(p.as_message(request, number))
        self._pending[number] = answer
        try:
            self._writer.write(line)
            return dict(await asyncio.wait_for(answer, timeout))
        except TimeoutError as error:
            raise not_answering() from error
        finally:
            self._pending.pop(number, None)

    async def _start_worker(self) -> None:
        """Start the worker if there is none, in a daemon thread: quitting must never wait for it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def report(reason: str) -> None:
            loop.call_soon_threadsafe(self._set_state, "starting", reason)

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)

        def start() -> None:
            error: BaseException | None = None
            try:
                client = connect(on_wait=report, accept_older=True, answer_seconds=CONTROL_SECONDS)
                if client is not None:
                    client.close()
            except (SoftPromptError, OSError) as caught:
                error = caught
            with suppress(RuntimeError):  # the loop is closed: the user has quit
                loop.call_soon_threadsafe(settle, error)

        threading.Thread(target=start, daemon=True).start()
        await done

    async def _listen(self) -> bool:
        """Deliver messages until the connection ends. Return whether a new worker is about to replace this one."""
        reader, self._writer = await asyncio.open_unix_connection(os.fspath(Endpoint().socket), limit=p.MAX_READ_BYTES)
        self._writer.write(p.encode(p.hello()))
        again = False
        while line := await read_line(reader):
            message = p.parse_message(line)
            again = again or p.frees_older_worker(message, self._last_run)
            match message["type"]:
                case "hello":
                    self._hello = message
                case "reply" | "error":
                    self._settle_request(message)
                case "bye" if message.get("reason"):
                    raise WorkerError(message["reason"])
                case "bye":
                    again = again or bool(message.get("again"))
                case "making_way":
                    self._last_run = str(message.get("run", ""))
                    self._set_state(
                        "starting", "the worker is an older version; a new one takes over when its run is done"
                    )
                case "snapshot" | "page" as kind:
                    if kind == "snapshot":
                        self._set_state("up", "")
                    runs = tuple(map(RunSummary.from_message, message["runs"]))
                    self.on_message(RunsReply(runs, kind == "snapshot", bool(message.get("more"))))
                case "run":
                    self.on_message(RunSummary.from_message(message["run"]))
                case "report":
                    self.on_message(RunReport.from_message(message))
                case "loading":
                    self.on_message(LoadingStage(message["run"], message["stage"], message["bytes"], message["of"]))
                case "dropped":
                    self.on_message(RunDropped(message["run"]))
        return again

    def _settle_request(self, message: dict[str, Any]) -> None:
        answer = self._pending.get(message["id"])
        if answer is None or answer.done():
            return
        if message["type"] == "reply":
            answer.set_result(message["result"])
        else:
            answer.set_exception(error_from_message(message))

    def _disconnect(self) -> None:
        self._last_run = ""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(WorkerError("the worker has ended; ctrl+r starts it again"))

    def _set_state(self, state: str, reason: str) -> None:
        self.state = state
        if state == "starting":
            self._settled.clear()
        else:
            self._settled.set()
        self.on_message(ConnectionState(state, reason))


@contextmanager
def _convert_errors() -> Iterator[None]:
    """Turn errors caused by a malformed reply into WorkerError."""
    try:
        yield
    except SoftPromptError:  # the worker's answer; some of these are KeyErrors and TypeErrors too
        raise
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise WorkerError(
            f"cannot read the worker's reply ({error!r}): the versions differ. Update softprompt-tui and restart the "
            "worker."
        ) from error
