"""What holds for the arguments of all commands: text is UTF-8, and a relative path has a folder to start from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from softprompt.encoders.catalog import LOCAL
from softprompt.errors import ConfigError, HomeError, check_text
from softprompt.system.paths import VARIABLE

GONE = "the working folder was deleted"
_is_gone = False


def leave_deleted_folder() -> None:
    """Change to a folder that exists if the working folder was deleted: torch cannot be loaded there.

    Raises HomeError where the library was to be looked for below the deleted folder.
    """
    global _is_gone
    try:
        os.getcwd()  # noqa: PTH109  # Path.cwd is the same
        _is_gone = False
        return
    except FileNotFoundError:
        _is_gone = True
    home = os.environ.get(VARIABLE, "")
    if home and not home.startswith(("/", "~")):
        raise HomeError(
            f"{VARIABLE} is {home!r}, and {GONE}: change to a folder that exists, or set it to an absolute path"
        )
    for folder in (os.path.expanduser("~"), "/"):  # noqa: PTH111  # Path.expanduser raises where there is no home
        try:
            os.chdir(folder)
            return
        except OSError:
            continue


def check_working_folder(what: str) -> None:
    """Raise ConfigError if the working folder, which `what` starts from, was deleted."""
    if _is_gone:
        raise ConfigError(
            f"{what} starts from the working folder, and {GONE}: give an absolute path, or change to another folder"
        )


def check_arguments(command: click.Command) -> None:
    """Let this command and all below it check what is typed, before anything is done with it."""
    for param in command.params:
        param.callback = partial(_checked, param.callback)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            check_arguments(below)


def _checked(then: Callable[..., Any] | None, context: click.Context, param: click.Parameter, value: Any) -> Any:
    what = f"value of {param.opts[0]}"
    if isinstance(param, click.Argument):
        what = "prompt" if param.name == "prompt" else f"argument {str(param.name).upper()}"
    for text in _texts(value):
        if isinstance(param.type, click.Path):  # a file's name may hold any bytes
            if text != "-" and not Path(text).is_absolute():
                check_working_folder(text)
        elif not Path(check_text(what, text).removeprefix(LOCAL)).is_absolute() and text.startswith(LOCAL):
            check_working_folder(text)
    return then(context, param, value) if then else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, (str, Path)):
        yield os.fspath(value)
