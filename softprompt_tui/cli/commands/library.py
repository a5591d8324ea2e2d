"""`softprompt-tui list` and `show`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
from click.shell_completion import CompletionItem

from softprompt.library import SORTS, EntrySummary, Library
from softprompt_tui.cli.common import (
    complete_model,
    entry_argument,
    json_option,
    library,
    narrate,
    print_damaged,
    print_json,
    print_table,
)
from softprompt_tui.rendering.numbers import format_age, format_number
from softprompt_tui.rendering.provenance import UNKNOWN

DEFAULT_ROWS = 100  # rows of a table without --limit or --all


def complete_tag(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    tags = {tag for entry in Library(notify=lambda _: None).list(incomplete).entries for tag in entry.tags}
    return [
        CompletionItem(tag)
        for tag in sorted(tags)
        if tag.isprintable() and tag.casefold().startswith(incomplete.casefold())
    ]


@click.command("list")
@click.argument("words", nargs=-1)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    shell_complete=complete_tag,
    help="Only entries with this tag. Repeatable.",
)
@click.option("--model", default="", metavar="NAME", shell_complete=complete_model, help="Only entries for this model.")
@click.option(
    "--sort",
    type=click.Choice(list(SORTS)),
    default="created",
    metavar="VALUE",
    show_default=True,
    help=f"Sort by {', '.join(list(SORTS)[:-1])} or {list(SORTS)[-1]}.",
)
@click.option("--reverse", is_flag=True, help="Reverse the order: oldest or lowest first.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1 << 31),
    metavar="N",
    help=f"Print at most N. By default a table shows {DEFAULT_ROWS}, and --json prints all.",
)
@click.option("--all", "everything", is_flag=True, help="Print all in one table.")
@click.option("--trash", is_flag=True, help="List the trash instead.")
@json_option
def list_(
    words: tuple[str, ...],
    tags: tuple[str, ...],
    model: str,
    sort: str,
    reverse: bool,
    limit: int | None,
    everything: bool,
    trash: bool,
    as_json: bool,
) -> None:
    """List the saved soft prompts, newest first. WORDS search names, prompts, readouts, tags and notes.

    An entry must contain all words. The start of a word is enough; case and accents do not matter.

    \b
    Examples:
      softprompt-tui list
      softprompt-tui list lake sunr --tag nature --sort similarity
      softprompt-tui list --trash
      softprompt-tui list --json
    """
    if limit is None and not (as_json or everything):
        limit = DEFAULT_ROWS
    page = library().list(
        " ".join(words), tags=tags, model=model, sort=sort, reverse=reverse, limit=limit, trashed=trash
    )
    print_damaged(page.damaged)
    if as_json:
        print_json([_json_values(entry) for entry in page.entries])
        return
    if not page.entries:
        narrate(_explain_empty(bool(words or tags or model), trash))
        return
    now = datetime.now(UTC)
    with_tags = any(entry.tags for entry in page.entries)
    headings = (
        "name",
        "tokens",
        "similar",
        "composed",
        "model",
        "deleted" if trash else "age",
        *(("tags",) if with_tags else ()),
        "hard prompt",
    )
    print_table(
        headings,
        [_row(entry, now, with_tags) for entry in page.entries],
        right=(1, 2, 3, 5),
        stretch=len(headings) - 1,
    )
    if page.total > len(page.entries):
        narrate(f"{page.total - len(page.entries):,} more. --all shows them; words and --tag narrow the list.")


def _explain_empty(is_filtered: bool, trash: bool) -> str:
    if is_filtered:
        return f"No soft prompt {'in the trash ' if trash else ''}matches. `softprompt-tui list` shows all"
    if trash:
        return "The trash is empty."
    return (
        "The library is empty. Train a first soft prompt: "
        'softprompt-tui train "a lake at sunrise between high mountains" --tokens 3'
    )


def _json_values(entry: EntrySummary) -> dict[str, Any]:
    return vars(entry) | {"tags": list(entry.tags), "path": str(entry.path)}


def _row(entry: EntrySummary, now: datetime, with_tags: bool) -> tuple[str, ...]:
    return (
        entry.name,
        "-" if entry.tokens is None else str(entry.tokens),
        format_number(entry.similarity),
        format_number(entry.composed),
        entry.model or UNKNOWN,
        format_age(entry.trashed or entry.created, now),
        *((" ".join(entry.tags),) if with_tags else ()),
        entry.hard_prompt,
    )


@click.command()
@entry_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one soft prompt and its loss curve. NAME is a name or an id.

    \b
    Examples:
      softprompt-tui show serene-landscape-sunrise
      softprompt-tui show serene-landscape-sunrise --json
    """
    user_library = library()
    entry = user_library.open(name)
    path = user_library.path(entry.id, entry.revision)
    from softprompt_tui.cli.report import entry_json, print_entry

    if as_json:
        losses = {"losses": entry.prompt.losses.tolist(), "similarities": entry.prompt.similarities.tolist()}
        print_json(entry_json(entry, path) | losses)
        return
    print_entry(entry, path)
    from softprompt_tui.cli.report import print_curve

    if len(entry.prompt.losses):
        print_curve(entry.prompt.losses)
