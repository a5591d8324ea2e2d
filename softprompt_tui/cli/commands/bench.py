"""`softprompt-tui bench`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from softprompt.errors import ConfigError
from softprompt_tui.cli.common import (
    device_option,
    json_option,
    load,
    load_text_encoder,
    model_option,
    narrate,
    print_json,
    print_table,
)
from softprompt_tui.cli.report import print_line
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.plots import MAX_PLOT_WIDTH, PLOT_HEIGHT, render, strip_color

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
            self.fail(f"{value!r} is not a list of whole numbers such as 1,16,64", param, ctx)


@click.command()
@model_option
@device_option
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the model.",
)
@click.option(
    "--tower",
    metavar="SHAPE",
    help="Instead of --model: random weights in the shape of ViT-B-32, ViT-L-14, ViT-H-14 or ViT-bigG-14. Measures the "
    "cost of training on such a model before you download it. Only speed, unless --only asks for more.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Few prompts and short measurements: about a minute on two cores with mini. The full benchmark takes an hour "
    "or two.",
)
@click.option("--only", metavar="PARTS", help="Some of speed, time, soft, hard, separated by commas.")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Measure with the prompts of this file, one per line, instead of the built-in ones.",
)
@click.option("--count", type=int, metavar="N", help="Number of prompts. Default: 50; with --quick 5, and 2 for hard.")
@click.option(
    "--seconds",
    type=float,
    metavar="S",
    help="Time limit for one hard readout, for every method. Default: 5; with --quick 1.",
)
@click.option(
    "--batch",
    "batches",
    type=Numbers(),
    help="Sizes for the table of batches, such as 1,64,512. By default, they depend on the device.",
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
    """Measure speed and quality on this machine: the cost of a step, the time to a good soft prompt, and the quality of
    soft prompts and hard readouts.

    The peers are PEZ (as published, and a faster version) and textual inversion (with its usual learning rate, and with
    the best of several). The limit is the time of the matrix products alone. All methods take turns and share the same
    start, prompts and threads, so the ratios also hold on a busy machine. The table of batches shows how many prompts
    to train at once and how much memory that needs.

    For a language model, it measures a step of distillation, beside a loop with PEFT's prompt tuning if the package
    peft is installed: the same answers, loss and threads; time and peak memory.

    \b
    Examples:
      softprompt-tui bench --quick
      softprompt-tui bench --only speed --model ViT-L-14-quickgelu/openai --device cuda --precision bfloat16
      softprompt-tui bench --only speed --tower ViT-H-14 --batch 1,64,512
      softprompt-tui bench --quick --model smollm2-q4
      softprompt-tui bench --only time,soft --prompts my-prompts.txt --json > figures.json

    Ctrl-C stops the benchmark and prints the results so far.
    """  # fmt: skip
    from softprompt.encoders.catalog import model_kind

    if not tower and model_kind(model) == "causal":
        others = {"only": only, "prompts": prompts, "count": count, "seconds": seconds, "batch": batches}
        unused = [name for name, value in others.items() if value is not None]
        _bench_language_model(model, device, precision, quick, unused, as_json)
        return
    parts = _parts(only, bool(tower))
    if tower and model != DEFAULT_MODEL:
        raise ConfigError("--model and --tower exclude each other. Use only one of them.")
    from softprompt.bench.plan import Plan
    from softprompt.bench.prompts import read_prompts

    options: dict[str, Any] = {
        "parts": parts,
        "count": count,
        "hard_count": count,
        "seconds": seconds,
        "batches": batches,
    }
    options["texts"] = tuple(read_prompts(prompts)) if prompts else None
    settings = {name: value for name, value in options.items() if value is not None}
    plan = Plan.quick(**settings) if quick else Plan.full(**settings)
    narrate("loading the model …")
    from softprompt.bench.machine import describe
    from softprompt.bench.random_towers import random_encoder
    from softprompt.bench.run import measure

    encoder = (
        random_encoder(tower, device, precision) if tower else load_text_encoder(model, device, "bench", precision)
    )
    machine = describe(encoder)
    if not as_json:
        _print_machine(machine)
    rows: list[Row] = []
    printed = 0
    complete = False
    try:
        for row in measure(encoder, plan, narrate):
            if not as_json and rows and row.part != rows[-1].part:  # this row starts the next part
                printed = _print_rows(rows, printed)
            rows.append(row)
        complete = True
    finally:  # keep an hour's results even after Ctrl-C or a device failure
        if as_json and rows:
            print_json(_json_document(machine, plan.as_dict(), rows, complete))
        elif rows:
            _print_rows(rows, printed)
            _print_summary(rows)


def _bench_language_model(
    model: str, device: str, precision: str, quick: bool, unused: Sequence[str], as_json: bool
) -> None:
    """Measure how long a step of distillation takes with a language model."""
    if unused:
        raise ConfigError(
            f"--{unused[0]} is for text encoders: with {model}, a language model, bench measures a step. Leave it out."
        )
    from softprompt.bench.distillation import OURS, PEFT, QUICK_ROUNDS, ROUNDS, SCORED, TOKENS, measure_distillation
    from softprompt.bench.machine import describe_machine
    from softprompt.encoders.causal_lm.model import CausalLM

    narrate("loading the model …")
    loaded = load(model, device, precision)
    assert isinstance(loaded, CausalLM)
    machine = describe_machine(loaded.name, loaded.device, loaded.dtype, loaded.device_label)
    del loaded  # every method loads it in a process of its own
    if not as_json:
        _print_machine(machine)
    rows = list(measure_distillation(model, machine.device, precision, QUICK_ROUNDS if quick else ROUNDS, narrate))
    seconds = {row.method: row.seconds for row in rows}
    ratio = seconds[PEFT] / seconds[OURS] if PEFT in seconds else None
    if as_json:
        figures = {} if ratio is None else {"step of PEFT to ours": ratio}
        print_json({"machine": machine.as_dict(), "distillation": [row.as_dict() for row in rows], "figures": figures,
                    "complete": True})  # fmt: skip
        return
    click.echo()
    _title(f"a step of distillation: {TOKENS} soft tokens, {SCORED} tokens of answers")
    cells = [
        (row.method, f"{row.seconds * 1e3:,.0f}", f"{row.fastest * 1e3:,.0f}", f"{row.tokens_per_second:,.0f}",
         _format_memory(row.memory))
        for row in rows
    ]  # fmt: skip
    print_table(("", "ms/step", "fastest", "tokens/s", "peak memory"), cells, right=(1, 2, 3, 4))
    if ratio is None:
        narrate("PEFT is not installed, so nothing stands beside it: pip install peft")
    else:
        click.echo(f"PEFT's step takes {ratio:.2f} times as long")


def _parts(only: str | None, random_weights: bool) -> tuple[str, ...]:
    if only is not None:
        return tuple(part.strip() for part in only.split(",") if part.strip())
    return ("speed",) if random_weights else ("speed", "time", "soft", "hard")


def _json_document(machine: Machine, plan: dict[str, Any], rows: list[Row], complete: bool) -> dict[str, Any]:
    from softprompt.bench.results import KINDS, compute_ratios

    tables = {kind: [row.as_dict() for row in rows if row.kind == kind] for kind in KINDS}
    return {"machine": machine.as_dict(), "plan": plan, **tables, "figures": compute_ratios(rows), "complete": complete}


def _print_machine(machine: Machine) -> None:
    print_line("machine", f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads, torch {machine.torch}")
    memory = f", {machine.memory / 2**30:.0f} GB of memory" if machine.memory else ""
    print_line("device", f"{machine.arithmetic}{f': {machine.device_name}' if machine.device_name else ''}{memory}")
    print_line("matmul", f"{machine.gflops:,.0f} GFLOP/s")
    print_line("model", machine.model)


def _print_rows(rows: list[Row], printed: int) -> int:
    """Print tables of all rows except the first `printed`. Returns the total number of rows printed so far."""
    for kind, print_kind in TABLES.items():
        rows_of_kind = [row for row in rows[printed:] if row.kind == kind]
        if rows_of_kind:
            click.echo()
            print_kind(rows_of_kind)
    return len(rows)


def _print_summary(rows: list[Row]) -> None:
    from softprompt.bench.results import compute_ratios

    ratios = compute_ratios(rows)
    if ratios:
        click.echo()
        print_table(("summary", ""), [(name, f"{value:.3g}") for name, value in ratios.items()], right=(1,))


def _format_memory(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f} MB"


def _title(text: str) -> None:
    click.secho(text, bold=True)


def _print_steps(rows: Sequence[StepRow]) -> None:
    _title("one step without contexts: ms (ratio to ours)")
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
        "ours/limit",
    )
    print_table(headings, cells, right=range(len(headings)))


def _print_batches(rows: Sequence[BatchRow]) -> None:
    _title(
        f"prompts trained at once, {rows[0].tokens} tokens, {rows[0].steps} steps: once prompts/s stops rising, a "
        "larger "
        "batch gains nothing"
    )
    cells = [
        (row.method, f"{row.batch:,}", f"{row.seconds * 1e3:,.1f}", f"{row.prompts_per_second:,.2f}",
         _format_memory(row.memory))
        for row in rows
    ]  # fmt: skip
    print_table(("", "batch", "ms/step", "prompts/s", "peak memory"), cells, right=(1, 2, 3, 4))
    _plot("prompts/s", rows, lambda row: (row.batch, row.prompts_per_second))


def _print_times(rows: Sequence[TimeRow]) -> None:
    _title(f"time from the text to a similarity, {rows[0].tokens} tokens")
    cells = [
        (
            row.method,
            row.goal,
            f"{row.reached} of {row.count}",
            f"{row.seconds:.3f}",
            f"{row.steps:g}",
            f"{row.prompts_per_second:.2f}",
        )
        for row in rows
    ]
    print_table(("", "goal", "reached", "s", "steps", "prompts/s"), cells, right=(3, 4, 5))


def _print_soft(rows: Sequence[SoftRow]) -> None:
    _title("soft tokens: similarity alone, fidelity in held-out contexts, and the error relative to the floor's")
    cells = [
        (
            f"{row.tokens}",
            row.method,
            f"{row.count}",
            format_number(row.similarity),
            format_number(row.similarity_worst),
            format_number(row.fidelity),
            format_number(row.fidelity_decile),
            format_number(row.fidelity_worst),
            format_number(row.floor),
            f"{row.error_to_floor:.3f}",
        )
        for row in rows
    ]
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
        (
            f"{row.tokens}",
            row.method,
            f"{row.count}",
            format_number(row.fidelity),
            format_number(row.fidelity_decile),
            format_number(row.fidelity_worst),
            format_number(row.floor),
            f"{row.error_to_floor:.3f}",
        )
        for row in rows
    ]
    headings = ("k", "", "sentences", "fidelity", "worst tenth", "worst", "floor", "error to floor's")
    print_table(headings, cells, right=(0, *range(2, 8)))


def _print_hard(rows: Sequence[HardRow]) -> None:
    _title("hard readouts: similarity of the text, typed again")
    cells = [
        (
            f"{row.tokens}",
            row.method,
            f"{row.count}",
            f"{row.seconds:.1f}",
            format_number(row.similarity),
            format_number(row.similarity_worst),
            f"{row.kept:.0%}",
            f"{row.error_to_copy:.3f}",
        )
        for row in rows
    ]
    print_table(
        ("k", "", "prompts", "s each", "similarity", "worst", "same ids", "error to copy's"),
        cells,
        right=(0, *range(2, 8)),
    )
    _plot("error of the typed text", rows, lambda row: (row.tokens, 1 - row.similarity))


def _plot(title: str, rows: Sequence[Any], point: Callable[[Any], tuple[int, float]]) -> None:
    """Plot one curve per method if there are enough points."""
    methods = list(dict.fromkeys(row.method for row in rows))
    curves = [[point(row) for row in rows if row.method == method] for method in methods]
    if max(map(len, curves)) < MIN_PLOT_POINTS:
        return
    width = min(MAX_PLOT_WIDTH, shutil.get_terminal_size().columns)
    text = render(curves, width, PLOT_HEIGHT, methods, title)
    if text:
        click.echo(text.rstrip() if sys.stdout.isatty() else strip_color(text).rstrip())


TABLES: dict[str, Callable[[Any], None]] = {
    "batches": _print_batches,
    "steps": _print_steps,
    "time": _print_times,
    "soft": _print_soft,
    "pairs": _print_pairs,
    "hard": _print_hard,
}
