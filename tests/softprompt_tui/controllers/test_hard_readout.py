"""Hard readouts in the interface: beside the other two similarities, looked for by a key, live, and copied."""

from __future__ import annotations

import pytest

from softprompt import Library
from softprompt.errors import ConfigError
from softprompt.prompts.results import HardReadout
from softprompt.worker import protocol as p
from softprompt_tui.rendering.details import in_full
from softprompt_tui.screens.training_settings import MORE
from softprompt_tui.services.job_form import hard_of, job_from_form
from softprompt_tui.state.settings import Form
from softprompt_tui.widgets.sparkline import Spark
from tests.app_harness import Desk, runtime, works  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("runtime")
FOUND = HardReadout("dawn lakeside pines mist", 4, 0.9713, 0.9544, "exchange", 12_345, 6.3)
FIELDS = {"tokens": "3", "steps": "9", "stop_at": "", "model": "mini", "device": "cpu", "contexts": "no"}


def submitted(d: Desk) -> list[p.Submit]:
    return [one for one in d.worker.asked if isinstance(one, p.Submit)]


async def at_the_entry(d: Desk) -> None:
    await d.pilot.press("f4")
    await d.until(lambda: d.app.main.library_pane.table.current)
    await d.until(lambda: d.app.main.detail.read is not None)


def test_a_hard_readout_is_looked_for_live_and_stays_with_its_entry() -> None:
    entry = Library().save(a_prompt(name="lake", hard_prompt="a lake at dawn", device="cpu, float32")).id

    async def scene(d: Desk) -> None:
        d.app.settings.more = {"hard": "4", "words": "ascii", "block": "sunrise | dusk"}
        await at_the_entry(d)
        await d.shows("soft    0.9971", "as text 0.8000", "hard    -", "not looked for yet")
        await d.pilot.press("f9", "y")
        await d.shows("there is no hard readout to copy")
        await d.pilot.press("x")
        await d.until(lambda: d.worker.records)
        (run,) = d.worker.records
        job = d.worker.records[run].job
        assert (job.kind, job.entry, job.prompt, job.name) == ("hard", entry, "a lake at dawn", "lake")
        assert job.hard is not None
        assert (job.hard.tokens, job.hard.words, job.hard.block, job.hard.seed) == (4, "ascii", ("sunrise", "dusk"), 0)
        await d.shows("waiting for its turn")
        await d.pilot.press("x")
        await d.shows("it is being looked for already")
        d.worker.begin(run)
        d.worker.search(run, 7, "dawn pier", 0.91)
        await d.shows(
            "hard    0.9100 dawn pier",
            "round 7 of 100",
            "live: hard readout of lake",
            "1 - similarity of the best text",
        )
        assert not d.app.main.loss.query_one(Spark).display  # one text is no curve
        d.worker.search(run, 8, "dawn pier", 0.91)
        d.worker.search(run, 9, "dawn lakeside", 0.93)
        await d.until(lambda: d.app.main.loss.query_one(Spark).display)
        d.worker.search(run, 10, "dawn pier", 0.91)
        await d.pilot.press("f3")
        await d.shows("hard readout of lake", "1 - similarity of the best text, all steps")
        await d.pilot.press("escape", "f9")
        await d.pilot.press("y")
        await d.until(lambda: d.app.clipboard == "dawn pier")  # the best so far
        d.worker.end(run, hard=FOUND)
        await d.shows("hard    0.9713", "lake has a hard readout")
        await d.shows("composed 0.9544", "done: 1 - similarity of the best text")
        await d.pilot.press("y")
        await d.until(lambda: d.app.clipboard == FOUND.text)
        await d.pilot.press("f6")
        await d.shows("hard", "done")
        await d.pilot.press("f4", "Y", "i")
        await d.shows("4 tokens, similarity 0.9713, composed 0.9544")
        await d.pilot.press("escape", "x")  # another one, from another seed
        await d.until(lambda: len(d.worker.records) == 2)
        again = d.worker.records[max(d.worker.records)].job.hard
        assert again is not None
        assert again.seed == 1
        assert len(submitted(d)) == 2

    works(scene, 100, 30)


def test_an_entry_shows_the_search_for_it_wherever_the_cursor_was_meanwhile() -> None:
    library = Library()
    library.save(a_prompt(name="lake", hard=FOUND, created="2026-01-01T00:00:00+00:00"))
    library.save(a_prompt(name="fox", created="2026-01-02T00:00:00+00:00"))

    async def scene(d: Desk) -> None:
        await at_the_entry(d)
        await d.pilot.press("j")
        await d.shows("hard    0.9713", "composed 0.9544", "y copy it")
        await d.pilot.press("x")
        await d.until(lambda: d.worker.records)
        (run,) = d.worker.records
        d.worker.begin(run)
        await d.pilot.press("k")
        await d.until(lambda: d.app.main.detail.title == "fox")
        await d.shows("not looked for yet")
        d.worker.search(run, 3, "", 0.0)
        await d.pilot.press("j")
        await d.shows("another one: round 3", "0.9713")
        d.worker.search(run, 4, "misty pier", 0.98)
        await d.shows("0.9800", "misty pier")
        d.worker.end(run, error="cpu is out of memory")
        await d.shows("hard    0.9713")

    works(scene, 100, 30)


def test_a_search_that_failed_says_why_and_is_tried_again() -> None:
    Library().save(a_prompt(name="lake"))

    async def scene(d: Desk) -> None:
        await at_the_entry(d)
        await d.pilot.press("x")
        await d.until(lambda: d.worker.records)
        (run,) = d.worker.records
        d.worker.end(run, error="no text of these tokens survives")
        await d.shows("failed: no text of", "x tries", "no text of these tokens survives")
        await d.pilot.press("x")
        await d.until(lambda: len(d.worker.records) == 2)

    works(scene, 100, 30)


@pytest.mark.parametrize(
    ("unknown", "said"),
    [({"hard_prompt": ""}, "what it means is not known"), ({"model": ""}, "its model is not known")],
)
def test_what_cannot_be_looked_for_is_said(unknown: dict[str, str], said: str) -> None:
    Library().save(a_prompt(name="lake", **unknown))

    async def scene(d: Desk) -> None:
        await at_the_entry(d)
        await d.shows(said)
        await d.pilot.press("x")
        await d.shows("cannot be looked for")
        assert not submitted(d)

    works(scene, 120, 40)


def test_a_training_that_looks_for_one_at_its_end_shows_it_and_keeps_its_curve() -> None:
    async def scene(d: Desk) -> None:
        d.app.settings.more = {"hard": "yes"}
        run = await d.train()
        asked = d.worker.records[run].job
        assert (asked.kind, asked.hard and asked.hard.tokens) == ("train", None)
        d.worker.begin(run)
        for step in (10, 20, 300):
            d.worker.report(run, step, loss=1 / step)
        await d.shows("step 300 of 300", "is looked for when the")
        await d.pilot.press("f9", "x")
        await d.shows("when the training is done")
        d.worker.search(run, 5, "dawn pier", 0.91)
        await d.shows("hard    0.9100", "dawn pier", "hard readout: round 5 of 100", "step 300 of 300", "trained;")
        assert [point[0] for point in d.app.main.detail.series.points] == [10, 20, 300]
        d.worker.end(run, hard=FOUND)
        await d.shows("hard    0.9713")

    works(scene, 100, 30)


def test_nothing_is_looked_for_where_nothing_is_shown() -> None:
    async def scene(d: Desk) -> None:
        await d.pilot.press("f9", "x")
        await d.shows("nothing is shown")
        await d.pilot.press("f6", "x", "f4", "x", "Y")
        assert not submitted(d)

    works(scene)


def test_on_a_small_screen_the_readout_has_room_while_it_is_read() -> None:
    Library().save(a_prompt(name="lake", hard=FOUND))

    async def scene(d: Desk) -> None:
        await at_the_entry(d)
        await d.shows("soft 0.9971  as text 0.8000  hard 0.9713  dawn")
        await d.pilot.press("f9")
        await d.shows("hard    0.9713 dawn lakeside pines mist", "[v1]", "y copy it")
        await d.pilot.press("f4")
        await d.shows("soft 0.9971  as text")

    works(scene, 60, 20)


def test_the_fields_reach_the_job() -> None:
    assert {"hard", "words", "block", "sweep"} < set(MORE)
    assert job_from_form(Form("a lake", FIELDS), {}).hard is None
    assert job_from_form(Form("a lake", FIELDS), {"hard": "no", "words": "ascii"}).hard is None
    hard = job_from_form(Form("a lake", FIELDS), {"hard": "6", "words": "dictionary", "block": "a | b"}).hard
    assert hard is not None
    assert (hard.tokens, hard.words, hard.block) == (6, "dictionary", ("a", "b"))
    assert hard_of({"hard": "1"}).tokens == 1
    with pytest.raises(ConfigError, match="hard is 'many': a whole number"):
        job_from_form(Form("a lake", FIELDS), {"hard": "many"})
    with pytest.raises(ConfigError, match="words is 'odd'"):
        job_from_form(Form("a lake", FIELDS), {"hard": "yes", "words": "odd"})


def test_details_tell_it() -> None:
    saved = Library().save(a_prompt(name="lake", hard=FOUND))
    told = dict(in_full(saved).rows)["hard readout"]
    assert (
        told
        == "dawn lakeside pines mist; 4 tokens, similarity 0.9713, composed 0.9544; exchange, 12,345 texts in 6.3 s"
    )
