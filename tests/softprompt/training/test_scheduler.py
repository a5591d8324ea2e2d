"""Many trainings at once: each comes to what it would alone, whoever it shares the batch with."""

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


def all_of(encoder: TextEncoder, tasks: list[TrainingTask], **settings: Any) -> dict[str, SoftPrompt | SoftPromptError]:
    return {task.key: done for task, done in train_many(encoder, tasks, **settings)}


def test_each_comes_to_what_it_would_alone(encoder: TextEncoder) -> None:
    config = replace(SHORT, steps=25)
    done = all_of(encoder, [TrainingTask(text, config, key=text) for text in PROMPTS[:5]], places=3)
    assert set(done) == set(PROMPTS[:5])
    for text, made in done.items():
        alone = softprompt.train(encoder, text, config)
        assert isinstance(made, SoftPrompt)
        assert made.similarity == pytest.approx(alone.similarity, abs=2e-3)
        assert (made.steps, made.stopped, made.hard_prompt) == (25, "steps", text)
        # those that were in from the beginning saw the contexts in the same order
        if text in PROMPTS[:3]:
            np.testing.assert_allclose(made.losses[:20], alone.losses[:20], rtol=1e-2, atol=1e-3)


def test_each_has_its_own_settings_and_end(encoder: TextEncoder) -> None:
    configs = {
        "long": replace(ALONE, steps=60),
        "short": replace(ALONE, steps=7),
        "restarts": replace(ALONE, restarts=3, steps=25),
        "reached": replace(ALONE, stop_at=0.6),
        "impatient": replace(ALONE, patience=3, rate=30.0),
    }
    done = all_of(encoder, [TrainingTask(FOX, config, key=key) for key, config in configs.items()], places=4)
    ends = {key: (made.stopped, made.steps) for key, made in done.items() if isinstance(made, SoftPrompt)}
    assert ends["long"] == ("steps", 60)
    assert ends["short"] == ("steps", 7)
    assert ends["restarts"] == ("steps", 25)
    assert ends["reached"][0] == "stop_at"
    assert ends["impatient"][0] == "patience"
    assert all(len(made.losses) == made.steps for made in done.values() if isinstance(made, SoftPrompt))


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "hidden"},
        {"objective": "mixed", "family": "sdxl"},
        {"objective": "mse"},
        {"objective": "contrastive", "against": (BOAT,)},
    ],
)
def test_every_objective_can_be_shared(encoder: TextEncoder, settings: dict[str, Any]) -> None:
    config = replace(SHORT, steps=8, **settings)
    done = all_of(encoder, [TrainingTask(text, config, key=text) for text in PROMPTS[:2]])
    for text, made in done.items():
        assert isinstance(made, SoftPrompt)
        alone = softprompt.train(encoder, text, config)
        np.testing.assert_allclose(made.losses, alone.losses, rtol=1e-2, atol=1e-3)


def test_tasks_are_drawn_as_places_get_free(encoder: TextEncoder) -> None:
    drawn: list[str] = []

    def tasks() -> Iterator[TrainingTask]:
        for i, text in enumerate(PROMPTS):
            drawn.append(text)
            yield TrainingTask(text, replace(SHORT, steps=3 + i, contexts=()), key=text)

    for i, _ in enumerate(train_many(encoder, tasks(), places=2)):
        assert len(drawn) <= i + 3


def test_what_cannot_be_trained_is_said_and_the_others_go_on(encoder: TextEncoder) -> None:
    tasks = [
        TrainingTask(FOX, replace(ALONE, steps=5), key="fox"),
        TrainingTask("word " * 100, ALONE, key="long"),
        TrainingTask(FOX, replace(ALONE, tokens=3), key="other"),
        TrainingTask(BOAT, replace(ALONE, steps=5), key="boat"),
    ]
    done = all_of(encoder, tasks, places=1)
    assert isinstance(done["long"], PromptTooLong)
    assert isinstance(done["other"], ConfigError)
    assert isinstance(done["fox"], SoftPrompt)
    assert isinstance(done["boat"], SoftPrompt)


def test_more_tokens_than_fit_are_refused_for_each(encoder: TextEncoder) -> None:
    done = all_of(encoder, [TrainingTask(text, replace(SHORT, tokens=100), key=text) for text in PROMPTS[:2]])
    assert all(isinstance(error, ConfigError) for error in done.values())
    assert len(done) == 2


def test_it_goes_on_from_the_states_of_all(encoder: TextEncoder) -> None:
    config = replace(SHORT, steps=22)
    states: dict[str, TrainingState] = {}

    def note_at_11(pool: TrainingBatch) -> None:
        if pool.clock == 11:
            states.update(pool.states())

    whole = all_of(encoder, [TrainingTask(text, config, key=text) for text in PROMPTS[:3]], on_step=note_at_11)
    ended = [TrainingTask(text, config, key=text) for text in PROMPTS[:3]]
    assert all_of(encoder, ended, on_step=lambda pool: pool.clock == 2) == {}
    again = all_of(encoder, [TrainingTask(text, config, key=text, resume=states[text]) for text in PROMPTS[:3]])
    for text, made in again.items():
        before = whole[text]
        assert isinstance(made, SoftPrompt)
        assert isinstance(before, SoftPrompt)
        assert made.vectors.tobytes() == before.vectors.tobytes()
        assert made.losses.tobytes() == before.losses.tobytes()


def test_where_memory_runs_out_fewer_train_at_once(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.objectives import pooled

    real, at_once = pooled.row_losses, []

    def small(objective: Any, outputs: torch.Tensor, *rest: Any) -> torch.Tensor:
        at_once.append(len(outputs))
        if len(outputs) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(objective, outputs, *rest)

    monkeypatch.setattr(pooled, "row_losses", small)
    done = all_of(encoder, [TrainingTask(text, replace(ALONE, steps=10), key=text) for text in PROMPTS], places=6)
    assert set(done) == set(PROMPTS)
    assert all(isinstance(made, SoftPrompt) and made.steps == 10 for made in done.values())
    assert max(at_once) == 6
    assert at_once.count(6) == 1


def test_a_device_that_fails_keeps_the_best_of_all(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.objectives import pooled

    real, calls = pooled.row_losses, []

    def failing(*args: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 25:
            raise RuntimeError("CUDA error: gone")
        return real(*args)

    monkeypatch.setattr(pooled, "row_losses", failing)
    done: dict[str, Any] = {}
    together = train_many(encoder, [TrainingTask(text, ALONE, key=text) for text in PROMPTS], places=2)
    with pytest.raises(TrainingFailed, match="gone"):
        done.update((task.key, made) for task, made in together)
    assert set(done) == set(PROMPTS[:2])
    assert all(
        isinstance(error, TrainingFailed) and error.best is not None and error.best.steps == 25
        for error in done.values()
    )


def test_a_state_of_the_last_step_ends_there(encoder: TextEncoder) -> None:
    states: dict[tuple[str, int], TrainingState] = {}

    def keep(pool: TrainingBatch) -> None:
        states.update(((key, state.step), state) for key, state in pool.states().items())

    config = replace(SHORT, steps=10)
    whole = all_of(encoder, [TrainingTask(text, config, key=text) for text in PROMPTS[:2]], on_step=keep)
    resumed = [TrainingTask(text, config, key=text, resume=states[text, 10]) for text in PROMPTS[:2]]
    for text, made in all_of(encoder, resumed).items():
        assert (made.steps, made.stopped) == (10, "steps")
        assert made.vectors.tobytes() == whole[text].vectors.tobytes()


def test_a_step_can_be_recorded_and_replayed(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph launches what it recorded on the tensors of then: here the recorded step is run again, and nothing else of the host."""
    from softprompt.training.cuda_graphs import Graphs

    class Again:
        def __init__(self, step: Callable[[], None]) -> None:
            self.replay = step

    prompts = [TrainingTask(text, replace(SHORT, steps=11 + 3 * i), key=text) for i, text in enumerate(PROMPTS[:3])]
    plain = all_of(encoder, prompts, places=2)
    monkeypatch.setattr(Graphs, "_record", lambda _, step: Again(step))
    real = TrainingBatch.__init__

    def with_graphs(self: TrainingBatch, *args: Any) -> None:
        real(self, *args)
        self.graphs = Graphs(encoder.device)

    step = BatchedAdam.step

    def in_place(self: BatchedAdam, *figures: torch.Tensor) -> None:
        before = [tensor.data_ptr() for tensor in (*self.tensors.values(), self.window, self.numbers, self.at)]
        step(self, *figures)
        assert before == [tensor.data_ptr() for tensor in (*self.tensors.values(), self.window, self.numbers, self.at)]

    monkeypatch.setattr(TrainingBatch, "__init__", with_graphs)
    monkeypatch.setattr(BatchedAdam, "step", in_place)
    recorded = all_of(encoder, prompts, places=2)
    for text, made in plain.items():
        again = recorded[text]
        assert isinstance(made, SoftPrompt)
        assert isinstance(again, SoftPrompt)
        assert made.vectors.tobytes() == again.vectors.tobytes()
        assert made.losses.tobytes() == again.losses.tobytes()


@pytest.mark.parametrize("where", ["targets_of", "fresh"])
def test_memory_that_runs_out_while_the_places_are_filled_costs_places_only(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from softprompt.objectives import pooled
    from softprompt.training import batch

    place = batch if where == "fresh" else pooled
    real, calls = getattr(place, where), []

    def full(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args)

    monkeypatch.setattr(place, where, full)
    done = all_of(encoder, [TrainingTask(text, replace(ALONE, steps=5), key=text) for text in PROMPTS[:4]], places=4)
    assert set(done) == set(PROMPTS[:4])
    assert all(isinstance(made, SoftPrompt) and made.steps == 5 for made in done.values())


def test_where_all_leave_the_next_ones_come_in(encoder: TextEncoder) -> None:
    def leave_at_2(pool: TrainingBatch) -> None:
        if pool.clock == 2:
            pool.remove(list(pool.slots))

    tasks = [TrainingTask(text, replace(SHORT, steps=5), key=text) for text in PROMPTS[:4]]
    assert set(all_of(encoder, tasks, places=2, on_step=leave_at_2)) == set(PROMPTS[2:4])


def test_one_that_joined_late_goes_on_from_its_state_with_the_same_figures(encoder: TextEncoder) -> None:
    """It saw the turns of contexts in another order than it would have alone, and none of them counts twice or as nothing."""
    states: dict[str, TrainingState] = {}

    def watch(pool: TrainingBatch) -> bool:
        late = [member for member in pool.slots if member.key == "late" and member.step == 2]
        if late:
            states.update(pool.states())
        return bool(late)

    config = replace(SHORT, steps=20)
    tasks = [TrainingTask(FOX, replace(SHORT, steps=5), key="first"), TrainingTask(BOAT, config, key="late")]
    list(train_many(encoder, tasks, places=1, on_step=watch))
    made = softprompt.train(encoder, BOAT, config, resume=states["late"])
    assert float(states["late"].tensors["seen"].sum()) == 2
    assert (np.diff(made.losses[:5]) > -0.5).all()
    assert made.losses[2] > 0.5 * made.losses[1]
