"""Thousands of prompts from a file, trained together, each exactly once.

reading: a file's rows -> asking: a job and its id -> spool: all of them on disk -> work: training -> results. underway and outfile are
what a kill leaves: how far the trainings were, and the lines that were told.
"""

from softprompt.batches.asking import Defaults
from softprompt.batches.batch import Batch, train_batch
from softprompt.batches.reading import Format
from softprompt.batches.results import Progress, Result

__all__ = ["Batch", "Defaults", "Format", "Progress", "Result", "train_batch"]
