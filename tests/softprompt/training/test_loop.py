"""Training one prompt: quality, settings, stopping rules, failures, and determinism."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import softprompt
from softprompt import SoftPrompt, TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder, similarity
from softprompt.errors import ConfigError, PromptError, PromptTooLong
from softprompt.prompts.contexts import GRADING_CONTEXTS, TRAINING_CONTEXTS
from softprompt.training.errors import TrainingFailed
from softprompt.training.loop import Report
from tests.conftest import BOAT, FOX

LONG = " and ".join(
    f"a {animal} beside a {thing}"
    for animal in ("fox", "cat", "horse", "whale", "crow")
    for thing in ("lamp", "door", "river", "drum")
)


def train(encoder: TextEncoder, text: str = FOX, **settings: Any) -> SoftPrompt:
    return softprompt.train(encoder, text, **({"tokens": 3, "steps": 60} | settings))


@pytest.fixture(scope="module")
def fox(encoder: TextEncoder) -> SoftPrompt:
    """A soft prompt trained with default settings, except the number of tokens."""
    return softprompt.train(encoder, FOX, tokens=3)


def test_three_tokens_keep_the_meaning_alone_and_in_contexts(fox: SoftPrompt) -> None:
    assert fox.similarity >= 0.995
    assert fox.composition is not None
    assert [score.context for score in fox.composition.contexts] == list(GRADING_CONTEXTS)
    assert fox.composition.mean >= 0.985
    assert fox.composition.worst >= 0.96
    assert 1 - fox.composition.mean <= (1 - fox.composition.floor) / 4


def test_similarity_and_fidelity_match_the_vectors(encoder: TextEncoder, fox: SoftPrompt) -> None:
    vectors = torch.from_numpy(fox.vectors.copy())
    pooled = encoder.encode_rows([[-1, -2, -3], [-1, -2, -3, *encoder.tokenize("at night")]], vectors)
    targets = encoder.encode([FOX, f"{FOX} at night"])
    alone, at_night = similarity(pooled, targets).tolist()
    assert fox.composition is not None
    assert fox.similarity == pytest.approx(alone, abs=1e-6)
    assert fox.composition.contexts[2].similarity == pytest.approx(at_night, abs=1e-6)
    assert fox.composition.contexts[2].floor == pytest.approx(float(targets[0] @ targets[1]), abs=1e-6)
    np.testing.assert_allclose(fox.target, targets[0].numpy(), atol=1e-6)
    assert (fox.vectors.dtype, fox.vectors.shape, fox.losses.shape) == (np.float32, (3, encoder.width), (fox.steps,))


def test_training_in_contexts_improves_composition(encoder: TextEncoder) -> None:
    alone = train(encoder, contexts=(), tokens=1, steps=40)
    in_contexts = train(encoder, tokens=1, steps=40)
    assert alone.composition is not None
    assert in_contexts.composition is not None
    assert alone.similarity > in_contexts.similarity
    assert 1 - in_contexts.composition.mean < (1 - alone.composition.mean) / 2


def test_the_same_seed_gives_the_same_bits(encoder: TextEncoder) -> None:
    first, again, other = (train(encoder, steps=12, seed=seed) for seed in (0, 0, 1))
    assert first.vectors.tobytes() == again.vectors.tobytes()
    assert first.losses.tobytes() == again.losses.tobytes()
    assert first.vectors.tobytes() != other.vectors.tobytes()


@pytest.mark.usefixtures("two_threads")
def test_the_same_seed_gives_the_same_bits_with_several_threads(encoder: TextEncoder) -> None:
    for settings in ({"steps": 10}, {"tokens": 60, "steps": 4}):  # sums over many tokens run on all threads
        first, again = (train(encoder, **settings) for _ in range(2))
        assert first.vectors.tobytes() == again.vectors.tobytes()


def test_norms_are_limited_unless_project_norm_is_off(encoder: TextEncoder) -> None:
    limited, free = (train(encoder, contexts=(), steps=20, project_norm=limit) for limit in (True, False))
    assert np.linalg.norm(limited.vectors, axis=1).max() <= encoder.token_norm * 1.0001
    assert np.linalg.norm(free.vectors, axis=1).max() > encoder.token_norm * 1.2


def test_the_result_is_the_best_step_not_the_last(encoder: TextEncoder, fox: SoftPrompt) -> None:
    # start from a trained soft prompt with a huge rate, so that the first step is the best
    start = torch.from_numpy(fox.vectors.copy())
    huge_rate: dict[str, Any] = {"rate": 50.0, "steps": 1000, "interval": 10, "on_report": lambda _: True}
    prompt = train(encoder, init="soft", start=start, contexts=(), **huge_rate)
    assert prompt.losses[-1] > 2 * prompt.loss
    assert prompt.loss == pytest.approx(float(prompt.losses[0]))
    np.testing.assert_allclose(prompt.vectors, fox.vectors, atol=1e-7)


def test_the_best_restart_wins(encoder: TextEncoder) -> None:
    singles = [train(encoder, seed=seed, contexts=(), steps=15).loss for seed in range(3)]
    best = train(encoder, restarts=8, contexts=(), steps=15)
    assert best.vectors.shape == (3, encoder.width)
    assert best.loss <= np.median(singles)
    assert best.loss == pytest.approx(1 - best.similarity, abs=1e-5)


@pytest.mark.parametrize(
    "settings", [{"objective": "mse"}, {"objective": "contrastive", "against": (BOAT, "a blue car")}]
)
def test_other_objectives_reach_the_target(encoder: TextEncoder, settings: dict[str, Any]) -> None:
    assert train(encoder, steps=60, **settings).similarity > 0.98


def test_mean_squared_error_also_matches_the_norm(encoder: TextEncoder) -> None:
    target = encoder.batch_rows([encoder.tokenize(FOX)]).outputs()[0, 0]

    def relative_error(prompt: SoftPrompt) -> float:
        output = encoder.batch_rows([[-1, -2, -3]]).outputs(torch.from_numpy(prompt.vectors.copy()).unsqueeze(0))[0, 0]
        return float((output - target).norm() / target.norm())

    assert relative_error(train(encoder, objective="mse", contexts=(), steps=30)) < relative_error(
        train(encoder, contexts=(), steps=30)
    )


def test_the_contrastive_objective_reduces_similarity_to_other_prompts(encoder: TextEncoder) -> None:
    other = "a red fox awake in deep snow under tall pine trees at noon"
    other_target = encoder.encode([other])[0].numpy()

    def similarity_to_other(prompt: SoftPrompt) -> float:
        output = encoder.encode_rows([[-1]], torch.from_numpy(prompt.vectors.copy()))[0].numpy()
        return float(output @ other_target)

    short: dict[str, Any] = {"tokens": 1, "contexts": (), "steps": 30}
    assert similarity_to_other(
        train(encoder, objective="contrastive", against=(other,), **short)
    ) < similarity_to_other(train(encoder, **short))


@pytest.mark.parametrize("init", ["vocabulary", "prompt"])
def test_training_can_start_from_words(encoder: TextEncoder, init: str) -> None:
    prompt = train(encoder, init=init, steps=1, contexts=(), project_norm=False)
    nearest = (
        (encoder.tower.table @ torch.from_numpy(prompt.vectors[0].copy()))
        / encoder.tower.table.norm(dim=-1)
        / float(np.linalg.norm(prompt.vectors[0]))
    )
    assert float(nearest.max()) == pytest.approx(1, abs=1e-4)
    if init == "prompt":
        assert int(nearest.argmax()) == encoder.tokenize(FOX)[0]


def test_training_can_start_from_a_soft_prompt(encoder: TextEncoder, fox: SoftPrompt) -> None:
    start = torch.from_numpy(fox.vectors.copy())
    prompt = train(encoder, init="soft", start=start, steps=1)
    assert prompt.loss == pytest.approx(fox.loss, abs=1e-3)
    longer = softprompt.train(encoder, FOX, init="soft", start=start, steps=1, tokens=5)
    np.testing.assert_allclose(longer.vectors[:3], fox.vectors, atol=1e-7)
    with pytest.raises(ConfigError, match="width 256, but none was given"):
        train(encoder, init="soft")
    with pytest.raises(ConfigError, match=r"the given vectors have shape \(3, 7\)"):
        train(encoder, init="soft", start=torch.zeros(3, 7))
    with pytest.raises(ConfigError, match="but init is 'noise'"):
        train(encoder, start=start)


def test_a_start_prompt_of_other_model_weights_is_rejected(encoder: TextEncoder, fox: SoftPrompt) -> None:
    assert train(encoder, init="soft", start=fox, steps=1).loss == pytest.approx(fox.loss, abs=1e-3)
    other = replace(fox, model="ViT-B-32/openai", model_fingerprint="0123")
    with pytest.raises(ConfigError, match=r"belongs to ViT-B-32/openai \(0123\), but the model here is mini"):
        train(encoder, init="soft", start=other)


def test_training_stops_at_stop_at(encoder: TextEncoder) -> None:
    prompt = train(encoder, stop_at=0.95, steps=300)
    assert prompt.stopped == "stop_at"
    assert prompt.steps < 150
    assert prompt.similarity >= 0.95
    assert len(prompt.losses) == prompt.steps


def test_training_stops_when_patience_runs_out(encoder: TextEncoder) -> None:
    prompt = train(encoder, tokens=1, contexts=(), steps=2000, patience=15, rate=2.0)
    assert prompt.stopped == "patience"
    assert prompt.steps < 2000
    slow = train(
        encoder, rate=0.01, patience=20, steps=60, contexts=()
    )  # a fall of 0.1 % in 20 steps counts as progress
    assert slow.stopped == "steps"


def test_auto_finds_the_fewest_tokens(encoder: TextEncoder) -> None:
    def lower_similarity(prompt: SoftPrompt) -> float:
        assert prompt.composition is not None
        return min(prompt.similarity, prompt.composition.mean)

    by_tokens = [softprompt.train(encoder, FOX, tokens=tokens, steps=20) for tokens in (1, 2, 3)]
    assert lower_similarity(by_tokens[0]) < lower_similarity(by_tokens[1]) < lower_similarity(by_tokens[2])
    goal = (lower_similarity(by_tokens[0]) + lower_similarity(by_tokens[1])) / 2
    prompt = softprompt.train(encoder, FOX, tokens="auto", stop_at=goal, steps=20)
    assert prompt.tokens == 2
    assert prompt.vectors.tobytes() == by_tokens[1].vectors.tobytes()
    assert prompt.config["tokens"] == "auto"


def test_auto_returns_the_best_when_interrupted(encoder: TextEncoder) -> None:
    prompt = softprompt.train(
        encoder,
        FOX,
        tokens="auto",
        stop_at=1.0,
        steps=20,
        on_report=lambda report: len(report.vectors) == 3 and report.step == 10,
    )
    assert (prompt.tokens, prompt.stopped) == (2, "interrupted")


def test_auto_warns_if_no_token_count_reaches_stop_at(encoder: TextEncoder) -> None:
    prompt = softprompt.train(encoder, "a red fox", tokens="auto", stop_at=1.0, steps=4)
    assert prompt.tokens <= 3
    assert any("no soft prompt of up to 3 tokens reached 1" in warning for warning in prompt.warnings)


def test_auto_keeps_the_best_when_a_later_token_count_fails(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from softprompt.training import loop

    init_vectors = loop.init_vectors

    def run_out_of_memory(*args: Any) -> torch.Tensor:
        if args[3] == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return init_vectors(*args)

    monkeypatch.setattr(loop, "init_vectors", run_out_of_memory)
    with pytest.raises(TrainingFailed, match="out of memory") as caught:
        softprompt.train(encoder, FOX, tokens="auto", stop_at=1.0, steps=5)
    assert caught.value.best is not None
    assert caught.value.best.tokens == 1


def test_soft_prompts_longer_than_the_prompt_get_a_warning(encoder: TextEncoder) -> None:
    assert any(
        "10 soft tokens are no fewer than the prompt's own 3" in warning
        for warning in train(encoder, "a red fox", tokens=10, steps=2).warnings
    )
    assert train(encoder, FOX, steps=2).warnings == ()


def test_reports_come_at_the_interval_and_can_stop_training(encoder: TextEncoder) -> None:
    reports: list[Report] = []

    def on_report(report: Report) -> bool:
        reports.append(report)
        return report.step >= 20

    prompt = train(encoder, on_report=on_report, interval=5, contexts=())
    assert [report.step for report in reports] == [5, 10, 15, 20]
    assert (prompt.stopped, prompt.steps) == ("interrupted", 20)
    assert reports[-1].best_loss <= reports[0].best_loss
    assert all(math.isfinite(report.similarity) and report.vectors.shape == (3, encoder.width) for report in reports)
    assert [
        report.step
        for report in _drain(softprompt.iter_train(encoder, FOX, tokens=1, steps=25, interval=10, contexts=()))
    ] == [
        10,
        20,
        25,
    ]


def _drain(reports: Any) -> list[Report]:
    return list(reports)


def test_a_prompt_that_is_too_long_is_rejected_with_the_part_that_does_not_fit(encoder: TextEncoder) -> None:
    with pytest.raises(
        PromptTooLong,
        match=r"119 tokens, but mini has room for 75. This part does not fit: .a lamp and .*long='chunk'.*long='cut'",
    ):
        train(encoder, LONG)


def test_a_prompt_that_is_too_long_can_be_cut_or_chunked(encoder: TextEncoder) -> None:
    cut, chunked = (train(encoder, LONG, long=long, steps=30) for long in ("cut", "chunk"))
    first_tokens = encoder.tokenizer.decode(encoder.tokenizer.encode(LONG)[:75])
    assert cut.similarity > 0.95
    np.testing.assert_allclose(cut.target, encoder.encode([first_tokens])[0].numpy(), atol=1e-6)
    assert any("cut to 75 tokens; dropped text: 'a lamp and" in warning for warning in cut.warnings)
    assert cut.hard_prompt == LONG
    assert any("contexts have no room" in warning for warning in cut.warnings)
    assert chunked.similarity > 0.95
    assert chunked.composition is not None
    assert len(chunked.composition.contexts) == len(GRADING_CONTEXTS)
    assert any("the mean of 2 chunks" in warning for warning in chunked.warnings)
    assert chunked.hard_prompt == LONG


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_prompt_is_rejected(encoder: TextEncoder, text: str) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        train(encoder, text)


def test_more_soft_tokens_than_fit_the_context_length_are_rejected(encoder: TextEncoder) -> None:
    assert train(encoder, tokens=75, steps=2).tokens == 75
    with pytest.raises(ConfigError, match="tokens is 76, but mini has room for 75"):
        train(encoder, tokens=76)


def test_a_nan_loss_ends_training_with_the_best_so_far(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.objectives import pooled

    row_losses, calls = pooled.row_losses, []

    def nan_after_25_steps(*args: Any) -> torch.Tensor:
        calls.append(1)
        return row_losses(*args) * (math.nan if len(calls) > 25 else 1)

    monkeypatch.setattr(pooled, "row_losses", nan_after_25_steps)
    with pytest.raises(TrainingFailed, match=r"became NaN by step 30: try a rate below 1") as caught:
        train(encoder)
    best = caught.value.best
    assert best is not None
    assert (best.stopped, len(best.losses)) == ("failed", 25)
    assert np.isfinite(best.vectors).all()
    assert best.similarity > 0.5


def test_a_loss_that_is_always_nan_leaves_no_result(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.objectives import pooled

    monkeypatch.setattr(pooled, "row_losses", lambda _o, outputs, *_: outputs.sum(-1) * math.nan)
    with pytest.raises(TrainingFailed) as caught:
        train(encoder)
    assert caught.value.best is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "is out of memory: use fewer restarts"),
        (RuntimeError("CUDA error: gone\nmore"), "failed: CUDA error: gone"),
    ],
)
def test_a_device_failure_ends_training_with_the_best_so_far(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    """A lost device cannot even return its best vectors."""
    from softprompt.objectives import pooled
    from softprompt.training.optimizer import BatchedAdam

    row_losses, read_metrics, calls = pooled.row_losses, BatchedAdam.read_metrics, []

    def fail_after_25_steps(*args: Any) -> torch.Tensor:
        calls.append(1)
        return row_losses(*args) if len(calls) <= 25 else fail()

    def fail() -> Any:
        raise error

    monkeypatch.setattr(pooled, "row_losses", fail_after_25_steps)
    monkeypatch.setattr(BatchedAdam, "read_metrics", lambda rows: read_metrics(rows) if len(calls) <= 25 else fail())
    with pytest.raises(TrainingFailed, match=message) as caught:
        train(encoder)
    best = caught.value.best
    assert best is not None
    assert (best.stopped, len(best.losses)) == ("failed", 20)  # as of the last check
    assert best.similarity > 0.5


def test_a_device_failure_before_the_first_step_is_reported(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from softprompt.objectives import pooled

    def run_out_of_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pooled, "encode_targets", run_out_of_memory)
    with pytest.raises(TrainingFailed, match="out of memory"):
        train(encoder)


def test_bfloat16_is_close_to_float32(encoder: TextEncoder) -> None:
    bfloat16 = encoder.to("cpu", torch.bfloat16)
    prompt = train(bfloat16, steps=10, contexts=())  # slow on a cpu without bfloat16 instructions
    assert prompt.vectors.dtype == np.float32
    assert prompt.similarity > 0.8
    assert bfloat16.fingerprint == encoder.fingerprint


def test_markup_and_control_characters_are_part_of_the_prompt(encoder: TextEncoder) -> None:
    assert train(encoder, "a [/bold] fox \x1b[31m red", steps=2).hard_prompt == "a [/bold] fox \x1b[31m red"


def test_nothing_is_printed_or_written(encoder: TextEncoder, capfd: pytest.CaptureFixture[str], home: Path) -> None:
    train(encoder, steps=2)
    assert capfd.readouterr() == ("", "")
    assert not home.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": 0}, "tokens is 0; it must be a whole number from 1 to 4,096"),
        ({"tokens": 2.5}, "tokens is 2.5"),
        ({"tokens": "auto"}, "stop_at is not set"),
        ({"steps": 0}, "steps is 0"),
        ({"rate": math.nan}, "rate is nan; it must be greater than 0"),
        ({"rate": -1.0}, "rate is -1"),
        ({"stop_at": 1.5}, "stop_at is 1.5"),
        ({"patience": 0}, "patience is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"init": "zeros"}, "init is 'zeros'; it must be one of: noise, vocabulary, prompt, first, soft"),
        ({"objective": "l1"}, "objective is 'l1'"),
        ({"objective": "contrastive"}, "needs at least one prompt"),
        ({"against": ("a",)}, "only the contrastive objective uses it"),
        ({"contexts": ("no slot",)}, "must contain {} exactly once"),
        ({"contexts": ("{} and {}",)}, "must contain {} exactly once"),
        ({"long": "drop"}, "long is 'drop'"),
    ],
)
def test_invalid_settings_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("{", r"\{").replace("}", r"\}")):
        TrainConfig(**settings)


def test_settings_round_trip_through_json() -> None:
    config = TrainConfig(tokens=3, contexts=("a {}",), stop_at=0.9)
    assert TrainConfig.from_dict(config.as_dict()) == config
    with pytest.raises(ConfigError, match="unknown settings: speed"):
        TrainConfig.from_dict({"speed": 3})


def test_training_and_grading_contexts_share_no_content_word() -> None:
    def stems(contexts: tuple[str, ...]) -> set[str]:
        function_words = {
            "a",
            "an",
            "and",
            "of",
            "the",
            "in",
            "on",
            "at",
            "with",
            "by",
            "every",
            "past",
            "next",
            "to",
            "under",
            "about",
            "through",
            "beside",
            "during",
            "i",
        }
        words = {
            word.strip(",.'").removesuffix("'s") for context in contexts for word in context.replace("-", " ").split()
        }
        return {word[:5] for word in words - function_words - {"{}", ""}}

    assert stems(TRAINING_CONTEXTS) & stems(GRADING_CONTEXTS) == set()
