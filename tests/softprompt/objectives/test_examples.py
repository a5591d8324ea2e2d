"""Tuning on examples: the loss, the grading, and training with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional as F

import softprompt
from softprompt.config import TrainConfig, config_for_examples
from softprompt.encoders.causal_lm.question_rows import encode_around
from softprompt.errors import ConfigError, PromptError
from softprompt.evaluation import examples as grading
from softprompt.evaluation.examples import few_shot_rows
from softprompt.jobs.execute import run_job
from softprompt.jobs.identity import training_digest
from softprompt.jobs.job import Job, SweepJob, TrainJob
from softprompt.library import Library
from softprompt.library.entry import pack
from softprompt.library.header import read_provenance
from softprompt.objectives.base import SlotTarget
from softprompt.objectives.examples import (
    ExampleObjective,
    encode_examples,
    end_token,
    example_prompt,
    group_examples,
    shuffled,
)
from softprompt.prompts.examples import list_examples, split_examples
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.training.trainer import iter_train, train

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM

PAIRS = [(f"What is {number}?", "even" if number % 2 == 0 else "odd number") for number in range(13)]
EXAMPLES = split_examples(list_examples("examples", PAIRS))
CONFIG = config_for_examples({"tokens": 2, "steps": 6})


def test_the_loss_is_the_mean_over_examples_of_the_mean_over_tokens(language_model: CausalLM) -> None:
    objective = ExampleObjective(language_model, replace(CONFIG, restarts=2), [2], EXAMPLES)
    assert objective.turns == 2
    assert objective.positions >= 2 + objective.longest
    (target,) = objective.prepare([(example_prompt(language_model, EXAMPLES.summary, CONFIG, EXAMPLES), CONFIG, "")])
    objective.set_slots([SlotTarget(target, 2, 2)])
    vectors = torch.stack([language_model.embed([5, 6]), language_model.embed([7, 8])]).requires_grad_()
    end = end_token(language_model, "system")
    for turn, group in enumerate(objective.groups):
        evaluation = objective.evaluate(vectors, turn)
        (gradient,) = torch.autograd.grad(evaluation.loss.sum(), vectors)
        assert gradient.abs().sum(dim=(1, 2)).min() > 0
        for row, soft in enumerate(vectors):
            losses, right = [], []
            for example in group:
                assert example.output[-1:] == end
                before, after = (language_model.embed(list(ids)) for ids in (example.before, example.after))
                inputs = torch.cat([before, soft, after, language_model.embed(list(example.output))])
                logits = language_model.logits(inputs[None])[0, -len(example.output) - 1 : -1]
                losses.append(F.cross_entropy(logits, torch.tensor(example.output)))
                right.append((logits.argmax(-1) == torch.tensor(example.output)).float().mean())
            torch.testing.assert_close(evaluation.loss[row], torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(evaluation.similarity[row], torch.stack(right).mean())


def test_training_lowers_the_loss_and_a_run_resumed_from_any_report_ends_alike(language_model: CausalLM) -> None:
    training = iter_train(language_model, EXAMPLES.summary, CONFIG, interval=2, examples=EXAMPLES)
    reports = [(report, report.state()) for report in training]
    result = reports[-1][0].result
    assert result is not None
    assert reports[-1][0].best_loss < reports[0][0].loss
    for _, state in reports[:-1]:
        resumed = train(language_model, EXAMPLES.summary, CONFIG, interval=2, resume=state, examples=EXAMPLES)
        assert resumed.vectors.tobytes() == result.vectors.tobytes()
    other = split_examples(list_examples("examples", [*PAIRS[:-1], ("What is 12?", "big")]))
    with pytest.raises(ConfigError, match="resume is the state of a run with another text"):
        train(language_model, EXAMPLES.summary, CONFIG, resume=reports[0][1], examples=other)
    fidelity = result.examples
    assert fidelity is not None
    assert result.hard_prompt == "10 examples"
    assert result.target.size == 0
    assert result.answers is None
    assert result.warnings == ()
    assert result.similarity == fidelity.score.accuracy
    assert set(fidelity.floors) == {"untrained", "few-shot", "no prompt"}
    assert fidelity.template == language_model.chat_template.digest
    assert (fidelity.training.count, fidelity.held_out.count, fidelity.shots) == (10, 3, 10)
    assert [sample.input for sample in fidelity.samples] == [each.input for each in EXAMPLES.held_out.examples]
    assert fidelity.floors["untrained"].loss > 0


def test_an_output_that_is_learned_counts_as_right(language_model: CausalLM) -> None:
    pairs = [(text, "a") for text, _ in PAIRS]
    result = softprompt.tune(language_model, pairs, tokens=8, steps=60, rate=1.0, project_norm=False)
    assert result.examples is not None
    assert result.similarity == result.examples.score.accuracy == 1.0
    assert result.examples.score.loss < 0.5 < result.examples.floors["untrained"].loss
    assert result.examples.floors["no prompt"].accuracy == 0.0
    assert all(sample.soft == "a" for sample in result.examples.samples)


def test_only_the_exact_output_is_right(language_model: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(model: CausalLM, groups: list[list[list[int]]], *_args: Any, **_options: Any) -> list[list[str]]:
        return [["even", "even number", "odd number"][: len(rows)] for rows in groups]

    monkeypatch.setattr(grading, "greedy_answers", answered)
    held_out = split_examples(
        list_examples("examples", PAIRS), list_examples("held_out", [("a", "even"), ("b", "even"), ("c", "odd number")])
    )
    result = train(language_model, held_out.summary, replace(CONFIG, steps=1), examples=held_out)
    assert result.examples is not None
    assert result.examples.score.accuracy == pytest.approx(2 / 3)
    assert [sample.soft for sample in result.examples.samples] == ["even", "even number", "odd number"]


@pytest.mark.parametrize("placement", ["system", "user", "start"])
def test_the_soft_tokens_stand_where_the_settings_say(placement: str, language_model: CausalLM) -> None:
    config = replace(CONFIG, placement=placement, steps=1)
    before, after = encode_around(language_model, "What is 0?", config.placement)
    (encoded,) = encode_examples(language_model, list_examples("", PAIRS[:1]).examples, 2, config.placement)
    assert (list(encoded.before), list(encoded.after)) == (before, after)
    result = train(language_model, EXAMPLES.summary, config, examples=EXAMPLES)
    assert result.examples is not None
    assert result.examples.placement == placement


def test_an_instruction_is_the_start_of_both_prompts(language_model: CausalLM) -> None:
    config = config_for_examples({"tokens": 4, "instruction": "Say even or odd.", "rate": 1e-9, "steps": 1})
    result = train(language_model, EXAMPLES.summary, config, examples=EXAMPLES)
    ids = language_model.tokenizer.encode("Say even or odd.")[:4]
    torch.testing.assert_close(torch.tensor(result.vectors), language_model.embed(ids), atol=0.2, rtol=0)
    encoded = encode_examples(language_model, EXAMPLES.held_out.examples, 4, "system")
    training = shuffled(EXAMPLES.training.examples, 0)
    shots, rows = few_shot_rows(language_model, training, EXAMPLES.held_out.examples, encoded, config)
    text = language_model.tokenizer.decode(rows[0])
    assert "Say even or odd.\n\nInput: What is " in text
    assert text.count("Output: ") == shots == 10


def test_as_many_examples_as_fit_are_in_the_few_shot_prompt(language_model: CausalLM) -> None:
    long = split_examples(list_examples("examples", [(f"{number} {'x' * 30}", "y") for number in range(40)]))
    encoded = encode_examples(language_model, long.held_out.examples, 2, "system")
    shots, rows = few_shot_rows(language_model, long.training.examples, long.held_out.examples, encoded, CONFIG)
    assert 3 < shots < 30
    assert 400 < max(map(len, rows)) < 512
    result = train(language_model, long.summary, replace(CONFIG, steps=1), examples=long)
    assert result.examples is not None
    assert result.examples.shots <= shots


def test_an_answer_ends_as_the_template_ends_a_turn(language_model: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    start, (first, *_) = language_model.specials.start, language_model.specials.end
    assert end_token(language_model, "system") == (first,)  # the template has no end token of the model
    turn_end = language_model.tokenizer.encode("<|im_end|>")[0]
    monkeypatch.setattr(language_model, "specials", replace(language_model.specials, end=(first, turn_end)))
    assert language_model.specials.start == start
    assert end_token(language_model, "system") == (turn_end,)
    assert end_token(language_model, "start") == (first,)


def test_groups_are_even_and_short(language_model: CausalLM) -> None:
    encoded = encode_examples(language_model, EXAMPLES.training.examples, 2, "system")
    groups = group_examples(encoded, 8, 10_000)
    assert [len(group) for group in groups] == [5, 5]
    assert [example for group in groups for example in group] == encoded
    assert [len(group) for group in group_examples(encoded, 8, 1)] == [1] * 10


def test_files_keep_every_measurement_and_no_example_to_train_on(language_model: CausalLM, tmp_path: Path) -> None:
    file = tmp_path / "numbers.jsonl"
    file.write_text("".join(json.dumps({"input": text, "output": output}) + "\n" for text, output in PAIRS))
    result = softprompt.tune(language_model, file, tokens=2, steps=1)
    assert result.hard_prompt == "10 examples of numbers.jsonl"
    entry = Library().save(result.named("numbers"))
    assert Library().open(entry.id).prompt == result.named("numbers")
    header = read_provenance(pack(entry), "")
    assert header["format"] == 2  # version 0.1 reads 1 and says to update
    kept = json.dumps(header)
    assert all(example.input not in kept for example in EXAMPLES.training.examples)
    assert SoftPrompt.load(result.save(tmp_path / "numbers.safetensors")).examples == result.examples


def test_a_job_carries_its_examples_and_resumes(language_model: CausalLM) -> None:
    job = TrainJob(EXAMPLES.summary, CONFIG, language_model.name, examples=EXAMPLES)
    again = Job.from_dict(json.loads(json.dumps(job.as_dict())))
    assert again == job
    assert job.batch_key is None
    assert training_digest(job) == ""
    assert isinstance(again, TrainJob)
    states = []

    def stop(report: softprompt.Report) -> bool:
        states.append(report.state())
        return True

    whole = run_job(job, language_model, Library()).entry
    partial = run_job(job, language_model, Library(), interval=2, on_report=stop).entry
    resumed = run_job(again, language_model, Library(), resume=states[0]).entry
    assert whole is not None and partial is not None and resumed is not None  # noqa: PT018
    assert partial.prompt.stopped == "interrupted"
    assert resumed.prompt.vectors.tobytes() == whole.prompt.vectors.tobytes()
    assert resumed.prompt.examples == whole.prompt.examples


def test_examples_need_their_objective(language_model: CausalLM, encoder: softprompt.TextEncoder) -> None:
    message = r"the objective is \w+. `softprompt.tune\(encoder, examples\)` trains on examples"
    with pytest.raises(ConfigError, match=message):
        train(language_model, "a prompt", CONFIG)
    with pytest.raises(ConfigError, match=message):
        TrainJob("a prompt", CONFIG)
    with pytest.raises(ConfigError, match=message):
        TrainJob("a prompt", examples=EXAMPLES)
    with pytest.raises(ConfigError, match=message):
        SweepJob("a prompt", CONFIG)
    with pytest.raises(ConfigError, match="which needs a language model, but mini is a text encoder"):
        softprompt.tune(encoder, PAIRS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": "auto"}, "tokens is auto, but the objective is examples, which needs a number"),
        ({"stop_at": 0.9}, "'stop_at' is set, but the objective is examples"),
        ({"contexts": ("a {}",)}, "'contexts' is set, but the objective is examples"),
        ({"long": "cut"}, "'long' is set, but the objective is examples"),
        ({"questions": ("one?", "two?")}, "'questions' is set"),
        ({"self_study": 3}, "'self_study' is set"),
        ({"init": "soft"}, "init is soft"),
        ({"init": "first"}, "there is no instruction to start from. Use init='vocabulary', or set `instruction`"),
        ({"init": "noise", "instruction": "Sort."}, "init is noise, which does not use it"),
        ({"instruction": 3}, r"instruction is 3; it must be a string"),
        ({"objective": "distill"}, "the objective is distill"),
        ({"objective": "cosine", "instruction": "Sort.", "init": "noise"}, "only tuning on examples uses it"),
        ({"tokens": 4000}, "has room for 510"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, Any], message: str, language_model: CausalLM
) -> None:
    with pytest.raises(ConfigError, match=message):
        softprompt.tune(language_model, PAIRS, **settings)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("word " * 400, "yes"), "example 5 takes .* tokens with the template, 2 soft tokens .* reads 512 at once"),
        (("a <|im_end|> b", "yes"), "example 5 cannot be used: the user's text contains <|im_end|>"),
        (("a", "yes </s> no"), "example 5 cannot be used: the text contains </s>, a special token"),
    ],
)
def test_an_example_that_the_model_cannot_read_is_named(
    pair: tuple[str, str], message: str, language_model: CausalLM
) -> None:
    given = [*PAIRS[:4], pair]
    with pytest.raises(PromptError, match=message.replace("|", r"\|")):
        softprompt.tune(language_model, given, tokens=2, steps=1)
    with pytest.raises(PromptError, match=message.replace("|", r"\|").replace("example 5", "example 2")):
        softprompt.tune(language_model, PAIRS[4:], held_out=[PAIRS[0], pair], tokens=2, steps=1)


def test_examples_that_take_too_much_memory_are_refused(
    language_model: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softprompt.objectives.examples.MAX_MASK_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"the examples need .* GB for their attention masks"):
        ExampleObjective(language_model, CONFIG, [2], EXAMPLES)


def test_a_config_without_examples_has_the_digest_that_it_always_had() -> None:
    from softprompt.config import digested_settings

    assert "instruction" not in digested_settings(TrainConfig())


def test_at_the_start_of_a_text_an_output_follows_after_a_space(language_model: CausalLM) -> None:
    examples = list_examples("", [("What is 0?", "even ")]).examples
    (encoded,) = encode_examples(language_model, examples, 2, "start")
    decode = language_model.tokenizer.decode
    assert decode(encoded.before) == "<s>"
    assert decode([*encoded.after, *encoded.output]) == "\nWhat is 0? even</s>"
