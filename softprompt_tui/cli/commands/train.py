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
from softprompt_tui.cli.commands.runs import resolved, submit
from softprompt_tui.cli.common import (
    FAILED,
    INTERRUPTED,
    complete_entry,
    fail,
    json_option,
    library,
    load,
)
from softprompt_tui.cli.options import config_of, plain_option, prepared, training_options
from softprompt_tui.cli.progress import ProgressDisplay
from softprompt_tui.cli.result import finish
from softprompt_tui.cli.streams import MAX_INPUT_LENGTH, read_text

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.prompts.soft_prompt import SoftPrompt


@click.command()
@click.argument("prompt")
@click.option("--name", help="Name in the library; made from the prompt's words unless given.")
@plain_option
@training_options
@click.option(
    "--from",
    "start_name",
    metavar="NAME",
    shell_complete=complete_entry,
    help="The saved soft prompt to begin from; sets --init soft.",
)
@click.option(
    "--hard",
    is_flag=True,
    help="Then look for its hard readout too: real tokens whose typed text means the prompt, to paste anywhere (see `harden`).",
)
@hard_options("hard-")
@click.option(
    "--background",
    "-b",
    is_flag=True,
    help="Hand it to the worker, which trains one run after another and outlives this terminal; prints the run's id.",
)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
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
    """Train a soft prompt that means PROMPT, save it in the library, and show it. With - as PROMPT, it is read from standard input.

    \b
    Examples:
      softprompt-tui train "a red fox asleep in deep snow under pine trees" -k 3
      softprompt-tui train "a red fox asleep in deep snow" -k auto --name fox
      softprompt-tui train "a red fox asleep in deep snow" -k 2 --init prompt
      softprompt-tui train "a red fox asleep in deep snow" -k 4 --objective mixed --family sdxl
      softprompt-tui train "a red fox asleep in deep snow" -k 4 --hard --hard-words dictionary
      softprompt-tui train "a red fox asleep in deep snow" --background

    Ctrl-C ends the training and keeps the best so far; a second one quits without saving. A hang-up ends it the same way; with
    --background the training goes on (`runs` lists it, `attach` shows it).
    """  # fmt: skip
    if prompt == "-":
        prompt = read_text("prompt", MAX_INPUT_LENGTH)
    prompt = prepared(prompt, plain)
    here = library()
    wanted = hard_config(settings, seed=settings["seed"])
    if not hard and wanted != HardConfig(seed=settings["seed"]):
        raise ConfigError("the --hard-… settings are those of the hard readout, which only --hard looks for")
    if start_name:
        settings["init"] = "soft"
    elif settings["init"] == "soft":
        raise ConfigError("--init soft needs the soft prompt to begin from: --from NAME")
    job = TrainJob(
        prompt,
        config_of(settings),
        resolved(model),
        device,
        precision,
        here.free_name(name) if name is not None else "",
        hard=wanted if hard else None,
    )
    here.prepare()
    start = here.open(start_name) if start_name else None
    if background:
        submit(job, start.id if start else "", as_json)
        return
    train_here(job, start.prompt if start else None, as_json, quiet)


def train_here(
    job: TrainJob, start: SoftPrompt | None, as_json: bool, quiet: bool, encoder: TextEncoder | None = None
) -> None:
    """Trains in this process, saves and shows; `encoder` is the job's, where it is loaded already."""
    check_fits(job)
    # imports torch, 2-4 s: not before what was asked for is known to make sense
    encoder = encoder or load(job.model, job.device, job.precision)
    with ProgressDisplay(quiet, job.config.steps, auto=job.config.tokens == "auto") as progress:
        outcome = run_job(job, encoder, library(), start=start, on_report=progress.training, on_hard=progress.hard)
    if outcome.entry is None:
        fail(outcome.failure, FAILED)
    finish(job.name, outcome.entry, outcome.failure, as_json)
    if job.hard and progress.interrupted:  # while it looked for the hard readout
        raise SystemExit(INTERRUPTED)
