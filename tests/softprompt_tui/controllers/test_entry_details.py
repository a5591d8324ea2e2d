"""The details of an entry (`i`) offer what can be done with its model: `port` and `assign`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from softprompt import Library
from softprompt.worker import protocol as p
from softprompt_tui.screens.choice import ChoiceScreen
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("runtime")


def an_import(**changes: Any) -> None:
    """Save a soft prompt as an import creates it, without a model."""
    empty = np.zeros(0, np.float32)
    prompt = a_prompt(
        name="found", model="", model_fingerprint="", target=empty, losses=empty, similarity=None, loss=None, steps=0,
        composition=None, readout=(), readout_text="", readout_similarity=None, config={},
        vectors=np.ones((2, 256), np.float32), source={"file": "found.pt"},
    )  # fmt: skip
    Library().save(replace(prompt, **changes))


def test_an_entry_can_be_trained_again_for_another_model() -> None:
    Library().save(
        a_prompt(
            name="fox", hard_prompt="a red fox", model="ViT-B-32/other", config={"tokens": 2, "steps": 40, "seed": 7}
        )
    )

    async def scene(d: Session) -> None:
        await d.shows("worker ready", "fox")
        await d.pilot.press("f4", "i")
        await d.shows("p Train again for another model")
        await d.pilot.press("p")
        await d.shows("enter trains the soft prompt for this model", "mini", "built in")
        await d.pilot.press("enter")
        await d.until(lambda: any(isinstance(request, p.Submit) for request in d.worker.requests))
        job = next(iter(d.worker.runs.values())).job
        assert (job.prompt, job.model, job.name) == ("a red fox", "mini", "fox-2")
        assert (job.config.tokens, job.config.steps, job.config.seed) == (2, 40, 7)
        assert [(ancestor.relation, ancestor.name) for ancestor in job.ancestry] == [("ported", "fox")]
        assert d.app.main.form.fields["model"] == "mini"

    run_scene(scene, 120, 40)


def test_the_model_of_an_imported_entry_can_be_assigned() -> None:
    an_import()

    async def scene(d: Session) -> None:
        await d.shows("worker ready", "found")
        await d.pilot.press("f4", "i")
        await d.shows("a Say which model it belongs to")
        await d.pilot.press("a")
        await d.until(lambda: isinstance(d.app.screen, ChoiceScreen))
        await d.shows("does not name the text encoder", "width 256:", "mini")
        await d.pilot.press("enter")
        await d.until(lambda: Library().open("found").prompt.model == "mini")
        await d.shows("model of found: mini")

    run_scene(scene, 120, 40)


def test_only_what_works_is_offered() -> None:
    an_import(hard_prompt="", model="mini", model_fingerprint="abc")

    async def scene(d: Session) -> None:
        await d.shows("worker ready", "found")
        await d.pilot.press("f4", "i")
        await d.shows("no port: its hard prompt is unknown; H in the library sets it")
        assert "assign" not in d.text()
        await d.pilot.press("p", "a")
        await d.shows("no port")
        await d.pilot.press("escape")
        await d.until(lambda: "no port" not in d.text())

    run_scene(scene, 120, 40)
