"""Files in and out through the interface: the dialogs, and the real commands behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softprompt import Library
from softprompt.formats.readers.sandbox import read
from softprompt_tui.screens.choice import PickScreen
from softprompt_tui.screens.dialogs import AskText
from softprompt_tui.screens.export import ExportScreen
from softprompt_tui.screens.file_picker import FilesScreen
from softprompt_tui.screens.text_viewer import TextScreen
from tests.app_harness import Desk, runtime, works  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("runtime")
VECTORS = np.arange(768, dtype=np.float32).reshape(3, 256) / 768


def test_a_file_is_found_imported_and_given_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there" / "deeper").mkdir(parents=True)
    np.save(tmp_path / "there" / "night style.npy", VECTORS)
    monkeypatch.chdir(tmp_path)

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4", "f")
        await d.shows("Import soft prompts", "there/")
        await d.until(lambda: d.app.screen.query_one("#folder").has_focus)
        await d.pilot.press("G", "enter")
        await d.shows("deeper/", "night style.npy", "3.2 kB")
        await d.pilot.press("G", "enter")
        await d.until(lambda: isinstance(d.app.screen, TextScreen))
        await d.shows("night style", "3 of width 256", "unknown")
        await d.pilot.press("escape")
        await d.until(lambda: isinstance(d.app.screen, PickScreen))
        await d.shows("which text encoder", "width 256 there are", "mini")
        await d.pilot.press("enter")
        await d.until(lambda: Library().list().entries[0].model == "mini")
        await d.shows("of mini")

    works(scene)
    made = Library().open("night style").prompt
    assert (made.vectors == VECTORS).all()
    assert made.readout
    assert made.similarity is None


def test_an_imported_one_is_told_its_hard_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.empty(0, np.float32)
    unknown = a_prompt(
        name="stranger", vectors=VECTORS, hard_prompt="", model="", model_fingerprint="", target=nothing, losses=nothing, similarities=nothing,
        similarity=None, composition=None, loss=None, steps=0, readout=(), readout_text="", readout_similarity=None, config={}, device="",
        source={"file": "x.pt"},
    )  # fmt: skip
    Library().save(unknown)
    monkeypatch.chdir(tmp_path)

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4", "H")
        await d.until(lambda: isinstance(d.app.screen, AskText))
        await d.shows("The hard prompt that stranger stands for")
        await d.pilot.press(*"a fox", "enter")
        await d.until(lambda: Library().open("stranger").prompt.hard_prompt == "a fox")
        await d.shows("stands for a fox")

    works(scene)
    assert Library().open("stranger").prompt.similarity is None


def test_what_cannot_be_read_is_said_and_nothing_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "\x1b[31m[b]odd\u202e.pt").write_bytes(b"no soft prompt")
    monkeypatch.chdir(tmp_path)

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4", "f")
        await d.shows("␛[31m[b]odd\\u202e.pt")
        await d.until(lambda: d.app.screen.query_one("#folder").has_focus)
        await d.pilot.press("G", "enter")
        await d.shows("is not read")
        assert "\x1b" not in d.text()

    works(scene)
    assert Library().list().total == 0


def test_an_export_is_written_to_the_folder_and_replaced_when_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Library().save(a_prompt(name="fox", vectors=VECTORS))
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    written = tmp_path / "out" / "fox.safetensors"

    async def scene(d: Desk) -> None:
        await d.pilot.press("f4", "e")
        await d.until(lambda: isinstance(d.app.screen, ExportScreen))
        await d.shows("Export fox", "fits: vectors of any width", "needs width 768")
        await d.pilot.press("ctrl+f")
        await d.until(lambda: isinstance(d.app.screen, FilesScreen))
        await d.shows("out/")
        await d.until(lambda: d.app.screen.query_one("#folder").has_focus)
        await d.pilot.press("G", "enter")
        await d.until(lambda: d.app.screen.query_one("#folder").folder == tmp_path / "out")  # type: ignore[attr-defined]
        await d.pilot.press("ctrl+s")
        await d.until(lambda: isinstance(d.app.screen, ExportScreen))
        await d.pilot.press("enter")
        await d.until(lambda: isinstance(d.app.screen, TextScreen))
        await d.shows("fox.safetensors")
        written.write_bytes(b"something else")
        await d.pilot.press("escape", "e")
        await d.until(lambda: isinstance(d.app.screen, ExportScreen))
        await d.pilot.press("ctrl+s")
        await d.shows("is there already", "replace it")
        assert written.read_bytes() == b"something else"
        await d.pilot.press("r")
        await d.until(lambda: isinstance(d.app.screen, TextScreen))
        assert (read(written).vectors[""] == VECTORS).all()
        assert d.app.settings.folder == str(tmp_path / "out")

    works(scene)
