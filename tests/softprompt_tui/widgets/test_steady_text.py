"""The figures below the curve: a text that is replaced often, and seldom has another height."""

from __future__ import annotations

import pytest
from rich.text import Text
from textual.widgets import Static

from softprompt_tui.widgets.steady_text import SteadyText
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture

pytestmark = pytest.mark.usefixtures("runtime")

TEXTS = ("a\n", "a\nb", "a", "word " * 40, "word", "", "a\n\nb")


def test_a_text_has_the_height_that_it_needs() -> None:
    async def scene(d: Session) -> None:
        shown, plain = SteadyText(), Static()
        await d.app.screen.mount(shown, plain)
        shown.styles.width = plain.styles.width = 20
        for text in TEXTS:
            shown.show(Text(text))
            plain.update(Text(text))
            await d.pilot.pause()
            await d.until(lambda: shown.size == plain.size)

    run_scene(scene)


def test_a_text_of_the_same_height_causes_no_layout() -> None:
    async def scene(d: Session) -> None:
        shown = SteadyText()
        await d.app.screen.mount(shown)
        shown.show(Text("step 1"))
        await d.until(lambda: shown.size.height == 1)
        await d.pilot.pause()
        before = shown._layout_updates
        shown.show(Text("step 2"))
        await d.pilot.pause()
        assert shown._layout_updates == before

    run_scene(scene)
