"""From a hard prompt to a finished soft prompt: train, grade, read out. Prints nothing, writes nothing, keeps no state."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import TrainConfig
from softprompt.encoder import TextEncoder
from softprompt.errors import TrainingFailed
from softprompt.grading import grade
from softprompt.models import load_encoder
from softprompt.prompt import SoftPrompt
from softprompt.readout import read_out, readout_similarity
from softprompt.targets import ALONE, HardPrompt, hard_prompt, targets_in
from softprompt.training import Report, Trained, descend

MOST_AUTO = 16  # soft tokens that "auto" tries


def train(
    encoder: TextEncoder,
    text: str,
    config: TrainConfig | None = None,
    *,
    start: Tensor | None = None,
    on_report: Callable[[Report], bool | None] | None = None,
    interval: int = 10,
    **settings: Any,
) -> SoftPrompt:
    """Trains a soft prompt for the hard prompt `text`; `settings` are TrainConfig's, such as tokens=3.

    `on_report` is called every `interval` steps and ends the training by returning True; `start` (k, width) is what init="soft"
    begins from. Raises PromptError, ConfigError, and TrainingFailed with the best until then.
    """
    reports = iter_train(encoder, text, config, start=start, interval=interval, **settings)
    stop: bool | None = None
    while True:
        try:
            report = reports.send(stop)
        except StopIteration as finished:
            result: SoftPrompt = finished.value
            return result
        stop = on_report(report) if on_report else None


def iter_train(
    encoder: TextEncoder,
    text: str,
    config: TrainConfig | None = None,
    *,
    start: Tensor | None = None,
    interval: int = 10,
    **settings: Any,
) -> Generator[Report, bool | None, SoftPrompt | None]:
    """As `train`, but yields a Report every `interval` steps and returns the soft prompt; sending True stops it."""
    config = replace(config or TrainConfig(), **settings)
    prompt = hard_prompt(encoder, text, config.long)
    if config.tokens != "auto":
        trained = yield from descend(encoder, prompt, config, start=start, interval=interval)
        return _finish(encoder, prompt, config, trained)

    target = config.stop_at if config.stop_at is not None else 1.0
    best: SoftPrompt | None = None
    for tokens in range(1, min(MOST_AUTO, encoder.room) + 1):
        trained = yield from descend(encoder, prompt, replace(config, tokens=tokens), start=start, interval=interval)
        made = _finish(encoder, prompt, config, trained, tokens)
        composed = made.composition.mean if made.composition and config.contexts else made.similarity
        if best is None or made.similarity >= best.similarity:
            best = made
        if min(made.similarity, composed) >= target or made.stopped == "interrupted":
            return made
        if tokens >= prompt.tokens:  # as many as the words themselves: longer is no use
            break
    assert best is not None
    missed = f"no soft prompt of up to {tokens} tokens reached {target:g} alone and composed; this one came closest"
    return replace(best, warnings=(*best.warnings, missed))


def _finish(
    encoder: TextEncoder, prompt: HardPrompt, config: TrainConfig, trained: Trained, tokens: int | None = None
) -> SoftPrompt:
    """Grades and reads out what a training came to."""
    if not len(trained.losses):
        raise TrainingFailed(trained.failure or "the training ended before its first step")
    if trained.stopped == "failed" and encoder.device.type != "cpu":
        encoder = load_encoder(encoder.name, "cpu")  # the device may be lost, and the weights on it
    similarity, composition = grade(encoder, prompt, trained.vectors)
    readout, readout_text = read_out(encoder, trained.vectors)
    target = F.normalize(targets_in(encoder, prompt, [ALONE])[0], dim=-1).cpu()
    made = SoftPrompt(
        hard_prompt=prompt.text,
        model=encoder.name,
        model_fingerprint=encoder.fingerprint,
        vectors=trained.vectors.numpy(),
        target=target.numpy(),
        losses=trained.losses.numpy(),
        similarities=trained.similarities.numpy(),
        similarity=similarity,
        composition=composition,
        loss=trained.loss,
        steps=trained.steps,
        seconds=trained.seconds,
        stopped=trained.stopped,
        readout=readout,
        readout_text=readout_text,
        readout_similarity=readout_similarity(encoder, readout_text, target),
        config=replace(config, tokens=len(trained.vectors)).as_dict() | ({"tokens": "auto"} if tokens else {}),
        warnings=_warnings(prompt, config, trained, encoder),
        versions={"softprompt-tui": version("softprompt-tui"), "torch": torch.__version__},
    )
    if trained.failure:
        raise TrainingFailed(trained.failure, made)
    return made


def _warnings(prompt: HardPrompt, config: TrainConfig, trained: Trained, encoder: TextEncoder) -> tuple[str, ...]:
    notes = []
    tokens = len(trained.vectors)
    if tokens >= prompt.tokens:
        notes.append(f"{tokens} soft tokens are not fewer than the prompt's own {prompt.tokens}: try fewer, such as 3")
    if len(prompt.pieces) > 1:
        notes.append(f"the prompt's {prompt.tokens} tokens were trained on as the mean of {len(prompt.pieces)} chunks")
    if config.long == "cut" and prompt.tokens == encoder.room:
        notes.append(f"the prompt was cut to {encoder.room} tokens: '… {prompt.text[-40:]}'")
    if trained.skipped:
        notes.append(
            f"{len(trained.skipped)} of {len(config.contexts)} contexts have no room for this prompt and were left out: "
            "the soft prompt may lose meaning beside other words"
        )
    return tuple(notes)
