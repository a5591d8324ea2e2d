"""`softprompt-tui doctor`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from softprompt_tui.cli import streams
from softprompt_tui.cli.common import FAILED, json_option, print_json
from softprompt_tui.cli.diagnosis import environment, files, software
from softprompt_tui.cli.diagnosis.fact import Fact, Section, collect, private

if TYPE_CHECKING:
    from softprompt.bench.device_check import CheckResult

SECTIONS = (
    Section("program", software.find_program),
    Section("packages", software.find_packages),
    Section("torch", software.find_torch, software.TORCH_SECONDS + 5),
    Section("worker", files.find_worker),
    Section("library", files.find_library),
    Section("models", files.find_models),
    Section("hub", files.find_hub, files.HUB_SECONDS + 10),
    Section("terminal", environment.find_terminal),
    Section("locale", environment.find_locale),
    Section("variables", environment.find_variables),
)
PAGE_WIDTH, LABEL_WIDTH = 80, 12
MAX_LINES, MAX_WRONG_LINES, MAX_VARIABLES_LINES = 3, 6, 8  # of one fact
MARKS = {"ok": "  ", "wrong": "! ", "unknown": "? "}
STATE_COLORS = {"passed": "green", "failed": "red", "skipped": "yellow"}


@click.command()
@click.option(
    "--device",
    metavar="DEVICE",
    help="Test training on cpu, cuda:0 or mps instead: takes up to two minutes and downloads nothing.",
)
@json_option
def doctor(device: str | None, as_json: bool) -> None:
    """Print one page about this machine for a bug report: versions, torch, devices, worker, library, models, hub,
    terminal and environment variables.

    A line that begins with ! reports a problem and how to fix it; ? marks facts that could not be determined. Tokens
    and passwords are never printed, and the home folder appears as ~.

    With --device, it trains a few small soft prompts and prints one line per check: the same similarity as on the CPU,
    bfloat16, two trainings at once, speed, steps recorded as CUDA graphs, and a device that runs out of memory. The
    exit code is 1 if a check fails.

    \b
    Examples:
      softprompt-tui doctor
      softprompt-tui doctor --device cuda:0
      softprompt-tui doctor --json > report.json
    """  # fmt: skip
    if device is None:
        _print_report(as_json)
    else:
        _test_device(device, as_json)


def _print_report(as_json: bool) -> None:
    found: list[Fact] = []
    for facts in collect(SECTIONS):
        found += facts
        if not as_json:
            _print_facts(facts)
    count = sum(fact.state == "wrong" for fact in found)
    if as_json:
        print_json({"wrong": count, "facts": [fact.as_dict() for fact in found]})
    else:
        click.echo(f"\n{f'Problems found: {count}, marked with !' if count else 'No problems found.'}")


def _print_facts(facts: Iterable[Fact]) -> None:
    for fact in facts:
        label = fact.name
        max_lines = MAX_WRONG_LINES if fact.state == "wrong" else MAX_LINES
        for line in _wrap(private(fact.text), MAX_VARIABLES_LINES if label == "variables" else max_lines):
            mark = MARKS[fact.state] if label else "  "
            color = "red" if fact.state == "wrong" else None
            click.echo(f"{click.style(mark, fg=color)}{click.style(f'{label:<{LABEL_WIDTH}}', dim=True)} {line}")
            label = ""
        for line in _wrap(private(fact.advice), MAX_LINES):
            click.echo(f"  {'':<{LABEL_WIDTH}} {click.style(line, bold=True)}")


def _wrap(text: str, max_lines: int) -> list[str]:
    """Return the lines of a text, cut to the width of the page and to this many lines."""
    from rich.cells import cell_len

    width = PAGE_WIDTH - len(MARKS["ok"]) - LABEL_WIDTH - 1
    # a wide character takes two columns, so a text that has some gets half the width
    if cell_len(text) > len(text):
        width //= 2
    return textwrap.wrap(text, width, max_lines=max_lines, placeholder=" …", break_on_hyphens=False)


def _test_device(name: str, as_json: bool) -> None:
    from softprompt.bench.device_check import DeviceCheck

    check = DeviceCheck(name)
    results: list[CheckResult] = []
    if not as_json:
        _begin_line("device")
        click.echo(private(check.describe()))
    ended = False
    try:
        with streams.native_errors_logged():
            for result in check.run(on_start=(lambda _: None) if as_json else _begin_line):
                results.append(result)
                if not as_json:
                    _end_line(result)
        ended = True
    finally:
        if as_json:
            print_json(_device_json(check.describe(), name, results, ended))
        elif not ended:
            click.echo()  # Ctrl-C leaves a line that has only begun
    if any(result.state == "failed" for result in results):
        raise SystemExit(FAILED)


def _device_json(description: str, name: str, results: list[CheckResult], complete: bool) -> dict[str, Any]:
    passed = complete and all(result.state != "failed" for result in results)
    checks = [result.as_dict() | {"text": private(result.text)} for result in results]
    return {
        "device": name,
        "description": private(description),
        "passed": passed,
        "complete": complete,
        "checks": checks,
    }


def _begin_line(check: str) -> None:
    click.echo(click.style(f"{check:<{LABEL_WIDTH}} ", dim=True), nl=False)


def _end_line(result: CheckResult) -> None:
    state = click.style(f"{result.state:<7}", fg=STATE_COLORS[result.state])
    seconds = "" if result.state == "skipped" else f"{result.seconds:.1f} s"
    click.echo(f"{state} {seconds:>6}  {private(result.text)}")
