"""Keys and words: the editor's keys, hints that work, fields that explain themselves, and files found by typing."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.text import Text
from textual.events import Key
from textual.screen import ModalScreen, Screen
from textual.widgets import Input

from softprompt import Library, config
from softprompt.worker.summary import RunSummary
from softprompt_tui import screens
from softprompt_tui.bindings import APP_BINDINGS, MAIN_BINDINGS
from softprompt_tui.rendering.details import entry_facts, run_facts
from softprompt_tui.rendering.measures import measure_names
from softprompt_tui.screens.choice import ChoiceScreen
from softprompt_tui.screens.dialogs import AskKey, AskText
from softprompt_tui.screens.docs import DocsScreen
from softprompt_tui.screens.entry_details import EntryDetailsScreen
from softprompt_tui.screens.export import COLUMNS as EXPORT_COLUMNS
from softprompt_tui.screens.export import FIELDS as EXPORT_FIELDS
from softprompt_tui.screens.export import ExportScreen
from softprompt_tui.screens.file_picker import FilePickerScreen
from softprompt_tui.screens.help import GLOBAL_KEYS, PANE_HELP, HelpScreen
from softprompt_tui.screens.loss_plot import PlotScreen, PlottedCurve
from softprompt_tui.screens.models import WIDE, ModelsScreen
from softprompt_tui.screens.progress import ProgressScreen
from softprompt_tui.screens.sweep import SweepScreen
from softprompt_tui.screens.sweep import _columns as sweep_columns
from softprompt_tui.screens.text_viewer import TextScreen
from softprompt_tui.screens.training_settings import SettingsScreen
from softprompt_tui.screens.words import WordsScreen
from softprompt_tui.services.job_form import job_from_form
from softprompt_tui.services.words import PANE_WORDS, WORDS, find_word
from softprompt_tui.state import fields
from softprompt_tui.state.fields import MORE_FIELDS, PROMPT_FIELDS, settings_of
from softprompt_tui.state.series import Series
from softprompt_tui.state.settings import Settings
from softprompt_tui.widgets.choice_input import ChoiceInput
from softprompt_tui.widgets.field_help import FieldHelp
from softprompt_tui.widgets.key_bar import KeyBar
from softprompt_tui.widgets.library import COLUMNS as LIBRARY_COLUMNS
from softprompt_tui.widgets.line_input import LineInput
from softprompt_tui.widgets.loss import LossFigures, Styles, render_figures
from softprompt_tui.widgets.runs import COLUMNS as RUNS_COLUMNS
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt
from tests.softprompt_tui.test_language_models import a_language_prompt

pytestmark = pytest.mark.usefixtures("runtime")

SCREEN_KEYS = {key for binding in (*MAIN_BINDINGS, *APP_BINDINGS) for key in binding.key.split(",")}  # type: ignore[union-attr]


# typing


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("ctrl+l", "x"), "x"),
        (("ctrl+g",), ""),
        (("ctrl+g", "ctrl+z"), "a red fox"),
        (("ctrl+g", "ctrl+z", "ctrl+y"), ""),
        (("ctrl+left", "ctrl+left", "x"), "a xred fox"),
        (("ctrl+w",), "a red "),
        (("alt+backspace",), "a red "),
        (("ctrl+left", "ctrl+k"), "a red "),
        (("ctrl+left", "ctrl+u"), "fox"),
        (("ctrl+a", "x", "ctrl+e", "y"), "xa red foxy"),
    ],
    ids=" ".join,
)
def test_the_editor_and_a_line_have_the_same_keys(keys: tuple[str, ...], text: str) -> None:
    async def scene(d: Session) -> None:
        pane = d.app.main.prompt_pane
        pane.editor.text = ""
        await d.pilot.press(*"a red fox", *keys)
        assert pane.editor.text == text
        await d.pilot.press("f5", *"a red fox", *keys)
        assert d.app.main.compose_pane.composition == text

    run_scene(scene)


def test_a_word_can_be_skipped_or_deleted_forward() -> None:
    """After a word, the editor stops at its end and a line at the next word."""

    async def scene(d: Session) -> None:
        pane = d.app.main.prompt_pane
        for keys, texts in (
            (("ctrl+right", "x"), ("ax red fox", "a xred fox")),
            (("alt+d", "x"), ("x red fox", "xred fox")),
        ):
            await d.pilot.press(
                "f2", "ctrl+g", *"a red fox", "ctrl+a", *keys, "f5", "ctrl+g", *"a red fox", "ctrl+a", *keys
            )
            assert (pane.editor.text, d.app.main.compose_pane.composition) == texts

    run_scene(scene)


@pytest.mark.parametrize(("letter", "text"), [("d", "a red "), ("z", "a red fox")])
def test_a_letter_with_alt_is_not_typed(letter: str, text: str) -> None:
    """A terminal sends it like the letter, after an escape; Textual's parser keeps the letter in the event."""

    async def scene(d: Session) -> None:
        pane = d.app.main.prompt_pane
        for key, typed in (("f2", lambda: pane.editor.text), ("f5", lambda: d.app.main.compose_pane.composition)):
            await d.pilot.press(key, "ctrl+g", *"a red fox", "ctrl+left")
            event = Key(f"alt+{letter}", letter)
            event.set_sender(d.app)
            d.app._driver.send_message(event)  # type: ignore[union-attr]
            await d.pilot.press("end", "!")
            await d.until(lambda typed=typed: typed().endswith("!"))
            assert typed() == f"{text}!"

    run_scene(scene)


def test_a_word_is_one_step_of_undo() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("f5", *"a red fox")
        line = d.app.main.compose_pane.query_one("#composition", LineInput)
        for expected in ("a red ", "a red", "a ", "a", ""):
            await d.pilot.press("ctrl+z")
            assert line.value == expected
        await d.pilot.press(*["ctrl+y"] * 9)
        assert line.value == "a red fox"

    run_scene(scene)


def test_the_editor_binds_every_key_that_its_help_lists() -> None:
    listed = " ".join(keys for keys, _ in PANE_HELP["prompt"][1])
    keys = re.findall(r"(?:ctrl|alt)\+\w+", listed)
    assert {"ctrl+l", "ctrl+g", "ctrl+z", "ctrl+y", "ctrl+left", "ctrl+w", "alt+d"} <= set(keys)

    async def scene(d: Session) -> None:
        active = d.app.screen.active_bindings
        assert [key for key in keys if key not in active] == []

    run_scene(scene)


def test_no_key_of_the_editor_is_a_key_of_the_screens() -> None:
    async def scene(d: Session) -> None:
        editor = set(d.app.main.prompt_pane.editor._bindings.key_to_bindings)
        assert editor & SCREEN_KEYS == {"ctrl+t", "ctrl+x", "ctrl+c"}  # train; cut, if text is selected; copy

    run_scene(scene)


# hints


def _sweep_run() -> RunSummary:
    return RunSummary("0" * 16, "queued", "a fox", kind="sweep", sweep=(1, 2), created="2026-01-01T00:00:00+00:00")


async def _wait() -> None:
    await asyncio.Event().wait()


def dialogs(d: Session) -> dict[type[Screen[object]], Callable[[], Screen[object]]]:
    """Return how each screen over the main screen is made."""
    return {
        ChoiceScreen: lambda: ChoiceScreen("Which?", ("a", "b"), "not now"),
        AskText: lambda: AskText("Name", "fox"),
        AskKey: lambda: AskKey("Really?", [("r", "replace it"), ("enter", "start it")]),
        EntryDetailsScreen: lambda: EntryDetailsScreen("facts", "", can_assign=True),
        ExportScreen: lambda: ExportScreen("fox", 768, Path.cwd(), False),
        DocsScreen: DocsScreen,
        FilePickerScreen: lambda: FilePickerScreen("Import", Path.cwd()),
        HelpScreen: lambda: HelpScreen("prompt"),
        WordsScreen: lambda: WordsScreen("prompt"),
        PlotScreen: lambda: PlotScreen(PlottedCurve("fox", Series())),
        ModelsScreen: lambda: ModelsScreen(d.app),
        ProgressScreen: lambda: ProgressScreen("reading", _wait()),
        SettingsScreen: lambda: SettingsScreen({}, "text"),
        SweepScreen: lambda: SweepScreen(d.app, _sweep_run(), ""),
        TextScreen: lambda: TextScreen("text"),
    }  # type: ignore[dict-item]


def test_every_hint_of_every_dialog_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each dialog opens once for each of its hints; the key then runs the action that is bound to it."""
    modules = [
        importlib.import_module(f"{screens.__name__}.{found.name}") for found in pkgutil.iter_modules(screens.__path__)
    ]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ModalScreen) and value.__module__ == module.__name__
    }

    async def scene(d: Session) -> None:
        makers = dialogs(d)
        assert set(makers) == classes
        ran: list[str] = []
        run_action = d.app.run_action

        async def record(action: str, *arguments: object, **named: object) -> bool:
            is_handled = await run_action(action, *arguments, **named)  # type: ignore[arg-type]
            if is_handled:
                ran.append(action.removeprefix("app."))
            return is_handled

        monkeypatch.setattr(d.app, "run_action", record)
        for make in makers.values():
            hints = None
            while hints is None or hints:
                screen = make()
                d.app.push_screen(screen)
                await d.until(
                    lambda screen=screen: d.app.screen is screen and any(bar.shown for bar in screen.query(KeyBar))
                )
                await d.pilot.pause()
                if hints is None:
                    hints = [shown.key for shown in screen.query_one(KeyBar).shown]
                    assert hints, screen
                    assert "escape" in hints
                key = hints.pop()
                active = screen.active_bindings[key]
                assert active.enabled, (screen, key)
                ran.clear()
                await d.pilot.press(key)
                assert active.binding.action.removeprefix("app.") in ran, (
                    screen,
                    key,
                    ran,
                )  # the app may bind it first
                while d.app.screen is not d.app.main:
                    d.app.pop_screen()

    run_scene(scene)


def test_a_screen_below_a_dialog_shows_no_keys() -> None:
    async def scene(d: Session) -> None:
        bar = d.app.main.query_one(KeyBar)
        await d.until(lambda: bar.shown)
        for key in ("f8", "f1", "ctrl+o"):
            await d.pilot.press(key)
            await d.until(lambda: not bar.shown and bar.palette is None)
            await d.pilot.press("escape")
            await d.until(lambda: bar.shown)

    run_scene(scene)


def test_a_click_presses_a_key_of_a_dialog() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("f8")
        await d.shows("esc Cancel")
        y, line = next((y, line) for y, line in enumerate(d.text().splitlines()) if "esc Cancel" in line)
        await d.pilot.click(offset=(line.index("esc Cancel"), y))
        await d.until(lambda: d.app.screen is d.app.main)

    run_scene(scene)


def test_every_key_of_the_main_screen_is_in_the_help() -> None:
    listed = " ".join(keys.lower() for keys, _ in GLOBAL_KEYS).replace("?", "question_mark").split()
    assert SCREEN_KEYS - {*listed} == {"shift+tab", "ctrl+c"}


# fields


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_field_explains_itself_when_it_is_focused(width: int) -> None:
    async def scene(d: Session) -> None:
        for name, field in PROMPT_FIELDS.items():
            line = d.app.main.prompt_pane.query_one(f"#field-{name}", Input)
            before = d.app.main.prompt_pane.region
            d.app.screen.set_focus(line)
            await d.shows(f"{field.label}: ", *field.explain(line.value).split(" ")[:3])
            pane, explanation = d.app.main.prompt_pane, d.app.main.query_one("#field-help", FieldHelp)
            assert pane.region == before or width < 72  # there, the focused pane is larger
            assert explanation.region in pane.content_region  # it hides nothing of another pane
            words = str(explanation.render())
            assert len(explanation.render_lines(explanation.region.reset_offset)) * explanation.size.width >= len(words)
            assert pane.editor.size.height >= 1
        await d.pilot.press("f8")
        await d.until(lambda: isinstance(d.app.screen, SettingsScreen))
        explanation = d.app.screen.query_one(FieldHelp)
        for name, field in settings_of("text").items():
            line = d.app.screen.query_one(f"#more-{name}", Input)
            await d.until(lambda line=line: d.app.focused is line)
            label, words = f"{field.label}: ", field.explain(line.value)
            await d.until(lambda label=label: str(explanation.render()).startswith(label))
            assert str(explanation.render()).endswith(words)
            assert len(explanation.render_lines(explanation.region.reset_offset)) == 2
            await d.pilot.press("tab")

    run_scene(scene, width, 40)


def test_the_fields_have_the_limits_of_the_engine() -> None:
    assert (fields.MAX_STEPS, fields.MAX_RESTARTS) == (config.MAX_STEPS, config.MAX_RESTARTS)
    assert (fields.MAX_HARD_TOKENS, fields.MAX_SWEPT_COUNTS) == (config.MAX_HARD_TOKENS, config.MAX_SWEPT_COUNTS)
    assert config.TrainConfig.rate == fields.DEFAULT_RATE


def test_the_interface_begins_with_the_defaults_of_the_engine_and_the_commands() -> None:
    typed, default = Settings().train, config.TrainConfig()
    assert (typed["tokens"], typed["steps"], typed["stop_at"]) == (str(default.tokens), str(default.steps), "")
    assert (default.stop_at, typed["contexts"]) == (None, "yes")
    for kind in ("text", "causal"):
        default, shown = config.config_for(kind, {}), settings_of(kind)
        assert (float(shown["rate"].default), shown["init"].default) == (default.rate, default.init)
        assert (int(shown["restarts"].default), int(shown["seed"].default)) == (default.restarts, default.seed)
        assert fields.KIND_DEFAULTS[kind]["tokens"] == str(default.tokens)
        assert fields.KIND_DEFAULTS[kind]["steps"] == str(default.steps)


def test_an_explanation_says_what_is_allowed_and_the_default() -> None:
    for table in (PROMPT_FIELDS, MORE_FIELDS, EXPORT_FIELDS):
        for name, field in table.items():
            values = list(field.choices) or [""]
            for value in values:
                text = field.explain(value)
                assert len(f"{field.label}: {text}") <= 78, (name, text)
                assert field.choices or field.allowed, name
                assert not field.default or text.endswith(f"; default {field.default}"), name
            assert not field.choices or field.default in field.choices


def test_a_choice_cannot_be_mistyped() -> None:
    chosen = [(name, field) for name, field in settings_of("text").items() if field.choices]
    names = {"init", "objective", "family", "norms", "plain", "long", "precision", "hard", "words"}
    assert dict(chosen).keys() == names

    async def scene(d: Session) -> None:
        await d.pilot.press("f8")
        await d.until(lambda: isinstance(d.app.screen, SettingsScreen))
        for name, field in chosen:
            values = list(field.choices)
            line = d.app.screen.query_one(f"#more-{name}", ChoiceInput)
            d.app.screen.set_focus(line)
            for key, step in (("right", 1), ("left", -1), ("space", 1), ("up", -1), ("down", 1)):
                if field.other and values.index(line.value) + step in (-1, len(values)):
                    continue
                expected = values[(values.index(line.value) + step) % len(values)]
                await d.pilot.press(key)
                assert line.value == expected
            for value in values:
                await d.pilot.press(value[0])
                assert line.value[0] == value[0]
            if not field.other:
                await d.pilot.press("backspace", "delete", "ctrl+w", "ctrl+u", "ctrl+g", *"9!_")
                assert line.value in values
        await d.pilot.press("enter")

    run_scene(scene)


def test_contexts_and_hard_also_take_a_text() -> None:
    async def scene(d: Session) -> None:
        line = d.app.main.prompt_pane.query_one("#field-contexts", ChoiceInput)
        d.app.screen.set_focus(line)
        await d.pilot.press("right", "right", *"a {} at night")
        assert d.app.main.prompt_pane.fields["contexts"] == "a {} at night"
        await d.pilot.press("left", "x")
        assert line.value == "a {} at nighxt"
        await d.pilot.press("down")
        assert line.value == "yes"
        await d.pilot.press("o", "tab")  # no text: the default again
        assert line.value == "yes"
        await d.pilot.press("f8")
        hard = d.app.screen.query_one("#more-hard", ChoiceInput)
        d.app.screen.set_focus(hard)
        await d.pilot.press("8", "enter")
        await d.until(lambda: d.app.settings.more == {"hard": "8"})

    run_scene(scene)


def test_the_settings_are_those_of_the_chosen_model_with_its_defaults() -> None:
    async def scene(d: Session) -> None:
        d.app.settings.more = {"family": "sdxl", "seed": "3"}
        d.app.main.prompt_pane.set_field("model", "smollm2")
        await d.pilot.press("f8")
        await d.shows("of a language model", "rate      0.3", "init      first", "placement system")
        assert "family" not in d.text()
        d.app.screen.set_focus(d.app.screen.query_one("#more-init", ChoiceInput))
        await d.pilot.press("n", "enter")  # noise, the default of text encoders only
        await d.until(lambda: d.app.settings.more == {"family": "sdxl", "seed": "3", "init": "noise"})
        await d.shows("F8 2 set")  # the family of image programs waits for a text encoder
        config = job_from_form(d.app.main.form, d.app.settings.more).config
        assert (config.init, config.seed, config.family, config.rate) == ("noise", 3, "sd1", 0.3)

    run_scene(scene, 100, 40)


# words


def shown_labels() -> dict[str, set[str]]:
    """Return the labels that each pane can show."""
    figures = render_figures(LossFigures(3, 300, 0.1, 0.9, 0.9, 0.8, 9.0, is_running=True), (3, 0.1), 200, Styles())
    search = render_figures(LossFigures(3, 300, is_running=True, is_search=True), None, 200, Styles())
    answering = LossFigures(3, 160, 0.1, 0.9, 0.9, None, 9.0, objective="distill", kl_share=0.3)
    answers = render_figures(answering, (3, 0.1), 200, Styles())
    run = _sweep_run()
    prompts = (a_prompt(name="fox"), a_language_prompt())
    entries = [Library().open(Library().save(prompt).id) for prompt in prompts]
    rows = [row for entry in entries for row in entry_facts(entry).rows] + [*run_facts(run).rows]
    return {
        "library": {column.title for column in LIBRARY_COLUMNS},
        "runs": {column.title for column in RUNS_COLUMNS},
        "sweep": {column.title for objective in ("", "distill") for column in sweep_columns(objective)},
        "models": {column.title for column in WIDE},
        "export": {column.title for column in EXPORT_COLUMNS if column.title != "for"},
        "loss": {*dim_words(figures), *dim_words(search), *dim_words(answers), *measure_names("examples")},
        "detail": {label for label, _ in rows},
    }


def dim_words(text: Text) -> set[str]:
    words = {text.plain[span.start : span.end].strip() for span in text.spans if span.style == "dim"}
    return {word for word in words if word.isalpha()}  # not the rest of the bar


def test_every_label_of_a_pane_is_explained() -> None:
    unexplained = {
        (pane, label)
        for pane, labels in shown_labels().items()
        for label in (label.strip() for label in labels)
        if label and find_word(label) is None
    }
    assert unexplained == set()
    assert [label for labels in PANE_WORDS.values() for label in labels if find_word(label) is None] == []
    for label in ("soft", "as text", "hard", "knee", "floor", "fidelity", "worst", "readout"):
        assert find_word(label)
    spellings = [label for word in WORDS for label in word.labels]
    assert len(spellings) == len(set(spellings))
    assert all(word.meaning.count(". ") <= 1 and word.meaning.endswith(".") for word in WORDS)


@pytest.mark.parametrize(
    ("keys", "first"),
    [(("f4",), "name"), (("f6",), "state"), (("f9",), "readout"), (("tab",), "soft prompt")],
)
def test_a_question_mark_explains_the_words_of_the_focused_pane_first(keys: tuple[str, ...], first: str) -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press(*keys)
        if isinstance(d.app.focused, Input):
            d.app.screen.set_focus(d.app.main.prompt_pane.query_one("#field-contexts"))  # a choice is no text field
        await d.pilot.press("question_mark")
        await d.until(lambda: isinstance(d.app.screen, WordsScreen))
        await d.until(lambda: len(d.text().splitlines()) == 24 and first in "".join(d.text().splitlines()[2:7]))
        await d.pilot.press("question_mark")
        await d.until(lambda: d.app.screen is d.app.main)

    run_scene(scene)


def test_a_question_mark_is_a_letter_in_a_text_field_and_no_hint_there() -> None:
    async def scene(d: Session) -> None:
        bar = d.app.main.query_one(KeyBar)
        await d.until(lambda: bar.shown)
        await d.pilot.press("?")
        assert d.app.main.prompt_pane.prompt.endswith("?")
        assert "Words" not in [shown.description for shown in bar.shown]
        await d.pilot.press("f4")
        await d.until(lambda: "Words" in [shown.description for shown in bar.shown])

    run_scene(scene)


# files


def test_files_are_filtered_by_type_and_by_typing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("night style.npy", "Fox.pt", "model.pth.tar-50", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "foxes").mkdir()
    monkeypatch.chdir(tmp_path)

    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "f")
        await d.shows("Fox.pt", "foxes/", "model.pth.tar-50", "night style.npy", "files to import: 3 of 4")
        assert "notes.txt" not in d.text()
        await d.pilot.press("ctrl+a")
        await d.shows("notes.txt", "Only files to import")
        await d.pilot.press(*"FOX")
        await d.shows("all files with 'FOX': 2", "Fox.pt", "foxes/", "Show all names")
        assert "notes.txt" not in d.text()
        await d.pilot.press("backspace", "backspace", "backspace")
        await d.shows("notes.txt")
        await d.pilot.press(*"nightst")
        await d.shows("night style.npy", "'nightst': 1")
        await d.pilot.press("escape")
        await d.shows("notes.txt")
        assert isinstance(d.app.screen, FilePickerScreen)
        await d.pilot.press(*f"{tmp_path}/foxes", "enter")
        await d.until(lambda: d.app.screen.query_one("#folder").folder == tmp_path / "foxes")  # type: ignore[attr-defined]
        await d.pilot.press("escape")
        await d.until(lambda: d.app.screen is d.app.main)

    run_scene(scene)
