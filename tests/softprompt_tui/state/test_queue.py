"""Which runs a queued run waits for."""

from __future__ import annotations

from dataclasses import replace

from softprompt.config import HardConfig, TrainConfig
from softprompt.jobs.job import Job, TrainJob
from softprompt.worker.run_folder import Run
from softprompt.worker.summary import RunSummary
from softprompt_tui.state.queue import describe_wait, runs_ahead

ONE_ROW, FOUR_ROWS = TrainConfig(tokens=3), TrainConfig(tokens=3, restarts=4)


def make_queue(*jobs: Job) -> list[RunSummary]:
    """Return runs as the worker reports them. The first one is running."""
    runs = [Run(f"{i}", job, "", position=float(i)).summary() for i, job in enumerate(jobs)]
    return [replace(runs[0], state="running"), *runs[1:]]


def ids_ahead(runs: list[RunSummary]) -> list[str]:
    return ["".join(ahead.id for ahead in runs_ahead(run, runs)) for run in runs[1:]]


def test_runs_of_the_same_batch_do_not_wait_for_each_other() -> None:
    runs = make_queue(*(TrainJob(prompt, ONE_ROW) for prompt in ("a fox", "a boat", "a hill")))
    assert ids_ahead(runs) == ["0", "0"]
    assert describe_wait(runs[2], runs) == "waiting behind a fox"


def test_runs_before_and_after_a_different_job_wait_for_each_other() -> None:
    boat, hill, lake, hard = (
        TrainJob("a boat", ONE_ROW),
        TrainJob("a hill", ONE_ROW),
        TrainJob("a lake", TrainConfig(tokens=4)),
        HardConfig(),
    )
    runs = make_queue(boat, boat, hill, lake, hill, hill)
    assert ids_ahead(runs) == ["0", "0", "012", "0123", "0123"]
    assert ids_ahead(make_queue(boat, *(TrainJob("a lake", ONE_ROW, hard=hard),) * 2, boat)) == ["0", "01", "012"]


def test_a_batch_has_at_most_as_many_rows_as_the_worker_allows() -> None:
    assert ids_ahead(make_queue(*(TrainJob("a fox", FOUR_ROWS),) * 7)) == ["0", "0", "0", "0", "01234", "01234"]


def test_with_an_older_worker_every_run_waits_for_all_before_it() -> None:
    messages = [run.as_dict() for run in make_queue(*(TrainJob("a fox", ONE_ROW),) * 3)]
    for run in messages:
        del run["batch"], run["rows"]
    runs = list(map(RunSummary.from_message, messages))
    assert ids_ahead(runs) == ["0", "01"]
