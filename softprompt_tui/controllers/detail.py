"""What loss and readout show: the run that is followed, or the entry that the library's cursor is on."""

from __future__ import annotations

import asyncio
import os
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from softprompt.errors import EntryNotFound, SoftPromptError
from softprompt.worker import protocol as p
from softprompt.worker.events import ENDED
from softprompt_tui.controllers.hard_readout import READY_SOON, round_of
from softprompt_tui.messages import EntryHighlighted
from softprompt_tui.rendering.details import in_full, of_run
from softprompt_tui.screens.loss_plot import PlotScreen
from softprompt_tui.state.series import Series
from softprompt_tui.widgets.readout import Readout

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt_tui.app import SoftPromptApp

REMOTE = bool(os.environ.get("SSH_CONNECTION"))
PAINT_EVERY = 0.5 if REMOTE else 0.25  # seconds
READ_EVERY = 2.0 if REMOTE else 1.0
POINTS = 1000
OPEN_AFTER = 0.08  # seconds that the cursor rests on an entry before it is read: who scrolls passes over many
_WORDS = {
    "paused": "paused",
    "done": "done",
    "stopped": "stopped; the best was saved",
    "failed": "failed",
}
OF_A_SEARCH = "1 - similarity of the best text"
FROM_A_FILE = "It came from a file, which does not say what it was trained on, nor how."


def literal(text: str) -> str:
    """Text in which no bracket stands for a soft prompt."""
    return re.sub(r"[\\\[\]]", r"\\\g<0>", text)


class Shown:
    """Follows one thing at a time, and paints when it has changed: at most four times a second, twice over SSH."""

    def __init__(self, app: SoftPromptApp) -> None:
        self.app = app
        self.run = ""  # the run that is followed, "" while an entry is shown
        self.entry = ""
        self.series = Series()
        self.title = ""
        self.read: Entry | None = None  # the entry whose readout is shown
        self._figures: dict[str, Any] = {}
        self._painted = self._read = 0.0
        self._waiting = self._reading = False
        self._tokens: object = None

    @property
    def curves(self) -> str:
        """What the several curves of a training are of."""
        return "numbers of tokens" if self.app.runs.known.get(self.run, {}).get("sweep") else "restarts"

    @property
    def measure(self) -> str:
        """What the curve is of."""
        return OF_A_SEARCH if self.app.runs.known.get(self.run, {}).get("kind") == "hard" else "loss"

    @property
    def entry_id(self) -> str:
        """The entry that is shown, or about to be: the cursor rests on it, but it has not been read yet; "" for a run."""
        return self.entry or (self.read.id if self.read else "")

    def show_run(self, run: str) -> None:
        """Follows a run, with its whole curve so far."""
        if self.run == run:
            return
        self.run, self.entry, self.series, self._tokens, self.read = run, "", Series(), None, None
        known = self.app.runs.known.get(run, {})
        self.app.readout.nothing(
            "What its soft tokens read stands in the sweep: enter in runs (F6)." if known.get("sweep") else ""
        )
        self.app.begin(partial(self._fetch_curve, run), group="curve", exclusive=True)
        if known.get("of_entry"):
            self.app.begin(partial(self._open, known["of_entry"], run), group="read", exclusive=True)
        self.changed()

    def show_entry(self, entry: str) -> None:
        """Shows an entry of the library."""
        if entry and entry != self.entry:
            self.run, self.entry = "", entry
            self.app.begin(partial(self._open, entry), group="curve", exclusive=True)

    def read_again(self) -> None:
        """Show the entry as it is now; where it is gone, the one that the library's cursor is on."""
        if self.entry:
            self.app.begin(partial(self._open_again, self.entry), group="curve", exclusive=True)
        elif self.run and self.read is not None:  # what a run came to, which may have another name by now
            self.app.begin(partial(self._open, self.read.id, self.run), group="read", exclusive=True)

    async def _open_again(self, entry_id: str) -> None:
        try:
            await asyncio.to_thread(self.app.library.find, entry_id)
        except EntryNotFound:
            if self.entry == entry_id:
                self.entry = ""  # the list's next reading shows another one, if it has not been read yet
                if (current := self.app.library_pane.table.current) != entry_id:
                    self.app.post_message(EntryHighlighted(current, by_hand=False))
            return
        except SoftPromptError:
            pass  # said when it is opened
        await self._open(entry_id)

    def report(self, report: dict[str, Any]) -> None:
        self.told(self.app.runs.known[report["run"]])
        if report["run"] != self.run:
            return
        if "text" in report and not self.app.runs.known[self.run].get("of_entry"):
            return  # the soft prompt is there, its hard readout is looked for: no point of the curve
        if self._tokens not in (None, report["tokens"]):
            self.series = Series()  # "auto" goes on to the next number of tokens
        self._tokens = report["tokens"]
        self.series.add(report["step"], report["loss"], report["similarity"], report.get("restarts", ()))
        self.changed()

    def told(self, run: dict[str, Any]) -> None:
        """A run is another: it may be the one that is followed, or the search for what stands in the readout."""
        if run["id"] == self.run or (self.read is not None and run.get("of_entry") == self.read.id):
            self.changed()

    def queue_moved(self) -> None:
        """What is waited for may be another."""
        if self.app.runs.known.get(self.run, {}).get("state") == "queued":
            self.changed()

    def changed(self) -> None:
        """Paints soon; nothing is waited for while nothing changes."""
        if not self._waiting:
            self._waiting = True
            self.app.set_timer(max(0.01, self._painted + PAINT_EVERY - time.monotonic()), self._paint)

    def _paint(self) -> None:
        self._waiting, self._painted = False, time.monotonic()
        if not self.app.is_there():
            return
        run = self.app.runs.known.get(self.run)
        if run is not None:
            name = run["name"] or run["prompt"][:40]
            self.title = f"hard readout of {name}" if run["kind"] == "hard" else name
            words = self._words(run)
            self._figures = run | {"words": words}
            self.app.loss.show(f"{'live: ' if run['state'] == 'running' else ''}{self.title}", self.series, self._figures)
            if run["state"] not in ENDED and not run.get("of_entry"):
                self.read = None  # it is not there yet
            if self.read is None:
                self.app.detail.show(self.run, of_run(run))
            read_out = run["kind"] == "train" and run["state"] == "running" and run["step"]
            if read_out and time.monotonic() - self._read > READ_EVERY and not self._reading:
                self._reading, self._read = True, time.monotonic()
                self.app.begin(partial(self._read_out, run), group="readout")
            if run["state"] in ENDED and run["entry"]:
                self.app.begin(partial(self._open, run["entry"], run["id"]), group="read", exclusive=True)
        if self.read is not None:
            self.app.readout.show_hard(self.app.hard.of_entry(self.read))
        elif run is not None:
            self.app.readout.show_hard(self.app.hard.of_run(run))
        if isinstance(self.app.screen, PlotScreen):
            self.app.screen.follow(self.title, self.series, self.curves, self.measure)

    def _words(self, run: dict[str, Any]) -> str:
        """What the figures of a run do not say."""
        state = run["state"]
        if state == "queued":
            return self.app.runs.waits(run)
        if state == "stopped" and run["kind"] == "sweep":
            return "stopped; enter in runs chooses what is kept"
        if state == "running":
            if not run["step"]:
                return READY_SOON if run["kind"] == "hard" else "loading the model"
            if run["kind"] == "hard":
                return OF_A_SEARCH
            return f"trained; {found}" if (found := round_of(run)) else ""
        words = _WORDS.get(state, "")
        return f"{words}: {OF_A_SEARCH}" if run["kind"] == "hard" and run["step"] and state != "failed" else words

    async def _fetch_curve(self, run: str) -> None:
        try:
            points = (await self.app.line.ask(p.Curve(run, POINTS)))["points"]
        except SoftPromptError:
            return
        if self.run == run:
            late = self.series.points
            self.series = Series([point for point in points if not late or point[0] < late[0][0]])
            self.series.points += late
            self.changed()

    async def _read_out(self, run: dict[str, Any]) -> None:
        """Asks for the words nearest to the run's soft tokens as they are now, and what those words mean as text."""
        try:
            found = await self.app.line.ask(p.Neighbours(run=run["id"]))
            rows = tuple(tuple((near["token"], near["cosine"]) for near in row) for row in found["neighbours"])
            as_text = found.get("readout_similarity")  # an older worker does not say
            if self.run == run["id"]:
                hard = self.app.hard.of_run(self.app.runs.known.get(run["id"], run))
                self.app.readout.show(run["id"], Readout(found["readout_text"], rows, as_text, run["best_similarity"], hard))
        except SoftPromptError:
            pass  # the training ended meanwhile; the entry's readout is shown then
        finally:
            self._reading = False

    async def _open(self, entry_id: str, of_run: str = "") -> None:
        """Shows an entry: the one that the cursor is on, or what the followed run is about or came to."""
        if not of_run:
            await asyncio.sleep(OPEN_AFTER)
        try:
            entry = await asyncio.to_thread(self.app.library.open, entry_id)
        except SoftPromptError as error:
            if not of_run:
                self.app.loss.show(entry_id, Series(), {"error": str(error)})
            return
        if self.run == of_run if of_run else self.entry == entry_id:
            self._show(entry)

    def _show(self, entry: Entry) -> None:
        self.read = entry
        if not self.app.runs.known.get(self.run, {}).get("of_entry"):  # that one's curve is of another search
            self._show_training(entry)
        made = entry.prompt
        rows = tuple(
            ((read.token, read.cosine), *((near.token, near.cosine) for near in read.alternatives)) for read in made.readout
        )
        if rows:
            hard = self.app.hard.of_entry(entry)
            self.app.readout.show(entry.id, Readout(made.readout_text, rows, made.readout_similarity, made.similarity, hard))
        else:
            self.app.readout.nothing("Its model is not known, so it cannot be read out." if not made.model else "")
        self.app.detail.show(entry.id, in_full(entry))
        if isinstance(self.app.screen, PlotScreen):
            self.app.screen.follow(self.title, self.series, self.curves, self.measure)

    def _show_training(self, entry: Entry) -> None:
        made = entry.prompt
        losses, similarities = made.losses.tolist(), made.similarities.tolist()
        if not (self.run and self.series.restarts):  # an entry holds the best restart's curve only
            self.series = Series(
                (i + 1, loss, similarity) for i, (loss, similarity) in enumerate(zip(losses, similarities, strict=False))
            )
        self.title = made.name
        self._figures = {
            "step": made.steps or None, "similarity": made.similarity, "loss": made.loss, "steps_per_second": made.steps_per_second,
            "composed": made.composition.mean if made.composition else None, "words": entry.note or ("" if made.similarity is not None else FROM_A_FILE),
        }  # fmt: skip
        self.app.loss.show(made.name, self.series, self._figures)

    def nothing(self) -> None:
        self.run = self.entry = ""
        self.read = None
        self.app.loss.nothing()
        self.app.readout.nothing()
        self.app.detail.nothing()
