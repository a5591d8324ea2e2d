"""`softprompt-tui tune`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import click

from softprompt.config import Init, check_objective, config_for_examples
from softprompt.encoders.catalog import model_kind
from softprompt.errors import ConfigError
from softprompt.jobs.job import TrainJob
from softprompt.library.names import clean_name
from softprompt.prompts.examples import read_examples, split_examples
from softprompt.worker.protocol import MAX_LINE_BYTES
from softprompt_tui.cli.commands.runs import resolve_model, submit
from softprompt_tui.cli.commands.train import train_here
from softprompt_tui.cli.common import complete_model, device_option, json_option, library
from softprompt_tui.cli.options import (
    norm_option,
    patience_option,
    placement_option,
    precision_option,
    restarts_option,
    seed_option,
)

DEFAULT = config_for_examples({})
INITS = [init for init in get_args(Init) if init != "soft"]
MESSAGE_ROOM = 10_000  # bytes of a request to the worker besides the job


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--model",
    required=True,
    metavar="NAME",
    shell_complete=complete_model,
    help="Language model: a name of `softprompt-tui models`, hf:OWNER/NAME, a folder or a .gguf file.",
)
@click.option("--name", help="Name in the library. Derived from the file's name by default.")
@click.option(
    "--held-out",
    "held_out_file",
    metavar="FILE",
    type=click.Path(),
    help="Grade on the examples of this file. By default, a quarter of the examples is held out for that.",
)
@click.option("--tokens", "-k", type=int, default=DEFAULT.tokens, show_default=True, help="Number of soft tokens.")
@click.option(
    "--steps",
    type=int,
    default=DEFAULT.steps,
    show_default=True,
    help="Maximum number of optimizer steps. The learning rate falls to zero over them.",
)
@click.option(
    "--instruction",
    default=DEFAULT.instruction,
    metavar="TEXT",
    help="Start from the first tokens of this text instead of random words, such as 'Sort the message.' The few-shot "
    "prompt then begins with it too.",
)
@placement_option
@click.option(
    "--rate",
    type=float,
    default=DEFAULT.rate,
    show_default=True,
    help="Adam's learning rate, in standard deviations of the token table.",
)
@click.option(
    "--init",
    type=click.Choice(INITS),
    show_default=f"{DEFAULT.init}; with --instruction: first",
    help="Start from random vocabulary tokens or from noise; or, with --instruction, from its first tokens or from "
    "tokens spread over it.",
)
@patience_option
@norm_option
@restarts_option
@seed_option
@device_option
@precision_option
@click.option(
    "--background",
    "-b",
    is_flag=True,
    help="Submit it to the worker, which trains one run after another and outlives this terminal. Prints the run's id.",
)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Do not show progress.")
def tune(
    file: str,
    model: str,
    name: str | None,
    held_out_file: str | None,
    device: str,
    precision: str,
    background: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Tune a soft prompt on the examples of FILE, so that a language model gives their outputs for their inputs.

    FILE has one JSON object per line, with an input and the output that it should get; at least 4, better 50 or more:

    \b
      {"input": "The tap in the kitchen drips.", "output": "plumbing"}
      {"input": "My key does not turn.", "output": "locks"}

    Training sees three quarters of them. The other quarter is held out: at the end, a table shows on how many of these
    the model's answer is exactly the output, and the loss per token of the output, for four prompts:

    \b
    soft prompt  the tuned soft tokens
    untrained    the same before training
    few-shot     as many of the training examples, written out, as fit into the model
    no prompt    the input alone

    \b
    Examples:
      softprompt-tui tune tickets.jsonl --model smollm2
      softprompt-tui tune tickets.jsonl --model smollm2 -k 8 --steps 200 --name tickets
      softprompt-tui tune tickets.jsonl --model smollm2 --held-out graded.jsonl --json
      softprompt-tui tune tickets.jsonl --model smollm2 --instruction "Name the trade."

    Ctrl-C or a hangup stops training and saves the best result so far; a second Ctrl-C quits without saving. The
    library keeps the file's name and SHA-256, and some held-out examples with their answers, but not the others.
    """  # fmt: skip
    user_library = library()
    settings["project_norm"] = not settings.pop("no_norm_projection")
    config = config_for_examples({name: value for name, value in settings.items() if value is not None})
    model = resolve_model(model)
    check_objective(config, model_kind(model), model)
    examples = split_examples(read_examples(file), read_examples(held_out_file) if held_out_file else None)
    if name is not None:
        name = user_library.check_new_name(name)
    elif stem := clean_name(Path(file).stem):
        name = user_library.unique_name(stem)
    job = TrainJob(examples.summary, config, model, device, precision, name or "", examples=examples)
    user_library.prepare()
    if background:
        _check_size(job)
        submit(job, "", as_json)
        return
    train_here(job, None, as_json, quiet)


def _check_size(job: TrainJob) -> None:
    """Raise ConfigError if a job and its examples do not fit into a request to the worker."""
    size = len(json.dumps(job.as_dict()))
    if size + MESSAGE_ROOM > MAX_LINE_BYTES:
        raise ConfigError(
            f"the examples take {size / 1e6:,.1f} MB, but a background run has room for {MAX_LINE_BYTES / 1e6:,.1f} "
            "MB. Leave out --background, or use fewer examples."
        )
