"""What the library's keys do. Every change is made in a thread, and what goes wrong is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from softprompt.errors import PromptError, SoftPromptError
from softprompt_tui.facts import compared, in_full
from softprompt_tui.files import Files
from softprompt_tui.inert import inert
from softprompt_tui.jobs import variation_of
from softprompt_tui.screens.ask import AskText
from softprompt_tui.screens.busy import GivenUp
from softprompt_tui.screens.more import beside_defaults
from softprompt_tui.screens.text import TextScreen

if TYPE_CHECKING:
    from softprompt_tui.app import SoftPromptApp

Result = TypeVar("Result")
ASKING = ("rename", "tag", "note", "export", "import", "detail", "compare")  # actions with a dialog


class Entries:
    """The actions, by the names that messages give them."""

    def __init__(self, app: SoftPromptApp) -> None:
        self.app = app
        self.deleted: list[tuple[str, ...]] = []  # what undo brings back, the last first
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
        self.app.library_pane.reload(to)
        if not self.app.shown.run:
            self.app.shown.entry = ""  # it is read anew, or another one is shown where it is gone
        if self.opened:
            self.app.begin(self._look_at_opened, group="opened", exclusive=True)

    async def _look_at_opened(self) -> None:
        """What is open may have another name by now, or be deleted."""
        try:
            self.opened_name = (await self._thread(self.app.library.find, self.opened)).name
        except SoftPromptError:
            self.opened = ""
        self.app.show_title()

    def watch(self) -> None:
        """Looks whether another program has changed the library."""
        changed = self.app.library.revisions.changed_at()
        if changed != self._seen:
            self._seen = changed
            self.app.library_pane.reload()

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
            await self._thread(self.app.library.rename, entry, name)
            self.changed(entry)

    async def _tag(self, *entries: str) -> None:
        found = [await self._thread(self.app.library.find, entry) for entry in entries]
        tags = sorted(set.intersection(*(set(one.tags) for one in found)))
        what = found[0].name if len(found) == 1 else f"{len(found)} soft prompts"
        typed = await self.app.push_screen_wait(AskText(f"Tags of {inert(what)}, with spaces between", " ".join(tags)))
        if typed is not None:
            wanted = typed.split()
            removed = [tag for tag in tags if tag not in wanted]
            for entry in entries:
                await self._thread(self.app.library.tag, entry, wanted, removed)
            self.changed(entries[0])

    async def _note(self, entry: str) -> None:
        found = await self._thread(self.app.library.find, entry)
        note = await self.app.push_screen_wait(AskText(f"A note to {inert(found.name)}", found.note))
        if note is not None and note != found.note:
            kept = await self._thread(self.app.library.annotate, entry, note, found.revision)
            if kept.id != entry:
                self.app.say("it was changed elsewhere meanwhile: yours is kept beside it, under the same name", "warning")
            self.changed(kept.id)

    async def _delete(self, *entries: str) -> None:
        names: list[str] = []
        gone: list[str] = []
        try:
            for entry in entries:
                found = await self._thread(self.app.library.find, entry)
                await self._thread(self.app.library.delete, entry)
                names.append(found.name)
                gone.append(entry)
        finally:
            self.app.library_pane.table.marked.clear()
            if gone:
                self.deleted.append(tuple(gone))
                self.app.say(f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''} deleted; u brings it back")
            self.changed("")

    async def _undo(self, *_: str) -> None:
        if not self.deleted:
            self.app.say("nothing was deleted here; softprompt-tui list --trash shows what was before")
            return
        entries = self.deleted[-1]
        for entry in entries:
            restored = await self._thread(self.app.library.restore, entry)
        self.deleted.pop()
        self.app.say(f"{restored.prompt.name} is back" if len(entries) == 1 else f"{len(entries)} soft prompts are back")
        self.changed(entries[0])

    async def _vary(self, entry: str) -> None:
        made = (await self._thread(self.app.library.open, entry)).prompt
        if not made.hard_prompt:
            raise PromptError(f"the hard prompt of {made.name} is not known: there is nothing to vary")
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
        self.app.copy_to_clipboard(f"[{found.name}]")
        self.app.say(f"[{found.name}] is copied by the terminal (OSC 52), and put into the composition")
        self.app.compose_pane.insert(f"[{found.name}]")

    async def _harden(self, entry: str) -> None:
        await self.app.hard.look_for(entry)

    async def _copy_hard(self, entry: str) -> None:
        await self.app.hard.copy_of(entry)

    async def _export(self, entry: str) -> None:
        await self.files.export(await self._thread(self.app.library.open, entry))

    async def _import(self, *_: str) -> None:
        await self.files.bring_in()

    async def _compare(self, *entries: str) -> None:
        if len(entries) != 2:
            self.app.say("comparing takes two: space marks them")
            return
        self.app.library_pane.table.marked.clear()
        first, second = [await self._thread(self.app.library.open, entry) for entry in entries]
        self.app.push_screen(TextScreen(await self._thread(compared, first, second)))
