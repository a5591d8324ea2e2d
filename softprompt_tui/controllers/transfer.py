"""Import and export: the dialogs, and the commands that do the work in another process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from softprompt.errors import ConfigError, FileInTheWay, empty_prompt
from softprompt_tui.messages import LibraryChanged
from softprompt_tui.rendering.grid import label_grid
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.screens.dialogs import AskKey, AskText, ask_until_accepted
from softprompt_tui.screens.progress import ProgressScreen
from softprompt_tui.services.subprocess_command import CommandFailed, run_command

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.screens.export import ExportRequest
    from softprompt_tui.screens.file_picker import FileSelection

MAX_DETAILED, MAX_LISTED = 4, 100  # limits on imported soft prompts shown in detail and in a table
STATE_NOTES = {"added": "", "present": "was already in the library", "trashed": "is in the trash and stays there"}


class ImportedEntry(NamedTuple):
    """One soft prompt in the output of `import --json`. `candidates` are the models it may belong to."""

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
    def from_json(cls, values: Mapping[str, Any]) -> ImportedEntry:
        fields = {name: values[name] for name in cls._fields}
        return cls(**fields | {name: tuple(fields[name]) for name in ("candidates", "unknown", "notes")})


class ExportedFile(NamedTuple):
    """The output of `export --json`."""

    paths: tuple[str, ...]
    line: str  # what to type in the other program
    word: str  # what stands for the soft prompt in that program's prompts, or ""
    notes: tuple[str, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ExportedFile:
        return cls(tuple(values["paths"]), values["line"], values["word"], tuple(values["notes"]))


class TransferController:
    """Imports and exports soft prompts. Every method raises SoftPromptError on failure."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @property
    def folder(self) -> Path:
        try:
            folder = self.context.settings.folder or os.getcwd()  # noqa: PTH109  # a string, for the next line
        except FileNotFoundError:  # the working folder was removed
            folder = ""
        # Path.is_dir raises for some paths
        return Path(folder) if os.path.isdir(folder) else Path.home()  # noqa: PTH112

    async def _command(self, text: str, *args: str) -> Any:
        """Run a command behind a dialog that shows `text` and blocks the keyboard. Return the command's output.

        Raises:
            CommandFailed: the command failed.
            UserCancelled: the user closed the dialog.
        """
        dialog = ProgressScreen(text, run_command(*args))
        await self.context.ask(dialog)
        if dialog.error:
            raise dialog.error
        return dialog.result

    async def import_files(self) -> None:
        """Ask for files and import them together. Then ask for each model that the files do not name."""
        from softprompt_tui.screens.file_picker import FilePickerScreen
        from softprompt_tui.screens.text_viewer import TextScreen

        imported: list[ImportedEntry] = []

        async def read(chosen: FileSelection) -> None:
            self.context.settings.folder = str(chosen.folder)
            count = len(chosen.files)
            text = f"reading {chosen.files[0].name if count == 1 else f'{count} files'}"
            values = await self._command(text, "import", "--json", "--", *map(str, chosen.files))
            imported.extend(map(ImportedEntry.from_json, values))

        def make_dialog(refused: FileSelection | None, reason: str) -> FilePickerScreen:
            title, marked = "Import soft prompts from files", refused.files if refused else ()
            return FilePickerScreen(title, self.folder, marked=marked, trouble=reason)

        await ask_until_accepted(self.context, make_dialog, read)
        if not imported:
            return
        self.context.post(LibraryChanged(imported[0].id))
        self.context.show_status(
            f"{imported[0].name} is in the library"
            if len(imported) == 1
            else f"{len(imported)} soft prompts are in the library",
            name=imported[0].name,
        )
        await self.context.ask(TextScreen(_format_imported(imported)))
        unassigned = [entry for entry in imported if entry.candidates and entry.state != "trashed"]
        for width in sorted({entry.width for entry in unassigned}):
            entries = [entry for entry in unassigned if entry.width == width]
            name = entries[0].name if len(entries) == 1 else f"these {len(entries)} soft prompts"
            await self._assign(name, [entry.id for entry in entries], width, entries[0].candidates)

    async def assign_model(self, entry: Entry) -> None:
        """Ask for the model of an imported soft prompt whose file does not name it."""
        from softprompt.formats.importer import check_assignable, find_candidate_models

        check_assignable(entry.prompt)
        width = entry.prompt.vectors.shape[1]
        candidates = await asyncio.to_thread(find_candidate_models, width)
        if not candidates:
            raise ConfigError(
                f"no known model has width {width}, so {entry.prompt.name} has no model to assign. "
                "`softprompt-tui assign NAME --model local-dir:FOLDER` sets a model folder."
            )
        await self._assign(entry.prompt.name, [entry.id], width, candidates)

    async def _assign(self, name: str, entries: Sequence[str], width: int, candidates: Sequence[str]) -> None:
        from softprompt_tui.screens.choice import ChoiceScreen

        model = await self.context.ask(
            ChoiceScreen(
                f"The file does not name the text encoder of {sanitize(name)}. These models have width {width}:",
                candidates,
                "Not now; i in the library asks again",
            )
        )
        if not model:
            return
        await self._command(f"loading {model}", "assign", "--json", "--model", model, "--", *entries)
        self.context.post(LibraryChanged(entries[0]))
        self.context.show_status(f"model of {name}: {model}", name=name)

    async def ask_hard_prompt(self, entry: Entry) -> None:
        """Ask for the hard prompt of an imported soft prompt, and measure the similarity if the model is known."""
        from softprompt.formats.importer import check_assignable

        prompt = entry.prompt
        check_assignable(prompt, model=False, hard_prompt=True, again=True)
        question = f"The hard prompt of {sanitize(prompt.name)}; `port` uses it to train for other models"

        async def assign(text: str) -> None:
            if not text.strip():
                raise empty_prompt()
            if text != prompt.hard_prompt:
                again = ["--again"] if prompt.hard_prompt else []
                await self._command(
                    f"measuring {prompt.name}", "assign", "--json", *again, "--prompt", text, "--", entry.id
                )
                self.context.post(LibraryChanged(entry.id))
                self.context.show_status(f"hard prompt of {prompt.name}: {text}")

        await ask_until_accepted(
            self.context,
            lambda refused, reason: AskText(question, prompt.hard_prompt if refused is None else refused, reason),
            assign,
        )

    async def export(self, entry: Entry) -> None:
        """Ask for the destination, write the file, and show what to type in the other program."""
        from softprompt.formats.writers.causal_lm.placement import is_language_model
        from softprompt_tui.screens.export import ExportScreen
        from softprompt_tui.screens.text_viewer import TextScreen

        async def write(request: ExportRequest) -> None:
            exported = await self._export_or_ask(entry, request)
            self.context.settings.folder = str(Path(exported.paths[0]).parent)
            await self.context.ask(TextScreen(_format_exported(exported, await self.context.copy(exported.line))))

        name, width, is_causal = entry.prompt.name, entry.prompt.vectors.shape[1], is_language_model(entry.prompt)
        await ask_until_accepted(
            self.context,
            lambda refused, reason: ExportScreen(name, width, self.folder, is_causal, refused, reason),
            write,
        )

    async def _export_or_ask(self, entry: Entry, request: ExportRequest) -> ExportedFile:
        """Write the export. If a file is in the way, ask whether to replace it. Raises CommandFailed."""
        try:
            return await self._run_export(entry, request)
        except CommandFailed as error:
            if error.kind != FileInTheWay.__name__:
                raise
            question = f"{str(error).partition('. Use --force')[0]}."
            if await self.context.ask(AskKey(sanitize(question), [("r", "replace it")])) != "r":
                raise CommandFailed(question) from error
            return await self._run_export(entry, request, "--force")

    async def _run_export(self, entry: Entry, request: ExportRequest, *more: str) -> ExportedFile:
        from softprompt_tui.screens.file_picker import expand_home

        options = {
            "--out": request.out, "--sdxl": request.other, "--token": request.token, "--question": request.question,
        }  # fmt: skip
        arguments = [
            argument
            for option, value in options.items()
            if value
            for argument in (option, expand_home(value) if option == "--out" else value)
        ]
        text = f"writing {entry.prompt.name} for {request.to}"
        return ExportedFile.from_json(
            await self._command(text, "export", "--json", "--to", request.to, *arguments, *more, "--", entry.id)
        )


def _format_exported(exported: ExportedFile, copied: str) -> Group:
    rows = [("written", Text(sanitize(path), "bold")) for path in exported.paths]
    lines = exported.line.split("\n")
    rows += [("" if i else "use", Text(sanitize(line), "bold")) for i, line in enumerate(lines)]
    if exported.word:
        rows.append(("in a prompt", Text(sanitize(f"a photo of {exported.word} at night"))))
    rows += [("note", Text(sanitize(note))) for note in exported.notes]
    return Group(label_grid(rows), Text(f"\nThe {'code' if len(lines) > 2 else 'line'} to use {copied}.", "dim"))


def _format_table(imported: list[ImportedEntry]) -> Group:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("name", "tokens", "width", "model", "file"):
        table.add_column(title, overflow="ellipsis", no_wrap=True)
    for entry in imported[:MAX_LISTED]:
        cells = (entry.name, entry.tokens, entry.width, entry.model or "unknown", entry.file)
        table.add_row(*(Text(sanitize(str(cell))) for cell in cells))
    more = [Text(f"and {len(imported) - MAX_LISTED:,} more", "dim")] * (len(imported) > MAX_LISTED)
    return Group(table, *more)


def _format_imported(imported: list[ImportedEntry]) -> Group:
    if len(imported) > MAX_DETAILED:
        return _format_table(imported)
    grids: list[RenderableType] = []
    for entry in imported:
        rows: tuple[tuple[str, str | Text], ...] = (
            ("name", Text(sanitize(entry.name), "bold")),
            ("from", f"{entry.file} ({entry.format})"),
            ("soft tokens", f"{entry.tokens} of width {entry.width}"),
            ("model", entry.model or "unknown"),
            ("unknown", ", ".join(entry.unknown)),
            ("state", STATE_NOTES[entry.state]),
            *(("note", note) for note in entry.notes),
        )
        grids += [label_grid((label, value) for label, value in rows if value), Text()]
    return Group(*grids)
