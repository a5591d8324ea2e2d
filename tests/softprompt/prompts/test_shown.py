"""What a Python prompt and a notebook show: short, escaped, and without anything from outside."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from softprompt import Library, Report, SoftPrompt, TextEncoder
from softprompt.batches.results import Result
from softprompt.discrete.search import HardReport
from softprompt.library.entry import Entry
from softprompt.library.queries import EntryPage, EntrySummary
from softprompt.prompts.results import Neighbour, ReadoutToken
from softprompt.training.task import TrainingState
from softprompt.training.token_sweep import SweepReport
from tests.library_model import a_prompt

MAX_REPR_LENGTH = 200
HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=alert(1)>",
    "</div></td></table></svg><svg onload=alert(1)>",
    "&lt;script&gt;&#x3c;script&#x3e;<!-- --><![CDATA[",
    "javascript:alert(1) https://example.com style=\"position:fixed\" onclick='x'",
    "\x1b[31m\0\r\n\u202e\u2066\ufeff\ud800\U000e0001" * 100,
    "🦊" * 300_000,
    "",
)
TAGS = {"div", "span", "bdi", "table", "thead", "tbody", "tr", "th", "td", "svg", "title", "polyline"}
ATTRIBUTES = {
    "style",
    "viewbox",
    "width",
    "height",
    "role",
    "points",
    "fill",
    "stroke",
    "stroke-width",
    "stroke-linejoin",
}


class Reader(HTMLParser):
    """Collects the tags, attributes and text of a page, and checks that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.other: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def check_page(page: str) -> Reader:
    """Check that a page consists of the tags and attributes of this program, and return what is in it."""
    read = Reader(page)
    assert read.tags <= TAGS
    assert {name for name, _ in read.attributes} <= ATTRIBUTES
    assert read.other == []
    assert all("url" not in str(value) and "javascript" not in str(value) for _, value in read.attributes)
    assert read.text.replace("\n", "").isprintable()
    assert len(page) < 40_000
    page.encode()
    return read


def hostile_prompt(text: str, **changes: Any) -> SoftPrompt:
    readout = tuple(ReadoutToken(text, 0.5, (Neighbour(text, 0.25),) * 9) for _ in range(40))
    values = {"model": text, "name": text, "readout": readout, "readout_text": text, "warnings": (text,) * 9}
    return a_prompt(hard_prompt=text, **values | changes)


def summary(text: str) -> EntrySummary:
    return EntrySummary(
        text, 1, Path("fox"), "", text, text, text, 10**400, 1e300, None, text, None, None, None, text, text, text,
        (text,) * 50, text,
    )  # fmt: skip


def report(**changes: Any) -> Report:
    values = {"step": 10**60, "steps": 3, "loss": 1e300, "similarity": float("nan"), "best_loss": 1e-30}
    rest = {"best_similarity": 0.5, "seconds": 1.0, "vectors": torch.zeros(3, 4), "restarts": (1.0,) * 256}
    return Report(**values | rest | changes, state=lambda: pytest.fail("not asked for"))


@pytest.mark.parametrize("text", HOSTILE)
def test_every_repr_is_one_short_line(text: str, encoder: TextEncoder, tmp_path: Path) -> None:
    prompt = hostile_prompt(text)
    page = EntryPage([summary(text)] * 1000, 10**6, [])
    hidden_encoder = TextEncoder(text, encoder.tower, encoder.tokenizer, encoder.specials)
    shown = [
        prompt, hostile_prompt(text, similarity=10**400),
        Entry(text, 10**15, prompt, (text,) * 50, text), summary(text), page, hidden_encoder,
        Library(tmp_path / text[:50].replace("\0", "").encode("utf-8", "replace").decode().replace("/", "_")),
        report(stopped=text), HardReport(1, 10**60, 1e300, text, 1e300),
        SweepReport(1, 2, 3.0, (1.0,) * 99, ((10**30, 0.5, 0.5),) * 99),
        TrainingState(1, 1e300, 3, {f"{text}{i}": torch.zeros(4) for i in range(99)}, prompt),
        Result(1, "failed", text, text, text, error=(text, text)),
    ]  # fmt: skip
    for value in shown:
        assert len(repr(value)) < MAX_REPR_LENGTH, type(value)
        assert repr(value).isprintable(), type(value)


def test_a_repr_says_what_people_look_for(
    encoder: TextEncoder, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompt = a_prompt(hard_prompt="a red fox asleep in deep snow", name="fox", similarity=0.99958)
    line = "SoftPrompt('a red fox asleep in deep snow', tokens=2, model='mini', similarity=0.9996, name='fox')"
    assert repr(prompt) == line
    assert repr(encoder) == "TextEncoder('mini', device='cpu, float32', width=256, context=77)"
    library = Library("prompts")
    assert repr(library) == "Library('prompts', 0 soft prompts)"
    assert not Path("prompts").exists()
    entry = Library().save(prompt)
    assert repr(Library()).startswith(f"Library('{home}"[:60])
    assert repr(Library()).endswith("', 1 soft prompt)")
    assert repr(entry).startswith(f"Entry('fox', id='{entry.id}', revision=1, hard_prompt='a red fox asleep")
    assert repr(Library().list()) == "EntryPage(1 of 1 entry)"


def test_a_library_that_cannot_be_read_has_a_repr(home: Path) -> None:
    library = Library()
    library.save(a_prompt())
    library.entries.rename(home / "moved")
    library.entries.write_text("a file")
    for unreadable in (library, Library(home / "none")):
        assert repr(unreadable).startswith("Library(")
        check_page(unreadable._repr_html_())


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_html(text: str, encoder: TextEncoder) -> None:
    prompt = hostile_prompt(text)
    entry = Entry(text, 1, prompt, (text,) * 50, text)
    page = EntryPage([summary(text)] * 1000, 10**6, [])
    hidden_encoder = TextEncoder(text, encoder.tower, encoder.tokenizer, encoder.specials)
    for value in (prompt, entry, page, hidden_encoder):
        read = check_page(value._repr_html_())
        assert text[:20].isprintable() is False or text[:20] in read.text


def test_html_shows_the_readout_the_figures_and_the_curve() -> None:
    losses = np.geomspace(1, 1e-3, 5000, dtype=np.float32)
    prompt = a_prompt(name="fox", losses=losses, similarities=losses, steps=5000)
    read = check_page(prompt._repr_html_())
    for shown in (
        "fox",
        "similarity 0.9971",
        "composed 0.9700",
        "worst 0.9600",
        "floor 0.8500",
        "steps 5,000",
        "foxes",
    ):
        assert shown in read.text
    assert "loss 1 to 0.001, 5,000 steps, log scale" in read.text
    (points,) = (value for name, value in read.attributes if name == "points")
    assert 100 < len(str(points).split()) <= 201
    assert "polyline" not in check_page(a_prompt(losses=losses[:1], similarities=losses[:1])._repr_html_()).tags


@pytest.mark.parametrize("losses", [[0.0, 0.0], [1.0, 1.0], [np.nan, np.inf, -1.0], [1e-45, 3e38], [5.0, np.nan, 4.0]])
def test_every_curve_can_be_shown(losses: list[float]) -> None:
    page = a_prompt(losses=np.array(losses, np.float32))._repr_html_()
    check_page(page)
    assert "nan" not in page.split("<svg")[-1]


def test_html_of_a_library_lists_the_newest_entries() -> None:
    library = Library()
    for i in range(12):
        library.save(a_prompt(name=f"n{i:02}", created=f"2026-01-01T00:00:{i:02}+00:00"))
    text = check_page(library._repr_html_()).text
    assert "n11" in text
    assert "n02" in text
    assert "n01" not in text
    assert "and 2 more entries" in text
