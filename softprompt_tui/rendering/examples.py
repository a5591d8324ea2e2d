"""Describe how a soft prompt that is tuned on examples does on the held-out ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompt_tui.rendering.answers import describe_place
from softprompt_tui.rendering.numbers import format_number

if TYPE_CHECKING:
    from softprompt.prompts.results import ExampleFidelity, ExampleSource

FLOORS = ("untrained", "few-shot", "no prompt")  # in the order of the table; a file has them in another
SCORE_HEADINGS = ("on held-out examples", "loss", "right")


def describe_examples(examples: ExampleFidelity) -> list[tuple[str, str]]:
    """Return (label, value) rows: where the examples come from, and where the soft tokens stand."""
    training, held_out = examples.training, examples.held_out
    is_split = (held_out.file, held_out.sha256) == (training.file, training.sha256)
    other = "more" if is_split else f"of {_describe_source(held_out)}"
    return [
        ("examples", f"{training.count} of {_describe_source(training)}; {held_out.count} {other} held out"),
        ("placement", describe_place(examples.placement, examples.template)),
    ]


def score_rows(examples: ExampleFidelity) -> list[tuple[str, str, str]]:
    """Return the rows of a table with SCORE_HEADINGS: the soft prompt, and what it is compared with."""
    labels = {"few-shot": f"few-shot, {examples.shots} of {examples.training.count} examples"}
    floors = {name: examples.floors[name] for name in FLOORS if name in examples.floors}
    scores = {"soft prompt": examples.score, **floors}
    return [
        (labels.get(name, name), format_number(score.loss), f"{score.accuracy:.0%}") for name, score in scores.items()
    ]


def _describe_source(source: ExampleSource) -> str:
    return f"{source.file or 'a list'} (SHA-256 {source.sha256[:16]})"
