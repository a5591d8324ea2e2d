"""`softprompt-tui train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from softprompt.config import HardConfig
from softprompt.errors import ConfigError
from softprompt.jobs.execute import run_job
from softprompt.jobs.job import TrainJob
from softprompt.jobs.preflight import check_fits
from softprompt_tui.cli.commands.harden import hard_config, hard_options
from softprompt_tui.cli.commands.runs import resolve_model, submit
from softprompt_tui.cli.common import (
    FAILED,
    INTERRUPTED,
    complete_entry,
    fail,
    json_option,
    library,
    load,
)
from softprompt_tui.cli.options import config_from_options, plain_option, prepare_prompt_text, training_options
from softprompt_tui.cli.progress import ProgressDisplay
from softprompt_tui.cli.result import print_result_and_exit
from softprompt_tui.cli.streams import MAX_INPUT_BYTES, read_text

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.model_kinds import Model


@click.command()
@click.argument("prompt")
@click.option("--name", help="Name in the library. Derived from the prompt by default.")
@plain_option
@training_options
@click.option(
    "--from",
    "start_name",
    metavar="NAME",
    shell_complete=complete_entry,
    help="Start from this saved soft prompt; sets --init soft.",
)
@click.option(
    "--hard",
    is_flag=True,
    help="Also search for a hard readout: real words with the same meaning, to paste anywhere (see `harden`).",
)
@hard_options("hard-")
@click.option(
    "--background",
    "-b",
    is_flag=True,
    help="Submit it to the worker, which trains one run after another and outlives this terminal. Prints the run's id.",
)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Do not show progress.")
def train(
    prompt: str,
    name: str | None,
    plain: bool,
    model: str,
    device: str,
    precision: str,
    start_name: str | None,
    hard: bool,
    background: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a soft prompt that means PROMPT, save it in the library and show it. If PROMPT is -, read standard input.

    \b
    Examples:
      softprompt-tui train "a red fox asleep in deep snow under pine trees" -k 3
      softprompt-tui train "a red fox asleep in deep snow" -k auto --name fox
      softprompt-tui train "a red fox asleep in deep snow" -k 2 --init prompt
      softprompt-tui train "a red fox asleep in deep snow" -k 4 --objective mixed --family sdxl
      softprompt-tui train "a red fox asleep in deep snow" -k 4 --hard --hard-words dictionary
      softprompt-tui train "a red fox asleep in deep snow" --background

    Ctrl-C or a hangup stops training and saves the best result so far; a second Ctrl-C quits without saving. With
    --background the training goes on: `runs` lists it, `attach` shows it.
    """  # fmt: skip
    if prompt == "-":
        prompt = read_text("prompt", MAX_INPUT_BYTES)
    prompt = prepare_prompt_text(prompt, plain)
    user_library = library()
    readout_config = hard_config(settings, seed=settings["seed"])
    if not hard and readout_config != HardConfig(seed=settings["seed"]):
        raise ConfigError("a --hard-… option is set, but --hard is not. Add --hard to search for a hard readout.")
    if start_name:
        settings["init"] = "soft"
    elif settings["init"] == "soft":
        raise ConfigError("--init soft needs a soft prompt to start from. Add --from NAME.")
    model = resolve_model(model)
    job = TrainJob(
        prompt,
        config_from_options(settings, model),
        model,
        device,
        precision,
        user_library.check_new_name(name) if name is not None else "",
        hard=readout_config if hard else None,
    )
    user_library.prepare()
    start = user_library.open(start_name) if start_name else None
    if background:
        submit(job, start.id if start else "", as_json)
        return
    train_here(job, start.prompt if start else None, as_json, quiet)


def train_here(
    job: TrainJob, start: SoftPrompt | None, as_json: bool, quiet: bool, encoder: Model | None = None
) -> None:
    """Run a training job in this process, then save and show the result. `encoder` is its model, if already loaded."""
    check_fits(job)
    # loading imports torch (2-4 s), so the job is checked first
    encoder = encoder or load(job.model, job.device, job.precision)
    with ProgressDisplay(quiet, job.config.steps, job.config) as progress:
        outcome = run_job(
            job, encoder, library(), start=start, on_report=progress.training, on_hard=progress.hard,
            workspace=progress.workspace,
        )  # fmt: skip
    if outcome.entry is None:
        fail(outcome.failure, FAILED)
    print_result_and_exit(job.name, outcome.entry, outcome.failure, as_json)
    if job.hard and progress.interrupted:  # the interrupt came during the search for the hard readout
        raise SystemExit(INTERRUPTED)
