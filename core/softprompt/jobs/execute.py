"""Run a job: train, search for a hard readout, save. Used by the command line, the worker and batches."""

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
    from softprompt.library import Library
    from softprompt.library.entry import Entry
    from softprompt.objectives.workspace import Workspace
    from softprompt.prompts.results import HardReadout
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.loop import Interval, Report
    from softprompt.training.model_kinds import Model
    from softprompt.training.task import TrainingState


@dataclass(frozen=True)
class Outcome:
    """Result of a job: the saved entry (None if there was nothing to save), and the reason for a failure or "".

    `failure_kind` is the name of the error's type.
    """

    entry: Entry | None
    failure: str = ""
    failure_kind: str = ""


OnHardReport = Callable[["HardReport"], "bool | None"]


def run_job(
    job: TrainJob | HardReadoutJob,
    encoder: Model,
    library: Library,
    *,
    start: SoftPrompt | None = None,
    entry_id: str | None = None,
    interval: Interval = 10,
    resume: TrainingState | None = None,
    on_report: Callable[[Report], bool | None] | None = None,
    on_hard: OnHardReport | None = None,
    workspace: Workspace | None = None,
) -> Outcome:
    """Run a job and save its result. If training fails, save the best soft prompt so far.

    With `job.hard`, also search for a hard readout, unless training failed or was interrupted. A HardReadoutJob is
    passed to `run_hard_search`. The other arguments are those of `train`.

    Args:
        entry_id: id to save under. Repeated calls with the same id save only once. A partial result gets another id.
        on_hard: called with each report of the hard-readout search; returns True to stop it.

    Raises:
        PromptError, ConfigError: the encoder cannot run the job.
        LibraryError: the result cannot be saved.
    """
    from softprompt.objectives.workspace import NO_WORKSPACE
    from softprompt.training.trainer import train

    if isinstance(job, HardReadoutJob):
        return run_hard_search(job, encoder, library, on_hard)
    if job.hard:
        from softprompt.discrete import check_hard
        from softprompt.encoders.clip.text_encoder import as_text_encoder

        check_hard(as_text_encoder(encoder, "a hard readout"), job.hard)
    failure = failure_kind = ""
    try:
        prompt = train(
            encoder,
            job.prompt,
            job.config,
            meanings=job.meanings,
            start=start,
            interval=interval,
            resume=resume,
            on_report=on_report,
            workspace=workspace or NO_WORKSPACE,
            examples=job.examples,
        )
    except TrainingFailed as error:
        failure, failure_kind = str(error), type(error).__name__
        if error.best is None:
            return Outcome(None, failure, failure_kind)
        prompt = error.best
    unfinished = failure
    if job.hard and not failure and prompt.stopped != "interrupted":
        try:
            prompt = replace(prompt, hard=_search(encoder, prompt, job.hard, on_hard))
        except (TrainingFailed, ConfigError) as error:  # still save the trained soft prompt
            failure, failure_kind = str(error), type(error).__name__
    outcome = save_result(job, prompt, library, entry_id, unfinished)
    return replace(outcome, failure=failure, failure_kind=failure_kind)


def save_result(
    job: TrainJob,
    prompt: SoftPrompt,
    library: Library,
    entry_id: str | None = None,
    failure: str = "",
    failure_kind: str = "",
) -> Outcome:
    """Save a job's result the way `run_job` does. Raises LibraryError."""
    if failure and entry_id:  # the id stays reserved for the full result of a later attempt
        entry_id = hashlib.sha256(f"{entry_id} failed at {prompt.steps}".encode()).hexdigest()[: len(entry_id)]
    entry = library.save(replace(prompt, name=job.name, ancestry=job.ancestry), id=entry_id)
    return Outcome(entry, failure, failure_kind)


def run_hard_search(
    job: HardReadoutJob, encoder: Model, library: Library, on_hard: OnHardReport | None = None
) -> Outcome:
    """Search for the hard readout of the entry `job.entry` and save it as the entry's next revision.

    Raises:
        PromptError, ConfigError: the entry's prompt is unknown, or the encoder cannot run the job.
        LibraryError: the entry is missing or cannot be saved.
    """
    entry = library.open(job.entry)
    try:
        hard = _search(encoder, entry.prompt, job.hard, on_hard)
    except TrainingFailed as error:
        return Outcome(None, str(error), type(error).__name__)
    return Outcome(library.set_hard_readout(entry.id, hard))


def _search(model: Model, prompt: SoftPrompt, config: HardConfig, on_hard: OnHardReport | None) -> HardReadout:
    """Search for a hard readout. Raises TrainingFailed if the device fails, and the same errors as `find_hard`."""
    from softprompt.discrete import find_hard
    from softprompt.encoders.clip.text_encoder import as_text_encoder
    from softprompt.objectives.hard_prompt import tokenize_target
    from softprompt.training.loop import device_failure

    encoder = as_text_encoder(model, "a hard readout")
    encoder.check_compatible(prompt)
    target = tokenize_target(encoder, prompt.hard_prompt, prompt.meanings, prompt.config.get("long", TrainConfig.long))
    try:
        return find_hard(encoder, target, config.tokens or prompt.tokens, config, on_hard)
    except RuntimeError as error:  # torch's error for a lost or full device
        raise TrainingFailed(device_failure(error, encoder.device)) from error
