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
)  # fmt: skip
from softprompt_tui.rendering.numbers import age, figure
from softprompt_tui.rendering.provenance import UNKNOWN

SHOWN = 100  # rows of a table unless told otherwise


def complete_tag(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    tags = {tag for one in Library(say=lambda _: None).list(incomplete).entries for tag in one.tags}
    return [
        CompletionItem(tag)
        for tag in sorted(tags)
        if tag.isprintable() and tag.casefold().startswith(incomplete.casefold())
    ]


@click.command("list")
@click.argument("words", nargs=-1)
@click.option("--tag", "tags", multiple=True, metavar="TAG", shell_complete=complete_tag, help="Only those with this tag; may be given several times.")  # fmt: skip
@click.option("--model", default="", metavar="NAME", shell_complete=complete_model, help="Only those of this model.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="created", show_default=True, help="What to sort by.")
@click.option("--reverse", is_flag=True, help="The other way round: the oldest, the lowest first.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1 << 31),
    metavar="N",
    help=f"At most N; unless given, a table shows {SHOWN} and --json all.",
)
@click.option("--all", "everything", is_flag=True, help="All in one table.")
@click.option("--trash", is_flag=True, help="Those in the trash instead.")
@json_option
def list_(
    words: tuple[str, ...], tags: tuple[str, ...], model: str, sort: str, reverse: bool, limit: int | None, everything: bool, trash: bool, as_json: bool
) -> None:  # fmt: skip
    """List the saved soft prompts, newest first; with WORDS those in whose name, hard prompt, readout, tags or note all of them stand.

    The beginning of a word is enough; case and accents do not matter.

    \b
    Examples:
      softprompt-tui list
      softprompt-tui list lake sunr --tag nature --sort similarity
      softprompt-tui list --trash
      softprompt-tui list --json
    """
    if limit is None and not (as_json or everything):
        limit = SHOWN
    found = library().list(
        " ".join(words), tags=tags, model=model, sort=sort, reverse=reverse, limit=limit, trashed=trash
    )
    print_damaged(found.damaged)
    if as_json:
        print_json([_values(one) for one in found.entries])
        return
    if not found.entries:
        narrate(_nothing(bool(words or tags or model), trash))
        return
    now = datetime.now(UTC)
    tagged = any(one.tags for one in found.entries)
    headings = (
        "name",
        "tokens",
        "similar",
        "composed",
        "model",
        "deleted" if trash else "age",
        *(("tags",) if tagged else ()),
        "hard prompt",
    )
    print_table(
        headings, [_row(one, now, tagged) for one in found.entries], right=(1, 2, 3, 5), stretch=len(headings) - 1
    )
    if found.total > len(found.entries):
        narrate(f"{found.total - len(found.entries):,} more: --all shows them, words and --tag find some")


def _nothing(narrowed: bool, trash: bool) -> str:
    if narrowed:
        return f"Nothing {'in the trash ' if trash else ''}is like that. `softprompt-tui list` shows all"
    if trash:
        return "The trash is empty."
    return 'The library is empty. A first soft prompt: softprompt-tui train "a lake at sunrise between high mountains" --tokens 3'


def _values(one: EntrySummary) -> dict[str, Any]:
    return vars(one) | {"tags": list(one.tags), "path": str(one.path)}


def _row(one: EntrySummary, now: datetime, tagged: bool) -> tuple[str, ...]:
    return (
        one.name,
        "-" if one.tokens is None else str(one.tokens),
        figure(one.similarity),
        figure(one.composed),
        one.model or UNKNOWN,
        age(one.trashed or one.created, now),
        *((" ".join(one.tags),) if tagged else ()),
        one.hard_prompt,
    )


@click.command()
@entry_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one soft prompt with its loss curve; NAME is a name or an id.

    \b
    Examples:
      softprompt-tui show serene-landscape-sunrise
      softprompt-tui show serene-landscape-sunrise --json
    """
    here = library()
    entry = here.open(name)
    path = here.path(entry.id, entry.revision)
    from softprompt_tui.cli.report import entry_json, print_entry

    if as_json:
        losses = {"losses": entry.prompt.losses.tolist(), "similarities": entry.prompt.similarities.tolist()}
        print_json(entry_json(entry, path) | losses)
        return
    print_entry(entry, path)
    from softprompt_tui.cli.report import print_curve

    if len(entry.prompt.losses):
        print_curve(entry.prompt.losses)
