"""`softprompt-tui docs`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys

import click
from click.shell_completion import CompletionItem

from softprompt_tui.cli.common import json_option, narrate, print_json, print_table
from softprompt_tui.services.guides import (
    GUIDES,
    Passage,
    Section,
    find_guide,
    find_section,
    read_guide,
    search_guides,
    text_with_subsections,
)

PAGER_FLAGS = "-FRX"  # a guide that fits the screen is printed; colors


def complete_guide(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name, help=about) for name, about in GUIDES.items() if name.startswith(incomplete)]


@click.command()
@click.argument("topic", nargs=-1, metavar="[TOPIC [WORDS...]]", shell_complete=complete_guide)
@click.option("--search", is_flag=True, help="Search all guides for the given words instead.")
@json_option
def docs(topic: tuple[str, ...], search: bool, as_json: bool) -> None:
    """Read the guides. Without TOPIC, list them. With WORDS, show the section of TOPIC that they fit best.

    The first letters of a topic are enough. On a terminal, the text opens in the pager (PAGER, or less); otherwise the
    command prints its Markdown. In the interface, ctrl+p and "Guides" open them.

    --search prints guide, heading and best line of every section that has all of the given words. If there are fewer
    than ten, it adds sections that have most of them, up to ten. The start of a word is enough.

    \b
    Examples:
      softprompt-tui docs
      softprompt-tui docs first-steps
      softprompt-tui docs troubleshooting out of memory
      softprompt-tui docs python-api train_batch
      softprompt-tui docs --search out of memory
    """
    name, words = (topic[0], " ".join(topic[1:])) if topic else ("", "")
    if search:
        _search(" ".join(topic), as_json)
    elif words:
        _show_section(find_section(find_guide(name, words), words), as_json)
    elif name:
        _show_guide(find_guide(name), as_json)
    elif as_json:
        print_json([{"topic": name, "about": about} for name, about in GUIDES.items()])
    else:
        print_table(("topic", "about"), GUIDES.items(), stretch=1)
        narrate(
            "",
            "`softprompt-tui docs TOPIC` shows a guide, `docs TOPIC WORDS` a section, `docs --search WORDS` searches.",
        )


def _show_guide(name: str, as_json: bool) -> None:
    if as_json:
        print_json({"topic": name, "about": GUIDES[name], "text": read_guide(name)})
    else:
        _show(read_guide(name))


def _show_section(section: Section, as_json: bool) -> None:
    text = text_with_subsections(section)
    if as_json:
        print_json({"topic": section.guide, "heading": section.heading, "line": section.line, "text": text})
    else:
        _show(text)


def _show(text: str) -> None:
    if not sys.stdout.isatty():
        click.echo(text)
    else:
        os.environ.setdefault("LESS", PAGER_FLAGS)
        click.echo_via_pager(_render(text), color=None if "NO_COLOR" not in os.environ else False)


def _render(text: str) -> str:
    from rich.console import Console

    from softprompt_tui.rendering.markdown import render_lines

    console = Console(file=sys.stdout, emoji=False)
    with console.capture() as capture:
        for line in render_lines(text, shutil.get_terminal_size().columns):
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
        command = f"softprompt-tui docs {found[0].section.guide} {shlex.join(words.split())}"
        narrate("", f"`{command}` shows the first section; `docs TOPIC WORDS` shows any.")


def _as_dict(passage: Passage) -> dict[str, object]:
    section = passage.section
    return {"topic": section.guide, "heading": section.heading, "line": section.line, "excerpt": passage.excerpt}
