"""Hidden-state similarity in the command line, the details and the settings dialog."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from softprompt import Library
from softprompt.errors import ConfigError
from softprompt_tui.rendering.details import entry_facts
from softprompt_tui.services.job_form import job_from_form, variation_fields
from softprompt_tui.state.fields import MORE_FIELDS
from softprompt_tui.state.settings import Form
from tests.conftest import FOX
from tests.library_model import a_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]
SIMILARITIES = {"sd1": 0.9123, "sd2": 0.8, "sdxl": 0.75, "flux": -0.01}
FIELDS = {"tokens": "3", "steps": "9", "stop_at": "", "model": "mini", "device": "cpu", "contexts": "no"}


def test_command_line_trains_and_shows_it(run: Run) -> None:
    result = run("train", FOX, "-k", "2", "--steps", "5", "--no-contexts", "--objective", "mixed", "--family", "sdxl",
               "--hidden-share", ".4", "--json")  # fmt: skip
    entry = json.loads(result.stdout)
    settings = {key: entry["config"][key] for key in ("objective", "family", "hidden_share")}
    assert settings == {"objective": "mixed", "family": "sdxl", "hidden_share": 0.4}
    assert set(entry["hidden"]) == {"sd1", "sd2", "sdxl", "flux"}
    lines = run("show", entry["name"]).stdout.splitlines()
    (row,) = [i for i, line in enumerate(lines) if line.startswith("hidden-state ")]
    assert lines[row] == "hidden-state similarity " + ", ".join(
        f"{entry['hidden'][family]:.4f} {family}" for family in ("sd1", "sd2", "sdxl", "flux")
    )
    assert lines[row + 1].strip() == "(measured on mini, a stand-in for their encoders)"
    assert max(map(len, lines[row : row + 2])) <= 80
    assert [line.split()[:2] for line in lines if line.startswith("similarity ")] == [
        ["similarity", f"{entry['similarity']:.4f}"]
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--family", "sd2"], "only hidden and mixed use it. Use --objective mixed"),
        (["--objective", "hidden", "--hidden-share", ".2"], "only the mixed objective uses it"),
        (["--objective", "mixed", "--hidden-share", "7"], "it must be greater than 0 and at most 1"),
        (["--objective", "mixed", "--family", "sd9"], "'sd9' is not one of 'sd1', 'sd2', 'sdxl', 'flux'"),
    ],
)
def test_invalid_options_are_rejected(run: Run, args: list[str], message: str) -> None:
    result = run("train", FOX, *args)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_chunked_prompt_is_rejected_before_training(run: Run) -> None:
    result = run("train", " ".join([FOX] * 8), "--long", "chunk", "--objective", "hidden", "-k", "2")
    assert result.returncode == 2
    assert "hidden states need a single text" in result.stderr


def test_details_name_the_model_it_was_measured_on() -> None:
    saved = Library().save(a_prompt(name="fox", hidden=SIMILARITIES))
    rows = entry_facts(saved).rows
    row = rows.index(("hidden-state", "similarity 0.9123 sd1, 0.8000 sd2, 0.7500 sdxl, -0.0100 flux"))
    assert rows[row + 1] == ("", "(measured on mini, a stand-in for their encoders)")
    real = replace(
        saved,
        prompt=replace(saved.prompt, model="ViT-L-14-quickgelu/openai", hidden={"sd1": 0.9, "flux": 0.7, "sdxl": 0.8}),
    )
    assert ("hidden-state", "similarity 0.9000 sd1, 0.8000 sdxl, 0.7000 flux") in entry_facts(real).rows
    unknown = replace(saved, prompt=replace(saved.prompt, hidden={}))
    for entry in (real, unknown):
        assert not any("stand-in" in value for _, value in entry_facts(entry).rows)
    assert "hidden-state" not in dict(entry_facts(unknown).rows)


def test_settings_dialog_fields_round_trip_through_a_job() -> None:
    assert {"family", "share"} < set(MORE_FIELDS)
    typed = {"objective": "mixed", "family": "sd2", "share": ".25"}
    config = job_from_form(Form(FOX, FIELDS), typed).config
    assert (config.objective, config.family, config.hidden_share) == ("mixed", "sd2", 0.25)
    _, more = variation_fields(a_prompt(config=config.as_dict(), device="cpu, float32"))
    assert {key: more[key] for key in typed} == {**typed, "share": "0.25"}
    with pytest.raises(ConfigError, match=r"share is 'half'\. Use a number"):
        job_from_form(Form(FOX, FIELDS), {"objective": "mixed", "share": "half"})
