"""A model of the library as a plain dict, and steps that change both. Crash tests compare the two."""

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
        "hard_prompt": "a red fox [/bold] \x1b[31m in snow 雪",
        "model": "mini",
        "model_fingerprint": "abc",
        "vectors": NUMBERS.reshape(2, 4),
        "target": NUMBERS,
        "losses": NUMBERS[:5],
        "similarities": NUMBERS[:5],
        "similarity": 0.9971,
        "loss": 0.0029,
        "steps": 5,
        "seconds": 1.5,
        "composition": ContextFidelity((ContextScore("{} at night", 0.98, 0.9), ContextScore("an old {}", 0.96, 0.8))),
        "stopped": "steps",
        "readout": (ReadoutToken("fox", 0.4, (Neighbour("foxes", 0.38),)),),
        "readout_text": "fox",
        "readout_similarity": 0.8,
        "config": {"tokens": 2},
        "warnings": ("a note",),
        "versions": {"torch": "2"},
    }
    if "losses" in changes:
        values["similarities"] = changes["losses"]
    return SoftPrompt(**values | changes)


@dataclass(frozen=True)
class ExpectedEntry:
    """An entry of the model. `number` is the value of all its vectors."""

    name: str
    number: int
    tags: tuple[str, ...] = ()
    note: str = ""
    trashed: bool = False


@dataclass(frozen=True)
class Step:
    """One change of the library.

    `target` is the id of the entry to change, empty for a new entry. `number` makes the step's names and texts unique.
    """

    op: str
    target: str
    number: int

    def apply(self, library: Library) -> str:
        """Change the library, and return the id of the entry that changed."""
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

    def expected_after(self, model: dict[str, ExpectedEntry], entry_id: str) -> dict[str, ExpectedEntry]:
        """Return the model after the step. `entry_id` is the id that `apply` returned."""
        word, after = f"w{self.number}", dict(model)
        if self.op == "purge":
            del after[self.target]
            return after
        before = model.get(self.target, ExpectedEntry(word, self.number))
        after[entry_id] = {
            "save": ExpectedEntry(word, self.number),
            "rename": replace(before, name=word),
            "tag": replace(before, tags=tuple(sorted({*before.tags, word}))),
            "note": replace(before, note=word),
            "duplicate": replace(before, name=word),
            "delete": replace(before, trashed=True),
            "restore": replace(before, trashed=False),
        }[self.op]
        return after

    def allows(self, entries: dict[str, ExpectedEntry], model: dict[str, ExpectedEntry]) -> bool:
        """Return whether a crash during the step may leave these entries: those before the step or after it."""
        if entries == model:
            return True
        ids = [*(entries.keys() - model.keys()), self.target] if self.op in ("save", "duplicate") else [self.target]
        return entries == self.expected_after(model, ids[0])


def random_step(rng: random.Random, model: dict[str, ExpectedEntry], number: int, max_entries: int = 12) -> Step:
    """Draw a possible step. The model never gets more than `max_entries` entries."""
    living = [entry_id for entry_id, entry in model.items() if not entry.trashed]
    trashed = [entry_id for entry_id, entry in model.items() if entry.trashed]
    ops = (
        ["save"]
        if not model
        else [
            op for op in OPS if (op in ("restore", "purge") and trashed) or (op not in ("restore", "purge") and living)
        ]
    )
    ops = [op for op in ops if len(model) < max_entries or op not in ("save", "duplicate")] or ["save"]
    op = rng.choice(ops)
    return Step(
        op, "" if op == "save" else rng.choice(sorted(trashed if op in ("restore", "purge") else living)), number
    )


def read_entries(library: Library) -> dict[str, ExpectedEntry]:
    """Return the library as a model. Opens every entry, which verifies its bytes."""
    model = {}
    page = library.list()
    assert page.damaged == []
    for summary in page.entries:
        entry = library.open(summary.id)
        assert (entry.prompt.name, entry.tags, entry.note) == (summary.name, summary.tags, summary.note)
        model[summary.id] = ExpectedEntry(summary.name, int(entry.prompt.vectors[0, 0]), entry.tags, entry.note)
    for summary in library.list(trashed=True).entries:
        try:
            library.open(summary.id)
        except EntryNotFound:
            intact = library.newest_intact(summary.id)
            assert intact is not None
            model[summary.id] = ExpectedEntry(
                summary.name, int(intact.prompt.vectors[0, 0]), summary.tags, summary.note, trashed=True
            )
    return model
