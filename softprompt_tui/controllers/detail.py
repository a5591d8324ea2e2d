"""The content of the loss, readout and details panes: the followed run, or the entry under the library cursor."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from softprompt.errors import EntryDamaged, EntryNotFound, SoftPromptError
from softprompt.worker.summary import ENDED
from softprompt_tui.messages import DetailChanged, ShownEntryGone
from softprompt_tui.rendering.details import PREPARING_SEARCH, describe_hard_search, entry_facts, run_facts
from softprompt_tui.rendering.download import LOADING
from softprompt_tui.rendering.failure import Failure, describe_failure
from softprompt_tui.rendering.measures import is_for_language_model, measure_names
from softprompt_tui.rendering.sweep_table import sweep_rows
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
OPEN_DELAY_SECONDS = 0.08  # the cursor must rest this long on a row before it is read, so that scrolling stays cheap
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
        self.is_trashed = False  # whether `entry` is in the trash, where it can only be seen
        self.shown_entry: Entry | None = None  # the entry whose readout is shown
        self.is_reading = False  # whether the entry of the followed run is about to be shown
        self.is_chosen_by_cursor = False  # whether the followed run is shown because the cursor of Runs is on it
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
    def curve_labels(self) -> tuple[str, ...]:
        """The label of each individual curve. Restarts have none: they are alike."""
        run = self.followed_run
        return tuple(map(str, run.sweep)) if run else ()

    @property
    def measure(self) -> str:
        """The quantity that the curve shows."""
        run = self.followed_run
        if run and run.kind == "hard":
            return SEARCH_MEASURE
        return measure_names(self.figures.objective if self.figures else "")[0]

    @property
    def followed_run(self) -> RunSummary | None:
        return self.store.by_id.get(self.run)

    @property
    def entry_id(self) -> str:
        """Id of the shown entry, even before the entry has been read; "" if there is none."""
        if self.is_reading and self.followed_run is not None:
            return _entry_of(self.followed_run)
        return self.entry or (self.shown_entry.id if self.shown_entry else "")

    def show_run(self, run: str, is_under_cursor: bool = False) -> None:
        """Follow a run. Fetch its curve so far and its entry, if it has one.

        Args:
            is_under_cursor: the cursor has reached the run and may go on. Keys act on the run at once, but the panes
                show it only when the cursor rests, so that a held key loads no run.
        """
        if self.run == run:
            return
        self.run, self.entry, self.series, self._tokens, self.shown_entry = run, "", Series(), None, None
        self.is_trashed = False
        known = self.followed_run
        self.readout_of, self.readout, self.no_readout_reason = "", None, ""
        self.is_reading = known is not None and bool(_entry_of(known))
        self.is_chosen_by_cursor = is_under_cursor
        delay = OPEN_DELAY_SECONDS if is_under_cursor else 0.0
        self.context.spawn(partial(self._load_run, run, delay), group="curve", exclusive=True)
        if not is_under_cursor:
            self.request_repaint()

    def show_entry(self, entry: str, is_trashed: bool = False) -> None:
        """Show an entry of the library or of its trash."""
        if entry and (entry, is_trashed) != (self.entry, self.is_trashed):
            self.run, self.entry, self.is_trashed, self.is_reading = "", entry, is_trashed, False
            self.context.spawn(partial(self._open_entry, entry), group="curve", exclusive=True)

    def show_nothing(self) -> None:
        self.run, self.entry, self.is_trashed, self.is_reading = "", "", False, False
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
            await asyncio.to_thread(self.context.library.find, entry_id, self.is_trashed)
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
        self._describe(run)
        is_due = time.monotonic() - self._fetched_at > READOUT_SECONDS and not self._is_fetching_readout
        if run.kind == "train" and run.state == "running" and run.step and is_due:
            self._is_fetching_readout, self._fetched_at = True, time.monotonic()
            self.context.spawn(partial(self._fetch_readout, run), group="readout")
        if run.state in ENDED and run.entry and not self.is_reading:
            self.context.spawn(partial(self._open_entry, run.entry, run.id), group="read", exclusive=True)

    def _describe(self, run: RunSummary) -> None:
        """Set the title, the figures and the facts of the followed run."""
        is_live = run.state == "running" and not self._is_worker_gone
        self.title = f"hard readout of {run.title}" if run.kind == "hard" else run.title
        self.figures = LossFigures(
            run.step, run.steps, run.loss, run.similarity, run.best_similarity, steps_per_second=run.steps_per_second,
            is_running=is_live, is_search=run.kind == "hard", status=self._status_text(run),
            error=run.error, failure=self._describe_failure(run), objective=run.objective,
        )  # fmt: skip
        if run.state not in ENDED and not run.of_entry:
            self.shown_entry = None  # the entry does not exist yet
        if self.shown_entry is None:
            self.facts = (run.id, run_facts(run))
        if run.sweep:
            readout = Readout("", (), sweep=tuple(sweep_rows(run)), objective=run.objective)
            if readout != self.readout:
                self.readout_of, self.readout = run.id, readout

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

    async def _load_run(self, run_id: str, delay: float) -> None:
        """Read the entry of the followed run, if it has one, and fetch the curve of the run."""
        await asyncio.sleep(delay)
        run = self.followed_run
        if run is None or run.id != run_id:  # it was dropped in the meantime
            return
        if self.is_reading:
            self._describe(run)
            await self._open_entry(_entry_of(run), run_id)
        await self._fetch_curve(run_id)

    async def _fetch_curve(self, run: str) -> None:
        try:
            points = await self.context.worker.curve(run, MAX_CURVE_POINTS)
        except SoftPromptError:
            points = []
        if self.run != run:
            return
        if self.shown_entry is not None and not _has_own_curve(self.followed_run):
            if (fetched := Series(points)).restarts:  # an entry stores only the curve of its best restart
                self.series = fetched
                self.request_repaint(immediately=True)
            return
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
                readout = Readout(
                    nearest.text, nearest.rows, nearest.as_text, now.best_similarity,
                    is_language_model=is_for_language_model(now.objective),
                )  # fmt: skip
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
            entry = await asyncio.to_thread(self._read_entry, entry_id, self.is_trashed and not of_run)
        except SoftPromptError as error:
            if not of_run:
                self.title, self.series, self.figures = entry_id, Series(), LossFigures(error=str(error))
                self.request_repaint(immediately=True)
            elif self.run == of_run:
                self.is_reading = False  # nothing replaces the readout of what was shown before
            return
        if self.run == of_run if of_run else self.entry == entry_id:
            self._show(entry)

    def _read_entry(self, entry_id: str, is_trashed: bool) -> Entry:
        """Open an entry, or the last revision that an entry in the trash had."""
        library = self.context.library
        entry = library.newest_intact(entry_id) if is_trashed else library.open(entry_id)
        if entry is None:
            raise EntryDamaged(f"{entry_id} cannot be read: it was purged, or its file is damaged.")
        return entry

    def _show(self, entry: Entry) -> None:
        self.shown_entry, self.is_reading = entry, False
        if not _has_own_curve(self.followed_run):
            self._show_training(entry)
        prompt = entry.prompt
        rows = tuple(
            ((soft.token, soft.cosine), *((near.token, near.cosine) for near in soft.alternatives))
            for soft in prompt.readout
        )
        self.facts = (entry.id, entry_facts(entry))
        if rows:
            readout = Readout(
                prompt.readout_text, rows, prompt.readout_similarity, prompt.similarity,
                is_language_model=prompt.is_for_language_model,
                samples=prompt.answers.samples if prompt.answers else (),
            )  # fmt: skip
            self._show_readout(entry.id, readout, True)
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
            objective=str(prompt.config.get("objective", "")),
            kl_share=prompt.answers.kl_share if prompt.answers and prompt.answers.floor > 0 else None,
        )  # fmt: skip


def _has_own_curve(run: RunSummary | None) -> bool:
    """Whether the curve and figures of a followed run stay on the screen when its entry is shown.

    These are searches for a hard readout, and failures, even if the run has saved its best so far.
    """
    return run is not None and bool(run.of_entry or run.state == "failed")


def _entry_of(run: RunSummary) -> str:
    """Return the id of the entry that a run searches for or has saved, or ""."""
    return run.of_entry or (run.entry if run.state in ENDED else "")
