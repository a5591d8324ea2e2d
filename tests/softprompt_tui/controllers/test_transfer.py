"""Import and export in the interface: the dialogs, and the real commands behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from textual.widgets import Input, Static

from softprompt import Library
from softprompt.formats.readers.sandbox import read_soft_prompts
from softprompt_tui.screens.choice import ChoiceScreen
from softprompt_tui.screens.dialogs import AskText
from softprompt_tui.screens.export import ExportScreen
from softprompt_tui.screens.file_picker import FilePickerScreen
from softprompt_tui.screens.text_viewer import TextScreen
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("runtime")
VECTORS = np.arange(768, dtype=np.float32).reshape(3, 256) / 768


def test_a_file_is_picked_imported_and_assigned_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there" / "deeper").mkdir(parents=True)
    np.save(tmp_path / "there" / "night style.npy", VECTORS)
    monkeypatch.chdir(tmp_path)

    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "f")
        await d.shows("Import soft prompts", "there/")
        await d.until(lambda: d.app.screen.query_one("#folder").has_focus)
        await d.pilot.press("end", "enter")
        await d.shows("deeper/", "night style.npy", "3.2 kB")
        await d.pilot.press("end", "enter")
        await d.until(lambda: isinstance(d.app.screen, TextScreen))
        await d.shows("night style", "3 of width 256", "unknown")
        await d.pilot.press("escape")
        await d.until(lambda: isinstance(d.app.screen, ChoiceScreen))
        await d.shows("does not name the text encoder", "width 256:", "mini")
        await d.pilot.press("enter")
        await d.until(lambda: Library().list().entries[0].model == "mini")
        await d.shows("model of night style: mini")

    run_scene(scene)
    prompt = Library().open("night style").prompt
    assert (prompt.vectors == VECTORS).all()
    assert prompt.readout
    assert prompt.similarity is None


def test_an_imported_soft_prompt_can_get_a_hard_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = np.empty(0, np.float32)
    unknown = a_prompt(
        name="stranger", vectors=VECTORS, hard_prompt="", model="", model_fingerprint="", target=empty, losses=empty,
        similarities=empty, similarity=None, composition=None, loss=None, steps=0, readout=(), readout_text="",
        readout_similarity=None, config={}, device="", source={"file": "x.pt"},
    )  # fmt: skip
    Library().save(unknown)
    monkeypatch.chdir(tmp_path)

    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "H")
        await d.until(lambda: isinstance(d.app.screen, AskText))
        await d.shows("The hard prompt of stranger")
        await d.pilot.press("enter")
        await d.shows("the prompt is empty")
        await d.pilot.press(*"a fox", "enter")
        await d.until(lambda: Library().open("stranger").prompt.hard_prompt == "a fox")
        await d.shows("hard prompt of stranger: a fox")

    run_scene(scene)
    assert Library().open("stranger").prompt.similarity is None


def test_an_unreadable_file_gives_an_error_and_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "\x1b[31m[b]odd\u202e.pt").write_bytes(b"no soft prompt")
    monkeypatch.chdir(tmp_path)

    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "f")
        await d.shows("␛[31m[b]odd\\u202e.pt")
        await d.until(lambda: d.app.screen.query_one("#folder").has_focus)
        await d.pilot.press("end", "enter")
        await d.shows("cannot read")
        assert "\x1b" not in d.text()

    run_scene(scene)
    assert Library().list().total == 0


def test_an_export_replaces_a_file_only_after_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Library().save(a_prompt(name="fox", vectors=VECTORS))
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    written = tmp_path / "out" / "fox.safetensors"

    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "e")
        await d.until(lambda: isinstance(d.app.screen, ExportScreen))
        await d.shows("Export fox", "fits any width", "needs width 768")
        await d.pilot.press("ctrl+f")
        await d.until(lambda: isinstance(d.app.screen, FilePickerScreen))
        await d.shows("out/")
        await d.until(lambda: d.app.screen.query_one("#folder").has_focus)
        await d.pilot.press("end", "enter")
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
        await d.shows("already exists", "Replace it")
        assert written.read_bytes() == b"something else"
        await d.pilot.press("r")
        await d.until(lambda: isinstance(d.app.screen, TextScreen))
        assert (read_soft_prompts(written).vectors[""] == VECTORS).all()
        assert d.app.settings.folder == str(tmp_path / "out")

    run_scene(scene)


def test_a_refused_export_keeps_its_dialog_with_what_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Library().save(a_prompt(name="fox", vectors=VECTORS))
    monkeypatch.chdir(tmp_path)

    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "e")
        await d.until(lambda: isinstance(d.app.screen, ExportScreen))
        before, row = d.app.screen, d.app.screen.query_one("#programs").cursor  # type: ignore[attr-defined]
        d.app.screen.query_one("#out", Input).value = str(tmp_path / "nowhere" / "deep" / "fox.safetensors")
        d.app.screen.query_one("#other", Input).value = "nobody"
        await d.pilot.press("ctrl+s")
        await d.until(lambda: isinstance(d.app.screen, ExportScreen) and d.app.screen is not before)
        assert str(d.app.screen.query_one("#trouble", Static).render())
        assert d.app.screen.query_one("#out", Input).value.endswith("deep/fox.safetensors")
        assert d.app.screen.query_one("#other", Input).value == "nobody"
        assert d.app.screen.query_one("#programs").cursor == row  # type: ignore[attr-defined]
        d.app.screen.query_one("#out", Input).value = str(tmp_path)
        d.app.screen.query_one("#other", Input).value = ""
        await d.pilot.press("ctrl+s")
        await d.until(lambda: isinstance(d.app.screen, TextScreen))

    run_scene(scene, 120, 40)
    assert list(tmp_path.glob("fox*"))
