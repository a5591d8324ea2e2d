"""The worker trains language models: it keeps the teacher's answers with the run, and loses nothing if it is killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from softprompt import Library
from softprompt.config import config_for
from softprompt.errors import SoftPromptError
from softprompt.jobs.job import SweepJob, TrainJob
from softprompt.worker import protocol as p
from softprompt.worker.client import Client
from softprompt.worker.run_folder import TARGET_PREFIX, runs_folder
from tests.worker_process import Home, events, wait_for_run

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM

PROMPT = "You are a pirate. Answer in one short line."
SETTINGS = {"questions": tuple(f"What is {number}?" for number in range(12)), "steps": 60, "tokens": 2}


def job(model: CausalLM, **settings: object) -> TrainJob:
    return TrainJob(PROMPT, config_for("causal", SETTINGS | settings), model=model.name, device="cpu")


def submit(client: Client, new_job: TrainJob | SweepJob) -> str:
    run: str = client.request(p.Submit(new_job.as_dict()))["id"]
    return run


def kept_answers(run: str) -> list[str]:
    return sorted(path.name for path in (runs_folder() / run).glob(f"{TARGET_PREFIX}*"))


def wait_for_event(client: Client, run: str, condition: Callable[[dict[str, Any]], bool]) -> None:
    """Wait for a report or a stage of a run that meets a condition."""
    next(event for event in events(client) if event.get("run") == run and condition(event))


def test_a_run_killed_at_any_stage_ends_with_the_same_vectors(worker: Home, language_model: CausalLM) -> None:
    long = job(language_model, steps=300)
    with worker.client() as client:
        undisturbed = submit(client, long)
    assert worker.wait_until_ended(undisturbed).state == "done"
    with worker.client() as client:
        run = submit(client, long)
        wait_for_event(client, run, lambda event: "sampling" in event.get("stage", "") or bool(event.get("step")))
    worker.kill()
    for step in (10, 30):
        with worker.client() as client:
            wait_for_event(client, run, lambda event, step=step: event.get("step", 0) >= step)
            assert [name.split("-")[1] for name in kept_answers(run)] == ["training"]
            client.request(p.Pause(run))
            wait_for_run(client, run, lambda now: now["state"] == "paused")
            client.request(p.Resume(run))
        worker.kill()
    assert worker.wait_until_ended(run).state == "done"
    assert kept_answers(run) == []
    first, second = (Library().open(worker.read_run(each).entry).prompt for each in (undisturbed, run))
    assert first.vectors.tobytes() == second.vectors.tobytes()
    assert first.answers == second.answers
    assert worker.read_run(run).summary().objective == "distill"


def test_a_sweep_and_a_batch_of_runs_train_together(worker: Home, language_model: CausalLM) -> None:
    short = job(language_model, steps=10)
    with worker.client() as client:
        runs = [submit(client, TrainJob(f"{PROMPT} {i}", short.config, short.model, "cpu")) for i in range(2)]
        swept = submit(client, SweepJob(PROMPT, short.config, short.model, "cpu", sweep=(1, 3)))
    for run in runs:
        assert worker.wait_until_ended(run).state == "done"
    ended = worker.wait_until_ended(swept)
    assert ended.state == "done"
    for result in ended.results:
        assert result.kl is not None
        assert result.kl > 0


def test_what_only_a_text_encoder_can_do_is_refused_at_once(worker: Home, language_model: CausalLM) -> None:
    with worker.client() as client:
        with pytest.raises(SoftPromptError, match="is a language model"):
            client.request(p.Similarity(model=language_model.name, device="cpu", texts=["a", "b"]))
        run = submit(client, job(language_model, steps=10))
        wait_for_run(client, run, lambda now: now["state"] == "done")
        entry = worker.read_run(run).entry
        neighbours = client.request(p.Neighbours(entry=entry, top=3))
        assert neighbours["readout_similarity"] is None
        assert len(neighbours["neighbours"]) == 2
