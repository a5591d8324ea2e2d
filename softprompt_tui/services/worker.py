"""The interface's line to the worker: keeps it, hands on what happens, and asks; it never blocks the screen."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from softprompt.errors import SoftPromptError, WorkerError
from softprompt.worker import protocol as p
from softprompt.worker.client import ANSWER_WITHIN, connect, raised, too_old
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.lines import read_line
from softprompt.worker.summary import RunReport, RunSummary
from softprompt_tui.state.series import Point

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob

# what the line tells


class Link(NamedTuple):
    """The connection is being made ("starting"), is there ("up") or "gone", and what to say of it."""

    state: str
    why: str


class RunsReply(NamedTuple):
    """Runs of the worker; the `first` page begins its list, and where there is no `more` it is complete."""

    runs: tuple[RunSummary, ...]
    first: bool
    more: bool


class Dropped(NamedTuple):
    """A run is there no more."""

    run: str


News = Link | RunsReply | RunSummary | RunReport | Dropped
Tell = Callable[[News], None]

# what it is answered


class WrittenOut(NamedTuple):
    """A composition with its soft prompts written out: `text`, its `tokens`, how many are `saved`, and how near the two are."""

    text: str
    tokens: int | None
    saved: int | None
    similarity: float | None
    floor: float | None
    mixed: str


class MeasuredComposition(NamedTuple):
    """What a composition comes to: its tokens, and its similarity to the other text, where there is one."""

    tokens: int
    room: int
    written_out: WrittenOut | None
    to_other: float | None


class NearestWords(NamedTuple):
    """For each soft token its nearest words with their cosines, and what the nearest mean as text; None where that is not known."""

    text: str
    rows: tuple[tuple[tuple[str, float], ...], ...]
    as_text: float | None


def _composed(reply: dict[str, Any]) -> MeasuredComposition:
    written, similarities = reply["written_out"][0], reply["similarities"]
    return MeasuredComposition(
        reply["tokens"][0],
        reply["room"],
        None if written is None else WrittenOut(**{name: written[name] for name in WrittenOut._fields}),
        similarities[0][1] if len(similarities) > 1 else None,
    )


def _nearest_words(reply: dict[str, Any]) -> NearestWords:
    rows = tuple(tuple((near["token"], near["cosine"]) for near in row) for row in reply["neighbours"])
    return NearestWords(
        reply["readout_text"], rows, reply.get("readout_similarity")
    )  # an older worker does not say that


class WorkerConnection:
    """A connection that is made again when it is asked to be. `tell` gets what happens. What is asked raises what the worker raised, and
    WorkerError where there is no line, no answer, or one that is none.
    """

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.state = ""
        self._writer: asyncio.StreamWriter | None = None
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._mend, self._settled = asyncio.Event(), asyncio.Event()
        self._last = ""  # the run that a worker of an older version finishes

    async def run(self) -> None:
        """Connects, starting the worker if there is none, and hands on messages until it is cancelled."""
        while True:
            self._mend.clear()
            again = False
            try:
                self._say("starting", "")
                await self._started()
                again = await self._listen()
                self._say("gone", "the worker has ended")
            except (SoftPromptError, OSError) as error:
                self._say("gone", str(error))
            finally:
                self._hang_up()
            if not again:
                await self._mend.wait()

    def reconnect(self) -> None:
        """Connects again, where the line is down."""
        if self.state == "gone":
            self._mend.set()

    async def comes_up(self) -> bool:
        """Waits while the line is being made; whether it is there then."""
        while self.state == "starting":
            await self._settled.wait()
        return self.state == "up"

    async def submit(self, job: AnyJob) -> RunSummary:
        return RunSummary.from_message(await self.ask(p.Submit(job.as_dict())))

    async def curve(self, run: str, points: int) -> list[Point]:
        """The curve of a run so far, reduced to so many points."""
        with _readable():
            return [tuple(point) for point in (await self.ask(p.Curve(run, points)))["points"]]

    async def nearest_words(self, run: str) -> NearestWords:
        """What the soft tokens of a run read now."""
        with _readable():
            return _nearest_words(await self.ask(p.Neighbours(run=run)))

    async def composed(self, model: str, texts: Sequence[str], device: str, opened: str) -> MeasuredComposition:
        """What the first of these texts, a composition, comes to, beside the other, if there is one."""
        with _readable():
            return _composed(await self.ask(p.Similarity(model, list(texts), device, opened)))

    async def keep(self, run: str, numbers: Sequence[int]) -> list[str]:
        """Save those of a sweep's soft prompts; return their entries."""
        with _readable():
            return [str(one["entry"]) for one in (await self.ask(p.Keep(run, sorted(numbers))))["kept"]]

    async def ask(self, request: p.Request, within: float = ANSWER_WITHIN) -> dict[str, Any]:
        """The worker's reply as it is."""
        if self._writer is None:
            raise WorkerError("the worker is not there: ctrl+r starts it")
        if self._last and isinstance(request, p.NEEDS_OURS):
            raise too_old(self._last)
        self._number += 1
        number, answer = self._number, asyncio.get_running_loop().create_future()
        line = p.encode(p.as_message(request, number))
        self._waiting[number] = answer
        try:
            self._writer.write(line)
            return dict(await asyncio.wait_for(answer, within))
        except TimeoutError as error:
            raise WorkerError(f"the worker has not answered for {within:.0f} s") from error
        finally:
            self._waiting.pop(number, None)

    async def _started(self) -> None:
        """Sees that there is a worker. It may take long, and nobody who leaves waits for it: the thread is a daemon."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def tell(words: str) -> None:
            loop.call_soon_threadsafe(self._say, "starting", words)

        def settle(error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)

        def start() -> None:
            error: BaseException | None = None
            try:
                client = connect(on_wait=tell, older=True)
                if client is not None:
                    client.close()
            except (SoftPromptError, OSError) as caught:
                error = caught
            with suppress(RuntimeError):  # the loop is closed: the interface was left meanwhile
                loop.call_soon_threadsafe(settle, error)

        threading.Thread(target=start, daemon=True).start()
        await done

    async def _listen(self) -> bool:
        """True where another worker is about to take this one's place."""
        reader, self._writer = await asyncio.open_unix_connection(os.fspath(Endpoint().socket), limit=p.MAX_READ_BYTES)
        self._writer.write(p.encode(p.hello()))
        again = False
        while line := await read_line(reader):
            message = p.message_of(line)
            again = again or p.makes_way(message, self._last)
            match message["type"]:
                case "reply" | "error":
                    self._answer(message)
                case "bye" if message.get("reason"):
                    raise WorkerError(message["reason"])
                case "bye":
                    again = again or bool(message.get("again"))
                case "making_way":
                    self._last = str(message.get("run", ""))
                    self._say(
                        "starting", "the worker is of an older version: a newer one takes over when its run is done"
                    )
                case "snapshot" | "page" as kind:
                    if kind == "snapshot":
                        self._say("up", "")
                    runs = tuple(map(RunSummary.from_message, message["runs"]))
                    self.tell(RunsReply(runs, kind == "snapshot", bool(message.get("more"))))
                case "run":
                    self.tell(RunSummary.from_message(message["run"]))
                case "report":
                    self.tell(RunReport.from_message(message))
                case "dropped":
                    self.tell(Dropped(message["run"]))
        return again

    def _answer(self, message: dict[str, Any]) -> None:
        answer = self._waiting.get(message["id"])
        if answer is None or answer.done():
            return
        if message["type"] == "reply":
            answer.set_result(message["result"])
        else:
            answer.set_exception(raised(message))

    def _hang_up(self) -> None:
        self._last = ""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(WorkerError("the worker is gone: ctrl+r starts it again"))

    def _say(self, state: str, why: str) -> None:
        self.state = state
        if state == "starting":
            self._settled.clear()
        else:
            self._settled.set()
        self.tell(Link(state, why))


@contextmanager
def _readable() -> Iterator[None]:
    """Whatever an answer of another version lacks is said as WorkerError."""
    try:
        yield
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise WorkerError(f"the worker's answer cannot be read ({error!r}): update both sides") from error
