"""What is known of a soft prompt or a run, to be read."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from softprompt.worker.summary import RunSummary
from softprompt_tui.rendering.grid import labelled
from softprompt_tui.rendering.provenance import STOPPED, UNKNOWN, told_of_hidden, told_of_origin, unusual
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.prompts.results import HardReadout


class Facts(NamedTuple):
    """A name, the hard prompt, and labels with values; what is unknown or empty is left out."""

    name: str
    prompt: str
    rows: tuple[tuple[str, str], ...]

    def render(self, most: int = 600) -> Group:
        """As text under each other, a value's lines under its first; at most so many characters of each, since files may say anything."""
        grid = labelled((label, _cut(value, most)) for label, value in self.rows if value)
        head = [Text(sanitize(self.name), "bold")] * bool(self.name)
        return Group(*head, Text(_cut(self.prompt, 2 * most), "italic"), Text(), grid)


def in_full(entry: Entry) -> Facts:
    made = entry.prompt
    norms = ((made.vectors**2).sum(axis=1) ** 0.5).tolist()
    composed = made.composition
    typed = UNKNOWN if made.readout_similarity is None else f"{made.readout_similarity:.4f}"
    rows = (
        ("model", made.model or UNKNOWN),
        ("soft tokens", f"{made.tokens}, norms {' '.join(f'{norm:.2f}' for norm in norms)}"),
        ("similarity", UNKNOWN if made.similarity is None else f"{made.similarity:.4f}"),
        (
            "composed",
            f"{composed.mean:.4f} mean, {composed.worst:.4f} worst; {composed.floor:.4f} without their words"
            if composed
            else "",
        ),
        *told_of_hidden(made),
        ("readout", f"{made.readout_text}; typed as text {typed}" if made.readout else ""),
        ("hard readout", _told_of_hard(made.hard) if made.hard else ""),
        (
            "trained",
            f"{made.steps} steps in {made.seconds:.1f} s on {made.device}; {STOPPED.get(made.stopped, made.stopped)}"
            if made.device
            else "",
        ),
        ("settings", unusual(made.config) if made.device else ""),
        *told_of_origin(made),
        ("created", when(made.created)),
        ("changed", f"{when(entry.changed)}, revision {entry.revision}" if entry.changed else ""),
        ("tags", "  ".join(entry.tags)),
        ("note", entry.note),
        ("warnings", "; ".join(made.warnings)),
        ("versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
        ("id", entry.id),
    )
    return Facts(made.name, made.hard_prompt or "hard prompt unknown", rows)


def of_run(run: RunSummary) -> Facts:
    """What was asked for; how far it is stands in the panes of loss and runs."""
    numbers = run.sweep
    if run.state == "unreadable":
        return Facts("", "", (("state", run.state), ("run", run.id), ("error", run.error)))
    rows = (
        ("model", f"{run.model} on {run.device}"),
        ("soft tokens", "" if numbers or run.of_entry else f"{run.tokens}, in {run.steps} steps"),
        (
            "sweep",
            f"{len(numbers)} numbers of tokens from {numbers[0]} to {numbers[-1]}, in {run.steps} steps"
            if numbers
            else "",
        ),
        ("hard readout", f"of the soft prompt {run.of_entry}" if run.of_entry else ""),
        ("state", run.state),
        ("queued", when(run.created)),
        ("began", when(run.began)),
        ("ended", when(run.ended)),
        ("run", run.id),
        ("error", run.error),
    )
    return Facts(run.name, run.prompt, rows)


def _told_of_hard(hard: HardReadout) -> str:
    composed = "" if hard.composed is None else f", composed {hard.composed:.4f}"
    return f"{hard.text}; {hard.tokens} tokens, similarity {hard.similarity:.4f}{composed}; {hard.method}, {hard.evaluated:,} texts in {hard.seconds:.1f} s"


def compared(a: Entry, b: Entry) -> Group:
    from softprompt.library.diff import difference

    found = difference(a, b)
    head = (
        Text()
        .append(sanitize(a.prompt.name), "bold")
        .append(" and ", "dim")
        .append(sanitize(b.prompt.name), "bold")
        .append("\n")
    )
    tokens = Table.grid(padding=(0, 2, 0, 0))
    if found.cosines is None:
        head.append(
            "\nThey belong to different models, or it is not known to which: no comparison token by token.\n", "italic"
        )
    else:
        if found.hard_prompts is not None:
            head.append("\nsimilarity of their hard prompts ", "dim").append(f"{found.hard_prompts:.4f}\n", "bold")
        words = [[read.token for read in entry.prompt.readout] for entry in (a, b)]
        for i, (near, cosine) in enumerate(found.closest()):
            first = (Text(f"[v{i + 1}]", "dim"), Text(_word(words[0], i), "bold"), Text(f"{cosine:.3f}"))
            tokens.add_row(*first, Text(f"[v{near + 1}]", "dim"), Text(_word(words[1], near), "bold"))
    differs = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    differs.add_column("differs in", style="dim", max_width=16)
    for title in ("first", "second"):
        differs.add_column(title, overflow="fold", ratio=1)
    for key, (one, two) in found.fields.items():
        if key != "name":
            differs.add_row(Text(sanitize(key.removeprefix("config: "))), Text(_short(one)), Text(_short(two)))
    return Group(head, tokens, Text(), differs)


def _cut(text: str, most: int) -> str:
    return sanitize(text if len(text) <= most else f"{text[: most - 1]}…")


def when(time: str) -> str:
    """An ISO time as people write it, in their own zone; as it is where it is none."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""
    except (ValueError, OverflowError):
        return time


def _word(words: list[str], i: int) -> str:
    return sanitize(words[i]) if i < len(words) else "-"


def _short(value: object) -> str:
    return (
        "-" if value in (None, "", []) else f"{value:.4f}" if isinstance(value, float) else sanitize(str(value))[:200]
    )


READY_SOON = "getting ready: the model, and which tokens can be typed"


def round_of(run: RunSummary) -> str:
    """How far the search at the end of a training is, in words; "" where there is none."""
    return f"hard readout: {round_words(run.hard_step, run.hard_steps)}" if run.hard_step else ""


def round_words(step: int | None, steps: int | None) -> str:
    return f"round {step} of {steps}"
