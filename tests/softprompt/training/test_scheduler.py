"""Training many prompts in one batch gives each the result that it would have alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import softprompt
from softprompt import SoftPrompt, TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, PromptTooLong, SoftPromptError
from softprompt.training.batch import TrainingBatch
from softprompt.training.errors import TrainingFailed
from softprompt.training.optimizer import BatchedAdam
from softprompt.training.task import TrainingState, TrainingTask
from softprompt.training.trainer import train_many
from tests.conftest import BOAT, FOX

PROMPTS = (
    FOX,
    BOAT,
    "an old lighthouse keeper reading a letter by candle light",
    "three red kites over a green hill in the wind",
    "a bowl of ripe figs on a blue table cloth",
    "the inside of a clock with brass wheels and tiny screws",
    "a night train crossing a long bridge over a black lake",
)
SHORT = TrainConfig(tokens=2, steps=40)
ALONE = replace(SHORT, contexts=())


def train_all(
    encoder: TextEncoder, tasks: list[TrainingTask], **settings: Any
) -> dict[str, SoftPrompt | SoftPromptError]:
    return {task.key: outcome for task, outcome in train_many(encoder, tasks, **settings)}


def test_each_training_gives_the_same_result_as_alone(encoder: TextEncoder) -> None:
    config = replace(SHORT, steps=25)
    outcomes = train_all(encoder, [TrainingTask(text, config, key=text) for text in PROMPTS[:5]], row_limit=3)
    assert set(outcomes) == set(PROMPTS[:5])
    for text, prompt in outcomes.items():
        alone = softprompt.train(encoder, text, config)
        assert isinstance(prompt, SoftPrompt)
        assert prompt.similarity == pytest.approx(alone.similarity, abs=2e-3)
        assert (prompt.steps, prompt.stopped, prompt.hard_prompt) == (25, "steps", text)
        # trainings that started in the first batch saw the contexts in the same order
        if text in PROMPTS[:3]:
            np.testing.assert_allclose(prompt.losses[:20], alone.losses[:20], rtol=1e-2, atol=1e-3)


def test_each_training_has_its_own_settings_and_stopping_rule(encoder: TextEncoder) -> None:
    configs = {
        "long": replace(ALONE, steps=60),
        "short": replace(ALONE, steps=7),
        "restarts": replace(ALONE, restarts=3, steps=25),
        "reached": replace(ALONE, stop_at=0.6),
        "impatient": replace(ALONE, patience=3, rate=30.0),
    }
    outcomes = train_all(encoder, [TrainingTask(FOX, config, key=key) for key, config in configs.items()], row_limit=4)
    endings = {
        key: (prompt.stopped, prompt.steps) for key, prompt in outcomes.items() if isinstance(prompt, SoftPrompt)
    }
    assert endings["long"] == ("steps", 60)
    assert endings["short"] == ("steps", 7)
    assert endings["restarts"] == ("steps", 25)
    assert endings["reached"][0] == "stop_at"
    assert endings["impatient"][0] == "patience"
    assert all(len(prompt.losses) == prompt.steps for prompt in outcomes.values() if isinstance(prompt, SoftPrompt))


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "hidden"},
        {"objective": "mixed", "family": "sdxl"},
        {"objective": "mse"},
        {"objective": "contrastive", "against": (BOAT,)},
    ],
)
def test_every_objective_works_in_a_shared_batch(encoder: TextEncoder, settings: dict[str, Any]) -> None:
    config = replace(SHORT, steps=8, **settings)
    outcomes = train_all(encoder, [TrainingTask(text, config, key=text) for text in PROMPTS[:2]])
    for text, prompt in outcomes.items():
        assert isinstance(prompt, SoftPrompt)
        alone = softprompt.train(encoder, text, config)
        np.testing.assert_allclose(prompt.losses, alone.losses, rtol=1e-2, atol=1e-3)


def test_tasks_are_read_as_rows_become_free(encoder: TextEncoder) -> None:
    read: list[str] = []

    def tasks() -> Iterator[TrainingTask]:
        for i, text in enumerate(PROMPTS):
            read.append(text)
            yield TrainingTask(text, replace(SHORT, steps=3 + i, contexts=()), key=text)

    for i, _ in enumerate(train_many(encoder, tasks(), row_limit=2)):
        assert len(read) <= i + 3


def test_a_task_that_cannot_be_trained_does_not_stop_the_others(encoder: TextEncoder) -> None:
    tasks = [
        TrainingTask(FOX, replace(ALONE, steps=5), key="fox"),
        TrainingTask("word " * 100, ALONE, key="long"),
        TrainingTask(FOX, replace(ALONE, tokens=3), key="other"),
        TrainingTask(BOAT, replace(ALONE, steps=5), key="boat"),
    ]
    outcomes = train_all(encoder, tasks, row_limit=1)
    assert isinstance(outcomes["long"], PromptTooLong)
    assert isinstance(outcomes["other"], ConfigError)
    assert isinstance(outcomes["fox"], SoftPrompt)
    assert isinstance(outcomes["boat"], SoftPrompt)


def test_more_soft_tokens_than_fit_are_an_error_for_each_task(encoder: TextEncoder) -> None:
    outcomes = train_all(encoder, [TrainingTask(text, replace(SHORT, tokens=100), key=text) for text in PROMPTS[:2]])
    assert all(isinstance(error, ConfigError) for error in outcomes.values())
    assert len(outcomes) == 2


def test_a_batch_resumes_from_the_states_of_its_slots(encoder: TextEncoder) -> None:
    config = replace(SHORT, steps=22)
    states: dict[str, TrainingState] = {}

    def save_at_step_11(batch: TrainingBatch) -> None:
        if batch.clock == 11:
            states.update(batch.states())

    uninterrupted = train_all(
        encoder, [TrainingTask(text, config, key=text) for text in PROMPTS[:3]], on_step=save_at_step_11
    )
    stopped = [TrainingTask(text, config, key=text) for text in PROMPTS[:3]]
    assert train_all(encoder, stopped, on_step=lambda batch: batch.clock == 2) == {}
    resumed = train_all(encoder, [TrainingTask(text, config, key=text, resume=states[text]) for text in PROMPTS[:3]])
    for text, prompt in resumed.items():
        expected = uninterrupted[text]
        assert isinstance(prompt, SoftPrompt)
        assert isinstance(expected, SoftPrompt)
        assert prompt.vectors.tobytes() == expected.vectors.tobytes()
        assert prompt.losses.tobytes() == expected.losses.tobytes()


def test_if_memory_runs_out_fewer_rows_train_at_once(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.objectives import pooled

    row_losses, row_counts = pooled.row_losses, []

    def fail_above_3_rows(objective: Any, outputs: torch.Tensor, *rest: Any) -> torch.Tensor:
        row_counts.append(len(outputs))
        if len(outputs) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return row_losses(objective, outputs, *rest)

    monkeypatch.setattr(pooled, "row_losses", fail_above_3_rows)
    outcomes = train_all(
        encoder, [TrainingTask(text, replace(ALONE, steps=10), key=text) for text in PROMPTS], row_limit=6
    )
    assert set(outcomes) == set(PROMPTS)
    assert all(isinstance(prompt, SoftPrompt) and prompt.steps == 10 for prompt in outcomes.values())
    assert max(row_counts) == 6
    assert row_counts.count(6) == 1


def test_a_device_failure_keeps_the_best_of_every_slot(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.objectives import pooled

    row_losses, calls = pooled.row_losses, []

    def fail_after_25_steps(*args: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 25:
            raise RuntimeError("CUDA error: gone")
        return row_losses(*args)

    monkeypatch.setattr(pooled, "row_losses", fail_after_25_steps)
    outcomes: dict[str, Any] = {}
    trainings = train_many(encoder, [TrainingTask(text, ALONE, key=text) for text in PROMPTS], row_limit=2)
    with pytest.raises(TrainingFailed, match="gone"):
        outcomes.update((task.key, prompt) for task, prompt in trainings)
    assert set(outcomes) == set(PROMPTS[:2])
    assert all(
        isinstance(error, TrainingFailed) and error.best is not None and error.best.steps == 25
        for error in outcomes.values()
    )


def test_resuming_from_the_last_step_ends_at_once(encoder: TextEncoder) -> None:
    states: dict[tuple[str, int], TrainingState] = {}

    def save(batch: TrainingBatch) -> None:
        states.update(((key, state.step), state) for key, state in batch.states().items())

    config = replace(SHORT, steps=10)
    uninterrupted = train_all(encoder, [TrainingTask(text, config, key=text) for text in PROMPTS[:2]], on_step=save)
    resumed = [TrainingTask(text, config, key=text, resume=states[text, 10]) for text in PROMPTS[:2]]
    for text, prompt in train_all(encoder, resumed).items():
        assert (prompt.steps, prompt.stopped) == (10, "steps")
        assert prompt.vectors.tobytes() == uninterrupted[text].vectors.tobytes()


def test_a_step_can_be_recorded_and_replayed(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph replays kernels on fixed tensors. Here a replay runs the recorded step again, on the cpu."""
    from softprompt.training.cuda_graphs import StepGraphs

    class StepReplay:
        def __init__(self, step: Callable[[], None]) -> None:
            self.replay = step

    tasks = [TrainingTask(text, replace(SHORT, steps=11 + 3 * i), key=text) for i, text in enumerate(PROMPTS[:3])]
    plain = train_all(encoder, tasks, row_limit=2)
    monkeypatch.setattr(StepGraphs, "_record", lambda _, step: StepReplay(step))
    init = TrainingBatch.__init__

    def with_graphs(self: TrainingBatch, *args: Any) -> None:
        init(self, *args)
        self.graphs = StepGraphs(encoder.device)

    step = BatchedAdam.step

    def check_addresses(self: BatchedAdam, *metrics: torch.Tensor) -> None:
        before = [tensor.data_ptr() for tensor in (*self.tensors.values(), self.window, self.row_scalars, self.indices)]
        step(self, *metrics)
        assert before == [
            tensor.data_ptr() for tensor in (*self.tensors.values(), self.window, self.row_scalars, self.indices)
        ]

    monkeypatch.setattr(TrainingBatch, "__init__", with_graphs)
    monkeypatch.setattr(BatchedAdam, "step", check_addresses)
    recorded = train_all(encoder, tasks, row_limit=2)
    for text, prompt in plain.items():
        replayed = recorded[text]
        assert isinstance(prompt, SoftPrompt)
        assert isinstance(replayed, SoftPrompt)
        assert prompt.vectors.tobytes() == replayed.vectors.tobytes()
        assert prompt.losses.tobytes() == replayed.losses.tobytes()


@pytest.mark.parametrize("function", ["encode_targets", "init_rows"])
def test_if_memory_runs_out_while_slots_are_filled_all_tasks_still_train(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    from softprompt.objectives import pooled
    from softprompt.training import batch

    module = batch if function == "init_rows" else pooled
    original, calls = getattr(module, function), []

    def fail_once(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*args)

    monkeypatch.setattr(module, function, fail_once)
    outcomes = train_all(
        encoder, [TrainingTask(text, replace(ALONE, steps=5), key=text) for text in PROMPTS[:4]], row_limit=4
    )
    assert set(outcomes) == set(PROMPTS[:4])
    assert all(isinstance(prompt, SoftPrompt) and prompt.steps == 5 for prompt in outcomes.values())


def test_removing_all_slots_makes_room_for_the_next_tasks(encoder: TextEncoder) -> None:
    def remove_at_step_2(batch: TrainingBatch) -> None:
        if batch.clock == 2:
            batch.remove(list(batch.slots))

    tasks = [TrainingTask(text, replace(SHORT, steps=5), key=text) for text in PROMPTS[:4]]
    assert set(train_all(encoder, tasks, row_limit=2, on_step=remove_at_step_2)) == set(PROMPTS[2:4])


def test_a_late_slot_resumes_alone_with_the_same_losses(encoder: TextEncoder) -> None:
    """In the batch it saw the turns of contexts in a different order; each turn must count exactly once."""
    states: dict[str, TrainingState] = {}

    def stop_late_slot(batch: TrainingBatch) -> bool:
        late = [slot for slot in batch.slots if slot.key == "late" and slot.step == 2]
        if late:
            states.update(batch.states())
        return bool(late)

    config = replace(SHORT, steps=20)
    tasks = [TrainingTask(FOX, replace(SHORT, steps=5), key="first"), TrainingTask(BOAT, config, key="late")]
    list(train_many(encoder, tasks, row_limit=1, on_step=stop_late_slot))
    prompt = softprompt.train(encoder, BOAT, config, resume=states["late"])
    assert float(states["late"].tensors["seen"].sum()) == 2
    assert (np.diff(prompt.losses[:5]) > -0.5).all()
    assert prompt.losses[2] > 0.5 * prompt.losses[1]
