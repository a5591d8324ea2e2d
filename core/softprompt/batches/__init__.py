"""Train thousands of prompts from a file in batches, each exactly once.

Data flow: rows (parse the file) -> row_job (a job and an id per row) -> spool (all rows on disk) -> backends (train) ->
results. If the process is killed, the next run resumes from the training states in checkpoints and the lines in output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompt.system.lazy import lazy_names

if TYPE_CHECKING:
    from softprompt.batches.batch import Batch
    from softprompt.batches.results import BatchProgress, Result
    from softprompt.batches.row_job import Defaults
    from softprompt.batches.rows import Format

__all__ = ["Batch", "BatchProgress", "Defaults", "Format", "Result"]

if not TYPE_CHECKING:
    # imported on first use: loading all modules takes 8 ms, and the command line only needs the formats
    __getattr__, __dir__ = lazy_names(
        __name__,
        {"Batch": "batch", "BatchProgress": "results", "Defaults": "row_job", "Format": "rows", "Result": "results"},
    )
