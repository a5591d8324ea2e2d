"""Commands of this program, run beside the interface: for what needs torch, and for files that nobody vouches for."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from softprompt.errors import SoftPromptError
from softprompt_tui.cli.common import PROGRAM


class CommandFailed(SoftPromptError):
    """A command ended with an error; the message is what it said."""


async def command(*args: str) -> Any:
    """What `softprompt-tui ARGS --json` prints. Where it is not waited for any longer it is ended. Raises CommandFailed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "softprompt_tui", *args,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        out, said = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode:
        lines = [line.removeprefix(f"{PROGRAM}: ") for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        raise CommandFailed("\n".join(lines) or f"{PROGRAM} {args[0]} ended with {process.returncode}")
    return json.loads(out)
