"""What people type first, coming from sentence-transformers, diffusers and PEFT, works."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

import softprompt
from softprompt import Library, SoftPrompt, TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from tests.conftest import BOAT, FOX

SHORT = {"tokens": 2, "steps": 5}


@pytest.fixture(scope="module")
def fox(encoder: TextEncoder) -> SoftPrompt:
    return softprompt.train(encoder, FOX, tokens=2, steps=5).named("fox")


def test_one_text_or_several_can_be_encoded(encoder: TextEncoder) -> None:
    assert encoder.encode("a fox").shape == (1, 384)
    for texts in (["a fox", "a boat"], ("a fox", "a boat"), np.array(["a fox", "a boat"]), (t for t in ("a fox", "b"))):
        assert encoder.encode(texts).shape == (2, 384)
    assert encoder.encode([]).shape == (0, 384)


def test_numbers_paths_and_devices_of_other_libraries_are_accepted(encoder: TextEncoder, tmp_path: Path) -> None:
    plain = softprompt.train(encoder, FOX, tokens=2, steps=5, rate=0.5, seed=3)
    for number, real in ((np.int64, np.float32), (np.uint8, np.float64), (torch.tensor, torch.tensor)):
        other = softprompt.train(encoder, FOX, tokens=number(2), steps=number(5), rate=real(0.5), seed=number(3))
        assert np.array_equal(other.vectors, plain.vectors)
        assert other.config == plain.config
    assert softprompt.load_encoder("mini", torch.device("cpu"), torch.float32).device == torch.device("cpu")
    assert encoder.to("cpu").device == encoder.to(torch.device("cpu")).device
    for folder in (str(tmp_path / "one"), tmp_path / "two"):
        assert len(Library(folder)) == 0


def test_a_list_of_texts_gives_a_list_of_soft_prompts(encoder: TextEncoder) -> None:
    prompts = softprompt.train(encoder, [FOX, BOAT], **SHORT)
    assert [prompt.hard_prompt for prompt in prompts] == [FOX, BOAT]
    assert softprompt.train(encoder, [], **SHORT) == []
    assert [
        prompt.tokens for prompt in softprompt.train(encoder, ["fox", "boat"], tokens="auto", stop_at=0.5, steps=5)
    ] == [1, 1]


def test_a_wrong_text_in_a_list_costs_no_training(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.training import trainer

    monkeypatch.setattr(trainer, "train_many", lambda *_: pytest.fail("trained"))
    with pytest.raises(softprompt.PromptTooLong):
        softprompt.train(encoder, [FOX, "fox " * 80], **SHORT)


def test_weighted_texts_can_be_pairs(encoder: TextEncoder) -> None:
    pairs = softprompt.train(encoder, "both", meanings=[("a fox", 3), ("a boat", 1)], **SHORT)
    assert [(text.text, text.share) for text in pairs.meanings] == [("a fox", 0.75), ("a boat", 0.25)]


@pytest.mark.parametrize(
    "start", [lambda prompt: prompt, lambda prompt: prompt.vectors, lambda prompt: torch.tensor(prompt.vectors),
              lambda prompt: prompt.vectors.tolist(), lambda prompt: prompt.vectors.astype(np.float64)]
)  # fmt: skip
def test_start_vectors_can_have_any_form(
    encoder: TextEncoder, fox: SoftPrompt, start: Callable[[SoftPrompt], Any]
) -> None:
    again = softprompt.train(encoder, FOX, init="soft", start=start(fox), tokens=2, steps=1)
    plain = softprompt.train(encoder, FOX, init="soft", start=fox, tokens=2, steps=1)
    assert np.array_equal(again.vectors, plain.vectors)


def test_the_last_report_holds_the_result(encoder: TextEncoder) -> None:
    reports = list(softprompt.iter_train(encoder, FOX, tokens=2, steps=25))
    assert [report.step for report in reports] == [10, 20, 25]
    assert [report.result is None for report in reports] == [True, True, False]
    expected = softprompt.train(encoder, FOX, tokens=2, steps=25)
    assert reports[-1].result is not None
    assert np.array_equal(reports[-1].result.vectors, expected.vectors)
    last = list(softprompt.iter_train(encoder, "fox", tokens="auto", stop_at=0.5, steps=5))[-1]
    assert last.result is not None


def test_a_run_that_is_resumed_at_its_end_still_reports_its_result(encoder: TextEncoder) -> None:
    state = [report.state() for report in softprompt.iter_train(encoder, FOX, tokens=1, steps=2, interval=1)][-1]
    (report,) = softprompt.iter_train(encoder, FOX, tokens=1, steps=2, resume=state)
    assert report.result is not None


def test_the_state_of_an_old_report_is_gone(encoder: TextEncoder) -> None:
    training = softprompt.iter_train(encoder, FOX, tokens=1, steps=3, interval=1)
    first = next(training)
    next(training)
    with pytest.raises(softprompt.StateLost, match="gone on to step 2"):
        first.state()


def test_an_error_in_the_callers_function_is_the_callers(encoder: TextEncoder) -> None:
    def fail(_: object) -> bool:
        raise RuntimeError("mine")

    for call in (
        lambda: softprompt.train(encoder, FOX, on_report=fail, **SHORT),
        lambda: softprompt.train(encoder, FOX, interval=fail, **SHORT),
        lambda: softprompt.sweep(encoder, FOX, [1], interval=fail, steps=2),
    ):
        with pytest.raises(RuntimeError, match="mine"):
            call()


def test_strings_of_other_types_become_plain_strings(encoder: TextEncoder) -> None:
    class Word(str, Enum):  # noqa: UP042  # a StrEnum shows its value by itself
        FOX = "a fox"

    assert softprompt.train(encoder, Word.FOX, **SHORT).hard_prompt == "a fox"
    assert [prompt.hard_prompt for prompt in softprompt.train(encoder, pandas.Series(["a fox"]), **SHORT)] == ["a fox"]


def test_a_sweep_knows_its_knee(encoder: TextEncoder) -> None:
    results = softprompt.sweep(encoder, FOX, range(1, 4), steps=5)
    assert [prompt.tokens for prompt in results] == [1, 2, 3]
    assert results.knee in results
    assert results[0].tokens == 1
    assert len(softprompt.Sweep(()).to_dataframe()) == 0


def test_a_batch_trains_and_returns_results_in_order() -> None:
    results = softprompt.train_batch([FOX, {"prompt": BOAT, "tokens": np.int64(1)}], tokens=2, steps=5, tags="animal")
    assert [(result.line, result.state, result.tokens) for result in results] == [(1, "trained", 2), (2, "trained", 1)]
    assert {entry.tags for entry in Library().list(tags="animal").entries} == {("animal",)}
    assert [result.state for result in softprompt.iter_batch([FOX], tokens=2, steps=5)] == ["before"]


def test_a_composition_takes_a_library_or_a_mapping(encoder: TextEncoder, fox: SoftPrompt) -> None:
    library = Library()
    library.save(fox)
    by_library = softprompt.compose(encoder, "[fox] at night", library)
    by_mapping, second = softprompt.compose(encoder, ["[fox] at night", "a [fox] and a [FOX]"], {"fox": fox})
    # alone, because one row and two rows may round differently
    assert by_library.fidelity == softprompt.compose(encoder, "[fox] at night", {"fox": fox}).fidelity
    assert by_mapping.fidelity == pytest.approx(by_library.fidelity, abs=1e-6)
    assert np.array_equal(by_library.embedding, softprompt.compose(encoder, "[fox] at night").embedding)
    assert by_mapping.written_out == f"{FOX} at night"
    assert by_mapping.inputs.shape == (by_mapping.tokens, encoder.width)
    assert np.array_equal(by_mapping.inputs[:2], fox.vectors)
    assert second.tokens == 2 + 2 * fox.tokens + 1
    assert softprompt.compose(encoder, "[v1][v2] at night", opened=fox).fidelity == by_library.fidelity


def test_an_entry_stands_for_its_soft_prompt(encoder: TextEncoder, fox: SoftPrompt, tmp_path: Path) -> None:
    entry = Library().save(fox)
    assert softprompt.grade(encoder, entry) == softprompt.grade(encoder, fox)
    assert softprompt.grade(encoder, entry)[0] == pytest.approx(fox.similarity)
    assert softprompt.read_out(encoder, entry) == softprompt.read_out(encoder, fox)
    exported = softprompt.export(entry, "numpy", tmp_path / "fox.npy")
    assert exported.paths == (tmp_path / "fox.npy",)
    (imported,) = softprompt.import_files(exported.paths[0]).imported
    assert softprompt.assign(imported.entry, encoder, hard_prompt=FOX).similarity == pytest.approx(fox.similarity)


def test_a_ported_soft_prompt_knows_where_it_comes_from(encoder: TextEncoder, fox: SoftPrompt) -> None:
    entry = Library().save(fox)
    ported = softprompt.port(encoder, entry, steps=3)
    assert (ported.hard_prompt, ported.steps, ported.tokens) == (FOX, 3, 2)
    assert [(ancestor.relation, ancestor.id) for ancestor in ported.ancestry] == [("ported", entry.id)]


def test_nothing_is_printed_without_progress(
    encoder: TextEncoder, fox: SoftPrompt, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def use_everything(progress: bool) -> None:
        softprompt.train(encoder, FOX, progress=progress, **SHORT)
        softprompt.train(encoder, [FOX, BOAT], progress=progress, **SHORT)
        softprompt.sweep(encoder, FOX, [1, 2], steps=5, progress=progress)
        softprompt.train_batch([f"{FOX} {progress}"], progress=progress, **SHORT)
        softprompt.find_hard(encoder, FOX, 2, steps=1, progress=progress)
        softprompt.port(encoder, fox, steps=2, progress=progress)

    use_everything(False)
    assert capfd.readouterr() == ("", "")
    use_everything(True)
    out, err = capfd.readouterr()
    assert out == ""
    assert all(label in err for label in ("training: ", "sweep: ", "hard readout: ", "loss=", "similarity="))


def test_a_warning_goes_to_logging_and_not_to_the_terminal() -> None:
    import subprocess
    import sys

    code = "import logging, softprompt; logging.getLogger('softprompt.library').warning('a warning')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")
    assert logging.getLogger("softprompt").propagate  # a program that configures logging sees them


def test_a_config_and_settings_can_be_combined(encoder: TextEncoder) -> None:
    prompt = softprompt.train(encoder, FOX, TrainConfig(tokens=2, steps=50), steps=5)
    assert (prompt.tokens, prompt.steps) == (2, 5)


def test_the_argument_names_of_version_0_1_0_work_with_a_warning(encoder: TextEncoder) -> None:
    with pytest.warns(DeprecationWarning, match=r"find_hard\(k=\) is now find_hard\(tokens=\)"):
        assert softprompt.find_hard(encoder, FOX, k=1, steps=1).tokens == 1  # type: ignore[call-arg]
    with pytest.warns(DeprecationWarning, match=r"train_batch\(places=\) is now train_batch\(row_limit=\)"):
        assert len(softprompt.train_batch([FOX], places=1, **SHORT)) == 1  # type: ignore[call-arg]
    with pytest.warns(DeprecationWarning, match=r"Library\(say=\) is now Library\(notify=\)"):
        Library(say=print)  # type: ignore[call-arg]


# rows of a batch


def test_a_wrong_row_of_a_batch_names_its_key_and_leaves_the_others_alone() -> None:
    rows: dict[str, Any] = {
        "'lr' is not a setting. Did you mean 'rate'?": {"prompt": FOX, "lr": 0.1},
        "'token' is not a setting. Did you mean 'tokens'?": {"prompt": FOX, "token": 1},
        "'url' is not a setting. Use prompt, against, contexts": {"prompt": FOX, "url": "a"},
        "the mapping has no key 'prompt'. Its keys are: text. Use column='NAME' to choose another.": {"text": FOX},
        "it must be a mapping or a string, but is a list": [FOX],
        "it must be a mapping or a string, but is 5 (int)": 5,
        "contexts is a set, which has no order; expected a list of strings": {"prompt": FOX, "contexts": {"a {}"}},
        "prompt is b'fox'; it must be a string": {"prompt": b"fox"},
        "tags is 5; it must be a string or a list of strings": {"prompt": FOX, "tags": 5},
        "'a b' is not a valid tag.": {"prompt": FOX, "tags": ["a b"]},
        "tokens is 1.5; it must be a whole number": {"prompt": FOX, "tokens": 1.5},
        "the prompt is empty.": {"prompt": float("nan")},
    }
    *failed, last = softprompt.train_batch([*rows.values(), FOX], **SHORT)
    assert last.state == "trained"
    for expected, result in zip(rows, failed, strict=True):
        assert result.state == "failed"
        assert result.error is not None
        assert result.error[1].startswith(expected)


def test_the_rows_of_a_table_can_be_trained() -> None:
    """pandas writes NaN where a cell is empty, and then stores whole numbers as floats."""
    table = pandas.DataFrame({"text": [FOX, BOAT], "tokens": [1, None], "name": [None, "boat"], "seed": [None, 3]})
    results = softprompt.train_batch(table.to_dict("records"), column="text", tokens=2, steps=5)
    assert [(result.tokens, result.state) for result in results] == [(1, "trained"), (2, "trained")]
    assert [Library().open(name).prompt.config["seed"] for name in ("red-fox-asleep", "boat")] == [0, 3]


def test_a_row_can_have_tags_and_tuples() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": FOX, "name": "fox", "tags": {"red", "animal"}, "contexts": ("a {}",)},
        {"prompt": BOAT, "name": "boat", "tags": "blue", "contexts": np.array(["a {}"])},
    ]
    softprompt.train_batch(rows, tags="all", **SHORT)
    assert [Library().open(name).tags for name in ("fox", "boat")] == [("all", "animal", "red"), ("all", "blue")]
    assert [Library().open(name).prompt.config["contexts"] for name in ("fox", "boat")] == [["a {}"], ["a {}"]]


# values


class Choice(str, Enum):  # noqa: UP042  # a StrEnum shows its value by itself
    PROMPT = "prompt"


def test_members_of_an_enum_become_plain_strings() -> None:
    config = TrainConfig(init=Choice.PROMPT, objective="contrastive", against=Choice.PROMPT)  # type: ignore[arg-type]
    assert repr((config.init, config.against)) == "('prompt', ('prompt',))"


@pytest.mark.parametrize(
    "convert", [lambda array: array.astype(np.int64), np.ndarray.tolist, torch.tensor,
                lambda array: torch.tensor(array, dtype=torch.bfloat16, requires_grad=True)]
)  # fmt: skip
def test_the_vectors_of_a_soft_prompt_can_have_any_form(fox: SoftPrompt, convert: Callable[[Any], Any]) -> None:
    ones = np.ones((2, 256), np.float32)
    vectors = replace(fox, vectors=convert(ones)).vectors
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, ones)


def test_the_settings_of_a_soft_prompt_cannot_be_changed(fox: SoftPrompt) -> None:
    for values in (
        fox.config,
        fox.versions,
        fox.hidden,
        copy.deepcopy(fox).config,
        pickle.loads(pickle.dumps(fox)).config,
    ):
        for change in (values.clear, values.popitem, lambda values=values: values.update(steps=99)):
            with pytest.raises(TypeError, match="cannot be changed"):
                change()
    assert json.loads(json.dumps(fox.config)) == fox.config == fox.as_dict()["config"]
    changed = fox.config | {"steps": 99}
    changed["steps"] += 1


def test_a_soft_prompt_does_not_equal_its_vectors(fox: SoftPrompt) -> None:
    assert (fox == fox.vectors) is False
    assert (fox == torch.tensor(fox.vectors)) is False
    assert np.abs(fox).shape == fox.vectors.shape


def test_an_entry_says_where_the_values_of_its_soft_prompt_are(fox: SoftPrompt) -> None:
    entry = Library().save(fox)
    for name in ("vectors", "similarity", "tokens", "plot"):
        with pytest.raises(
            AttributeError, match=rf"an Entry has no attribute '{name}'\. Write entry\.prompt\.{name}\."
        ):
            getattr(entry, name)
    with pytest.raises(AttributeError, match=r"an Entry has no attribute 'foo'$"):
        _ = entry.foo  # type: ignore[attr-defined]
    assert copy.deepcopy(entry) == entry == pickle.loads(pickle.dumps(entry))


def test_a_long_path_is_shortened_in_a_message(fox: SoftPrompt) -> None:
    for use in (SoftPrompt.load, fox.save):
        with pytest.raises(softprompt.SoftPromptError, match="x…: File name too long") as caught:
            use("x" * 5000 + ".safetensors")
        assert len(str(caught.value)) < 500
