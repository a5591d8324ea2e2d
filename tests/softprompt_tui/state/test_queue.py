"""What a run that waits is said to wait for."""

from __future__ import annotations

from dataclasses import replace

from softprompt.config import HardConfig, TrainConfig
from softprompt.jobs.job import Job, TrainJob
from softprompt.worker.run_folder import Run
from softprompt.worker.summary import RunSummary
from softprompt_tui.state.queue import before, told

ONE, FOUR = TrainConfig(tokens=3), TrainConfig(tokens=3, restarts=4)


def in_a_queue(*jobs: Job) -> list[RunSummary]:
    """As the worker tells them; the first trains."""
    runs = [Run(f"{i}", job, "", position=float(i)).summary() for i, job in enumerate(jobs)]
    return [replace(runs[0], state="running"), *runs[1:]]


def waits_for(runs: list[RunSummary]) -> list[str]:
    return ["".join(one.id for one in before(run, runs)) for run in runs[1:]]


def test_runs_that_will_begin_together_do_not_wait_for_each_other() -> None:
    runs = in_a_queue(*(TrainJob(prompt, ONE) for prompt in ("a fox", "a boat", "a hill")))
    assert waits_for(runs) == ["0", "0"]
    assert told(runs[2], runs) == "waiting behind a fox"


def test_those_before_and_behind_another_kind_do() -> None:
    boat, hill, lake, hard = (
        TrainJob("a boat", ONE),
        TrainJob("a hill", ONE),
        TrainJob("a lake", TrainConfig(tokens=4)),
        HardConfig(),
    )
    runs = in_a_queue(boat, boat, hill, lake, hill, hill)
    assert waits_for(runs) == ["0", "0", "012", "0123", "0123"]
    assert waits_for(in_a_queue(boat, *(TrainJob("a lake", ONE, hard=hard),) * 2, boat)) == ["0", "01", "012"]


def test_a_batch_has_no_more_rows_than_the_worker_puts_together() -> None:
    assert waits_for(in_a_queue(*(TrainJob("a fox", FOUR),) * 7)) == ["0", "0", "0", "0", "01234", "01234"]


def test_of_an_older_worker_each_waits_for_all_before_it() -> None:
    told_of = [run.as_dict() for run in in_a_queue(*(TrainJob("a fox", ONE),) * 3)]
    for run in told_of:
        del run["batch"], run["rows"]
    runs = list(map(RunSummary.from_message, told_of))
    assert waits_for(runs) == ["0", "01"]
