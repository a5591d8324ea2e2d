"""`softprompt-tui readout`."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING

import click

from softprompt.errors import ConfigError
from softprompt_tui.cli.common import device_option, entry_argument, json_option, library, load, print_json
from softprompt_tui.cli.report import line
from softprompt_tui.rendering.numbers import figure
from softprompt_tui.rendering.provenance import unassigned
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.prompts.results import ReadoutToken

MAX_NEIGHBOURS = 1000
INDENT = 6
JOINED = "\u2007"  # between a word and its cosine, so that a line does not end there


def nearest(read: ReadoutToken) -> tuple[tuple[str, float], ...]:
    return ((read.token, read.cosine), *((near.token, near.cosine) for near in read.alternatives))


@click.command()
@entry_argument
@click.option(
    "--top", type=click.IntRange(1, MAX_NEIGHBOURS), default=8, show_default=True, help="Neighbours of each soft token."
)
@device_option
@json_option
def readout(name: str, top: int, device: str, as_json: bool) -> None:
    """Show the vocabulary words nearest to each soft token of NAME, and what they mean when typed as text.

    \b
    Examples:
      softprompt-tui readout serene-landscape-sunrise
      softprompt-tui readout serene-landscape-sunrise --top 20 --json
    """
    entry = library().open(name)
    prompt = entry.prompt
    if not prompt.model:
        raise ConfigError(f"{prompt.name} has no readout: {unassigned(prompt)}")
    encoder = load(prompt.model, device)
    encoder.check_belongs(prompt)
    from softprompt.evaluation.readout import read_out, readout_similarity

    tokens, text = read_out(encoder, prompt.vectors, top - 1)
    similarity = readout_similarity(encoder, text, prompt.target) if prompt.target.size else None
    if as_json:
        neighbours = [[{"token": token, "cosine": cosine} for token, cosine in nearest(read)] for read in tokens]
        result = {"id": entry.id, "name": prompt.name, "readout_text": text, "readout_similarity": similarity}
        print_json(result | {"neighbours": neighbours})
        return
    line("readout", text)
    line("as text", f"similarity {figure(similarity)}; the soft tokens themselves: {figure(prompt.similarity)}")
    for i, read in enumerate(tokens, 1):
        words = "  ".join(f"{token} {cosine:.3f}".replace(" ", JOINED) for token, cosine in nearest(read))
        click.echo()
        wrapped = textwrap.wrap(
            sanitize(words), max(20, shutil.get_terminal_size().columns - INDENT), break_long_words=False
        )
        for n, part in enumerate(wrapped):
            click.echo(f"{f'[v{i}]' if n == 0 else '':<{INDENT}}" + part.replace(JOINED, " "))
