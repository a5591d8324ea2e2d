"""The command line: every job as a command. Data goes to stdout, narration to stderr; exit 0 done, 1 failed, 2 bad input, 130 interrupted."""

from __future__ import annotations

import click

from softprompt.threads import share_the_cpu
from softprompt.worker.log import PROGRAM as PROGRAM_LOG
from softprompt.worker.log import Log, collect
from softprompt_tui.cli.arguments import check_arguments
from softprompt_tui.cli.batch import batch
from softprompt_tui.cli.bench import bench
from softprompt_tui.cli.common import BAD_INPUT, PROGRAM, Narrator, fail, run
from softprompt_tui.cli.compare import compare
from softprompt_tui.cli.completion import completion
from softprompt_tui.cli.compose import compose
from softprompt_tui.cli.diff import diff
from softprompt_tui.cli.editing import duplicate, note, rename, tag
from softprompt_tui.cli.export import export
from softprompt_tui.cli.harden import harden
from softprompt_tui.cli.importing import assign, import_
from softprompt_tui.cli.library import list_, show
from softprompt_tui.cli.models import models
from softprompt_tui.cli.port import port
from softprompt_tui.cli.readout import readout
from softprompt_tui.cli.runs import attach, runs, stop
from softprompt_tui.cli.sweep import sweep
from softprompt_tui.cli.train import train
from softprompt_tui.cli.trash import purge, restore, rm
from softprompt_tui.cli.upkeep import library
from softprompt_tui.cli.worker import worker


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="softprompt-tui", prog_name=PROGRAM)
@click.pass_context
def main(context: click.Context) -> None:
    """Turn a long prompt into a few trained soft tokens that a CLIP text encoder understands as the same thing.

    Without a command it opens the interface, which needs a terminal. Every job is a command too.

    \b
    A first try, on the built-in model, without a network:
      softprompt-tui train "serene landscape at sunrise with a lake" -k 3
      softprompt-tui list
      softprompt-tui show serene-landscape-sunrise

    Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.

    Soft prompts lie in the platform's data folder; SOFTPROMPT_HOME moves them. Models' weights lie in the Hugging Face
    cache (HF_HOME).
    """
    collect(Log(PROGRAM_LOG), *([Narrator()] if context.invoked_subcommand else []))
    if context.invoked_subcommand is None:
        from softprompt_tui.terminal import cannot_open, open_interface

        if why := cannot_open():
            fail(why, BAD_INPUT)
        raise SystemExit(open_interface())


COMMANDS = (
    train, batch, sweep, list_, show, readout, harden, compose, port, diff, rename, tag, note, duplicate, rm, restore, purge, import_, assign, export, library, compare, models,
    runs, attach, stop, worker, bench, completion,
)  # fmt: skip
for command in COMMANDS:
    main.add_command(command)
check_arguments(main)


def entry() -> None:
    """What the installed command calls."""
    share_the_cpu()
    run(main)
