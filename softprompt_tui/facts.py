"""What is known of a soft prompt or a run, as text to be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from softprompt_tui.cli.report import UNKNOWN, told_of_origin
from softprompt_tui.inert import inert

if TYPE_CHECKING:
    from softprompt.library.entry import Entry


def in_full(entry: Entry) -> Text:
    made = entry.prompt
    text = (
        Text().append(f"{inert(made.name)}\n", "bold").append(f"{inert(made.hard_prompt or 'hard prompt unknown')}\n\n", "italic")
    )
    norms = ((made.vectors**2).sum(axis=1) ** 0.5).tolist()
    composed = made.composition
    facts = {
        "model": made.model or UNKNOWN,
        "soft tokens": f"{made.tokens}, norms {', '.join(f'{norm:.2f}' for norm in norms)}",
        "similarity": UNKNOWN if made.similarity is None else f"{made.similarity:.4f}",
        "composed": f"{composed.mean:.4f} mean, {composed.worst:.4f} worst; {composed.floor:.4f} without their words"
        if composed
        else "",
        "hidden": ", ".join(f"{family} {value:.4f}" for family, value in made.hidden.items()),
        "readout": f"{made.readout_text} (typed as text: {UNKNOWN if made.readout_similarity is None else f'{made.readout_similarity:.4f}'})"
        if made.readout
        else "",
        "trained": f"{made.steps} steps in {made.seconds:.1f} s on {made.device}; {made.stopped}" if made.device else "",
        **_joined(told_of_origin(made)),
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


def _joined(told: list[tuple[str, str]]) -> dict[str, str]:
    """Lines of one label as one."""
    joined: dict[str, str] = {}
    for label, words in told:
        joined[label] = f"{joined[label]}; {words}" if label in joined else words
    return joined


def of_run(run: dict[str, Any]) -> Text:
    """What was asked for; how far it is stands in the panes of loss and runs."""
    text = Text()
    if run["name"]:
        text.append(f"{inert(run['name'])}\n", "bold")
    text.append(f"{inert(run['prompt'])}\n\n", "italic")
    facts = {
        "model": f"{run['model']} on {run['device']}",
        "soft tokens": f"{run['tokens']}, in {run['steps']} steps",
        "state": run["state"],
        "queued": run["created"],
        "began": run["began"],
        "ended": run["ended"],
        "run": run["id"],
        "error": run["error"],
    }
    for label, value in facts.items():
        if value:
            text.append(f"{label:<12}", "dim").append(f"{inert(str(value))}\n")
    return text


def compared(a: Entry, b: Entry) -> Text:
    from softprompt.library.difference import difference

    found = difference(a, b)
    text = Text()
    text.append(inert(a.prompt.name), "bold").append(" and ", "dim").append(inert(b.prompt.name) + "\n\n", "bold")
    if found.cosines is None:
        text.append("They belong to different models, or of one it is not known: no comparison token by token.\n", "italic")
    else:
        alike = UNKNOWN if found.hard_prompts is None else f"{found.hard_prompts:.4f}"
        text.append("similarity of their hard prompts ", "dim").append(f"{alike}\n\n", "bold")
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
