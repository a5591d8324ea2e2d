"""Describe a soft prompt or a run in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from softprompt.worker.summary import RunSummary
from softprompt_tui.rendering.answers import WORDS_NOTE, describe_answers
from softprompt_tui.rendering.examples import describe_examples, score_rows
from softprompt_tui.rendering.grid import label_grid
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.provenance import (
    HIDDEN_STATE_LABEL,
    STOP_REASONS,
    UNKNOWN,
    describe_hidden_states,
    describe_origin,
    describe_settings,
)
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.prompts.results import HardReadout
    from softprompt.prompts.soft_prompt import SoftPrompt


MAX_DIFFERENCE_LENGTH = 200  # characters of a value in a comparison
# of fields in a comparison; the others are called as in the file
DIFFERENCE_LABELS = {
    "model_fingerprint": "weights",
    "composed, worst": "worst composed",
    "seconds": "trained for",
    "stopped": "ended",
    "readout_text": "readout",
    "readout_similarity": "typed as text",
    "device": "trained on",
    "hidden": HIDDEN_STATE_LABEL,
    "ancestry": "made from",
    "hard": "hard readout",
    "config: hidden_share": "share setting",
    "config: project_norm": "norms setting",
}


class Facts(NamedTuple):
    """The name, prompt and labeled values of an entry or run."""

    name: str
    prompt: str
    rows: tuple[tuple[str, str], ...]

    def render(self, max_length: int = 600) -> Group:
        """Render as text, without empty values.

        Each value is cut to `max_length` characters, because imported files can contain anything.
        """
        grid = label_grid((label, _cut(value, max_length)) for label, value in self.rows if value)
        head = [Text(sanitize(self.name), "bold")] * bool(self.name)
        return Group(*head, Text(_cut(self.prompt, 2 * max_length), "italic"), Text(), grid)


def entry_facts(entry: Entry) -> Facts:
    prompt = entry.prompt
    norms = ((prompt.vectors**2).sum(axis=1) ** 0.5).tolist()
    composed = prompt.composition
    typed = UNKNOWN if prompt.readout_similarity is None else format_number(prompt.readout_similarity)
    typed = WORDS_NOTE if prompt.is_for_language_model else f"typed as text {typed}"
    rows = (
        ("model", prompt.model or UNKNOWN),
        ("soft tokens", f"{prompt.tokens}, norms {' '.join(f'{norm:.2f}' for norm in norms)}"),
        *_describe_quality(prompt),
        (
            "composed",
            f"mean {format_number(composed.mean)}, worst {format_number(composed.worst)}, "
            f"floor {format_number(composed.floor)}"
            if composed
            else "",
        ),
        *describe_hidden_states(prompt),
        ("readout", f"{prompt.readout_text}; {typed}" if prompt.readout else ""),
        ("hard readout", _describe_hard_readout(prompt.hard) if prompt.hard else ""),
        (
            "trained",
            f"{prompt.steps} steps in {prompt.seconds:.1f} s on {prompt.device}; "
            f"{STOP_REASONS.get(prompt.stopped, prompt.stopped)}"
            if prompt.device
            else "",
        ),
        ("settings", describe_settings(prompt.config) if prompt.device else ""),
        *describe_origin(prompt),
        ("created", format_time(prompt.created)),
        ("changed", f"{format_time(entry.changed)}, revision {entry.revision}" if entry.changed else ""),
        ("tags", "  ".join(entry.tags)),
        ("note", entry.note),
        ("warnings", "; ".join(prompt.warnings)),
        ("versions", ", ".join(f"{name} {version}" for name, version in prompt.versions.items())),
        ("id", entry.id),
    )
    return Facts(prompt.name, prompt.hard_prompt or "hard prompt unknown", rows)


def _describe_quality(prompt: SoftPrompt) -> list[tuple[str, str]]:
    """Return (label, value) rows for the similarity, or for what stands for it with a language model."""
    if prompt.answers is not None:
        return describe_answers(prompt.answers)
    if prompt.examples is not None:
        scores = [(name, f"loss {loss}, {right} right") for name, loss, right in score_rows(prompt.examples)]
        return [*describe_examples(prompt.examples), *scores]
    return [("similarity", UNKNOWN if prompt.similarity is None else format_number(prompt.similarity))]


def run_facts(run: RunSummary) -> Facts:
    """Return the settings and state of a run. The loss and runs panes show its progress."""
    token_counts = run.sweep
    if run.state == "unreadable":
        return Facts("", "", (("state", run.state), ("run", run.id), ("error", run.error)))
    rows = (
        ("model", f"{run.model} on {run.device}"),
        ("soft tokens", "" if token_counts or run.of_entry else f"{run.tokens}, in {run.steps} steps"),
        (
            "sweep",
            f"{len(token_counts)} token counts from {token_counts[0]} to {token_counts[-1]}, in {run.steps} steps"
            if token_counts
            else "",
        ),
        ("hard readout", f"of the soft prompt {run.of_entry}" if run.of_entry else ""),
        ("state", run.state),
        ("queued", format_time(run.created)),
        ("started", format_time(run.began)),
        ("ended", format_time(run.ended)),
        ("run", run.id),  # the loss pane says why it failed
    )
    return Facts(run.name, run.prompt, rows)


def _describe_hard_readout(hard: HardReadout) -> str:
    composed = "" if hard.composed is None else f", composed {format_number(hard.composed)}"
    return (
        f"{hard.text}; {hard.tokens} tokens, similarity {format_number(hard.similarity)}{composed}; "
        f"{hard.method}, {hard.evaluated:,} texts in {hard.seconds:.1f} s"
    )


def render_comparison(a: Entry, b: Entry) -> Group:
    from softprompt.library.diff import compare_entries

    diff = compare_entries(a, b)
    head = (
        Text()
        .append(sanitize(a.prompt.name), "bold")
        .append(" and ", "dim")
        .append(sanitize(b.prompt.name), "bold")
        .append("\n")
    )
    tokens = Table.grid(padding=(0, 2, 0, 0))
    if diff.cosines is None:
        head.append("\nTheir models differ or are unknown, so their tokens cannot be compared.\n", "italic")
    else:
        if diff.target_similarity is not None:
            head.append("\nsimilarity of their hard prompts ", "dim").append(
                f"{format_number(diff.target_similarity)}\n", "bold"
            )
        words = [[read.token for read in entry.prompt.readout] for entry in (a, b)]
        for i, (nearest, cosine) in enumerate(diff.nearest_tokens()):
            first = (Text(f"[v{i + 1}]", "dim"), Text(_word(words[0], i), "bold"), Text(f"{cosine:.3f}"))
            tokens.add_row(*first, Text(f"[v{nearest + 1}]", "dim"), Text(_word(words[1], nearest), "bold"))
    differences = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    differences.add_column("differs in", style="dim", no_wrap=True)
    for title in ("first", "second"):
        differences.add_column(title, overflow="fold", ratio=1)
    for label, *values in _differences(diff.fields, a, b):
        differences.add_row(Text(sanitize(label)), *(Text(_cut(value, MAX_DIFFERENCE_LENGTH)) for value in values))
    return Group(head, tokens, Text(), differences)


def _differences(fields: Mapping[str, tuple[object, object]], a: Entry, b: Entry) -> Iterator[tuple[str, str, str]]:
    """Yield the label and both values of every field that differs, as the details show them."""
    for key, values in fields.items():
        setting = key.removeprefix("config: ")
        if key == "name" or (setting != key and setting in fields):  # the title has it, or another row
            continue
        if key == "hidden":
            first, second = (
                dict(describe_hidden_states(entry.prompt)).get(HIDDEN_STATE_LABEL, "-") for entry in (a, b)
            )
        else:
            first, second = (_format_field(key, value) for value in values)
        label = DIFFERENCE_LABELS.get(key) or f"{setting}{' setting' * (setting != key)}"
        yield label.replace("_", " "), first, second


def _format_field(key: str, value: object) -> str:
    """Format a value of an entry for people. Nothing shows as "-"."""
    if value in (None, "", [], {}):
        return "-"
    match key, value:
        case "config: project_norm", bool():
            return "held" if value else "free"
        case "created", str():
            return format_time(value)
        case "seconds", float():
            return f"{value:.1f} s"
        case "stopped", str():
            return STOP_REASONS.get(value, value)
        case "hard", dict():
            return f"{value.get('text', '')}; similarity {format_number(value.get('similarity'))}"
        case "ancestry", list():
            return "; ".join(f"{ancestor['relation']} {ancestor['name']}" for ancestor in value)
        case "meanings", list():
            return f"{len(value)}"
    return _format_value(value)


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_format_value(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return " | ".join(map(_format_value, value))
    return str(value)


def _cut(text: str, max_length: int) -> str:
    return sanitize(text if len(text) <= max_length else f"{text[: max_length - 1]}…")


def format_time(time: str) -> str:
    """Format an ISO time in the local time zone. Returns other text unchanged."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""
    except (ValueError, OverflowError):
        return time


def _word(words: list[str], i: int) -> str:
    return sanitize(words[i]) if i < len(words) else "-"


PREPARING_SEARCH = "preparing: loading the model, listing typeable tokens"


def describe_hard_search(run: RunSummary) -> str:
    """Describe the hard-readout search at the end of a training run. Return "" before it starts."""
    return f"hard readout: {describe_round(run.hard_step, run.hard_steps)}" if run.hard_step else ""


def describe_round(step: int | None, steps: int | None) -> str:
    return f"round {step} of {steps}"
