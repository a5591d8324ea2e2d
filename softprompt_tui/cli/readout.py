"""`softprompt-tui readout`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from softprompt.errors import ConfigError
from softprompt.library import Library
from softprompt_tui.cli.common import device_option, entry_argument, json_option, load, print_json, print_table
from softprompt_tui.cli.report import line

if TYPE_CHECKING:
    from softprompt.prompt import ReadoutToken

MOST = 1000


def nearest(read: ReadoutToken) -> tuple[tuple[str, float], ...]:
    return ((read.token, read.cosine), *((near.token, near.cosine) for near in read.alternatives))


@click.command()
@entry_argument
@click.option("--top", type=click.IntRange(1, MOST), default=8, show_default=True, help="Neighbours of each soft token.")
@device_option
@json_option
def readout(name: str, top: int, device: str, as_json: bool) -> None:
    """Show the vocabulary words nearest to each soft token of NAME, and what they mean when typed as text.

    \b
    Examples:
      softprompt-tui readout serene-landscape-sunrise
      softprompt-tui readout serene-landscape-sunrise --top 20 --json
    """
    entry = Library().open(name)
    prompt = entry.prompt
    encoder = load(prompt.model, device)
    if encoder.fingerprint != prompt.model_fingerprint:
        raise ConfigError(
            f"{prompt.name} was trained on other weights of {prompt.model} ({prompt.model_fingerprint}) than those here "
            f"({encoder.fingerprint}): its vectors mean nothing to them. Train it again"
        )
    import torch

    from softprompt.readout import read_out, readout_similarity

    tokens, text = read_out(encoder, torch.from_numpy(prompt.vectors.copy()), top - 1)
    similarity = readout_similarity(encoder, text, torch.from_numpy(prompt.target.copy()))
    if as_json:
        neighbours = [[{"token": token, "cosine": cosine} for token, cosine in nearest(read)] for read in tokens]
        print_json(
            {
                "id": entry.id,
                "name": prompt.name,
                "readout_text": text,
                "readout_similarity": similarity,
                "neighbours": neighbours,
            }
        )
        return
    line("readout", text)
    line("as text", f"similarity {similarity:.4f}; the soft tokens themselves: {prompt.similarity:.4f}")
    click.echo()
    print_table(
        [f"[v{i}]" for i in range(1, len(tokens) + 1)],
        zip(*[[f"{cosine:.3f} {token}" for token, cosine in nearest(read)] for read in tokens], strict=True),
    )
