"""A soft prompt for people and for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softprompt_tui.cli.common import print_table
from softprompt_tui.inert import inert

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.prompt import SoftPrompt


def entry_json(entry: Entry, path: Path) -> dict[str, Any]:
    kept = {"revision": entry.revision, "tags": list(entry.tags), "note": entry.note, "changed": entry.changed}
    return {"id": entry.id, **entry.prompt.summary(), **kept, "path": str(path)}


def print_entry(entry: Entry, path: Path) -> None:
    """The result of a training: what it is, how good it is, how it reads, where it is."""
    prompt = entry.prompt
    line("name", prompt.name)
    line("hard prompt", prompt.hard_prompt)
    line("soft tokens", f"{prompt.tokens} on {prompt.model}")
    line("similarity", f"{prompt.similarity:.4f}")
    if prompt.composition:
        made = prompt.composition
        line(
            "composed",
            f"{made.mean:.4f} mean, {made.worst:.4f} worst in {len(made.contexts)}; {made.floor:.4f} without their words",
        )
    line(
        "trained",
        f"{prompt.steps} steps in {prompt.seconds:.1f} s, {prompt.steps_per_second:.0f} steps/s, on {prompt.device}; {_STOPPED.get(prompt.stopped, prompt.stopped)}",
    )
    if entry.tags:
        line("tags", "  ".join(entry.tags))
    if entry.note:
        line("note", entry.note)
    line("readout", f"{prompt.readout_text}   (typed as text: similarity {prompt.readout_similarity:.4f})")
    click.echo()
    print_readout(prompt)
    click.echo()
    line("saved", f"{path}  (id {entry.id})")


_STOPPED = {
    "steps": "all steps taken",
    "stop_at": "stopped at --stop-at",
    "patience": "stopped: no more progress",
    "interrupted": "interrupted",
    "failed": "ended early by a failure",
}


def line(label: str, text: str) -> None:
    click.echo(f"{click.style(f'{label:<12}', dim=True)} {inert(text)}")


def print_readout(prompt: SoftPrompt) -> None:
    rows = [
        (f"[v{i}]", read.token, f"{read.cosine:.3f}", "  ".join(f"{near.token} {near.cosine:.2f}" for near in read.alternatives))
        for i, read in enumerate(prompt.readout, 1)
    ]
    print_table(("", "token", "cosine", "alternatives"), rows, right=(2,), stretch=3)
