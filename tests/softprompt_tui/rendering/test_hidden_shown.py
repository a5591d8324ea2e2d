"""Hidden-state similarity where people meet it: command line, details, the dialog of settings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from softprompt import Library
from softprompt.errors import ConfigError
from softprompt_tui.rendering.details import in_full
from softprompt_tui.screens.training_settings import MORE
from softprompt_tui.services.job_form import job_from_form, variation_of
from softprompt_tui.state.settings import Form
from tests.conftest import FOX
from tests.library_model import a_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]
STAND_IN = {"sd1": 0.9123, "sd2": 0.8, "sdxl": 0.75, "flux": -0.01}
FIELDS = {"tokens": "3", "steps": "9", "stop_at": "", "model": "mini", "device": "cpu", "contexts": "no"}


def test_the_command_line_trains_towards_it_and_shows_it(run: Run) -> None:
    done = run("train", FOX, "-k", "2", "--steps", "5", "--no-contexts", "--objective", "mixed", "--family", "sdxl",
               "--hidden-share", ".4", "--json")  # fmt: skip
    made = json.loads(done.stdout)
    asked = {key: made["config"][key] for key in ("objective", "family", "hidden_share")}
    assert asked == {"objective": "mixed", "family": "sdxl", "hidden_share": 0.4}
    assert set(made["hidden"]) == {"sd1", "sd2", "sdxl", "flux"}
    shown = run("show", made["name"]).stdout.splitlines()
    (at,) = [i for i, line in enumerate(shown) if line.startswith("hidden-state ")]
    assert shown[at] == "hidden-state similarity " + ", ".join(
        f"{made['hidden'][one]:.4f} {one}" for one in ("sd1", "sd2", "sdxl", "flux")
    )
    assert shown[at + 1].strip() == "(mini stands in for the encoders that these read)"
    assert max(map(len, shown[at : at + 2])) <= 80
    assert [line.split()[:2] for line in shown if line.startswith("similarity ")] == [
        ["similarity", f"{made['similarity']:.4f}"]
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--family", "sd2"], "only hidden and mixed train for one; --objective mixed"),
        (["--objective", "hidden", "--hidden-share", ".2"], "only the mixed objective uses it"),
        (["--objective", "mixed", "--hidden-share", "7"], "it must be over 0 and at most 1"),
        (["--objective", "mixed", "--family", "sd9"], "'sd9' is not one of 'sd1', 'sd2', 'sdxl', 'flux'"),
    ],
)
def test_what_cannot_work_is_bad_input(run: Run, args: list[str], said: str) -> None:
    done = run("train", FOX, *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_prompt_in_pieces_is_refused_before_it_is_trained(run: Run) -> None:
    done = run("train", " ".join([FOX] * 8), "--long", "chunk", "--objective", "hidden", "-k", "2")
    assert done.returncode == 2
    assert "have no one sequence of hidden states" in done.stderr


def test_details_say_on_what_it_was_measured() -> None:
    saved = Library().save(a_prompt(name="fox", hidden=STAND_IN))
    rows = in_full(saved).rows
    at = rows.index(("hidden-state", "similarity 0.9123 sd1, 0.8000 sd2, 0.7500 sdxl, -0.0100 flux"))
    assert rows[at + 1] == ("", "(mini stands in for the encoders that these read)")
    real = replace(
        saved,
        prompt=replace(saved.prompt, model="ViT-L-14-quickgelu/openai", hidden={"sd1": 0.9, "flux": 0.7, "sdxl": 0.8}),
    )
    assert ("hidden-state", "similarity 0.9000 sd1, 0.8000 sdxl, 0.7000 flux") in in_full(real).rows
    unknown = replace(saved, prompt=replace(saved.prompt, hidden={}))
    for entry in (real, unknown):
        assert not any("stands in" in value for _, value in in_full(entry).rows)
    assert "hidden-state" not in dict(in_full(unknown).rows)


def test_the_dialogs_fields_reach_the_training_and_come_back() -> None:
    assert {"family", "share"} < set(MORE)
    typed = {"objective": "mixed", "family": "sd2", "share": ".25"}
    config = job_from_form(Form(FOX, FIELDS), typed).config
    assert (config.objective, config.family, config.hidden_share) == ("mixed", "sd2", 0.25)
    _, more = variation_of(a_prompt(config=config.as_dict(), device="cpu, float32"))
    assert {key: more[key] for key in typed} == {**typed, "share": "0.25"}
    with pytest.raises(ConfigError, match="share is 'half': a number"):
        job_from_form(Form(FOX, FIELDS), {"objective": "mixed", "share": "half"})
