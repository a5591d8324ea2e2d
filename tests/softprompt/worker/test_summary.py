"""A run summary is the same whether it comes from the run's folder or from a message of the worker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from softprompt.config import TrainConfig
from softprompt.errors import WorkerError
from softprompt.jobs.job import SweepJob, TrainJob
from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker import protocol as p
from softprompt.worker.run_folder import Run, UnreadableRun
from softprompt.worker.summary import RunReport, RunSummary

RUNS = (
    Run("a" * 16, TrainJob("a red fox", TrainConfig(tokens=3)), "2026-01-01T00:00:00+00:00",
        latest={"step": 5, "loss": 0.5}),
    Run("b" * 16, SweepJob("a boat", TrainConfig(), sweep=(1, 2)), "", state="done",
        results=(SweepResult(1, 0.5), SweepResult(2, 0.9, knee=True))),
    UnreadableRun("c" * 16, "it is not a folder"),
)  # fmt: skip


def test_a_summary_survives_a_message_unchanged() -> None:
    for run in RUNS:
        line = p.encode({"type": "run", "run": run.as_dict()})
        assert RunSummary.from_message(p.parse_message(line)["run"]) == run.summary()


def test_fields_that_an_older_worker_does_not_send_have_defaults() -> None:
    values = RUNS[0].as_dict()
    for name in ("kind", "sweep", "results", "of_entry", "hard", "batch", "rows", "pausing"):
        del values[name]
    run = RunSummary.from_message(json.loads(json.dumps(values)))
    assert (run.kind, run.sweep, run.results, run.batch, run.rows, run.pausing) == ("train", (), (), "", 1, False)


def test_unknown_fields_of_a_newer_worker_are_ignored() -> None:
    assert RunSummary.from_message({**RUNS[0].as_dict(), "mood": "good"}) == RUNS[0].summary()
    report = RunReport.from_message(
        {"type": "report", "run": "a", "step": 1, "tokens": 3, "mood": "good", "sweep": [[1, 0.5, None]]}
    )
    assert (report.step, report.sweep) == (1, ((1, 0.5, None),))


@pytest.mark.parametrize(
    "message",
    [{}, {"id": "a"}, {"id": "a", "state": "done", "sweep": None}, {"id": "a", "state": "done", "results": [3]}],
)
def test_an_invalid_run_is_rejected(message: dict[str, Any]) -> None:
    with pytest.raises(WorkerError, match="cannot read a run"):
        RunSummary.from_message(message)
