"""`softprompt-tui sweep`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from softprompt.errors import ConfigError
from softprompt.jobs.job import SweepJob
from softprompt.jobs.preflight import check_fits
from softprompt.library.names import name_for
from softprompt.system.generators import drive
from softprompt_tui.cli.commands.runs import resolved
from softprompt_tui.cli.common import INTERRUPTED, json_option, library, load, narrate, print_json, print_table
from softprompt_tui.cli.options import config_of, other_options, plain_option, prepared
from softprompt_tui.cli.progress import ProgressDisplay
from softprompt_tui.rendering.numbers import figure
from softprompt_tui.rendering.plots import HEIGHT, WIDEST, without_colour
from softprompt_tui.rendering.sweep_table import plot
from softprompt_tui.services.job_form import SWEEP, numbers_of

if TYPE_CHECKING:
    from softprompt.config import TrainConfig
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.library import Library
    from softprompt.library.entry import Entry
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.prompts.sweep_result import SweepResult

NONE = "none"


@click.command()
@click.argument("prompt")
@click.option(
    "--tokens",
    "-k",
    metavar="NUMBERS",
    default=SWEEP,
    show_default=True,
    help="The numbers of soft tokens to try: a range, or some such as 1,2,4,8.",
)
@click.option(
    "--keep",
    metavar="knee|all|NUMBERS",
    help="Save these without asking: the one at the knee, all, or some such as 3,5. Without a terminal nothing is saved unless this is given.",
)
@click.option(
    "--name", help="Name of what is saved, before -k and the number; made from the prompt's words unless given."
)
@plain_option
@other_options
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def sweep(
    prompt: str,
    tokens: str,
    keep: str | None,
    name: str | None,
    plain: bool,
    model: str,
    device: str,
    precision: str,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train PROMPT with 1 to 16 soft tokens in one batch, show what each number comes to, and save what is chosen.

    \b
    similarity  of the soft tokens alone to PROMPT
    composed    its mean inside sentences that none was trained in
    worst       the least of these
    as text     of the readout, their nearest words, when it is typed as text
    knee        where more tokens begin to give little: the point farthest above the
                line from the first number to the last

    Nothing is saved that is not chosen: a terminal is asked, --keep says it in scripts. --json has a result for each number, with the id
    and name under which it was saved, or null. In the interface F7 does the same, live.

    \b
    Examples:
      softprompt-tui sweep "a red fox asleep in deep snow under pine trees"
      softprompt-tui sweep "a red fox asleep in deep snow" --tokens 1,2,4,8 --keep knee
      softprompt-tui sweep "a red fox asleep in deep snow" --steps 600 --keep 3,5 --name fox --json

    Ctrl-C ends it and shows the best so far.
    """  # fmt: skip
    prompt = prepared(prompt, plain)
    numbers = numbers_of(tokens)
    wished = None if keep is None else _wished(keep, numbers)
    config = config_of({**settings, "tokens": numbers[-1]})
    here = library()
    here.prepare()
    stem = here.free_name(name) if name else name_for(prompt, ())
    job = SweepJob(prompt, config, resolved(model), device, precision, sweep=numbers)
    check_fits(job)
    # imports torch, 2-4 s: not before what was asked for is known to make sense
    encoder = load(job.model, device, precision)
    with ProgressDisplay(quiet, config.steps) as progress:
        made = _swept(encoder, prompt, numbers, config, progress)
    from softprompt.training.token_sweep import results

    rows = results(made)
    knee = next(row.tokens for row in rows if row.knee)

    def save(wished: str | tuple[int, ...]) -> dict[int, Entry]:
        chosen = [knee] if wished == "knee" else [*numbers] if wished == "all" else [*wished]
        return {one.tokens: _save(here, one, stem) for one in made if one.tokens in chosen}

    saved = save(wished or ())  # before anything is drawn
    if not as_json:
        _show(rows)
    if wished is None and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        wished = _asked(numbers, knee)
        saved = save(wished)
    if as_json:
        kept: dict[int, dict[str, str | None]] = {
            k: {"id": entry.id, "name": entry.prompt.name} for k, entry in saved.items()
        }
        nothing: dict[str, str | None] = {"id": None, "name": None}
        print_json({"prompt": prompt, "model": encoder.name, "knee": knee, "results": [{**asdict(row), **kept.get(row.tokens, nothing)} for row in rows]})  # fmt: skip
    for k, entry in saved.items():
        narrate(f"{k} token{'s' * (k != 1)} saved as {entry.prompt.name}  (id {entry.id})")
    if wished is None:
        narrate(f"nothing was saved; --keep knee, --keep all or --keep {knee} saves")
    if progress.interrupted:
        raise SystemExit(INTERRUPTED)


def _swept(
    encoder: TextEncoder, prompt: str, numbers: Sequence[int], config: TrainConfig, progress: ProgressDisplay
) -> list[SoftPrompt]:
    from softprompt.training.trainer import sweep

    return drive(sweep(encoder, prompt, numbers, config), progress.sweep)


def _wished(keep: str, numbers: Sequence[int]) -> str | tuple[int, ...]:
    """What is to be kept, in words or numbers. Raises ConfigError for others than are tried."""
    words = keep.strip().lower()
    if words in ("knee", "all"):
        return words
    if words in (NONE, ""):
        return ()
    chosen = numbers_of(words)
    if missing := [k for k in chosen if k not in numbers]:
        raise ConfigError(
            f"{missing[0]} tokens are to be kept, but are not among those that are tried: {', '.join(map(str, numbers))}"
        )
    return chosen


def _asked(numbers: Sequence[int], knee: int) -> str | tuple[int, ...]:
    """Asks which are to be kept, until the answer makes sense."""
    while True:
        typed = click.prompt(
            f"Keep which? knee ({knee}), all, numbers such as 3,5, or {NONE}", default="knee", err=True
        )
        try:
            return _wished(typed, numbers)
        except ConfigError as error:
            narrate(str(error))


def _save(here: Library, made: SoftPrompt, stem: str) -> Entry:
    from softprompt.worker.run_folder import swept_name

    return here.save(made.named(swept_name(stem, made.tokens)))


def _show(rows: Sequence[SweepResult]) -> None:
    """The table and the plot."""
    headings = ("tokens", "", "similarity", "composed", "worst", "as text", "readout")
    cells = [
        (
            str(row.tokens),
            "knee" if row.knee else "",
            *(figure(value) for value in (row.similarity, row.composed, row.worst, row.readout_similarity)),
            row.readout_text or "",
        )
        for row in rows
    ]
    print_table(headings, cells, right=(0, 2, 3, 4, 5), stretch=6)
    floor = next((row.floor for row in rows if row.floor is not None), None)
    if floor is not None:
        click.echo(f"composed without their words: {floor:.4f}")
    drawn = plot(rows, min(WIDEST, shutil.get_terminal_size().columns), HEIGHT + 2)
    if drawn:
        click.echo()
        click.echo(drawn if sys.stdout.isatty() else without_colour(drawn))
