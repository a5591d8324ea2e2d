"""`softprompt-tui docs`."""

from __future__ import annotations

import os
import shutil
import sys

import click
from click.shell_completion import CompletionItem

from softprompt_tui.cli.common import json_option, narrate, print_json, print_table
from softprompt_tui.services.guides import GUIDES, Passage, find_guide, read_guide, search_guides

PAGER_FLAGS = "-FRX"  # a guide that fits the screen is printed; colors


def complete_guide(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name, help=about) for name, about in GUIDES.items() if name.startswith(incomplete)]


@click.command()
@click.argument("topic", nargs=-1, shell_complete=complete_guide)
@click.option("--search", is_flag=True, help="Search all guides for the given words instead.")
@json_option
def docs(topic: tuple[str, ...], search: bool, as_json: bool) -> None:
    """Read the guides. Without TOPIC, list them.

    The first letters of a topic are enough. On a terminal, a guide opens in the pager (PAGER, or less); otherwise the
    command prints its Markdown. --search prints the sections that contain all of the given words. In the interface,
    ctrl+p and "Guides" open them.

    \b
    Examples:
      softprompt-tui docs
      softprompt-tui docs first-steps
      softprompt-tui docs --search out of memory
    """
    if search:
        _search(" ".join(topic), as_json)
    elif len(topic) > 1:
        raise click.UsageError(f"give one topic, or search: softprompt-tui docs --search {' '.join(topic)}")
    elif topic:
        _show(find_guide(topic[0]), as_json)
    elif as_json:
        print_json([{"topic": name, "about": about} for name, about in GUIDES.items()])
    else:
        print_table(("topic", "about"), GUIDES.items(), stretch=1)
        narrate("\n`softprompt-tui docs TOPIC` shows a guide, `docs --search WORDS` finds passages.")


def _show(name: str, as_json: bool) -> None:
    if as_json:
        print_json({"topic": name, "about": GUIDES[name], "text": read_guide(name)})
    elif not sys.stdout.isatty():
        click.echo(read_guide(name))
    else:
        os.environ.setdefault("LESS", PAGER_FLAGS)
        click.echo_via_pager(_render(name), color=None if "NO_COLOR" not in os.environ else False)


def _render(name: str) -> str:
    from rich.console import Console

    from softprompt_tui.rendering.markdown import render_lines

    console = Console(file=sys.stdout, emoji=False)
    with console.capture() as capture:
        for line in render_lines(read_guide(name), shutil.get_terminal_size().columns):
            for segment in line:
                console.print(segment.text, style=segment.style, end="", markup=False, highlight=False, soft_wrap=True)
            console.print()
    return capture.get()


def _search(words: str, as_json: bool) -> None:
    if not words:
        raise click.UsageError("--search needs words: softprompt-tui docs --search out of memory")
    found = search_guides(words)
    if as_json:
        print_json([_as_dict(passage) for passage in found])
    elif not found:
        narrate(f"no guide contains {words!r}. Try fewer or shorter words; `softprompt-tui docs` lists the guides.")
    else:
        for passage in found:
            click.secho(f"{passage.section.guide}: {passage.section.heading}", bold=True)
            click.echo(f"  {passage.excerpt}")


def _as_dict(passage: Passage) -> dict[str, object]:
    section = passage.section
    return {"topic": section.guide, "heading": section.heading, "line": section.line, "excerpt": passage.excerpt}
