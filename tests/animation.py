"""Draw the README's moving picture from a real training: `python -m tests.animation [--frames FOLDER]`.

It needs `rsvg-convert` (the package librsvg2-bin) and the font DejaVu Sans Mono. `--frames` also writes every frame as
a picture of its own, to look at them one by one.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import re
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from softprompt_tui.app import SoftPromptApp
from tests.screenshots import EXAMPLE, FOLDER, wait_until
from tests.worker_process import Home

FILE = FOLDER / "training.gif"
SIZE, WIDTH_PIXELS, COLORS = (100, 30), 900, 128
STEPS, STEPS_PER_FRAME, MAX_BYTES = 300, 8, 2_000_000
FRAME_MS, FIRST_MS, LAST_MS = 140, 1200, 4000
POLL_SECONDS = 0.05
FONT, FONT_PIXELS = "DejaVu Sans Mono", 20.27  # at this size its letters are as wide as rich's picture expects


async def record() -> list[str]:
    """Train the example in the interface. Return an SVG of the screen before, every few steps, and at the end."""
    app = SoftPromptApp()
    app.settings.prompt = EXAMPLE
    async with app.run_test(size=SIZE) as pilot:
        await wait_until(pilot, lambda: app.worker.state == "up")
        app.main.prompt_pane.set(EXAMPLE, {"tokens": "3", "steps": str(STEPS)})
        app.settings.more["name"] = "landscape"
        await pilot.pause(1)
        frames = [app.export_screenshot()]
        await pilot.press("ctrl+t")
        drawn = 0
        while not any(run.state == "done" for run in app.runs.by_id.values()):
            points = app.main.detail.series.points
            if points and points[-1][0] >= drawn + STEPS_PER_FRAME:
                drawn = points[-1][0]
                frames.append(app.export_screenshot())
            await pilot.pause(POLL_SECONDS)
        await wait_until(pilot, lambda: app.library.list().total)
        await pilot.pause(1)
        return [*frames, app.export_screenshot()]


def rasterize(svg: str) -> Image.Image:
    """Draw an SVG. rsvg-convert ignores the lengths of texts, so the font gets the width that they assume."""
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: Fira Code[^;]*;", f"font-family: {FONT};", svg)
    svg = svg.replace("font-size: 20px", f"font-size: {FONT_PIXELS}px")
    command = ["rsvg-convert", "--width", str(WIDTH_PIXELS), "--keep-aspect-ratio"]
    done = subprocess.run(command, input=svg.encode(), capture_output=True, check=True)
    return Image.open(io.BytesIO(done.stdout)).convert("RGB")


def write_gif(frames: list[Image.Image], path: Path) -> None:
    """Write the frames as a GIF that repeats, in one palette, so that still parts cost nothing."""
    palette = frames[len(frames) // 2].quantize(COLORS, dither=Image.Dither.NONE)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [FIRST_MS, *[FRAME_MS] * (len(frames) - 2), LAST_MS]
    indexed[0].save(path, save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])  # type: ignore[union-attr]
    parser.add_argument("--frames", type=Path, help="also write every frame into this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        home = Home(os.environ.__setitem__)
        try:
            frames = [rasterize(svg) for svg in asyncio.run(record())]
        finally:
            home.close()
    write_gif(frames, FILE)
    size = FILE.stat().st_size
    print(f"{FILE}: {len(frames)} frames, {size / 1e6:.2f} MB")
    assert size < MAX_BYTES
    if arguments.frames:
        arguments.frames.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(frames):
            frame.save(arguments.frames / f"{number:03}.png")


if __name__ == "__main__":
    main()
