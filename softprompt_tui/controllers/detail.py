"""The content of the loss, readout and details panes: the followed run, or the entry under the library cursor."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from softprompt.errors import EntryNotFound, SoftPromptError
from softprompt.worker.summary import ENDED
from softprompt_tui.messages import DetailChanged, ShownEntryGone
from softprompt_tui.rendering.details import PREPARING_SEARCH, describe_hard_search, entry_facts, run_facts
from softprompt_tui.rendering.download import LOADING
from softprompt_tui.rendering.failure import Failure, describe_failure
from softprompt_tui.state.queue import describe_wait
from softprompt_tui.state.series import Series
from softprompt_tui.widgets.loss import LossFigures
from softprompt_tui.widgets.readout import Readout

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.worker.summary import RunReport, RunSummary
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.rendering.details import Facts

READOUT_SECONDS = 2.0 if os.environ.get("SSH_CONNECTION") else 1.0  # between two readouts of a run that is training
MAX_CURVE_POINTS = 1000
OPEN_DELAY_SECONDS = 0.08  # the cursor must rest this long on an entry before it is read, so that scrolling stays cheap
_STATE_TEXTS = {
    "paused": "paused",
    "done": "done",
    "failed": "failed",
}
NO_WORKER = "waits for the next worker"
SEARCH_MEASURE = "1 - similarity of the best text"
FROM_FILE_NOTE = "Imported from a file that does not record how it was trained."


class DetailController:
    """Follows one run or entry, and decides what the loss, readout and details panes show.

    The attributes are the content of the three panes. After each change, the controller posts DetailChanged, and
    MainScreen._paint_detail repaints the panes.
    """

    def __init__(self, context: AppContext) -> None:
        self.context, self.store = context, context.runs
        self.run = ""  # id of the followed run, "" while an entry is shown
        self.entry = ""
        self.shown_entry: Entry | None = None  # the entry whose readout is shown
        self.title = ""
        self.series = Series()
        self.figures: LossFigures | None = None  # None if nothing is shown
        self.readout_of = ""
        self.readout: Readout | None = None
        self.no_readout_reason = ""
        self.facts: tuple[str, Facts] | None = None  # id of the run or entry, and its facts
        self._fetched_at = 0.0
        self._is_fetching_readout = False
        self._tokens: object = None

    @property
    def curve_names(self) -> str:
        """What the individual curves stand for: "restarts" or "token counts"."""
        run = self.followed_run
        return "token counts" if run and run.sweep else "restarts"

    @property
    def measure(self) -> str:
        """The quantity that the curve shows."""
        run = self.followed_run
        return SEARCH_MEASURE if run and run.kind == "hard" else "loss"

    @property
    def followed_run(self) -> RunSummary | None:
        return self.store.by_id.get(self.run)

    @property
    def entry_id(self) -> str:
        """Id of the shown entry, even before the entry has been read; "" if there is none."""
        return self.entry or (self.shown_entry.id if self.shown_entry else "")

    def show_run(self, run: str) -> None:
        """Follow a run and fetch its curve so far."""
        if self.run == run:
            return
        self.run, self.entry, self.series, self._tokens, self.shown_entry = run, "", Series(), None, None
        known = self.followed_run
        is_sweep = known is not None and bool(known.sweep)
        self.readout_of, self.readout = "", None
        self.no_readout_reason = "The sweep shows its readouts: enter in runs (F6)." if is_sweep else ""
        self.context.spawn(partial(self._fetch_curve, run), group="curve", exclusive=True)
        if known and known.of_entry:
            self.context.spawn(partial(self._open_entry, known.of_entry, run), group="read", exclusive=True)
        self.request_repaint()

    def show_entry(self, entry: str) -> None:
        """Show an entry of the library."""
        if entry and entry != self.entry:
            self.run, self.entry = "", entry
            self.context.spawn(partial(self._open_entry, entry), group="curve", exclusive=True)

    def show_nothing(self) -> None:
        self.run = self.entry = ""
        self.shown_entry = self.figures = self.facts = None
        self._clear_readout("")
        self.request_repaint(immediately=True)

    def reload(self) -> None:
        """Read the shown entry again. If it is gone, ask for the entry under the library cursor."""
        if self.entry:
            self.context.spawn(partial(self._reload_entry, self.entry), group="curve", exclusive=True)
        elif self.run and self.shown_entry is not None:  # a run's result, which may have a new name
            self.context.spawn(partial(self._open_entry, self.shown_entry.id, self.run), group="read", exclusive=True)

    async def _reload_entry(self, entry_id: str) -> None:
        try:
            await asyncio.to_thread(self.context.library.find, entry_id)
        except EntryNotFound:
            if self.entry == entry_id:
                self.entry = ""  # if the list has not been reloaded yet, its next reload shows another entry
                self.context.post(ShownEntryGone(entry_id))
            return
        except SoftPromptError:
            pass  # opening the entry reports the error
        await self._open_entry(entry_id)

    def report(self, report: RunReport) -> None:
        run = self.store.by_id[report.run]
        self.run_changed(run)
        if report.run != self.run:
            return
        if report.text is not None and not run.of_entry:
            return  # training is done and the search for a hard readout is running: not a point on the curve
        if self._tokens not in (None, report.tokens):
            self.series = Series()  # "auto" continues with the next token count
        self._tokens = report.tokens
        self.series.add(report.step, report.loss, report.similarity, report.restarts)
        self.request_repaint()

    def run_changed(self, run: RunSummary) -> None:
        """Repaint if this run is followed, or is searching for the shown entry's hard readout."""
        if run.id == self.run or (self.shown_entry is not None and run.of_entry == self.shown_entry.id):
            self.request_repaint()

    def queue_changed(self) -> None:
        """Repaint if the followed run is queued, because the runs ahead of it may have changed."""
        if (run := self.followed_run) and run.state == "queued":
            self.request_repaint()

    def request_repaint(self, immediately: bool = False) -> None:
        self.context.post(DetailChanged(immediately))

    def refresh(self) -> None:
        """Update the attributes from the followed run before a repaint, and fetch what is missing."""
        run = self.followed_run
        if run is None:
            return
        is_live = run.state == "running" and not self._is_worker_gone
        self.title = f"hard readout of {run.display_name}" if run.kind == "hard" else run.display_name
        self.figures = LossFigures(
            run.step, run.steps, run.loss, run.similarity, run.best_similarity, steps_per_second=run.steps_per_second,
            is_running=is_live, is_search=run.kind == "hard", status=self._status_text(run),
            error=run.error, failure=self._describe_failure(run),
        )  # fmt: skip
        if run.state not in ENDED and not run.of_entry:
            self.shown_entry = None  # the entry does not exist yet
        if self.shown_entry is None:
            self.facts = (run.id, run_facts(run))
        is_due = time.monotonic() - self._fetched_at > READOUT_SECONDS and not self._is_fetching_readout
        if run.kind == "train" and run.state == "running" and run.step and is_due:
            self._is_fetching_readout, self._fetched_at = True, time.monotonic()
            self.context.spawn(partial(self._fetch_readout, run), group="readout")
        if run.state in ENDED and run.entry:
            self.context.spawn(partial(self._open_entry, run.entry, run.id), group="read", exclusive=True)

    @property
    def _is_worker_gone(self) -> bool:
        return self.context.worker.state == "gone"

    def _describe_failure(self, run: RunSummary) -> Failure | None:
        """Describe a failed run. Setting a variable does not help until the worker has it too."""
        if run.state != "failed":
            return None
        is_from_hub = run.error_kind == "ModelUnavailable"
        return describe_failure(run, is_from_hub and self.context.worker.has_other_variables)

    def _status_text(self, run: RunSummary) -> str:
        """Return the text beside the figures of a run."""
        state = run.state
        if state == "queued":
            return describe_wait(run, self.store.sorted_runs())
        if state == "stopped" and not (run.entry or run.results):
            return "stopped; nothing to keep yet"
        if state == "stopped" and run.kind == "sweep":
            return "stopped; enter in runs chooses what to keep"
        if state == "running" and self._is_worker_gone:
            return NO_WORKER
        if state == "running":
            if not run.step:
                return run.stage or (PREPARING_SEARCH if run.kind == "hard" else LOADING)
            if run.kind == "hard":
                return SEARCH_MEASURE
            return f"trained; {search}" if (search := describe_hard_search(run)) else ""
        text = "stopped; the best is saved" if state == "stopped" else _STATE_TEXTS.get(state, "")
        return f"{text}: {SEARCH_MEASURE}" if run.kind == "hard" and run.step and state != "failed" else text

    async def _fetch_curve(self, run: str) -> None:
        try:
            points = await self.context.worker.curve(run, MAX_CURVE_POINTS)
        except SoftPromptError:
            return
        if self.run == run:
            newer = self.series.points  # reported while the curve was being fetched
            self.series = Series([point for point in points if not newer or point[0] < newer[0][0]])
            self.series.points += newer
            self.request_repaint()

    async def _fetch_readout(self, run: RunSummary) -> None:
        """Fetch the nearest tokens of the run's current soft tokens, and show them."""
        try:
            nearest = await self.context.worker.nearest_tokens(run.id)
            if self.run == run.id:
                now = self.followed_run or run
                readout = Readout(nearest.text, nearest.rows, nearest.as_text, now.best_similarity)
                self._show_readout(run.id, readout, immediately=False)
        except SoftPromptError:
            pass  # training has ended, so the entry's readout will be shown instead
        finally:
            self._is_fetching_readout = False

    def _show_readout(self, of: str, readout: Readout, immediately: bool) -> None:
        self.readout_of, self.readout = of, readout
        self.request_repaint(immediately)

    def _clear_readout(self, reason: str) -> None:
        self.readout_of, self.readout, self.no_readout_reason = "", None, reason
        self.request_repaint(immediately=True)

    async def _open_entry(self, entry_id: str, of_run: str = "") -> None:
        """Show an entry: the one under the cursor or, with `of_run`, the one that belongs to the followed run."""
        if not of_run:
            await asyncio.sleep(OPEN_DELAY_SECONDS)
        try:
            entry = await asyncio.to_thread(self.context.library.open, entry_id)
        except SoftPromptError as error:
            if not of_run:
                self.title, self.series, self.figures = entry_id, Series(), LossFigures(error=str(error))
                self.request_repaint(immediately=True)
            return
        if self.run == of_run if of_run else self.entry == entry_id:
            self._show(entry)

    def _show(self, entry: Entry) -> None:
        self.shown_entry = entry
        # Keep the curve of a hard-readout search. Keep the failure of a run too, even if it saved its best so far.
        if not ((run := self.followed_run) and (run.of_entry or run.state == "failed")):
            self._show_training(entry)
        prompt = entry.prompt
        rows = tuple(
            ((soft.token, soft.cosine), *((near.token, near.cosine) for near in soft.alternatives))
            for soft in prompt.readout
        )
        self.facts = (entry.id, entry_facts(entry))
        if rows:
            self._show_readout(
                entry.id, Readout(prompt.readout_text, rows, prompt.readout_similarity, prompt.similarity), True
            )
        else:
            self._clear_readout("Its model is unknown, so there is no readout." if not prompt.model else "")

    def _show_training(self, entry: Entry) -> None:
        prompt = entry.prompt
        losses, similarities = prompt.losses.tolist(), prompt.similarities.tolist()
        if not (self.run and self.series.restarts):  # an entry stores only the curve of its best restart
            self.series = Series(
                (i + 1, loss, similarity)
                for i, (loss, similarity) in enumerate(zip(losses, similarities, strict=False))
            )
        self.title = prompt.name
        status = entry.note or ("" if prompt.similarity is not None else FROM_FILE_NOTE)
        self.figures = LossFigures(
            prompt.steps or None, None, prompt.loss, prompt.similarity, steps_per_second=prompt.steps_per_second,
            composed=prompt.composition.mean if prompt.composition else None, status=status,
        )  # fmt: skip
