"""A library as a plain dict, and steps that change both: what tests of crashes compare."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softprompt import Library, SoftPrompt
from softprompt.errors import EntryNotFound
from softprompt.prompts.results import ContextFidelity, ContextScore, Neighbour, ReadoutToken

NUMBERS = np.linspace(-1, 1, 8, dtype=np.float32)
OPS = ("save", "rename", "tag", "note", "duplicate", "delete", "restore", "purge")


def a_prompt(**changes: Any) -> SoftPrompt:
    values: dict[str, Any] = {
        "hard_prompt": "a red fox [/bold] \x1b[31m in snow 雪", "model": "mini", "model_fingerprint": "abc", "vectors": NUMBERS.reshape(2, 4),
        "target": NUMBERS, "losses": NUMBERS[:5], "similarities": NUMBERS[:5], "similarity": 0.9971, "loss": 0.0029, "steps": 5, "seconds": 1.5,
        "composition": ContextFidelity((ContextScore("{} at night", 0.98, 0.9), ContextScore("an old {}", 0.96, 0.8))), "stopped": "steps",
        "readout": (ReadoutToken("fox", 0.4, (Neighbour("foxes", 0.38),)),), "readout_text": "fox", "readout_similarity": 0.8,
        "config": {"tokens": 2}, "warnings": ("a note",), "versions": {"torch": "2"},
    }  # fmt: skip
    return SoftPrompt(**values | changes)


@dataclass(frozen=True)
class Kept:
    """What is known of an entry; `number` is in its vectors."""

    name: str
    number: int
    tags: tuple[str, ...] = ()
    note: str = ""
    trashed: bool = False


@dataclass(frozen=True)
class Step:
    """One change: of the entry with the id `target`, or of none yet; `number` makes names and texts that no other step makes."""

    op: str
    target: str
    number: int

    def do(self, library: Library) -> str:
        """Does it, and returns the id that it was about."""
        word = f"w{self.number}"
        match self.op:
            case "save":
                vectors = np.full((2, 4), self.number, dtype=np.float32)
                return library.save(a_prompt(name=word, vectors=vectors)).id
            case "rename":
                library.rename(self.target, word)
            case "tag":
                library.tag(self.target, [word])
            case "note":
                library.annotate(self.target, word)
            case "duplicate":
                return library.duplicate(self.target, word).id
            case "delete":
                library.delete(self.target)
            case "restore":
                library.restore(self.target)
            case "purge":
                library.purge(self.target)
        return self.target

    def done(self, model: dict[str, Kept], made: str) -> dict[str, Kept]:
        """The model after the step; `made` is the id that it was about."""
        word, after = f"w{self.number}", dict(model)
        if self.op == "purge":
            del after[self.target]
            return after
        before = model.get(self.target, Kept(word, self.number))
        after[made] = {
            "save": Kept(word, self.number),
            "rename": replace(before, name=word),
            "tag": replace(before, tags=tuple(sorted({*before.tags, word}))),
            "note": replace(before, note=word),
            "duplicate": replace(before, name=word),
            "delete": replace(before, trashed=True),
            "restore": replace(before, trashed=False),
        }[self.op]
        return after

    def agrees(self, found: dict[str, Kept], model: dict[str, Kept]) -> bool:
        """Whether `found` is the model before the step, or after it: what a crash may leave."""
        if found == model:
            return True
        made = [*(found.keys() - model.keys()), self.target] if self.op in ("save", "duplicate") else [self.target]
        return found == self.done(model, made[0])


def a_step(chance: random.Random, model: dict[str, Kept], number: int, most: int = 12) -> Step:
    """A step that can be done; the library stays under `most` entries."""
    living = [one for one, kept in model.items() if not kept.trashed]
    trashed = [one for one, kept in model.items() if kept.trashed]
    ops = (
        ["save"]
        if not model
        else [
            op for op in OPS if (op in ("restore", "purge") and trashed) or (op not in ("restore", "purge") and living)
        ]
    )
    ops = [op for op in ops if len(model) < most or op not in ("save", "duplicate")] or ["save"]
    op = chance.choice(ops)
    return Step(
        op, "" if op == "save" else chance.choice(sorted(trashed if op in ("restore", "purge") else living)), number
    )


def found_in(library: Library) -> dict[str, Kept]:
    """The library as a dict, every entry opened and its bytes verified."""
    out = {}
    listed = library.list()
    assert listed.damaged == []
    for one in listed.entries:
        entry = library.open(one.id)
        assert (entry.prompt.name, entry.tags, entry.note) == (one.name, one.tags, one.note)
        out[one.id] = Kept(one.name, int(entry.prompt.vectors[0, 0]), entry.tags, entry.note)
    for one in library.list(trashed=True).entries:
        try:
            library.open(one.id)
        except EntryNotFound:
            content = library.content(one.id)
            assert content is not None
            out[one.id] = Kept(one.name, int(content.prompt.vectors[0, 0]), one.tags, one.note, trashed=True)
    return out
