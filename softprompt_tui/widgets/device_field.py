"""The device setting. While it has the focus, it shows a list of the available devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from softprompt.system.devices import DeviceFacts
from softprompt_tui.messages import DevicesRequested
from softprompt_tui.rendering.devices import describe_device
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.widgets.line_input import LineInput

AUTO = "auto"
CPU = "cpu"  # every machine has it
ASKING = "asking the worker which devices exist …"


class DeviceInput(LineInput):
    """The input line. Up and down choose a device from the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "choose(-1)", "Previous device", show=False),
        Binding("down", "choose(1)", "Next device", show=False),
    ]

    def __init__(self, value: str) -> None:
        super().__init__(value, id="field-device")
        self.names: list[str] = []

    def action_choose(self, rows: int) -> None:
        if self.names:
            index = self.names.index(self.value) if self.value in self.names else -1 if rows > 0 else 0
            self.value = self.names[(index + rows) % len(self.names)]
            self.action_select_all()


class DeviceField(Vertical):
    """The input line and the list below it."""

    def __init__(self, value: str) -> None:
        super().__init__(classes="device")
        self.line = DeviceInput(value)
        self._devices: Sequence[DeviceFacts] = ()
        self._trouble = ""
        self._list = Static(ASKING, id="devices", markup=False)
        self._list.display = False

    def compose(self) -> ComposeResult:
        yield self.line
        yield self._list

    def show(self, devices: Sequence[DeviceFacts], trouble: str = "") -> None:
        """Show the devices, the one of "auto" first. If they are unknown, `trouble` says why."""
        self._devices, self._trouble = devices, trouble
        self.line.names = [AUTO, *(device.name for device in devices)] if devices else [AUTO, CPU]
        self._draw()

    def on_descendant_focus(self) -> None:
        self._list.display = True
        self.post_message(DevicesRequested())

    def on_descendant_blur(self) -> None:
        self._list.display = False

    def on_input_changed(self) -> None:
        self._draw()

    def _draw(self) -> None:
        if not self._devices and not self._trouble:
            return
        chosen = self.line.value.strip().lower() or AUTO
        if self._devices:
            rows = [(AUTO, f"{self._devices[0].name} now")] + [
                (one.name, describe_device(one)) for one in self._devices
            ]
        else:
            rows = [(AUTO, "the best device"), (CPU, "works on every machine")]
        width = max(len(name) for name, _ in rows)
        text = Text(no_wrap=True, overflow="ellipsis")
        if not self._devices:
            text.append(sanitize(self._trouble), "dim")
        for name, words in rows:
            mark, style = ("▸ ", "bold") if name == chosen else ("  ", "")
            text.append("\n" if text else "").append(f"{mark}{sanitize(name):<{width}}  ", style)
            text.append(sanitize(words), style or "dim")
        self._list.update(text)
