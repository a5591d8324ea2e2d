"""A soft prompt for people and for scripts."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softprompt_tui.cli.common import print_table
from softprompt_tui.rendering.plots import HEIGHT, WIDEST, render, without_colour
from softprompt_tui.rendering.provenance import STOPPED, UNKNOWN, told_of_hidden, told_of_origin, unusual
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.prompts.soft_prompt import Array, SoftPrompt


def entry_json(entry: Entry, path: Path) -> dict[str, Any]:
    from softprompt.prompts.serialization import to_dict  # numpy

    kept = {"revision": entry.revision, "tags": list(entry.tags), "note": entry.note, "changed": entry.changed}
    return {"id": entry.id, **to_dict(entry.prompt), **kept, "path": str(path)}


def print_entry(entry: Entry, path: Path) -> None:
    """The result of a training: what it is, how good it is, how it reads, where it is."""
    prompt = entry.prompt
    line("name", prompt.name)
    line("hard prompt", prompt.hard_prompt or UNKNOWN)
    line("soft tokens", f"{prompt.tokens} on {prompt.model or f'{UNKNOWN} model of width {prompt.vectors.shape[1]}'}")
    line("similarity", UNKNOWN if prompt.similarity is None else f"{prompt.similarity:.4f}")
    if prompt.composition:
        made = prompt.composition
        line(
            "composed",
            f"{made.mean:.4f} mean, {made.worst:.4f} worst in {len(made.contexts)}; {made.floor:.4f} without their words",
        )
    for label, words in told_of_hidden(prompt):
        line(label, words)
    if prompt.steps and prompt.device:
        line(
            "trained",
            f"{prompt.steps} steps in {prompt.seconds:.1f} s, {prompt.steps_per_second:.0f} steps/s, on {prompt.device}; {STOPPED.get(prompt.stopped, prompt.stopped)}",
        )
    if prompt.device and (settings := unusual(prompt.config)):
        line("settings", settings)
    for label, words in told_of_origin(prompt):
        line(label, words)
    if entry.tags:
        line("tags", "  ".join(entry.tags))
    if entry.note:
        line("note", entry.note)
    if prompt.readout:
        typed = UNKNOWN if prompt.readout_similarity is None else f"{prompt.readout_similarity:.4f}"
        line("readout", f"{prompt.readout_text}   (typed as text: similarity {typed})")
    if prompt.hard:
        print_hard(prompt)
    if prompt.readout:
        click.echo()
        print_readout(prompt)
        click.echo()
    line("saved", f"{path}  (id {entry.id})")


def print_hard(prompt: SoftPrompt) -> None:
    """The hard readout, and how it compares: three similarities side by side."""
    hard = prompt.hard
    assert hard is not None
    line("hard readout", hard.text)
    composed = "" if hard.composed is None else f", {hard.composed:.4f} composed"
    line(
        "", f"{hard.tokens} tokens by {hard.method}, {hard.evaluated:,} texts judged in {hard.seconds:.1f} s{composed}"
    )
    each = (("soft", prompt.similarity), ("readout", prompt.readout_similarity), ("hard readout", hard.similarity))
    line("similarities", "   ".join(f"{name} {UNKNOWN if value is None else f'{value:.4f}'}" for name, value in each))


def line(label: str, text: str) -> None:
    click.echo(f"{click.style(f'{sanitize(label):<12}', dim=True)} {sanitize(text)}")


def print_readout(prompt: SoftPrompt) -> None:
    rows = [
        (
            f"[v{i}]",
            read.token,
            f"{read.cosine:.3f}",
            "  ".join(f"{near.token} {near.cosine:.2f}" for near in read.alternatives),
        )
        for i, read in enumerate(prompt.readout, 1)
    ]
    print_table(("", "token", "cosine", "alternatives"), rows, right=(2,), stretch=3)


def print_curve(*curves: Array, labels: Sequence[str] = ()) -> None:
    """Losses against steps, one curve an array; as wide as the terminal."""
    width = min(WIDEST, shutil.get_terminal_size().columns)
    text = render([[(i + 1, float(loss)) for i, loss in enumerate(losses)] for losses in curves], width, HEIGHT, labels)
    if text:
        click.echo(text if sys.stdout.isatty() else without_colour(text))
