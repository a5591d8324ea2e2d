"""`compose` and `port`: soft prompts as words, saved compositions, and the same meaning for another model."""

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
def prompts(encoder: TextEncoder) -> dict[str, SoftPrompt]:
    fox = train_cached(encoder, FOX, tokens=3, steps=100).named("red fox")
    boat = train_cached(encoder, BOAT, tokens=4, steps=100).named("boat")
    return {"fox": fox, "boat": boat, "unknown": replace(fox, name="found", hard_prompt="", config={})}


@pytest.fixture(autouse=True)
def _saved_prompts(run: Run, prompts: dict[str, SoftPrompt]) -> None:
    library = Library()
    for prompt in prompts.values():
        library.save(prompt)


def text_by_label(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Map the label of each printed line to its text."""
    return {line[:12].strip(): line[13:] for line in result.stdout.splitlines() if line[:1].strip()}


def test_compose_prints_the_fidelity_beside_the_floor(run: Run) -> None:
    result = run("compose", "[red fox] mountain view", "--against", "a [red] car", "--against", FOX)
    texts = text_by_label(result)
    assert texts["template"] == "[red fox] mountain view"
    assert texts["written out"] == f"{FOX} mountain view"
    assert texts["tokens"] == "5 of 75; 15 written out, 10 saved"
    fidelity, _, floor = texts["fidelity"].partition("; ")
    assert float(fidelity) > float(floor.removeprefix("floor ")) > 0.5
    assert result.stdout.splitlines()[-2].endswith("  a [red] car")
    assert result.stderr == ""


def test_json_is_one_document(run: Run) -> None:
    document = json.loads(run("compose", "[red fox*.6 + boat*.4] at night", "--against", FOX, "--json").stdout)
    assert list(document) == KEYS
    assert document["written_out"] == [
        {"text": f"{FOX} at night", "share": 0.6},
        {"text": f"{BOAT} at night", "share": 0.4},
    ]
    assert document["tokens_saved"] == document["written_out_tokens"] - document["tokens"]
    assert document["mixed"] == "near"
    assert document["against"][0]["text"] == FOX
    assert 0.5 < document["against"][0]["similarity"] < document["fidelity"]


def test_v1_v2_and_v3_are_the_soft_tokens_of_the_soft_prompt_given_by_with(run: Run) -> None:
    by_token = json.loads(run("compose", "[v1][v2][v3] at night", "--with", "red fox", "--json").stdout)
    by_name = json.loads(run("compose", "[red fox] at night", "--json").stdout)
    assert by_token["fidelity"] == pytest.approx(by_name["fidelity"], abs=1e-5)
    assert "none is open" in run("compose", "[v1] at night").stderr


def test_without_a_hard_prompt_the_fidelity_is_unknown_and_similarities_are_printed(run: Run) -> None:
    texts = text_by_label(run("compose", "[found] at night", "--against", f"{FOX} at night"))
    assert texts["fidelity"] == "unknown, because the prompt of a soft prompt is unknown"
    assert float(texts["against"].split()[0]) > 0.9


@pytest.mark.parametrize(
    ("args", "message"),
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
        (["[found] at night", "--save", "x"], "comes from a file without a prompt"),
    ],
)
def test_bad_input_exits_with_2_and_says_what_to_do(run: Run, args: list[str], message: str) -> None:
    import re

    result = run("compose", *args)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.search(message, result.stderr), result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_soft_tokens_too_large_to_compute_with_are_reported_and_print_no_nan(
    run: Run, prompts: dict[str, SoftPrompt]
) -> None:
    """An imported file may contain any finite numbers, and their sums can overflow."""
    huge = prompts["fox"].vectors / abs(prompts["fox"].vectors).max() * 3e38
    Library().save(replace(prompts["fox"], name="huge", vectors=huge.astype("float32")))
    result = run("compose", "[huge] at night")
    assert (result.returncode, result.stdout) == (2, "")
    assert "cannot compute with the soft tokens of huge: their largest value is 3e+38" in result.stderr
    result = run("diff", "red fox", "huge")
    assert result.returncode == 0
    assert "cannot measure the similarity: mini cannot compute with the soft tokens of huge" in result.stderr
    assert "nan" not in result.stdout
    assert "1.00" in result.stdout  # cosines of soft tokens do not depend on their length


def test_soft_prompts_of_two_models_cannot_share_a_composition(run: Run, prompts: dict[str, SoftPrompt]) -> None:
    Library().save(replace(prompts["fox"], name="other", model="ViT-L-14-quickgelu/openai", model_fingerprint="0123"))
    result = run("compose", "[boat] and [other]")
    assert result.returncode == 2
    assert "other belongs to ViT-L-14-quickgelu/openai (0123), but the model here is mini (" in result.stderr


def test_a_saved_mix_is_trained_and_can_be_composed_again(run: Run, prompts: dict[str, SoftPrompt]) -> None:
    saved = json.loads(
        run("compose", "[red fox*3 + boat] at night", "--save", "evening", "-k", "2", "--steps", "80", "--json").stdout
    )
    assert (saved["name"], saved["tokens"], saved["model"]) == ("evening", 2, "mini")
    assert saved["hard_prompt"] == f"({FOX}*.75 + {BOAT}*.25) at night"
    assert [(ancestor["relation"], ancestor["name"], ancestor["weight"]) for ancestor in saved["ancestry"]] == [
        ("mixed", "red fox", 0.75),
        ("mixed", "boat", 0.25),
    ]
    assert saved["similarity"] > 0.98
    composed = json.loads(run("compose", "[evening] in winter", "--json").stdout)
    assert composed["mixed"] == "trained"
    assert composed["written_out"][0] == {"text": f"{FOX} at night in winter", "share": 0.75}
    assert composed["fidelity"] > 0.95
    details = run("show", "evening").stdout
    assert "mixed        red fox (" in details
    assert " at 0.75" in details


def test_compose_save_takes_the_options_of_train(run: Run) -> None:
    args = ("--objective", "mixed", "--hidden-share", ".4", "--steps", "20", "--seed", "3", "-k", "2")
    texts = text_by_label(run("compose", "[red fox] at night", "--save", "night fox", *args))
    assert texts["settings"] == "objective mixed, hidden_share 0.4, seed 3"
    prompt = Library().open("night fox").prompt
    assert (prompt.config["objective"], prompt.config["steps"], prompt.tokens) == ("mixed", 20, 2)
    assert run("compose", "[red fox] at night", "--steps", "20").returncode == 2
    result = run("compose", "no soft prompt here", "--save", "nothing")
    assert (result.returncode, Library().list("nothing").total) == (2, 0)
    assert "the template contains no soft prompt" in result.stderr


def test_port_trains_the_same_meaning_for_another_model(
    run: Run, prompts: dict[str, SoftPrompt], tmp_path: Path
) -> None:
    model, _ = write_model_folder(tmp_path / "tiny")
    mixed = replace(
        prompts["fox"], name="mixed", hard_prompt="a sum", meanings=(WeightedText(FOX, 0.6), WeightedText(BOAT, 0.4))
    )
    Library().save(mixed)
    ported = json.loads(run("port", "red fox", "--model", model, "--device", "cpu", "--json").stdout)
    assert (ported["name"], ported["model"], ported["hard_prompt"]) == ("red fox-2", model, FOX)
    assert ported["config"] == prompts["fox"].config
    assert ported["tokens"] == 3
    assert Library().open("red fox-2").prompt.vectors.shape == (3, 64)
    parent = Library().find("red fox").id
    assert [(ancestor["relation"], ancestor["id"], ancestor["model"]) for ancestor in ported["ancestry"]] == [
        ("ported", parent, "mini")
    ]
    ported_mix = json.loads(run("port", "mixed", "--model", model, "--name", "sum", "--json").stdout)
    assert (ported_mix["name"], ported_mix["meanings"]) == (
        "sum",
        [{"text": FOX, "share": 0.6}, {"text": BOAT, "share": 0.4}],
    )
    result = run("compose", "[red fox] and [sum]")
    assert result.returncode == 2
    assert f"sum belongs to {model}" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["found", "--model", "mini"], "found cannot be trained for another model, because its prompt is unknown"),
        (["nobody", "--model", "mini"], "no soft prompt is named 'nobody'"),
        (["boat", "--model", "local-dir:/nowhere"], "there is no folder /nowhere"),
        (["boat", "--model", "mini", "--name", "red fox"], "has a soft prompt named red fox"),
        (["boat", "--model", "mini", "--family", "sdxl"], "only hidden and mixed use it"),
        (["boat"], "Missing option '--model'"),
    ],
)
def test_port_refuses_bad_input(run: Run, args: list[str], message: str) -> None:
    result = run("port", *args)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
