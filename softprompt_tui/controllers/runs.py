"""The runs as the interface knows them: what the worker says of them, what that changes on the screen, and what is asked of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from softprompt.composition.sentence import read_sentence
from softprompt.encoders.catalog import MINI
from softprompt.errors import BadName, PromptError, SoftPromptError
from softprompt.jobs.job import AnyJob, TrainJob, job_of_sentence
from softprompt.jobs.parsing import YES
from softprompt.jobs.preflight import check_fits
from softprompt.prompts.syntax import describe_syntax
from softprompt.worker import protocol as p
from softprompt.worker.events import ENDED
from softprompt_tui.rendering.sanitize import inert
from softprompt_tui.screens.dialogs import AskKey, AskText
from softprompt_tui.services.job_form import job_of, typed_prompt
from softprompt_tui.state.queue import told

if TYPE_CHECKING:
    from softprompt_tui.app import SoftPromptApp

ROWS_EVERY = 1.0  # seconds between two drawings of the list while something trains
CHANGES_EVERY = 0.25  # seconds between two drawings while runs change: thousands may at once
NAMES = {"sweep": "swept"}
LIVE = ("text", "hard_similarity", "hard_step", "hard_steps", "swept")  # only reports have them
GOING = ("running", "queued")
_FIRST = {"running": 0, "queued": 1, "paused": 2, "unreadable": 3}


class Runs:
    """`known` by their ids."""

    def __init__(self, app: SoftPromptApp) -> None:
        self.app = app
        self.known: dict[str, dict[str, Any]] = {}
        self.on_their_way = 0  # what was asked for and is not known yet
        self.ours: set[str] = set()  # the runs that were started here: the worker's others are another interface's or a command's
        self._arrived = asyncio.Event()
        self._gone = False
        self._unlisted: set[str] = set()  # known from an earlier connection, and not told of again yet
        self._shown_at = self._shows_at = 0.0  # when the list was drawn, and will be

    def count(self, state: str) -> int:
        return sum(run["state"] == state for run in self.known.values())

    # what the worker says

    def heard(self, message: dict[str, Any]) -> None:
        app = self.app
        if not app.is_there():
            return
        match message["type"]:
            case "link":
                self._gone = self._gone or message["state"] == "gone"
                if message["state"] == "gone" and message["why"]:
                    app.clear_notifications()  # the one before says why the try before failed
                    app.say(f"{message['why']}. What it trained is kept; ctrl+r starts it again", "error", stays=True)
                elif message["state"] == "starting" and message["why"]:
                    app.say(message["why"])
                app.show_title()
            case "snapshot":
                if self._gone:  # what was said of that is over
                    app.clear_notifications()
                self._gone = False
                self._unlisted = set(self.known)
                self._take_page(message)
                self._show_now()
                app.shown.changed()
                running = next((run["id"] for run in message["runs"] if run["state"] in GOING), "")
                if running:
                    app.shown.run = ""
                    app.shown.show_run(running)
                if (app.prompt_pane.fields["model"] or MINI).lower() == MINI:
                    app.questions.warm()
                app.questions.compose()
            case "page":
                self._take_page(message)
                self.show()
            case "run":
                self.changed(message["run"])
            case "report" if message["run"] in self.known:
                # what a sweep has come to is told under the name of what it was asked for
                told = {NAMES.get(key, key): value for key, value in message.items() if key not in ("type", "run", "tokens")}
                self.known[message["run"]] |= told
                app.shown.report(message)
                app.sweeps.changed(message["run"])
                if app.runs_pane.display:
                    self._show_within(ROWS_EVERY)
            case "dropped":
                self.known.pop(message["run"], None)
                self._unlisted.discard(message["run"])
                self.show()

    def _take_page(self, message: dict[str, Any]) -> None:
        """What the last page leaves unlisted is gone: it was dropped while there was no connection."""
        for run in message["runs"]:
            self._know(run)
        if not message.get("more"):
            for gone in self._unlisted:
                del self.known[gone]
            self._unlisted.clear()

    def _know(self, run: dict[str, Any]) -> dict[str, Any]:
        self._unlisted.discard(run["id"])
        known = self.known[run["id"]] = _whole(run, self.known.get(run["id"]))
        return known

    def changed(self, run: dict[str, Any]) -> None:
        app, before = self.app, self.known.get(run["id"])
        run = self._know(run)
        self.show()
        begins = run["state"] == "running" and (before is None or before["state"] != "running")
        if begins and not self.is_training(app.shown.run):
            app.shown.show_run(run["id"])
        app.shown.told(run)
        app.sweeps.changed(run["id"])
        if run["state"] in ENDED and before is not None and before["state"] not in ENDED:
            self._ended(run)

    def _ended(self, run: dict[str, Any]) -> None:
        app, what = self.app, run["name"] or run["prompt"][:40]
        if run["state"] == "failed":
            app.say(f"{what} failed: {run['error']}", "error")
        elif run["kind"] == "sweep":
            if run["results"] and not app.sweeps.is_open(run["id"]):
                ended = "stopped" if run["state"] == "stopped" else "done"
                app.say(f"sweep {ended}: enter in runs (F6) shows it and keeps what is chosen. {what}")
        elif run["entry"]:
            similarity = run.get("best_similarity")
            told = "has a hard readout" if run["kind"] == "hard" else "is in the library"
            app.say(f"{what} {told}" + (f", similarity {similarity:.4f}" if similarity is not None else ""))
            app.entries.changed("" if app.library_pane.table.has_focus else run["entry"])

    def is_training(self, run: str) -> bool:
        return run in self.known and self.known[run]["state"] == "running"

    def waits(self, run: dict[str, Any]) -> str:
        """What a run that waits for its turn waits for, in words."""
        return told(run, self.in_order())

    def in_order(self) -> list[dict[str, Any]]:
        """What trains, what waits, what is over, the latest first."""
        runs = self.known.values()
        going = sorted((run for run in runs if run["state"] in _FIRST), key=lambda run: (_FIRST[run["state"]], run["position"]))
        over = sorted((run for run in runs if run["state"] not in _FIRST), key=lambda run: run["ended"], reverse=True)
        return [*going, *over]

    def show(self) -> None:
        """Draw the list: now, or soon when it was drawn a moment ago."""
        self._show_within(max(0.0, self._shown_at + CHANGES_EVERY - time.monotonic()))

    def _show_within(self, seconds: float) -> None:
        if not seconds:
            self._show_now()
        elif not self._shows_at or self._shows_at > time.monotonic() + seconds:
            self._shows_at = time.monotonic() + seconds
            self.app.set_timer(seconds, self._show_due)

    def _show_due(self) -> None:
        if self._shows_at:  # else it has been drawn meanwhile
            self._show_now()

    def _show_now(self) -> None:
        self._shows_at = 0.0
        if not self.app.is_there():
            return
        self._shown_at = time.monotonic()
        self.app.runs_pane.show(self.in_order())
        self.app.show_title()
        self.app.shown.queue_moved()
        self.app.sweeps.queue_moved()

    # what is asked

    async def train(self) -> None:
        """Hands the prompt in the editor to the worker."""
        app, pane = self.app, self.app.prompt_pane
        try:
            await self.submit(job_of(pane.prompt, pane.fields, app.settings.more))
        except SoftPromptError as error:
            app.say(str(error), "error")

    async def submit(self, job: AnyJob) -> str:
        """Hands the worker what is to be made of the prompt in the editor; the run's id. Raises SoftPromptError."""
        app, pane = self.app, self.app.prompt_pane
        run = await self.hand_in(job)
        self._say_syntax(pane.prompt)
        app.settings.more.pop("name", None)  # a name is for one
        app.settings.remember(pane.prompt)
        pane.remembered(app.settings.prompts)
        self.submitted(run)
        app.save_settings()
        return str(run["id"])

    def _say_syntax(self, prompt: str) -> None:
        """Say once of a prompt that it has what image programs read as syntax."""
        kinds, more = typed_prompt(prompt, self.app.settings.more).kinds, self.app.settings.more
        if kinds and prompt not in self.app.settings.prompts:
            is_plain = more.get("plain", "").lower() in YES
            self.app.say(describe_syntax(kinds, is_plain, "plain: yes in the settings (F8)"), "warning")

    async def hand_in(self, job: AnyJob) -> dict[str, Any]:
        """Gives the worker a job, unless its model would refuse it when its turn comes; the run. Raises SoftPromptError."""
        self.on_their_way += 1
        self._arrived.clear()
        try:
            await asyncio.to_thread(check_fits, job)  # the first time 0.1 s, for CLIP's vocabulary
            run = await self.app.line.ask(p.Submit(job.as_dict()))
            self.ours.add(run["id"])
            return run
        finally:
            self.on_their_way -= 1
            if not self.on_their_way:
                self._arrived.set()

    async def all_handed_in(self) -> None:
        """Waits until the worker has all that was asked for, or has refused it."""
        while self.on_their_way:
            await self._arrived.wait()

    def submitted(self, run: dict[str, Any]) -> None:
        """The worker has taken a run. What it said of it since, before this answer was read, is newer."""
        if run["id"] not in self.known:
            self.changed(run)
        if not self.is_training(self.app.shown.run):
            self.app.shown.show_run(run["id"])

    async def train_composition(self) -> None:
        """Lets the worker train a soft prompt that means the composition, with the settings beside the prompt and a name that is asked for."""
        app = self.app
        try:
            job = await asyncio.to_thread(self._job_of_composition, app.compose_pane.composition)
            await asyncio.to_thread(check_fits, job)  # before a name is asked for
            question, name = "A soft prompt that means all of it is trained; its name", ""
            while True:
                typed = await app.push_screen_wait(AskText(question, name))
                if not typed:
                    return
                try:
                    name = await asyncio.to_thread(app.library.free_name, typed)
                    break
                except BadName as error:  # asked again, with what was typed
                    question, name = inert(str(error)), typed
            self.submitted(await self.hand_in(replace(job, name=name)))
            app.say(f"{name} is handed to the worker")
        except SoftPromptError as error:
            app.say(str(error), "error")

    def _job_of_composition(self, composition: str) -> TrainJob:
        """Raises SoftPromptError for what cannot be trained."""
        library, pane, opened = self.app.library, self.app.prompt_pane, self.app.entries.opened
        sentence = read_sentence(composition, library.open, library.open(opened) if opened else None)
        if not sentence.words:
            raise PromptError(
                "there is no soft prompt in the composition: [name] is one; ctrl+t trains what stands in the prompt"
            )
        usual = job_of(composition, pane.fields, self.app.settings.more | {"name": ""})
        settings = {name: getattr(usual, name) for name in ("config", "model", "device", "precision", "hard")}
        return job_of_sentence(sentence, **settings)

    def act(self, action: str, run_id: str) -> None:
        run = self.known.get(run_id)
        if run is None:
            return
        match action:
            case "show":
                self.app.shown.show_run(run_id)
                if run["kind"] == "sweep":
                    self.app.sweeps.open(run_id)
            case "harden" if run["entry"]:
                self.app.begin(partial(self.app.hard.look_for, run["entry"]), group="requests")
            case "harden":
                self.app.say("a hard readout is looked for of what is in the library: when the training is done")
            case "stop":
                self._ask(p.Stop(run_id))
            case "pause":
                self._ask(p.Resume(run_id) if run["state"] == "paused" else p.Pause(run_id))
            case "retry":
                self._ask(p.Resume(run_id))
            case "drop" if run["step"] and run["state"] in ("paused", "failed"):
                self.app.begin(partial(self._drop, run), group="dialogs")
            case "drop":
                self._ask(p.Drop(run_id))
            case "up" | "down":
                self._move(run_id, -1 if action == "up" else 1)

    async def _drop(self, run: dict[str, Any]) -> None:
        what = f"{inert(run['name'] or run['prompt'][:40])} has come to step {run['step']}, and nothing of it is saved."
        if await self.app.push_screen_wait(AskKey(what, [("d", "drop it all the same")])) == "d":
            await self._asked(p.Drop(run["id"]))

    def going(self) -> list[str]:
        """The runs that train or wait."""
        return [run["id"] for run in self.known.values() if run["state"] in GOING]

    async def stop(self, runs: list[str]) -> list[str]:
        """Ends what trains of them, with the best so far saved, and what waits; says what could not be stopped, and why."""
        refused = []
        for run in runs:
            try:
                await self.app.line.ask(p.Stop(run), within=10)
            except SoftPromptError as error:
                now = self.known.get(run, {})
                if now.get("state") in GOING:  # else it was over meanwhile
                    refused.append(f"{now['name'] or now['prompt'][:40]} is not stopped: {error}")
        return refused

    def _move(self, run: str, way: int) -> None:
        waiting = [one["id"] for one in self.in_order() if one["state"] in ("queued", "paused")]
        if run in waiting and 0 <= (at := waiting.index(run) + way) < len(waiting):
            before = waiting[at] if way < 0 else waiting[at + 1] if at + 1 < len(waiting) else ""
            self._ask(p.Move(run, before))

    def _ask(self, request: p.Request) -> None:
        self.app.begin(partial(self._asked, request), group="requests")

    async def _asked(self, request: p.Request) -> None:
        try:
            await self.app.line.ask(request)
        except SoftPromptError as error:
            self.app.say(str(error), "error")


def _whole(run: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """A run as the worker tells it, with what only its reports have told, and with what an older worker does not tell."""
    live = {key: value for key, value in (before or {}).items() if key in LIVE}
    return {"kind": "train", "sweep": [], "results": [], "of_entry": ""} | live | run
