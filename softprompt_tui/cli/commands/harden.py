"""`softprompt-tui harden`, and the options of hard readouts that `train` has too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from softprompt.config import HardConfig, HardInit, Method, Words
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
    load,
    narrate,
    print_json,
)
from softprompt_tui.cli.options import choice
from softprompt_tui.cli.progress import ProgressDisplay
from softprompt_tui.cli.report import entry_json, print_hard
from softprompt_tui.rendering.provenance import unassigned

Command = TypeVar("Command", bound=Callable[..., Any])
DEFAULT = HardConfig()


def hard_options(prefix: str) -> Callable[[Command], Command]:
    """The settings of a hard readout as options, named `--<prefix>tokens` and so on."""

    def options(command: Command) -> Command:
        for option in reversed(_options(prefix)):
            command = option(command)
        return command

    return options


def _options(prefix: str) -> list[Callable[[Command], Command]]:
    return [
        click.option(f"--{prefix}tokens", "hard_tokens", type=int, metavar="N", help="Tokens of the hard readout; as many as soft ones unless given."),
        click.option(
            f"--{prefix}method", "hard_method", type=choice(Method), default=DEFAULT.method, show_default=True,
            help="Exchange of tokens that the encoder judges, or PEZ (Wen et al. 2023), which other programs use.",
        ),
        click.option(
            f"--{prefix}words", "hard_words", type=choice(Words), default=DEFAULT.words, show_default=True,
            help="Any token that survives being typed, those in ASCII, or whole words of letters only.",
        ),
        click.option(f"--{prefix}block", "hard_block", multiple=True, metavar="TEXT", help="What must not stand in it, whatever the case; repeatable."),
        click.option(f"--{prefix}seconds", "hard_seconds", type=float, metavar="N", help="Look for so long, instead of a fixed number of rounds."),
    ]  # fmt: skip


def hard_config(settings: dict[str, Any], **more: Any) -> HardConfig:
    """Takes the options' values out of `settings`."""
    given = {key: settings.pop(f"hard_{key}") for key in ("tokens", "method", "words", "block", "seconds")}
    return HardConfig(**given, **more)


@click.command()
@entry_argument
@hard_options("")
@click.option(
    "--init",
    type=choice(HardInit),
    default=DEFAULT.init,
    show_default=True,
    help="Begin from the prompt's own words, or from random tokens.",
)
@click.option(
    "--restarts", type=int, default=DEFAULT.restarts, show_default=True, help="Look from this many beginnings at once."
)
@click.option(
    "--seed", type=int, default=DEFAULT.seed, show_default=True, help="The same seed on a cpu finds the same text."
)
@device_option
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress line.")
def harden(
    name: str, device: str, as_json: bool, quiet: bool, init: str, restarts: int, seed: int, **settings: Any
) -> None:
    """Look for the hard readout of NAME: real tokens whose typed text means what its hard prompt means, and save it with it.

    An entry has one, and looking again replaces it. Unlike the readout, which is what its soft tokens are near to, this text is made to be pasted anywhere: typed again, it is
    the very tokens that were judged.

    \b
    Examples:
      softprompt-tui harden serene-landscape-sunrise
      softprompt-tui harden serene-landscape-sunrise --tokens 8 --words dictionary --block sunrise

    Ctrl-C ends it and keeps the best so far.
    """
    here = library()
    entry = here.open(name)
    if not entry.prompt.model:
        raise ConfigError(f"no hard readout can be looked for: {unassigned(entry.prompt)}")
    job = hard_readout_job(entry, hard_config(settings, init=init, restarts=restarts, seed=seed), device)
    encoder = load(entry.prompt.model, device)
    encoder.check_belongs(entry.prompt)
    with ProgressDisplay(quiet) as progress:
        outcome = run_job(job, encoder, here, on_hard=progress.hard)
    if outcome.entry is None:
        fail(outcome.failure, FAILED)
    saved = outcome.entry
    if before := entry.prompt.hard:
        narrate(f"this takes the place of '{before.text}', {before.similarity:.4f}, which the revision before has")
    if as_json:
        print_json(entry_json(saved, here.path(saved.id, saved.revision)))
    else:
        print_hard(saved.prompt)
    if progress.interrupted:
        raise SystemExit(INTERRUPTED)
