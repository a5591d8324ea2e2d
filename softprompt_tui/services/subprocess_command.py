"""Commands of this program, run beside the interface: for what needs torch, and for files that nobody vouches for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from softprompt.errors import SoftPromptError
from softprompt_tui import ERRORS_AS_JSON, PROGRAM

LISTENS_WITHIN = 1.0  # seconds; the whole interface ends within 1.5


class CommandFailed(SoftPromptError):
    """A command ended with an error: the message is what it said, `kind` the name of the error's type there, if it has one."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


async def command(*args: str) -> Any:
    """What `softprompt-tui ARGS --json` prints. Where it is not waited for any longer it is interrupted, as by Ctrl-C. Raises CommandFailed."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "softprompt_tui", *args,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
            env=os.environ | {ERRORS_AS_JSON: "1"},
        )  # fmt: skip
    except (OSError, ValueError) as error:  # more than a command line can hold, or Python is being replaced
        raise CommandFailed(f"`{PROGRAM} {args[0]}` cannot be run: {error}") from error
    try:
        out, said = await process.communicate()
    finally:
        await _ended(process)
    if process.returncode:
        raise _failure(said, f"{PROGRAM} {args[0]} ended with {process.returncode}")
    try:
        return json.loads(out)
    except ValueError as error:
        raise CommandFailed(f"`{PROGRAM} {args[0]}` answered with what is no JSON: {error}") from error


def _failure(said: bytes, otherwise: str) -> CommandFailed:
    """What a command said before it ended: errors are lines of JSON, and the others are for people."""
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    kind = ""
    for number, line in enumerate(lines):
        with suppress(ValueError, KeyError, TypeError):
            error = json.loads(line)
            lines[number], kind = str(error["message"]), str(error["kind"]) or kind
    return CommandFailed("\n".join(lines) or otherwise, kind)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Interrupts it, so that it can take back what is half done; kills it where it does not listen."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), LISTENS_WITHIN)
        except TimeoutError:
            process.kill()
    await process.wait()
