"""`softprompt-tui compare`."""

from __future__ import annotations

import click

from softprompt.errors import PromptError
from softprompt_tui.cli.common import (
    device_option,
    json_option,
    load_text_encoder,
    model_option,
    print_json,
    print_table,
)
from softprompt_tui.cli.report import print_line
from softprompt_tui.rendering.numbers import format_number


@click.command()
@click.argument("texts", nargs=-1, required=True, metavar="TEXT TEXT...")
@model_option
@device_option
@json_option
def compare(texts: tuple[str, ...], model: str, device: str, as_json: bool) -> None:
    """Show how similar a text encoder finds each pair of texts: the cosine of their pooled embeddings.

    \b
    Examples:
      softprompt-tui compare "a lake at sunrise" "dawn over water" "a red car"
      softprompt-tui compare "a lake at sunrise" "dawn over water" --json
    """
    if len(texts) < 2:
        raise PromptError("compare got one text, but needs at least two")
    encoder = load_text_encoder(model, device, "a comparison")
    pooled = encoder.encode(texts)
    table = (pooled @ pooled.T).clamp(-1, 1).tolist()
    if as_json:
        print_json({"model": encoder.name, "texts": list(texts), "similarities": table})
        return
    for i, text in enumerate(texts, 1):
        print_line(f"{i}", text)
    click.echo()
    print_table(
        ["", *(str(i) for i in range(1, len(texts) + 1))],
        [[str(i), *(format_number(value) for value in row)] for i, row in enumerate(table, 1)],
        right=range(len(texts) + 1),
    )
