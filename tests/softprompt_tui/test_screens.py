"""What the screens look like, to the letter: the texts in `screens/` are what a user sees at three sizes.

A change that is meant is approved by `APPROVE=1 python -m pytest tests/softprompt_tui/test_screens.py`, and then read in the diff.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from textual.widgets import Input

from softprompt import Library
from softprompt.prompts.results import HardReadout, Neighbour, ReadoutToken
from softprompt_tui.screens.sweep import SweepScreen
from tests.app_harness import Desk, runtime, works  # noqa: F401  # runtime is a fixture
from tests.fake_worker import swept
from tests.library_model import a_prompt

FOLDER = Path(__file__).parent / "screens"
SIZES = [(60, 20), (80, 24), (120, 40)]
pytestmark = pytest.mark.usefixtures("runtime")


def looks_like(name: str, d: Desk) -> None:
    width, height = d.app.size
    path = FOLDER / f"{name}-{width}x{height}.txt"
    seen = "\n".join(line.rstrip() for line in d.text().splitlines()) + "\n"
    for varies, instead in (
        (r"\b[0-9a-f]{16}\b", "0123456789abcdef"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "2026-01-01 00:00:00"),
        (r"\d s\b", "0 s"),
    ):
        seen = re.sub(varies, instead, seen)
    if os.environ.get("APPROVE"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(seen, encoding="utf-8")
    assert seen == path.read_text(encoding="utf-8")


def some_entries() -> None:
    made = (
        ("landscape", "image of serene landscape at sunrise with trees mountains and lake", 0.9996, 5),
        ("winter fox", "a red fox asleep in deep snow under tall pine trees", 0.9971, 90),
        ("river mill", "a wooden boat on a foggy river beside an old stone mill", 0.9712, 3000),
    )
    for name, prompt, similarity, minutes in made:
        created = (datetime.now(UTC) - timedelta(minutes=minutes, seconds=10)).isoformat(timespec="seconds")
        Library().save(a_prompt(name=name, hard_prompt=prompt, similarity=similarity, created=created))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_first_start(width: int, height: int) -> None:
    async def scene(d: Desk) -> None:
        await d.shows("13 of 77 tokens", "The library is empty", "worker ready")
        looks_like("start", d)

    works(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_training_under_way(width: int, height: int) -> None:
    some_entries()

    async def scene(d: Desk) -> None:
        run = await d.train()
        d.worker.begin(run)
        long_ago = "2026-01-01T00:00:00+00:00"
        d.worker.records[run] = replace(d.worker.records[run], created=long_ago, began=long_ago)
        for step in range(1, 200):
            d.worker.report(run, step, loss=1 / step)
        await d.shows("step 199 of 300", "similarity 0.9950", "landscape")
        await d.until(lambda: d.app.main.readout._shown and d.app.main.readout._shown.as_text)
        d.app.runs.known[run] = replace(
            d.app.runs.known[run], created="", began=""
        )  # the hour of the test is none of the picture
        d.app.main.detail.changed()
        await d.until(lambda: "queued" not in d.text() and "began" not in d.text())
        looks_like("training", d)

    works(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_library(width: int, height: int) -> None:
    some_entries()

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4", "down", "space", "up")
        await d.shows("●", "soft    0.9971" if width > 60 else "fox")
        await d.until(lambda: d.app.main.detail.entry == d.app.main.library_pane.table.current)
        looks_like("library", d)
        await d.pilot.press("c")
        await d.shows("comparing takes two")

    works(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_composing(width: int, height: int) -> None:
    some_entries()

    async def scene(d: Desk) -> None:
        await d.pilot.press("f5")
        d.app.main.compose_pane.query_one("#composition", Input).value = "[landscape] mountain view"
        await d.pilot.press("tab", *"a lake")
        await d.shows("0.9870", "other text 0.5000")
        looks_like("compose", d)

    works(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_runs(width: int, height: int) -> None:
    async def scene(d: Desk) -> None:
        first = await d.train()
        d.worker.begin(first)
        second = await d.train()
        d.worker.end(first, error="cpu is out of memory: fewer restarts need less")
        d.worker.begin(second)
        d.worker.report(second, 120)
        await d.pilot.press("f6", "G")
        await d.shows("failed", "120/300" if width > 100 else "running", "fewer restarts", "wit failed:")
        d.app.clear_notifications()
        d.app.screen.refresh()
        await d.until(lambda: "wit failed:" not in d.text())
        looks_like("runs", d)

    works(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_sweep(width: int, height: int) -> None:
    async def scene(d: Desk) -> None:
        await d.pilot.press("f7")
        await d.until(lambda: d.worker.records and isinstance(d.app.screen, SweepScreen))
        (run,) = d.worker.records
        d.worker.begin(run)
        d.worker.sweep(run, 150, [(k, swept(k)["similarity"], swept(k)["composed"]) for k in range(1, 17)])
        await d.shows("step 150 of 300", "0.9864", "1 - composed")
        looks_like("sweeping", d)
        d.worker.end(run, results=[swept(k) for k in range(1, 17)])
        await d.shows("knee at 3", "knee 3", "●")
        await d.pilot.press("down", "down")
        await d.shows("3 tokens", "worst 0.9182", "sunrise landscape terrace")
        looks_like("sweep", d)

    works(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_hard_readout(width: int, height: int) -> None:
    found = HardReadout("dawn lakeside pines mist valley hills", 6, 0.9713, 0.9544, "exchange", 12_345, 6.3)
    rows = ("landscapephotography", "sunrise", "terrace")
    readout = tuple(ReadoutToken(word, 0.4, (Neighbour("scenery", 0.3), Neighbour("hills", 0.28))) for word in rows)
    Library().save(a_prompt(name="landscape", readout=readout, readout_text=" ".join(rows), hard=found))

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.detail.read)
        await d.pilot.press("f9")
        await d.shows("hard    0.9713", "composed 0.9544", "[v2]")
        looks_like("hard", d)

    works(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(
    ("key", "name", "there"),
    [("f1", "help", "Everywhere"), ("f8", "settings", "restarts"), ("f3", "plot", "all steps")],
)
def test_what_lies_over_the_panes(width: int, height: int, key: str, name: str, there: str) -> None:
    async def scene(d: Desk) -> None:
        await d.shows("13 of 77 tokens", "worker ready")
        await d.pilot.press(key)
        await d.shows(there)
        looks_like(name, d)

    works(scene, width, height)


def test_the_mouse_reaches_what_keys_reach() -> None:
    some_entries()

    async def scene(d: Desk) -> None:
        await d.shows("river mill")
        row = next(y for y, line in enumerate(d.text().splitlines()) if "winter fox" in line)
        await d.pilot.click(offset=(4, row))
        await d.until(lambda: d.app.main.detail.title == "winter fox")
        await d.pilot.click(offset=(4, row), times=2)
        await d.shows("winter fox is open")
        for words, shown in (
            ("F5 Compose", "A soft prompt is a word"),
            ("F6 Runs", "No runs."),
            ("F4 Library", "river mill"),
        ):
            y, line = next((y, line) for y, line in enumerate(d.text().splitlines()) if words in line)
            await d.pilot.click(offset=(line.index(words) + 4, y))
            await d.shows(shown)
        await d.pilot.click(offset=(d.text().splitlines()[1].index("F3 Loss") + 4, 1))
        await d.shows("all steps")
        await d.pilot.press("escape")
        y, line = len(d.text().splitlines()) - 1, d.text().splitlines()[-1]
        await d.pilot.click(offset=(line.index("Help"), y))
        await d.shows("Everywhere")

    works(scene)
