"""Train, grade and read out soft prompts. Nothing is printed or written to disk.

`train` -> `iter_train` -> `train_one` (loop.py) -> `TrainingBatch` (batch.py) -> `Objective.evaluate`, then
`BatchedAdam.step`. `train_many` -> `train_scheduled` (scheduler.py). All of them end in `finish`.

Shapes: k soft tokens, w width.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from softprompt.config import DEFAULT_SWEEP, TrainConfig, check_sweep, config_for, digested_settings
from softprompt.encoders.torch_settings import isolated, neutral_torch
from softprompt.errors import SoftPromptError, shorten
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.workspace import NO_WORKSPACE, Workspace
from softprompt.prompts.examples import ExampleSet
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.system.generators import drive, map_reports
from softprompt.system.threads import choose_threads, kept_threads
from softprompt.training.batch import TrainingBatch, other_state
from softprompt.training.errors import TrainingFailed
from softprompt.training.init import as_start_tensor
from softprompt.training.loop import Interval, Report, device_failure, train_one
from softprompt.training.model_kinds import (
    AUTO_TOKENS,
    Model,
    distance_to_goal,
    load_on_cpu,
    make_objective,
    measure,
    step_cost,
    tokenize,
)
from softprompt.training.scheduler import MAX_ROWS, train_scheduled
from softprompt.training.task import TrainingResult, TrainingState, TrainingTask
from softprompt.training.token_sweep import SweepReport, train_sweep


def train(
    encoder: Model,
    text: str,
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText] = (),
    start: SoftPrompt | Array | Tensor | None = None,
    on_report: Callable[[Report], bool | None] | None = None,
    interval: Interval = 10,
    resume: TrainingState | None = None,
    workspace: Workspace = NO_WORKSPACE,
    examples: ExampleSet | None = None,
    **settings: Any,
) -> SoftPrompt:
    """Train a soft prompt for the hard prompt `text`.

    Args:
        meanings: weighted texts to train on instead; `text` is then only a label.
        start: the soft prompt or vectors (k, w) to start from with init="soft".
        on_report: called with each report; returns True to stop.
        interval: steps between reports, or a function from the step to whether a report is due.
        resume: the state of an earlier report, to continue from. All other arguments must be the same as then.
        workspace: where an objective keeps what it computes before the first step.
        examples: with objective="examples", what to train on; `text` is then only a label.
        settings: fields of TrainConfig, such as tokens=3.

    Raises:
        PromptError: the prompt cannot be trained.
        ConfigError: the settings cannot be used.
        TrainingFailed: training failed. The error carries the best soft prompt so far.

    Example:
        encoder = load_encoder("mini")
        train(encoder, "a red fox in the snow", tokens=3, steps=50).vectors.shape  # (3, 256)
    """
    training = iter_train(
        encoder, text, config, meanings=meanings, start=start, interval=interval, resume=resume, workspace=workspace,
        examples=examples, **settings,
    )  # fmt: skip
    return drive(training, on_report)


def iter_train(
    encoder: Model,
    text: str,
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText] = (),
    start: SoftPrompt | Array | Tensor | None = None,
    interval: Interval = 10,
    resume: TrainingState | None = None,
    workspace: Workspace = NO_WORKSPACE,
    examples: ExampleSet | None = None,
    **settings: Any,
) -> Generator[Report, bool | None, SoftPrompt]:
    """Do the same as `train`, as a generator that yields Reports and returns the soft prompt. Send True to stop."""
    config = config_for(encoder.kind, settings) if config is None else replace(config, **settings)
    run = _run_digest(text, meanings, config, examples)
    if resume is not None and resume.run not in ("", run):
        raise other_state()
    training = map_reports(
        _iter_train(encoder, text, config, meanings, start, interval, resume, workspace, examples),
        partial(_complete_state, run),
    )
    return (
        yield from isolated(training, _threads(encoder, config, _most_tokens(encoder, config), config.restarts, resume))
    )


def _iter_train(
    encoder: Model,
    text: str,
    config: TrainConfig,
    meanings: Sequence[WeightedText],
    start: SoftPrompt | Array | Tensor | None,
    interval: Interval,
    resume: TrainingState | None,
    workspace: Workspace,
    examples: ExampleSet | None,
) -> Generator[Report, bool | None, SoftPrompt]:
    prompt = tokenize(encoder, text, meanings, config, examples)
    vectors = as_start_tensor(encoder, start)
    if config.tokens != "auto":
        training = train_one(
            encoder, partial(make_objective, encoder, workspace=workspace, examples=examples), prompt, config,
            start=vectors, interval=interval, resume=resume,
        )  # fmt: skip
        result, last = yield from _hold_last_report(training)
        soft_prompt = finish(encoder, prompt, config, result, workspace=workspace)
        if last is not None:
            yield replace(last, result=soft_prompt)
        return soft_prompt
    return (yield from _train_auto(encoder, prompt, config, vectors, interval, resume, workspace))


def train_many(
    encoder: Model,
    tasks: Iterable[TrainingTask],
    *,
    row_limit: int | None = None,
    on_step: Callable[[TrainingBatch], bool | None] | None = None,
    workspace: Workspace = NO_WORKSPACE,
) -> Iterator[tuple[TrainingTask, SoftPrompt | SoftPromptError]]:
    """Train tasks that share a `TrainConfig.batch_key`. Yields each as soon as it ends, with its soft prompt or error.

    Tasks are only read when rows become free, so `tasks` may be arbitrarily long.

    Args:
        row_limit: restarts to train at the same time; by default as many as `max_rows` allows.
        on_step: called with the batch after every step. If it returns True, training ends and nothing more is yielded.
        workspace: where the objective keeps what it computes for each run. The runs have the keys of the tasks.

    Raises:
        TrainingFailed: the device failed.
    """
    waiting = iter(tasks)
    first = next(waiting, None)
    if first is None:
        return
    tokens = _most_tokens(encoder, first.config)
    threads = _threads(encoder, first.config, tokens, row_limit or MAX_ROWS, first.resume)
    yield from isolated(_train_many(encoder, chain([first], waiting), row_limit, on_step, workspace), threads)


def _train_many(
    encoder: Model,
    tasks: Iterable[TrainingTask],
    row_limit: int | None,
    on_step: Callable[[TrainingBatch], bool | None] | None,
    workspace: Workspace,
) -> Generator[tuple[TrainingTask, SoftPrompt | SoftPromptError], bool | None, None]:
    for task, outcome in train_scheduled(
        encoder, partial(make_objective, encoder, workspace=workspace), tasks, row_limit=row_limit, on_step=on_step
    ):
        if isinstance(outcome, SoftPromptError):
            yield task, outcome
            continue
        try:
            result = outcome.result(encoder.device_label)
            yield task, finish(encoder, outcome.prompt, task.config, result, task.key, workspace)
        except SoftPromptError as error:
            yield task, error


def sweep(
    encoder: Model,
    text: str,
    token_counts: Sequence[int] = DEFAULT_SWEEP,
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText] = (),
    interval: Interval = 10,
    workspace: Workspace = NO_WORKSPACE,
) -> Generator[SweepReport, bool | None, list[SoftPrompt]]:
    """Train `text` once per token count, all in one batch. Returns the soft prompts in increasing order of tokens.

    Yields a report at every `interval`; send True to stop. A training run that fails contributes its best soft prompt
    so far, with a warning.

    Args:
        config: the settings for all token counts; `tokens` is ignored.

    Raises:
        PromptError: the prompt cannot be trained.
        ConfigError: the settings cannot be used.
        TrainingFailed: every training run failed without a usable result.
    """
    config = config or config_for(encoder.kind, {})
    token_counts = check_sweep(token_counts)
    threads = _threads(encoder, config, token_counts[-1], config.restarts * len(token_counts))
    training = _sweep(encoder, text, token_counts, config, meanings, interval, workspace)
    return (yield from isolated(training, threads))


def _sweep(
    encoder: Model,
    text: str,
    token_counts: Sequence[int],
    config: TrainConfig,
    meanings: Sequence[WeightedText],
    interval: Interval,
    workspace: Workspace,
) -> Generator[SweepReport, bool | None, list[SoftPrompt]]:
    prompt, results = yield from train_sweep(
        encoder,
        partial(make_objective, encoder, workspace=workspace),
        text,
        token_counts,
        config,
        meanings=meanings,
        interval=interval,
    )
    soft_prompts: list[SoftPrompt] = []
    failure: TrainingFailed | None = None
    for slot_config, result in results:
        try:
            soft_prompts.append(finish(encoder, prompt, slot_config, result, workspace=workspace))
        except TrainingFailed as error:  # the other token counts are unaffected
            failure = error
            if error.best is not None:
                soft_prompts.append(replace(error.best, warnings=(*error.best.warnings, str(error))))
    if not soft_prompts:
        raise failure or TrainingFailed("the sweep ended before its first step")
    return soft_prompts


@neutral_torch()
def _threads(encoder: Model, config: TrainConfig, tokens: int, rows: int, resume: TrainingState | None = None) -> int:
    """Return the number of CPU threads for a run that starts now, or 0 on a GPU.

    A resumed run keeps its number, so that the bits stay the same. A state without a number comes from an older
    version, which used the caller's number.
    """
    if encoder.device.type != "cpu":
        return 0
    if resume is not None:
        return kept_threads(resume.threads or torch.get_num_threads())
    return choose_threads(torch.get_num_threads(), step_cost(encoder, config, tokens, rows))


def _most_tokens(encoder: Model, config: TrainConfig) -> int:
    """Return the largest number of soft tokens that a run trains."""
    return AUTO_TOKENS[encoder.kind][-1] if config.tokens == "auto" else config.tokens


def _run_digest(
    text: str, meanings: Sequence[WeightedText], config: TrainConfig, examples: ExampleSet | None = None
) -> str:
    """Return a digest of a run's text, settings and examples."""
    values: list[Any] = [text, [[meaning.text, meaning.share] for meaning in meanings], digested_settings(config)]
    if examples is not None:
        values.append(examples.digest)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _complete_state(run: str, report: Report) -> Report:
    """Make `report.state()` independent of the caller's torch settings, and store the run's digest in the state."""
    take_state = neutral_torch()(report.state)
    return replace(report, state=lambda: replace(take_state(), run=run))


def _train_auto(
    encoder: Model,
    prompt: HardPrompt,
    config: TrainConfig,
    start: Tensor | None,
    interval: Interval,
    resume: TrainingState | None,
    workspace: Workspace,
) -> Generator[Report, bool | None, SoftPrompt]:
    """Return the smallest soft prompt that reaches `stop_at` when it is graded, among AUTO_TOKENS.

    If there is none, return the closest. No training run stops early here, because one that stops at `stop_at` often
    falls short of it in other contexts.
    """
    first, best = (resume.tokens, resume.best) if resume else (1, None)
    # more tokens than the prompt has do not help
    most = max(first, min(encoder.max_prompt_tokens, prompt.tokens))
    token_counts = [tokens for tokens in AUTO_TOKENS[encoder.kind] if first <= tokens <= most] or [first]
    final = token_counts[-1]
    for tokens in token_counts:
        fixed = replace(config, tokens=tokens, stop_at=None)
        try:
            state = resume if tokens == first else None
            training = train_one(
                encoder, partial(make_objective, encoder, workspace=workspace), prompt, fixed,
                start=start, interval=interval, resume=state,
            )  # fmt: skip
            result, last = yield from _hold_last_report(map_reports(training, partial(_attach_best, best)))
            finished = finish(encoder, prompt, fixed, result, workspace=workspace)
            soft_prompt = replace(finished, config=config.as_dict())
        except TrainingFailed as error:
            raise TrainingFailed(str(error), best or error.best) from error
        if best is None or distance_to_goal(soft_prompt, config) < distance_to_goal(best, config):
            best = soft_prompt
        if distance_to_goal(soft_prompt, config) <= 0:
            best = soft_prompt
        elif soft_prompt.stopped == "interrupted":
            best = replace(best, stopped="interrupted")
        elif tokens == final:
            where = "of the floor's KL" if best.answers is not None else "both alone and composed"
            warning = f"no soft prompt of up to {final} tokens reached {config.stop_at:g} {where}"
            best = replace(best, warnings=(*best.warnings, f"{warning}; this is the closest"))
        elif last is None or not (yield last):
            continue
        else:
            return replace(best, stopped="interrupted")
        break
    assert best is not None
    if last is not None:
        yield replace(last, result=best)
    return best


def _hold_last_report(
    training: Generator[Report, bool | None, TrainingResult],
) -> Generator[Report, bool | None, tuple[TrainingResult, Report | None]]:
    """Run a training without yielding its last report, so that the caller can attach the result.

    Returns:
        The result, and the last report, or None if it has been yielded, because the run was stopped at it or failed.
    """
    stop: bool | None = None
    last: Report | None = None
    while True:
        try:
            report = training.send(stop)
            if report.stopped and report.stopped != "failed":
                last = report
                training.send(None)
            stop = yield report
        except StopIteration as finished:
            result: TrainingResult = finished.value
            return result, last


def _attach_best(best: SoftPrompt | None, report: Report) -> Report:
    """Add the best soft prompt among the smaller token counts to the report's state."""
    return replace(report, state=lambda: replace(report.state(), best=best))


def finish(
    encoder: Model,
    prompt: HardPrompt,
    config: TrainConfig,
    result: TrainingResult,
    run: str = "",
    workspace: Workspace = NO_WORKSPACE,
) -> SoftPrompt:
    """Grade and read out a result. If training failed, raises TrainingFailed with the soft prompt, if there is one.

    Args:
        run: the key of the run in the workspace.
    """
    if not math.isfinite(result.loss):
        raise TrainingFailed(result.failure or "training ended before its first step")
    try:
        soft_prompt = _build_soft_prompt(encoder, prompt, config, result, run, workspace)
    except RuntimeError as error:  # the device is lost or full: grade on the CPU instead
        if encoder.device.type == "cpu":
            raise TrainingFailed(device_failure(error, encoder.device)) from error
        on_cpu = load_on_cpu(encoder)
        soft_prompt = _build_soft_prompt(on_cpu, prompt, config, result, run, workspace)
    if result.failure:
        raise TrainingFailed(result.failure, soft_prompt)
    return soft_prompt


def _build_soft_prompt(
    encoder: Model, prompt: HardPrompt, config: TrainConfig, result: TrainingResult, run: str, workspace: Workspace
) -> SoftPrompt:
    return SoftPrompt(
        hard_prompt=prompt.text,
        meanings=prompt.meanings,
        model=encoder.name,
        model_fingerprint=encoder.fingerprint,
        vectors=result.vectors.numpy(),
        losses=result.losses.numpy(),
        similarities=result.similarities.numpy(),
        loss=result.loss,
        steps=result.steps,
        seconds=result.seconds,
        stopped=result.stopped,
        config=config.as_dict(),
        device=result.device,
        warnings=_warnings(prompt, config, result),
        versions={"softprompt-tui": version("softprompt-tui"), "torch": torch.__version__},
        **measure(encoder, prompt, result.vectors, config, run, workspace),
    )


def _warnings(prompt: HardPrompt, config: TrainConfig, result: TrainingResult) -> tuple[str, ...]:
    warnings = []
    tokens = len(result.vectors)
    if tokens >= prompt.tokens and config.objective != "examples":
        warnings.append(
            f"{tokens} soft tokens are no fewer than the prompt's own {prompt.tokens}"
            + (f": try fewer, such as {min(3, prompt.tokens - 1)}" if prompt.tokens > 1 else "")
        )
    if len(prompt.chunks) > max(1, len(prompt.variants)):
        warnings.append(
            f"the prompt has {prompt.tokens} tokens, so the target is the mean of {len(prompt.chunks)} chunks"
        )
    if prompt.dropped:
        warnings.append(f"the prompt was cut to {prompt.tokens} tokens; dropped text: '{shorten(prompt.dropped)}'")
    if result.skipped:
        warnings.append(
            f"{len(result.skipped)} of {len(config.contexts)} contexts have no room for this prompt and were skipped: "
            "the soft prompt may work less well next to other words"
        )
    return tuple(warnings)
