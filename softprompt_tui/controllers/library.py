"""Carry out the library's keys. A thread makes each change, and the user is told what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from softprompt.errors import EntryChanged, EntryNotFound, PromptError, SoftPromptError
from softprompt_tui.messages import (
    CompositionExtended,
    EntryShown,
    LibraryChanged,
    MarksSpent,
    OnEntry,
    OpenedChanged,
    PromptFilled,
)
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.screens.dialogs import AskText
from softprompt_tui.screens.progress import GivenUp

if TYPE_CHECKING:
    from softprompt.library import EntrySummary
    from softprompt.library.entry import Entry
    from softprompt_tui.app_context import AppContext

Result = TypeVar("Result")
CHANGING = (
    OnEntry.RENAME,
    OnEntry.TAG,
    OnEntry.NOTE,
    OnEntry.HARD_PROMPT,
    OnEntry.DELETE,
    OnEntry.UNDO,
    OnEntry.IMPORT,
)  # actions that change the library
ASKING = (
    OnEntry.RENAME,
    OnEntry.TAG,
    OnEntry.NOTE,
    OnEntry.HARD_PROMPT,
    OnEntry.EXPORT,
    OnEntry.IMPORT,
    OnEntry.DETAIL,
    OnEntry.COMPARE,
)  # actions with a dialog


class TransferActions(Protocol):
    """What goes beyond the library: files, and the commands that read and write them."""

    async def export(self, entry: Entry) -> None: ...
    async def import_files(self) -> None: ...
    async def ask_hard_prompt(self, entry: Entry) -> None: ...


class LibraryController:
    """Does what the library's keys ask for, and knows which entry is open."""

    def __init__(self, context: AppContext, transfer: TransferActions) -> None:
        self.context, self.transfer = context, transfer
        self.deleted: list[dict[str, EntrySummary]] = []  # what undo brings back, the last first, as it is in the trash
        self.listed_revision: Callable[[str], int] = lambda _: 0  # of an entry, as the list shows it
        self._ours: dict[str, int] = {}  # the revisions that were made here, which the list may not show yet
        self._in_turn = asyncio.Lock()  # a key acts on what the one before it has made
        self.opened = self.opened_name = ""  # the entry whose tokens [v1], [v2], … are
        self._seen = context.library.revisions.changed_at()
        self._asking = False
        self._actions: dict[OnEntry, Callable[..., Awaitable[None]]] = {
            OnEntry.OPEN: self._open, OnEntry.RENAME: self._rename, OnEntry.TAG: self._tag, OnEntry.NOTE: self._note,
            OnEntry.DELETE: self._delete, OnEntry.UNDO: self._undo, OnEntry.VARY: self._vary, OnEntry.COPY: self._copy,
            OnEntry.COMPARE: self._compare, OnEntry.DETAIL: self._detail, OnEntry.EXPORT: self._export,
            OnEntry.IMPORT: self._import, OnEntry.HARD_PROMPT: self._hard_prompt,
        }  # fmt: skip

    def act(self, action: OnEntry, entries: tuple[str, ...]) -> None:
        """Do what a key asks for with these entries."""
        self.context.spawn(partial(self._act, action, entries), group="dialogs" if action in ASKING else "entries")

    async def _act(self, action: OnEntry, entries: tuple[str, ...]) -> None:
        if action in ASKING:
            if self._asking:  # a key that was pressed twice opens one dialog
                return
            self._asking = True
        try:
            async with self._in_turn if action in CHANGING else nullcontext():
                await self._actions[action](*entries)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
        except GivenUp:
            self.context.show_status("given up; nothing was written")
        finally:
            if action in ASKING:
                self._asking = False

    def _changed(self, to: str) -> None:
        self.context.post(LibraryChanged(to))

    def seen(self) -> None:
        """The library as it is now is known."""
        self._seen = self.context.library.revisions.changed_at()

    def watch(self) -> None:
        """Looks whether another program has changed the library."""
        if self.context.library.revisions.changed_at() != self._seen:
            self._changed("")

    def look_at_opened(self) -> None:
        """What is open may have another name by now, or be deleted."""
        if self.opened:
            self.context.spawn(self._look_at_opened, group="opened", exclusive=True)

    async def _look_at_opened(self) -> None:
        before = self.opened, self.opened_name
        try:
            self.opened_name = (await self._thread(self.context.library.find, self.opened)).name
        except EntryNotFound:
            self.opened = ""
        except SoftPromptError as error:  # nothing is known of it
            self.context.show_status(str(error), "error")
        if before != (self.opened, self.opened_name):
            self.context.post(OpenedChanged())

    async def _thread(self, call: Callable[..., Result], *args: Any) -> Result:
        return await asyncio.to_thread(call, *args)

    async def _open(self, entry: str) -> None:
        found = await self._thread(self.context.library.open, entry)
        self.opened, self.opened_name = found.id, found.prompt.name
        self.context.post(EntryShown(found.id))
        self.context.post(OpenedChanged())
        self.context.show_status(f"{found.prompt.name} is open: its tokens are [v1] to [v{found.prompt.tokens}]")

    async def _detail(self, entry: str) -> None:
        from softprompt_tui.rendering.details import in_full
        from softprompt_tui.screens.text_viewer import TextScreen

        self.context.show(TextScreen(in_full(await self._thread(self.context.library.open, entry)).render(20_000)))

    async def _rename(self, entry: str) -> None:
        found = await self._thread(self.context.library.find, entry)
        name = await self.context.ask(AskText(f"Another name for {sanitize(found.name)}", found.name))
        if name and name != found.name:
            try:
                self._ours[entry] = (
                    await self._thread(self.context.library.rename, entry, name, found.revision)
                ).revision
            finally:  # where another one renamed it, that name is to be seen
                self._changed(entry)

    async def _tag(self, *entries: str) -> None:
        found = [await self._thread(self.context.library.find, entry) for entry in entries]
        tags = sorted(set.intersection(*(set(one.tags) for one in found)))
        what = found[0].name if len(found) == 1 else f"{len(found)} soft prompts"
        typed = await self.context.ask(AskText(f"Tags of {sanitize(what)}, with spaces between", " ".join(tags)))
        if typed is not None:
            wanted = typed.split()
            added = [
                tag for tag in wanted if tag not in tags
            ]  # what another program does to the other tags meanwhile, holds
            removed = [tag for tag in tags if tag not in wanted]
            for entry in entries:
                self._ours[entry] = (await self._thread(self.context.library.tag, entry, added, removed)).revision
            self._changed(entries[0])

    async def _note(self, entry: str) -> None:
        found = await self._thread(self.context.library.find, entry)
        note = await self.context.ask(AskText(f"A note to {sanitize(found.name)}", found.note))
        if note is not None and note != found.note:
            kept = await self._thread(self.context.library.annotate, entry, note, found.revision)
            self._ours[kept.id] = kept.revision
            if kept.id != entry:
                self.context.show_status(
                    "it was changed elsewhere meanwhile: yours is kept beside it, under the same name", "warning"
                )
            self._changed(kept.id)

    async def _delete(self, *entries: str) -> None:
        gone: dict[str, EntrySummary] = {}
        try:
            for entry in entries:
                found = await self._thread(self.context.library.find, entry)
                try:
                    await self._thread(self.context.library.delete, entry, self._shown_revision(found))
                except EntryChanged as error:  # the others are as they were shown
                    self.context.show_status(str(error), "warning")
                    continue
                gone[entry] = await self._thread(self.context.library.find, entry, True)
        finally:
            self.context.post(MarksSpent())
            if gone:
                self.deleted.append(gone)
                names = [one.name for one in gone.values()]
                self.context.show_status(
                    f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''} deleted; u brings it back"
                )
            self._changed("")

    def _shown_revision(self, found: EntrySummary) -> int:
        """The revision that its user has seen: the list's, or what was changed here since."""
        return max(self.listed_revision(found.id), self._ours.get(found.id, 0)) or found.revision

    async def _undo(self, *_: str) -> None:
        if not self.deleted:
            self.context.show_status("nothing was deleted here; softprompt-tui list --trash shows what was before")
            return
        entries, names = self.deleted[-1], []
        for entry, trashed in tuple(entries.items()):
            try:
                restored = await self._thread(self.context.library.restore, entry, trashed.revision)
                names.append(restored.prompt.name)
                self._ours[entry] = restored.revision
            except (EntryChanged, EntryNotFound):
                self.context.show_status(
                    f"{trashed.name} was restored or purged by another program meanwhile, and is left as it is",
                    "warning",
                )
            del entries[entry]  # where one cannot be written, undo goes on from there
        self.deleted.pop()
        if names:
            self.context.show_status(
                f"{names[0]} is back" if len(names) == 1 else f"{len(names)} soft prompts are back"
            )
        self._changed(entry)

    async def _vary(self, entry: str) -> None:
        from softprompt_tui.screens.training_settings import beside_defaults
        from softprompt_tui.services.job_form import variation_of

        made = (await self._thread(self.context.library.open, entry)).prompt
        if not made.hard_prompt:
            raise PromptError(
                f"the hard prompt of {made.name} is not known: there is nothing to vary. H says what it is"
            )
        fields, more = variation_of(made)
        self.context.settings.more = beside_defaults(more)
        self.context.post(PromptFilled(made.hard_prompt, fields))
        self.context.show_status(
            f"a variation of {made.name}, from seed {more['seed']}: ctrl+t trains it, F8 shows all its settings"
        )

    async def _copy(self, entry: str) -> None:
        found = await self._thread(self.context.library.find, entry)
        self.context.post(CompositionExtended(f"[{found.name}]"))
        self.context.show_status(
            f"[{found.name}] is put into the composition, and {await self.context.copy(f'[{found.name}]')}"
        )

    async def _export(self, entry: str) -> None:
        await self.transfer.export(await self._thread(self.context.library.open, entry))

    async def _hard_prompt(self, entry: str) -> None:
        await self.transfer.ask_hard_prompt(await self._thread(self.context.library.open, entry))

    async def _import(self, *_: str) -> None:
        await self.transfer.import_files()

    async def _compare(self, *entries: str) -> None:
        from softprompt_tui.rendering.details import compared
        from softprompt_tui.screens.text_viewer import TextScreen

        if len(entries) != 2:
            self.context.show_status("comparing takes two: space marks them")
            return
        self.context.post(MarksSpent())
        first, second = [await self._thread(self.context.library.open, entry) for entry in entries]
        self.context.show(TextScreen(await self._thread(compared, first, second)))
