"""Check every command's arguments: text must be valid UTF-8, and relative paths need an existing working folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from softprompt.encoders.catalog import LOCAL_PREFIX
from softprompt.errors import ConfigError, HomeError, check_text
from softprompt.system.paths import HOME_VARIABLE

DELETED = "the working folder was deleted"
_is_gone = False


def leave_deleted_folder() -> None:
    """Change to an existing folder if the working folder was deleted: torch cannot be imported there.

    Raises:
        HomeError: the library's folder is relative to the deleted one.
    """
    global _is_gone
    try:
        os.getcwd()  # noqa: PTH109  # Path.cwd is the same
        _is_gone = False
        return
    except FileNotFoundError:
        _is_gone = True
    home = os.environ.get(HOME_VARIABLE, "")
    if home and not home.startswith(("/", "~")):
        raise HomeError(
            f"{HOME_VARIABLE} is {home!r}, but {DELETED}. Change to an existing folder, or set it to an absolute path."
        )
    for folder in (os.path.expanduser("~"), "/"):  # noqa: PTH111  # Path.expanduser raises where there is no home
        try:
            os.chdir(folder)
            return
        except OSError:
            continue


def check_working_folder(what: str) -> None:
    """Raise ConfigError if `what` is relative to the working folder and that folder was deleted."""
    if _is_gone:
        raise ConfigError(
            f"{what} needs the working folder, but {DELETED}. Give an absolute path, or change to an existing folder."
        )


def check_arguments(command: click.Command) -> None:
    """Make a command and its subcommands check every argument before they run."""
    for param in command.params:
        param.callback = partial(_check_argument, param.callback)
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            check_arguments(subcommand)


def _check_argument(
    callback: Callable[..., Any] | None, context: click.Context, param: click.Parameter, value: Any
) -> Any:
    what = f"value of {param.opts[0]}"
    if isinstance(param, click.Argument):
        what = "prompt" if param.name == "prompt" else f"argument {str(param.name).upper()}"
    for text in _texts(value):
        if isinstance(param.type, click.Path):  # a file name may contain any bytes
            if text != "-" and not Path(text).is_absolute():
                check_working_folder(text)
        elif not Path(check_text(what, text).removeprefix(LOCAL_PREFIX)).is_absolute() and text.startswith(
            LOCAL_PREFIX
        ):
            check_working_folder(text)
    return callback(context, param, value) if callback else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, (str, Path)):
        yield os.fspath(value)
