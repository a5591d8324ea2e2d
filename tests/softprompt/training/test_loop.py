"""Training: what it reaches, what it keeps, how it ends, and that the same seed gives the same bits."""

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
    """Trained as a user would, with every setting at its default but the number of tokens."""
    return softprompt.train(encoder, FOX, tokens=3)


def test_three_tokens_mean_the_prompt_alone_and_beside_other_words(fox: SoftPrompt) -> None:
    assert fox.similarity >= 0.995
    assert fox.composition is not None
    assert [grade.context for grade in fox.composition.contexts] == list(GRADING_CONTEXTS)
    assert fox.composition.mean >= 0.985
    assert fox.composition.worst >= 0.96
    assert 1 - fox.composition.mean <= (1 - fox.composition.floor) / 4


def test_the_figures_are_those_of_the_vectors(encoder: TextEncoder, fox: SoftPrompt) -> None:
    vectors = torch.from_numpy(fox.vectors.copy())
    pooled = encoder.encode_rows([[-1, -2, -3], [-1, -2, -3, *encoder.tokenize("at night")]], vectors)
    texts = encoder.encode([FOX, f"{FOX} at night"])
    alone, at_night = similarity(pooled, texts).tolist()
    assert fox.composition is not None
    assert fox.similarity == pytest.approx(alone, abs=1e-6)
    assert fox.composition.contexts[2].similarity == pytest.approx(at_night, abs=1e-6)
    assert fox.composition.contexts[2].floor == pytest.approx(float(texts[0] @ texts[1]), abs=1e-6)
    np.testing.assert_allclose(fox.target, texts[0].numpy(), atol=1e-6)
    assert (fox.vectors.dtype, fox.vectors.shape, fox.losses.shape) == (np.float32, (3, encoder.width), (fox.steps,))


def test_contexts_are_what_makes_it_compose(encoder: TextEncoder) -> None:
    alone = train(encoder, contexts=(), tokens=1, steps=40)
    within = train(encoder, tokens=1, steps=40)
    assert alone.composition is not None
    assert within.composition is not None
    assert alone.similarity > within.similarity
    assert 1 - within.composition.mean < (1 - alone.composition.mean) / 2


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


def test_norms_stay_at_the_vocabularys_unless_let_go(encoder: TextEncoder) -> None:
    held, free = (train(encoder, contexts=(), steps=20, project_norm=held) for held in (True, False))
    assert np.linalg.norm(held.vectors, axis=1).max() <= encoder.token_norm * 1.0001
    assert np.linalg.norm(free.vectors, axis=1).max() > encoder.token_norm * 1.2


def test_the_best_step_is_kept_not_the_last(encoder: TextEncoder, fox: SoftPrompt) -> None:
    # from a trained soft prompt, with a rate that throws it far away: no step after the first is as good
    start = torch.from_numpy(fox.vectors.copy())
    wild: dict[str, Any] = {"rate": 50.0, "steps": 1000, "interval": 10, "on_report": lambda _: True}
    made = train(encoder, init="soft", start=start, contexts=(), **wild)
    assert made.losses[-1] > 2 * made.loss
    assert made.loss == pytest.approx(float(made.losses[0]))
    np.testing.assert_allclose(made.vectors, fox.vectors, atol=1e-7)


def test_restarts_keep_the_best_of_them(encoder: TextEncoder) -> None:
    singles = [train(encoder, seed=seed, contexts=(), steps=15).loss for seed in range(3)]
    many = train(encoder, restarts=8, contexts=(), steps=15)
    assert many.vectors.shape == (3, encoder.width)
    assert many.loss <= np.median(singles)
    assert many.loss == pytest.approx(1 - many.similarity, abs=1e-5)


@pytest.mark.parametrize(
    "settings", [{"objective": "mse"}, {"objective": "contrastive", "against": (BOAT, "a blue car")}]
)
def test_the_other_objectives_reach_the_target_too(encoder: TextEncoder, settings: dict[str, Any]) -> None:
    assert train(encoder, steps=60, **settings).similarity > 0.98


def test_mean_squared_error_also_matches_the_length(encoder: TextEncoder) -> None:
    target = encoder.batch_rows([encoder.tokenize(FOX)]).outputs()[0, 0]

    def off(made: SoftPrompt) -> float:
        output = encoder.batch_rows([[-1, -2, -3]]).outputs(torch.from_numpy(made.vectors.copy()).unsqueeze(0))[0, 0]
        return float((output - target).norm() / target.norm())

    assert off(train(encoder, objective="mse", contexts=(), steps=30)) < off(train(encoder, contexts=(), steps=30))


def test_the_contrastive_objective_pushes_away(encoder: TextEncoder) -> None:
    near = "a red fox awake in deep snow under tall pine trees at noon"
    pooled = encoder.encode([near])[0].numpy()

    def likeness(made: SoftPrompt) -> float:
        ours = encoder.encode_rows([[-1]], torch.from_numpy(made.vectors.copy()))[0].numpy()
        return float(ours @ pooled)

    short: dict[str, Any] = {"tokens": 1, "contexts": (), "steps": 30}
    assert likeness(train(encoder, objective="contrastive", against=(near,), **short)) < likeness(
        train(encoder, **short)
    )


@pytest.mark.parametrize("init", ["vocabulary", "prompt"])
def test_it_can_begin_from_words(encoder: TextEncoder, init: str) -> None:
    made = train(encoder, init=init, steps=1, contexts=(), project_norm=False)
    nearest = (
        (encoder.tower.table @ torch.from_numpy(made.vectors[0].copy()))
        / encoder.tower.table.norm(dim=-1)
        / float(np.linalg.norm(made.vectors[0]))
    )
    assert float(nearest.max()) == pytest.approx(1, abs=1e-4)
    if init == "prompt":
        assert int(nearest.argmax()) == encoder.tokenize(FOX)[0]


def test_it_can_begin_from_a_soft_prompt(encoder: TextEncoder, fox: SoftPrompt) -> None:
    start = torch.from_numpy(fox.vectors.copy())
    made = train(encoder, init="soft", start=start, steps=1)
    assert made.loss == pytest.approx(fox.loss, abs=1e-3)
    longer = softprompt.train(encoder, FOX, init="soft", start=start, steps=1, tokens=5)
    np.testing.assert_allclose(longer.vectors[:3], fox.vectors, atol=1e-7)
    with pytest.raises(ConfigError, match="width 256; none was given"):
        train(encoder, init="soft")
    with pytest.raises(ConfigError, match=r"the one given has the shape \(3, 7\)"):
        train(encoder, init="soft", start=torch.zeros(3, 7))
    with pytest.raises(ConfigError, match="but init is 'noise'"):
        train(encoder, start=start)


def test_a_soft_prompt_of_other_weights_is_no_beginning(encoder: TextEncoder, fox: SoftPrompt) -> None:
    assert train(encoder, init="soft", start=fox, steps=1).loss == pytest.approx(fox.loss, abs=1e-3)
    other = replace(fox, model="ViT-B-32/openai", model_fingerprint="0123")
    with pytest.raises(ConfigError, match=r"belongs to ViT-B-32/openai \(0123\), and the model here is mini"):
        train(encoder, init="soft", start=other)


def test_it_stops_at_the_similarity_asked_for(encoder: TextEncoder) -> None:
    made = train(encoder, stop_at=0.95, steps=300)
    assert made.stopped == "stop_at"
    assert made.steps < 150
    assert made.similarity >= 0.95
    assert len(made.losses) == made.steps


def test_it_stops_when_patience_is_spent(encoder: TextEncoder) -> None:
    made = train(encoder, tokens=1, contexts=(), steps=2000, patience=15, rate=2.0)
    assert made.stopped == "patience"
    assert made.steps < 2000
    slowly = train(
        encoder, rate=0.01, patience=20, steps=60, contexts=()
    )  # a thousandth in twenty steps is progress too
    assert slowly.stopped == "steps"


def test_auto_finds_the_fewest_tokens(encoder: TextEncoder) -> None:
    def reached(made: SoftPrompt) -> float:
        assert made.composition is not None
        return min(made.similarity, made.composition.mean)

    each = [softprompt.train(encoder, FOX, tokens=tokens, steps=20) for tokens in (1, 2, 3)]
    assert reached(each[0]) < reached(each[1]) < reached(each[2])
    wanted = (reached(each[0]) + reached(each[1])) / 2
    made = softprompt.train(encoder, FOX, tokens="auto", stop_at=wanted, steps=20)
    assert made.tokens == 2
    assert made.vectors.tobytes() == each[1].vectors.tobytes()
    assert made.config["tokens"] == "auto"


def test_auto_keeps_the_best_when_it_is_interrupted(encoder: TextEncoder) -> None:
    made = softprompt.train(
        encoder,
        FOX,
        tokens="auto",
        stop_at=1.0,
        steps=20,
        on_report=lambda report: len(report.vectors) == 3 and report.step == 10,
    )
    assert (made.tokens, made.stopped) == (2, "interrupted")


def test_auto_says_when_nothing_reaches_it(encoder: TextEncoder) -> None:
    made = softprompt.train(encoder, "a red fox", tokens="auto", stop_at=1.0, steps=4)
    assert made.tokens <= 3
    assert any("no soft prompt of up to 3 tokens reached 1" in warning for warning in made.warnings)


def test_auto_keeps_the_best_when_a_later_number_fails(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.training import loop

    real = loop.init_vectors

    def full(*args: Any) -> torch.Tensor:
        if args[3] == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args)

    monkeypatch.setattr(loop, "init_vectors", full)
    with pytest.raises(TrainingFailed, match="out of memory") as caught:
        softprompt.train(encoder, FOX, tokens="auto", stop_at=1.0, steps=5)
    assert caught.value.best is not None
    assert caught.value.best.tokens == 1


def test_ten_tokens_that_are_not_shorter_say_so(encoder: TextEncoder) -> None:
    assert any(
        "10 soft tokens are not fewer than the prompt's own 3" in w
        for w in train(encoder, "a red fox", tokens=10, steps=2).warnings
    )
    assert train(encoder, FOX, steps=2).warnings == ()


def test_reports_come_at_the_interval_and_can_stop_it(encoder: TextEncoder) -> None:
    reports: list[Report] = []

    def watch(report: Report) -> bool:
        reports.append(report)
        return report.step >= 20

    made = train(encoder, on_report=watch, interval=5, contexts=())
    assert [report.step for report in reports] == [5, 10, 15, 20]
    assert (made.stopped, made.steps) == ("interrupted", 20)
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


def test_a_longer_prompt_is_refused_with_what_does_not_fit(encoder: TextEncoder) -> None:
    with pytest.raises(
        PromptTooLong, match=r"has 119 tokens, mini takes 75; what does not fit: 'a lamp and .*--long chunk.*--long cut"
    ):
        train(encoder, LONG)


def test_a_longer_prompt_can_be_cut_or_chunked(encoder: TextEncoder) -> None:
    cut, chunked = (train(encoder, LONG, long=long, steps=30) for long in ("cut", "chunk"))
    beginning = encoder.tokenizer.decode(encoder.tokenizer.encode(LONG)[:75])
    assert cut.similarity > 0.95
    np.testing.assert_allclose(cut.target, encoder.encode([beginning])[0].numpy(), atol=1e-6)
    assert any("cut to 75 tokens; what was dropped: 'a lamp and" in warning for warning in cut.warnings)
    assert cut.hard_prompt == LONG
    assert any("contexts have no room" in warning for warning in cut.warnings)
    assert chunked.similarity > 0.95
    assert chunked.composition is not None
    assert len(chunked.composition.contexts) == len(GRADING_CONTEXTS)
    assert any("the mean of 2 chunks" in warning for warning in chunked.warnings)
    assert chunked.hard_prompt == LONG


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_prompt_is_refused(encoder: TextEncoder, text: str) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        train(encoder, text)


def test_more_tokens_than_the_context_has_room_for_are_refused(encoder: TextEncoder) -> None:
    assert train(encoder, tokens=75, steps=2).tokens == 75
    with pytest.raises(ConfigError, match="tokens is 76; mini has room for 1 to 75"):
        train(encoder, tokens=76)


def test_a_loss_that_is_no_number_ends_with_the_best_until_then(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from softprompt.objectives import pooled

    real, calls = pooled.row_losses, []

    def failing(*args: Any) -> torch.Tensor:
        calls.append(1)
        return real(*args) * (math.nan if len(calls) > 25 else 1)

    monkeypatch.setattr(pooled, "row_losses", failing)
    with pytest.raises(TrainingFailed, match=r"stopped being a number by step 30: try a rate below 1") as caught:
        train(encoder)
    best = caught.value.best
    assert best is not None
    assert (best.stopped, len(best.losses)) == ("failed", 25)
    assert np.isfinite(best.vectors).all()
    assert best.similarity > 0.5


def test_a_loss_that_never_is_a_number_leaves_nothing(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.objectives import pooled

    monkeypatch.setattr(pooled, "row_losses", lambda _o, outputs, *_: outputs.sum(-1) * math.nan)
    with pytest.raises(TrainingFailed) as caught:
        train(encoder)
    assert caught.value.best is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "is out of memory: fewer restarts"),
        (RuntimeError("CUDA error: gone\nmore"), "failed: CUDA error: gone"),
    ],
)
def test_a_device_that_fails_ends_with_the_best_until_then(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    """A device that is gone answers nothing any more, not even where the best vectors stand."""
    from softprompt.objectives import pooled
    from softprompt.training.optimizer import BatchedAdam

    real, read, calls = pooled.row_losses, BatchedAdam.read, []

    def failing(*args: Any) -> torch.Tensor:
        calls.append(1)
        return real(*args) if len(calls) <= 25 else gone()

    def gone() -> Any:
        raise error

    monkeypatch.setattr(pooled, "row_losses", failing)
    monkeypatch.setattr(BatchedAdam, "read", lambda rows: read(rows) if len(calls) <= 25 else gone())
    with pytest.raises(TrainingFailed, match=said) as caught:
        train(encoder)
    best = caught.value.best
    assert best is not None
    assert (best.stopped, len(best.losses)) == ("failed", 20)  # of the last check
    assert best.similarity > 0.5


def test_a_failing_device_is_said_also_before_the_first_step(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from softprompt.objectives import pooled

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pooled, "encode_targets", full)
    with pytest.raises(TrainingFailed, match="out of memory"):
        train(encoder)


def test_bfloat16_comes_close(encoder: TextEncoder) -> None:
    half = encoder.to("cpu", torch.bfloat16)
    made = train(half, steps=10, contexts=())  # slow on a cpu without such instructions
    assert made.vectors.dtype == np.float32
    assert made.similarity > 0.8
    assert half.fingerprint == encoder.fingerprint


def test_markup_and_control_characters_are_trained_on(encoder: TextEncoder) -> None:
    assert train(encoder, "a [/bold] fox \x1b[31m red", steps=2).hard_prompt == "a [/bold] fox \x1b[31m red"


def test_nothing_is_printed_or_written(encoder: TextEncoder, capfd: pytest.CaptureFixture[str], home: Path) -> None:
    train(encoder, steps=2)
    assert capfd.readouterr() == ("", "")
    assert not home.exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tokens": 0}, "tokens is 0; it must be a whole number from 1 to 4,096"),
        ({"tokens": 2.5}, "tokens is 2.5"),
        ({"tokens": "auto"}, "stop_at is not set"),
        ({"steps": 0}, "steps is 0"),
        ({"rate": math.nan}, "rate is nan; it must be over 0"),
        ({"rate": -1.0}, "rate is -1"),
        ({"stop_at": 1.5}, "stop_at is 1.5"),
        ({"patience": 0}, "patience is 0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"init": "zeros"}, "init is 'zeros'; it can be noise, vocabulary, prompt, soft"),
        ({"objective": "l1"}, "objective is 'l1'"),
        ({"objective": "contrastive"}, "needs at least one other prompt"),
        ({"against": ("a",)}, "only the contrastive objective uses it"),
        ({"contexts": ("no slot",)}, "must hold {} once"),
        ({"contexts": ("{} and {}",)}, "must hold {} once"),
        ({"long": "drop"}, "long is 'drop'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("{", r"\{").replace("}", r"\}")):
        TrainConfig(**settings)


def test_settings_survive_json() -> None:
    config = TrainConfig(tokens=3, contexts=("a {}",), stop_at=0.9)
    assert TrainConfig.from_dict(config.as_dict()) == config
    with pytest.raises(ConfigError, match="unknown settings: speed"):
        TrainConfig.from_dict({"speed": 3})


def test_training_and_grading_contexts_share_no_content_word() -> None:
    def stems(contexts: tuple[str, ...]) -> set[str]:
        small = {
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
        return {word[:5] for word in words - small - {"{}", ""}}

    assert stems(TRAINING_CONTEXTS) & stems(GRADING_CONTEXTS) == set()
