"""What the library's keys do. Every change is made in a thread, and what goes wrong is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from rich.text import Text

from softprompt.errors import SoftPromptError
from softprompt_tui.inert import inert
from softprompt_tui.jobs import variation_of
from softprompt_tui.screens.ask import AskText
from softprompt_tui.screens.more import beside_defaults
from softprompt_tui.screens.text import TextScreen

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt_tui.app import SoftPromptApp

Result = TypeVar("Result")


class Entries:
    """The actions, by the names that messages give them."""

    def __init__(self, app: SoftPromptApp) -> None:
        self.app = app
        self.deleted: list[tuple[str, ...]] = []  # what undo brings back, the last first

    async def do(self, action: str, entries: tuple[str, ...]) -> None:
        try:
            await getattr(self, f"_{action}")(*entries)
        except SoftPromptError as error:
            self.app.say(str(error), "error")

    async def _thread(self, call: Callable[..., Result], *args: Any) -> Result:
        return await asyncio.to_thread(call, *args)

    async def _open(self, entry: str) -> None:
        found = await self._thread(self.app.library.open, entry)
        self.app.open_entry(found)

    async def _detail(self, entry: str) -> None:
        self.app.push_screen(TextScreen(_in_full(await self._thread(self.app.library.open, entry))))

    async def _rename(self, entry: str) -> None:
        found = await self._thread(self.app.library.find, entry)
        name = await self.app.push_screen_wait(AskText(f"Another name for {inert(found.name)}", found.name))
        if name and name != found.name:
            await self._thread(self.app.library.rename, entry, name)
            self.app.entries_changed(entry)

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
            self.app.entries_changed(entries[0])

    async def _note(self, entry: str) -> None:
        found = await self._thread(self.app.library.find, entry)
        note = await self.app.push_screen_wait(AskText(f"A note to {inert(found.name)}", found.note))
        if note is not None and note != found.note:
            kept = await self._thread(self.app.library.annotate, entry, note, found.revision)
            if kept.id != entry:
                self.app.say("it was changed elsewhere meanwhile: yours is kept beside it, under the same name", "warning")
            self.app.entries_changed(kept.id)

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
            self.app.entries_changed("")

    async def _undo(self, *_: str) -> None:
        if not self.deleted:
            self.app.say("nothing was deleted here; softprompt-tui list --trash shows what was before")
            return
        entries = self.deleted[-1]
        for entry in entries:
            restored = await self._thread(self.app.library.restore, entry)
        self.deleted.pop()
        self.app.say(f"{restored.prompt.name} is back")
        self.app.entries_changed(entries[0])

    async def _vary(self, entry: str) -> None:
        made = (await self._thread(self.app.library.open, entry)).prompt
        self.app.settings.remember(self.app.prompt_pane.prompt)  # what stood there comes back with up
        self.app.prompt_pane.remembered(self.app.settings.prompts)
        fields, more = variation_of(made)
        self.app.settings.more = beside_defaults(more)
        self.app.prompt_pane.set(made.hard_prompt, fields)
        self.app.prompt_pane.editor.focus()
        self.app.say(f"a variation of {made.name}, from seed {more['seed']}: ctrl+t trains it, F8 shows all its settings")

    async def _copy(self, entry: str) -> None:
        found = await self._thread(self.app.library.find, entry)
        self.app.copy_to_clipboard(f"[{found.name}]")
        self.app.say(f"[{found.name}] is copied by the terminal (OSC 52), and put into the composition")
        self.app.compose_pane.insert(f"[{found.name}]")

    async def _compare(self, *entries: str) -> None:
        if len(entries) != 2:
            self.app.say("comparing takes two: space marks them")
            return
        first, second = [await self._thread(self.app.library.open, entry) for entry in entries]
        self.app.push_screen(TextScreen(await self._thread(_compared, first, second)))


def _in_full(entry: Entry) -> Text:
    made = entry.prompt
    text = Text().append(f"{inert(made.name)}\n", "bold").append(f"{inert(made.hard_prompt)}\n\n", "italic")
    norms = ((made.vectors**2).sum(axis=1) ** 0.5).tolist()
    composed = made.composition
    facts = {
        "model": made.model,
        "soft tokens": f"{made.tokens}, norms {', '.join(f'{norm:.2f}' for norm in norms)}",
        "similarity": f"{made.similarity:.4f}",
        "composed": f"{composed.mean:.4f} mean, {composed.worst:.4f} worst; {composed.floor:.4f} without their words"
        if composed
        else "",
        "readout": f"{made.readout_text} (typed as text: {made.readout_similarity:.4f})",
        "trained": f"{made.steps} steps in {made.seconds:.1f} s on {made.device}; {made.stopped}",
        "created": made.created,
        "changed": f"{entry.changed}, revision {entry.revision}" if entry.changed else "",
        "tags": "  ".join(entry.tags),
        "note": entry.note,
        "warnings": "; ".join(made.warnings),
        "id": entry.id,
        "versions": ", ".join(f"{name} {version}" for name, version in made.versions.items()),
        "settings": ", ".join(f"{key} {value}" for key, value in made.config.items() if key != "contexts"),
    }
    for label, value in facts.items():
        if value:
            text.append(f"{label:<12}", "dim").append(f"{inert(value)}\n")
    return text


def _compared(a: Entry, b: Entry) -> Text:
    from softprompt.library.difference import difference

    found = difference(a, b)
    text = Text()
    text.append(inert(a.prompt.name), "bold").append(" and ", "dim").append(inert(b.prompt.name) + "\n\n", "bold")
    if found.cosines is None:
        text.append("They belong to different models and cannot be compared token by token.\n", "italic")
    else:
        text.append("similarity of their hard prompts ", "dim").append(f"{found.hard_prompts:.4f}\n\n", "bold")
        words = [[read.token for read in entry.prompt.readout] for entry in (a, b)]
        for i, (near, cosine) in enumerate(found.closest()):
            text.append(f"[v{i + 1}] ", "dim").append(f"{_word(words[0], i)}  ").append(f"{cosine:.3f}  ", "bold")
            text.append(f"[v{near + 1}] ", "dim").append(f"{_word(words[1], near)}\n")
    text.append("\n")
    for key, (one, two) in found.fields.items():
        text.append(f"{key}\n", "dim").append(f"  {_short(one)}\n  {_short(two)}\n")
    return text


def _word(words: list[str], i: int) -> str:
    return inert(words[i]) if i < len(words) else "-"


def _short(value: object) -> str:
    return "-" if value in (None, "", []) else f"{value:.4f}" if isinstance(value, float) else inert(str(value))[:200]
