"""What loss, readout and details show: the run that is followed, or the entry that the library's cursor is on."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from softprompt.errors import EntryNotFound, SoftPromptError
from softprompt.worker.summary import ENDED
from softprompt_tui.messages import DetailChanged, ShownEntryGone
from softprompt_tui.rendering.details import READY_SOON, in_full, of_run, round_of
from softprompt_tui.state.queue import told
from softprompt_tui.state.series import Series
from softprompt_tui.widgets.loss import LossFigures
from softprompt_tui.widgets.readout import Readout

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.worker.summary import RunReport, RunSummary
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.rendering.details import Facts

READ_EVERY = 2.0 if os.environ.get("SSH_CONNECTION") else 1.0  # seconds
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


class DetailController:
    """Follows one thing at a time. What is to be painted stands in its attributes; DetailChanged says when they are others."""

    def __init__(self, context: AppContext) -> None:
        self.context, self.store = context, context.runs
        self.run = ""  # the run that is followed, "" while an entry is shown
        self.entry = ""
        self.read: Entry | None = None  # the entry whose readout is shown
        self.title = ""
        self.series = Series()
        self.figures: LossFigures | None = None  # None where nothing is shown
        self.readout_of = ""
        self.readout: Readout | None = None
        self.no_readout = ""  # why there is none
        self.facts: tuple[str, Facts] | None = None  # what of, and the facts
        self._read_at = 0.0
        self._reading = False
        self._tokens: object = None

    @property
    def curves(self) -> str:
        """What tells the curves of this training apart."""
        run = self.followed
        return "numbers of tokens" if run and run.sweep else "restarts"

    @property
    def measure(self) -> str:
        """What the curve is of."""
        run = self.followed
        return OF_A_SEARCH if run and run.kind == "hard" else "loss"

    @property
    def followed(self) -> RunSummary | None:
        return self.store.known.get(self.run)

    @property
    def entry_id(self) -> str:
        """The entry that is shown, or about to be: the cursor rests on it, but it has not been read yet; "" for a run."""
        return self.entry or (self.read.id if self.read else "")

    def show_run(self, run: str) -> None:
        """Follows a run, with its whole curve so far."""
        if self.run == run:
            return
        self.run, self.entry, self.series, self._tokens, self.read = run, "", Series(), None, None
        known = self.followed
        is_sweep = known is not None and bool(known.sweep)
        self.readout_of, self.readout = "", None
        self.no_readout = "What its soft tokens read stands in the sweep: enter in runs (F6)." if is_sweep else ""
        self.context.spawn(partial(self._fetch_curve, run), group="curve", exclusive=True)
        if known and known.of_entry:
            self.context.spawn(partial(self._open, known.of_entry, run), group="read", exclusive=True)
        self.changed()

    def show_entry(self, entry: str) -> None:
        """Shows an entry of the library."""
        if entry and entry != self.entry:
            self.run, self.entry = "", entry
            self.context.spawn(partial(self._open, entry), group="curve", exclusive=True)

    def show_nothing(self) -> None:
        self.run = self.entry = ""
        self.read = self.figures = self.facts = None
        self._no_readout("")
        self.changed(at_once=True)

    def read_again(self) -> None:
        """Show the entry as it is now; where it is gone, the one that the library's cursor is on."""
        if self.entry:
            self.context.spawn(partial(self._open_again, self.entry), group="curve", exclusive=True)
        elif self.run and self.read is not None:  # what a run came to, which may have another name by now
            self.context.spawn(partial(self._open, self.read.id, self.run), group="read", exclusive=True)

    async def _open_again(self, entry_id: str) -> None:
        try:
            await asyncio.to_thread(self.context.library.find, entry_id)
        except EntryNotFound:
            if self.entry == entry_id:
                self.entry = ""  # the list's next reading shows another one, if it has not been read yet
                self.context.post(ShownEntryGone(entry_id))
            return
        except SoftPromptError:
            pass  # said when it is opened
        await self._open(entry_id)

    def report(self, report: RunReport) -> None:
        run = self.store.known[report.run]
        self.told(run)
        if report.run != self.run:
            return
        if report.text is not None and not run.of_entry:
            return  # the soft prompt is there, its hard readout is looked for: no point of the curve
        if self._tokens not in (None, report.tokens):
            self.series = Series()  # "auto" goes on to the next number of tokens
        self._tokens = report.tokens
        self.series.add(report.step, report.loss, report.similarity, report.restarts)
        self.changed()

    def told(self, run: RunSummary) -> None:
        """A run is another: it may be the one that is followed, or the search for what stands in the readout."""
        if run.id == self.run or (self.read is not None and run.of_entry == self.read.id):
            self.changed()

    def queue_moved(self) -> None:
        """What is waited for may be another."""
        if (run := self.followed) and run.state == "queued":
            self.changed()

    def changed(self, at_once: bool = False) -> None:
        self.context.post(DetailChanged(at_once))

    def bring_up_to_date(self) -> None:
        """Take what is known of the run that is followed, before it is painted, and ask for what is missing."""
        run = self.followed
        if run is None:
            return
        self.title = f"hard readout of {run.called}" if run.kind == "hard" else run.called
        self.figures = LossFigures(
            run.step, run.steps, run.loss, run.similarity, run.best_similarity, steps_per_second=run.steps_per_second,
            is_running=run.state == "running", is_search=run.kind == "hard", words=self._words(run), error=run.error,
        )  # fmt: skip
        if run.state not in ENDED and not run.of_entry:
            self.read = None  # it is not there yet
        if self.read is None:
            self.facts = (run.id, of_run(run))
        is_due = time.monotonic() - self._read_at > READ_EVERY and not self._reading
        if run.kind == "train" and run.state == "running" and run.step and is_due:
            self._reading, self._read_at = True, time.monotonic()
            self.context.spawn(partial(self._read_out, run), group="readout")
        if run.state in ENDED and run.entry:
            self.context.spawn(partial(self._open, run.entry, run.id), group="read", exclusive=True)

    def _words(self, run: RunSummary) -> str:
        """What the figures of a run do not say."""
        state = run.state
        if state == "queued":
            return told(run, self.store.in_order())
        if state == "stopped" and run.kind == "sweep":
            return "stopped; enter in runs chooses what is kept"
        if state == "running":
            if not run.step:
                return READY_SOON if run.kind == "hard" else "loading the model"
            if run.kind == "hard":
                return OF_A_SEARCH
            return f"trained; {found}" if (found := round_of(run)) else ""
        words = _WORDS.get(state, "")
        return f"{words}: {OF_A_SEARCH}" if run.kind == "hard" and run.step and state != "failed" else words

    async def _fetch_curve(self, run: str) -> None:
        try:
            points = await self.context.worker.curve(run, POINTS)
        except SoftPromptError:
            return
        if self.run == run:
            late = self.series.points
            self.series = Series([point for point in points if not late or point[0] < late[0][0]])
            self.series.points += late
            self.changed()

    async def _read_out(self, run: RunSummary) -> None:
        """Asks for the words nearest to the run's soft tokens as they are now, and what those words mean as text."""
        try:
            found = await self.context.worker.nearest_words(run.id)
            if self.run == run.id:
                now = self.followed or run
                self._show_readout(run.id, Readout(found.text, found.rows, found.as_text, now.best_similarity))
        except SoftPromptError:
            pass  # the training ended meanwhile; the entry's readout is shown then
        finally:
            self._reading = False

    def _show_readout(self, of: str, readout: Readout) -> None:
        self.readout_of, self.readout = of, readout
        self.changed(at_once=True)

    def _no_readout(self, why: str) -> None:
        self.readout_of, self.readout, self.no_readout = "", None, why
        self.changed(at_once=True)

    async def _open(self, entry_id: str, of_run: str = "") -> None:
        """Shows an entry: the one that the cursor is on, or what the followed run is about or came to."""
        if not of_run:
            await asyncio.sleep(OPEN_AFTER)
        try:
            entry = await asyncio.to_thread(self.context.library.open, entry_id)
        except SoftPromptError as error:
            if not of_run:
                self.title, self.series, self.figures = entry_id, Series(), LossFigures(error=str(error))
                self.changed(at_once=True)
            return
        if self.run == of_run if of_run else self.entry == entry_id:
            self._show(entry)

    def _show(self, entry: Entry) -> None:
        self.read = entry
        if not ((run := self.followed) and run.of_entry):  # that one's curve is of another search
            self._show_training(entry)
        made = entry.prompt
        rows = tuple(
            ((read.token, read.cosine), *((near.token, near.cosine) for near in read.alternatives))
            for read in made.readout
        )
        self.facts = (entry.id, in_full(entry))
        if rows:
            self._show_readout(entry.id, Readout(made.readout_text, rows, made.readout_similarity, made.similarity))
        else:
            self._no_readout("Its model is not known, so it cannot be read out." if not made.model else "")

    def _show_training(self, entry: Entry) -> None:
        made = entry.prompt
        losses, similarities = made.losses.tolist(), made.similarities.tolist()
        if not (self.run and self.series.restarts):  # an entry holds the best restart's curve only
            self.series = Series(
                (i + 1, loss, similarity)
                for i, (loss, similarity) in enumerate(zip(losses, similarities, strict=False))
            )
        self.title = made.name
        words = entry.note or ("" if made.similarity is not None else FROM_A_FILE)
        self.figures = LossFigures(
            made.steps or None, None, made.loss, made.similarity, steps_per_second=made.steps_per_second,
            composed=made.composition.mean if made.composition else None, words=words,
        )  # fmt: skip
