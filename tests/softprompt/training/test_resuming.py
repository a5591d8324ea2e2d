"""A training resumed from a saved state gives the same bits as an uninterrupted one."""

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


def train_with_states(encoder: TextEncoder, **settings: Any) -> tuple[list[TrainingState], SoftPrompt]:
    """Return the state at every report of a training run, and the final soft prompt."""
    states: list[TrainingState] = []
    return states, train(encoder, FOX, on_report=lambda report: states.append(report.state()), **settings)


def same_tensor(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"tokens": 2, "steps": 24, "restarts": 2, "interval": 7},
        # many rows: rounding must not depend on the position of the first step in the precomputed schedule
        {"tokens": 1, "steps": 40, "restarts": 8, "contexts": (), "interval": 7},
        {"tokens": 2, "steps": 60, "stop_at": 0.97, "interval": 4},
        {"tokens": 2, "steps": 40, "patience": 5, "rate": 20.0, "interval": 10, "contexts": TRAINING_CONTEXTS[:4]},
        {"tokens": 1, "steps": 20, "contexts": (), "objective": "mse", "interval": 3},
        {"tokens": "auto", "steps": 10, "stop_at": 0.9, "interval": 6},
    ],
)
def test_training_resumed_from_any_state_gives_identical_bits(encoder: TextEncoder, settings: dict[str, Any]) -> None:
    states, uninterrupted = train_with_states(encoder, **settings)
    assert len(states) >= 2
    # each state leads to the bits of the next state, and the last to the result: so all lead to the same result
    for state, following in pairwise(states):
        saved = from_bytes(to_bytes(state), "checkpoint")  # as read back from disk
        resumed = next(iter_train(encoder, FOX, resume=saved, **settings)).state()
        assert (resumed.step, resumed.tokens) == (following.step, following.tokens)
        assert resumed.tensors.keys() == following.tensors.keys()
        assert all(same_tensor(tensor, following.tensors[name]) for name, tensor in resumed.tensors.items())
        assert (resumed.best is None) == (following.best is None)
        assert resumed.best is None or same_bits(resumed.best, following.best)
    last = from_bytes(to_bytes(states[-1]), "checkpoint")
    assert same_bits(train(encoder, FOX, resume=last, **settings), uninterrupted)


def test_interval_can_be_a_function_of_the_step(encoder: TextEncoder) -> None:
    steps = [
        report.step for report in iter_train(encoder, FOX, tokens=1, steps=12, interval=lambda step: step in (2, 3, 7))
    ]
    assert steps == [2, 3, 7, 12]


def test_a_checkpoint_with_a_changed_byte_is_rejected(encoder: TextEncoder) -> None:
    raw = to_bytes(train_with_states(encoder, tokens=1, steps=2, interval=2, contexts=())[0][0])
    for i in range(0, len(raw), 37):
        with pytest.raises(EntryDamaged):
            from_bytes(raw[:i] + bytes([raw[i] ^ 4]) + raw[i + 1 :], "checkpoint")
    with pytest.raises(EntryDamaged):
        from_bytes(raw[:-1], "checkpoint")


def test_running_a_job_twice_saves_one_entry(encoder: TextEncoder) -> None:
    job = TrainJob(FOX, TrainConfig(tokens=1, steps=3, contexts=()), name="fox")
    library = Library()
    first = run_job(job, encoder, library, entry_id="0123456789abcdef")
    second = run_job(job, encoder, library, entry_id="0123456789abcdef")
    assert first.entry is not None
    assert second.entry is not None
    assert first.entry.id == second.entry.id == "0123456789abcdef"
    assert first.entry.prompt.created == second.entry.prompt.created
    assert [entry.name for entry in library.list().entries] == ["fox"]


def test_a_job_round_trips_through_json(encoder: TextEncoder) -> None:
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
def test_invalid_job_data_is_rejected(values: Any) -> None:
    with pytest.raises(ConfigError):
        Job.from_dict(values)


@pytest.mark.parametrize("prompt", ["", " \n", "a" * ((1 << 20) + 1)])
def test_an_empty_or_oversized_prompt_is_rejected(prompt: str) -> None:
    with pytest.raises(PromptError):
        TrainJob(prompt)
