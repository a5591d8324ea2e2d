"""The interface: one screen, its keys, and who hears what. It loads no torch; the worker trains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual import on, work
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.filter import LineFilter
from textual.screen import Screen
from textual.widgets import Footer, Static

from softprompt.errors import HomeError, SoftPromptError
from softprompt.library import Library
from softprompt.worker import protocol as p
from softprompt.worker.runfolder import ENDED
from softprompt_tui import settings as kept
from softprompt_tui.client import Line
from softprompt_tui.entries import Entries
from softprompt_tui.guard import Guard
from softprompt_tui.inert import inert
from softprompt_tui.jobs import job_of
from softprompt_tui.messages import CompositionChanged, EntryAction, EntryHighlighted, PromptChanged, RunAction, TrainAsked
from softprompt_tui.screens.ask import AskKey
from softprompt_tui.screens.help import HelpScreen
from softprompt_tui.screens.more import MoreScreen
from softprompt_tui.screens.plot import PlotScreen
from softprompt_tui.shown import Shown, literal
from softprompt_tui.themes import THEMES
from softprompt_tui.widgets.compose import ComposePane
from softprompt_tui.widgets.library import LibraryPane
from softprompt_tui.widgets.loss import LossPane
from softprompt_tui.widgets.prompt import PromptPane
from softprompt_tui.widgets.readout import ReadoutPane
from softprompt_tui.widgets.runs import RunsPane

if TYPE_CHECKING:
    from softprompt.library.entry import Entry

GUARD = Guard()
UNDER_NOTHING = {"pane", "help", "plot", "more", "leave", "train"}
SAID_FOR = 5.0  # seconds that a word stands in the first line
BELOW = {"library": "F4 Library", "compose": "F5 Compose", "runs": "F6 Runs"}
_DOWN = {"starting": "starting the worker", "gone": "no worker: ctrl+r starts it", "": ""}


class SoftPromptApp(App[None]):
    """The application. `library` and `line` are what it works on; tests give their own line."""

    TITLE = "softprompt-tui"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (72, "-normal"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (36, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "Help", key_display="F1", priority=True),
        Binding("question_mark", "help", "Help", show=False),
        Binding("f2", "pane('prompt')", "Prompt", show=False, priority=True),
        Binding("f3", "plot", "Plot", show=False, priority=True),
        Binding("f4", "pane('library')", "Library", show=False, priority=True),
        Binding("f5", "pane('compose')", "Compose", show=False, priority=True),
        Binding("f6", "pane('runs')", "Runs", show=False, priority=True),
        Binding("f8", "more", "Settings", show=False, priority=True),
        Binding("ctrl+t", "train", "Train"),
        Binding("ctrl+r", "mend", "Start worker", show=False),
        Binding("ctrl+q", "leave", "Quit", priority=True),
    ]

    def __init__(self, library: Library | None = None, line: Line | None = None) -> None:
        super().__init__()
        self.settings, self._notice = kept.load()
        self.library = library or Library(say=self._say_later)
        self.line = line or Line(self._heard)
        self.line.tell = self._heard
        self.runs: dict[str, dict[str, Any]] = {}
        self.order: list[str] = []
        self.opened = ""  # the entry whose tokens [v1], [v2], … are
        self.shown = Shown(self)
        self.entries = Entries(self)
        self.below = self.settings.pane if self.settings.pane in BELOW else "library"
        self._seen_change = 0
        for theme in THEMES:
            self.register_theme(theme)

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), GUARD]

    def compose(self) -> ComposeResult:
        yield Static("", id="title", markup=False)
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield PromptPane(self.settings.prompt, self.settings.train, self.settings.prompts)
                yield LibraryPane(self.library, self.settings.sort)
                yield ComposePane(self.library, self.settings.compose)
                yield RunsPane()
            with Vertical(id="right"):
                yield LossPane()
                yield ReadoutPane()
        yield Footer()

    def on_mount(self) -> None:
        self.theme = self.settings.theme if self.settings.theme in self.available_themes else "softprompt-dark"
        self._show_below(self.below)
        self.prompt_pane.editor.focus()
        self._title()
        if self._notice:
            self.say(self._notice, "warning")
        self.begin(self.line.run, group="line")
        self._count()
        self._seen_change = self.library.revisions.changed_at()
        self._offer_models()
        self.set_interval(3.0, self._look_for_entries)

    def begin(self, work: Callable[[], Any], group: str, exclusive: bool = False) -> None:
        """Starts `work` beside everything else; with `exclusive`, what was begun in that group before is given up."""
        self.run_worker(work, group=group, exclusive=exclusive)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """While something lies over the panes, its own keys hold: nothing under it is reached unseen."""
        return action not in UNDER_NOTHING or len(self.screen_stack) == 1

    # panes

    @property
    def prompt_pane(self) -> PromptPane:
        return self.screen_stack[0].query_one(PromptPane)

    @property
    def loss(self) -> LossPane:
        return self.screen_stack[0].query_one(LossPane)

    @property
    def readout(self) -> ReadoutPane:
        return self.screen_stack[0].query_one(ReadoutPane)

    @property
    def library_pane(self) -> LibraryPane:
        return self.screen_stack[0].query_one(LibraryPane)

    @property
    def compose_pane(self) -> ComposePane:
        return self.screen_stack[0].query_one(ComposePane)

    @property
    def runs_pane(self) -> RunsPane:
        return self.screen_stack[0].query_one(RunsPane)

    def _show_below(self, name: str) -> None:
        self.below = name
        tabs = "  ".join(f"[b]{label}[/b]" if one == name else f"[dim]{label}[/dim]" for one, label in BELOW.items())
        for one in BELOW:
            pane = self.screen_stack[0].query_one(f"#{one}")
            pane.display = one == name
            pane.border_title = tabs

    def action_pane(self, name: str) -> None:
        if name == "prompt":
            self.screen.set_focus(self.prompt_pane.editor)
            return
        self._show_below(name)
        focus = {
            "library": self.library_pane.table,
            "runs": self.runs_pane.table,
            "compose": self.compose_pane.query_one("#composition"),
        }
        self.screen.set_focus(focus[name])  # at once: what is typed next is meant for it

    def say(self, words: str, severity: Literal["information", "warning", "error"] = "information") -> None:
        """News stand in the first line for a while; what went wrong lies over the panes for longer."""
        if severity == "information":
            self._word = words
            self._title()
            self.set_timer(SAID_FOR, partial(self._unsay, words))
            return
        self.notify(inert(words), severity=severity, markup=False, timeout=12)
        # a notice that goes is not always painted over by itself
        self.set_timer(12.3, self._repaint)

    def _unsay(self, words: str) -> None:
        if self._word == words:
            self._word = ""
            self._title()

    def _repaint(self) -> None:
        self.screen.refresh()

    _word = ""

    def _say_later(self, words: str) -> None:
        self.call_later(self.say, words)

    def _title(self) -> None:
        going = sum(run["state"] == "running" for run in self.runs.values())
        waiting = sum(run["state"] == "queued" for run in self.runs.values())
        state = _DOWN.get(self.line.state) if self.line.state != "up" else "worker ready" if not going else "training"
        parts = [
            "" if self._word else "softprompt-tui",
            state or "",
            f"{waiting} waiting" if waiting else "",
            f"open: {self._opened_name}" if self.opened and not self._word else "",
            self._word,
        ]
        self.screen_stack[0].query_one("#title", Static).update(inert("  ·  ".join(filter(None, parts))))

    _opened_name = ""

    # the worker

    def _heard(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "link":
                if message["state"] == "gone" and message["why"]:
                    self.say(f"{message['why']}. What it trained is kept; ctrl+r starts it again", "error")
                self._title()
            case "snapshot":
                self.runs = {run["id"]: run for run in message["runs"]}
                self._runs_changed()
                self.shown.changed()
                running = next((run["id"] for run in message["runs"] if run["state"] in ("running", "queued")), "")
                if running:
                    self.shown.run = ""
                    self.shown.show_run(running)
                self._composition()
            case "run":
                self._run_changed(message["run"])
            case "report":
                run = self.runs.get(message["run"])
                if run is not None:
                    run |= {key: value for key, value in message.items() if key not in ("type", "run", "tokens")}
                    self.shown.report(message)
                    self._rows_soon()
            case "dropped":
                self.runs.pop(message["run"], None)
                self._runs_changed()
            case "making_way":
                self.say("a worker of an older version finishes its run and makes way")

    def _run_changed(self, run: dict[str, Any]) -> None:
        before = self.runs.get(run["id"])
        self.runs[run["id"]] = run
        self._runs_changed()
        if (
            run["state"] == "running"
            and (before is None or before["state"] != "running")
            and not self._is_training(self.shown.run)
        ):
            self.shown.show_run(run["id"])
        if run["id"] == self.shown.run:
            self.shown.changed()
        if run["state"] in ENDED and before is not None and before["state"] not in ENDED:
            what = run["name"] or run["prompt"][:40]
            if run["state"] == "failed":
                self.say(f"{what} failed: {run['error']}", "error")
            elif run["entry"]:
                similarity = run.get("best_similarity")
                self.say(f"{what} is in the library" + (f", similarity {similarity:.4f}" if similarity is not None else ""))
                self.entries_changed("" if self.library_pane.table.has_focus else run["entry"])

    def _is_training(self, run: str) -> bool:
        return run in self.runs and self.runs[run]["state"] == "running"

    def _runs_changed(self) -> None:
        first = {"running": 0, "queued": 1, "paused": 2}
        going = sorted(
            (run for run in self.runs.values() if run["state"] in first), key=lambda run: (first[run["state"]], run["position"])
        )
        over = sorted(
            (run for run in self.runs.values() if run["state"] not in first), key=lambda run: run["ended"], reverse=True
        )
        self.order = [run["id"] for run in (*going, *over)]
        self.runs_pane.show([*going, *over])
        self._title()

    _rows_waiting = False

    def _rows_soon(self) -> None:
        if self.below == "runs" and not self._rows_waiting:
            self._rows_waiting = True
            self.set_timer(1.0, self._rows)

    def _rows(self) -> None:
        self._rows_waiting = False
        self._runs_changed()

    def action_mend(self) -> None:
        if self.line.state == "up":
            self.say("the worker is there")
        self.line.mend()

    @work
    async def _request(self, request: p.Request) -> None:
        try:
            await self.line.ask(request)
        except SoftPromptError as error:
            self.say(str(error), "error")

    # training

    @on(TrainAsked)
    def action_train(self) -> None:
        self._train()

    @work(exclusive=True, group="train")
    async def _train(self) -> None:
        pane = self.prompt_pane
        try:
            job = job_of(pane.prompt, pane.fields, self.settings.more)
            run = await self.line.ask(p.Submit(job.as_dict()))
        except SoftPromptError as error:
            self.say(str(error), "error")
            return
        self.settings.more.pop("name", None)  # a name is for one
        self.settings.remember(pane.prompt)
        pane.remembered(self.settings.prompts)
        self._run_changed(run)
        if not self._is_training(self.shown.run):
            self.shown.show_run(run["id"])
        self._save_settings()

    @on(PromptChanged)
    def _count(self) -> None:
        self._counted()

    @work(exclusive=True, group="count")
    async def _counted(self) -> None:
        from softprompt_tui.tokens import count

        await asyncio.sleep(0.05)  # keys that follow each other are counted once
        pane = self.prompt_pane
        pane.show_count(await asyncio.to_thread(count, pane.editor.text, pane.fields["model"] or "mini"))
        if (chosen := (pane.fields["model"], pane.fields["device"])) != self._composed_on:
            self._composed_on = chosen
            self._composition()

    _composed_on = ("", "")

    @work(group="models")
    async def _offer_models(self) -> None:
        from softprompt.catalogue import is_kept, list_models

        if is_kept():  # else the list would have to be read from open_clip, which takes 5-8 s
            infos = await asyncio.to_thread(list_models)
            self.prompt_pane.offer_models([info.name for info in infos if not info.refused])

    @work
    async def action_more(self) -> None:
        typed = await self.push_screen_wait(MoreScreen(self.settings.more))
        if typed is not None:
            self.settings.more = typed
            self._save_settings()

    @on(RunAction)
    def _act_on_run(self, event: RunAction) -> None:
        run = self.runs.get(event.run)
        if run is None:
            return
        match event.action:
            case "show":
                self.shown.show_run(run["id"])
            case "stop":
                self._request(p.Stop(run["id"]))
            case "pause":
                self._request(p.Resume(run["id"]) if run["state"] == "paused" else p.Pause(run["id"]))
            case "retry":
                self._request(p.Resume(run["id"]))
            case "drop":
                self._request(p.Drop(run["id"]))
            case "up" | "down":
                self._move(run["id"], -1 if event.action == "up" else 1)

    def _move(self, run: str, way: int) -> None:
        waiting = [one for one in self.order if self.runs[one]["state"] in ("queued", "paused")]
        if run in waiting and 0 <= (at := waiting.index(run) + way) < len(waiting):
            before = waiting[at] if way < 0 else waiting[at + 1] if at + 1 < len(waiting) else ""
            self._request(p.Move(run, before))

    # the library

    @on(EntryHighlighted)
    def _highlighted(self, event: EntryHighlighted) -> None:
        if event.by_hand or (not self.shown.run and self.shown.entry in ("", event.entry)):
            if event.entry:
                self.shown.show_entry(event.entry)
            elif not self.shown.run:
                self.shown.nothing()

    @on(EntryAction)
    def _act_on_entry(self, event: EntryAction) -> None:
        self.begin(partial(self.entries.do, event.action, event.entries), group="entries")

    def open_entry(self, entry: Entry) -> None:
        self.opened, self._opened_name = entry.id, entry.prompt.name
        self.shown.show_entry(entry.id)
        self._title()
        self._composition()
        self.say(f"{entry.prompt.name} is open: its tokens are [v1] to [v{entry.prompt.tokens}]")

    def entries_changed(self, to: str) -> None:
        self.library_pane.reload(to)
        if not self.shown.run:
            self.shown.entry = ""  # it is read anew, or another one is shown where it is gone
        if self.opened:
            self._look_at_opened()

    @work(exclusive=True, group="opened")
    async def _look_at_opened(self) -> None:
        """What is open may have another name by now, or be deleted."""
        try:
            self._opened_name = (await asyncio.to_thread(self.library.find, self.opened)).name
        except SoftPromptError:
            self.opened = ""
        self._title()

    def _look_for_entries(self) -> None:
        """Other programs change the library too."""
        changed = self.library.revisions.changed_at()
        if changed != self._seen_change:
            self._seen_change = changed
            self.library_pane.reload(self.library_pane.table.current)

    # composing

    @on(CompositionChanged)
    def _composition(self) -> None:
        self._ask_similarity()

    @work(exclusive=True, group="similarity")
    async def _ask_similarity(self) -> None:
        await asyncio.sleep(0.15)
        pane = self.compose_pane
        if not pane.composition.strip():
            pane.show(None)
            return
        model = self.prompt_pane.fields["model"] or "mini"
        texts = [pane.composition] + [literal(pane.against)] * bool(pane.against.strip())
        try:
            pane.show(await self.line.ask(p.Similarity(model, texts, self.prompt_pane.fields["device"] or "auto", self.opened)))
        except SoftPromptError as error:
            pane.show(None, str(error))

    # the rest

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        yield SystemCommand("Train the prompt", "ctrl+t", self.action_train)
        for name, words in (("prompt", "F2"), ("library", "F4"), ("compose", "F5"), ("runs", "F6")):
            yield SystemCommand(f"Go to {name}", words, partial(self.action_pane, name))
        yield SystemCommand("Show the curve in full", "F3", self.action_plot)
        yield SystemCommand("All settings of a training", "F8", self.action_more)
        yield SystemCommand("Start the worker again", "ctrl+r", self.action_mend)
        yield SystemCommand("Help", "F1", self.action_help)
        for command in super().get_system_commands(screen):
            if command.title in ("Theme", "Screenshot"):
                yield command
        yield SystemCommand("Quit", "ctrl+q; what trains goes on", self.action_leave)

    def action_help(self) -> None:
        pane = next(
            (
                node.id
                for node in (self.focused.ancestors_with_self if self.focused else ())
                if node.id and "pane" in getattr(node, "classes", ())
            ),
            "",
        )
        self.push_screen(HelpScreen((pane or "prompt-pane").removesuffix("-pane")))

    def action_plot(self) -> None:
        self.push_screen(PlotScreen(self.shown.title, self.shown.series))

    @work
    async def action_leave(self) -> None:
        """Quits; asks once where something trains."""
        going = [run for run in self.runs.values() if run["state"] in ("running", "queued")]
        if going and self.line.state == "up":
            what = "A training is under way" if len(going) == 1 else f"{len(going)} trainings are under way or waiting"
            answer = await self.push_screen_wait(
                AskKey(
                    f"{what}.", [("k", "keep training; the next start shows it"), ("s", "stop, save the best so far, and quit")]
                )
            )
            if not answer:
                return
            if answer == "s":
                for run in going:
                    with suppress(SoftPromptError):
                        await self.line.ask(p.Stop(run["id"]), within=10)
        self.leave_now()

    def leave_now(self) -> None:
        """Quits without asking; what trains goes on."""
        self._save_settings()
        self.exit()

    def _save_settings(self) -> None:
        pane = self.prompt_pane
        self.settings.theme, self.settings.pane, self.settings.sort = self.theme, self.below, self.library_pane.order
        self.settings.prompt, self.settings.train, self.settings.compose = (
            pane.editor.text,
            pane.fields,
            self.compose_pane.composition,
        )
        try:
            kept.save(self.settings)
        except (OSError, HomeError) as error:
            self.log(f"settings not saved: {error}")


def main() -> None:
    SoftPromptApp().run()
