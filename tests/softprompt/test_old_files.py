"""Files of version 0.1 still work: its library opens, its runs and batches resume, and its exports import."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from softprompt import Library, train_batch
from softprompt.config import TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.evaluation.fidelity import grade
from softprompt.formats.importer import import_files
from softprompt.jobs.job import HardReadoutJob
from softprompt.objectives.hard_prompt import tokenize_target
from softprompt.training.batch import TrainingBatch
from softprompt.worker import protocol as p
from softprompt.worker.leases import Holder
from softprompt.worker.run_folder import Run, list_runs, runs_folder
from tests.conftest import BOAT, FOX
from tests.worker_process import Home

OLD = Path(__file__).parent.parent / "old_files"


@pytest.fixture
def old_home(home: Path) -> Path:
    """A copy of the old home, whose worker was killed."""
    # as new: a batch whose files are old counts as abandoned
    shutil.copytree(OLD / "home", home / "data", copy_function=shutil.copy)
    dead = json.dumps(asdict(replace(Holder.this_process(), started="1")))
    for lease in (home / "data" / "runs").glob("*/lease.*"):
        lease.write_text(dead)
    return home


@pytest.fixture
def worker(old_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    home = Home(monkeypatch.setenv)
    yield home
    home.close()


def runs_by_prompt() -> dict[str, Run]:
    """Return the runs by prompt, with the key "hard" for the search for a hard readout of `fox`."""
    runs = [run for run in list_runs(runs_folder()) if isinstance(run, Run)]
    return {"hard" if isinstance(run.job, HardReadoutJob) else run.job.prompt: run for run in runs}


def test_old_library_opens(old_home: Path, encoder: TextEncoder) -> None:
    library = Library()
    names = {entry.name for entry in library.list().entries}
    assert names == {"fox", "fox-2", "old boat", "dusk", "done-run", "queued-run", "stopped-run"}
    assert [entry.name for entry in library.list(trashed=True).entries] == ["hill"]
    fox, dusk = library.open("fox"), library.open("dusk")
    assert (fox.tags, fox.note) == (("animal",), "a note")
    assert fox.prompt.hard is not None
    assert [(meaning.text, meaning.share) for meaning in dusk.prompt.meanings] == [(FOX, 0.6), (BOAT, 0.4)]
    for name in names - {"fox-2"}:
        prompt = library.open(name).prompt
        encoder.check_compatible(prompt)
        target = tokenize_target(encoder, prompt.hard_prompt, prompt.meanings)
        similarity, _ = grade(encoder, target, prompt.vectors)
        assert similarity == pytest.approx(prompt.similarity, abs=1e-4)
    assert library.check().damaged == []
    assert library.restore("hill").prompt.name == "hill"


def test_old_runs_are_listed_and_resume(worker: Home) -> None:
    before = runs_by_prompt()
    assert {text: run.state for text, run in before.items()} == {
        "a done run": "done", "a swept run": "done", "a stopped run": "stopped", FOX: "paused", BOAT: "paused",
        "a queued run": "done", "hard": "queued",
    }  # fmt: skip
    with worker.client() as client:
        for text in (FOX, BOAT):
            client.request(p.Resume(before[text].id))
    for text in ("hard", FOX, BOAT):
        assert worker.wait_until_ended(before[text].id).state == "done"
    resumed = Library().open("paused fox").prompt
    assert (resumed.steps, resumed.stopped, len(resumed.losses)) == (60, "steps", 60)
    assert resumed.similarity is not None
    assert resumed.similarity > 0.98


def test_old_batch_resumes(old_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, step = [], TrainingBatch.step
    monkeypatch.setattr(TrainingBatch, "step", lambda batch: (steps.append(1), step(batch)))
    prompts = ["a grey wolf", "a white owl", "a brown bear"]
    results = list(train_batch(prompts, TrainConfig(tokens=1, steps=40, contexts=()), device="cpu"))
    assert [result.state for result in results] == ["trained"] * 3
    assert len(steps) == 20


@pytest.mark.parametrize(
    "file",
    ["safetensors/fox.safetensors", "kobold/fox.zip", "numpy/fox.npy", "peft/fox-peft/adapter_model.safetensors"],
)
def test_old_exports_are_imported(old_home: Path, file: str) -> None:
    library = Library()
    exported = library.open("fox").prompt.vectors
    (imported,) = import_files(library, [OLD / "exports" / file]).imported
    np.testing.assert_array_equal(imported.entry.prompt.vectors, exported)
