"""Language models in the interface: their defaults, the three answers, and what is called what."""

from __future__ import annotations

import numpy as np
import pytest
from textual.widgets import Input

from softprompt import Library
from softprompt.config import config_for
from softprompt.prompts.results import AnswerFidelity, AnswerSample, AnswerScore
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt_tui.state.fields import KIND_DEFAULTS
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("runtime")


def a_language_prompt() -> SoftPrompt:
    samples = tuple(
        AnswerSample(f"Who are {i}?", f"Arr, the soft {i}.", f"Arr, the hard {i}.", f"A plain {i}.") for i in range(3)
    )
    floors = {"no prompt": AnswerScore(0.8, 0.5), "first tokens": AnswerScore(0.4, 0.6)}
    return a_prompt(
        name="pirate", hard_prompt="You are a pirate.", model="smollm2", composition=None, readout_similarity=None,
        similarity=0.82, loss=0.1, target=np.empty(0, np.float32), config=config_for("causal", {}).as_dict(),
        answers=AnswerFidelity("system", "abc", 24, AnswerScore(0.1, 0.82), floors, samples),
    )  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_an_entry_shows_answers_instead_of_similarities(width: int, height: int) -> None:
    Library().save(a_language_prompt())

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.shows("question  Who are 0?", "soft      Arr, the soft 0.", "hard      Arr, the hard 0.")
        await d.shows("none      A plain 0.", "agreement")
        assert "as text" not in d.text()
        await d.pilot.press("i")
        await d.shows("KL", ".25", "held-out questions", "in place of the system text")

    run_scene(scene, width, height)


def test_a_pane_of_one_line_shows_an_answer() -> None:
    Library().save(a_language_prompt())

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.shows("soft      Arr, the soft 0.")
        await d.pilot.press("f9")  # the pane grows
        await d.shows("question  Who are 0?", "none      A plain 0.")

    run_scene(scene, 60, 20)


def test_no_key_offers_a_hard_readout() -> None:
    Library().save(a_language_prompt())
    Library().save(a_prompt(name="fox"))

    async def scene(d: Session) -> None:
        await d.pilot.press("f4", "f9")
        await d.shows("soft    0.99", "x hard readout", "x Hard readout")
        await d.pilot.press("f4", "down", "f9")
        await d.shows("Arr, the soft 0.")
        assert "hard readout" not in d.text().lower()
        d.app.main.action_harden()  # as from the palette
        await d.shows("cannot search for", "language model")

    run_scene(scene)


def test_the_model_brings_its_own_defaults_and_leaves_what_was_typed() -> None:
    async def scene(d: Session) -> None:
        pane = d.app.main.prompt_pane
        pane.set_field("model", "smollm2")
        assert (pane.fields["tokens"], pane.fields["steps"]) == ("16", "160")
        d.app.screen.set_focus(d.app.main.query_one("#field-steps", Input))
        await d.until(lambda: "default 160" in " ".join(d.text().split()))
        pane.set_field("steps", "99")
        d.app.screen.set_focus(d.app.main.query_one("#field-model", Input))
        await d.pilot.press("ctrl+u", *"mini", "enter")
        await d.until(lambda: pane.fields["tokens"] == "3")
        assert pane.fields["steps"] == "99"

    run_scene(scene)


def test_the_defaults_of_the_fields_are_those_of_the_engine() -> None:
    for kind, defaults in KIND_DEFAULTS.items():
        config = config_for(kind, {})  # type: ignore[arg-type]
        contexts = "yes" if config.contexts else "no"
        assert defaults == {"tokens": f"{config.tokens}", "steps": f"{config.steps}", "contexts": contexts}


def test_export_offers_the_programs_that_read_language_models() -> None:
    Library().save(a_language_prompt())

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.shows("pirate")
        await d.pilot.press("e")
        await d.shows("transformers", "vllm", "peft-tokens", "loads the model first", "question")
        assert "comfyui" not in d.text()

    run_scene(scene)
