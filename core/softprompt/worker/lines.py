"""Lines of the protocol from an asyncio stream, for the worker and the interface."""

from __future__ import annotations

import asyncio

from softprompt.worker.protocol import too_long

MAX_SKIPPED_BYTES = 64 << 20  # bytes of a line over the limit that are read past before the other side is given up


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """The next line, b"" at the end. Raises MessageTooLong for a line over the reader's limit, having read past it."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError as error:
        skipped, unread = 0, error.consumed
    while skipped < MAX_SKIPPED_BYTES:
        await reader.readexactly(unread)
        skipped += unread
        try:
            await reader.readuntil(b"\n")
            raise too_long(skipped + 1)
        except asyncio.IncompleteReadError:
            return b""
        except asyncio.LimitOverrunError as error:
            unread = error.consumed
    raise ConnectionAbortedError(f"a line of more than {MAX_SKIPPED_BYTES:,} bytes")
