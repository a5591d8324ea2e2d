"""Training: gradient descent on a few input embeddings of a frozen text encoder.

Shapes: r restarts, k soft tokens, w width, b rows (the prompt alone first, then in each context), e embed_dim. Sources: Lester
et al. 2021 (prompt tuning), Gal et al. 2022 (textual inversion); norm projection and context training are this project's own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import TrainConfig
from softprompt.encoder import TextEncoder
from softprompt.errors import ConfigError, TrainingFailed
from softprompt.hidden import HiddenTarget
from softprompt.objective import row_losses
from softprompt.targets import ALONE, HardPrompt, fitting, soft_rows, targets_in

if TYPE_CHECKING:
    from softprompt.prompt import SoftPrompt

# every so many steps, or what says after each step whether a report is due; it costs no report and no wait for the device
Interval = int | Callable[[int], bool]

CHECK_STEPS = 10  # how often the device is asked whether to stop; on cuda each question waits for it
BETAS, EPSILON = (0.9, 0.98), 1e-8
GROUPS = 4  # the contexts take turns: a quarter of them a step trains as well as all (measured), 2.5 times as fast
ALONE_SHARE = 0.3  # of the loss; the contexts share the rest
LEAST_PROGRESS = 1e-3  # of the loss: what patience counts as a fall
STATE = ("vectors", "first", "second", "recent", "history", "best", "best_loss", "best_step", "last_fall", "fallen_to")


@dataclass(frozen=True, eq=False)
class TrainState:
    """Everything that a training is at a step: on the cpu, going on from it gives the bits of one never interrupted.

    `tensors` are on the cpu; `tokens` and `best` are where "auto" is: the number being tried, and the best of those before.
    """

    step: int
    seconds: float
    tokens: int
    tensors: dict[str, Tensor]
    best: SoftPrompt | None = None


@dataclass(frozen=True)
class Report:
    """How far a training is. loss and similarity are the leading restart's at this step, the others the best so far.

    `state` captures the training as it is at this report; it must be called before the training goes on.
    """

    step: int
    steps: int
    loss: float
    similarity: float
    best_loss: float
    best_similarity: float
    seconds: float
    vectors: Tensor  # (k, w) on the cpu: the best so far
    restarts: tuple[float, ...]  # every restart's loss at this step; () where there is only one
    state: Callable[[], TrainState] = field(repr=False)

    @property
    def steps_per_second(self) -> float:
        return self.step / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Trained:
    """What a training came to: the best vectors of the best restart, and that restart's history."""

    vectors: Tensor  # (k, w) float32 on the cpu
    losses: Tensor  # (steps,) float32 on the cpu
    similarities: Tensor  # (steps,) of the prompt alone
    loss: float
    steps: int
    seconds: float
    stopped: str  # steps | stop_at | patience | interrupted | failed
    skipped: tuple[str, ...]  # contexts in which the prompt does not fit
    device: str  # and the tower's precision on it, such as "cpu, float32"
    failure: str = ""


def check_tokens(encoder: TextEncoder, tokens: int) -> None:
    """Raises ConfigError for more soft tokens than the context has room for."""
    if tokens > encoder.room:
        raise ConfigError(
            f"tokens is {tokens}; {encoder.name} has room for 1 to {encoder.room} (10 are usual, 3 are often enough)"
        )


def start_vectors(encoder: TextEncoder, prompt: HardPrompt, config: TrainConfig, k: int, soft: Tensor | None) -> Tensor:
    """(r, k, w) float32 on the encoder's device; the randomness comes from the cpu, so that every device starts alike."""
    rng = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(config.restarts, k, encoder.width, generator=rng).to(encoder.device) * encoder.token_std
    if soft is not None and config.init != "soft":
        raise ConfigError(f"a soft prompt to begin from was given, but init is {config.init!r}: set init to 'soft'")
    if config.init == "noise":
        return noise
    if config.init == "vocabulary":
        chosen = torch.randint(len(encoder.ordinary_ids), (config.restarts, k), generator=rng)
        return encoder.tower.table[encoder.ordinary_ids[chosen.to(encoder.device)]].float()
    if config.init == "prompt":
        soft = encoder.embed([token for piece in prompt.pieces for token in piece])
        if len(soft) > k:  # spread over the prompt
            soft = soft[torch.linspace(0, len(soft) - 1, k).round().long().to(soft.device)]
    elif soft is None or soft.ndim != 2 or soft.shape[-1] != encoder.width:
        had = "none was given" if soft is None else f"the one given has the shape {tuple(soft.shape)}"
        raise ConfigError(f"init is 'soft', which starts from a soft prompt of width {encoder.width}; {had}")
    start = noise.clone()  # soft tokens beyond those given begin as noise
    start[:, : len(soft)] = soft[:k].to(start)
    start[1:, : len(soft)] += 0.3 * noise[1:, : len(soft)]  # restarts beside the first must differ from it
    return start


def descend(
    encoder: TextEncoder,
    prompt: HardPrompt,
    config: TrainConfig,
    *,
    start: Tensor | None = None,
    interval: Interval = 10,
    resume: TrainState | None = None,
) -> Generator[Report, bool | None, Trained]:
    """Trains, yields a Report every `interval` (and at the end), returns a Trained. Sending True stops it.

    `start` (k, w) is what init "soft" begins from; `resume` is a state to go on from. A loss that is no number, or a device
    that fails, ends it with the best until then and `failure` set. Raises ConfigError for more soft tokens than fit,
    TrainingFailed where not one step is possible.
    """
    if config.tokens == "auto":
        raise ConfigError("tokens is auto: only train and iter_train find the number")
    check_tokens(encoder, config.tokens)
    contexts = fitting(encoder, prompt, config.contexts, config.tokens)
    groups = max(1, min(GROUPS, len(contexts)))
    try:
        turns = [_Turn(encoder, prompt, config, contexts[i::groups]) for i in range(groups)]
        others = encoder.encode(config.against) if config.against else None
        run = _Run(encoder, config, start_vectors(encoder, prompt, config, config.tokens, start), groups)
        if resume is not None:
            run.restore(resume)
    except RuntimeError as error:  # torch's type for a lost or full device, whichever it is
        raise TrainingFailed(device_failure(error, encoder.device)) from error

    step, before = (resume.step, resume.seconds) if resume else (0, 0.0)
    # a state may have been taken at the very step that ended the training: it must end there again
    stopped = run.reason_to_stop(step) if step and step % CHECK_STEPS == 0 else "steps"
    failure = ""
    due = interval if callable(interval) else lambda step: step % interval == 0
    began = time.perf_counter() - before
    try:
        while step < config.steps and stopped == "steps":
            turn = turns[step % len(turns)]
            run.step(step, *turn.look(run.vectors, config, others))
            step += 1
            if step % CHECK_STEPS == 0 or step == config.steps:
                stopped = run.reason_to_stop(step)
            if (due(step) or step == config.steps or stopped != "steps") and (
                yield run.report(step, time.perf_counter() - began)
            ):
                stopped = "interrupted" if stopped == "steps" and step < config.steps else stopped
    except RuntimeError as error:
        stopped, failure = "failed", device_failure(error, encoder.device)
    if stopped == "nan":
        stopped, failure = "failed", f"the loss stopped being a number by step {step}: try a rate below {config.rate:g}"
    seconds = time.perf_counter() - began
    skipped = tuple(context for context in config.contexts if context not in contexts)
    best = run.best_so_far(step)
    history = best.history[best.history[:, 0].isfinite()]
    return Trained(
        vectors=best.vectors,
        losses=history[:, 0],
        similarities=history[:, 1],
        loss=best.loss,
        steps=step,
        seconds=seconds,
        stopped=stopped,
        skipped=skipped,
        device=f"{encoder.device}, {str(encoder.tower.table.dtype).removeprefix('torch.')}",
        failure=failure,
    )


def device_failure(error: RuntimeError, device: torch.device) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return f"{device} is out of memory: fewer restarts, fewer contexts or another device need less"
    return f"{device} failed: {str(error).splitlines()[0]}"


class _Turn:
    """What one step looks at: the prompt alone and in some contexts, as a frame with its targets and weights."""

    def __init__(self, encoder: TextEncoder, prompt: HardPrompt, config: TrainConfig, contexts: list[str]) -> None:
        assert config.tokens != "auto"  # descend sees to it
        around = [ALONE, *contexts]
        self.hidden = HiddenTarget(encoder, prompt, around, config.family) if config.share_of_hidden else None
        self.targets = targets_in(encoder, prompt, around)
        self.frame = encoder.frame(soft_rows(encoder, around, config.tokens))
        share = ALONE_SHARE if contexts else 1.0
        self.weights = torch.tensor([share, *[(1 - share) / max(1, len(contexts))] * len(contexts)], device=encoder.device)

    def look(self, vectors: Tensor, config: TrainConfig, others: Tensor | None) -> tuple[Tensor, Tensor]:
        """(losses (r,), pooled similarities (r, b)) of soft tokens (r, k, w)."""
        if self.hidden is None:
            outputs = self.frame.outputs(vectors)
            losses = row_losses(config.objective, outputs, self.targets, others)
        else:
            read = self.frame.read(vectors, self.hidden.reads)
            outputs, share = read.outputs, config.share_of_hidden
            losses = share * (1 - self.hidden.similarities(read))
            if share < 1:
                losses = losses + (1 - share) * row_losses(config.objective, outputs, self.targets, others)
        return (losses * self.weights).sum(-1), F.cosine_similarity(outputs.detach(), self.targets, dim=-1)


class _Run:
    """The state of one training on its device: vectors, optimizer, history, and the best of every restart."""

    def __init__(self, encoder: TextEncoder, config: TrainConfig, start: Tensor, turns: int) -> None:
        self.config = config
        self.ceiling = encoder.token_norm if config.project_norm else math.inf
        self.rate = config.rate * encoder.token_std
        self.vectors = start.clone()
        self._project()
        self.vectors.requires_grad_()
        self.first, self.second = torch.zeros_like(start), torch.zeros_like(start)  # Adam's moments
        r = config.restarts
        # loss, similarity alone, mean similarity in contexts; `recent` holds one of each for every turn
        self.recent = torch.zeros(turns, 3, r, device=start.device)
        self.history = torch.full((config.steps, 3, r), math.nan, device=start.device)
        self.read, self.read_to = self.history.cpu().clone(), 0  # the part of it that has been read back
        self.best = self.vectors.detach().clone()
        self.best_loss = torch.full((r,), math.inf, device=start.device)
        self.best_step = torch.zeros(r, dtype=torch.long, device=start.device)
        self.last_fall = torch.zeros(r, dtype=torch.long, device=start.device)
        self.fallen_to = torch.full((r,), math.inf, device=start.device)
        self.leading = self._read_back(0)

    def state(self, step: int, seconds: float) -> TrainState:
        tensors = {name: getattr(self, name).detach() for name in STATE}
        tensors["history"] = tensors["history"][:step]
        return TrainState(step, seconds, self.vectors.shape[1], {name: value.cpu().clone() for name, value in tensors.items()})

    @torch.no_grad()
    def restore(self, state: TrainState) -> None:
        """Goes back to `state`, which must be of this very training."""
        for name in STATE:
            mine = getattr(self, name)
            (mine[: state.step] if name == "history" else mine).copy_(state.tensors[name])
        self.leading = self._read_back(state.step)

    def _project(self) -> None:
        if math.isfinite(self.ceiling):
            with torch.no_grad():
                self.vectors.mul_((self.ceiling / self.vectors.norm(dim=-1, keepdim=True)).clamp(max=1))

    def step(self, step: int, losses: Tensor, similarities: Tensor) -> None:
        """One update from `losses` (r,); `similarities` (r, b) are the present vectors'. Nothing here waits for the device."""
        self._remember(step, losses.detach(), similarities)
        (gradient,) = torch.autograd.grad(losses.sum(), self.vectors)
        self._descend(step, gradient)
        self._project()

    @torch.no_grad()
    def _remember(self, step: int, losses: Tensor, similarities: Tensor) -> None:
        alone, composed = similarities[:, 0], similarities[:, -1 if similarities.shape[1] == 1 else 1 :].mean(-1)
        now = torch.stack([losses, alone, composed])
        self.recent[slice(None) if step == 0 else step % len(self.recent)] = now
        self.history[step] = self.recent.mean(0)  # over the turns, so that all contexts count
        self.history[step, 1] = alone
        smooth = self.history[step, 0]
        better = smooth < self.best_loss  # false for a loss that is no number
        fell = smooth < self.fallen_to * (1 - LEAST_PROGRESS)
        self.fallen_to = torch.where(fell, smooth, self.fallen_to)
        self.last_fall = torch.where(fell, step, self.last_fall)
        self.best = torch.where(better.view(-1, 1, 1), self.vectors, self.best)
        self.best_loss = torch.where(better, smooth, self.best_loss)
        self.best_step = torch.where(better, step, self.best_step)

    @torch.no_grad()
    def _descend(self, step: int, gradient: Tensor) -> None:
        """Adam (Kingma & Ba 2015). By hand: torch.optim imports torch's compiler, 1.5 s, on its first step."""
        rate = self.rate * (1 + math.cos(math.pi * step / self.config.steps)) / 2
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.lerp_(gradient.square(), 1 - BETAS[1])
        mean, square = (m / (1 - beta ** (step + 1)) for m, beta in zip((self.first, self.second), BETAS, strict=True))
        self.vectors.sub_(rate * mean / (square.sqrt() + EPSILON))

    def reason_to_stop(self, step: int) -> str:
        """Why to stop, or "steps"; asked at fixed steps, so that the same seed stops at the same one. Waits for the device."""
        leading = self.leader(step)
        if bool(self.history[step - 1, 0].isnan().all()):
            return "nan"
        if self.config.stop_at is not None and float(leading.history[leading.step, 1:].min()) >= self.config.stop_at:
            return "stop_at"
        if self.config.patience is not None and step - 1 - int(self.last_fall.max()) >= self.config.patience:
            return "patience"
        return "steps"

    def leader(self, steps: int) -> _Leader:
        """The best restart after so many steps. The device is read once a step, and the answer outlives the device."""
        if len(self.leading.history) != steps:
            self.leading = self._read_back(steps)
        return self.leading

    def _read_back(self, steps: int) -> _Leader:
        leader = int(self.best_loss.argmin())
        self.read[self.read_to : steps] = self.history[self.read_to : steps].cpu()
        self.read_to = steps
        history = self.read[:steps, :, leader]
        return _Leader(
            leader, self.best[leader].cpu().clone(), float(self.best_loss[leader]), int(self.best_step[leader]), history
        )

    def report(self, step: int, seconds: float) -> Report:
        best = self.leader(step)
        now, then = best.history[-1].tolist(), best.history[best.step].tolist()
        restarts = tuple(self.read[step - 1, 0].tolist()) if self.config.restarts > 1 else ()
        return Report(
            step=step,
            steps=self.config.steps,
            loss=now[0],
            similarity=now[1],
            best_loss=best.loss,
            best_similarity=then[1],
            seconds=seconds,
            vectors=best.vectors,
            restarts=restarts,
            state=lambda: self.state(step, seconds),
        )

    def best_so_far(self, steps: int) -> _Leader:
        try:
            return self.leader(steps)
        except RuntimeError:  # the device is gone: what was read last is what is left
            return self.leading


class _Leader(NamedTuple):
    """The restart with the least loss, on the cpu: its best vectors (k, w), their loss and step, its history (steps, 3)."""

    restart: int
    vectors: Tensor
    loss: float
    step: int
    history: Tensor
