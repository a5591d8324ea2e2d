"""Every command of the program, loaded."""

from __future__ import annotations

import click

from softprompt_tui.cli import COMMANDS, main


def all_commands() -> dict[str, click.Command]:
    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in COMMANDS}
    return {name: command for name, command in found.items() if command}
