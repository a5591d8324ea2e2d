"""Run this program's commands in another process, for work that needs torch or reads untrusted files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from softprompt.errors import SoftPromptError
from softprompt_tui import ERRORS_AS_JSON, PROGRAM

INTERRUPT_SECONDS = 1.0  # the interface must quit within 1.5 s


class CommandFailed(SoftPromptError):
    """A command failed. `kind` is the name of its error type, or ""."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


async def run_command(*args: str) -> Any:
    """Run `softprompt-tui ARGS` and return the JSON it prints. If cancelled, interrupt it like Ctrl-C.

    Raises:
        CommandFailed: the command cannot be started, fails, or prints something other than JSON.
    """
    process = await _start(*args)
    try:
        out, errors = await process.communicate()
    finally:
        await _interrupt(process)
    if process.returncode:
        raise _parse_failure(errors, f"`{PROGRAM} {args[0]}` failed with exit code {process.returncode}")
    try:
        return json.loads(out)
    except ValueError as error:
        raise _not_json(args[0], error) from error


async def stream_command(*args: str, on_line: Callable[[dict[str, Any]], None]) -> None:
    """Run `softprompt-tui ARGS`, which prints lines of JSON. If cancelled, interrupt it like Ctrl-C.

    Args:
        on_line: called with every line as soon as it is printed.

    Raises:
        CommandFailed: the command cannot be started, fails, or prints something other than JSON.
    """
    process = await _start(*args)
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())  # while reading lines, so that neither pipe fills up
    try:
        async for line in process.stdout:
            on_line(json.loads(line))
        await process.wait()
        if process.returncode:
            raise _parse_failure(await errors, f"`{PROGRAM} {args[0]}` failed with exit code {process.returncode}")
    except ValueError as error:  # also a line that is too long
        raise _not_json(args[0], error) from error
    finally:
        errors.cancel()
        await _interrupt(process)


async def _start(*args: str) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "softprompt_tui", *args,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True, env=os.environ | {ERRORS_AS_JSON: "1"},
        )  # fmt: skip
    except (OSError, ValueError) as error:  # the arguments are too long, or Python is being upgraded
        raise CommandFailed(f"cannot run `{PROGRAM} {args[0]}`: {error}") from error


def _not_json(command: str, error: ValueError) -> CommandFailed:
    return CommandFailed(f"`{PROGRAM} {command}` did not print JSON: {error}")


def _parse_failure(output: bytes, default: str) -> CommandFailed:
    """Return the error in a command's stderr. Lines of JSON are errors; other lines are for people."""
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    kind = ""
    for number, line in enumerate(lines):
        with suppress(ValueError, KeyError, TypeError):
            error = json.loads(line)
            lines[number], kind = str(error["message"]), str(error["kind"]) or kind
    return CommandFailed("\n".join(lines) or default, kind)


async def _interrupt(process: asyncio.subprocess.Process) -> None:
    """Interrupt a process so that it can undo unfinished work. Kill it if it does not react, or on a second cancel."""
    try:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), INTERRUPT_SECONDS)
    except TimeoutError:
        pass
    finally:  # the event loop ends by cancelling this wait too, but must not leave the process behind
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
