"""The interface's copy of the runs: filled page by page, then changed by updates and reports."""

from __future__ import annotations

from softprompt.worker.summary import RunReport, RunSummary
from softprompt_tui.state.runs import RunStore


def make_run(run: str, state: str = "queued", **more: object) -> RunSummary:
    return RunSummary(run, state, **more)  # type: ignore[arg-type]


def make_store(*runs: RunSummary) -> RunStore:
    store = RunStore()
    store.begin_list()
    store.add_page(runs, more=False)
    return store


def test_runs_that_a_new_list_does_not_contain_are_removed() -> None:
    store = make_store(make_run("a"), make_run("b"), make_run("c"))
    store.begin_list()
    store.add_page([make_run("b")], more=True)
    assert set(store.by_id) == {"a", "b", "c"}  # the rest of the list has not arrived yet
    store.update(make_run("c"))
    store.add_page([], more=False)
    assert set(store.by_id) == {"b", "c"}


def test_values_from_reports_survive_an_update_of_the_run() -> None:
    store = make_store(make_run("a", "running", best_similarity=0.5))
    assert store.apply_report(RunReport("a", 10, 3, loss=0.2, similarity=0.8, text="fox", hard_step=1, hard_steps=8))
    now = store.update(make_run("a", "running", step=11))
    assert (now.step, now.text, now.hard_step, now.hard_steps) == (11, "fox", 1, 8)
    assert not store.apply_report(RunReport("gone", 1, 1))


def test_a_report_changes_only_its_own_values() -> None:
    store = make_store(make_run("a", "running", step=1, loss=0.5, best_similarity=0.5, tokens="auto", steps=300))
    store.apply_report(RunReport("a", 2, 4, loss=None, similarity=None))
    now = store.by_id["a"]
    assert (now.step, now.loss, now.similarity) == (2, None, None)  # the loss is not a number any more
    assert (now.best_similarity, now.tokens, now.steps) == (0.5, "auto", 300)


def test_a_restarted_search_has_no_similarity_yet() -> None:
    store = make_store(make_run("a", "running", text="fox", hard_similarity=0.8))
    message = {
        "type": "report",
        "run": "a",
        "step": 1,
        "tokens": 3,
        "loss": 0.1,
        "similarity": 0.9,
        "text": "",
        "hard_similarity": None,
    }
    store.apply_report(RunReport.from_message(message))
    assert (store.by_id["a"].text, store.by_id["a"].hard_similarity) == ("", None)


def test_unfinished_runs_are_sorted_by_start_and_ended_ones_by_end() -> None:
    store = make_store(
        make_run("old", "done", ended="2026-01-01"),
        make_run("later", "queued", position=2.0),
        make_run("new", "failed", ended="2026-01-02"),
        make_run("now", "running", position=9.0),
        make_run("next", "queued", position=1.0),
        make_run("odd", "unreadable"),
        make_run("held", "paused"),
    )
    assert [run.id for run in store.sorted_runs()] == ["now", "next", "later", "held", "odd", "new", "old"]
    assert store.active_ids() == ["later", "now", "next"]
    assert (store.count("queued"), store.is_training("now"), store.is_training("next")) == (2, True, False)


def test_the_latest_search_for_a_hard_readout_counts() -> None:
    searches = [make_run(str(i), "done", of_entry="fox", created=f"2026-01-0{i}") for i in (2, 3, 1)]
    store = make_store(*searches, make_run("4", of_entry="boat", created="2026-01-04"))
    assert store.latest_search("fox") == searches[1]
    assert store.latest_search("lake") is None
