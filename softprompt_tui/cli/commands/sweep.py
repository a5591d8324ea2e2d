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
from softprompt.library.names import name_from_prompt
from softprompt.system.generators import drive
from softprompt_tui.cli.commands.runs import resolve_model
from softprompt_tui.cli.common import INTERRUPTED, json_option, library, load, narrate, print_json, print_table
from softprompt_tui.cli.options import config_from_options, other_options, plain_option, prepare_prompt_text
from softprompt_tui.cli.progress import ProgressDisplay
from softprompt_tui.rendering.measures import is_for_language_model
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.plots import MAX_PLOT_WIDTH, PLOT_HEIGHT, strip_color
from softprompt_tui.rendering.sweep_table import plot_sweep
from softprompt_tui.services.job_form import default_sweep, parse_token_counts
from softprompt_tui.state.fields import CAUSAL_SWEEP, DEFAULT_SWEEP

if TYPE_CHECKING:
    from softprompt.config import TrainConfig
    from softprompt.library import Library
    from softprompt.library.entry import Entry
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.prompts.sweep_result import SweepResult
    from softprompt.training.model_kinds import Model

NONE = "none"


@click.command()
@click.argument("prompt")
@click.option(
    "--tokens",
    "-k",
    metavar="NUMBERS",
    show_default=f"{DEFAULT_SWEEP}; language models: {CAUSAL_SWEEP}",
    help="Numbers of soft tokens to try: a range, or a list such as 1,2,4,8.",
)
@click.option(
    "--keep",
    metavar="knee|all|NUMBERS",
    help="Results to save without asking: the knee, all, or a list such as 3,5. Required without a terminal.",
)
@click.option(
    "--name", help="Prefix of the saved names, followed by -k and the token count. Derived from the prompt by default."
)
@plain_option
@other_options
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Do not show progress.")
def sweep(
    prompt: str,
    tokens: str | None,
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
    """Train PROMPT with 1 to 16 soft tokens in one batch, compare the results, and save the ones you choose.

    \b
    similarity  of the soft tokens alone to PROMPT
    composed    mean similarity inside sentences that were not used in training
    worst       the lowest similarity inside one of these sentences
    as text     similarity of the readout (the nearest words), used as a text prompt
    KL, share   language models: KL per token on held-out questions, also as a share of the floor's
    agreement   language models: how often the same next token is the most likely one
    knee        the point of diminishing returns: the result farthest above the
                straight line between the first and last results

    On a terminal, the command asks what to save; in scripts, use --keep. --json prints one result per token count; id
    and name are null if a result was not saved. In the interface, F7 runs a sweep interactively.

    \b
    Examples:
      softprompt-tui sweep "a red fox asleep in deep snow under pine trees"
      softprompt-tui sweep "a red fox asleep in deep snow" --tokens 1,2,4,8 --keep knee
      softprompt-tui sweep "a red fox asleep in deep snow" --steps 600 --keep 3,5 --name fox --json

    Ctrl-C stops the sweep and shows the best results so far.
    """  # fmt: skip
    prompt = prepare_prompt_text(prompt, plain)
    model = resolve_model(model)
    numbers = parse_token_counts(tokens or default_sweep(model))
    selection = None if keep is None else _parse_selection(keep, numbers)
    config = config_from_options({**settings, "tokens": numbers[-1]}, model)
    user_library = library()
    user_library.prepare()
    stem = user_library.check_new_name(name) if name else name_from_prompt(prompt, ())
    job = SweepJob(prompt, config, model, device, precision, sweep=numbers)
    check_fits(job)
    # loading imports torch (2-4 s), so the job is checked first
    encoder = load(job.model, device, precision)
    with ProgressDisplay(quiet, config.steps, config) as progress:
        prompts = _train_sweep(encoder, prompt, numbers, config, progress)
    from softprompt.training.token_sweep import sweep_results

    rows = sweep_results(prompts)
    knee = next(row.tokens for row in rows if row.knee)

    def save(selection: str | tuple[int, ...]) -> dict[int, Entry]:
        chosen = [knee] if selection == "knee" else [*numbers] if selection == "all" else [*selection]
        return {prompt.tokens: _save(user_library, prompt, stem) for prompt in prompts if prompt.tokens in chosen}

    saved = save(selection or ())  # save before printing, which may fail
    if not as_json:
        _print_results(rows, config.objective)
    if selection is None and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        selection = _ask_selection(numbers, knee)
        saved = save(selection)
    if as_json:
        saved_as: dict[int, dict[str, str | None]] = {
            k: {"id": entry.id, "name": entry.prompt.name} for k, entry in saved.items()
        }
        unsaved: dict[str, str | None] = {"id": None, "name": None}
        print_json(
            {
                "prompt": prompt,
                "model": encoder.name,
                "knee": knee,
                "results": [{**asdict(row), **saved_as.get(row.tokens, unsaved)} for row in rows],
            }
        )
    for k, entry in saved.items():
        narrate(f"{k} token{'s' * (k != 1)} saved as {entry.prompt.name}  (id {entry.id})")
    if selection is None:
        narrate(f"nothing was saved. Use --keep knee, --keep all or --keep {knee} to save.")
    if progress.interrupted:
        raise SystemExit(INTERRUPTED)


def _train_sweep(
    encoder: Model, prompt: str, numbers: Sequence[int], config: TrainConfig, progress: ProgressDisplay
) -> list[SoftPrompt]:
    from softprompt.training.trainer import sweep

    return drive(sweep(encoder, prompt, numbers, config, workspace=progress.workspace), progress.sweep)


def _parse_selection(keep: str, numbers: Sequence[int]) -> str | tuple[int, ...]:
    """Parse which results to save: "knee", "all" or numbers. Raises ConfigError for numbers outside the sweep."""
    text = keep.strip().lower()
    if text in ("knee", "all"):
        return text
    if text in (NONE, ""):
        return ()
    chosen = parse_token_counts(text)
    if missing := [k for k in chosen if k not in numbers]:
        raise ConfigError(
            f"cannot keep {missing[0]} tokens: the sweep does not include that number. Choose from "
            f"{', '.join(map(str, numbers))}."
        )
    return chosen


def _ask_selection(numbers: Sequence[int], knee: int) -> str | tuple[int, ...]:
    """Ask which results to save, repeating until the answer is valid."""
    while True:
        typed = click.prompt(
            f"Which to save? knee ({knee}), all, numbers such as 3,5, or {NONE}", default="knee", err=True
        )
        try:
            return _parse_selection(typed, numbers)
        except ConfigError as error:
            narrate(str(error))


def _save(user_library: Library, prompt: SoftPrompt, stem: str) -> Entry:
    from softprompt.worker.run_folder import sweep_entry_name

    return user_library.save(prompt.named(sweep_entry_name(stem, prompt.tokens)))


def _print_results(rows: Sequence[SweepResult], objective: str) -> None:
    columns: tuple[tuple[str, str], ...] = (
        ("similarity", "similarity"), ("composed", "composed"), ("worst", "worst"), ("as text", "readout_similarity"),
    )  # fmt: skip
    if is_for_language_model(objective):
        columns = (("KL", "kl"), ("share", "kl_share"), ("agreement", "similarity"))
    headings = ("tokens", "", *(heading for heading, _ in columns), "readout")
    cells = [
        (
            str(row.tokens),
            "knee" if row.knee else "",
            *(format_number(getattr(row, field)) for _, field in columns),
            row.readout_text or "",
        )
        for row in rows
    ]
    print_table(headings, cells, right=(0, *range(2, 2 + len(columns))), stretch=2 + len(columns))
    floor = next((row.floor for row in rows if row.floor is not None), None)
    if floor is not None:
        click.echo(f"floor of composed: {format_number(floor)}")
    width = min(MAX_PLOT_WIDTH, shutil.get_terminal_size().columns)
    plot = plot_sweep(rows, width, PLOT_HEIGHT + 2, objective=objective)
    if plot:
        click.echo()
        click.echo(plot if sys.stdout.isatty() else strip_color(plot))
