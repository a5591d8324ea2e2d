"""Progress bars for `progress=True`, in a terminal or a notebook. Without it, nothing is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, TypeVar
from warnings import catch_warnings, simplefilter

from softprompt.arguments import is_stop


class SteppedReport(Protocol):
    """A report of a training run, a sweep or a search."""

    @property
    def step(self) -> int: ...

    @property
    def steps(self) -> int: ...


Report = TypeVar("Report", bound=SteppedReport)


class ProgressBar:
    """A progress bar, drawn only if `shown`. Use it as a context manager.

    Args:
        at_once: draw it before the first call of `show`.
    """

    def __init__(self, shown: bool, label: str, unit: str = "step", *, at_once: bool = True) -> None:
        self._shown, self._label, self._unit = shown and sys.stderr is not None, label, unit
        self._bar: Any = None
        if at_once:
            self._draw()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.close()

    def show(self, done: float, total: int, **figures: str) -> None:
        """Set the number of finished units, their total and the figures beside the bar."""
        self._draw(done, total, figures)

    def _draw(self, done: float = 0, total: int | None = None, figures: Mapping[str, str] | None = None) -> None:
        """Draw the bar. If the terminal is gone or the stream is closed, stop drawing; the work continues."""
        if not self._shown:
            return
        try:
            if self._bar is None:
                self._bar = _new_bar(self._label, self._unit)
            if total is not None:
                self._bar.total = total
                self._bar.set_postfix(figures, refresh=False)
                self._bar.update(done - self._bar.n)
        except (OSError, ValueError):
            self._shown = False

    def watch(
        self, figures: Callable[[Report], dict[str, str]], on_report: Callable[[Report], bool | None] | None
    ) -> Callable[[Report], bool]:
        """Return a function that shows each report and then calls `on_report`."""

        def show(report: Report) -> bool:
            if self._shown:
                self.show(report.step, report.steps, **figures(report))
            return on_report is not None and is_stop("on_report", on_report(report))

        return show


def _new_bar(label: str, unit: str) -> Any:
    with catch_warnings():
        simplefilter("ignore")  # in a notebook without ipywidgets, tqdm warns and shows text instead
        from tqdm.auto import tqdm  # 30 ms, and widgets in a notebook

        return tqdm(desc=label, unit=unit, disable=False)  # progress=True overrides TQDM_DISABLE
