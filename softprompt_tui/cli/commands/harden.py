"""`softprompt-tui harden`, and the options of a hard readout, which `train` uses too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from softprompt.config import HardConfig, HardInit, HardMethod, WordFilter
from softprompt.errors import ConfigError
from softprompt.jobs.execute import run_job
from softprompt.jobs.job import hard_readout_job
from softprompt_tui.cli.common import (
    FAILED,
    INTERRUPTED,
    device_option,
    entry_argument,
    fail,
    json_option,
    library,
    load_text_encoder,
    narrate,
    print_json,
)
from softprompt_tui.cli.options import choice
from softprompt_tui.cli.progress import ProgressDisplay
from softprompt_tui.cli.report import entry_json, print_hard
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.provenance import describe_missing_model

Command = TypeVar("Command", bound=Callable[..., Any])
DEFAULT = HardConfig()


def hard_options(prefix: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of a hard readout, named `--<prefix>tokens` and so on."""

    def options(command: Command) -> Command:
        for option in reversed(_options(prefix)):
            command = option(command)
        return command

    return options


def _options(prefix: str) -> list[Callable[[Command], Command]]:
    return [
        click.option(
            f"--{prefix}tokens",
            "hard_tokens",
            type=int,
            metavar="N",
            help="Length of the hard readout in tokens. By default, the number of soft tokens.",
        ),
        click.option(
            f"--{prefix}method",
            "hard_method",
            type=choice(HardMethod),
            default=DEFAULT.method,
            show_default=True,
            help="exchange replaces single tokens and keeps what the encoder scores best; pez is the method of Wen "
            "et al. 2023.",
        ),
        click.option(
            f"--{prefix}words",
            "hard_words",
            type=choice(WordFilter),
            default=DEFAULT.words,
            show_default=True,
            help="Allowed tokens: any that survive re-tokenizing, only ASCII, or only whole words.",
        ),
        click.option(
            f"--{prefix}block",
            "hard_block",
            multiple=True,
            metavar="TEXT",
            help="Text that must not appear in it, in any case. Repeatable.",
        ),
        click.option(
            f"--{prefix}seconds",
            "hard_seconds",
            type=float,
            metavar="N",
            help="Search for this long instead of a fixed number of rounds.",
        ),
    ]


def hard_config(settings: dict[str, Any], **more: Any) -> HardConfig:
    """Build the configuration from the options' values and remove them from `settings`."""
    values = {key: settings.pop(f"hard_{key}") for key in ("tokens", "method", "words", "block", "seconds")}
    return HardConfig(**values, **more)


@click.command()
@entry_argument
@hard_options("")
@click.option(
    "--init",
    type=choice(HardInit),
    default=DEFAULT.init,
    show_default=True,
    help="Start from the prompt's own words, or from random tokens.",
)
@click.option(
    "--restarts",
    type=int,
    default=DEFAULT.restarts,
    show_default=True,
    help="Number of parallel searches, each from a different start.",
)
@click.option(
    "--seed",
    type=int,
    default=DEFAULT.seed,
    show_default=True,
    help="Random seed. On a CPU, the same seed and OMP_NUM_THREADS=1 find the same text.",
)
@device_option
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Do not show progress.")
def harden(
    name: str, device: str, as_json: bool, quiet: bool, init: str, restarts: int, seed: int, **settings: Any
) -> None:
    """Find a hard readout for NAME (real words with the same meaning as its prompt) and save it in the entry.

    An entry holds one hard readout; a new search replaces it. Unlike the readout, which only lists the words nearest to
    the soft tokens, a hard readout can be pasted anywhere: it tokenizes to exactly the tokens that were scored.

    \b
    Examples:
      softprompt-tui harden serene-landscape-sunrise
      softprompt-tui harden serene-landscape-sunrise --tokens 8 --words dictionary --block sunrise

    Ctrl-C stops the search and saves the best so far.
    """
    user_library = library()
    entry = user_library.open(name)
    if not entry.prompt.model:
        raise ConfigError(f"cannot search for a hard readout: {describe_missing_model(entry.prompt)}")
    job = hard_readout_job(entry, hard_config(settings, init=init, restarts=restarts, seed=seed), device)
    encoder = load_text_encoder(entry.prompt.model, device, "a hard readout")
    encoder.check_compatible(entry.prompt)
    with ProgressDisplay(quiet) as progress:
        outcome = run_job(job, encoder, user_library, on_hard=progress.hard)
    if outcome.entry is None:
        fail(outcome.failure, FAILED)
    saved = outcome.entry
    if before := entry.prompt.hard:
        narrate(
            f"this replaces '{before.text}' (similarity {format_number(before.similarity)}); "
            "the previous revision still has it"
        )
    if as_json:
        print_json(entry_json(saved, user_library.path(saved.id, saved.revision)))
    else:
        print_hard(saved.prompt)
    if progress.interrupted:
        raise SystemExit(INTERRUPTED)
