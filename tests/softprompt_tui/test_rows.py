"""Rows that can be told apart: prompts, tags, the trash, ages, the row that other panes show, and completion."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from textual.geometry import Offset
from textual.widgets import Input, OptionList

from softprompt import Library
from softprompt.jobs.job import TrainJob
from softprompt.prompts.results import Neighbour, ReadoutToken
from softprompt.worker import protocol as p
from softprompt_tui.screens.choice import ChoiceScreen
from softprompt_tui.widgets.lazy_table import Column, Row, Table
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

pytestmark = pytest.mark.usefixtures("runtime")
NAME = "portrait-of-an-old-sailor-with-a-white-beard"


def save_all() -> None:
    for name, prompt, tags in (
        (f"{NAME}-1", "portrait of an old sailor with a white beard, rembrandt lighting", ["people"]),
        (f"{NAME}-2", "portrait of an old sailor with a white beard, candle light", ["people", "dark"]),
        ("red-fox", "a red fox asleep in deep snow", ["animal"]),
    ):
        Library().tag(Library().save(a_prompt(name=name, hard_prompt=prompt)).id, tags)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 170, 250])
def test_a_row_shows_the_end_of_its_name_and_its_prompt_at_every_width(width: int) -> None:
    save_all()

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.library_pane.table.total == 3)
        await d.shows("-1", "-2", "red-fox", "portrait of an", "a red fox")
        if d.app.main.library_pane.table.row_width >= 50:
            await d.shows("#animal", "#dark")

    run_scene(scene, width, 30)


def test_a_tag_filters_the_list_until_escape() -> None:
    save_all()

    async def scene(d: Session) -> None:
        table = d.app.main.library_pane.table
        await d.pilot.press("f4", "#")
        await d.until(lambda: isinstance(d.app.screen, ChoiceScreen))
        await d.shows("all entries", "#people   2", "#animal   1")
        await d.pilot.press("down", "enter")
        await d.until(lambda: table.total == 2)
        await d.shows("2 #people", "esc all")
        await d.pilot.press("slash", *"candle", "enter")
        await d.until(lambda: table.total == 1)
        await d.pilot.press("escape")  # first the search
        await d.until(lambda: table.total == 2)
        await d.pilot.press("escape")
        await d.until(lambda: table.total == 3)

    run_scene(scene)


@pytest.mark.parametrize("width", [60, 80])
def test_a_search_has_its_sign_and_its_keys(width: int) -> None:
    save_all()

    async def scene(d: Session) -> None:
        table = d.app.main.library_pane.table
        await d.pilot.press("f4")
        await d.until(lambda: table.total == 3)
        assert "esc" not in d.text().splitlines()[-1]
        await d.pilot.press("slash")
        await d.shows("│ / words in name", "⏎ ↓ To the list", "esc End search")
        await d.pilot.press(*"candle")
        await d.until(lambda: table.total == 1)
        await d.shows("│ / candle")
        await d.pilot.press("down")
        assert d.app.focused is table
        await d.shows("⏎ Open", "esc End search")
        await d.pilot.press("escape")
        await d.until(lambda: table.total == 3)
        await d.until(lambda: "│ / " not in d.text() and "esc" not in d.text().splitlines()[-1])

    run_scene(scene, width)


def test_the_key_bar_says_what_escape_ends() -> None:
    save_all()

    async def scene(d: Session) -> None:
        table = d.app.main.library_pane.table
        await d.pilot.press("f4")
        await d.until(lambda: table.total == 3)
        d.app.main.library_pane.filter_by("people")
        await d.until(lambda: table.total == 2)
        await d.shows("esc All entries")
        await d.pilot.press("space")
        await d.until(lambda: "esc" not in d.text().splitlines()[-1])
        await d.pilot.press("escape")
        await d.shows("esc All entries")
        assert not table.marked
        await d.pilot.press("escape")
        await d.until(lambda: table.total == 3)
        await d.pilot.press("T")
        await d.shows("esc Library")
        await d.pilot.press("escape")
        await d.until(lambda: table.total == 3)
        await d.until(lambda: "esc" not in d.text().splitlines()[-1])

    run_scene(scene)


def test_the_trash_is_listed_and_restored_and_nothing_else_acts_on_it() -> None:
    save_all()

    async def scene(d: Session) -> None:
        table = d.app.main.library_pane.table
        await d.pilot.press("f4")
        await d.until(lambda: table.total == 3)
        await d.pilot.press("space", "space", "d")
        await d.until(lambda: table.total == 1)
        await d.pilot.press("T")
        await d.until(lambda: table.total == 2)
        await d.shows("trash: 2", "R restore", "⏎ Restore")
        assert "Open" not in d.text()
        await d.pilot.press("d", "r", "e", "n")  # keys of the library
        assert Library().list(trashed=True).total == 2
        await d.pilot.press("space", "space", "R")
        await d.until(lambda: table.total == 0)
        await d.shows("The trash is empty")
        assert "Restore" not in d.text()
        await d.pilot.press("escape")
        await d.until(lambda: table.total == 3)
        await d.shows("⏎ Open")
        await d.pilot.press("u")
        await d.shows("nothing to undo")

    run_scene(scene)


def test_the_trash_shows_what_is_under_the_cursor() -> None:
    for name, words in (("river", "a boat on a river"), ("owl", "an owl in the snow")):
        readout = (ReadoutToken(f"{name}word", 0.4, (Neighbour("other", 0.3),)),)
        Library().save(a_prompt(name=name, hard_prompt=words, readout=readout, readout_text=f"{name}word"))
        Library().delete(name)

    async def scene(d: Session) -> None:
        table = d.app.main.library_pane.table
        await d.pilot.press("f4")
        await d.shows("The library is empty", "F4 Library")
        await d.pilot.press("T")
        await d.shows("F4 Trash", "deleted", "F3 Loss  owl", "▸owl", "owlword", "an owl in the snow", "R restores")
        assert "Hard readout" not in d.text()
        assert d.app.main.check_action("harden", ()) is False
        await d.pilot.press("down")
        await d.shows("F3 Loss  river", "▸river", "riverword", "a boat on a river")
        await d.pilot.press("R")
        await d.until(lambda: table.total == 1)
        await d.shows("F3 Loss  owl", "▸owl", "owlword")
        await d.pilot.press("T")
        await d.shows("F4 Library", "age", "F3 Loss  river", "▸river", "none yet: x searches for one")
        assert "deleted" not in d.text()

    run_scene(scene, 120, 50)


def test_the_row_that_the_other_panes_show_is_marked() -> None:
    save_all()

    async def scene(d: Session) -> None:
        table = d.app.main.library_pane.table
        await d.pilot.press("f4", "down")
        await d.until(lambda: d.app.main.detail.entry == table.current != "")
        await d.until(lambda: sum("▸" in line for line in d.text().splitlines()) == 1)
        run = await d.train()
        d.worker.begin(run)
        await d.until(lambda: not any("▸" in line for line in d.text().splitlines()))
        await d.pilot.press("f6")
        await d.shows("▸running")

    run_scene(scene)


def test_ages_grow_while_nothing_else_happens() -> None:
    created = datetime.now(UTC) - timedelta(seconds=59.5)
    Library().save(a_prompt(name="fox", created=created.isoformat()))

    async def scene(d: Session) -> None:
        pane = d.app.main.library_pane
        await d.pilot.press("f4")
        await d.until(lambda: pane.table.total == 1)

        def shows_a_minute() -> bool:
            pane._update_ages()  # what its timer does every ten seconds
            return "1 min" in d.text()

        await d.until(shows_a_minute)

    run_scene(scene)


@pytest.mark.parametrize("typed", ["port", "sailor", "ilor-w", "candle"])
def test_a_word_is_completed_by_a_part_of_a_name_or_a_word_of_its_prompt(typed: str) -> None:
    save_all()

    async def scene(d: Session) -> None:
        await d.pilot.press("f5", "[", *typed)
        names = d.app.main.compose_pane.query_one("#names", OptionList)
        await d.until(lambda: names.display and names.option_count == (1 if typed == "candle" else 2))
        await d.pilot.press("enter")
        await d.until(lambda: d.app.main.compose_pane.composition.startswith(f"[{NAME}-"))

    run_scene(scene, 120, 40)


def test_suggestions_begin_with_names_that_start_with_the_text() -> None:
    for name, prompt in (("old fox", "a cat"), ("fox", "a dog"), ("cat", "a fox")):
        Library().save(a_prompt(name=name, hard_prompt=prompt))
    assert [entry.name for entry in Library().suggest("fox")] == ["fox", "old fox", "cat"]
    assert [entry.name for entry in Library().suggest("fox", 1)] == ["fox"]
    assert len(Library().suggest("")) == 3
    assert Library().suggest("\ud800%_") == []


def test_tags_are_counted_without_the_trash() -> None:
    save_all()
    Library().delete("red-fox")
    assert Library().tags() == {"people": 2, "dark": 1}


def test_a_click_finds_the_row_of_any_of_its_lines() -> None:
    save_all()

    async def scene(d: Session) -> None:
        table = d.app.main.library_pane.table
        await d.pilot.press("f4")
        await d.until(lambda: table.total == 3 and table.row_height == 3)
        for line, row in ((1, 0), (3, 0), (4, 1), (6, 1), (8, 2)):
            await d.pilot.click(table, offset=Offset(5, line))
            assert table.cursor == row

    run_scene(scene)


def test_a_long_two_line_table_scrolls_to_every_row() -> None:
    async def scene(d: Session) -> None:
        table = Table((Column("name", 0),), details=((Column("prompt", 0),),), lines=2)
        await d.app.screen.mount(table)
        table.styles.height = 12
        await d.until(lambda: table.size.height == 12)
        table.reset(1000)
        for page in range(10):
            table.fill(
                page, [Row(f"{i}", (f"row {i}",), ((f"words {i}",),)) for i in range(page * 100, page * 100 + 100)]
            )
        for row in (0, 3, 5, 6, 999, 500, 499, 0):
            table.cursor = row
            await d.pilot.pause()
            shown = "\n".join(table.render_line(y).text for y in range(12))
            assert f"row {row} " in shown
            assert f"words {row} " in shown

    run_scene(scene)


def test_after_a_filter_the_panes_show_the_entry_under_the_cursor() -> None:
    library = Library()
    for name, tag in (("fox", "animal"), ("lake", "place"), ("owl", "animal")):
        library.tag(library.save(a_prompt(name=name)).id, [tag])

    async def scene(d: Session) -> None:
        table = d.app.main.library_pane.table
        await d.pilot.press("f4")
        await d.until(lambda: d.app.main.detail.entry_id == table.current)
        d.app.main.library_pane.filter_by("place")
        await d.until(lambda: table.total == 1 and d.app.main.detail.entry_id == library.find("lake").id)
        await d.pilot.press("escape")
        await d.until(lambda: table.total == 3 and d.app.main.detail.entry_id == table.current)

    run_scene(scene)


@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 24), (120, 40), (200, 60)])
def test_the_names_after_a_bracket_cover_only_the_compose_pane(width: int, height: int) -> None:
    save_all()

    async def scene(d: Session) -> None:
        pane = d.app.main.compose_pane
        await d.pilot.press("f5", "[")
        names = pane.query_one("#names", OptionList)
        await d.until(lambda: names.display and names.option_count == 3)
        await d.shows("portrait-", "-1", "-2")  # a long name is cut in the middle
        await d.until(lambda: names.region in pane.region)
        assert names.size.height >= 2

    run_scene(scene, width, height)


def test_rows_have_all_their_lines_while_none_is_out_of_sight() -> None:
    async def scene(d: Session) -> None:
        table = Table((Column("name", 0),), details=((Column("prompt", 0),), (Column("words", 0),)), lines=2)
        await d.app.screen.mount(table)
        table.styles.height = 13
        await d.until(lambda: table.size.height == 13)
        for count, lines in ((1, 3), (4, 3), (5, 2), (9, 2)):
            table.reset(count)
            assert table.row_height == lines, count
        table.lines = 1
        for count, lines in ((4, 3), (6, 2), (7, 1)):
            table.reset(count)
            assert table.row_height == lines, count

    run_scene(scene)


# the run under the cursor


async def train_some(d: Session, count: int) -> list[str]:
    """Train runs to their end, each with a curve, and return their ids in the order of Runs."""
    runs = []
    for i in range(count):
        d.app.main.prompt_pane.set(f"fox number {i}")
        run = await d.train()
        d.worker.begin(run)
        d.worker.report(run, 100, loss=0.5)
        d.worker.report(run, 200 + i, loss=0.1)
        d.worker.end(run)
        await d.until(lambda run=run: d.app.runs.by_id[run].state == "done")
        runs.insert(0, run)
    return runs


def test_loss_and_readout_follow_the_cursor_of_runs() -> None:
    async def scene(d: Session) -> None:
        runs = await train_some(d, 3)
        await d.pilot.press("f6", "j")
        await d.shows("F3 Loss  fox-number-1")
        await d.until(lambda: d.app.main.detail.run == runs[1])
        row = next(line for line in d.text().splitlines() if "▸done" in line)
        assert "fox-number-1" in row
        await d.pilot.press("j")
        await d.shows("F3 Loss  fox-number-0")

    run_scene(scene, 120, 40)


def test_a_held_key_loads_only_the_run_on_which_it_ends() -> None:
    async def scene(d: Session) -> None:
        runs = await train_some(d, 6)
        await d.until(lambda: d.app.main.detail.run == runs[0])
        await d.pilot.press("f6", "g")
        await d.pilot.pause(0.2)
        before = [request for request in d.worker.requests if isinstance(request, p.Curve)]
        d.press_at_once(*"jjjjj")
        await d.shows("F3 Loss  fox-number-0")
        curves = [request for request in d.worker.requests if isinstance(request, p.Curve)][len(before) :]
        assert curves[-1].run == runs[5]
        assert len(curves) <= 2

    run_scene(scene, 120, 40)


def test_a_key_right_after_the_cursor_acts_on_the_entry_of_the_run_that_it_has_reached() -> None:
    async def scene(d: Session) -> None:
        runs = await train_some(d, 2)
        await d.pilot.press("f6", "g")
        await d.until(lambda: d.app.main.detail.run == runs[0])
        d.press_at_once("j", "f9", "x")
        await d.until(lambda: len(d.worker.runs) == 3)
        assert max(d.worker.runs.values(), key=lambda run: run.position).job.entry == d.app.runs.by_id[runs[1]].entry

    run_scene(scene, 120, 40)


def test_a_run_that_starts_does_not_replace_the_one_under_the_cursor() -> None:
    async def scene(d: Session) -> None:
        runs = await train_some(d, 2)
        await d.pilot.press("f6", "G")
        await d.until(lambda: d.app.main.detail.run == runs[1])
        other = (await d.app.worker.submit(TrainJob("a blue boat"))).id
        d.worker.begin(other)
        await d.until(lambda: d.app.runs.by_id.get(other) and d.app.runs.by_id[other].state == "running")
        assert d.app.main.detail.run == runs[1]
        await d.pilot.press("g")
        await d.until(lambda: d.app.main.detail.run == other)

    run_scene(scene, 120, 40)


def test_after_a_drop_the_next_run_is_shown() -> None:
    async def scene(d: Session) -> None:
        runs = await train_some(d, 3)
        await d.pilot.press("f6", "j", "d")
        await d.until(lambda: runs[1] not in d.app.runs.by_id)
        await d.shows("F3 Loss  fox-number-0")

    run_scene(scene, 120, 40)


def test_enter_in_runs_is_named_after_what_it_does() -> None:
    async def scene(d: Session) -> None:
        Library().save(a_prompt(name="lake"))
        runs = await train_some(d, 1)
        sweep = await d.sweep()
        d.worker.begin(sweep)
        await d.pilot.press("escape", "f4", "end")
        await d.until(lambda: d.app.main.detail.entry)
        await d.pilot.press("f6")
        await d.shows("⏎ Open")  # the sweep
        await d.pilot.press("j")
        await d.until(lambda: d.app.main.detail.run == runs[0] and "⏎" not in d.text())  # it is in view
        await d.pilot.press("f4", "home", "f6")
        await d.until(lambda: d.app.main.detail.entry)

    run_scene(scene, 120, 40)


def test_a_finished_run_offers_neither_stop_nor_pause() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        await d.pilot.press("f6")
        await d.until(lambda: "Stop" in d.text())
        d.worker.begin(run)
        d.worker.end(run)
        await d.until(lambda: "Stop" not in d.text() and "Drop" in d.text())

    run_scene(scene)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 170, 250])
def test_a_run_shows_its_name_before_its_figures(width: int) -> None:
    async def scene(d: Session) -> None:
        await d.train()
        await d.pilot.press("f6")
        table = d.app.main.runs_pane.table
        await d.until(lambda: table.total == 1)
        heading = table.render_line(0).text
        assert len(heading) - heading.index("name") >= 16
        assert "state" in heading

    run_scene(scene, width, 30)


def test_a_column_takes_at_most_its_share_and_a_row_can_be_dim() -> None:
    async def scene(d: Session) -> None:
        table = Table((Column("name", 0, max_width=8, cut_middle=True), Column("size", 4)))
        await d.app.screen.mount(table)
        table.reset(2)
        table.fill(0, [Row("a", ("portrait-1", "x")), Row("b", ("river", "y"), is_dim=True)])
        await d.until(lambda: table.row_width > 40)
        assert table.render_line(1).text.rstrip() == " portr…-1 x"
        dim = table.get_component_rich_style("table--detail").color
        style = table.render_line(2)._segments[0].style
        assert style
        assert style.color == dim != table.rich_style.color

    run_scene(scene)


def test_a_field_without_the_focus_shows_both_ends_of_a_long_value() -> None:
    async def scene(d: Session) -> None:
        line = d.app.screen.query_one("#field-model", Input)
        line.value = "local-dir:/home/someone/models/a-long-name/with-an-end"
        await d.shows("local-d…-end")
        line.focus()
        await d.until(lambda: line.has_focus)
        assert "…" not in line.render_line(0).text

    run_scene(scene, 120, 30)


def test_a_key_right_after_the_cursor_acts_on_the_run_that_it_has_reached() -> None:
    async def scene(d: Session) -> None:
        ended, running = await d.train(), await d.train()
        for run in (ended, running):
            d.worker.begin(run)
        d.worker.end(ended)
        await d.until(lambda: d.app.runs.by_id[ended].state == "done" and d.app.runs.by_id[running].state == "running")
        await d.pilot.press("f6", "j")
        await d.until(lambda: d.app.main.runs_pane.table.current == ended and "s Stop" not in d.text())
        d.press_at_once("k", "s")
        await d.until(lambda: p.Stop(running) in d.worker.requests)

    run_scene(scene)


def test_a_running_run_offers_no_drop_and_an_ended_run_no_stop() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        await d.pilot.press("f6")
        await d.shows("s Stop", "p Pause")
        assert "Drop" not in d.text().splitlines()[-1]
        d.worker.end(run, error="no memory")
        await d.shows("d Drop")
        assert "s Stop" not in d.text().splitlines()[-1]

    run_scene(scene, 120, 40)


def test_a_huge_terminal_shows_how_similar_a_run_is() -> None:
    async def scene(d: Session) -> None:
        run = await d.train()
        d.worker.begin(run)
        d.worker.report(run, 120)
        await d.pilot.press("f6")
        await d.shows("similar name", "0.5000 image")

    run_scene(scene, 200, 60)


def test_the_prompt_has_the_cells_of_tags_that_no_entry_has() -> None:
    words = "a small red fox asleep in deep snow below a tall and very old pine tree"
    entry = Library().save(a_prompt(name="fox", hard_prompt=words))

    async def scene(d: Session) -> None:
        await d.pilot.press("f4")
        await d.shows("below a tall")
        shown = next(line for line in d.text().splitlines() if "a small red" in line)
        Library().tag(entry.id, ["animal"])
        d.app.main.library_pane.reload()
        await d.shows("#animal")
        tagged = next(line for line in d.text().splitlines() if "a small red" in line)
        assert len(shown[: shown.index("…")]) > len(tagged[: tagged.index("…")])

    run_scene(scene, 160, 40)


@pytest.mark.parametrize(
    ("height", "shown"),
    [
        (8, ["", "None yet.", "", "ctrl+t makes one", "of them."]),
        (4, ["None yet.", "ctrl+t makes one", "of them."]),
        (3, ["None yet. ctrl+t", "makes one of them."]),
    ],
)
def test_an_empty_table_says_all_that_it_has_to_say_in_any_height(height: int, shown: list[str]) -> None:
    async def scene(d: Session) -> None:
        table = Table((Column("name", 0),), "None yet.\n\nctrl+t makes one of them.")
        await d.app.screen.mount(table)
        table.styles.height, table.styles.width = height, 20
        await d.until(lambda: table.size == (20, height))
        lines = [table.render_line(y).text.strip() for y in range(1, height)]
        assert [*lines[: len(shown)], *filter(None, lines[len(shown) :])] == shown

    run_scene(scene)


@pytest.mark.parametrize(("height", "has_all"), [(20, False), (40, True)])
def test_a_low_compose_pane_shows_one_whole_sentence(height: int, has_all: bool) -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("f5")
        await d.shows("A soft prompt is a word: type [ and its name.")
        await d.until(lambda: ("[v1] is a token" in d.text()) == has_all)

    run_scene(scene, 60, height)


def test_an_empty_prompt_shows_an_example_and_no_count() -> None:
    async def scene(d: Session) -> None:
        await d.shows("13 of 77 tokens")
        await d.pilot.press("ctrl+g")
        await d.shows("a red fox asleep in deep snow")
        await d.until(lambda: "of 77 tokens" not in d.text())
        assert d.app.main.prompt_pane.prompt == ""
        await d.pilot.press("x")
        await d.shows("3 of 77 tokens")
        assert "red fox" not in d.text()

    run_scene(scene)


def test_the_details_of_a_huge_terminal_are_as_high_as_their_text_and_the_lists_have_the_rest() -> None:
    for i in range(30):
        Library().save(a_prompt(name=f"fox {i}"))

    async def scene(d: Session) -> None:
        main = d.app.main
        await d.pilot.press("f4")
        await d.until(lambda: main.detail.shown_entry)
        await d.until(lambda: main.detail_pane.size.height == main.detail_pane.text_lines > 5)
        below = main.library_pane.region
        assert below.bottom == main.detail_pane.region.y
        Library().annotate(main.detail.entry_id, "a note that takes a line")
        main.detail.reload()
        await d.shows("a note that takes a line")
        await d.until(lambda: main.detail_pane.size.height == main.detail_pane.text_lines)
        lines = main.detail_pane.size.height
        await d.pilot.press("down")  # an entry without a note
        await d.until(lambda: main.detail_pane.text_lines == lines - 2)
        assert main.detail_pane.size.height == lines
        await d.pilot.resize_terminal(120, 60)
        await d.until(lambda: main.detail_pane.parent is main.query_one("#right"))
        await d.pilot.resize_terminal(200, 60)
        await d.until(lambda: main.detail_pane.parent is main.query_one("#left"))
        await d.until(lambda: main.detail_pane.size.height == main.detail_pane.text_lines)

    run_scene(scene, 200, 60)
