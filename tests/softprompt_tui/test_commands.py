"""The order of the command palette."""

from __future__ import annotations

import pytest
from textual.command import CommandList

from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture

pytestmark = pytest.mark.usefixtures("runtime")


def test_the_palette_offers_the_most_used_commands_first() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+p")
        await d.until(lambda: d.app.screen.query_one(CommandList).option_count > 40)
        options = d.app.screen.query_one(CommandList).options
        titles = [str(option.prompt).splitlines()[0] for option in options]
        assert "Train the prompt" in titles[0]
        assert {"Help", "Quit", "Theme"} < set(titles[-5:])
        places = [next(i for i, title in enumerate(titles) if title.startswith(name)) for name in ("Go to", "Library:")]
        assert places == sorted(places)

    run_scene(scene)
