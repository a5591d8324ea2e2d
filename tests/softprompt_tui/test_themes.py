"""After a change of theme, nothing on the screen keeps a color of the previous theme."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from softprompt import Library
from softprompt_tui.screens.loss_plot import PlotScreen
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.fake_worker import sweep_result
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("runtime")
LOSSES = np.geomspace(0.7, 0.002, 300, dtype=np.float32)


async def show_a_failed_run(d: Session) -> None:
    run = await d.train()
    d.worker.begin(run)
    d.worker.end(run, error="cpu is out of memory: fewer restarts need less")
    await d.pilot.press("f6")
    await d.shows("out of memory; F3")


async def show_a_sweep(d: Session) -> None:
    run = await d.sweep()
    d.worker.begin(run)
    d.worker.end(run, results=[sweep_result(k) for k in range(1, 17)])
    await d.pilot.press("escape")
    await d.shows("3 knee", "━")


async def show_an_entry(d: Session) -> None:
    await d.pilot.press("f4")
    await d.shows("as text", "━")


async def show_a_plot(d: Session) -> None:
    await d.pilot.press("f4")
    await d.until(lambda: len(d.app.main.detail.series.points) > 1)
    await d.pilot.press("f3")
    await d.until(lambda: isinstance(d.app.screen, PlotScreen))
    await d.shows("all steps", "┤")


def colors(d: Session) -> list[list[tuple[str, str]]]:
    """Return the colors of every cell of the screen."""
    return [
        [
            (f"{segment.style.color}", f"{segment.style.bgcolor}") if segment.style else ("", "")
            for segment in line
            for _ in segment.text
        ]
        for line in d.app.screen._compositor.render_strips()
    ]


@pytest.mark.parametrize("show", [show_a_failed_run, show_a_sweep, show_an_entry, show_a_plot])
def test_a_screen_has_the_colors_of_the_new_theme(show: Callable[[Session], Awaitable[None]]) -> None:
    Library().save(a_prompt(name="fox", losses=LOSSES, similarities=1 - LOSSES))
    expected: list[list[tuple[str, str]]] = []

    async def start_with_the_theme(d: Session) -> None:
        d.app.theme = "softprompt-light"
        await d.pilot.pause()
        await show(d)
        d.app.clear_notifications()
        await d.until(lambda: not d.app._notifications)
        expected.extend(colors(d))

    async def change_to_the_theme(d: Session) -> None:
        d.app.theme = "softprompt-dark"  # training has saved the theme of the other session
        await d.pilot.pause()
        await show(d)
        d.app.clear_notifications()
        d.app.theme = "softprompt-light"
        await d.until(lambda: colors(d) == expected)

    run_scene(start_with_the_theme, 140, 40)
    run_scene(change_to_the_theme, 140, 40)
