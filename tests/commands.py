"""Load every command of the program."""

from __future__ import annotations

import click

from softprompt_tui.cli import COMMANDS, main


def all_commands() -> dict[str, click.Command]:
    context = click.Context(main)
    commands = {name: main.get_command(context, name) for name in COMMANDS}
    return {name: command for name, command in commands.items() if command}


def all_paths() -> dict[tuple[str, ...], click.Command]:
    """Return every command and subcommand that the help shows, by the words to type."""
    paths: dict[tuple[str, ...], click.Command] = {(name,): command for name, command in all_commands().items()}
    for name, group in all_commands().items():
        for subcommand_name, subcommand in getattr(group, "commands", {}).items():
            if not subcommand.hidden:
                paths[name, subcommand_name] = subcommand
    return paths
