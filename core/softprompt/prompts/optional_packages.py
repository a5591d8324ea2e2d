"""Tables and plots with pandas and matplotlib, for those who have them. This package does not depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from softprompt.errors import MissingPackage, shorten
from softprompt.prompts.values import Array
from softprompt.prompts.visible_text import sanitize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def data_frame(columns: Mapping[str, Any]) -> DataFrame:
    """Return a pandas table with these columns. Raises MissingPackage if pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise _missing("to_dataframe", "pandas") from error
    return pandas.DataFrame(dict(columns))


def plot_curve(ax: Axes | None, title: str, losses: Array, similarities: Array) -> Axes:
    """Draw a training curve: the loss on a log scale, and the similarity on an axis of its own. Return the axes.

    Raises MissingPackage if matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise _missing("plot", "matplotlib") from error
    if ax is None:
        _, ax = pyplot.subplots()
    steps = range(1, len(losses) + 1)
    right = ax.twinx()
    (loss_line,) = ax.plot(steps, losses, color="C0", label="loss")
    (similarity_line,) = right.plot(steps, similarities, color="C1", label="similarity")
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    right.set_ylabel("similarity")
    ax.set_title(sanitize(shorten(title)), parse_math=False)  # a $ in a prompt does not start a formula
    ax.legend(handles=[loss_line, similarity_line], loc="center right")
    return ax


def _missing(method: str, package: str) -> MissingPackage:
    return MissingPackage(f"{method} needs {package}, which is not installed. Run `pip install {package}`.")
