"""`softprompt-tui diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from softprompt.errors import SoftPromptError
from softprompt_tui.cli.common import (
    complete_entry,
    device_option,
    json_option,
    library,
    load,
    narrate,
    print_json,
    print_table,
)
from softprompt_tui.cli.report import line
from softprompt_tui.rendering.numbers import figure
from softprompt_tui.rendering.provenance import UNKNOWN

if TYPE_CHECKING:
    from softprompt.library.diff import Difference
    from softprompt.library.entry import Entry

MAX_CELL_WIDTH = 40  # characters of a value in the table


@click.command()
@click.argument("first", shell_complete=complete_entry)
@click.argument("second", shell_complete=complete_entry)
@device_option
@json_option
def diff(first: str, second: str, device: str, as_json: bool) -> None:
    """Show what tells two soft prompts apart: how they were made, how alike they are as a whole and token by token, and both loss curves.

    \b
    Examples:
      softprompt-tui diff landscape landscape-2
      softprompt-tui diff landscape landscape-2 --json
    """
    here = library()
    a, b = here.open(first), here.open(second)
    from softprompt.library.diff import difference

    found = difference(a, b)
    alike = None if found.cosines is None else _similarity(a, b, device)
    if as_json:
        print_json(_values(a, b, found, alike))
        return
    line("first", f"{a.prompt.name}  (id {a.id})")
    line("second", f"{b.prompt.name}  (id {b.id})")
    click.echo()
    print_table(
        ("differs in", "first", "second"), [(key, _short(one), _short(two)) for key, (one, two) in found.fields.items()]
    )
    click.echo()
    if found.cosines is None:
        models = [entry.prompt.model or f"an {UNKNOWN} model" for entry in (a, b)]
        line(
            "similarity", f"not comparable: one is of {models[0]}, the other of {models[1]}, or of other weights of it"
        )
    else:
        if alike is not None:
            line("similarity", f"{alike:.4f} of the two soft prompts")
        line("", f"{figure(found.hard_prompts)} of their hard prompts")
        click.echo()
        print_table(("first", "word", "nearest in second", "word", "cosine"), _tokens(a, b, found), right=(4,))
    click.echo()
    from softprompt_tui.cli.report import print_curve

    print_curve(a.prompt.losses, b.prompt.losses, labels=("first", "second"))


def _similarity(a: Entry, b: Entry, device: str) -> float | None:
    """Of the two soft prompts as the encoder reads them; None, and said why, where that cannot be had here."""
    try:
        encoder = load(a.prompt.model, device)
        encoder.check_belongs(a.prompt)
        from softprompt.composition.composer import compose, pooled

        first, second = pooled(
            encoder, compose(encoder, ["[first]", "[second]"], {"first": a, "second": b}.__getitem__)
        )
    except SoftPromptError as error:
        narrate(f"note: without the similarity of the two: {error}")
        return None
    return float((first @ second).clamp(-1, 1))


def _tokens(a: Entry, b: Entry, found: Difference) -> list[tuple[str, ...]]:
    words = [[read.token for read in entry.prompt.readout] for entry in (a, b)]
    return [
        (f"[v{i + 1}]", _word(words[0], i), f"[v{near + 1}]", _word(words[1], near), f"{cosine:.3f}")
        for i, (near, cosine) in enumerate(found.closest())
    ]


def _word(words: list[str], i: int) -> str:
    return words[i] if i < len(words) else "-"


def _short(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = "-" if value is None or value == "" else f"{value:.4f}" if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_CELL_WIDTH else f"{text[: MAX_CELL_WIDTH - 1]}…"


def _values(a: Entry, b: Entry, found: Difference, alike: float | None) -> dict[str, Any]:
    return {
        "first": a.id,
        "second": b.id,
        "differs": {key: list(values) for key, values in found.fields.items()},
        "similarity": alike,
        "hard_prompts": found.hard_prompts,
        "cosines": None if found.cosines is None else found.cosines.tolist(),
        "losses": [a.prompt.losses.tolist(), b.prompt.losses.tolist()],
    }
