"""Distillation: the teacher's answers, the loss, and training with it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from softprompt.config import TrainConfig, config_for
from softprompt.encoders.causal_lm.loading import load_causal_lm
from softprompt.encoders.causal_lm.question_rows import SOFT, bare_row, hard_row, soft_row
from softprompt.errors import ConfigError, ModelRefused, PromptError, PromptTooLong
from softprompt.library import Library
from softprompt.library.entry import pack
from softprompt.library.header import read_provenance
from softprompt.objectives import teacher
from softprompt.objectives.base import SlotTarget
from softprompt.objectives.distillation import (
    DistillationObjective,
    tokenize_prompt,
    top_divergence,
    training_questions,
)
from softprompt.objectives.teacher import sample_teacher
from softprompt.objectives.workspace import Workspace
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.training import memory as training_memory
from softprompt.training.errors import TrainingFailed
from softprompt.training.trainer import iter_train, sweep, train
from tests.softprompt.encoders.causal_lm.tiny_models import save_model

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM

PROMPT = "You are a pirate. Answer in one short line."
QUESTIONS = tuple(f"What is {number}?" for number in range(12))
CONFIG = config_for("causal", {"questions": QUESTIONS, "steps": 6, "tokens": 2})


class Memory(Workspace):
    """Keeps everything in this process."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}
        self.stages: list[str] = []

    def read(self, run: str, name: str) -> bytes | None:
        return self.kept.get((run, name))

    def write(self, run: str, name: str, data: bytes) -> None:
        self.kept[run, name] = data

    def post_stage(self, stage: str) -> None:
        self.stages.append(stage)


@pytest.fixture(autouse=True)
def no_recent_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test sample its own answers."""
    monkeypatch.setattr(teacher, "RECENT_TEACHERS", 0)


def objective(
    model: CausalLM, config: TrainConfig = CONFIG, workspace: Workspace | None = None
) -> DistillationObjective:
    return DistillationObjective(model, config, [2], workspace or Workspace())


def test_soft_tokens_that_are_the_prompts_own_have_no_loss(language_model: CausalLM) -> None:
    """With the prompt's own embeddings in place of soft tokens, the model is its own teacher."""
    prompt = tokenize_prompt(language_model, PROMPT)
    (ids,) = prompt.chunks
    distillation = DistillationObjective(language_model, replace(CONFIG, tokens=len(ids)), [len(ids)])
    (target,) = distillation.prepare([(prompt, CONFIG, "")])
    distillation.set_slots([SlotTarget(target, len(ids), 1)])
    for turn in range(distillation.turns):
        evaluation = distillation.evaluate(language_model.embed(ids).unsqueeze(0), turn)
        assert evaluation.loss.item() < 1e-4
        assert evaluation.similarity.item() == 1.0
    shuffled = language_model.embed(ids).flip(0).unsqueeze(0)
    assert distillation.evaluate(shuffled, 0).loss.item() > 1e-3


def test_the_loss_is_a_lower_bound_of_the_kl_divergence() -> None:
    torch.manual_seed(0)
    teacher_logits, logits = torch.randn(7, 100) * 3, (torch.randn(7, 100) * 3).requires_grad_()
    teacher_logs = teacher_logits.log_softmax(-1)
    exact = (teacher_logs.exp() * (teacher_logs - logits.log_softmax(-1))).sum(-1)
    top = teacher_logs.topk(20)
    bound = top_divergence(logits, top.indices, top.values)
    assert ((bound > 0.5 * exact) & (bound < exact)).all()
    everything = teacher_logs.topk(100)
    torch.testing.assert_close(
        top_divergence(logits, everything.indices, everything.values), exact, atol=1e-3, rtol=1e-3
    )
    (gradient,) = torch.autograd.grad(bound.sum(), logits)
    assert gradient.isfinite().all()


def test_training_lowers_the_loss_and_a_run_resumed_from_any_report_ends_alike(language_model: CausalLM) -> None:
    training = iter_train(language_model, PROMPT, CONFIG, interval=2)
    reports = [(report, report.state()) for report in training]
    result = reports[-1][0].result
    assert result is not None
    assert reports[-1][0].best_loss < reports[0][0].loss
    for _, state in reports[:-1]:
        resumed = train(language_model, PROMPT, CONFIG, interval=2, resume=state)
        assert resumed.vectors.tobytes() == result.vectors.tobytes()
    assert result.target.size == 0
    assert result.answers is not None
    assert result.similarity == result.answers.score.agreement
    assert set(result.answers.floors) == {"no prompt", "first tokens", "first sentence"}
    assert len(result.answers.samples) == result.answers.questions == 3


def test_files_keep_every_measurement_and_older_versions_ask_for_an_update(
    language_model: CausalLM, tmp_path: Path
) -> None:
    result = train(language_model, PROMPT, replace(CONFIG, steps=1))
    assert result.answers is not None
    entry = Library().save(result.named("pirate"))
    assert Library().open(entry.id).prompt.answers == result.answers
    header = read_provenance(pack(entry), "")
    assert header["format"] == 2  # version 0.1 reads 1 and says to update
    assert SoftPrompt.load(result.save(tmp_path / "pirate.safetensors")).answers == result.answers


def test_a_sweep_trains_every_count_as_it_would_be_trained_alone(language_model: CausalLM) -> None:
    training = sweep(language_model, PROMPT, [1, 3], CONFIG)
    try:
        while True:
            next(training)
    except StopIteration as finished:
        swept = finished.value
    for prompt in swept:
        alone = train(language_model, PROMPT, replace(CONFIG, tokens=prompt.tokens))
        torch.testing.assert_close(torch.tensor(prompt.vectors), torch.tensor(alone.vectors), atol=1e-4, rtol=1e-3)


def test_auto_keeps_the_smallest_that_reaches_its_share_of_the_floor(language_model: CausalLM) -> None:
    config = replace(CONFIG, tokens="auto", stop_at=1.0, steps=2)
    easy = train(language_model, PROMPT, config)
    assert easy.answers is not None
    assert easy.answers.kl_share <= 1 or any("of the floor's KL" in warning for warning in easy.warnings)
    hard = train(language_model, PROMPT, replace(config, stop_at=0.001))
    assert any(re.search(r"up to \d+ tokens reached 0.001 of the floor's KL", text) for text in hard.warnings)


def test_the_answers_are_kept_and_read_again(language_model: CausalLM) -> None:
    memory = Memory()
    prompt = tokenize_prompt(language_model, PROMPT)
    (first,) = objective(language_model, workspace=memory).prepare([(prompt, CONFIG, "run")])
    assert {run for run, _ in memory.kept} == {"run"}
    assert memory.stages[0] == "sampling answers: 0 of 36"
    memory.stages.clear()
    (again,) = objective(language_model, workspace=memory).prepare([(prompt, CONFIG, "run")])
    assert not memory.stages
    for (question, answers), (other, others) in zip(first.turns[0], again.turns[0], strict=True):
        assert question == other
        assert [each.ids for each in answers] == [each.ids for each in others]
        assert all(torch.equal(a.top_logs, b.top_logs) for a, b in zip(answers, others, strict=True))
    for key, raw in list(memory.kept.items()):  # damaged answers are sampled again
        memory.kept[key] = raw[:-1] + bytes([raw[-1] ^ 1])
    objective(language_model, workspace=memory).prepare([(prompt, CONFIG, "run")])
    assert memory.stages


def test_answers_depend_on_everything_that_they_are_sampled_from(language_model: CausalLM) -> None:
    def ids(prompt: str = PROMPT, samples: int = 2, seed: int = 0) -> list[tuple[int, ...]]:
        answers = sample_teacher(language_model, prompt, QUESTIONS[:2], samples, "system", seed, label="test")
        return [each.ids for group in answers for each in group]

    assert ids() == ids()
    assert len({str(ids()), str(ids(PROMPT + " Be rude.")), str(ids(seed=1))}) == 3


def test_the_model_writes_its_own_questions(language_model: CausalLM) -> None:
    memory = Memory()
    config = replace(CONFIG, self_study=5)
    prompt = tokenize_prompt(language_model, PROMPT)
    training, _ = training_questions(config)
    (target,) = objective(language_model, config, memory).prepare([(prompt, config, "")])
    asked = [question for turn in target.turns for question, _ in turn]
    assert asked[: len(training)] == list(training)
    assert len(asked) == len(training) + 5
    assert any(name.startswith("questions-") for _, name in memory.kept)


@pytest.mark.parametrize("placement", ["system", "user", "start"])
def test_soft_tokens_stand_where_the_hard_prompt_stood(placement: str, language_model: CausalLM) -> None:
    config = replace(CONFIG, placement=placement)
    ids = tokenize_prompt(language_model, PROMPT).chunks[0]
    hard = hard_row(language_model, "What is 1?", PROMPT, config.placement)
    soft = soft_row(language_model, "What is 1?", 3, config.placement)
    at = soft.index(SOFT)
    assert soft[at : at + 3] == [SOFT] * 3
    assert hard[:at] == soft[:at]
    assert hard[at : at + len(ids)] == list(ids)
    if placement != "user":  # there, they also stand for the empty line behind the prompt
        assert soft[at + 3 :] == hard[at + len(ids) :]
    assert SOFT not in bare_row(language_model, "What is 1?", config.placement)
    result = train(language_model, PROMPT, replace(config, steps=2))
    assert result.answers is not None
    assert result.answers.placement == placement
    assert result.answers.template == ("" if placement == "start" else language_model.chat_template.digest)


@pytest.mark.parametrize(
    ("text", "meanings", "error", "message"),
    [
        ("", (), PromptError, "the prompt is empty"),
        ("word " * 4000, (), PromptTooLong, "tokens"),
        ("a <|im_end|> b", (), PromptError, "special token"),
        ("a", (WeightedText("a", 1), WeightedText("b", 1)), ConfigError, "is a mix of 2 texts"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused(
    text: str, meanings: tuple[WeightedText, ...], error: type[Exception], message: str, language_model: CausalLM
) -> None:
    with pytest.raises(error, match=message):
        tokenize_prompt(language_model, text, meanings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "cosine"}, "is a language model"),
        ({"contexts": ("a {}",)}, "asks questions instead"),
        ({"long": "chunk"}, "needs the whole prompt"),
        ({"stop_at": 0.9}, "only tokens='auto' uses it"),
        ({"questions": ("one?",)}, "at least 2"),
        ({"questions": ("why " * 400,) * 200}, "320,000 characters in all; at most 300,000"),
        ({"placement": "middle"}, "it must be one of: system, user, start"),
        ({"self_study": -1}, "from 0 to"),
        ({"tokens": 4000}, "has room for 510"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, object], message: str, language_model: CausalLM
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(language_model, PROMPT, config_for("causal", settings))


def test_a_text_encoder_has_no_answers_to_distill(encoder: object) -> None:
    with pytest.raises(ConfigError, match="is a text encoder"):
        train(encoder, PROMPT, objective="distill")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="only distill uses it"):
        TrainConfig(self_study=3)


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    """A random model without a chat template."""
    return load_causal_lm(save_model("GPT2", tmp_path_factory.mktemp("base"), max_position_embeddings=512), "cpu")


def test_a_base_model_needs_no_chat_template_at_the_start_of_a_text(base_model: CausalLM) -> None:
    with pytest.raises(ModelRefused, match=r"no chat template.*Use placement='start', which needs none"):
        train(base_model, PROMPT, CONFIG)
    result = train(base_model, PROMPT, replace(CONFIG, placement="start", steps=2))
    assert result.answers is not None
    assert (result.answers.placement, result.answers.template) == ("start", "")
    row = base_model.tokenizer.decode(hard_row(base_model, " What is 1? ", f" {PROMPT}\n", "start"))
    assert row == f"{PROMPT}\nWhat is 1?"


def test_a_base_model_cannot_write_questions(base_model: CausalLM) -> None:
    config = replace(CONFIG, placement="start", self_study=4)
    with pytest.raises(ConfigError, match=r"cannot be asked to write questions\. Leave out `self_study`"):
        train(base_model, PROMPT, config)


def test_a_run_that_does_not_fit_into_memory_is_refused_before_it_samples(
    language_model: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory()
    monkeypatch.setattr(training_memory, "free_bytes", lambda _: 1000)
    with pytest.raises(TrainingFailed, match=r"training needs at least .* GB beside the model, but cpu has 0\.0 GB"):
        list(iter_train(language_model, PROMPT, CONFIG, workspace=memory))
    assert not memory.stages
