"""The title line: what it cuts where a notice does not fit."""

from __future__ import annotations

import pytest

from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture

pytestmark = pytest.mark.usefixtures("runtime")
NAME = "a very long name of a soft prompt that nobody would ever want to type twice"


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("{} is in the library, similarity 0.9971", "is in the library, similarity 0.9971"),
        ("{} deleted; press u to undo", " deleted; press u to undo"),
        ("a variation of {}, seed 1: ctrl+t trains it", "seed 1: ctrl+t trains it"),
    ],
)
def test_a_long_name_loses_its_middle_and_the_rest_of_a_notice_stays(width: int, text: str, end: str) -> None:
    async def scene(d: Session) -> None:
        start = text.partition("{}")[0]
        await d.shows("worker ready")
        d.app.show_status(text.format(NAME), name=NAME)
        await d.shows(f"{start}a ve", "…")
        assert d.text().splitlines()[0].rstrip().endswith(end)

    run_scene(scene, width)


def test_a_notice_takes_the_place_of_what_does_not_fit_beside_it() -> None:
    async def scene(d: Session) -> None:
        await d.shows("worker ready")
        d.app.main.title_line.set_state("accent", "training 000000", "fox", right="5 waiting")
        d.app.show_status("owl deleted; press u to undo", name="owl")
        await d.shows("● owl deleted; press u to undo", "5 waiting")
        d.app.show_status(
            "the white owl in the old barn is open: its tokens are [v1] to [v3]", name="the white owl in the old barn"
        )
        await d.shows("the white ow…d barn is open: its tokens are [v1] to [v3]")
        assert "waiting" not in d.text()

    run_scene(scene, 60)


def test_the_state_cuts_the_name_of_the_run_and_shows_the_open_entry() -> None:
    async def scene(d: Session) -> None:
        await d.shows("worker ready")
        d.app.main.title_line.set_state("accent", "training 000000", NAME, "open: fox", name=NAME)
        await d.shows("training 000000  ·  a very long n", "…", "  ·  open: fox")

    run_scene(scene)
