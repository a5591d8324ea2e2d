"""Completion in real shells, with the script that `softprompt-tui completion SHELL` prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pty_screen import Terminal

# How each shell starts without configuration, and then gets a prompt and no suggestions
START = {
    "bash": (("bash", "--norc", "--noprofile"), "PS1='ready> '"),
    "zsh": (("zsh", "-f"), "PS1='ready> '"),
    "fish": (("fish", "--no-config"), "set fish_autosuggestion_enabled 0; function fish_prompt; echo 'ready> '; end"),
}
SETUPS = {
    "bash without bash-completion": "source ./script",
    "zsh without compinit": "source ./script",
    "zsh without compinit, with a folder that everybody may change": "fpath=($PWD/open $fpath); source ./script",
    "zsh with compinit": "autoload -Uz compinit; compinit; source ./script",
    "zsh with compinit, evaluated": 'autoload -Uz compinit; compinit; eval "$(<./script)"',
    "zsh with the script in fpath": "mkdir own; mv script own/_softprompt-tui; fpath=($PWD/own $fpath); "
    "autoload -Uz compinit; compinit",
    "fish": "source ./script",
}


@pytest.mark.parametrize("setup", SETUPS)
def test_tab_completes_and_the_script_prints_nothing(
    setup: str, run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    shell = setup.split()[0]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    run("train", "a red fox", "--tokens", "1", "--steps", "1", "--name", "my fox")
    (tmp_path / "script").write_text(run("completion", shell).stdout)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    command, prompt = START[shell]
    block = "begin; {}; end" if shell == "fish" else "{{ {}; }}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with Terminal(
        *command, width=100, height=30, PATH=path, HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path)
    ) as terminal:
        terminal.press(f"cd {tmp_path}; {prompt}\r")
        terminal.wait_for(r"(?m)^ready> *$")
        terminal.press(f"{block.format(SETUPS[setup])} > printed 2>&1; clear; echo set up\r")
        terminal.wait_for(r"(?m)^set up *\n+ready> *$")
        # more than once, because zsh calls a function from fpath differently the first time
        for typed, completed in [("mod", "models"), ("models pu", "models pull"), ("show my", r"show my\ fox")]:
            terminal.press(f"softprompt-tui {typed}\t")
            terminal.wait_for(rf"(?m)^ready> softprompt-tui {re.escape(completed)} *$")
            terminal.press("ctrl+u")
            terminal.wait_for(r"(?m)^ready> *$")
        assert (tmp_path / "printed").read_text() == ""
