"""The library: one immutable file an entry under `entries`, named by a random id and a revision. Names never become paths."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import BadName, EntryDamaged, EntryNotFound, HomeError
from softprompt.files import write_new
from softprompt.home import VARIABLE, data_folder, make_folder
from softprompt.library.names import check_name, name_for, numbered, same

if TYPE_CHECKING:  # numpy takes 0.1 s to import, and listing does without
    from softprompt.library.entry import Entry
    from softprompt.prompt import SoftPrompt

SUFFIX = ".safetensors"
FIRST_READ = 1 << 16  # bytes; most headers are shorter


@dataclass(frozen=True)
class Listed:
    """An entry's provenance as its header gives it, not yet checked against its bytes."""

    id: str
    path: Path
    provenance: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.provenance["name"])


class Library:
    """The saved soft prompts in `folder`, by default this user's."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or data_folder()) / "library"
        self.entries = self.folder / "entries"

    def prepare(self) -> None:
        """Makes sure that something can be saved; raises HomeError. Asked before a training, so that none is lost after it."""
        make_folder(self.entries)
        probe = self.entries / f".{secrets.token_hex(8)}.partial"
        try:
            probe.touch(mode=0o600, exist_ok=False)
        except OSError as error:
            raise HomeError(
                f"{self.entries} cannot be written to ({error.strerror}): free it, or set {VARIABLE} to another folder"
            ) from error
        finally:
            probe.unlink(missing_ok=True)

    def save(self, prompt: SoftPrompt, id: str | None = None) -> Entry:
        """Saves a soft prompt durably as a new entry and returns it.

        It is named after its hard prompt where it has no name; a name that is taken gets a number, so that nothing trained is
        lost. Raises BadName, and HomeError where nothing can be written.
        """
        from softprompt.library.entry import Entry, pack

        self.prepare()
        taken = {same(listed.name) for listed in self.list()[0]}
        name = numbered(check_name(prompt.name), taken) if prompt.name else name_for(prompt.hard_prompt, taken)
        if id is not None and self.path(id, 1).exists():
            return self.open(id)
        entry = Entry(id or secrets.token_hex(8), 1, prompt.named(name))
        try:
            write_new(self.path(entry.id, entry.revision), pack(entry))
        except OSError as error:
            raise HomeError(
                f"{self.entries} cannot be written to ({error.strerror}); nothing was saved. Free it, or set {VARIABLE}"
            ) from error
        return entry

    def free_name(self, name: str) -> str:
        """The name, tidied; raises BadName where it cannot be given or is taken. Asked before a training."""
        name = check_name(name)
        if same(name) in {same(listed.name) for listed in self.list()[0]}:
            raise BadName(f"the library has a soft prompt named {name} already: choose another name")
        return name

    def path(self, entry_id: str, revision: int) -> Path:
        return self.entries / f"{entry_id}.{revision}{SUFFIX}"

    def list(self) -> tuple[list[Listed], list[EntryDamaged]]:
        """(all entries, newest first; what is wrong with the files that could not be read)."""
        found, damaged = [], []
        for path in self._files():
            try:
                found.append(Listed(path.name.split(".")[0], path, _read_provenance(path)))
            except EntryDamaged as error:
                damaged.append(error)
            except OSError as error:
                damaged.append(EntryDamaged(f"{path} cannot be read: {error.strerror}"))
        return sorted(found, key=lambda listed: (str(listed.provenance.get("created")), listed.id), reverse=True), damaged

    def _files(self) -> Iterator[Path]:
        try:
            yield from (path for path in self.entries.iterdir() if path.name.endswith(SUFFIX) and not path.name.startswith("."))
        except FileNotFoundError:
            return
        except OSError as error:
            raise HomeError(f"{self.entries} cannot be read: {error.strerror}. Set {VARIABLE} to a folder of yours") from error

    def find(self, name: str) -> Listed:
        """The entry of this name or id (or the first letters of an id); raises EntryNotFound with close matches."""
        listed, _ = self.list()
        matches = [one for one in listed if same(one.name) == same(name.strip())]
        matches = matches or [one for one in listed if len(name) >= 4 and one.id.startswith(name.lower())]
        if not matches:
            spelled = {same(one.name): one.name for one in listed}
            names = [spelled[close] for close in get_close_matches(same(name), spelled, 3)]
            raise EntryNotFound(
                f"no soft prompt is named {name!r}. "
                + (f"Close: {', '.join(names)}" if names else "`softprompt-tui list` shows all")
            )
        if len(matches) > 1:
            raise EntryNotFound(f"{name!r} is the name of several: {', '.join(one.id for one in matches)}. Give an id")
        return matches[0]

    def open(self, name: str) -> Entry:
        """The entry of this name or id, its every byte verified. Raises EntryNotFound, EntryDamaged."""
        from softprompt.library.entry import unpack

        path = self.find(name).path
        try:
            return unpack(path.read_bytes(), str(path))
        except OSError as error:
            raise EntryDamaged(f"{path} cannot be read: {error.strerror}") from error


def _read_provenance(path: Path) -> dict[str, Any]:
    from softprompt.library.header import LONGEST_HEADER, header_length, provenance_of

    with path.open("rb") as file:
        start = file.read(FIRST_READ)
        missing = 8 + header_length(start) - len(start)
        if 0 < missing <= LONGEST_HEADER:
            start += file.read(missing)
    return provenance_of(start, str(path))
