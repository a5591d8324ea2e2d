"""Text that is replaced often. A new layout, and a repaint, only when they are needed."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static


class SteadyText(Static):
    """Asks for a new layout only when its height changes: a layout redraws more than the text."""

    def show(self, text: Text) -> None:
        self.update(text, layout=False)
        self._fit()
        self.call_after_refresh(self._fit)  # a busy machine once lost a layout, and with it a line

    def _fit(self) -> None:
        """Compare heights, not line breaks: a line may begin to wrap, and a last break may have nothing after it."""
        if self.display and self.get_content_height(self.size, self.app.size, self.size.width) != self.size.height:
            self.refresh(layout=True)


def update_if_changed(target: Static, text: Text) -> None:
    """Show a text, unless the widget shows it in the same style already."""
    before = target.content
    # a Text equals one with the same words and another style, such as that of the previous theme
    if not isinstance(before, Text) or (text, text.style) != (before, before.style):
        target.update(text)
