"""What the library's keys do. Every change is made in a thread, and what goes wrong is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from softprompt.errors import EntryChanged, EntryNotFound, PromptError, SoftPromptError
from softprompt_tui.controllers.transfer import Files
from softprompt_tui.rendering.details import compared, in_full
from softprompt_tui.rendering.sanitize import inert
from softprompt_tui.screens.dialogs import AskText
from softprompt_tui.screens.progress import GivenUp
from softprompt_tui.screens.text_viewer import TextScreen
from softprompt_tui.screens.training_settings import beside_defaults
from softprompt_tui.services.clipboard import copy
from softprompt_tui.services.job_form import variation_of

if TYPE_CHECKING:
    from softprompt.library import Listed
    from softprompt_tui.app import SoftPromptApp

Result = TypeVar("Result")
CHANGING = ("rename", "tag", "note", "hard_prompt", "delete", "undo", "import")  # actions that change the library
ASKING = ("rename", "tag", "note", "hard_prompt", "export", "import", "detail", "compare")  # actions with a dialog


class Entries:
    """The actions, by the names that messages give them."""

    def __init__(self, app: SoftPromptApp) -> None:
        self.app = app
        self.deleted: list[dict[str, Listed]] = []  # what undo brings back, the last first, as it is in the trash
        self._ours: dict[str, int] = {}  # the revisions that were made here, which the list may not show yet
        self._in_turn = asyncio.Lock()  # a key acts on what the one before it has made
        self.opened = self.opened_name = ""  # the entry whose tokens [v1], [v2], … are
        self._seen = app.library.revisions.changed_at()
        self.files = Files(app)
        self._asking = False

    async def do(self, action: str, entries: tuple[str, ...]) -> None:
        if action in ASKING:
            if self._asking:  # a key that was pressed twice opens one dialog
                return
            self._asking = True
        try:
            async with self._in_turn if action in CHANGING else nullcontext():
                await getattr(self, f"_{action}")(*entries)
        except SoftPromptError as error:
            self.app.say(str(error), "error")
        except GivenUp:
            self.app.say("given up; nothing was written")
        finally:
            if action in ASKING:
                self._asking = False

    def changed(self, to: str) -> None:
        """The library is another: its list is read anew, with the cursor on the entry `to`, or where it was."""
        self._seen = self.app.library.revisions.changed_at()
        self.app.library_pane.reload(to)
        if to and not self.app.shown.run:
            self.app.shown.entry = ""  # what the cursor comes to is shown
        else:
            self.app.shown.read_again()
        if self.opened:
            self.app.begin(self._look_at_opened, group="opened", exclusive=True)

    async def _look_at_opened(self) -> None:
        """What is open may have another name by now, or be deleted."""
        before = self.opened, self.opened_name
        try:
            self.opened_name = (await self._thread(self.app.library.find, self.opened)).name
        except EntryNotFound:
            self.opened = ""
        except SoftPromptError as error:  # nothing is known of it
            self.app.say(str(error), "error")
        if before != (self.opened, self.opened_name):
            self.app.show_title()
            self.app.questions.compose()

    def watch(self) -> None:
        """Looks whether another program has changed the library."""
        if self.app.library.revisions.changed_at() != self._seen:
            self.changed("")

    async def _thread(self, call: Callable[..., Result], *args: Any) -> Result:
        return await asyncio.to_thread(call, *args)

    async def _open(self, entry: str) -> None:
        found = await self._thread(self.app.library.open, entry)
        self.opened, self.opened_name = found.id, found.prompt.name
        self.app.shown.show_entry(found.id)
        self.app.show_title()
        self.app.questions.compose()
        self.app.say(f"{found.prompt.name} is open: its tokens are [v1] to [v{found.prompt.tokens}]")

    async def _detail(self, entry: str) -> None:
        self.app.push_screen(TextScreen(in_full(await self._thread(self.app.library.open, entry)).drawn(20_000)))

    async def _rename(self, entry: str) -> None:
        found = await self._thread(self.app.library.find, entry)
        name = await self.app.push_screen_wait(AskText(f"Another name for {inert(found.name)}", found.name))
        if name and name != found.name:
            try:
                self._ours[entry] = (await self._thread(self.app.library.rename, entry, name, found.revision)).revision
            finally:  # where another one renamed it, that name is to be seen
                self.changed(entry)

    async def _tag(self, *entries: str) -> None:
        found = [await self._thread(self.app.library.find, entry) for entry in entries]
        tags = sorted(set.intersection(*(set(one.tags) for one in found)))
        what = found[0].name if len(found) == 1 else f"{len(found)} soft prompts"
        typed = await self.app.push_screen_wait(AskText(f"Tags of {inert(what)}, with spaces between", " ".join(tags)))
        if typed is not None:
            wanted = typed.split()
            added = [tag for tag in wanted if tag not in tags]  # what another program does to the other tags meanwhile, holds
            removed = [tag for tag in tags if tag not in wanted]
            for entry in entries:
                self._ours[entry] = (await self._thread(self.app.library.tag, entry, added, removed)).revision
            self.changed(entries[0])

    async def _note(self, entry: str) -> None:
        found = await self._thread(self.app.library.find, entry)
        note = await self.app.push_screen_wait(AskText(f"A note to {inert(found.name)}", found.note))
        if note is not None and note != found.note:
            kept = await self._thread(self.app.library.annotate, entry, note, found.revision)
            self._ours[kept.id] = kept.revision
            if kept.id != entry:
                self.app.say("it was changed elsewhere meanwhile: yours is kept beside it, under the same name", "warning")
            self.changed(kept.id)

    async def _delete(self, *entries: str) -> None:
        gone: dict[str, Listed] = {}
        try:
            for entry in entries:
                found = await self._thread(self.app.library.find, entry)
                try:
                    await self._thread(self.app.library.delete, entry, self._shown_revision(found))
                except EntryChanged as error:  # the others are as they were shown
                    self.app.say(str(error), "warning")
                    continue
                gone[entry] = await self._thread(self.app.library.find, entry, True)
        finally:
            self.app.library_pane.table.marked.clear()
            if gone:
                self.deleted.append(gone)
                names = [one.name for one in gone.values()]
                self.app.say(f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''} deleted; u brings it back")
            self.changed("")

    def _shown_revision(self, found: Listed) -> int:
        """The revision that its user has seen: the list's, or what was changed here since."""
        return max(self.app.library_pane.revision_of(found.id), self._ours.get(found.id, 0)) or found.revision

    async def _undo(self, *_: str) -> None:
        if not self.deleted:
            self.app.say("nothing was deleted here; softprompt-tui list --trash shows what was before")
            return
        entries, names = self.deleted[-1], []
        for entry, trashed in tuple(entries.items()):
            try:
                restored = await self._thread(self.app.library.restore, entry, trashed.revision)
                names.append(restored.prompt.name)
                self._ours[entry] = restored.revision
            except (EntryChanged, EntryNotFound):
                self.app.say(
                    f"{trashed.name} was restored or purged by another program meanwhile, and is left as it is", "warning"
                )
            del entries[entry]  # where one cannot be written, undo goes on from there
        self.deleted.pop()
        if names:
            self.app.say(f"{names[0]} is back" if len(names) == 1 else f"{len(names)} soft prompts are back")
        self.changed(entry)

    async def _vary(self, entry: str) -> None:
        made = (await self._thread(self.app.library.open, entry)).prompt
        if not made.hard_prompt:
            raise PromptError(f"the hard prompt of {made.name} is not known: there is nothing to vary. H says what it is")
        self.app.settings.remember(self.app.prompt_pane.prompt)  # what stood there comes back with up
        self.app.prompt_pane.remembered(self.app.settings.prompts)
        fields, more = variation_of(made)
        self.app.settings.more = beside_defaults(more)
        self.app.questions.count()
        self.app.prompt_pane.set(made.hard_prompt, fields)
        self.app.prompt_pane.editor.focus()
        self.app.say(f"a variation of {made.name}, from seed {more['seed']}: ctrl+t trains it, F8 shows all its settings")

    async def _copy(self, entry: str) -> None:
        found = await self._thread(self.app.library.find, entry)
        self.app.compose_pane.insert(f"[{found.name}]")
        self.app.say(f"[{found.name}] is put into the composition, and {await copy(self.app, f'[{found.name}]')}")

    async def _harden(self, entry: str) -> None:
        await self.app.hard.look_for(entry)

    async def _copy_hard(self, entry: str) -> None:
        await self.app.hard.copy_of(entry)

    async def _export(self, entry: str) -> None:
        await self.files.export(await self._thread(self.app.library.open, entry))

    async def _hard_prompt(self, entry: str) -> None:
        await self.files.ask_hard_prompt(await self._thread(self.app.library.open, entry))

    async def _import(self, *_: str) -> None:
        await self.files.bring_in()

    async def _compare(self, *entries: str) -> None:
        if len(entries) != 2:
            self.app.say("comparing takes two: space marks them")
            return
        self.app.library_pane.table.marked.clear()
        first, second = [await self._thread(self.app.library.open, entry) for entry in entries]
        self.app.push_screen(TextScreen(await self._thread(compared, first, second)))
