"""From a hard prompt to a finished soft prompt: train, grade, read out. Prints nothing, writes nothing, keeps no state."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import USUAL_SWEEP, TrainConfig
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.loading import load_encoder
from softprompt.errors import SoftPromptError, shortened
from softprompt.evaluation.fidelity import grade
from softprompt.evaluation.hidden_states import hidden_similarities
from softprompt.evaluation.readout import read_out, readout_similarity
from softprompt.objectives.base import HardPrompt, Objective
from softprompt.objectives.hard_prompt import tokenize_target
from softprompt.objectives.hidden_states import HiddenStatesObjective
from softprompt.objectives.pooled import PooledObjective, encode_targets_in
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.system.generators import drive, map_reports
from softprompt.training.batch import TrainingBatch
from softprompt.training.errors import TrainingFailed
from softprompt.training.init import as_start_tensor
from softprompt.training.loop import Interval, Report, device_failure, train_one
from softprompt.training.scheduler import train_scheduled
from softprompt.training.task import TrainingResult, TrainingState, TrainingTask
from softprompt.training.token_sweep import SweepReport, descend_sweep

MAX_AUTO_TOKENS = 16  # soft tokens that "auto" tries


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
    """Trains a soft prompt for the hard prompt `text`; `settings` are TrainConfig's, such as tokens=3.

    With `meanings`, texts with their shares, it is trained on what these mean together, and `text` only says so to people. `on_report` is called every `interval` steps (or when `interval`, asked after each step, says so) and ends the training by
    returning True; `start`, a soft prompt or (k, width) vectors, is what init="soft" begins from; `resume` is a report's state()
    to go on from, all else being the same. Raises PromptError, ConfigError, and TrainingFailed with the best until then.
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
    """As `train`, but yields a Report every `interval` steps and returns the soft prompt; sending True stops it."""
    config = replace(config or TrainConfig(), **settings)
    prompt = tokenize_target(encoder, text, meanings, config.long)
    vectors = as_start_tensor(encoder, start)
    if config.tokens != "auto":
        trained = yield from train_one(
            encoder, partial(objective_for, encoder), prompt, config, start=vectors, interval=interval, resume=resume
        )
        return finish(encoder, prompt, config, trained)
    return (yield from _fewest(encoder, prompt, config, vectors, interval, resume))


def train_many(
    encoder: TextEncoder,
    tasks: Iterable[TrainingTask],
    *,
    places: int | None = None,
    on_step: Callable[[TrainingBatch], bool | None] | None = None,
) -> Iterator[tuple[TrainingTask, SoftPrompt | SoftPromptError]]:
    """Trains tasks of one plan (`TrainConfig.plan`) together, and yields each with what it came to as soon as it is over, or with its error.

    Tasks are drawn as places get free, so that there may be any number of them; `places`, on how many restarts at once, is by default as the
    device's memory has it. `on_step` is called after every step with the pool, whose `states()` say where all are; returning True ends it,
    and nothing more is yielded. Raises TrainingFailed where the device fails.
    """
    for task, done in train_scheduled(encoder, partial(objective_for, encoder), tasks, places=places, on_step=on_step):
        if isinstance(done, SoftPromptError):
            yield task, done
            continue
        try:
            yield task, finish(encoder, done.prompt, task.config, done.trained(encoder.device_label))
        except SoftPromptError as error:
            yield task, error


def sweep(
    encoder: TextEncoder,
    text: str,
    ks: Sequence[int] = USUAL_SWEEP,
    config: TrainConfig | None = None,
    *,
    meanings: Sequence[WeightedText] = (),
    interval: Interval = 10,
) -> Generator[SweepReport, bool | None, list[SoftPrompt]]:
    """Trains `text` with each of `ks` soft tokens in one batch, yields a report every `interval` steps, returns the soft prompts by their tokens.

    `config` is theirs but for `tokens`. Sending True stops it with the best so far. One that fails is returned as the best until then, with a
    warning. Raises PromptError, ConfigError, and TrainingFailed where nothing is left of any.
    """
    prompt, trained = yield from descend_sweep(
        encoder,
        partial(objective_for, encoder),
        text,
        ks,
        config or TrainConfig(),
        meanings=meanings,
        interval=interval,
    )
    made: list[SoftPrompt] = []
    failure: TrainingFailed | None = None
    for member_config, result in trained:
        try:
            made.append(finish(encoder, prompt, member_config, result))
        except TrainingFailed as error:  # the others are whole; of this one the best until then is left
            failure = error
            if error.best is not None:
                made.append(replace(error.best, warnings=(*error.best.warnings, str(error))))
    if not made:
        raise failure or TrainingFailed("the sweep ended before its first step")
    return made


def objective_for(encoder: TextEncoder, config: TrainConfig, tokens: Sequence[int]) -> Objective:
    """What trainings of this plan minimise; `tokens` are the numbers of soft tokens in their batch. Raises ConfigError."""
    kind = HiddenStatesObjective if config.share_of_hidden else PooledObjective
    return kind(encoder, config, tokens)


def _fewest(
    encoder: TextEncoder,
    prompt: HardPrompt,
    config: TrainConfig,
    start: Tensor | None,
    interval: Interval,
    resume: TrainingState | None,
) -> Generator[Report, bool | None, SoftPrompt]:
    """The soft prompt of fewest tokens that reaches `stop_at` alone and in contexts it was not trained in, else the closest.

    Each number of tokens gets all its steps: a training that stops at `stop_at` is often short of it in other contexts.
    """
    wanted = config.stop_at
    assert wanted is not None  # TrainConfig sees to it
    first, best = (resume.tokens, resume.best) if resume else (1, None)
    most = min(
        MAX_AUTO_TOKENS, encoder.max_prompt_tokens, prompt.tokens
    )  # with as many tokens as the prompt's own words, more are no use
    for tokens in range(first, most + 1):
        once = replace(config, tokens=tokens, stop_at=None)
        try:
            going_on = resume if tokens == first else None
            training = train_one(
                encoder, partial(objective_for, encoder), prompt, once, start=start, interval=interval, resume=going_on
            )
            trained = yield from map_reports(training, partial(_with_best, best))
            made = replace(finish(encoder, prompt, once, trained), config=config.as_dict())
        except TrainingFailed as error:
            raise TrainingFailed(str(error), best or error.best) from error
        if best is None or _reached(made, config) > _reached(best, config):
            best = made
        if _reached(made, config) >= wanted:
            return made
        if made.stopped == "interrupted":
            return replace(best, stopped="interrupted")
    assert best is not None
    missed = f"no soft prompt of up to {most} tokens reached {wanted:g} alone and composed; this one came closest"
    return replace(best, warnings=(*best.warnings, missed))


def _with_best(best: SoftPrompt | None, report: Report) -> Report:
    """The report, whose state also knows the best of the numbers of tokens tried before."""
    return replace(report, state=lambda: replace(report.state(), best=best))


def _reached(made: SoftPrompt, config: TrainConfig) -> float:
    assert made.similarity is not None  # it was graded just now
    composed = made.composition.mean if made.composition and config.contexts else made.similarity
    return min(made.similarity, composed)


def finish(encoder: TextEncoder, prompt: HardPrompt, config: TrainConfig, trained: TrainingResult) -> SoftPrompt:
    """Grades and reads out what a training came to; raises TrainingFailed with it where the training failed."""
    if not math.isfinite(trained.loss):
        raise TrainingFailed(trained.failure or "the training ended before its first step")
    try:
        made = _graded(encoder, prompt, config, trained)
    except RuntimeError as error:  # the device is lost or full
        if encoder.device.type == "cpu":
            raise TrainingFailed(device_failure(error, encoder.device)) from error
        made = _graded(load_encoder(encoder.name, "cpu"), prompt, config, trained)
    if trained.failure:
        raise TrainingFailed(trained.failure, made)
    return made


def _graded(encoder: TextEncoder, prompt: HardPrompt, config: TrainConfig, trained: TrainingResult) -> SoftPrompt:
    return SoftPrompt(
        hard_prompt=prompt.text,
        meanings=prompt.meanings,
        model=encoder.name,
        model_fingerprint=encoder.fingerprint,
        vectors=trained.vectors.numpy(),
        losses=trained.losses.numpy(),
        similarities=trained.similarities.numpy(),
        loss=trained.loss,
        steps=trained.steps,
        seconds=trained.seconds,
        stopped=trained.stopped,
        config=config.as_dict(),
        device=trained.device,
        warnings=_warnings(prompt, config, trained),
        versions={"softprompt-tui": version("softprompt-tui"), "torch": torch.__version__},
        **measured(encoder, prompt, trained.vectors),
    )


def measured(encoder: TextEncoder, prompt: HardPrompt, vectors: Tensor | Array) -> dict[str, Any]:
    """Return the fields of a SoftPrompt that say how near `vectors` (k, w) come to the hard prompt on this encoder, and how they read."""
    similarity, composition = grade(encoder, prompt, vectors)
    readout, readout_text = read_out(encoder, vectors)
    target = F.normalize(encode_targets_in(encoder, prompt, [ALONE])[0], dim=-1).cpu()
    return {
        "target": target.numpy(),
        "similarity": similarity,
        "composition": composition,
        "readout": readout,
        "readout_text": readout_text,
        "readout_similarity": readout_similarity(encoder, readout_text, target),
        "hidden": hidden_similarities(encoder, prompt, vectors),
    }


def _warnings(prompt: HardPrompt, config: TrainConfig, trained: TrainingResult) -> tuple[str, ...]:
    notes = []
    tokens = len(trained.vectors)
    if tokens >= prompt.tokens:
        notes.append(
            f"{tokens} soft tokens are not fewer than the prompt's own {prompt.tokens}"
            + (f": try fewer, such as {min(3, prompt.tokens - 1)}" if prompt.tokens > 1 else "")
        )
    if len(prompt.pieces) > max(1, len(prompt.variants)):
        notes.append(f"the prompt's {prompt.tokens} tokens were trained on as the mean of {len(prompt.pieces)} chunks")
    if prompt.dropped:
        notes.append(f"the prompt was cut to {prompt.tokens} tokens; what was dropped: '{shortened(prompt.dropped)}'")
    if trained.skipped:
        notes.append(
            f"{len(trained.skipped)} of {len(config.contexts)} contexts have no room for this prompt and were left out: "
            "the soft prompt may lose meaning beside other words"
        )
    return tuple(notes)
