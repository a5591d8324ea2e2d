"""A training that is interrupted and goes on from its state comes to the same bits as one that never was."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from torch import Tensor

from softprompt import Library, SoftPrompt
from softprompt.config import TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, EntryDamaged, PromptError
from softprompt.jobs.checkpoint import from_bytes, to_bytes
from softprompt.jobs.execute import run_job
from softprompt.jobs.job import Job, TrainJob
from softprompt.prompts.contexts import TRAINING_CONTEXTS
from softprompt.training.task import TrainingState
from softprompt.training.trainer import iter_train, train
from tests.conftest import FOX
from tests.worker_process import same_bits


def states(encoder: TextEncoder, **settings: Any) -> tuple[list[TrainingState], SoftPrompt]:
    """The state at every report of a training, and what it came to."""
    taken: list[TrainingState] = []
    return taken, train(encoder, FOX, on_report=lambda report: taken.append(report.state()), **settings)


def same_tensor(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"tokens": 2, "steps": 24, "restarts": 2, "interval": 7},
        # many numbers at once: what is computed of them must not depend on where among them a step begins
        {"tokens": 1, "steps": 40, "restarts": 8, "contexts": (), "interval": 7},
        {"tokens": 2, "steps": 60, "stop_at": 0.97, "interval": 4},
        {"tokens": 2, "steps": 40, "patience": 5, "rate": 20.0, "interval": 10, "contexts": TRAINING_CONTEXTS[:4]},
        {"tokens": 1, "steps": 20, "contexts": (), "objective": "mse", "interval": 3},
        {"tokens": "auto", "steps": 10, "stop_at": 0.9, "interval": 6},
    ],
)
def test_from_every_state_it_comes_to_the_same_bits(encoder: TextEncoder, settings: dict[str, Any]) -> None:
    taken, whole = states(encoder, **settings)
    assert len(taken) >= 2
    # each state leads to the next one's bits, and the last to the end's: so all of them lead to the same end
    for state, following in pairwise(taken):
        again = from_bytes(to_bytes(state), "checkpoint")  # as the disk gives it back
        reached = next(iter_train(encoder, FOX, resume=again, **settings)).state()
        assert (reached.step, reached.tokens) == (following.step, following.tokens)
        assert reached.tensors.keys() == following.tensors.keys()
        assert all(same_tensor(tensor, following.tensors[name]) for name, tensor in reached.tensors.items())
        assert (reached.best is None) == (following.best is None)
        assert reached.best is None or same_bits(reached.best, following.best)
    last = from_bytes(to_bytes(taken[-1]), "checkpoint")
    assert same_bits(train(encoder, FOX, resume=last, **settings), whole)


def test_the_caller_says_when_a_report_is_due(encoder: TextEncoder) -> None:
    steps = [
        report.step for report in iter_train(encoder, FOX, tokens=1, steps=12, interval=lambda step: step in (2, 3, 7))
    ]
    assert steps == [2, 3, 7, 12]


def test_a_checkpoint_with_any_byte_changed_is_refused(encoder: TextEncoder) -> None:
    raw = to_bytes(states(encoder, tokens=1, steps=2, interval=2, contexts=())[0][0])
    for i in range(0, len(raw), 37):
        with pytest.raises(EntryDamaged):
            from_bytes(raw[:i] + bytes([raw[i] ^ 4]) + raw[i + 1 :], "checkpoint")
    with pytest.raises(EntryDamaged):
        from_bytes(raw[:-1], "checkpoint")


def test_a_job_is_trained_and_saved_once_under_its_id(encoder: TextEncoder) -> None:
    job = TrainJob(FOX, TrainConfig(tokens=1, steps=3, contexts=()), name="fox")
    library = Library()
    first = run_job(job, encoder, library, entry_id="0123456789abcdef")
    second = run_job(job, encoder, library, entry_id="0123456789abcdef")
    assert first.entry is not None
    assert second.entry is not None
    assert first.entry.id == second.entry.id == "0123456789abcdef"
    assert first.entry.prompt.created == second.entry.prompt.created
    assert [one.name for one in library.list().entries] == ["fox"]


def test_a_job_survives_json(encoder: TextEncoder) -> None:
    import json

    job = TrainJob(
        FOX, TrainConfig(tokens="auto", stop_at=0.9, contexts=("a {}",), patience=3), "mini", "cpu", "bfloat16", "fox"
    )
    assert Job.from_dict(json.loads(json.dumps(job.as_dict()))) == job


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"prompt": 3},
        {**TrainJob("a").as_dict(), "name": None},
        {**TrainJob("a").as_dict(), "config": {"x": 1}},
    ],
)
def test_what_is_no_job_is_refused(values: Any) -> None:
    with pytest.raises(ConfigError):
        Job.from_dict(values)


@pytest.mark.parametrize("prompt", ["", " \n", "a" * ((1 << 20) + 1)])
def test_a_prompt_that_cannot_be_trained_on_is_refused(prompt: str) -> None:
    with pytest.raises(PromptError):
        TrainJob(prompt)
