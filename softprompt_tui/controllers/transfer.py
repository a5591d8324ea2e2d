"""Soft prompts from files and into files: the dialogs, and the commands that do it beside the interface."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from softprompt.errors import FileInTheWay
from softprompt_tui.messages import LibraryChanged
from softprompt_tui.rendering.grid import labelled
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.screens.dialogs import AskKey, AskText
from softprompt_tui.screens.progress import BusyScreen
from softprompt_tui.services.subprocess_command import CommandFailed, command

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.screens.export import Export

IN_FULL, MOST_LISTED = 4, 100  # soft prompts that are told line by line, and in a table
STATES = {"added": "", "present": "it was in the library already", "trashed": "it is in the trash, and left there"}


class ImportedEntry(NamedTuple):
    """A soft prompt that `import` took from a file, as its --json tells; `candidates` are the models it may belong to."""

    id: str
    name: str
    state: str
    tokens: int
    width: int
    model: str
    file: str
    format: str
    candidates: tuple[str, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def told(cls, values: Mapping[str, Any]) -> ImportedEntry:
        made = {name: values[name] for name in cls._fields}
        return cls(**made | {name: tuple(made[name]) for name in ("candidates", "unknown", "notes")})


class ExportedFile(NamedTuple):
    """What `export` wrote, as its --json tells: the files, the line to use them, the word for a prompt ("" for none), notes."""

    paths: tuple[str, ...]
    line: str
    word: str
    notes: tuple[str, ...]

    @classmethod
    def told(cls, values: Mapping[str, Any]) -> ExportedFile:
        return cls(tuple(values["paths"]), values["line"], values["word"], tuple(values["notes"]))


class TransferController:
    """Imports and exports. Raises SoftPromptError for what goes wrong."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @property
    def folder(self) -> Path:
        try:
            kept = self.context.settings.folder or os.getcwd()  # noqa: PTH109  # as text, for the next line
        except FileNotFoundError:  # it was removed
            kept = ""
        return Path(kept) if os.path.isdir(kept) else Path.home()  # noqa: PTH112  # that of pathlib raises for some paths

    async def _command(self, words: str, *args: str) -> Any:
        """What a command answers; the dialog that waits for it holds back what is typed. Raises CommandFailed, GivenUp."""
        waiting = BusyScreen(words, command(*args))
        await self.context.ask(waiting)
        if waiting.error:
            raise waiting.error
        return waiting.result

    async def import_files(self) -> None:
        """Asks for files, imports them in one batch, and asks which model they belong to where they do not say."""
        from softprompt_tui.screens.file_picker import FilesScreen
        from softprompt_tui.screens.text_viewer import TextScreen

        chosen = await self.context.ask(FilesScreen("Import soft prompts from files", self.folder))
        if chosen is None:
            return
        self.context.settings.folder = str(chosen.folder)
        count = len(chosen.files)
        words = f"reading {chosen.files[0].name if count == 1 else f'{count} files'}"
        made = [
            ImportedEntry.told(one)
            for one in await self._command(words, "import", "--json", "--", *map(str, chosen.files))
        ]
        self.context.post(LibraryChanged(made[0].id))
        self.context.show_status(
            f"{made[0].name} is in the library" if len(made) == 1 else f"{len(made)} soft prompts are in the library"
        )
        await self.context.ask(TextScreen(_told(made)))
        unassigned = [one for one in made if one.candidates and one.state != "trashed"]
        for width in sorted({one.width for one in unassigned}):
            await self._assign(width, [one for one in unassigned if one.width == width])

    async def _assign(self, width: int, made: list[ImportedEntry]) -> None:
        from softprompt_tui.screens.choice import PickScreen

        whose = made[0].name if len(made) == 1 else f"these {len(made)}"
        model = await self.context.ask(
            PickScreen(
                f"The file does not say which text encoder {sanitize(whose)} belongs to. Of width {width} there are:",
                made[0].candidates,
                "not now; `softprompt-tui assign` says it later",
            )
        )
        if not model:
            return
        await self._command(f"loading {model}", "assign", "--json", "--model", model, "--", *(one.id for one in made))
        self.context.post(LibraryChanged(made[0].id))
        self.context.show_status(f"{whose} of {model}")

    async def ask_hard_prompt(self, entry: Entry) -> None:
        """Asks which hard prompt an imported soft prompt stands for, and has its similarity measured where its model is known."""
        from softprompt.formats.importer import check_assignable

        prompt = entry.prompt
        check_assignable(prompt, model=False, hard_prompt=True, again=True)
        text = await self.context.ask(
            AskText(
                f"The hard prompt that {sanitize(prompt.name)} stands for; `port` trains it for other models",
                prompt.hard_prompt,
            )
        )
        if text and text != prompt.hard_prompt:
            again = ["--again"] if prompt.hard_prompt else []
            await self._command(
                f"measuring {prompt.name}", "assign", "--json", *again, "--prompt", text, "--", entry.id
            )
            self.context.post(LibraryChanged(entry.id))
            self.context.show_status(f"{prompt.name} stands for {text}")

    async def export(self, entry: Entry) -> None:
        """Asks where to, writes the file, and says what to type in the other program."""
        from softprompt_tui.screens.export import ExportScreen
        from softprompt_tui.screens.text_viewer import TextScreen

        wanted = await self.context.ask(ExportScreen(entry.prompt.name, entry.prompt.vectors.shape[1], self.folder))
        if wanted is None:
            return
        try:
            done = await self._written(entry, wanted)
        except CommandFailed as error:
            if error.kind != FileInTheWay.__name__:
                raise
            question = str(error).partition(": --force")[0]
            if await self.context.ask(AskKey(f"{sanitize(question)}.", [("r", "replace it")])) != "r":
                return
            done = await self._written(entry, wanted, "--force")
        self.context.settings.folder = str(Path(done.paths[0]).parent)
        await self.context.ask(TextScreen(_written(done, await self.context.copy(done.line))))

    async def _written(self, entry: Entry, wanted: Export, *more: str) -> ExportedFile:
        from softprompt_tui.screens.file_picker import typed_path

        options = {"--out": wanted.out, "--sdxl": wanted.other, "--token": wanted.token}
        given = [
            part
            for option, value in options.items()
            if value
            for part in (option, typed_path(value) if option == "--out" else value)
        ]
        words = f"writing {entry.prompt.name} for {wanted.to}"
        return ExportedFile.told(
            await self._command(words, "export", "--json", "--to", wanted.to, *given, *more, "--", entry.id)
        )


def _written(done: ExportedFile, copied: str) -> Group:
    rows = [("written", Text(sanitize(path), "bold")) for path in done.paths]
    rows += [("use", Text(sanitize(line), "bold")) for line in done.line.split("\n")]
    if done.word:
        rows.append(("in a prompt", Text(sanitize(f"a photo of {done.word} at night"))))
    rows += [("note", Text(sanitize(note))) for note in done.notes]
    return Group(labelled(rows), Text(f"\nThe line to use {copied}.", "dim"))


def _listed(made: list[ImportedEntry]) -> Group:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("name", "tokens", "width", "model", "file"):
        table.add_column(title, overflow="ellipsis", no_wrap=True)
    for one in made[:MOST_LISTED]:
        cells = (one.name, one.tokens, one.width, one.model or "unknown", one.file)
        table.add_row(*(Text(sanitize(str(cell))) for cell in cells))
    more = [Text(f"and {len(made) - MOST_LISTED:,} more", "dim")] * (len(made) > MOST_LISTED)
    return Group(table, *more)


def _told(made: list[ImportedEntry]) -> Group:
    if len(made) > IN_FULL:
        return _listed(made)
    grids: list[RenderableType] = []
    for one in made:
        rows: tuple[tuple[str, str | Text], ...] = (
            ("name", Text(sanitize(one.name), "bold")),
            ("from", f"{one.file} ({one.format})"),
            ("soft tokens", f"{one.tokens} of width {one.width}"),
            ("model", one.model or "unknown"),
            ("unknown", ", ".join(one.unknown)),
            ("state", STATES[one.state]),
            *(("note", note) for note in one.notes),
        )
        grids += [labelled((label, value) for label, value in rows if value), Text()]
    return Group(*grids)
