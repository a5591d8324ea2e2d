"""The comparison of two entries, as the interface shows it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from softprompt import Library
from softprompt.prompts.results import HardReadout
from softprompt_tui.rendering.details import render_comparison
from tests.library_model import a_prompt


@pytest.fixture
def text(tmp_path: Path) -> str:
    library = Library(tmp_path / "library")
    first = library.save(
        a_prompt(
            name="fox",
            created="2026-01-01T10:00:00.123456+00:00",
            steps=300,
            seconds=44.3043,
            stopped="stop_at",
            hidden={"flux": 0.99860608, "sd1": 0.86165821},
            config={"tokens": 2, "steps": 300, "rate": 1.0, "project_norm": True},
            hard=HardReadout("red animal", 2, 0.91, None, "exchange", 10, 1.0),
        )
    )
    second = library.save(
        a_prompt(
            name="owl",
            hard_prompt="an owl",
            created="2026-02-01T10:00:00.123456+00:00",
            steps=60,
            hidden={"flux": 0.9969, "sd1": 0.8484},
            config={"tokens": 2, "steps": 60, "rate": 0.5, "project_norm": False},
        )
    )
    output = io.StringIO()
    Console(file=output, width=140).print(render_comparison(library.open(first.id), library.open(second.id)))
    return output.getvalue()


def test_values_are_for_people(text: str) -> None:
    for shown in (
        "hard prompt",
        "trained for    44.3 s",
        "similarity 0.8617 sd1, 0.9986 flux",
        "stopped at --stop-at",
        "rate setting",
        "norms setting  held",
        "red animal; similarity 0.9100",
    ):
        assert shown in text
    for raw in ("hard_prompt", "{", "T10:00", "123456", "project_norm"):
        assert raw not in text


def test_a_field_is_listed_once(text: str) -> None:
    labels = [line.split("  ")[0] for line in text.partition("differs in")[2].splitlines() if line[:1].isalpha()]
    assert labels.count("steps") == 1
    assert len(labels) == len(set(labels))
