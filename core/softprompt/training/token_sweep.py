"""Token sweep: train soft prompts of several lengths for one hard prompt, in one batch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from softprompt.config import TrainConfig, check_sweep
from softprompt.encoders.base import FrozenModel
from softprompt.errors import ConfigError
from softprompt.objectives.base import HardPrompt, ObjectiveFactory
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.prompts.sweep_result import SweepResult
from softprompt.prompts.values import ComparedByValue
from softprompt.prompts.visible_text import short_repr
from softprompt.training.batch import TrainingBatch
from softprompt.training.errors import TrainingFailed
from softprompt.training.init import init_vectors
from softprompt.training.loop import Interval, device_failure
from softprompt.training.slot import BatchSlot
from softprompt.training.task import TrainingResult


@dataclass(frozen=True, eq=False, repr=False)
class SweepReport(ComparedByValue):
    """Progress of a sweep.

    Attributes:
        losses: the loss of every token count at this step.
        results: (tokens, similarity, composed similarity in the training contexts) of every token count.
    """

    step: int
    steps: int
    seconds: float
    losses: tuple[float, ...]
    results: tuple[tuple[int, float, float], ...]

    _hashed = ("step", "steps")

    def __repr__(self) -> str:
        return short_repr(
            "SweepReport",
            step=self.step,
            steps=self.steps,
            seconds=self.seconds,
            tokens=tuple(tokens for tokens, *_ in self.results),
            similarity=max((similarity for _, similarity, _ in self.results), default=None),
        )

    @property
    def steps_per_second(self) -> float:
        return self.step / self.seconds if self.seconds else 0.0


def train_sweep(
    model: FrozenModel,
    make_objective: ObjectiveFactory,
    text: str,
    token_counts: Sequence[int],
    config: TrainConfig,
    *,
    meanings: Sequence[WeightedText] = (),
    interval: Interval = 10,
) -> Generator[SweepReport, bool | None, tuple[HardPrompt, list[tuple[TrainConfig, TrainingResult]]]]:
    """Train `text` once per token count, all in one batch. Yields a report at every `interval`; send True to stop.

    If the device fails, unfinished slots end with their best vectors so far, and `failure` is set.

    Args:
        config: the settings for all token counts; `tokens` is ignored.

    Raises:
        PromptError: the prompt cannot be trained.
        ConfigError: the settings cannot be used.
        TrainingFailed: the device failed before the first step.
    """
    token_counts = check_sweep(token_counts)
    config = replace(config, tokens=token_counts[-1])
    if config.init == "soft":
        raise ConfigError(
            "init 'soft' needs a saved soft prompt, which a sweep cannot use. Use noise, vocabulary, prompt or first."
        )
    slots: list[BatchSlot] = []
    try:
        objective = make_objective(config, token_counts)
        prompt = objective.tokenize(text, meanings, config.long)
        batch = TrainingBatch(model, objective, config, token_counts)
        slots = batch.prepare([(prompt, replace(config, tokens=tokens), str(tokens)) for tokens in token_counts])
        starts = [init_vectors(model, prompt, slot.config, slot.tokens, None) for slot in slots]
        batch.insert([(slot, start, None) for slot, start in zip(slots, starts, strict=True)])
    except RuntimeError as error:  # torch raises it or a subclass if a device is lost or full
        raise TrainingFailed(device_failure(error, model.device)) from error
    is_due = interval if callable(interval) else lambda step: step % interval == 0
    while batch.slots:
        report = None
        try:
            batch.step()
            if batch.should_check():
                batch.check()
                batch.remove([slot for slot in batch.slots if slot.stopped])
            if not batch.slots:
                report = _build_report(slots)
        except RuntimeError as error:
            _fail(batch, slots, error)
            break
        if report is None and is_due(batch.clock):  # outside `try`: an error in `interval` is no device failure
            try:
                batch.sync(batch.slots)
                report = _build_report(slots)
            except RuntimeError as error:
                _fail(batch, slots, error)
                break
        if report is not None and (yield report):
            break
    return prompt, [(slot.config, slot.result(model.device_label)) for slot in slots]


def _fail(batch: TrainingBatch, slots: Sequence[BatchSlot], error: RuntimeError) -> None:
    """End the unfinished slots. Raises TrainingFailed if no slot has taken a step."""
    failure = device_failure(error, batch.model.device)
    if not any(slot.step for slot in slots):
        raise TrainingFailed(failure) from error
    for slot in batch.slots:
        slot.stopped, slot.failure = "failed", failure


def find_knee(points: Sequence[tuple[int, float]]) -> int:
    """Return the token count beyond which more tokens help little, given (tokens, fidelity) pairs.

    This knee is the point farthest above the straight line from the first to the last point (Satopää et al. 2011,
    Kneedle), or the first point if fidelity does not rise.
    """
    ordered = sorted(points)
    best, rising = -2.0, []
    for tokens, value in ordered:
        best = max(best, value)
        rising.append((tokens, best))
    (first, low), (last, high) = rising[0], rising[-1]
    if high <= low or last == first:
        return first
    above = [(value - low) / (high - low) - (tokens - first) / (last - first) for tokens, value in rising]
    return rising[above.index(max(above))][0]


def sweep_results(prompts: list[SoftPrompt]) -> list[SweepResult]:
    """Return one result per soft prompt, with the knee marked."""
    knee = find_knee([(prompt.tokens, _fidelity(prompt)) for prompt in prompts])
    return [_result(prompt, prompt.tokens == knee) for prompt in prompts]


def _result(prompt: SoftPrompt, is_knee: bool) -> SweepResult:
    fidelity, answers = prompt.composition, prompt.answers
    return SweepResult(
        prompt.tokens,
        prompt.similarity,
        fidelity.mean if fidelity else None,
        fidelity.worst if fidelity else None,
        fidelity.floor if fidelity else None,
        prompt.readout_text,
        prompt.readout_similarity,
        is_knee,
        answers.score.kl if answers else None,
        answers.kl_share if answers and answers.floor > 0 else None,
    )


def _fidelity(prompt: SoftPrompt) -> float:
    if prompt.answers is not None:
        return -prompt.answers.score.kl
    return prompt.composition.mean if prompt.composition else prompt.similarity or 0.0


def _build_report(slots: Sequence[BatchSlot]) -> SweepReport:
    latest = max(slots, key=lambda slot: slot.step)
    losses, results = [], []
    for slot in slots:
        history, row = slot.history()[:, :, slot.best_row], slot.best_row
        best = history[int(slot.metrics.best_step[row])]
        losses.append(float(history[-1, 0]))
        results.append((slot.tokens, float(best[1]), float(best[2])))
    return SweepReport(latest.step, latest.config.steps, latest.seconds, tuple(losses), tuple(results))
