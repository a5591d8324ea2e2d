"""The key bar shows the keys available right now, and presses them on a click."""

from __future__ import annotations

import numpy as np
import pytest
from textual.command import CommandPalette

from softprompt.library import Library
from softprompt_tui.screens.help import HelpScreen
from softprompt_tui.widgets.key_bar import KeyBar
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("runtime")


def last_line(d: Session) -> str:
    return d.text().splitlines()[-1]


def test_shows_the_keys_of_the_focused_pane_and_the_global_ones() -> None:
    losses = np.geomspace(0.7, 0.002, 30, dtype=np.float32)
    Library().save(a_prompt(name="fox", losses=losses, similarities=1 - losses))

    async def scene(d: Session) -> None:
        await d.until(lambda: "^t Train" in last_line(d))
        await d.pilot.press("f6")
        await d.until(lambda: "Stop" not in last_line(d) and "Train" in last_line(d))  # an empty list has no keys
        await d.pilot.press("f4")
        await d.until(lambda: " r Rename  d Delete" in last_line(d))
        assert last_line(d).endswith("▏^p palette ")
        await d.pilot.press("f3")
        await d.until(lambda: last_line(d).startswith(" z Zoom") and last_line(d).endswith(" esc Back "))
        await d.pilot.press("escape")
        await d.until(lambda: " r Rename  d Delete" in last_line(d))

    run_scene(scene)


@pytest.mark.parametrize("width", [50, 71])
def test_narrow_terminals_get_no_padding_and_no_palette(width: int) -> None:
    async def scene(d: Session) -> None:
        await d.until(lambda: last_line(d).startswith("^t Train F7 Sweep F8 Settings"))
        assert "palette" not in last_line(d)

    run_scene(scene, width)


def test_a_key_has_the_same_place_on_every_screen() -> None:
    losses = np.geomspace(0.7, 0.002, 30, dtype=np.float32)
    Library().save(a_prompt(name="fox", losses=losses, similarities=1 - losses))

    async def scene(d: Session) -> None:
        columns: dict[str, set[int]] = {}
        for key in ("f2", "f4", "f5", "f6", "f9"):
            await d.pilot.press(key)
            await d.until(lambda: "^t Train" in last_line(d))
            await d.pilot.pause()
            for words in ("^t Train", "F1 Help", "^q Quit", "^p palette"):
                columns.setdefault(words, set()).add(last_line(d).index(words))
        assert columns["^t Train"] == {1}
        assert all(len(places) == 1 for places in columns.values())
        await d.pilot.press("f4", "f3")
        await d.until(lambda: "z Zoom" in last_line(d))
        help_column = last_line(d).index("F1 Help")
        assert last_line(d).rstrip().endswith("esc Back")
        await d.pilot.press("escape", "ctrl+o")
        await d.until(lambda: "Pull" in last_line(d) or "Use" in last_line(d))
        assert last_line(d).index("F1 Help") == help_column

    run_scene(scene)


def test_a_click_presses_the_key() -> None:
    async def scene(d: Session) -> None:
        await d.until(lambda: "F1 Help" in last_line(d))
        await d.pilot.click(KeyBar, offset=(last_line(d).index("Help"), 0))
        await d.until(lambda: isinstance(d.app.screen, HelpScreen))
        await d.pilot.press("escape")
        await d.pilot.click(KeyBar, offset=(75, 0))
        await d.until(lambda: isinstance(d.app.screen, CommandPalette))

    run_scene(scene)


def test_the_key_under_the_pointer_is_highlighted() -> None:
    async def scene(d: Session) -> None:
        await d.until(lambda: "F1 Help" in last_line(d))
        bar = d.app.query_one(KeyBar)
        x = last_line(d).index("Help")

        def background() -> object:
            return bar.render_line(0).crop(x, x + 1)._segments[0].style.bgcolor  # type: ignore[union-attr]

        plain = background()
        await d.pilot.hover(KeyBar, offset=(x, 0))
        await d.until(lambda: background() != plain)
        await d.pilot.hover(KeyBar, offset=(last_line(d).index("Sweep"), 0))
        await d.until(lambda: bar.tooltip == "Train with every token count from 1 to 16, then choose")
        await d.pilot.hover("#editor")
        await d.until(lambda: background() == plain)

    run_scene(scene)
