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
from torch.nn import functional as F

from softprompt.config import DEFAULT_SWEEP, TrainConfig, check_sweep, digested_settings
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.loading import load_encoder
from softprompt.encoders.torch_settings import isolated, neutral_torch
from softprompt.errors import SoftPromptError, shorten
from softprompt.evaluation.fidelity import grade
from softprompt.evaluation.hidden_states import hidden_similarities
from softprompt.evaluation.readout import read_out, readout_similarity
from softprompt.objectives.base import HardPrompt, Objective
from softprompt.objectives.hard_prompt import tokenize_target
from softprompt.objectives.hidden_states import HiddenStatesObjective
from softprompt.objectives.pooled import MAX_TURNS, PooledObjective, encode_target
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.system.generators import drive, map_reports
from softprompt.system.threads import choose_threads, kept_threads
from softprompt.training.batch import TrainingBatch, other_state
from softprompt.training.errors import TrainingFailed
from softprompt.training.init import as_start_tensor
from softprompt.training.loop import Interval, Report, device_failure, train_one
from softprompt.training.scheduler import MAX_ROWS, train_scheduled
from softprompt.training.task import TrainingResult, TrainingState, TrainingTask
from softprompt.training.token_sweep import SweepReport, train_sweep

MAX_AUTO_TOKENS = 16  # the largest number of soft tokens that "auto" tries
POSITIONS_AROUND = 4  # computed in a context besides the soft tokens, on average (encoders.clip.context_batch)


def train(
    encoder: TextEncoder,
    text: str,
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText] = (),
    start: SoftPrompt | Array | Tensor | None = None,
    on_report: Callable[[Report], bool | None] | None = None,
    interval: Interval = 10,
    resume: TrainingState | None = None,
    **settings: Any,
) -> SoftPrompt:
    """Train a soft prompt for the hard prompt `text`.

    Args:
        meanings: weighted texts to train on instead; `text` is then only a label.
        start: the soft prompt or vectors (k, w) to start from with init="soft".
        on_report: called with each report; returns True to stop.
        interval: steps between reports, or a function from the step to whether a report is due.
        resume: the state of an earlier report, to continue from. All other arguments must be the same as then.
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
        encoder, text, config, meanings=meanings, start=start, interval=interval, resume=resume, **settings
    )
    return drive(training, on_report)


def iter_train(
    encoder: TextEncoder,
    text: str,
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText] = (),
    start: SoftPrompt | Array | Tensor | None = None,
    interval: Interval = 10,
    resume: TrainingState | None = None,
    **settings: Any,
) -> Generator[Report, bool | None, SoftPrompt]:
    """Do the same as `train`, as a generator that yields Reports and returns the soft prompt. Send True to stop."""
    config = replace(config or TrainConfig(), **settings)
    run = _run_digest(text, meanings, config)
    if resume is not None and resume.run not in ("", run):
        raise other_state()
    training = map_reports(
        _iter_train(encoder, text, config, meanings, start, interval, resume), partial(_complete_state, run)
    )
    tokens = MAX_AUTO_TOKENS if config.tokens == "auto" else config.tokens
    return (yield from isolated(training, _threads(encoder, config, tokens, config.restarts, resume)))


def _iter_train(
    encoder: TextEncoder,
    text: str,
    config: TrainConfig,
    meanings: Sequence[WeightedText],
    start: SoftPrompt | Array | Tensor | None,
    interval: Interval,
    resume: TrainingState | None,
) -> Generator[Report, bool | None, SoftPrompt]:
    prompt = tokenize_target(encoder, text, meanings, config.long)
    vectors = as_start_tensor(encoder, start)
    if config.tokens != "auto":
        training = train_one(
            encoder, partial(make_objective, encoder), prompt, config, start=vectors, interval=interval, resume=resume
        )
        result, last = yield from _hold_last_report(training)
        soft_prompt = finish(encoder, prompt, config, result)
        if last is not None:
            yield replace(last, result=soft_prompt)
        return soft_prompt
    return (yield from _train_auto(encoder, prompt, config, vectors, interval, resume))


def train_many(
    encoder: TextEncoder,
    tasks: Iterable[TrainingTask],
    *,
    row_limit: int | None = None,
    on_step: Callable[[TrainingBatch], bool | None] | None = None,
) -> Iterator[tuple[TrainingTask, SoftPrompt | SoftPromptError]]:
    """Train tasks that share a `TrainConfig.batch_key`. Yields each as soon as it ends, with its soft prompt or error.

    Tasks are only read when rows become free, so `tasks` may be arbitrarily long.

    Args:
        row_limit: restarts to train at the same time; by default as many as `max_rows` allows.
        on_step: called with the batch after every step. If it returns True, training ends and nothing more is yielded.

    Raises:
        TrainingFailed: the device failed.
    """
    waiting = iter(tasks)
    first = next(waiting, None)
    if first is None:
        return
    tokens = MAX_AUTO_TOKENS if first.config.tokens == "auto" else first.config.tokens
    threads = _threads(encoder, first.config, tokens, row_limit or MAX_ROWS, first.resume)
    yield from isolated(_train_many(encoder, chain([first], waiting), row_limit, on_step), threads)


def _train_many(
    encoder: TextEncoder,
    tasks: Iterable[TrainingTask],
    row_limit: int | None,
    on_step: Callable[[TrainingBatch], bool | None] | None,
) -> Generator[tuple[TrainingTask, SoftPrompt | SoftPromptError], bool | None, None]:
    for task, outcome in train_scheduled(
        encoder, partial(make_objective, encoder), tasks, row_limit=row_limit, on_step=on_step
    ):
        if isinstance(outcome, SoftPromptError):
            yield task, outcome
            continue
        try:
            yield task, finish(encoder, outcome.prompt, task.config, outcome.result(encoder.device_label))
        except SoftPromptError as error:
            yield task, error


def sweep(
    encoder: TextEncoder,
    text: str,
    token_counts: Sequence[int] = DEFAULT_SWEEP,
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText] = (),
    interval: Interval = 10,
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
    config = config or TrainConfig()
    token_counts = check_sweep(token_counts)
    threads = _threads(encoder, config, token_counts[-1], config.restarts * len(token_counts))
    return (yield from isolated(_sweep(encoder, text, token_counts, config, meanings, interval), threads))


def _sweep(
    encoder: TextEncoder,
    text: str,
    token_counts: Sequence[int],
    config: TrainConfig,
    meanings: Sequence[WeightedText],
    interval: Interval,
) -> Generator[SweepReport, bool | None, list[SoftPrompt]]:
    prompt, results = yield from train_sweep(
        encoder,
        partial(make_objective, encoder),
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
            soft_prompts.append(finish(encoder, prompt, slot_config, result))
        except TrainingFailed as error:  # the other token counts are unaffected
            failure = error
            if error.best is not None:
                soft_prompts.append(replace(error.best, warnings=(*error.best.warnings, str(error))))
    if not soft_prompts:
        raise failure or TrainingFailed("the sweep ended before its first step")
    return soft_prompts


@neutral_torch()
def _threads(
    encoder: TextEncoder, config: TrainConfig, tokens: int, rows: int, resume: TrainingState | None = None
) -> int:
    """Return the number of CPU threads for a run that starts now, or 0 on a GPU.

    A resumed run keeps its number, so that the bits stay the same. A state without a number comes from an older
    version, which used the caller's number.
    """
    if encoder.device.type != "cpu":
        return 0
    if resume is not None:
        return kept_threads(resume.threads or torch.get_num_threads())
    contexts = 1 + math.ceil(len(config.contexts) / MAX_TURNS)
    positions = rows * contexts * (tokens + POSITIONS_AROUND)
    return choose_threads(torch.get_num_threads(), positions * encoder.width**2)


def _run_digest(text: str, meanings: Sequence[WeightedText], config: TrainConfig) -> str:
    """Return a digest of a run's text and settings."""
    values = [text, [[meaning.text, meaning.share] for meaning in meanings], digested_settings(config)]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _complete_state(run: str, report: Report) -> Report:
    """Make `report.state()` independent of the caller's torch settings, and store the run's digest in the state."""
    take_state = neutral_torch()(report.state)
    return replace(report, state=lambda: replace(take_state(), run=run))


def make_objective(encoder: TextEncoder, config: TrainConfig, token_counts: Sequence[int]) -> Objective:
    """Return the objective for a batch whose soft prompts have these token counts. Raises ConfigError."""
    objective_class = HiddenStatesObjective if config.hidden_weight else PooledObjective
    return objective_class(encoder, config, token_counts)


def _train_auto(
    encoder: TextEncoder,
    prompt: HardPrompt,
    config: TrainConfig,
    start: Tensor | None,
    interval: Interval,
    resume: TrainingState | None,
) -> Generator[Report, bool | None, SoftPrompt]:
    """Return the smallest soft prompt whose similarity, alone and in the grading contexts, reaches `stop_at`.

    If there is none, return the closest. No training run stops early here, because one that stops at `stop_at` often
    falls short of it in other contexts.
    """
    goal = config.stop_at
    assert goal is not None  # TrainConfig requires it
    first, best = (resume.tokens, resume.best) if resume else (1, None)
    # more tokens than the prompt has do not help
    final = max(first, min(MAX_AUTO_TOKENS, encoder.max_prompt_tokens, prompt.tokens))
    for tokens in range(first, final + 1):
        fixed = replace(config, tokens=tokens, stop_at=None)
        try:
            state = resume if tokens == first else None
            training = train_one(
                encoder, partial(make_objective, encoder), prompt, fixed, start=start, interval=interval, resume=state
            )
            result, last = yield from _hold_last_report(map_reports(training, partial(_attach_best, best)))
            soft_prompt = replace(finish(encoder, prompt, fixed, result), config=config.as_dict())
        except TrainingFailed as error:
            raise TrainingFailed(str(error), best or error.best) from error
        if best is None or _lower_similarity(soft_prompt, config) > _lower_similarity(best, config):
            best = soft_prompt
        if _lower_similarity(soft_prompt, config) >= goal:
            best = soft_prompt
        elif soft_prompt.stopped == "interrupted":
            best = replace(best, stopped="interrupted")
        elif tokens == final:
            warning = f"no soft prompt of up to {final} tokens reached {goal:g} both alone and composed"
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


def _lower_similarity(soft_prompt: SoftPrompt, config: TrainConfig) -> float:
    assert soft_prompt.similarity is not None  # set by `finish`
    composed = soft_prompt.composition.mean if soft_prompt.composition and config.contexts else soft_prompt.similarity
    return min(soft_prompt.similarity, composed)


def finish(encoder: TextEncoder, prompt: HardPrompt, config: TrainConfig, result: TrainingResult) -> SoftPrompt:
    """Grade and read out a result. If training failed, raises TrainingFailed with the soft prompt, if there is one."""
    if not math.isfinite(result.loss):
        raise TrainingFailed(result.failure or "training ended before its first step")
    try:
        soft_prompt = _build_soft_prompt(encoder, prompt, config, result)
    except RuntimeError as error:  # the device is lost or full: grade on the CPU instead
        if encoder.device.type == "cpu":
            raise TrainingFailed(device_failure(error, encoder.device)) from error
        soft_prompt = _build_soft_prompt(load_encoder(encoder.name, "cpu"), prompt, config, result)
    if result.failure:
        raise TrainingFailed(result.failure, soft_prompt)
    return soft_prompt


def _build_soft_prompt(
    encoder: TextEncoder, prompt: HardPrompt, config: TrainConfig, result: TrainingResult
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
        **measure(encoder, prompt, result.vectors),
    )


@neutral_torch()
def measure(encoder: TextEncoder, prompt: HardPrompt, vectors: Tensor | Array) -> dict[str, Any]:
    """Measure how well `vectors` (k, w) match the hard prompt, and read them out. Returns SoftPrompt fields."""
    similarity, composition = grade(encoder, prompt, vectors)
    readout, readout_text = read_out(encoder, vectors)
    target = F.normalize(encode_target(encoder, prompt, [ALONE])[0], dim=-1).cpu()
    return {
        "target": target.numpy(),
        "similarity": similarity,
        "composition": composition,
        "readout": readout,
        "readout_text": readout_text,
        "readout_similarity": readout_similarity(encoder, readout_text, target),
        "hidden": hidden_similarities(encoder, prompt, vectors),
    }


def _warnings(prompt: HardPrompt, config: TrainConfig, result: TrainingResult) -> tuple[str, ...]:
    warnings = []
    tokens = len(result.vectors)
    if tokens >= prompt.tokens:
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
