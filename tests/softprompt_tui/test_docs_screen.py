"""The guides screen: its list, its text, and the search through all guides."""

from __future__ import annotations

import pytest
from textual.widgets import Input

from softprompt_tui.screens.docs import DocsScreen
from softprompt_tui.services.guides import GUIDES, guide_title
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture

pytestmark = pytest.mark.usefixtures("runtime")
SIZES = [(60, 20), (80, 24), (120, 40), (200, 60)]


async def open_guides(d: Session) -> DocsScreen:
    d.app.main.action_guides()
    await d.shows("First steps", "Troubleshooting" if d.app.size.height > 20 else "Real models")
    assert isinstance(d.app.screen, DocsScreen)
    return d.app.screen


async def find(d: Session, words: str) -> None:
    d.press_at_once("slash", *words)
    await d.shows(words, "found")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_guide_is_chosen_and_read(width: int, height: int) -> None:
    async def scene(d: Session) -> None:
        screen = await open_guides(d)
        d.press_at_once("j", "j", "j")
        await d.shows("Use soft prompts as words", "A name in brackets")
        d.press_at_once("enter")
        await d.until(lambda: screen.focused is screen.text)
        d.press_at_once("G")
        await d.shows("One model at a time", "prompt.")
        d.press_at_once("g")
        await d.shows("Use soft prompts as words")
        assert all(len(line) <= width for line in d.text().splitlines())

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_search_jumps_to_what_it_finds(width: int, height: int) -> None:
    async def scene(d: Session) -> None:
        screen = await open_guides(d)
        await find(d, "out of mem")
        await d.shows("Out of memory", "On a GPU")
        d.press_at_once("enter")
        await d.until(lambda: screen.focused is screen.table)
        d.press_at_once("n")
        await d.shows("─ Thousands of prompts ─")
        d.press_at_once("N")
        await d.shows("On a GPU")
        d.press_at_once("enter")
        await d.until(lambda: screen.focused is screen.text)
        d.press_at_once("escape")
        await d.until(lambda: screen.focused is screen.table)
        d.press_at_once("escape")
        await d.until(lambda: not screen.query_one(Input).display)
        assert screen.table.current == "troubleshooting"
        d.press_at_once("escape")
        await d.until(lambda: d.app.screen is d.app.main)

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_list_has_the_titles_of_the_guides_and_nothing_is_cut(width: int, height: int) -> None:
    async def scene(d: Session) -> None:
        screen = await open_guides(d)
        list_ = screen.query_one("#guide-list")
        for name, about in GUIDES.items():
            await d.until(lambda name=name: screen.text.guide == name)
            lines = [line[list_.region.x : list_.region.right] for line in d.text().splitlines()]
            await d.until(lambda name=name: guide_title(name) in d.text())
            assert width >= 170 or not any("…" in line for line in lines)
            words = " ".join(" ".join(lines).replace("│", " ").split())
            edge = screen.text.border_subtitle or ""
            assert about in words or edge == about or (width == 60 and len(about) > 54)
            assert len(edge) < screen.text.size.width
            d.press_at_once("j")

    run_scene(scene, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_hit_names_its_guide(width: int, height: int) -> None:
    async def scene(d: Session) -> None:
        screen = await open_guides(d)
        await find(d, "out of mem")
        list_ = screen.query_one("#guide-list")
        await d.until(
            lambda: any(
                "Thousands of prompts" in line[: list_.region.right]
                for line in d.text().splitlines()[list_.region.y + 1 : list_.region.bottom]
            )
        )

    run_scene(scene, width, height)


def test_a_search_without_hits_says_so_and_keeps_the_text() -> None:
    async def scene(d: Session) -> None:
        screen = await open_guides(d)
        await find(d, "nosuchword")
        await d.shows("Nothing found", "0 found")
        d.press_at_once("escape")
        await d.shows("Choose the number of tokens")
        assert screen.table.total == len(GUIDES)

    run_scene(scene)


def test_the_key_bar_shows_only_keys_that_work() -> None:
    def bar(d: Session) -> str:
        return d.text().splitlines()[-1]

    async def scene(d: Session) -> None:
        await open_guides(d)
        await d.until(lambda: "Read" in bar(d))
        assert "Next" not in bar(d)
        d.press_at_once("right")
        await d.until(lambda: "List" in bar(d))
        assert "Open" not in bar(d)
        await find(d, "worker")
        await d.until(lambda: "Go there" in bar(d))
        assert "Find" not in bar(d)
        d.press_at_once("enter")
        await d.until(lambda: "Next" in bar(d) and "Previous" in bar(d))

    run_scene(scene, 100, 30)


@pytest.mark.parametrize(
    ("key", "title"), [("f2", "First steps"), ("f4", "The library and its files"), ("f5", "Use soft prompts as words")]
)
def test_d_in_the_help_opens_the_guide_about_the_pane(key: str, title: str) -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press(key, "f1")
        await d.shows("d Guides")
        await d.pilot.press("d")
        await d.shows(title)
        await d.pilot.press("escape")
        await d.until(lambda: d.app.screen is d.app.main)

    run_scene(scene, 120, 60)


def test_the_palette_opens_the_guides() -> None:
    async def scene(d: Session) -> None:
        await d.pilot.press("ctrl+p")
        await d.pilot.press(*"Guides")
        await d.shows("read and search them")
        await d.pilot.press("enter")
        await d.until(lambda: isinstance(d.app.screen, DocsScreen))

    run_scene(scene)


def test_the_text_follows_the_width_and_the_theme() -> None:
    async def scene(d: Session) -> None:
        screen = await open_guides(d)
        await d.pilot.resize_terminal(60, 20)
        await d.until(lambda: screen.text.size.width > 50 and "First steps" in d.text())
        heading = screen.text.get_component_rich_style("guide--title").color
        d.app.theme = "softprompt-light"
        await d.until(lambda: screen.text.get_component_rich_style("guide--title").color != heading)
        await d.until(
            lambda: any(
                segment.style and segment.style.color == screen.text.get_component_rich_style("guide--title").color
                for segment in screen.text.render_line(0)
            )
        )

    run_scene(scene)
