"""The bell: tell the user through the terminal that a long run has ended."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from softprompt.errors import ConfigError, shorten
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.screens.dialogs import AskKey, AskText, ask_until_accepted

if TYPE_CHECKING:
    from softprompt.worker.summary import RunSummary
    from softprompt_tui.app_context import AppContext

MIN_INTERVAL_SECONDS = 5.0  # runs that end together ring once
MAX_SECONDS = 86_400
MEANINGS = {"off": "off", "bell": "bell", "osc9": "OSC 9", "osc777": "OSC 777"}
ANSWERS = (
    ("b", "bell", "the bell character; works everywhere, also through tmux and SSH"),
    ("9", "osc9", "OSC 9, a desktop notification: iTerm2, kitty, WezTerm, Ghostty"),
    ("7", "osc777", "OSC 777, a desktop notification: foot, WezTerm, Ghostty, rxvt"),
    ("o", "off", "off"),
)  # key, setting, meaning


class BellController:
    """Rings when a long run ends, if it was started here or is in view. Lets the user choose the kind of bell."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self._rang_at = -MIN_INTERVAL_SECONDS

    def describe(self) -> str:
        """Return the current setting for the command palette."""
        settings = self.context.settings
        if settings.bell == "off":
            return "now: off"
        return f"now: {MEANINGS[settings.bell]}, for runs of {settings.bell_seconds} s or more"

    def run_ended(self, run: RunSummary, is_in_view: bool) -> None:
        """Ring if the user may be waiting for this run. A run that was stopped on purpose does not ring."""
        is_awaited = is_in_view or run.id in self.context.runs.started_here
        if run.state == "stopped" or not is_awaited or _seconds(run) < self.context.settings.bell_seconds:
            return
        now = time.monotonic()
        if now - self._rang_at < MIN_INTERVAL_SECONDS:
            return
        self._rang_at = now
        similarity = "" if run.best_similarity is None else f", similarity {format_number(run.best_similarity)}"
        outcome = f"failed: {run.error}" if run.state == "failed" else f"is done{similarity}"
        self.context.notify_terminal(f"{run.display_name} {outcome}")

    async def choose(self) -> None:
        """Ask how to notify the user and after how many seconds, and ring once to show it."""
        context, settings = self.context, self.context.settings
        seconds = ("s", f"change the minimum length of a run; now {settings.bell_seconds} s")
        keys = [(key, meaning) for key, _, meaning in ANSWERS]
        question = (
            f"How should the terminal notify you when a long run ends ({self.describe()})?\n"
            "In tmux, OSC 9 and OSC 777 need `set -g allow-passthrough on`."
        )
        answer = await context.ask(AskKey(question, [*keys, seconds]))
        if not answer:
            return
        if answer == "s":
            question = "Minimum length, in seconds, of a run that notifies you"
            now = f"{settings.bell_seconds}"
            await ask_until_accepted(
                context, lambda refused, reason: AskText(question, refused or now, reason), self._set_seconds
            )
        else:
            settings.bell = next(setting for key, setting, _ in ANSWERS if key == answer)
            context.notify_terminal("test: this is the notification for long runs")
            self._save()

    async def _set_seconds(self, typed: str) -> None:
        """Set the minimum length of a run that rings. Raises ConfigError if it is not a whole number, or too large."""
        digits = typed.strip()
        # the length first: Python refuses to read thousands of digits
        if not digits.isdecimal() or len(digits) > len(f"{MAX_SECONDS}") or int(digits) > MAX_SECONDS:
            raise ConfigError(f"{shorten(typed, 20)!r} cannot be used. Give whole seconds, 0 to {MAX_SECONDS:,}.")
        self.context.settings.bell_seconds = int(digits)
        self._save()

    def _save(self) -> None:
        self.context.save_settings()
        self.context.show_status(f"notification of long runs: {self.describe().removeprefix('now: ')}")


def _seconds(run: RunSummary) -> float:
    """Return how long a run took, with loading its model and without waiting for its turn."""
    try:
        return (datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.began)).total_seconds()
    except (ValueError, TypeError):  # it never began, or comes from a worker that wrote no time zone
        return 0.0
