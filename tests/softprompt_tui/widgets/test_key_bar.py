"""The last line says which keys hold where one is, and presses them when they are clicked."""

from __future__ import annotations

import pytest
from textual.command import CommandPalette

from softprompt_tui.screens.help import HelpScreen
from softprompt_tui.widgets.key_bar import KeyBar
from tests.app_harness import Desk, runtime, works  # noqa: F401  # runtime is a fixture

pytestmark = pytest.mark.usefixtures("runtime")


def last_line(d: Desk) -> str:
    return d.text().splitlines()[-1]


def test_it_names_the_keys_of_the_pane_and_those_that_hold_everywhere() -> None:
    async def scene(d: Desk) -> None:
        await d.until(lambda: "^t Train" in last_line(d))
        await d.pilot.press("f6")
        await d.until(lambda: " s Stop  p Pause" in last_line(d))
        assert last_line(d).endswith("▏^p palette ")
        await d.pilot.press("f3")
        await d.until(lambda: " esc Back  z Zoom" in last_line(d))
        await d.pilot.press("escape")
        await d.until(lambda: " s Stop  p Pause" in last_line(d))

    works(scene)


@pytest.mark.parametrize("width", [50, 71])
def test_on_a_narrow_terminal_it_leaves_out_blanks_and_the_palette(width: int) -> None:
    async def scene(d: Desk) -> None:
        await d.until(lambda: last_line(d).startswith("^t Train F7 Sweep F8 Settings"))
        assert "palette" not in last_line(d)

    works(scene, width)


def test_a_click_presses_the_key_under_it() -> None:
    async def scene(d: Desk) -> None:
        await d.until(lambda: "F1 Help" in last_line(d))
        await d.pilot.click(KeyBar, offset=(last_line(d).index("Help"), 0))
        await d.until(lambda: isinstance(d.app.screen, HelpScreen))
        await d.pilot.press("escape")
        await d.pilot.click(KeyBar, offset=(75, 0))
        await d.until(lambda: isinstance(d.app.screen, CommandPalette))

    works(scene)


def test_what_lies_under_the_pointer_is_lighter() -> None:
    async def scene(d: Desk) -> None:
        await d.until(lambda: "F1 Help" in last_line(d))
        bar = d.app.query_one(KeyBar)
        at = last_line(d).index("Help")

        def background() -> object:
            return bar.render_line(0).crop(at, at + 1)._segments[0].style.bgcolor  # type: ignore[union-attr]

        usual = background()
        await d.pilot.hover(KeyBar, offset=(at, 0))
        await d.until(lambda: background() != usual)
        await d.pilot.hover(KeyBar, offset=(last_line(d).index("Sweep"), 0))
        await d.until(lambda: bar.tooltip == "1 to 16 soft tokens at once, to choose from")
        await d.pilot.hover("#editor")
        await d.until(lambda: background() == usual)

    works(scene)
