"""Take the README's screenshots of the real program: `python -m tests.screenshots`.

This trains on `mini`, which takes a few minutes.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from softprompt.worker import protocol as p
from softprompt_tui.app import SoftPromptApp
from softprompt_tui.screens.dialogs import AskKey
from tests.worker_process import Home

FOLDER = Path(__file__).parents[1] / "screenshots"
PROMPTS = (
    ("a small wooden boat drifting on a foggy river beside an old stone mill", "river mill", "boat"),
    ("a red fox asleep in deep snow under tall pine trees at dusk", "winter fox", "animal dusk"),
    ("oil painting of a crowded market square in the rain, umbrellas and wet cobblestones", "rainy market", "oil"),
    ("an astronaut sitting alone on a dune looking at two moons, long shadows", "two moons", "space"),
    ("portrait of an old sailor with a white beard and a blue wool cap", "old sailor", "portrait"),
)
EXAMPLE = "image of serene landscape at sunrise with trees mountains and lake"


async def wait_until(pilot: object, condition: Callable[[], object], seconds: float = 240) -> None:
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        await pilot.pause(0.05)  # type: ignore[attr-defined]
    raise AssertionError("timed out")


async def take_screenshots() -> None:
    app = SoftPromptApp()
    app.settings.prompt = EXAMPLE

    def save(name: str) -> None:
        app.save_screenshot(f"{name}.svg", str(FOLDER))

    async with app.run_test(size=(100, 30)) as pilot:
        await wait_until(pilot, lambda: app.worker.state == "up")
        for prompt, name, tags in PROMPTS:
            app.main.prompt_pane.set(prompt, {"tokens": "4", "steps": "200"})
            app.settings.more["name"] = name
            await pilot.press("ctrl+t")
            await wait_until(pilot, partial(_is_done, app, name))
            app.library.tag(name, tags.split())
        app.main.prompt_pane.set(EXAMPLE, {"tokens": "3", "steps": "4000"})
        app.settings.more["name"] = "landscape"
        await pilot.press("ctrl+t")
        for prompt, name, _ in PROMPTS[:2]:
            await app.worker.ask(p.Submit(_queued_job(prompt, name)))
        await wait_until(pilot, lambda: app.main.detail.series.points and app.main.detail.series.points[-1][0] > 210)
        await pilot.press("f2")
        await pilot.pause(0.8)
        save("training")
        await pilot.press("f3")
        await pilot.pause(0.5)
        save("plot")
        await pilot.press("escape", "f6")
        await pilot.pause(0.5)
        save("runs")
        for run_id in [run.id for run in app.runs.by_id.values() if run.state == "queued"]:
            await app.worker.ask(p.Drop(run_id))
        await app.worker.ask(p.Stop(app.main.detail.run))
        await wait_until(pilot, lambda: app.library.list().total == 6)
        await pilot.pause(1)
        await pilot.press("f4", "j")
        await pilot.pause(1)
        save("library")
        await pilot.press("x")
        await wait_until(pilot, lambda: app.main.detail.shown_entry and app.main.detail.shown_entry.prompt.hard)
        await pilot.press("f9")
        await pilot.pause(1)
        save("hard")
        app.main.prompt_pane.set(EXAMPLE, {"steps": "300"})
        await pilot.press("f2", "f7")
        await wait_until(pilot, lambda: isinstance(app.screen, AskKey))  # it takes more than a minute
        await pilot.press("enter")
        await wait_until(pilot, partial(_has_sweep_results, app))
        await pilot.press("j", "j", "j", "j", "space")
        await pilot.pause(1)
        save("sweep")
        await pilot.press("escape", "f4", "e")
        await pilot.pause(0.5)
        save("export")
        await pilot.press("escape", "f1")
        await pilot.pause(0.3)
        save("help")
        await pilot.press("escape", "f5")
        await pilot.press(
            *["left_square_bracket", *"landscape", "right_square_bracket", "space", *"in", "space", *"winter"]
        )
        await pilot.press("tab", *"a", "space", *"frozen", "space", *"lake")
        await pilot.pause(1.5)
        save("compose")
        await pilot.resize_terminal(200, 60)
        await pilot.pause(1)
        save("large")
        await pilot.resize_terminal(100, 30)
        await pilot.resize_terminal(60, 20)
        await pilot.press("f4")
        await pilot.pause(1)
        save("narrow")
        await pilot.resize_terminal(100, 30)
        app.theme = "softprompt-light"
        await pilot.pause(1)
        save("light")


def _is_done(app: SoftPromptApp, name: str) -> bool:
    return any(run.state == "done" and run.name == name for run in app.runs.by_id.values())


def _has_sweep_results(app: SoftPromptApp) -> bool:
    return any(run.kind == "sweep" and run.results for run in app.runs.by_id.values())


def _queued_job(prompt: str, name: str) -> dict[str, object]:
    from softprompt.jobs.job import TrainJob

    return TrainJob(prompt, name=f"{name} again").as_dict()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        os.environ["HOME"] = folder  # the export dialog shows this folder
        embeddings = Path(folder, "ComfyUI", "models", "embeddings")
        embeddings.mkdir(parents=True)
        os.chdir(embeddings)
        home = Home(os.environ.__setitem__)
        try:
            asyncio.run(take_screenshots())
        finally:
            home.close()


if __name__ == "__main__":
    main()
