"""`softprompt-tui list` and `show`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from softprompt.library import Library, Listed
from softprompt_tui.cli.common import entry_argument, json_option, narrate, print_damaged, print_json, print_table

_LISTED = (
    "name",
    "hard_prompt",
    "model",
    "tokens",
    "similarity",
    "readout_text",
    "readout_similarity",
    "steps",
    "seconds",
    "stopped",
    "created",
)


@click.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the saved soft prompts, newest first.

    \b
    Examples:
      softprompt-tui list
      softprompt-tui list --json
    """
    listed, damaged = Library().list()
    print_damaged(damaged)
    if as_json:
        print_json(
            [{"id": one.id} | {key: one.provenance.get(key) for key in _LISTED} | {"path": str(one.path)} for one in listed]
        )
    elif not listed:
        narrate(
            'The library is empty. A first soft prompt: softprompt-tui train "a lake at sunrise between high mountains" --tokens 3'
        )
    else:
        now = datetime.now(UTC)
        print_table(
            ("name", "tokens", "similar", "composed", "model", "age", "hard prompt"),
            [_row(one, now) for one in listed],
            right=(1, 2, 3, 5),
            stretch=6,
        )


def _row(one: Listed, now: datetime) -> tuple[str, ...]:
    p = one.provenance
    composition: Any = p.get("composition")
    composed = _figure(composition.get("mean")) if isinstance(composition, dict) else "-"
    return (
        one.name,
        str(p.get("tokens")),
        _figure(p.get("similarity")),
        composed,
        str(p.get("model")),
        _age(p.get("created"), now),
        str(p.get("hard_prompt")),
    )


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"


def _age(created: object, now: datetime) -> str:
    try:
        seconds = (now - datetime.fromisoformat(str(created))).total_seconds()
    except (ValueError, TypeError):
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


@click.command(short_help="Show a saved soft prompt and its loss curve.")
@entry_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one soft prompt with its loss curve; NAME is a name or an id.

    \b
    Examples:
      softprompt-tui show serene-landscape-sunrise
      softprompt-tui show serene-landscape-sunrise --json
    """
    library = Library()
    entry = library.open(name)
    path = library.path(entry.id, entry.revision)
    from softprompt_tui.cli.report import entry_json, print_entry

    if as_json:
        losses = {"losses": entry.prompt.losses.tolist(), "similarities": entry.prompt.similarities.tolist()}
        print_json(entry_json(entry, path) | losses)
        return
    print_entry(entry, path)
    from softprompt_tui.cli.curve import print_curve

    print_curve(entry.prompt.losses)
