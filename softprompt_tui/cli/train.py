"""`softprompt-tui train`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from softprompt.config import HardConfig, Init, Long, Objective, TrainConfig
from softprompt.errors import ConfigError, PromptError
from softprompt.families import Family
from softprompt.job import Job, carry_out
from softprompt_tui.cli.common import (
    FAILED,
    INTERRUPTED,
    complete_entry,
    device_option,
    fail,
    json_option,
    library,
    load,
    model_option,
)
from softprompt_tui.cli.harden import choice, hard_config, hard_options
from softprompt_tui.cli.progress import Progress
from softprompt_tui.cli.result import finish
from softprompt_tui.cli.runs import resolved, submit

if TYPE_CHECKING:
    from softprompt.encoder import TextEncoder
    from softprompt.prompt import SoftPrompt

DEFAULT = TrainConfig()
AUTO_STOP_AT = 0.99
LONGEST_INPUT = 1 << 20  # bytes; no prompt is that long, and standard input may never end


class TokenCount(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int) or value == "auto":
            return value
        try:
            return int(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor auto", param, ctx)


@click.command(short_help="Train a soft prompt for PROMPT and save it.")
@click.argument("prompt")
@click.option(
    "--tokens",
    "-k",
    type=TokenCount(),
    metavar="N|auto",
    default=DEFAULT.tokens,
    show_default=True,
    help="How many soft tokens. auto tries 1, 2, … up to 16, each a whole training, and keeps the first whose similarity, alone and on average in contexts it was not trained in, reaches --stop-at (0.99 unless given), else the closest.",
)
@click.option("--name", help="Name in the library; made from the prompt's words unless given.")
@model_option
@device_option
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Arithmetic of the text encoder; bfloat16 halves its memory and is a little less exact; its speed on GPUs has not been measured.",
)
@click.option(
    "--steps",
    type=int,
    default=DEFAULT.steps,
    show_default=True,
    help="Optimizer steps at most; the rate falls to zero over them.",
)
@click.option(
    "--stop-at",
    type=float,
    help="Stop once the similarity (pooled, whatever the objective), alone and on average in the training contexts, reaches this, such as 0.99. With --tokens auto: what to reach; nothing stops early.",
)
@click.option("--patience", type=int, help="Stop once the loss has not fallen for this many steps.")
@click.option(
    "--rate",
    type=float,
    default=DEFAULT.rate,
    show_default=True,
    help="Adam's learning rate, in standard deviations of the token table: the same number fits every model.",
)
@click.option(
    "--init",
    type=choice(Init),
    default=DEFAULT.init,
    show_default=True,
    help="Begin from noise, from random vocabulary tokens, from the prompt's own words, or from a saved soft prompt (--from).",
)
@click.option(
    "--from",
    "start_name",
    metavar="NAME",
    shell_complete=complete_entry,
    help="The saved soft prompt to begin from; sets --init soft.",
)
@click.option(
    "--objective",
    type=choice(Objective),
    default=DEFAULT.objective,
    show_default=True,
    help="Cosine distance of the pooled embeddings; their squared error; cosine distance that also pushes away from the prompts in --against. For those who take the soft prompt to a diffusion model, which reads hidden states: their distance (hidden), or both (mixed).",
)
@click.option(
    "--family",
    type=choice(Family),
    default=DEFAULT.family,
    show_default=True,
    help="Whose hidden states the objectives hidden and mixed look at: those that Stable Diffusion 1.x or 2.x, SDXL or Flux reads.",
)
@click.option(
    "--hidden-share",
    type=float,
    default=DEFAULT.hidden_share,
    show_default=True,
    help="How much of the mixed objective is the hidden states'; the rest is the pooled similarity's.",
)
@click.option(
    "--against", multiple=True, metavar="TEXT", help="Another prompt to be told apart from (contrastive objective); repeatable."
)
@click.option(
    "--context",
    "contexts",
    multiple=True,
    metavar="TEXT",
    help="Train inside this sentence, {} standing for the soft prompt, instead of the built-in ones; repeatable.",
)
@click.option("--no-contexts", is_flag=True, help="Train the prompt alone: closer by itself, but it breaks beside other words.")
@click.option("--no-norm-projection", is_flag=True, help="Let soft tokens grow longer than the vocabulary's mean norm.")
@click.option(
    "--restarts",
    type=int,
    default=DEFAULT.restarts,
    show_default=True,
    help="Train this many at once from different noise; keep the best.",
)
@click.option("--seed", type=int, default=DEFAULT.seed, show_default=True, help="The same seed on a cpu gives the same bits.")
@click.option(
    "--long",
    type=choice(Long),
    default=DEFAULT.long,
    show_default=True,
    help="A prompt longer than the model's context: refuse it, train on the mean of its chunks, or cut it.",
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
    model: str,
    device: str,
    precision: str,
    start_name: str | None,
    no_contexts: bool,
    no_norm_projection: bool,
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
        prompt = _standard_input()
    here = library()
    wanted = hard_config(settings, seed=settings["seed"])
    if not hard and wanted != HardConfig(seed=settings["seed"]):
        raise ConfigError("the --hard-… settings are those of the hard readout, which only --hard looks for")
    config = _config(settings, no_contexts, no_norm_projection, start_name)
    job = Job(
        prompt,
        config,
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


def train_here(job: Job, start: SoftPrompt | None, as_json: bool, quiet: bool, encoder: TextEncoder | None = None) -> None:
    """Trains in this process, saves and shows; `encoder` is the job's, where it is loaded already."""
    # imports torch, 2-4 s: not before what was asked for is known to make sense
    encoder = encoder or load(job.model, job.device, job.precision)
    with Progress(quiet, job.config.steps, auto=job.config.tokens == "auto") as progress:
        outcome = carry_out(job, encoder, library(), start=start, on_report=progress.training, on_hard=progress.hard)
    if outcome.entry is None:
        fail(outcome.failure, FAILED)
    finish(job.name, outcome.entry, outcome.failure, as_json)
    if job.hard and progress.interrupted:  # while it looked for the hard readout
        raise SystemExit(INTERRUPTED)


def _standard_input() -> str:
    raw = sys.stdin.buffer.read(LONGEST_INPUT)
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise PromptError(f"standard input is no UTF-8 text ({error.reason} at byte {error.start})") from error


def _config(settings: dict[str, Any], no_contexts: bool, no_norm_projection: bool, start_name: str | None) -> TrainConfig:
    contexts = settings.pop("contexts")
    if contexts and no_contexts:
        raise ConfigError("--context and --no-contexts exclude each other: give one of them")
    if contexts or no_contexts:
        settings["contexts"] = contexts
    if start_name:
        settings["init"] = "soft"
    elif settings["init"] == "soft":
        raise ConfigError("--init soft needs the soft prompt to begin from: --from NAME")
    if settings["tokens"] == "auto" and settings["stop_at"] is None:
        settings["stop_at"] = AUTO_STOP_AT
    return TrainConfig(project_norm=not no_norm_projection, **settings)
