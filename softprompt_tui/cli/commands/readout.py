"""`softprompt-tui readout`."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING

import click

from softprompt.errors import ConfigError
from softprompt_tui.cli.common import device_option, entry_argument, json_option, library, load, print_json
from softprompt_tui.cli.report import print_line
from softprompt_tui.rendering.answers import WORDS_NOTE
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.provenance import describe_missing_model
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.prompts.results import ReadoutToken

MAX_NEIGHBOURS = 1000
INDENT = 6
NO_BREAK = "\u2007"  # a non-breaking space between a word and its cosine


def nearest_tokens(read: ReadoutToken) -> tuple[tuple[str, float], ...]:
    """Return a soft token's nearest vocabulary tokens with their cosines, nearest first."""
    return ((read.token, read.cosine), *((neighbor.token, neighbor.cosine) for neighbor in read.alternatives))


@click.command()
@entry_argument
@click.option(
    "--top", type=click.IntRange(1, MAX_NEIGHBOURS), default=8, show_default=True, help="Words per soft token."
)
@device_option
@json_option
def readout(name: str, top: int, device: str, as_json: bool) -> None:
    """Show the vocabulary words nearest to each soft token of NAME, and their similarity when used as a text prompt.

    \b
    Examples:
      softprompt-tui readout serene-landscape-sunrise
      softprompt-tui readout serene-landscape-sunrise --top 20 --json
    """
    entry = library().open(name)
    prompt = entry.prompt
    if not prompt.model:
        raise ConfigError(f"cannot read out {prompt.name}: {describe_missing_model(prompt)}")
    model = load(prompt.model, device)
    model.check_compatible(prompt)
    from softprompt.encoders.clip.text_encoder import as_text_encoder
    from softprompt.evaluation.readout import read_out, readout_similarity

    tokens, text = read_out(model, prompt.vectors, top - 1)
    similarity = None
    if prompt.target.size:
        similarity = readout_similarity(as_text_encoder(model, "the readout's similarity"), text, prompt.target)
    if as_json:
        neighbours = [[{"token": token, "cosine": cosine} for token, cosine in nearest_tokens(read)] for read in tokens]
        result = {"id": entry.id, "name": prompt.name, "readout_text": text, "readout_similarity": similarity}
        print_json(result | {"neighbours": neighbours})
        return
    print_line("readout", text)
    if prompt.is_for_language_model:
        print_line("note", WORDS_NOTE)
    else:
        print_line(
            "as text", f"similarity {format_number(similarity)}; the soft tokens: {format_number(prompt.similarity)}"
        )
    for i, read in enumerate(tokens, 1):
        words = "  ".join(f"{token} {cosine:.3f}".replace(" ", NO_BREAK) for token, cosine in nearest_tokens(read))
        click.echo()
        lines = textwrap.wrap(
            sanitize(words), max(20, shutil.get_terminal_size().columns - INDENT), break_long_words=False
        )
        for n, line in enumerate(lines):
            click.echo(f"{f'[v{i}]' if n == 0 else '':<{INDENT}}" + line.replace(NO_BREAK, " "))
