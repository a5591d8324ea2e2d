"""Snapshot tests: `screens/` holds the exact text of every screen at three sizes.

To approve a change, run `APPROVE=1 python -m pytest tests/softprompt_tui/test_screens.py` and review the diff.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.color import Color
from textual.widgets import Input

from softprompt import Library
from softprompt.prompts.results import HardReadout, Neighbour, ReadoutToken
from softprompt_tui.state.models import Pull
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.fake_worker import sweep_result
from tests.library_model import a_prompt

FOLDER = Path(__file__).parent / "screens"
SIZES = [(60, 20), (80, 24), (120, 40)]
UNREACHABLE = (
    "ViT-L-14-quickgelu/openai is not on disk and cannot be downloaded: no answer from the hub (ConnectError). Try "
    "again with a network connection (the download resumes where it stopped), set HF_ENDPOINT to a mirror, or run "
    "`softprompt-tui models pull` on another machine and copy the hub's cache folder (HF_HOME). The built-in model "
    "needs no network: --model mini."
)
pytestmark = pytest.mark.usefixtures("runtime")


LOSSES = np.geomspace(0.7, 0.002, 300, dtype=np.float32)


def shown(d: Session) -> str:
    """Return the screen's text without what differs between two runs: ids, times and ages."""
    text = "\n".join(line.rstrip() for line in d.text().splitlines()) + "\n"
    for pattern, replacement in (
        (r"\b[0-9a-f]{16}\b", "0123456789abcdef"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "2026-01-01 00:00:00"),
        (r"\d\d:\d\d:\d\d ─╯", "00:00:00 ─╯"),
        (r"\d s\b", "0 s"),
    ):
        text = re.sub(pattern, replacement, text)
    return text


async def assert_screen(name: str, d: Session) -> None:
    width, height = d.app.size
    path = FOLDER / f"{name}-{width}x{height}.txt"
    if os.environ.get("APPROVE"):
        seen: list[str] = []
        await d.until(lambda: seen.append(shown(d)) or (len(seen) > 12 and len(set(seen[-12:])) == 1))  # about 2 s
        FOLDER.mkdir(exist_ok=True)
        path.write_text(shown(d), encoding="utf-8")
    expected = path.read_text(encoding="utf-8")
    with suppress(AssertionError):  # the difference is more useful than the screen
        await d.until(lambda: shown(d) == expected)  # threads count tokens and read entries
    assert shown(d) == expected


def save_entries(**changes: Any) -> None:
    entries = (
        ("landscape", "image of serene landscape at sunrise with trees mountains and lake", 0.9996, 5),
        ("winter fox", "a red fox asleep in deep snow under tall pine trees", 0.9971, 90),
        ("river mill", "a wooden boat on a foggy river beside an old stone mill", 0.9712, 3000),
    )
    for name, prompt, similarity, minutes in entries:
        created = (datetime.now(UTC) - timedelta(minutes=minutes, seconds=10)).isoformat(timespec="seconds")
        Library().save(a_prompt(name=name, hard_prompt=prompt, similarity=similarity, created=created, **changes))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_first_start(width: int, height: int) -> None:
    async def scene(d: Session) -> None:
        await d.shows("13 of 77 tokens", "The library is empty", "worker ready")
        await assert_screen("start", d)

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_training(width: int, height: int) -> None:
    save_entries()

    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        long_ago = "2026-01-01T00:00:00+00:00"
        d.worker.runs[run] = replace(d.worker.runs[run], created=long_ago, began=long_ago)
        for step in range(1, 200):
            d.worker.report(run, step, loss=1 / step)
        await d.shows("199", "best 0.9950", "landscape")
        await d.until(lambda: d.app.main.readout._shown and d.app.main.readout._shown.as_text)
        # times of day would change the screen
        d.app.runs.by_id[run] = replace(d.app.runs.by_id[run], created="", began="")
        d.app.main.detail.request_repaint()
        await d.until(lambda: "queued" not in d.text() and "started" not in d.text())
        await assert_screen("training", d)

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_library(width: int, height: int) -> None:
    save_entries()

    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "down", "space", "up")
        await d.shows("●", "soft    0.9971" if width > 60 else "fox")
        await d.until(lambda: d.app.main.detail.entry == d.app.main.library_pane.table.current)
        await assert_screen("library", d)
        await d.pilot.press("c")
        await d.shows("comparing needs two")

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_compose(width: int, height: int) -> None:
    save_entries()

    async def scene(d: Session) -> None:
        await d.pilot.press("f5")
        d.app.main.compose_pane.query_one("#composition", Input).value = "[landscape] mountain view"
        await d.pilot.press("tab", *"a lake")
        await d.shows("0.9870", "other text 0.5000")
        await assert_screen("compose", d)

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_runs(width: int, height: int) -> None:
    async def scene(d: Session) -> None:
        first = await d.train()
        d.worker.begin(first)
        second = await d.train()
        d.worker.end(first, error="cpu is out of memory: fewer restarts need less")
        d.worker.begin(second)
        d.worker.report(second, 120)
        await d.pilot.press("f6", "G")
        await d.shows("failed", "running", "out of memory: fewer", "… failed:")
        d.app.clear_notifications()
        d.app.screen.refresh()
        await d.until(lambda: "… failed:" not in d.text())
        assert "training 000000" in d.text().splitlines()[0]  # the other run
        await assert_screen("runs", d)

    run_scene(scene, width, height)


@pytest.mark.parametrize("theme", ["softprompt-dark", "softprompt-light"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_failed_run(width: int, height: int, theme: str) -> None:
    """The text is the same in every theme, and the title line has the color of errors."""

    async def scene(d: Session) -> None:
        d.app.theme = theme
        d.app.main.prompt_pane.set("neon city street in the rain at night")
        run = await d.train()
        d.worker.begin(run)
        job = replace(d.worker.runs[run].job, model="ViT-L-14-quickgelu/openai")
        d.worker.runs[run] = replace(d.worker.runs[run], job=job)
        d.worker.end(run, error=UNREACHABLE, error_kind="ModelUnavailable")
        await d.shows("✗ failed 000000", "▌")  # the notice
        d.app.clear_notifications()
        await d.pilot.press("f3")
        await d.shows("What you can do:", "r Try again" if width == 60 else "r Try again  m Model  l Log")
        await d.until(lambda: "▌" not in d.text())
        await d.shows("10 of 77 tokens")  # a thread counts them
        error_color = Color.parse(d.app.theme_variables["text-error"]).rgb
        reason = next(
            segment for segment in d.app.main.title_line.render_line(0) if "model not available" in segment.text
        )
        assert reason.style is not None
        assert reason.style.color is not None
        assert reason.style.color.triplet == error_color
        await assert_screen("failed", d)

    run_scene(scene, width, height)


def a_model(name: str, width: int = 512, **facts: object) -> dict[str, object]:
    """Return a model as `models --json` describes it."""
    described = {
        "name": name, "width": width, "layers": 12, "context": 77, "parameters": 63_000_000, "bytes": None,
        "partial_bytes": 0, "read_by": [], "repository": name, "same_as": None, "refused": None,
        "needs_transformers": False,
    }  # fmt: skip
    return described | facts


MODELS = (
    a_model("mini", 256, layers=4, parameters=16_000_000, bytes=32_000_000, repository=None),
    a_model("ViT-B-32/datacomp_xl_s13b_b90k", bytes=605_000_000),
    a_model("ViT-B-16/laion2b_s34b_b88k", partial_bytes=312_000_000),
    a_model("ViT-L-14-quickgelu/openai", 768, parameters=124_000_000, read_by=["sd1", "sdxl", "flux"]),
    a_model("ViT-H-14/laion2b_s32b_b79k", 1024, layers=24, parameters=354_000_000, read_by=["sd2"]),
    a_model("ViT-bigG-14/laion2b_s39b_b160k", 1280, layers=32, parameters=695_000_000, read_by=["sdxl"]),
    a_model("smollm2", 576, layers=30, context=8192, parameters=135_000_000, kind="causal"),
    a_model("coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k", 768),
    a_model("ViT-B-16-SigLIP-i18n-256/webli", 768, context=64),
    a_model("xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", refused="its text tower is the Hugging Face model x"),
)


@pytest.mark.parametrize("theme", ["softprompt-dark", "softprompt-light"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_models(width: int, height: int, theme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is the same in every theme."""
    monkeypatch.setattr("softprompt_tui.controllers.models._describe_models", lambda: MODELS)

    async def scene(d: Session) -> None:
        d.app.theme = theme
        await d.pilot.press("ctrl+o")
        await d.shows("●mini", "part 312 MB", "2 of 9 on disk")
        await assert_screen("models", d)
        controller = d.app.main.models
        pulls = {name: Pull(name) for name in ("ViT-L-14-quickgelu/openai", "ViT-bigG-14/laion2b_s39b_b160k")}
        for pull in pulls.values():
            pull.update(880_000_000, 1_700_000_000)
            pull.update(890_000_000, 1_700_000_000)
        monkeypatch.setattr(Pull, "rate", lambda *_: 40e6)
        monkeypatch.setattr(Pull, "silent_seconds", lambda *_: 0.0)
        pulls["ViT-bigG-14/laion2b_s39b_b160k"].error = UNREACHABLE.replace("L-14-quickgelu/openai", "bigG-14/laion2b")
        controller.pulls |= pulls
        controller.paint()
        await d.pilot.press("down", "down", "down")
        await d.shows("890 MB of 1.7 GB   40 MB/s   20 s left")
        await assert_screen("models-pulling", d)
        await d.pilot.press("down", "down")
        await d.shows("--model mini.")
        await assert_screen("models-failed", d)

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_sweep(width: int, height: int) -> None:
    async def scene(d: Session) -> None:
        run = await d.sweep()
        d.worker.begin(run)
        d.worker.report_sweep(
            run, 150, [(k, sweep_result(k)["similarity"], sweep_result(k)["composed"]) for k in range(1, 17)]
        )
        await d.shows("step 150 of 300", "0.9864", "1 - composed")
        await assert_screen("sweeping", d)
        d.worker.end(run, results=[sweep_result(k) for k in range(1, 17)])
        await d.shows("knee at 3", "knee 3", "●")
        await d.pilot.press("down", "down")
        await d.shows("3 tokens", "worst 0.9182", "sunrise landscape terrace")
        await assert_screen("sweep", d)
        await d.pilot.press("escape")
        await d.until(lambda: d.app.screen is d.app.main)
        if height > 20:  # a lower terminal has no room for the readout
            await d.shows("opens the sweep", "3 knee")
        d.app.runs.by_id[run] = replace(d.app.runs.by_id[run], created="", began="", ended="")
        d.app.main.detail.request_repaint()
        await d.until(lambda: "queued" not in d.text() and "started" not in d.text())
        await assert_screen("after-sweep", d)

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_hard_readout(width: int, height: int) -> None:
    hard = HardReadout("dawn lakeside pines mist valley hills", 6, 0.9713, 0.9544, "exchange", 12_345, 6.3)
    words = ("landscapephotography", "sunrise", "terrace")
    readout = tuple(ReadoutToken(word, 0.4, (Neighbour("scenery", 0.3), Neighbour("hills", 0.28))) for word in words)
    Library().save(a_prompt(name="landscape", readout=readout, readout_text=" ".join(words), hard=hard))

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.detail.shown_entry)
        await d.pilot.press("f9")
        await d.shows("hard    0.9713", "composed 0.9544", "[v2]")
        await assert_screen("hard", d)

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(
    ("key", "name", "text"),
    [("f1", "help", "struck-through"), ("f8", "settings", "restarts")],
)
def test_screens_over_the_panes(width: int, height: int, key: str, name: str, text: str) -> None:
    async def scene(d: Session) -> None:
        await d.shows("13 of 77 tokens", "worker ready")
        await d.pilot.press(key)
        await d.shows(text)
        await assert_screen(name, d)

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_whole_screen_plot(width: int, height: int) -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("f3")
        await d.shows("there is no curve to show yet")
        Library().save(a_prompt(name="fox", losses=LOSSES, similarities=1 - LOSSES))
        d.app.main.library_pane.reload()
        await d.until(lambda: len(d.app.main.detail.series.points) > 1)
        await d.pilot.press("f3")
        await d.shows("all steps")
        await assert_screen("plot", d)

    run_scene(scene, width, height)


def test_mouse_can_do_what_keys_do() -> None:
    save_entries(losses=LOSSES, similarities=1 - LOSSES)

    async def scene(d: Session) -> None:
        await d.shows("river mill")
        row = next(y for y, line in enumerate(d.text().splitlines()) if "winter fox" in line)
        await d.pilot.click(offset=(4, row))
        await d.until(lambda: d.app.main.detail.title == "winter fox")
        await d.pilot.click(offset=(4, row), times=2)
        await d.shows("winter fox is open")
        for title, text in (
            ("F5 Compose", "A soft prompt is a word"),
            ("F6 Runs", "No runs."),
            ("F4 Library", "river mill"),
        ):
            y, line = next((y, line) for y, line in enumerate(d.text().splitlines()) if title in line)
            await d.pilot.click(offset=(line.index(title) + 4, y))
            await d.shows(text)
        await d.pilot.click(offset=(d.text().splitlines()[1].index("F3 Loss") + 4, 1))
        await d.shows("all steps")
        await d.pilot.press("escape")
        y, line = len(d.text().splitlines()) - 1, d.text().splitlines()[-1]
        await d.pilot.click(offset=(line.index("Help"), y))
        await d.shows("The loss of the current run")

    run_scene(scene)
