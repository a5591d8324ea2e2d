"""The guides screen: all guides, with a search through all of them."""

from __future__ import annotations

import re
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input, Static
from textual.worker import get_current_worker

from softprompt_tui.rendering.markdown import render_lines
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.services.guides import (
    GUIDES,
    Passage,
    Section,
    fold,
    guide_title,
    query_patterns,
    read_sections,
    search_guides,
)
from softprompt_tui.widgets.key_bar import KeyBar
from softprompt_tui.widgets.lazy_table import PAGE_ROWS, Column, Row, Table
from softprompt_tui.widgets.line_input import LineInput

NARROW_COLUMNS = 72
TOPICS, HITS = (Column("guide", 0),), (Column("found in", 0),)
TITLE_CELLS = 27  # the longest title of a guide
WIDE_TOPICS = (Column("guide", TITLE_CELLS), Column("about", 0))
WIDE_HITS = (Column("guide", TITLE_CELLS), Column("found in", 0))
WIDE_TOPICS_FROM, WIDE_HITS_FROM = 100, 50  # cells of a row
HIT_DETAILS = ((Column("guide", 0),),)  # in a narrower list, below the heading
NO_HITS = "Nothing found. Try fewer or shorter words.\n\nescape ends the search."
STYLE_CLASSES = {
    "markdown.h1": "guide--title",
    "markdown.h2": "guide--heading",
    "markdown.h3": "guide--heading",
    "markdown.h4": "guide--heading",
    "markdown.code": "guide--code",
    "markdown.code_block": "guide--code",
    "markdown.item.bullet": "guide--mark",
    "markdown.item.number": "guide--mark",
    "markdown.link": "guide--link",
    "markdown.link_url": "guide--link",
    "markdown.table.header": "guide--heading",
    "markdown.table.border": "guide--mark",
}


class GuideText(ScrollView, can_focus=True):
    """The text of one guide. It is rendered in a thread, because the longest guide takes a moment."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", show=False),
        Binding("down,j", "scroll_down", show=False),
        Binding("pageup,b", "page_up", show=False),
        Binding("pagedown,space", "page_down", show=False),
        Binding("home,g", "scroll_home", show=False),
        Binding("end,G", "scroll_end", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {*STYLE_CLASSES.values(), "guide--found"}
    DEFAULT_CSS = """
    GuideText { overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1; }
    GuideText > .guide--title { color: $accent; text-style: bold; }
    GuideText > .guide--heading { color: $text; text-style: bold; }
    GuideText > .guide--code { color: $text-success; }
    GuideText > .guide--mark { color: $text-muted; }
    GuideText > .guide--link { color: $text-primary; text-style: underline; }
    GuideText > .guide--found { background: $accent; color: $background; text-style: bold; }
    GuideText:nocolor > .guide--found { text-style: reverse; }
    """

    def __init__(self) -> None:
        super().__init__(id="guide-text", classes="pane")
        self.guide = ""
        self._target: Section | None = None
        self._words: list[re.Pattern[str]] = []
        self._lines: list[list[Segment]] = []
        self._starts: dict[int, int] = {}  # the first line of each section, by its line in the file
        self._rendered: object = None  # guide, width and styles of `_lines`

    def show(self, guide: str, target: Section | None = None, words: str = "") -> None:
        """Show a guide from its beginning, or from a section, with the found words marked."""
        self.guide, self._target = guide, target
        self._words = query_patterns(words)
        self.border_title = guide_title(guide)
        self._render_again()

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _: self.call_after_refresh(self.on_resize))

    def on_resize(self) -> None:
        if self.guide:
            self._render_again(keep_position=True)

    def _render_again(self, keep_position: bool = False) -> None:
        styles = {name: self.get_component_rich_style(part) for name, part in STYLE_CLASSES.items()}
        key = (self.guide, self.scrollable_content_region.width, tuple(map(str, styles.values())))
        if key[1] <= 0:  # not laid out yet
            return
        if key == self._rendered:
            if not keep_position:
                self._go_to_target()
            return

        def render() -> None:
            lines: list[list[Segment]] = []
            starts: dict[int, int] = {}
            for section in read_sections(key[0]):
                if get_current_worker().is_cancelled:
                    return
                lines += [[]] * bool(lines)
                starts[section.line] = len(lines)
                lines += render_lines(section.text, key[1] - 2, styles)  # a cell on each side
            self.app.call_from_thread(self._show_lines, key, lines, starts, keep_position)

        self.run_worker(render, thread=True, exclusive=True)

    def _show_lines(
        self, key: tuple[str, int, object], lines: list[list[Segment]], starts: dict[int, int], keep_position: bool
    ) -> None:
        if key[0] != self.guide:
            return
        keep_position = keep_position and self._rendered is not None
        self._rendered, self._lines, self._starts = key, lines, starts
        self.virtual_size = Size(key[1], len(lines))
        if not keep_position:
            self.call_after_refresh(self._go_to_target)
        self.refresh()

    def _go_to_target(self) -> None:
        """Scroll to the section; if the words are below the first screenful of it, to the first of them."""
        start = self._starts.get(self._target.line, 0) if self._target else 0
        end = min((line for line in self._starts.values() if line > start), default=len(self._lines))
        if self._words and self._target:
            counts = [self._count_words(line) for line in self._lines[start:end]]
            found = start + counts.index(max(counts)) if counts else start
            start = start if found < start + self.size.height - 2 else found - self.size.height // 3
        self.scroll_to(y=start, animate=False, force=True, immediate=True)
        self.refresh()

    def _count_words(self, line: list[Segment]) -> int:
        text = fold("".join(segment.text for segment in line))
        return sum(bool(word.search(text)) for word in self._words)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, base = self.scrollable_content_region.width, self.rich_style
        number = self.scroll_offset.y + y
        if number >= len(self._lines) or (self._rendered and self._rendered[0] != self.guide):  # type: ignore[index]
            return Strip.blank(width, base)
        segments = [
            Segment(sanitize(segment.text), base + segment.style if segment.style else base)
            for segment in self._lines[number]
        ]
        strip = Strip([Segment(" ", base), *self._mark(segments)])
        return strip.adjust_cell_length(width, base)

    def _mark(self, segments: list[Segment]) -> list[Segment]:
        """Mark the found words."""
        text = "".join(segment.text for segment in segments)
        folded = fold(text)
        spans = [match.span() for word in self._words for match in word.finditer(folded)]
        if not spans or len(folded) != len(text):
            return segments
        found = self.get_component_rich_style("guide--found")
        marked, position = [], 0
        for segment in segments:
            for char in segment.text:
                is_found = any(start <= position < end for start, end in spans)
                marked.append(Segment(char, found if is_found else segment.style))
                position += 1
        return list(Segment.simplify(marked))


class DocsScreen(ModalScreen[None]):
    """Lists the guides beside the text of one; below 72 columns the list is above the text.

    While the search has words, the list shows what they find.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Find", key_display="/"),
        Binding("n", "hit(1)", "Next"),
        Binding("N", "hit(-1)", "Previous", key_display="N"),
        Binding("right,l", "read", "Read", key_display="→"),
        Binding("left,h", "list", "List", key_display="←"),
        Binding("escape", "back", "Back", key_display="esc"),
        Binding("enter", "open_first", "Go there", priority=True),
        Binding("q", "dismiss", show=False),
    ]
    DEFAULT_CSS = """
    DocsScreen { background: $background; }
    #guides { height: 1fr; layout: horizontal; }
    #guide-list { width: 33; height: 100%; }
    #about { height: auto; color: $text-muted; padding: 0 1; }
    #guide-text { width: 1fr; height: 100%; padding: 0; }
    #find-text { background: $surface; padding: 0; }
    #find-text:focus { background: $primary-muted; }
    DocsScreen.-wide.-searching #guide-list { width: 46; }
    DocsScreen.-huge #guide-list, DocsScreen.-huge.-searching #guide-list { width: 110; }
    DocsScreen.-narrow #guides { layout: vertical; }
    DocsScreen.-narrow #guide-list { width: 100%; height: 8; }
    DocsScreen.-narrow #guide-text { width: 100%; height: 1fr; }
    DocsScreen.-narrow.-reading #guide-list { display: none; }
    """

    def __init__(self, guide: str = next(iter(GUIDES))) -> None:
        super().__init__()
        self._first = guide
        self._searched = ""
        self._hits: list[Passage] = []

    def compose(self) -> ComposeResult:
        with Container(id="guides"):
            with Vertical(id="guide-list", classes="pane"):
                find = LineInput(id="find-text", placeholder="words in any guide")
                find.display = find.select_on_focus = False
                yield find
                yield Table(TOPICS, NO_HITS, id="guide-rows", lines=2)
                yield Static("", id="about", markup=False)
            yield GuideText()
        yield KeyBar(compact=self.app.size.width < NARROW_COLUMNS)

    def on_mount(self) -> None:
        self.query_one("#guide-list").border_title = "Guides"
        self.table.focus()
        self.call_after_refresh(self._list, self._first)

    def on_resize(self) -> None:
        self.call_after_refresh(self._set_columns)

    @property
    def table(self) -> Table:
        return self.query_one(Table)

    @property
    def text(self) -> GuideText:
        return self.query_one(GuideText)

    @property
    def field(self) -> Input:
        return self.query_one("#find-text", Input)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        if not self.is_mounted or not self.query(Table):
            return True
        match action:
            case "hit":
                return bool(self._hits) and self.focused is not self.field
            case "read":
                return self.focused is self.table
            case "list":
                return self.focused is self.text
            case "search":
                return self.focused is not self.field
            case "open_first":
                return self.focused is self.field
        return True

    # list

    def _set_columns(self) -> None:
        table, is_searching = self.table, bool(self._searched)
        wide = table.row_width >= (WIDE_HITS_FROM if is_searching else WIDE_TOPICS_FROM)
        table.columns = (WIDE_HITS if wide else HITS) if is_searching else WIDE_TOPICS if wide else TOPICS
        table.details = HIT_DETAILS if table.columns is HITS else ()
        table.on_resize()  # the rows may have another height
        self._fill()

    def _fill(self) -> None:
        wide = len(self.table.columns) > 1
        self._show_about()
        if self._searched:
            rows = []
            for i, hit in enumerate(self._hits):
                guide, heading = guide_title(hit.section.guide), hit.section.heading
                rows.append(Row(str(i), (guide, heading)) if wide else Row(str(i), (heading,), ((guide,),)))
        else:
            rows = [
                Row(name, (guide_title(name), about) if wide else (guide_title(name),))
                for name, about in GUIDES.items()
            ]
        for start in range(0, len(rows), PAGE_ROWS):
            self.table.fill(start // PAGE_ROWS, rows[start : start + PAGE_ROWS])

    def _list(self, guide: str = "") -> None:
        """Fill the list anew, with the cursor on `guide`, or on the first hit."""
        total, cursor = len(self._hits), 0
        if not self._searched:
            total, cursor = len(GUIDES), [*GUIDES].index(guide)
        self.table.reset(total, cursor)
        self._set_columns()
        self.query_one("#guide-list").border_subtitle = f"{total} found" if self._searched else ""
        self._show_current()
        self.refresh_bindings()

    def _show_current(self) -> None:
        """Show what is under the cursor."""
        cursor = self.table.cursor
        if not self._searched:
            self.text.show([*GUIDES][cursor])
        elif self._hits:
            section = self._hits[cursor].section
            self.text.show(section.guide, section, self._searched)
        self._show_about()

    def _show_about(self) -> None:
        """Show what the guide is about below the list, or on the lower edge of the text if the list has few lines.

        The list itself may show it already. On the edge, a text that does not fit is left out: it would be cut.
        """
        is_listed = self.table.columns is WIDE_TOPICS or bool(self._searched)
        about, has_few_lines = "" if is_listed else GUIDES.get(self.text.guide, ""), self.has_class("-narrow")
        fits_edge = cell_len(about) <= self.text.outer_size.width - len("╭─  ─╮")
        self.text.border_subtitle = about if has_few_lines and fits_edge else ""
        line = self.query_one("#about", Static)
        line.display = bool(about) and not has_few_lines
        line.update(about)

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        if isinstance(event, Table.Chosen):
            self.action_read()
        else:
            self._show_current()

    # keys

    def action_read(self) -> None:
        self.set_focus(self.text)

    def action_list(self) -> None:
        self.remove_class("-reading")
        self.set_focus(self.table)

    def action_hit(self, rows: int) -> None:
        self.table.cursor += rows

    def action_search(self) -> None:
        self.remove_class("-reading")
        self.field.display = True
        self.set_focus(self.field)

    def action_open_first(self) -> None:
        """Leave the search field for what it has found."""
        self._search(self.field.value)  # the message about the last letter may be on its way
        self.action_list() if self._searched else self._end_search()

    def action_back(self) -> None:
        """Go from the text to the list, end the search, or close the screen."""
        if self.focused is self.text:
            self.action_list()
        elif self.field.display:
            self._end_search()
        else:
            self.dismiss(None)

    def _end_search(self) -> None:
        self.field.value = ""
        self.field.display = False
        self._search("")
        self.action_list()

    def on_descendant_focus(self) -> None:
        self.set_class(self.focused is self.text, "-reading")
        self.refresh_bindings()

    @on(Input.Changed, "#find-text")
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._search(event.value)

    @on(Input.Submitted, "#find-text")
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_open_first()

    def _search(self, text: str) -> None:
        text = text.strip()
        if text != self._searched:
            self._searched = text
            self.set_class(bool(text), "-searching")
            self._hits = search_guides(text)
            self._list(self.text.guide)
