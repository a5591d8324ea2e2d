"""`softprompt-tui completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from softprompt_tui import PROGRAM

_VARIABLE = "_SOFTPROMPT_TUI_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands, options, models and saved names in SHELL.

    \b
    Examples:
      softprompt-tui completion bash >> ~/.bashrc
      softprompt-tui completion zsh >> ~/.zshrc
      softprompt-tui completion fish > ~/.config/fish/completions/softprompt-tui.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, PROGRAM, _VARIABLE).source())
