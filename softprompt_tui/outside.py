"""Commands of this program, run beside the interface: for what needs torch, and for files that nobody vouches for."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import suppress
from typing import Any

from softprompt.errors import SoftPromptError
from softprompt_tui.cli.common import PROGRAM

LISTENS_WITHIN = 1.0  # seconds; the whole interface ends within 1.5


class CommandFailed(SoftPromptError):
    """A command ended with an error; the message is what it said."""


async def command(*args: str) -> Any:
    """What `softprompt-tui ARGS --json` prints. Where it is not waited for any longer it is interrupted, as by Ctrl-C. Raises CommandFailed."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "softprompt_tui", *args,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:  # more than a command line can hold, or Python is being replaced
        raise CommandFailed(f"`{PROGRAM} {args[0]}` cannot be run: {error}") from error
    try:
        out, said = await process.communicate()
    finally:
        await _ended(process)
    if process.returncode:
        lines = [line.removeprefix(f"{PROGRAM}: ") for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        raise CommandFailed("\n".join(lines) or f"{PROGRAM} {args[0]} ended with {process.returncode}")
    try:
        return json.loads(out)
    except ValueError as error:
        raise CommandFailed(f"`{PROGRAM} {args[0]}` answered with what is no JSON: {error}") from error


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Interrupts it, so that it can take back what is half done; kills it where it does not listen."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), LISTENS_WITHIN)
        except TimeoutError:
            process.kill()
    await process.wait()
