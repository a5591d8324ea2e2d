"""A sweep: every number of tokens in one batch comes to what it would alone, and the knee is where more give little."""

from __future__ import annotations

from typing import Any

import pytest

import softprompt
from softprompt import SoftPrompt, TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, PromptError
from softprompt.training.token_sweep import SweepReport, knee
from softprompt.training.trainer import sweep
from tests.conftest import FOX


def swept(
    encoder: TextEncoder, ks: tuple[int, ...], config: TrainConfig, stop_after: int | None = None
) -> tuple[list[SweepReport], list[SoftPrompt]]:
    reports: list[SweepReport] = []
    going = sweep(encoder, FOX, ks, config)
    stop: bool | None = None
    while True:
        try:
            reports.append(going.send(stop))
        except StopIteration as end:
            return reports, end.value
        stop = stop_after is not None and reports[-1].step >= stop_after


def test_every_number_comes_to_what_it_would_alone(encoder: TextEncoder) -> None:
    config = TrainConfig(steps=30)
    reports, made = swept(encoder, (1, 2, 5), config)
    assert [one.tokens for one in made] == [1, 2, 5]
    assert [one.config["tokens"] for one in made] == [1, 2, 5]
    for one in made:
        alone = softprompt.train(encoder, FOX, config, tokens=one.tokens)
        assert one.similarity == pytest.approx(alone.similarity, abs=2e-3)
        assert one.vectors.shape == alone.vectors.shape
    assert [report.step for report in reports] == [10, 20, 30]
    assert [k for k, _, _ in reports[-1].results] == [1, 2, 5]
    similarities = [one.similarity for one in made]
    assert similarities == sorted(similarities)


def test_it_can_be_stopped_with_the_best_so_far(encoder: TextEncoder) -> None:
    reports, made = swept(encoder, (1, 3), TrainConfig(steps=100, contexts=()), stop_after=20)
    assert reports[-1].step == 20
    assert {(one.steps, one.stopped) for one in made} == {(20, "interrupted")}


def test_the_knee_is_where_more_tokens_give_little() -> None:
    assert knee([(1, 0.7), (2, 0.9), (3, 0.98), (4, 0.985), (8, 0.99), (16, 0.992)]) == 3
    assert knee([(4, 0.985), (1, 0.7), (2, 0.97), (3, 0.98)]) == 2  # in whatever order
    assert knee([(1, 0.9), (2, 0.8), (3, 0.9)]) == 1  # nothing is gained
    assert knee([(5, 0.9)]) == 5


@pytest.mark.parametrize("ks", [(), (0, 1), tuple(range(1, 80))])
def test_numbers_that_make_no_sweep_are_refused(encoder: TextEncoder, ks: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        next(sweep(encoder, FOX, ks))


def test_bad_input_is_said_before_anything_is_trained(encoder: TextEncoder) -> None:
    with pytest.raises(ConfigError, match="room for 1 to 75"):
        next(sweep(encoder, FOX, (1, 76)))
    with pytest.raises(PromptError):
        next(sweep(encoder, " ", (1, 2)))
    with pytest.raises(ConfigError, match="no one soft prompt to begin from"):
        next(sweep(encoder, FOX, (1, 2), TrainConfig(init="soft")))


def test_one_number_that_fails_leaves_the_others(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from softprompt.objectives import pooled

    real, calls = pooled.row_losses, []

    def failing(*args: Any) -> torch.Tensor:
        calls.append(1)
        losses = real(*args)
        return torch.cat([losses[:1] * float("nan"), losses[1:]]) if len(calls) > 12 and len(losses) == 3 else losses

    monkeypatch.setattr(pooled, "row_losses", failing)
    _, made = swept(encoder, (1, 2, 3), TrainConfig(steps=30, contexts=()))
    assert [(one.tokens, one.stopped) for one in made] == [(1, "failed"), (2, "steps"), (3, "steps")]
    assert any("stopped being a number" in warning for warning in made[0].warnings)
