"""Say that a run has ended: in a notice and, if it failed, in the title line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from softprompt_tui.messages import LibraryChanged
from softprompt_tui.rendering.failure import brief_reason, failure_title
from softprompt_tui.rendering.numbers import format_number

if TYPE_CHECKING:
    from softprompt.worker.summary import RunSummary
    from softprompt_tui.app_context import AppContext


class AnnouncementsController:
    """Announces the end of runs. Says briefly that a run failed, because the loss pane shows why and what to do."""

    def __init__(self, context: AppContext, is_sweep_open: Callable[[str], bool]) -> None:
        self.context, self.is_sweep_open = context, is_sweep_open
        self._unseen_failure = ""  # id of the last run that failed out of view

    def announce_end(self, run: RunSummary, is_in_view: bool) -> None:
        if run.state == "failed":
            self._unseen_failure = "" if is_in_view else run.id
            where = "F3" if is_in_view else "enter in runs (F6)"
            self.context.show_status(
                f"{run.display_name} failed: {brief_reason(run)}. {where} shows what to do.", "error"
            )
        elif run.kind == "sweep":
            if run.results and not self.is_sweep_open(run.id):
                ended = "stopped" if run.state == "stopped" else "done"
                self.context.show_status(
                    f"sweep {ended}: enter in runs (F6) shows and saves results. {run.display_name}",
                    name=run.display_name,
                )
        elif run.entry:
            result = "has a hard readout" if run.kind == "hard" else "is in the library"
            similarity = "" if run.best_similarity is None else f", similarity {format_number(run.best_similarity)}"
            self.context.show_status(f"{run.display_name} {result}{similarity}", name=run.display_name)
            self.context.post(LibraryChanged(run.entry, by_user=False))

    def forget_failure(self) -> None:
        """Stop naming the run that failed out of view, because the user goes on."""
        self._unseen_failure = ""

    def failure(self, in_view: RunSummary | None, room: int) -> tuple[str, bool]:
        """Return what the title line says about a failed run, or "", and whether that run is in view."""
        if in_view is not None and in_view.id == self._unseen_failure:
            self._unseen_failure = ""
        if in_view is not None and in_view.state == "failed":
            return failure_title(in_view, room), True
        unseen = self.context.runs.by_id.get(self._unseen_failure)
        is_unseen = unseen is not None and unseen.state == "failed"
        return (f"{self._unseen_failure[:6]} failed: F6 shows why" if is_unseen else ""), False
