"""Token sweeps: every token count gives the same result as alone, and the knee is where more tokens help little."""

from __future__ import annotations

from typing import Any

import pytest

import softprompt
from softprompt import SoftPrompt, TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, PromptError
from softprompt.training.token_sweep import SweepReport, find_knee
from softprompt.training.trainer import sweep
from tests.conftest import FOX


def run_sweep(
    encoder: TextEncoder, token_counts: tuple[int, ...], config: TrainConfig, stop_after: int | None = None
) -> tuple[list[SweepReport], list[SoftPrompt]]:
    reports: list[SweepReport] = []
    generator = sweep(encoder, FOX, token_counts, config)
    stop: bool | None = None
    while True:
        try:
            reports.append(generator.send(stop))
        except StopIteration as finished:
            return reports, finished.value
        stop = stop_after is not None and reports[-1].step >= stop_after


def test_every_token_count_gives_the_same_result_as_alone(encoder: TextEncoder) -> None:
    config = TrainConfig(steps=30)
    reports, prompts = run_sweep(encoder, (1, 2, 5), config)
    assert [prompt.tokens for prompt in prompts] == [1, 2, 5]
    assert [prompt.config["tokens"] for prompt in prompts] == [1, 2, 5]
    for prompt in prompts:
        alone = softprompt.train(encoder, FOX, config, tokens=prompt.tokens)
        assert prompt.similarity == pytest.approx(alone.similarity, abs=2e-3)
        assert prompt.vectors.shape == alone.vectors.shape
    assert [report.step for report in reports] == [10, 20, 30]
    assert [tokens for tokens, _, _ in reports[-1].results] == [1, 2, 5]
    similarities = [prompt.similarity for prompt in prompts]
    assert similarities == sorted(similarities)


def test_a_stopped_sweep_returns_the_best_so_far(encoder: TextEncoder) -> None:
    reports, prompts = run_sweep(encoder, (1, 3), TrainConfig(steps=100, contexts=()), stop_after=20)
    assert reports[-1].step == 20
    assert {(prompt.steps, prompt.stopped) for prompt in prompts} == {(20, "interrupted")}


def test_the_knee_is_where_more_tokens_help_little() -> None:
    assert find_knee([(1, 0.7), (2, 0.9), (3, 0.98), (4, 0.985), (8, 0.99), (16, 0.992)]) == 3
    assert find_knee([(4, 0.985), (1, 0.7), (2, 0.97), (3, 0.98)]) == 2  # in any order
    assert find_knee([(1, 0.9), (2, 0.8), (3, 0.9)]) == 1  # fidelity does not rise
    assert find_knee([(5, 0.9)]) == 5


@pytest.mark.parametrize("token_counts", [(), (0, 1), tuple(range(1, 80))])
def test_invalid_token_counts_are_rejected(encoder: TextEncoder, token_counts: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        next(sweep(encoder, FOX, token_counts))


def test_bad_input_is_rejected_before_training(encoder: TextEncoder) -> None:
    with pytest.raises(ConfigError, match="room for 75"):
        next(sweep(encoder, FOX, (1, 76)))
    with pytest.raises(PromptError):
        next(sweep(encoder, " ", (1, 2)))
    with pytest.raises(ConfigError, match="init 'soft' needs a saved soft prompt, which a sweep cannot use"):
        next(sweep(encoder, FOX, (1, 2), TrainConfig(init="soft")))


def test_a_failed_token_count_does_not_affect_the_others(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from softprompt.objectives import pooled

    row_losses, calls = pooled.row_losses, []

    def nan_in_first_row(*args: Any) -> torch.Tensor:
        calls.append(1)
        losses = row_losses(*args)
        return torch.cat([losses[:1] * float("nan"), losses[1:]]) if len(calls) > 12 and len(losses) == 3 else losses

    monkeypatch.setattr(pooled, "row_losses", nan_in_first_row)
    _, prompts = run_sweep(encoder, (1, 2, 3), TrainConfig(steps=30, contexts=()))
    assert [(prompt.tokens, prompt.stopped) for prompt in prompts] == [(1, "failed"), (2, "steps"), (3, "steps")]
    assert any("the loss became NaN" in warning for warning in prompts[0].warnings)
