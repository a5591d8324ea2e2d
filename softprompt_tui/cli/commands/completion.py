"""`softprompt-tui completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from softprompt_tui import PROGRAM

_VARIABLE = "_SOFTPROMPT_TUI_COMPLETE"
# Two things that click's script for zsh lacks. A file in fpath becomes a function: its first call loads it, which the
# script notices, but later calls would only register it again. And a script that is sourced registers itself with
# `compdef`, which exists after `compinit`. -i skips folders that other users may change instead of asking about them.
_ZSH_START = """
if [[ $zsh_eval_context[-1] == shfunc ]]; then
    _softprompt_tui_completion "$@"
    return
fi
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
"""


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
    script = completion_class(ctx.find_root().command, {}, PROGRAM, _VARIABLE).source()
    if shell == "bash":
        script = script.replace("+=($value)", '+=("$(printf %q "$value")")')  # names may contain spaces
    elif shell == "zsh":
        first_line, rest = script.split("\n", 1)  # "#compdef softprompt-tui" must remain the first
        script = f"{first_line}\n{_ZSH_START}{rest}"
    click.echo(script)
