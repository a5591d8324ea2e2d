"""`compose` and `port`: soft prompts as words, compositions that are saved, and the same meaning for another model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from softprompt import Library, SoftPrompt
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.prompts.lineage import WeightedText
from tests.conftest import BOAT, FOX
from tests.kept import train_cached
from tests.softprompt.encoders.test_openclip import write_model_folder

Run = Callable[..., subprocess.CompletedProcess[str]]
KEYS = "model room template tokens written_out written_out_tokens tokens_saved fidelity floor mixed against".split()


@pytest.fixture(scope="module")
def made(encoder: TextEncoder) -> dict[str, SoftPrompt]:
    fox = train_cached(encoder, FOX, tokens=3, steps=100).named("red fox")
    boat = train_cached(encoder, BOAT, tokens=4, steps=100).named("boat")
    return {"fox": fox, "boat": boat, "unknown": replace(fox, name="found", hard_prompt="", config={})}


@pytest.fixture(autouse=True)
def _saved(run: Run, made: dict[str, SoftPrompt]) -> None:
    library = Library()
    for prompt in made.values():
        library.save(prompt)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Label -> words of each line."""
    return {line[:12].strip(): line[13:] for line in done.stdout.splitlines() if line[:1].strip()}


def test_a_composition_is_shown_with_its_fidelity_beside_the_floor(run: Run) -> None:
    done = run("compose", "[red fox] mountain view", "--against", "a [red] car", "--against", FOX)
    said = told(done)
    assert said["template"] == "[red fox] mountain view"
    assert said["written out"] == f"{FOX} mountain view"
    assert said["tokens"] == "5 of 75; 15 written out, 10 saved"
    fidelity, _, floor = said["fidelity"].partition("; ")
    assert float(fidelity) > float(floor.removeprefix("floor ")) > 0.5
    assert done.stdout.splitlines()[-2].endswith("  a [red] car")
    assert done.stderr == ""


def test_json_is_one_document(run: Run) -> None:
    values = json.loads(run("compose", "[red fox*.6 + boat*.4] at night", "--against", FOX, "--json").stdout)
    assert list(values) == KEYS
    assert values["written_out"] == [
        {"text": f"{FOX} at night", "share": 0.6},
        {"text": f"{BOAT} at night", "share": 0.4},
    ]
    assert values["tokens_saved"] == values["written_out_tokens"] - values["tokens"]
    assert values["mixed"] == "near"
    assert values["against"][0]["text"] == FOX
    assert 0.5 < values["against"][0]["similarity"] < values["fidelity"]


def test_the_tokens_of_the_one_given_are_v1_and_so_on(run: Run) -> None:
    open_one = json.loads(run("compose", "[v1][v2][v3] at night", "--with", "red fox", "--json").stdout)
    by_name = json.loads(run("compose", "[red fox] at night", "--json").stdout)
    assert open_one["fidelity"] == pytest.approx(by_name["fidelity"], abs=1e-5)
    assert "none is open" in run("compose", "[v1] at night").stderr


def test_what_is_not_known_is_said_and_similarities_are_given(run: Run) -> None:
    said = told(run("compose", "[found] at night", "--against", f"{FOX} at night"))
    assert said["fidelity"] == "unknown, because the prompt of a soft prompt is unknown"
    assert float(said["against"].split()[0]) > 0.9


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["a [red fox"], r"at character 3: this \[ has no closing \]"),
        (["[red fox*.6]"], "at character 9: a weight only works in a mix"),
        (["[red box]"], "Close: red fox"),
        (["[red fox:7]"], "has soft tokens 1 to 3"),
        (["[red fox] " * 40], "tokens do not fit"),
        (["[red fox]", "--tokens", "3"], "Add --save NAME"),
        (["[red fox]", "--save", "x", "--against", "a"], "Compare first"),
        (["[red fox]", "--save", "boat"], "has a soft prompt named boat"),
        (["[red fox]", "--save", "v1"], "reserved"),
        (["[red fox:1] at night", "--save", "x"], r"Use all of them with \[red fox\]"),
        (["[found] at night", "--save", "x"], "does not say what it means"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_would_be_right(run: Run, args: list[str], said: str) -> None:
    import re

    done = run("compose", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(said, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_soft_tokens_too_large_to_compute_with_are_said_to_be_and_no_nan_is_printed(
    run: Run, made: dict[str, SoftPrompt]
) -> None:
    """A file from outside may hold any finite numbers; their sums need not be finite."""
    huge = made["fox"].vectors / abs(made["fox"].vectors).max() * 3e38
    Library().save(replace(made["fox"], name="huge", vectors=huge.astype("float32")))
    done = run("compose", "[huge] at night")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot compute with the soft tokens of huge: their largest value is 3e+38" in done.stderr
    done = run("diff", "red fox", "huge")
    assert done.returncode == 0
    assert "cannot measure the similarity: mini cannot compute with the soft tokens of huge" in done.stderr
    assert "nan" not in done.stdout
    assert "1.00" in done.stdout  # their directions are the same, however long they are


def test_soft_prompts_of_two_models_do_not_stand_in_one_sentence(run: Run, made: dict[str, SoftPrompt]) -> None:
    Library().save(replace(made["fox"], name="other", model="ViT-L-14-quickgelu/openai", model_fingerprint="0123"))
    done = run("compose", "[boat] and [other]")
    assert done.returncode == 2
    assert "other belongs to ViT-L-14-quickgelu/openai (0123), and the model here is mini (" in done.stderr


def test_a_saved_mix_is_trained_and_can_be_a_word_again(run: Run, made: dict[str, SoftPrompt]) -> None:
    saved = json.loads(
        run("compose", "[red fox*3 + boat] at night", "--save", "evening", "-k", "2", "--steps", "80", "--json").stdout
    )
    assert (saved["name"], saved["tokens"], saved["model"]) == ("evening", 2, "mini")
    assert saved["hard_prompt"] == f"({FOX}*.75 + {BOAT}*.25) at night"
    assert [(one["relation"], one["name"], one["weight"]) for one in saved["ancestry"]] == [
        ("mixed", "red fox", 0.75),
        ("mixed", "boat", 0.25),
    ]
    assert saved["similarity"] > 0.98
    again = json.loads(run("compose", "[evening] in winter", "--json").stdout)
    assert again["mixed"] == "trained"
    assert again["written_out"][0] == {"text": f"{FOX} at night in winter", "share": 0.75}
    assert again["fidelity"] > 0.95
    shown = run("show", "evening").stdout
    assert "mixed        red fox (" in shown
    assert " at 0.75" in shown


def test_a_composition_is_saved_with_the_settings_of_a_training(run: Run) -> None:
    args = ("--objective", "mixed", "--hidden-share", ".4", "--steps", "20", "--seed", "3", "-k", "2")
    said = told(run("compose", "[red fox] at night", "--save", "night fox", *args))
    assert said["settings"] == "objective mixed, hidden_share 0.4, seed 3"
    made = Library().open("night fox").prompt
    assert (made.config["objective"], made.config["steps"], made.tokens) == ("mixed", 20, 2)
    assert run("compose", "[red fox] at night", "--steps", "20").returncode == 2
    done = run("compose", "no soft prompt here", "--save", "nothing")
    assert (done.returncode, Library().list("nothing").total) == (2, 0)
    assert "the template contains no soft prompt" in done.stderr


def test_port_trains_the_same_meaning_for_another_model(run: Run, made: dict[str, SoftPrompt], tmp_path: Path) -> None:
    name, _ = write_model_folder(tmp_path / "tiny")
    mixed = replace(
        made["fox"], name="mixed", hard_prompt="a sum", meanings=(WeightedText(FOX, 0.6), WeightedText(BOAT, 0.4))
    )
    Library().save(mixed)
    ported = json.loads(run("port", "red fox", "--model", name, "--device", "cpu", "--json").stdout)
    assert (ported["name"], ported["model"], ported["hard_prompt"]) == ("red fox-2", name, FOX)
    assert ported["config"] == made["fox"].config
    assert ported["tokens"] == 3
    assert Library().open("red fox-2").prompt.vectors.shape == (3, 64)
    parent = Library().find("red fox").id
    assert [(one["relation"], one["id"], one["model"]) for one in ported["ancestry"]] == [("ported", parent, "mini")]
    other = json.loads(run("port", "mixed", "--model", name, "--name", "sum", "--json").stdout)
    assert (other["name"], other["meanings"]) == ("sum", [{"text": FOX, "share": 0.6}, {"text": BOAT, "share": 0.4}])
    refused = run("compose", "[red fox] and [sum]")
    assert refused.returncode == 2
    assert f"sum belongs to {name}" in refused.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["found", "--model", "mini"], "found cannot be trained for another model, because its prompt is unknown"),
        (["nobody", "--model", "mini"], "no soft prompt is named 'nobody'"),
        (["boat", "--model", "local-dir:/nowhere"], "there is no folder /nowhere"),
        (["boat", "--model", "mini", "--name", "red fox"], "has a soft prompt named red fox"),
        (["boat", "--model", "mini", "--family", "sdxl"], "only hidden and mixed use it"),
        (["boat"], "Missing option '--model'"),
    ],
)
def test_what_cannot_be_ported_is_refused(run: Run, args: list[str], said: str) -> None:
    done = run("port", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
