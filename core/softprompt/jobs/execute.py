"""Run a job: train, look for a hard readout, save. The command line, the worker and batches all use it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from softprompt.config import HardConfig, TrainConfig
from softprompt.errors import ConfigError
from softprompt.jobs.job import HardReadoutJob, TrainJob
from softprompt.training.errors import TrainingFailed

if TYPE_CHECKING:
    from softprompt.discrete import HardReport
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.library import Library
    from softprompt.library.entry import Entry
    from softprompt.prompts.results import HardReadout
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.loop import Interval, Report
    from softprompt.training.task import TrainingState


@dataclass(frozen=True)
class Outcome:
    """What became of a job: the saved entry, or None where there was nothing to save, and why it failed, or ""."""

    entry: Entry | None
    failure: str = ""


OnHard = Callable[["HardReport"], "bool | None"]


def run_job(
    job: TrainJob | HardReadoutJob,
    encoder: TextEncoder,
    library: Library,
    *,
    start: SoftPrompt | None = None,
    entry_id: str | None = None,
    interval: Interval = 10,
    resume: TrainingState | None = None,
    on_report: Callable[[Report], bool | None] | None = None,
    on_hard: OnHard | None = None,
) -> Outcome:
    """Trains and saves; where the training fails, the best until then is saved. Of a job for an entry's hard readout: see `harden`.

    With `job.hard` a hard readout of what was trained is saved with it, unless the training failed or was interrupted; `on_hard` is
    called each round of looking for it, and ends that by returning True. With `entry_id` it is saved once under that id, however
    often this is called; what a failure left, under another. The other arguments are `train`'s. Raises PromptError, ConfigError,
    LibraryError.
    """
    if isinstance(job, HardReadoutJob):
        return run_hard_search(job, encoder, library, on_hard)
    from softprompt.training.trainer import train

    if job.hard:
        from softprompt.discrete import check_hard

        check_hard(encoder, job.hard)
    failure = ""
    try:
        made = train(
            encoder,
            job.prompt,
            job.config,
            meanings=job.meanings,
            start=start,
            interval=interval,
            resume=resume,
            on_report=on_report,
        )
    except TrainingFailed as error:
        failure = str(error)
        if error.best is None:
            return Outcome(None, failure)
        made = error.best
    unfinished = failure
    if job.hard and not failure and made.stopped != "interrupted":
        try:
            made = replace(made, hard=_hard_readout(encoder, made, job.hard, on_hard))
        except (TrainingFailed, ConfigError) as error:  # what was trained is not lost for that
            failure = str(error)
    outcome = save_result(job, made, library, entry_id, unfinished)
    return replace(outcome, failure=failure)


def save_result(
    job: TrainJob, made: SoftPrompt, library: Library, entry_id: str | None = None, failure: str = ""
) -> Outcome:
    """Saves what a job made, as `carry_out` does; raises LibraryError."""
    if failure and entry_id:  # that id is for what the job was to make, should it be tried again
        entry_id = hashlib.sha256(f"{entry_id} failed at {made.steps}".encode()).hexdigest()[: len(entry_id)]
    return Outcome(library.save(replace(made, name=job.name, ancestry=job.ancestry), entry_id), failure)


def run_hard_search(
    job: HardReadoutJob, encoder: TextEncoder, library: Library, on_hard: OnHard | None = None
) -> Outcome:
    """Looks for the hard readout of the entry `job.entry` and saves it as the entry's next revision.

    Raises PromptError where what the entry means is not known, ConfigError, EntryNotFound and the other LibraryErrors.
    """
    entry = library.open(job.entry)
    try:
        hard = _hard_readout(encoder, entry.prompt, job.hard, on_hard)
    except TrainingFailed as error:
        return Outcome(None, str(error))
    return Outcome(library.harden(entry.id, hard))


def _hard_readout(encoder: TextEncoder, made: SoftPrompt, config: HardConfig, on_hard: OnHard | None) -> HardReadout:
    """Raises TrainingFailed where the device fails, and what `find_hard` raises."""
    from softprompt.discrete import find_hard
    from softprompt.objectives.hard_prompt import tokenize_target
    from softprompt.training.loop import device_failure

    encoder.check_belongs(made)
    prompt = tokenize_target(encoder, made.hard_prompt, made.meanings, made.config.get("long", TrainConfig.long))
    try:
        return find_hard(encoder, prompt, config.tokens or made.tokens, config, on_hard)
    except RuntimeError as error:  # torch's type for a lost or full device, whichever it is
        raise TrainingFailed(device_failure(error, encoder.device)) from error
