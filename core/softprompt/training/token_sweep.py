"""Tokens against fidelity: soft prompts of several numbers of tokens for one hard prompt, trained in one batch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from softprompt.config import TrainConfig, check_sweep
from softprompt.encoders.base import FrozenModel
from softprompt.errors import ConfigError
from softprompt.objectives.base import HardPrompt, ObjectiveFor
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.prompts.sweep_result import SweepResult
from softprompt.training.batch import TrainingBatch
from softprompt.training.errors import TrainingFailed
from softprompt.training.init import init_vectors
from softprompt.training.loop import Interval, device_failure
from softprompt.training.slot import BatchSlot
from softprompt.training.task import TrainingResult


@dataclass(frozen=True)
class SweepReport:
    """How far a sweep is. `results` has for each number of tokens: it, the similarity alone, and the mean in the training contexts."""

    step: int
    steps: int
    seconds: float
    losses: tuple[float, ...]
    results: tuple[tuple[int, float, float], ...]

    @property
    def steps_per_second(self) -> float:
        return self.step / self.seconds if self.seconds else 0.0


def descend_sweep(
    model: FrozenModel,
    objective_for: ObjectiveFor,
    text: str,
    ks: Sequence[int],
    config: TrainConfig,
    *,
    meanings: Sequence[WeightedText] = (),
    interval: Interval = 10,
) -> Generator[SweepReport, bool | None, tuple[HardPrompt, list[tuple[TrainConfig, TrainingResult]]]]:
    """Trains `text` with each of `ks` soft tokens at once, yields a report every `interval` steps, returns what each number came to.

    `config` is theirs but for `tokens`. Sending True stops it with the best so far. A device that fails ends those that train with the best
    until then and `failure` set. Raises PromptError, ConfigError, and TrainingFailed where not one step is possible.
    """
    ks = check_sweep(ks)
    config = replace(config, tokens=ks[-1])
    if config.init == "soft":
        raise ConfigError("a sweep has no one soft prompt to begin from: init can be noise, vocabulary or prompt")
    members: list[BatchSlot] = []
    try:
        objective = objective_for(config, ks)
        prompt = objective.tokenize(text, meanings, config.long)
        pool = TrainingBatch(model, objective, config, ks)
        members = pool.prepare([(prompt, replace(config, tokens=k), str(k)) for k in ks])
        starts = [init_vectors(model, prompt, member.config, member.tokens, None) for member in members]
        pool.insert([(member, start, None) for member, start in zip(members, starts, strict=True)])
        due = interval if callable(interval) else lambda step: step % interval == 0
        while pool.slots:
            pool.step()
            if pool.should_check():
                pool.check()
                pool.remove([member for member in pool.slots if member.stopped])
            if due(pool.clock) or not pool.slots:
                pool.sync(pool.slots)
                if (yield _report(members)):
                    break
    except RuntimeError as error:  # torch's type for a lost or full device
        lost = device_failure(error, model.device)
        if not any(member.step for member in members):
            raise TrainingFailed(lost) from error
        for member in pool.slots:
            member.stopped, member.failure = "failed", lost
    return prompt, [(member.config, member.trained(model.device_label)) for member in members]


def knee(points: Sequence[tuple[int, float]]) -> int:
    """The number of tokens after which more of them give little, of (tokens, fidelity) pairs: farthest above the line from the first to the last.

    Source: Satopää et al. 2011 (Kneedle). Where fidelity does not rise, it is the first.
    """
    ordered = sorted(points)
    best, rising = -2.0, []
    for k, value in ordered:
        best = max(best, value)
        rising.append((k, best))
    (first, low), (last, high) = rising[0], rising[-1]
    if high <= low or last == first:
        return first
    above = [(value - low) / (high - low) - (k - first) / (last - first) for k, value in rising]
    return rising[above.index(max(above))][0]


def results(made: list[SoftPrompt]) -> list[SweepResult]:
    """What each number of tokens came to; at one of them is the knee."""
    at = knee([(prompt.tokens, _fidelity(prompt)) for prompt in made])
    return [_result(prompt, prompt.tokens == at) for prompt in made]


def _result(made: SoftPrompt, is_knee: bool) -> SweepResult:
    composed = made.composition
    return SweepResult(
        made.tokens,
        made.similarity,
        composed.mean if composed else None,
        composed.worst if composed else None,
        composed.floor if composed else None,
        made.readout_text,
        made.readout_similarity,
        is_knee,
    )


def _fidelity(made: SoftPrompt) -> float:
    return made.composition.mean if made.composition else made.similarity or 0.0


def _report(members: Sequence[BatchSlot]) -> SweepReport:
    latest = max(members, key=lambda member: member.step)
    losses, results = [], []
    for member in members:
        figures, leader = member.figures()[:, :, member.leader], member.leader
        best = figures[int(member.at.best_step[leader])]
        losses.append(float(figures[-1, 0]))
        results.append((member.tokens, float(best[1]), float(best[2])))
    return SweepReport(latest.step, latest.config.steps, latest.seconds, tuple(losses), tuple(results))
