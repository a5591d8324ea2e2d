"""A text that is often replaced by one of the same height."""

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
