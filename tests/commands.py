"""Load every command of the program."""

from __future__ import annotations

import click

from softprompt_tui.cli import COMMANDS, main


def all_commands() -> dict[str, click.Command]:
    context = click.Context(main)
    commands = {name: main.get_command(context, name) for name in COMMANDS}
    return {name: command for name, command in commands.items() if command}
