"""Read protocol lines from an asyncio stream. The worker and the user interface use this."""

from __future__ import annotations

import asyncio

from softprompt.worker.protocol import message_too_long

MAX_SKIPPED_BYTES = 64 << 20  # skip at most this much of an overlong line, then close the connection


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line, or b"" at the end of the stream.

    Raises:
        MessageTooLong: the line exceeded the reader's limit and was skipped.
        ConnectionAbortedError: the line also exceeds `MAX_SKIPPED_BYTES`.
    """
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
            raise message_too_long(skipped + 1)
        except asyncio.IncompleteReadError:
            return b""
        except asyncio.LimitOverrunError as error:
            unread = error.consumed
    raise ConnectionAbortedError(f"received a line of more than {MAX_SKIPPED_BYTES:,} bytes")
