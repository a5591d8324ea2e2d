"""The template language under any bytes: a template or a typed error, and what was read can be written and read again."""

from __future__ import annotations

from contextlib import suppress

from softprompt.errors import TemplateError
from softprompt.template import format, parse


def one(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with suppress(TemplateError):
        parts = parse(text)
        assert parse(format(parts)) == parts
