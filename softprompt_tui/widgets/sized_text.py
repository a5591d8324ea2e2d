"""Text that tells its screen when its size has changed."""

from __future__ import annotations

from textual.message import Message
from textual.widgets import Static


class SizedText(Static):
    """Posts `Resized` after each change of its size, for whoever draws into it or shares lines with it.

    A callback after the next refresh is no substitute: on a busy machine it may run before the layout.
    """

    class Resized(Message):
        """The text has another size."""

    def on_resize(self) -> None:
        self.post_message(self.Resized())
