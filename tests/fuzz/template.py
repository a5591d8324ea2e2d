"""The template language under any bytes: a template or a typed error, and what was read can be written and read again."""

from __future__ import annotations

from softprompt.errors import TemplateError
from softprompt.template import format, parse


def one(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        parts = parse(text)
    except TemplateError as error:
        assert 1 <= error.column <= len(text) + 1
        return
    assert parse(format(parts)) == parts
