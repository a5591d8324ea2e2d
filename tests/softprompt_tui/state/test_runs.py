"""The runs as the interface knows them: told page by page, changed one by one, and told of by reports."""

from __future__ import annotations

from softprompt.worker.summary import RunReport, RunSummary
from softprompt_tui.state.runs import RunStore


def a_run(run: str, state: str = "queued", **more: object) -> RunSummary:
    return RunSummary(run, state, **more)  # type: ignore[arg-type]


def a_store(*runs: RunSummary) -> RunStore:
    store = RunStore()
    store.begin_list()
    store.take_page(runs, more=False)
    return store


def test_what_a_new_list_does_not_tell_again_was_dropped_meanwhile() -> None:
    store = a_store(a_run("a"), a_run("b"), a_run("c"))
    store.begin_list()
    store.take_page([a_run("b")], more=True)
    assert set(store.known) == {"a", "b", "c"}  # the rest of the list is still to come
    store.know(a_run("c"))
    store.take_page([], more=False)
    assert set(store.known) == {"b", "c"}


def test_what_only_reports_tell_stays_when_the_run_is_told_anew() -> None:
    store = a_store(a_run("a", "running", best_similarity=0.5))
    assert store.take_report(RunReport("a", 10, 3, loss=0.2, similarity=0.8, text="fox", hard_step=1, hard_steps=8))
    now = store.know(a_run("a", "running", step=11))
    assert (now.step, now.text, now.hard_step, now.hard_steps) == (11, "fox", 1, 8)
    assert not store.take_report(RunReport("gone", 1, 1))


def test_a_report_changes_what_it_tells_and_nothing_else() -> None:
    store = a_store(a_run("a", "running", step=1, loss=0.5, best_similarity=0.5, tokens="auto", steps=300))
    store.take_report(RunReport("a", 2, 4, loss=None, similarity=None))
    now = store.known["a"]
    assert (now.step, now.loss, now.similarity) == (2, None, None)  # the loss is no number any more
    assert (now.best_similarity, now.tokens, now.steps) == (0.5, "auto", 300)


def test_a_search_that_begins_anew_has_no_similarity_yet() -> None:
    store = a_store(a_run("a", "running", text="fox", hard_similarity=0.8))
    told = {
        "type": "report",
        "run": "a",
        "step": 1,
        "tokens": 3,
        "loss": 0.1,
        "similarity": 0.9,
        "text": "",
        "hard_similarity": None,
    }
    store.take_report(RunReport.from_message(told))
    assert (store.known["a"].text, store.known["a"].hard_similarity) == ("", None)


def test_runs_are_in_the_order_in_which_they_begin_then_end() -> None:
    store = a_store(
        a_run("old", "done", ended="2026-01-01"), a_run("later", "queued", position=2.0), a_run("new", "failed", ended="2026-01-02"),
        a_run("now", "running", position=9.0), a_run("next", "queued", position=1.0), a_run("odd", "unreadable"), a_run("held", "paused"),
    )  # fmt: skip
    assert [run.id for run in store.in_order()] == ["now", "next", "later", "held", "odd", "new", "old"]
    assert store.going() == ["later", "now", "next"]
    assert (store.count("queued"), store.is_training("now"), store.is_training("next")) == (2, True, False)


def test_the_last_search_for_a_hard_readout_counts() -> None:
    searches = [a_run(str(i), "done", of_entry="fox", created=f"2026-01-0{i}") for i in (2, 3, 1)]
    store = a_store(*searches, a_run("4", of_entry="boat", created="2026-01-04"))
    assert store.search_for("fox") == searches[1]
    assert store.search_for("lake") is None
