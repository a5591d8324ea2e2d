"""The library's actions: make each change in a thread and report errors to the user."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rich.cells import cell_len

from softprompt.errors import EntryChanged, EntryNotFound, PromptError, SoftPromptError
from softprompt_tui.messages import (
    CompositionTextAdded,
    LibraryChanged,
    MarksUsed,
    OnEntry,
    OpenEntryChanged,
    PortRequested,
    PromptLoaded,
    ShowEntryRequested,
    TagChosen,
)
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.screens.dialogs import AskText, ask_until_accepted
from softprompt_tui.screens.progress import UserCancelled

if TYPE_CHECKING:
    from softprompt.library import EntrySummary
    from softprompt.library.entry import Entry
    from softprompt_tui.app_context import AppContext

Result = TypeVar("Result")
ALL, MAX_TAGS_OFFERED = "all entries", 200
MAX_TAG_CELLS = 40  # a longer tag moves its count to the right
# actions that change the library
CHANGING_ACTIONS = (
    OnEntry.RENAME,
    OnEntry.TAG,
    OnEntry.NOTE,
    OnEntry.HARD_PROMPT,
    OnEntry.DELETE,
    OnEntry.UNDO,
    OnEntry.RESTORE,
    OnEntry.IMPORT,
)
# actions with a dialog
DIALOG_ACTIONS = (
    OnEntry.RENAME,
    OnEntry.TAG,
    OnEntry.NOTE,
    OnEntry.HARD_PROMPT,
    OnEntry.EXPORT,
    OnEntry.IMPORT,
    OnEntry.DETAIL,
    OnEntry.COMPARE,
    OnEntry.FILTER,
)


class TransferActions(Protocol):
    """Actions that run other commands: importing, exporting and setting a hard prompt."""

    async def export(self, entry: Entry) -> None: ...
    async def import_files(self) -> None: ...
    async def ask_hard_prompt(self, entry: Entry) -> None: ...
    async def assign_model(self, entry: Entry) -> None: ...


class LibraryController:
    """Carries out the library's actions and tracks the open entry."""

    def __init__(self, context: AppContext, transfer: TransferActions) -> None:
        self.context, self.transfer = context, transfer
        self.deleted: list[dict[str, EntrySummary]] = []  # deletions that undo can revert: trashed entries by id
        self.listed_revision: Callable[[str], int] = lambda _: 0  # the revision of an entry that the list shows
        self._own_revisions: dict[str, int] = {}  # revisions written here, which the list may not show yet
        self._change_lock = asyncio.Lock()  # each change starts once the previous one is written
        self.opened = self.opened_name = ""  # the open entry: [v1], [v2], … are its tokens
        self._seen_change = context.library.revisions.changed_at()
        self._has_dialog = False
        self._actions: dict[OnEntry, Callable[..., Awaitable[None]]] = {
            OnEntry.OPEN: self._open, OnEntry.RENAME: self._rename, OnEntry.TAG: self._tag, OnEntry.NOTE: self._note,
            OnEntry.DELETE: self._delete, OnEntry.UNDO: self._undo, OnEntry.VARY: self._vary, OnEntry.COPY: self._copy,
            OnEntry.COMPARE: self._compare, OnEntry.DETAIL: self._detail, OnEntry.EXPORT: self._export,
            OnEntry.IMPORT: self._import, OnEntry.HARD_PROMPT: self._hard_prompt, OnEntry.RESTORE: self._restore,
            OnEntry.FILTER: self._filter,
        }  # fmt: skip

    def act(self, action: OnEntry, entries: tuple[str, ...]) -> None:
        """Start an action on these entries."""
        self.context.spawn(
            partial(self._act, action, entries), group="dialogs" if action in DIALOG_ACTIONS else "entries"
        )

    async def _act(self, action: OnEntry, entries: tuple[str, ...]) -> None:
        if action in DIALOG_ACTIONS:
            if self._has_dialog:  # pressing a key twice opens only one dialog
                return
            self._has_dialog = True
        try:
            async with self._change_lock if action in CHANGING_ACTIONS else nullcontext():
                await self._actions[action](*entries)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
        except UserCancelled:
            self.context.show_status("cancelled; nothing was written")
        finally:
            if action in DIALOG_ACTIONS:
                self._has_dialog = False

    def _post_change(self, entry: str) -> None:
        self.context.post(LibraryChanged(entry))

    def mark_seen(self) -> None:
        """Note that the user has seen the library's current state."""
        self._seen_change = self.context.library.revisions.changed_at()

    def check_for_changes(self) -> None:
        """Post a message if another program has changed the library."""
        if self.context.library.revisions.changed_at() != self._seen_change:
            self._post_change("")

    def refresh_opened(self) -> None:
        """Check whether the open entry was renamed or deleted."""
        if self.opened:
            self.context.spawn(self._refresh_opened, group="opened", exclusive=True)

    async def _refresh_opened(self) -> None:
        before = self.opened, self.opened_name
        try:
            self.opened_name = (await self._in_thread(self.context.library.find, self.opened)).name
        except EntryNotFound:
            self.opened = ""
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
        if before != (self.opened, self.opened_name):
            self.context.post(OpenEntryChanged())

    async def _in_thread(self, call: Callable[..., Result], *args: Any) -> Result:
        return await asyncio.to_thread(call, *args)

    async def _open(self, entry: str) -> None:
        opened = await self._in_thread(self.context.library.open, entry)
        self.opened, self.opened_name = opened.id, opened.prompt.name
        self.context.post(ShowEntryRequested(opened.id))
        self.context.post(OpenEntryChanged())
        name = opened.prompt.name
        self.context.show_status(f"{name} is open: its tokens are [v1] to [v{opened.prompt.tokens}]", name=name)

    async def _detail(self, entry: str) -> None:
        from softprompt_tui.rendering.details import entry_facts
        from softprompt_tui.screens.entry_details import EntryDetailsScreen

        opened = await self._in_thread(self.context.library.open, entry)
        can_port, can_assign = bool(opened.prompt.reference_texts), not opened.prompt.model_fingerprint
        no_port = "" if can_port else "its hard prompt is unknown; H in the library sets it"
        facts = entry_facts(opened).render(20_000)
        match await self.context.ask(EntryDetailsScreen(facts, no_port, can_assign)):
            case "port":
                self.context.post(PortRequested(entry))
            case "assign":
                await self.transfer.assign_model(opened)

    async def _rename(self, entry: str) -> None:
        summary = await self._in_thread(self.context.library.find, entry)

        async def rename(name: str) -> None:
            if name != summary.name:
                try:
                    self._own_revisions[entry] = (
                        await self._in_thread(self.context.library.rename, entry, name, summary.revision)
                    ).revision
                finally:  # if another program renamed the entry, show that name
                    self._post_change(entry)

        await self._ask_text(f"New name for {sanitize(summary.name)}", summary.name, rename)

    async def _tag(self, *entries: str) -> None:
        summaries = [await self._in_thread(self.context.library.find, entry) for entry in entries]
        tags = sorted(set.intersection(*(set(summary.tags) for summary in summaries)))
        name = summaries[0].name if len(summaries) == 1 else f"{len(summaries)} soft prompts"

        async def tag(typed: str) -> None:
            typed_tags = typed.split()
            # send only the differences, so that another program's changes to other tags survive
            added = [tag for tag in typed_tags if tag not in tags]
            removed = [tag for tag in tags if tag not in typed_tags]
            for entry in entries:
                self._own_revisions[entry] = (
                    await self._in_thread(self.context.library.tag, entry, added, removed)
                ).revision
            self._post_change(entries[0])

        await self._ask_text(f"Tags of {sanitize(name)}, separated by spaces", " ".join(tags), tag)

    async def _note(self, entry: str) -> None:
        summary = await self._in_thread(self.context.library.find, entry)

        async def annotate(note: str) -> None:
            if note == summary.note:
                return
            saved = await self._in_thread(self.context.library.annotate, entry, note, summary.revision)
            self._own_revisions[saved.id] = saved.revision
            if saved.id != entry:
                self.context.show_status(
                    "another program changed this entry; your version was saved as a second entry with that name",
                    "warning",
                )
            self._post_change(saved.id)

        await self._ask_text(f"Note on {sanitize(summary.name)}", summary.note, annotate)

    async def _ask_text(self, question: str, value: str, accept: Callable[[str], Awaitable[None]]) -> None:
        """Ask for a text until `accept` takes it or the user cancels."""
        await ask_until_accepted(
            self.context,
            lambda refused, reason: AskText(question, value if refused is None else refused, reason),
            accept,
        )

    async def _delete(self, *entries: str) -> None:
        gone: dict[str, EntrySummary] = {}
        try:
            for entry in entries:
                summary = await self._in_thread(self.context.library.find, entry)
                try:
                    await self._in_thread(self.context.library.delete, entry, self._revision_seen_by_user(summary))
                except EntryChanged as error:  # the other entries are still as the user saw them
                    self.context.show_status(str(error), "warning")
                    continue
                gone[entry] = await self._in_thread(self.context.library.find, entry, True)
        finally:
            self.context.post(MarksUsed())
            if gone:
                self.deleted.append(gone)
                names = [trashed.name for trashed in gone.values()]
                name = f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
                self.context.show_status(f"{name} deleted; press u to undo", name=name)
            self._post_change("")

    def _revision_seen_by_user(self, summary: EntrySummary) -> int:
        """Return the revision shown in the list, or a later revision written here."""
        return max(self.listed_revision(summary.id), self._own_revisions.get(summary.id, 0)) or summary.revision

    async def _undo(self, *_: str) -> None:
        if not self.deleted:
            self.context.show_status("nothing to undo; T shows what was deleted earlier")
            return
        entries, names = self.deleted[-1], []
        for entry, trashed in tuple(entries.items()):
            try:
                restored = await self._in_thread(self.context.library.restore, entry, trashed.revision)
                names.append(restored.prompt.name)
                self._own_revisions[entry] = restored.revision
            except (EntryChanged, EntryNotFound):
                self.context.show_status(
                    f"another program restored or purged {trashed.name}; nothing was changed",
                    "warning",
                )
            del entries[entry]  # if a later entry fails, undo continues from there
        self.deleted.pop()
        self._announce_restored(names)
        self._post_change(entry)

    async def _restore(self, *entries: str) -> None:
        """Restore entries from the trash."""
        names = []
        try:
            for entry in entries:
                restored = await self._in_thread(self.context.library.restore, entry)
                names.append(restored.prompt.name)
                self._own_revisions[entry] = restored.revision
        finally:
            self.context.post(MarksUsed())
            self.deleted = [
                left for gone in self.deleted if (left := {id_: gone[id_] for id_ in gone if id_ not in entries})
            ]
            self._announce_restored(names)
            self._post_change("")

    def _announce_restored(self, names: list[str]) -> None:
        if names:
            self.context.show_status(
                f"{names[0]} is back" if len(names) == 1 else f"{len(names)} soft prompts are back", name=names[0]
            )

    async def _filter(self, *_: str) -> None:
        """Ask for the tag that the listed entries should have."""
        from softprompt_tui.screens.choice import ChoiceScreen

        counts = await self._in_thread(self.context.library.tags)
        if not counts:
            self.context.show_status("no soft prompt has a tag; t sets tags")
            return
        offered = list(counts.items())[:MAX_TAGS_OFFERED]
        digits = max(len(f"{count:,}") for _, count in offered)
        widest = min(MAX_TAG_CELLS, max(cell_len(tag) for tag, _ in offered))
        labels = {f"#{tag}{' ' * (widest - cell_len(tag))}   {count:>{digits},}": tag for tag, count in offered}
        label = await self.context.ask(ChoiceScreen("Show only entries with a tag", [ALL, *labels], "Cancel"))
        if label:
            self.context.post(TagChosen(labels.get(label, "")))

    async def _vary(self, entry: str) -> None:
        from softprompt.encoders.catalog import model_kind
        from softprompt_tui.services.job_form import variation_fields
        from softprompt_tui.state.fields import changed_settings

        prompt = (await self._in_thread(self.context.library.open, entry)).prompt
        if not prompt.hard_prompt:
            raise PromptError(
                f"the hard prompt of {prompt.name} is unknown, so it cannot be varied. Press H to set the hard prompt."
            )
        fields, more = variation_fields(prompt)
        self.context.settings.more = changed_settings(more, model_kind(prompt.model))
        self.context.post(PromptLoaded(prompt.hard_prompt, fields))
        self.context.show_status(
            f"a variation of {prompt.name}, seed {more['seed']}: ctrl+t trains it, F8 shows all settings",
            name=prompt.name,
        )

    async def _copy(self, entry: str) -> None:
        summary = await self._in_thread(self.context.library.find, entry)
        self.context.post(CompositionTextAdded(f"[{summary.name}]"))
        self.context.show_status(
            f"[{summary.name}] is in the composition, and {await self.context.copy(f'[{summary.name}]')}",
            name=summary.name,
        )

    async def _export(self, entry: str) -> None:
        await self.transfer.export(await self._in_thread(self.context.library.open, entry))

    async def _hard_prompt(self, entry: str) -> None:
        await self.transfer.ask_hard_prompt(await self._in_thread(self.context.library.open, entry))

    async def _import(self, *_: str) -> None:
        await self.transfer.import_files()

    async def _compare(self, *entries: str) -> None:
        from softprompt_tui.rendering.details import render_comparison
        from softprompt_tui.screens.text_viewer import TextScreen

        if len(entries) != 2:
            self.context.show_status("comparing needs two entries; press space to mark them")
            return
        self.context.post(MarksUsed())
        first, second = [await self._in_thread(self.context.library.open, entry) for entry in entries]
        self.context.show(TextScreen(await self._in_thread(render_comparison, first, second)))
