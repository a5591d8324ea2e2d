"""When a training repeats an earlier one."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from softprompt import Library
from softprompt.config import HardConfig, TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.jobs.execute import run_job
from softprompt.jobs.identity import find_trained_entry, is_same_model, training_digest
from softprompt.jobs.job import HardReadoutJob, SweepJob, TrainJob
from softprompt.prompts.lineage import WeightedText
from tests.conftest import FOX
from tests.library_model import a_prompt

JOB = TrainJob(FOX, TrainConfig(tokens=1, steps=3, contexts=()))


@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, device="cuda:1"),
        replace(JOB, name="fox"),
        replace(JOB, prompt=f" {FOX}\n"),
        replace(JOB, model="MINI"),
    ],
)
def test_what_does_not_change_the_soft_prompt_does_not_count(job: TrainJob) -> None:
    assert training_digest(job) == training_digest(JOB)
    assert is_same_model(job.model, JOB.model)


def test_every_setting_counts() -> None:
    different = {
        "tokens": 2, "steps": 4, "rate": 0.5, "init": "vocabulary", "objective": "mse", "project_norm": False,
        "contexts": ("{} at sea",), "restarts": 2, "stop_at": 0.9, "patience": 5, "seed": 1, "long": "cut",
    }  # fmt: skip
    jobs = [replace(JOB, config=replace(JOB.config, **{name: value})) for name, value in different.items()]  # type: ignore[arg-type]
    jobs += [
        JOB,
        replace(JOB, prompt="a boat"),
        replace(JOB, precision="bfloat16"),
        replace(JOB, hard=HardConfig()),
        replace(JOB, hard=HardConfig(tokens=4)),
        replace(JOB, meanings=(WeightedText(FOX, 0.4), WeightedText("a boat", 0.6))),
    ]
    assert len({training_digest(job) for job in jobs}) == len(jobs)
    assert not is_same_model("mini", "ViT-L-14/openai")


def test_a_sweep_a_search_and_an_unknown_start_are_never_the_same() -> None:
    start = replace(JOB.config, init="soft")
    for job in (SweepJob(FOX, sweep=(1, 2)), HardReadoutJob(FOX, entry="1" * 16), replace(JOB, config=start)):
        assert training_digest(job) == ""
        assert find_trained_entry(Library(), job) is None


def test_a_saved_training_is_found_after_any_change_but_its_training(encoder: TextEncoder) -> None:
    library = Library()
    entry = run_job(JOB, encoder, library).entry
    assert entry is not None
    library.rename(entry.id, "wolf")
    library.tag(entry.id, ["red"], [])
    found = find_trained_entry(library, replace(JOB, device="cuda"))
    assert found is not None
    assert (found.id, found.name) == (entry.id, "wolf")
    assert find_trained_entry(library, replace(JOB, hard=HardConfig())) is None
    assert find_trained_entry(library, replace(JOB, config=replace(JOB.config, seed=1))) is None
    library.delete(entry.id)
    assert find_trained_entry(library, JOB) is None


def test_a_partial_a_foreign_and_an_odd_entry_are_no_training() -> None:
    library = Library()
    config = JOB.config.as_dict()
    for changes in (
        {"stopped": "interrupted", "config": config},
        {"stopped": "failed", "config": config},
        {"config": {}},
        {"config": {"from": "the future"}},
        {"config": config, "model": "ViT-L-14/openai"},
        {"config": config, "device": "cpu, bfloat16"},
    ):
        library.save(a_prompt(hard_prompt=FOX, **changes))
    assert find_trained_entry(library, JOB) is None
    library.save(a_prompt(hard_prompt=FOX, config=config))
    assert find_trained_entry(library, JOB) is not None


def test_a_large_library_is_searched_by_its_index() -> None:
    """Headers are read only of entries with the same prompt and model."""
    library = Library()
    for i in range(300):
        library.save(a_prompt(hard_prompt=f"fox {i}", config=JOB.config.as_dict()))
    library.list(limit=1)  # build the index
    reads: list[str] = []
    read = library.revisions.read_provenance
    library.revisions.read_provenance = lambda entry, revision: (reads.append(entry), read(entry, revision))[1]  # type: ignore[method-assign]
    began = time.perf_counter()
    found = find_trained_entry(library, replace(JOB, prompt="fox 250"))
    assert found is not None
    assert found.hard_prompt == "fox 250"
    assert reads == [found.id]
    assert time.perf_counter() - began < 5
