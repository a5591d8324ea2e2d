"""Hard readouts in the interface: start a search with a key, watch it, and copy its result."""

from __future__ import annotations

import pytest

from softprompt import Library
from softprompt.errors import ConfigError
from softprompt.prompts.results import HardReadout
from softprompt.worker import protocol as p
from softprompt_tui.rendering.details import entry_facts
from softprompt_tui.services.job_form import hard_config_from_fields, job_from_form
from softprompt_tui.state.fields import MORE_FIELDS
from softprompt_tui.state.settings import Form
from softprompt_tui.widgets.curve import LossCurve
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("runtime")
READOUT = HardReadout("dawn lakeside pines mist", 4, 0.9713, 0.9544, "exchange", 12_345, 6.3)
FIELDS = {"tokens": "3", "steps": "9", "stop_at": "", "model": "mini", "device": "cpu", "contexts": "no"}


def submit_requests(d: Session) -> list[p.Submit]:
    return [request for request in d.worker.requests if isinstance(request, p.Submit)]


async def select_entry(d: Session) -> None:
    await d.pilot.press("f4")
    await d.until(lambda: d.app.main.library_pane.table.current)
    await d.until(lambda: d.app.main.detail.shown_entry is not None)


def test_a_search_is_shown_live_and_its_result_stays_with_the_entry() -> None:
    entry = Library().save(a_prompt(name="lake", hard_prompt="a lake at dawn", device="cpu, float32")).id

    async def scene(d: Session) -> None:
        d.app.settings.more = {"hard": "4", "words": "ascii", "block": "sunrise | dusk"}
        await select_entry(d)
        await d.shows("soft    0.9971", "as text 0.8000", "hard    -", "none yet: x searches")
        await d.pilot.press("f9")
        await d.shows("x Hard readout")
        assert "Copy it" not in d.text()  # there is none yet
        d.app.main.action_copy_hard()  # as from the palette
        await d.shows("there is no hard readout to copy")
        await d.pilot.press("x")
        await d.until(lambda: d.worker.runs)
        (run,) = d.worker.runs
        job = d.worker.runs[run].job
        assert (job.kind, job.entry, job.prompt, job.name) == ("hard", entry, "a lake at dawn", "lake")
        assert job.hard is not None
        assert (job.hard.tokens, job.hard.words, job.hard.block, job.hard.seed) == (4, "ascii", ("sunrise", "dusk"), 0)
        await d.shows("waiting for its turn")
        await d.pilot.press("x")
        await d.shows("a search for this hard readout has already started")
        d.worker.begin(run)
        d.worker.report_search(run, 7, "dawn pier", 0.91)
        await d.shows(
            "hard    0.9100 dawn pier",
            "round 7 of 100",
            "live: hard readout of lake",
            "1 - similarity of the best text",
        )
        assert not d.app.main.loss.query_one(LossCurve).display  # a single text is not a curve
        d.worker.report_search(run, 8, "dawn pier", 0.91)
        d.worker.report_search(run, 9, "dawn lakeside", 0.93)
        await d.until(lambda: d.app.main.loss.query_one(LossCurve).display)
        d.worker.report_search(run, 10, "dawn pier", 0.91)
        await d.pilot.press("f3")
        await d.shows("hard readout of lake", "1 - similarity of the best text, all steps")
        await d.pilot.press("escape", "f9")
        await d.pilot.press("y")
        await d.until(lambda: d.app.clipboard == "dawn pier")  # the best so far
        d.worker.end(run, hard=READOUT)
        await d.shows("hard    0.9713", "lake has a hard readout")
        await d.shows("composed 0.9544", "done: 1 - similarity of the best text")
        await d.pilot.press("y")
        await d.until(lambda: d.app.clipboard == READOUT.text)
        await d.pilot.press("f6")
        await d.shows("hard", "done")
        await d.pilot.press("f4", "Y", "i")
        await d.shows("4 tokens, similarity 0.9713, composed 0.9544")
        await d.pilot.press("escape", "x")  # a second search, with another seed
        await d.until(lambda: len(d.worker.runs) == 2)
        again = d.worker.runs[max(d.worker.runs)].job.hard
        assert again is not None
        assert again.seed == 1
        assert len(submit_requests(d)) == 2

    run_scene(scene, 100, 30)


def test_an_entry_shows_its_search_after_the_cursor_was_elsewhere() -> None:
    library = Library()
    library.save(a_prompt(name="lake", hard=READOUT, created="2026-01-01T00:00:00+00:00"))
    library.save(a_prompt(name="fox", created="2026-01-02T00:00:00+00:00"))

    async def scene(d: Session) -> None:
        await select_entry(d)
        await d.pilot.press("j")
        await d.shows("hard    0.9713", "composed 0.9544", "y copy it")
        await d.pilot.press("x")
        await d.until(lambda: d.worker.runs)
        (run,) = d.worker.runs
        d.worker.begin(run)
        await d.pilot.press("k")
        await d.until(lambda: d.app.main.detail.title == "fox")
        await d.shows("none yet: x searches")
        d.worker.report_search(run, 3, "", 0.0)
        await d.pilot.press("j")
        await d.shows("new search: round 3", "0.9713")
        d.worker.report_search(run, 4, "misty pier", 0.98)
        await d.shows("0.9800", "misty pier")
        d.worker.end(run, error="cpu is out of memory")
        await d.shows("hard    0.9713")

    run_scene(scene, 100, 30)


def test_a_failed_search_shows_why_and_can_be_repeated() -> None:
    Library().save(a_prompt(name="lake"))

    async def scene(d: Session) -> None:
        await select_entry(d)
        await d.pilot.press("x")
        await d.until(lambda: d.worker.runs)
        (run,) = d.worker.runs
        d.worker.end(run, error="no text of these tokens survives")
        await d.shows("failed: no text of", "x tries", "no text of these tokens survives")
        await d.pilot.press("x")
        await d.until(lambda: len(d.worker.runs) == 2)

    run_scene(scene, 100, 30)


@pytest.mark.parametrize(
    ("unknown", "message"),
    [({"hard_prompt": ""}, "its hard prompt is unknown"), ({"model": ""}, "its model is unknown")],
)
def test_an_impossible_search_shows_why(unknown: dict[str, str], message: str) -> None:
    Library().save(a_prompt(name="lake", **unknown))

    async def scene(d: Session) -> None:
        await select_entry(d)
        await d.shows(message)
        await d.pilot.press("x")
        await d.shows("cannot search for a hard readout")
        assert not submit_requests(d)

    run_scene(scene, 120, 40)


def test_a_training_that_searches_at_its_end_shows_the_search_and_keeps_its_curve() -> None:
    async def scene(d: Session) -> None:
        d.app.settings.more = {"hard": "yes"}
        run = await d.train()
        asked = d.worker.runs[run].job
        assert (asked.kind, asked.hard and asked.hard.tokens) == ("train", None)
        d.worker.begin(run)
        for step in (10, 20, 300):
            d.worker.report(run, step, loss=1 / step)
        await d.shows("300/300", "starts after")
        await d.pilot.press("f9", "x")
        await d.shows("after training")
        d.worker.report_search(run, 5, "dawn pier", 0.91)
        await d.shows("hard    0.9100", "dawn pier", "hard readout: round 5 of 100", "300/300", "trained;")
        assert [point[0] for point in d.app.main.detail.series.points] == [10, 20, 300]
        d.worker.end(run, hard=READOUT)
        await d.shows("hard    0.9713")

    run_scene(scene, 100, 30)


def test_no_search_starts_if_nothing_is_shown() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("f9", "x")
        assert "x Hard readout" not in d.text().splitlines()[-1]
        d.app.main.action_harden()  # as from the palette
        await d.shows("no entry is shown")
        await d.pilot.press("f6", "x", "f4", "x", "Y")
        assert not submit_requests(d)

    run_scene(scene)


def test_on_a_small_screen_the_readout_grows_while_it_has_the_focus() -> None:
    Library().save(a_prompt(name="lake", hard=READOUT))

    async def scene(d: Session) -> None:
        await select_entry(d)
        await d.shows("soft 0.9971  as text 0.8000  hard 0.9713  dawn")
        await d.pilot.press("f9")
        await d.shows("hard    0.9713 dawn lakeside pines mist", "[v1]", "y copy it")
        await d.pilot.press("f4")
        await d.shows("soft 0.9971  as text")

    run_scene(scene, 60, 20)


def test_the_fields_reach_the_job() -> None:
    assert {"hard", "words", "block", "sweep"} < set(MORE_FIELDS)
    assert job_from_form(Form("a lake", FIELDS), {}).hard is None
    assert job_from_form(Form("a lake", FIELDS), {"hard": "no", "words": "ascii"}).hard is None
    hard = job_from_form(Form("a lake", FIELDS), {"hard": "6", "words": "dictionary", "block": "a | b"}).hard
    assert hard is not None
    assert (hard.tokens, hard.words, hard.block) == (6, "dictionary", ("a", "b"))
    assert hard_config_from_fields({"hard": "1"}).tokens == 1
    with pytest.raises(ConfigError, match=r"hard is 'many'\. Use a whole number"):
        job_from_form(Form("a lake", FIELDS), {"hard": "many"})
    with pytest.raises(ConfigError, match="words is 'odd'"):
        job_from_form(Form("a lake", FIELDS), {"hard": "yes", "words": "odd"})


def test_details_contain_the_hard_readout() -> None:
    saved = Library().save(a_prompt(name="lake", hard=READOUT))
    text = dict(entry_facts(saved).rows)["hard readout"]
    assert (
        text
        == "dawn lakeside pines mist; 4 tokens, similarity 0.9713, composed 0.9544; exchange, 12,345 texts in 6.3 s"
    )
