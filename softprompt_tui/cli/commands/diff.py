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
    load_text_encoder,
    narrate,
    print_json,
    print_table,
)
from softprompt_tui.cli.report import print_line
from softprompt_tui.rendering.numbers import format_number
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
    """Compare two soft prompts: their settings, their similarity as a whole and token by token, and their loss curves.

    \b
    Examples:
      softprompt-tui diff landscape landscape-2
      softprompt-tui diff landscape landscape-2 --json
    """
    user_library = library()
    a, b = user_library.open(first), user_library.open(second)
    from softprompt.library.diff import compare_entries

    difference = compare_entries(a, b)
    similarity = None if difference.cosines is None else _similarity(a, b, device)
    if as_json:
        print_json(_json_values(a, b, difference, similarity))
        return
    print_line("first", f"{a.prompt.name}  (id {a.id})")
    print_line("second", f"{b.prompt.name}  (id {b.id})")
    click.echo()
    print_table(
        ("differs in", "first", "second"),
        [(key, _format_value(left), _format_value(right)) for key, (left, right) in difference.fields.items()],
    )
    click.echo()
    if difference.cosines is None:
        models = [entry.prompt.model or f"an {UNKNOWN} model" for entry in (a, b)]
        print_line("similarity", f"not comparable: the models ({models[0]} and {models[1]}) or their weights differ")
    else:
        if similarity is not None:
            print_line("similarity", f"{format_number(similarity)} between the soft prompts")
        print_line("", f"{format_number(difference.target_similarity)} between their hard prompts")
        click.echo()
        print_table(("first", "word", "nearest in second", "word", "cosine"), _token_rows(a, b, difference), right=(4,))
    click.echo()
    from softprompt_tui.cli.report import print_curve

    print_curve(a.prompt.losses, b.prompt.losses, labels=("first", "second"))


def _similarity(a: Entry, b: Entry, device: str) -> float | None:
    """Return the similarity of two soft prompts, or print why it cannot be measured and return None."""
    try:
        encoder = load_text_encoder(a.prompt.model, device, "a comparison")
        encoder.check_compatible(a.prompt)
        from softprompt.composition.composer import compose, encode_compositions

        first, second = encode_compositions(
            encoder, compose(encoder, ["[first]", "[second]"], {"first": a, "second": b}.__getitem__)
        )
    except SoftPromptError as error:
        narrate(f"note: cannot measure the similarity: {error}")
        return None
    return float((first @ second).clamp(-1, 1))


def _token_rows(a: Entry, b: Entry, difference: Difference) -> list[tuple[str, ...]]:
    words = [[token.token for token in entry.prompt.readout] for entry in (a, b)]
    return [
        (f"[v{i + 1}]", _word(words[0], i), f"[v{nearest + 1}]", _word(words[1], nearest), f"{cosine:.3f}")
        for i, (nearest, cosine) in enumerate(difference.nearest_tokens())
    ]


def _word(words: list[str], i: int) -> str:
    return words[i] if i < len(words) else "-"


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = "-" if value is None or value == "" else format_number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= MAX_CELL_WIDTH else f"{text[: MAX_CELL_WIDTH - 1]}…"


def _json_values(a: Entry, b: Entry, difference: Difference, similarity: float | None) -> dict[str, Any]:
    return {
        "first": a.id,
        "second": b.id,
        "differs": {key: list(values) for key, values in difference.fields.items()},
        "similarity": similarity,
        "hard_prompts": difference.target_similarity,
        "cosines": None if difference.cosines is None else difference.cosines.tolist(),
        "losses": [a.prompt.losses.tolist(), b.prompt.losses.tolist()],
    }
