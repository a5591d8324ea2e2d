"""Train thousands of prompts from a file in batches, each exactly once.

Data flow: rows (parse the file) -> row_job (a job and an id per row) -> spool (all rows on disk) -> backends (train) ->
results. If the process is killed, the next run resumes from the training states in checkpoints and the lines in output.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softprompt.batches.batch import Batch, train_batch
    from softprompt.batches.results import BatchProgress, Result
    from softprompt.batches.row_job import Defaults


# imported on first use: loading all modules takes 8 ms, and the command line only needs the formats
_MODULES = {
    "Batch": "batch",
    "Defaults": "row_job",
    "Format": "rows",
    "BatchProgress": "results",
    "Result": "results",
    "train_batch": "batch",
}

__all__ = ["Batch", "BatchProgress", "Defaults", "Format", "Result", "train_batch"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
