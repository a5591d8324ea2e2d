"""Print a soft prompt, as text or as JSON."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from softprompt_tui.cli.common import print_table
from softprompt_tui.rendering.answers import WORDS_NOTE, describe_answers
from softprompt_tui.rendering.examples import SCORE_HEADINGS, describe_examples, score_rows
from softprompt_tui.rendering.numbers import format_number, format_rate
from softprompt_tui.rendering.plots import MAX_PLOT_WIDTH, PLOT_HEIGHT, render, strip_color
from softprompt_tui.rendering.provenance import (
    STOP_REASONS,
    UNKNOWN,
    describe_hidden_states,
    describe_origin,
    describe_settings,
)
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.prompts.results import AnswerFidelity, ExampleFidelity
    from softprompt.prompts.soft_prompt import Array, SoftPrompt

SHOWN_SAMPLES = 3  # of the held-out questions or examples; --json has all


def entry_json(entry: Entry, path: Path) -> dict[str, Any]:
    metadata = {"revision": entry.revision, "tags": list(entry.tags), "note": entry.note, "changed": entry.changed}
    return {"id": entry.id, **entry.prompt.as_dict(), **metadata, "path": str(path)}


def print_entry(entry: Entry, path: Path) -> None:
    """Print an entry: its prompt, similarities, settings, readout and file."""
    prompt = entry.prompt
    print_line("name", prompt.name)
    print_line("hard prompt", prompt.hard_prompt or UNKNOWN)
    print_line(
        "soft tokens", f"{prompt.tokens} on {prompt.model or f'{UNKNOWN} model of width {prompt.vectors.shape[1]}'}"
    )
    if prompt.answers is not None:
        for label, text in describe_answers(prompt.answers):
            print_line(label, text)
    elif prompt.examples is not None:
        for label, text in describe_examples(prompt.examples):
            print_line(label, text)
    else:
        print_line("similarity", UNKNOWN if prompt.similarity is None else format_number(prompt.similarity))
    if prompt.composition:
        fidelity = prompt.composition
        print_line(
            "composed",
            f"{format_number(fidelity.mean)} mean, {format_number(fidelity.worst)} worst of "
            f"{len(fidelity.contexts)} contexts; floor {format_number(fidelity.floor)}",
        )
    for label, text in describe_hidden_states(prompt):
        print_line(label, text)
    if prompt.steps and prompt.device:
        print_line(
            "trained",
            f"{prompt.steps} steps in {prompt.seconds:.1f} s, {format_rate(prompt.steps_per_second)} steps/s, on "
            f"{prompt.device}; {STOP_REASONS.get(prompt.stopped, prompt.stopped)}",
        )
    if prompt.device and (settings := describe_settings(prompt.config)):
        print_line("settings", settings)
    for label, text in describe_origin(prompt):
        print_line(label, text)
    if entry.tags:
        print_line("tags", "  ".join(entry.tags))
    if entry.note:
        print_line("note", entry.note)
    if prompt.answers is not None:
        print_line("readout", f"{prompt.readout_text}   ({WORDS_NOTE})")
        print_answers(prompt.answers)
    elif prompt.examples is not None:
        print_line("readout", f"{prompt.readout_text}   ({WORDS_NOTE})")
        print_examples(prompt.examples)
    elif prompt.readout:
        similarity = UNKNOWN if prompt.readout_similarity is None else format_number(prompt.readout_similarity)
        print_line("readout", f"{prompt.readout_text}   (typed as text: similarity {similarity})")
    if prompt.hard:
        print_hard(prompt)
    if prompt.readout:
        click.echo()
        print_readout(prompt)
        click.echo()
    print_line("saved", f"{path}  (id {entry.id})")


def print_answers(answers: AnswerFidelity) -> None:
    """Print some held-out questions, with the answers with the soft prompt, the hard prompt and neither."""
    for sample in answers.samples[:SHOWN_SAMPLES]:
        click.echo()
        print_line("question", sample.question)
        for label, text in (("soft", sample.soft), ("hard", sample.hard), ("none", sample.none)):
            print_line(f"  {label}", text)


def print_examples(examples: ExampleFidelity) -> None:
    """Print the scores on held-out examples, and some of the examples with their answers."""
    click.echo()
    print_table(SCORE_HEADINGS, score_rows(examples), right=(1, 2))
    for sample in examples.samples[:SHOWN_SAMPLES]:
        click.echo()
        print_line("input", sample.input)
        answers = (("soft", sample.soft), ("few-shot", sample.few_shot), ("none", sample.none))
        for label, text in (("output", sample.output), *answers):
            print_line(f"  {label}", text)


def print_hard(prompt: SoftPrompt) -> None:
    """Print the hard readout, and its similarity next to those of the soft tokens and the readout."""
    hard = prompt.hard
    assert hard is not None
    print_line("hard readout", hard.text)
    composed = "" if hard.composed is None else f", {format_number(hard.composed)} composed"
    print_line(
        "", f"{hard.tokens} tokens by {hard.method}, {hard.evaluated:,} texts scored in {hard.seconds:.1f} s{composed}"
    )
    columns = (("soft", prompt.similarity), ("readout", prompt.readout_similarity), ("hard readout", hard.similarity))
    print_line(
        "similarities",
        "   ".join(f"{name} {UNKNOWN if value is None else format_number(value)}" for name, value in columns),
    )


def print_line(label: str, text: str) -> None:
    click.echo(f"{click.style(f'{sanitize(label):<12}', dim=True)} {sanitize(text)}")


def print_readout(prompt: SoftPrompt) -> None:
    rows = [
        (
            f"[v{i}]",
            token.token,
            f"{token.cosine:.3f}",
            "  ".join(f"{neighbor.token} {neighbor.cosine:.2f}" for neighbor in token.alternatives),
        )
        for i, token in enumerate(prompt.readout, 1)
    ]
    print_table(("", "token", "cosine", "alternatives"), rows, right=(2,), stretch=3)


def print_curve(*curves: Array, labels: Sequence[str] = ()) -> None:
    """Plot losses against steps, one curve per array, as wide as the terminal."""
    width = min(MAX_PLOT_WIDTH, shutil.get_terminal_size().columns)
    text = render(
        [[(i + 1, float(loss)) for i, loss in enumerate(losses)] for losses in curves], width, PLOT_HEIGHT, labels
    )
    if text:
        click.echo(text if sys.stdout.isatty() else strip_color(text))
