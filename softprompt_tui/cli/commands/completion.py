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
    """Print a completion script for SHELL. It completes commands, options, models and saved names.

    \b
    Examples:
      softprompt-tui completion bash >> ~/.bashrc
      softprompt-tui completion zsh >> ~/.zshrc
      softprompt-tui completion fish > ~/.config/fish/completions/softprompt-tui.fish
    """
    completion_class = get_completion_class(shell)
    assert completion_class is not None
    click.echo(completion_class(ctx.find_root().command, {}, PROGRAM, _VARIABLE).source())
