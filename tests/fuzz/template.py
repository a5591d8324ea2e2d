"""Fuzz the template language."""

from __future__ import annotations

from softprompt.composition.template import format, parse


def check_round_trip(data: bytes) -> None:
    """Parse bytes as a template, and check that formatting and parsing the result again changes nothing."""
    parts = parse(data.decode("utf-8", "surrogateescape"))
    assert parse(format(parts)) == parts
