"""A soft prompt for people and for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softprompt.config import TrainConfig
from softprompt.text_states import ALL, is_stand_in
from softprompt_tui.cli.common import print_table
from softprompt_tui.inert import inert

UNKNOWN = "unknown"
OF_THE_FILE = ("file", "format", "part", "with", "sha256")  # what an import writes down of the file
HIDDEN = "hidden-state"

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.prompts.soft_prompt import SoftPrompt


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
    line("", f"{hard.tokens} tokens by {hard.method}, {hard.evaluated:,} texts judged in {hard.seconds:.1f} s{composed}")
    each = (("soft", prompt.similarity), ("readout", prompt.readout_similarity), ("hard readout", hard.similarity))
    line("similarities", "   ".join(f"{name} {UNKNOWN if value is None else f'{value:.4f}'}" for name, value in each))


def unassigned(prompt: SoftPrompt) -> str:
    """What to do about a soft prompt whose model is unknown."""
    return f"which model it belongs to is not known. `softprompt-tui assign '{prompt.name}' --model MODEL` says so"


def told_of_hidden(prompt: SoftPrompt) -> list[tuple[str, str]]:
    """(label, words) for how near it comes in what diffusion models read; in words that nobody takes for the pooled similarity."""
    known = [family for family in ALL if family in prompt.hidden]  # the file keeps them in another order
    if not known:
        return []
    values = ", ".join(f"{prompt.hidden[family]:.4f} {family}" for family in known)
    told = [(HIDDEN, f"similarity {values}")]
    if is_stand_in(prompt.model):
        told.append(("", f"({prompt.model or 'its model'} stands in for the encoders that these read)"))
    return told


def told_of_origin(prompt: SoftPrompt) -> list[tuple[str, str]]:
    """(label, words) for what it was made from, and for what a file that it came from said of itself."""
    told = [
        (one.relation, f"{one.name} ({one.id}, {one.model})" + (f" at {one.weight:.3g}" if one.relation == "mixed" else ""))
        for one in prompt.ancestry
    ]
    known = {key: value for key, value in prompt.source.items() if value not in ("", None)}
    # what stands in the file itself has a label of its own: a file can call anything "model"
    said = "; ".join(f"{key} {value}" for key, value in sorted(known.items()) if key not in OF_THE_FILE)
    told += [(key, f"{known[key]}") for key in OF_THE_FILE if key in known]
    return told + [("file says", said)] * bool(said)


def unusual(config: dict[str, Any]) -> str:
    """The settings that are not the usual ones; steps and tokens stand elsewhere."""
    usual = TrainConfig().as_dict()
    unusual = {
        key: value for key, value in config.items() if key not in ("steps", "tokens") and value != usual.get(key) and value != []
    }
    if "contexts" in unusual:
        unusual["contexts"] = f"{len(unusual['contexts'])} of its own"
    elif config.get("contexts") == []:
        unusual["contexts"] = "none"
    return ", ".join(f"{key} {value}" for key, value in unusual.items())


STOPPED = {
    "steps": "all steps taken",
    "stop_at": "stopped at --stop-at",
    "patience": "stopped: no more progress",
    "interrupted": "interrupted",
    "failed": "ended early by a failure",
}


def line(label: str, text: str) -> None:
    click.echo(f"{click.style(f'{inert(label):<12}', dim=True)} {inert(text)}")


def print_readout(prompt: SoftPrompt) -> None:
    rows = [
        (f"[v{i}]", read.token, f"{read.cosine:.3f}", "  ".join(f"{near.token} {near.cosine:.2f}" for near in read.alternatives))
        for i, read in enumerate(prompt.readout, 1)
    ]
    print_table(("", "token", "cosine", "alternatives"), rows, right=(2,), stretch=3)
