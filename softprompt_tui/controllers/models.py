"""The models: what is on disk, and pulling and deleting them. A pull runs in another process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from softprompt.errors import SoftPromptError
from softprompt_tui.messages import ModelsChanged, OnModel
from softprompt_tui.rendering.download import format_share
from softprompt_tui.rendering.numbers import format_bytes, format_duration
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.screens.dialogs import AskKey
from softprompt_tui.services.subprocess_command import run_command, stream_command
from softprompt_tui.state.models import Model, Pull, loaded_name, named_model, usable_models, with_disk_facts

if TYPE_CHECKING:
    from softprompt.encoders.hub_cache import CachedFiles
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.screens.models import ModelsScreen

MAX_TITLE_NAME = 20  # characters of a model's name in the title line
MAX_LISTED_REVISIONS = 5


class ModelsController:
    """Keeps the list of models and the pulls in progress. `chosen_model` returns the model of the prompt."""

    def __init__(self, context: AppContext, chosen_model: Callable[[], str]) -> None:
        self.context, self._chosen_model = context, chosen_model
        self.models: list[Model] = []  # those that can be used
        self._all_models: list[Model] = []
        self._named_models: dict[str, Model] = {}  # on the hub, which the user has named and no list has
        self.pulls: dict[str, Pull] = {}
        self.notice = ""
        self.screen: ModelsScreen | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_listing = self._is_asking = False
        self._is_new_list = True  # otherwise the rows keep their places, even if a model has arrived on disk

    # the screen

    def open(self, purpose: str = "", for_entry: str = "") -> None:
        """Open the screen, to choose the prompt's model or, with `for_entry`, a model to train that entry for."""
        from softprompt_tui.screens.models import ModelsScreen  # takes 8 ms, so only when needed

        if self.screen is None:
            self._is_new_list, self.notice = True, ""
            self.screen = ModelsScreen(self.context, purpose, for_entry)
            self.context.show(self.screen, self._screen_closed)
            self.paint()
            self.refresh()

    def _screen_closed(self) -> None:
        self.screen = None
        self._changed()

    def paint(self) -> None:
        if self.screen is not None:
            chosen = "" if self.screen.for_entry else loaded_name(self._all_models, self._chosen_model())
            self.screen.show(self.models, self.pulls, self.notice, chosen)

    def title(self) -> str:
        """Return what the title line says about pulls while the screen is closed."""
        pulls = [pull for pull in self.pulls.values() if pull.is_active]
        if not pulls or self.screen is not None:
            return ""
        if len(pulls) > 1:
            return f"pulling {len(pulls)} models"
        pull, left = pulls[0], pulls[0].seconds_left()
        name = pull.model if len(pull.model) <= MAX_TITLE_NAME else f"{pull.model[: MAX_TITLE_NAME - 1]}…"
        share = format_share(pull.share) if pull.total else ""
        return " ".join(filter(None, (f"pulling {name}", share, format_duration(left) if left else "")))

    def _changed(self, notice: str | None = None) -> None:
        if notice is not None:
            self.notice = notice
        self.context.post(ModelsChanged())

    # what is on disk

    def refresh(self) -> None:
        """Look at the disk again."""
        if not self._is_listing:
            self._is_listing = True
            self.context.spawn(self._refresh, group="models")

    async def _refresh(self) -> None:
        try:
            latest = await _list_models()
        except SoftPromptError as error:
            self._changed(str(error))
            return
        finally:
            self._is_listing = False
        listed = {model.name for model in latest}
        latest += [model for name, model in self._named_models.items() if name not in listed]
        before, self._all_models = self.models, latest
        for model in latest:
            if model.is_on_disk and model.name in self.pulls and not self.pulls[model.name].is_active:
                del self.pulls[model.name]  # it failed, but another program has pulled the model since then
                self._changed()
        self.models = usable_models(latest) if self._is_new_list else with_disk_facts(before, latest)
        self._is_new_list = False
        if self.models != before:
            self._changed()

    # actions

    def act(self, action: OnModel, name: str) -> None:
        """Act on a model of the list, or on a language model of the hub that the user has named in the search."""
        model = next((model for model in self.models if model.name == name), None)
        if model is None and (model := named_model(self.models, name)) is not None:
            self._named_models[name] = model
            self.models = [*self.models, model]
            self._all_models = [*self._all_models, model]
        if model is None:
            return
        match action:
            case OnModel.PULL:
                self._begin_pull(model)
            case OnModel.CANCEL:
                self._cancel(model)
            case OnModel.DELETE if not self._is_asking:
                self.context.spawn(partial(self._delete, model), group="dialogs")

    def _begin_pull(self, model: Model) -> None:
        pull = self.pulls.get(model.name)
        if model.is_built_in:
            self._changed(f"{model.name} is part of the program; there is nothing to pull")
        elif model.is_on_disk:
            self._changed(f"{model.name} is already on disk; enter uses it")
        elif pull is not None and pull.is_active:
            self._changed(f"{model.name} is already being pulled; x cancels")
        else:
            self.pulls[model.name] = Pull(model.name)
            self._changed("")
            self.context.spawn(partial(self._pull, self.pulls[model.name]), group="pulls")

    async def _pull(self, pull: Pull) -> None:
        name = pull.model
        command = stream_command("models", "pull", "--json", "--", name, on_line=partial(self._report, pull))
        task = self._tasks[name] = asyncio.create_task(command)
        try:
            await task
        except SoftPromptError as error:
            pull.error = str(error)
            self._announce(str(error) if name in str(error) else f"{name} was not pulled: {error}", "error")
        except asyncio.CancelledError:
            if not pull.is_stopping:  # the interface is quitting
                raise
            del self.pulls[name]
            if await asyncio.to_thread(self._is_pulled_elsewhere, name):
                self._announce(f"{name}: stopped waiting; another program is still pulling it")
            elif any(model.name == name and not model.repository for model in self._all_models):
                self._announce(f"{name}: stopped; p pulls it again")  # pip keeps no part of a download
            else:
                self._announce(f"{name}: stopped; p resumes the pull, d deletes the unfinished download")
        else:
            del self.pulls[name]
            self._announce(f"{name} is on disk{'; enter uses it' if self.screen else ''}")
        finally:
            del self._tasks[name]
        self.refresh()

    def _is_pulled_elsewhere(self, name: str) -> bool:
        from softprompt.encoders import hub_cache

        return any(hub_cache.is_being_pulled(model.repository) for model in self._all_models if model.name == name)

    def _report(self, pull: Pull, line: dict[str, Any]) -> None:
        if "note" in line:
            pull.set_note(str(line["note"]).partition(" (Ctrl-C")[0] if line["waiting"] else "")
        elif "stage" in line:
            pull.set_stage(str(line["stage"]))
        elif "total" in line:
            pull.update(line["bytes"], line["total"])
        self._changed()

    def _announce(self, text: str, severity: str = "information") -> None:
        """Show how a pull ended, on its screen or, if that is closed, on the main screen."""
        self._changed(text)
        if self.screen is None:
            self.context.show_status(text, "error" if severity == "error" else "information")

    def _cancel(self, model: Model) -> None:
        pull, task = self.pulls.get(model.name), self._tasks.get(model.name)
        if pull is None or task is None or pull.is_stopping:
            self._changed(f"{model.name} is not being pulled")
            return
        pull.is_stopping = True
        task.cancel()
        self._changed("")

    async def _delete(self, model: Model) -> None:
        """Ask, naming what will be deleted, then delete exactly that."""
        from softprompt.encoders import hub_cache

        if (pull := self.pulls.get(model.name)) is not None and pull.is_active:
            self._changed(f"{model.name} is being pulled; x cancels the pull, then d deletes the unfinished download")
            return
        self._is_asking = True
        try:
            files = await asyncio.to_thread(hub_cache.find_files, model.name, model.repository)
            if not files:
                self._changed(f"{model.name} is not on disk, so there is nothing to delete")
                return
            others = [other.name for other in self.models if other.repository == model.repository and other != model]
            answers = [("d", f"delete {format_bytes(files.bytes)}")]
            if await self.context.ask(AskKey(_question(files, others), answers)) != "d":
                return
            freed = await asyncio.to_thread(hub_cache.delete, files)
        except (SoftPromptError, OSError) as error:  # OSError: no permission to change the folder
            self._changed(str(error))
            return
        finally:
            self._is_asking = False
        self.pulls.pop(model.name, None)  # a failed one
        self._changed(f"{model.name} deleted, {format_bytes(freed)} freed; p pulls it again")
        self.refresh()


async def _list_models() -> list[Model]:
    """Return all models. The first time, another process reads open_clip's list, which takes some seconds.

    Raises:
        SoftPromptError: the list cannot be read.
    """
    described = await asyncio.to_thread(_describe_models)
    if described is None:
        described = await run_command("models", "--json")
    return [Model.from_json(values) for values in described]


def _describe_models() -> Any:
    """Return the output of `models --json`, or None if this would load open_clip into this process."""
    from softprompt.encoders.catalog import is_cached, list_models
    from softprompt.encoders.hub_cache import describe, list_language_models

    return describe([*list_models(), *list_language_models()]) if is_cached() else None


def _question(files: CachedFiles, others: list[str]) -> str:
    """Name everything that will be deleted, and who else may use it."""
    lines = [f"Delete {sanitize(files.model)} from this machine?", ""]
    if files.converted is not None:
        lines += [f"  the converted model  {format_bytes(files.bytes)}", "", "It is in this program's own cache."]
        return "\n".join(lines)
    for revision in files.revisions[:MAX_LISTED_REVISIONS]:
        refs = f"  {sanitize(' '.join(revision.refs))}" if revision.refs else ""
        lines.append(f"  revision {revision.commit[:12]}{refs}  {format_bytes(revision.bytes)}")
    if len(files.revisions) > MAX_LISTED_REVISIONS:
        lines.append(f"  and {len(files.revisions) - MAX_LISTED_REVISIONS} more revisions")
    if files.partials:
        lines.append(f"  an unfinished download  {format_bytes(files.partial_bytes)}")
    lines += ["", "The files are in the Hugging Face cache, a folder that other programs may use too."]
    if others:
        lines.append(f"Other models with the same files: {', '.join(others)}.")
    return "\n".join(lines)
