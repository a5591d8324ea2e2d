"""Thousands of prompts from a file, trained together, each exactly once.

rows: a file's rows -> row_job: a job and its id -> spool: all of them on disk -> backends: training -> results. checkpoints and output are
what a kill leaves: how far the trainings were, and the lines that were told.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softprompt.batches.batch import Batch, train_batch
    from softprompt.batches.results import BatchProgress, Result
    from softprompt.batches.row_job import Defaults


# imported when they are used: the command line knows the formats without the 8 ms that all of it costs
_HOMES = {
    "Batch": "batch",
    "Defaults": "row_job",
    "Format": "rows",
    "BatchProgress": "results",
    "Result": "results",
    "train_batch": "batch",
}

__all__ = ["Batch", "BatchProgress", "Defaults", "Format", "Result", "train_batch"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
