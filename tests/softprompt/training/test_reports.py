"""Reports and training states are values: they can be compared and pickled."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch

from softprompt import Report, TextEncoder, iter_train
from softprompt.training.errors import StateLost
from softprompt.training.task import TrainingResult, TrainingState
from tests.conftest import FOX
from tests.library_model import a_prompt


def a_report(**changes: object) -> Report:
    values = {
        "step": 3, "steps": 9, "loss": float("nan"), "similarity": 0.5, "best_loss": 0.5, "best_similarity": 0.5,
        "seconds": 1.0, "vectors": torch.ones(2, 4), "restarts": (1.0, float("nan")),
    }  # fmt: skip
    return Report(**values | {"state": lambda: TrainingState(3, 1.0, 2, {})} | changes)  # type: ignore[arg-type]


def test_reports_are_equal_if_all_but_their_states_are() -> None:
    report = a_report()
    assert report == a_report()
    assert hash(report) == hash(a_report())
    prompt = a_prompt()
    for change in ({"step": 4}, {"vectors": torch.zeros(2, 4)}, {"restarts": (1.0, 2.0)}, {"result": prompt}):
        assert report != a_report(**change)
    assert a_report(result=prompt) == a_report(result=copy.deepcopy(prompt))


def test_a_pickled_report_has_everything_but_its_state(encoder: TextEncoder) -> None:
    (report, *_, last) = iter_train(encoder, FOX, tokens=1, steps=20, contexts=())
    for restored in (pickle.loads(pickle.dumps(report)), copy.deepcopy(report), copy.copy(report)):
        assert restored == report
        assert restored.steps_per_second == report.steps_per_second
        with pytest.raises(StateLost, match="was pickled or copied"):
            restored.state()
    assert isinstance(last.state(), TrainingState)
    assert (report.stopped, last.stopped) == ("", "steps")
    assert repr(last).startswith("Report(step=20, steps=20, loss=")


def test_training_states_and_results_are_equal_if_their_tensors_are(encoder: TextEncoder) -> None:
    first, second = (
        next(iter(iter_train(encoder, FOX, tokens=1, steps=10, contexts=()))).state() for _ in range(2)
    )  # fmt: skip
    second = replace(second, seconds=first.seconds)
    assert first == second == pickle.loads(pickle.dumps(first)) == copy.deepcopy(first)
    assert hash(first) == hash(second)
    tensors = {name: tensor.clone() for name, tensor in first.tensors.items()}
    assert replace(first, tensors=tensors) == first
    tensors["history"] += 1
    assert replace(first, tensors=tensors) != first
    assert replace(first, best=a_prompt()) != first
    vectors, nan = torch.ones(1, 4), torch.full((2,), float("nan"))
    result = TrainingResult(vectors, nan, nan, 0.5, 2, 1.0, "steps", (), "cpu")
    assert result == replace(result, vectors=vectors.clone(), losses=nan.clone())
    assert result != replace(result, vectors=torch.zeros(1, 4))
