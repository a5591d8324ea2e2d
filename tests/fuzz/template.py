"""The template language under any bytes: a template or a TemplateError, and what was read can be written and read again."""

from __future__ import annotations

from softprompt.composition.template import format, parse


def one(data: bytes) -> None:
    parts = parse(data.decode("utf-8", "surrogateescape"))
    assert parse(format(parts)) == parts
