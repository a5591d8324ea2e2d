"""`softprompt-tui bench`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from softprompt.errors import ConfigError
from softprompt_tui.cli.common import device_option, json_option, load, model_option, narrate, print_json, print_table
from softprompt_tui.cli.report import line
from softprompt_tui.rendering.plots import HEIGHT, WIDEST, render, without_colour

if TYPE_CHECKING:
    from softprompt.bench.machine import Machine
    from softprompt.bench.results import BatchRow, HardRow, PairRow, Row, SoftRow, StepRow, TimeRow

DEFAULT_MODEL = "mini"
MIN_PLOT_POINTS = 3
Kind = TypeVar("Kind")


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    name = "N,N,…"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers such as 1,16,64", param, ctx)


@click.command()
@model_option
@device_option
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Arithmetic of the text encoder.",
)
@click.option(
    "--tower",
    metavar="SHAPE",
    help="In place of --model: a text tower of random weights with the shape of ViT-B-32, ViT-L-14, ViT-H-14 or ViT-bigG-14. Measures what training on such a model costs, before its weights are fetched; only speed, unless --only asks for more.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Few prompts and short looks: about a minute on two cores with mini. Without it, expect an hour or two.",
)
@click.option("--only", metavar="PARTS", help="Some of speed, time, soft, hard, with commas between them.")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Measure with these, one on each line, instead of the prompts that come with the program.",
)
@click.option(
    "--count", type=int, metavar="N", help="How many prompts; 50 unless given, with --quick 5, and 2 for hard."
)
@click.option(
    "--seconds",
    type=float,
    metavar="S",
    help="What each method has to find a hard readout of one prompt; 5 unless given, 1 with --quick.",
)
@click.option(
    "--batch",
    "batches",
    type=Numbers(),
    help="Sizes for the table of batches, such as 1,64,512; as the device suggests unless given.",
)
@json_option
def bench(
    model: str,
    device: str,
    precision: str,
    tower: str | None,
    quick: bool,
    only: str | None,
    prompts: Path | None,
    count: int | None,
    seconds: float | None,
    batches: tuple[int, ...] | None,
    as_json: bool,
) -> None:
    """Measure this program on this machine: what a training step costs, how soon a soft prompt is good, how good soft prompts and hard readouts get.

    Beside it stand PEZ (as published, and a faster one), a loop as textual inversion has it (with its usual rate, and with the best of a grid),
    and the limit: the time of the matrix products alone. All run in turns, from the same start, on the same prompts and threads, so
    that ratios hold on a busy machine too. The table of batches shows how many prompts to train at once, and what memory that takes.

    \b
    Examples:
      softprompt-tui bench --quick
      softprompt-tui bench --only speed --model ViT-L-14-quickgelu/openai --device cuda --precision bfloat16
      softprompt-tui bench --only speed --tower ViT-H-14 --batch 1,64,512
      softprompt-tui bench --only time,soft --prompts my-prompts.txt --json > figures.json

    Ctrl-C ends it; what was measured until then is printed.
    """  # fmt: skip
    parts = _parts(only, bool(tower))
    if tower and model != DEFAULT_MODEL:
        raise ConfigError("--model and --tower exclude each other: give one of them")
    from softprompt.bench.plan import Plan
    from softprompt.bench.prompts import from_file

    given: dict[str, Any] = {
        "parts": parts,
        "count": count,
        "hard_count": count,
        "seconds": seconds,
        "batches": batches,
    }
    given["texts"] = tuple(from_file(prompts)) if prompts else None
    chosen = {name: value for name, value in given.items() if value is not None}
    plan = Plan.quick(**chosen) if quick else Plan.full(**chosen)
    narrate("loading the model …")
    from softprompt.bench.machine import describe
    from softprompt.bench.random_towers import random_encoder
    from softprompt.bench.run import measure

    encoder = random_encoder(tower, device, precision) if tower else load(model, device, precision)
    machine = describe(encoder)
    if not as_json:
        _print_machine(machine)
    rows: list[Row] = []
    shown = 0
    complete = False
    try:
        for row in measure(encoder, plan, narrate):
            if not as_json and rows and row.part != rows[-1].part:  # a part is over
                shown = _print_rows(rows, shown)
            rows.append(row)
        complete = True
    finally:  # an hour's figures outlive Ctrl-C and a device that fails
        if as_json and rows:
            print_json(_document(machine, plan.as_dict(), rows, complete))
        elif rows:
            _print_rows(rows, shown)
            _print_figures(rows)


def _parts(only: str | None, random_weights: bool) -> tuple[str, ...]:
    if only is not None:
        return tuple(part.strip() for part in only.split(",") if part.strip())
    return ("speed",) if random_weights else ("speed", "time", "soft", "hard")


def _document(machine: Machine, plan: dict[str, Any], rows: list[Row], complete: bool) -> dict[str, Any]:
    from softprompt.bench.results import KINDS, figures

    tables = {kind: [row.as_dict() for row in rows if row.kind == kind] for kind in KINDS}
    return {"machine": machine.as_dict(), "plan": plan, **tables, "figures": figures(rows), "complete": complete}


def _print_machine(machine: Machine) -> None:
    line("machine", f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads, torch {machine.torch}")
    memory = f", {machine.memory / 2**30:.0f} GB of memory" if machine.memory else ""
    line("device", f"{machine.arithmetic}{f': {machine.device_name}' if machine.device_name else ''}{memory}")
    line("matmul", f"{machine.gflops:,.0f} GFLOP/s")
    line("model", machine.model)


def _print_rows(rows: list[Row], shown: int) -> int:
    """Prints the tables of the rows after the first `shown`; returns how many are shown now."""
    for kind, show in TABLES.items():
        these = [row for row in rows[shown:] if row.kind == kind]
        if these:
            click.echo()
            show(these)
    return len(rows)


def _print_figures(rows: list[Row]) -> None:
    from softprompt.bench.results import figures

    found = figures(rows)
    if found:
        click.echo()
        print_table(("in short", ""), [(name, f"{value:.3g}") for name, value in found.items()], right=(1,))


def _title(text: str) -> None:
    click.secho(text, bold=True)


def _print_steps(rows: Sequence[StepRow]) -> None:
    _title("one step, contexts off: ms, and how many times as long as ours")
    methods = list(rows[0].seconds)
    cells = [
        (f"{row.batch}", f"{row.tokens}", f"{row.vocabulary:,}",
         *(f"{row.seconds[method] * 1e3:,.1f} ({row.ratio(method):.1f})" for method in methods if method != "ours"),
         f"{row.seconds['ours'] * 1e3:,.2f}", f"{row.limit * 1e3:,.2f}", f"{row.limit_ratio:.2f}")
        for row in rows
    ]  # fmt: skip
    headings = (
        "batch",
        "k",
        "vocabulary",
        *(method for method in methods if method != "ours"),
        "ours",
        "limit",
        "ours to limit",
    )
    print_table(headings, cells, right=range(len(headings)))


def _print_batches(rows: Sequence[BatchRow]) -> None:
    _title(
        f"prompts trained at once, {rows[0].tokens} tokens, {rows[0].steps} steps: where prompts/s stop rising, a larger batch gains nothing"
    )
    cells = [
        (row.method, f"{row.batch:,}", f"{row.seconds * 1e3:,.1f}", f"{row.prompts_per_second:,.2f}",
         "-" if row.memory is None else f"{row.memory / 2**20:,.0f} MB")
        for row in rows
    ]  # fmt: skip
    print_table(("", "batch", "ms a step", "prompts/s", "peak memory"), cells, right=(1, 2, 3, 4))
    _plot("prompts/s", rows, lambda row: (row.batch, row.prompts_per_second))


def _print_times(rows: Sequence[TimeRow]) -> None:
    _title(f"time to a similarity, {rows[0].tokens} tokens, from the text on")
    cells = [
        (row.method, row.goal, f"{row.reached} of {row.count}", f"{row.seconds:.3f}", f"{row.steps:g}", f"{row.prompts_per_second:.2f}")
        for row in rows
    ]  # fmt: skip
    print_table(("", "to", "reached", "s", "steps", "prompts/s"), cells, right=(3, 4, 5))


def _print_soft(rows: Sequence[SoftRow]) -> None:
    _title(
        "soft tokens: similarity alone, fidelity in other contexts, and the error beside that of leaving the added words away"
    )
    cells = [
        (f"{row.tokens}", row.method, f"{row.count}", f"{row.similarity:.4f}", f"{row.similarity_worst:.4f}", f"{row.fidelity:.4f}",
         f"{row.fidelity_decile:.4f}", f"{row.fidelity_worst:.4f}", f"{row.floor:.4f}", f"{row.error_to_floor:.3f}")
        for row in rows
    ]  # fmt: skip
    headings = (
        "k",
        "",
        "prompts",
        "similarity",
        "worst",
        "fidelity",
        "worst tenth",
        "worst",
        "floor",
        "error to floor's",
    )
    print_table(headings, cells, right=(0, *range(2, 10)))
    _plot("composition error", rows, lambda row: (row.tokens, 1 - row.fidelity))


def _print_pairs(rows: Sequence[PairRow]) -> None:
    _title("two soft prompts in one sentence")
    cells = [
        (f"{row.tokens}", row.method, f"{row.count}", f"{row.fidelity:.4f}", f"{row.fidelity_decile:.4f}", f"{row.fidelity_worst:.4f}",
         f"{row.floor:.4f}", f"{row.error_to_floor:.3f}")
        for row in rows
    ]  # fmt: skip
    headings = ("k", "", "sentences", "fidelity", "worst tenth", "worst", "floor", "error to floor's")
    print_table(headings, cells, right=(0, *range(2, 8)))


def _print_hard(rows: Sequence[HardRow]) -> None:
    _title("hard readouts: similarity of the text, typed again")
    cells = [
        (f"{row.tokens}", row.method, f"{row.count}", f"{row.seconds:.1f}", f"{row.similarity:.4f}", f"{row.similarity_worst:.4f}",
         f"{row.kept:.0%}", f"{row.error_to_copy:.3f}")
        for row in rows
    ]  # fmt: skip
    print_table(
        ("k", "", "prompts", "s each", "similarity", "worst", "same ids", "error to copy's"),
        cells,
        right=(0, *range(2, 8)),
    )
    _plot("error of the typed text", rows, lambda row: (row.tokens, 1 - row.similarity))


def _plot(title: str, rows: Sequence[Any], point: Callable[[Any], tuple[int, float]]) -> None:
    """One curve a method, where there are enough points for one."""
    methods = list(dict.fromkeys(row.method for row in rows))
    curves = [[point(row) for row in rows if row.method == method] for method in methods]
    if max(map(len, curves)) < MIN_PLOT_POINTS:
        return
    width = min(WIDEST, shutil.get_terminal_size().columns)
    text = render(curves, width, HEIGHT, methods, title)
    if text:
        click.echo(text.rstrip() if sys.stdout.isatty() else without_colour(text).rstrip())


TABLES: dict[str, Callable[[Any], None]] = {
    "batches": _print_batches,
    "steps": _print_steps,
    "time": _print_times,
    "soft": _print_soft,
    "pairs": _print_pairs,
    "hard": _print_hard,
}
