"""A step of distillation beside PEFT's prompt tuning on the same pairs, loss, precision and threads.

    python -m tests.benchmarks.distillation [--model smollm2-q4] [--steps 4] [--rounds 3]

A step has 4 questions with 4 answers of 16 tokens each. PEFT gets them as 16 rows, padded on the right to the longest,
with the same loss at the same positions. Both run in processes of their own, in turn; prints the median time of a step,
the tokens of answers per second and the peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softprompt.config import config_for
from softprompt.encoders.causal_lm.answering import Answer
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.question_rows import SOFT, soft_row
from softprompt.encoders.loading import load_model
from softprompt.objectives.base import SlotTarget
from softprompt.objectives.distillation import (
    ANSWERS_PER_QUESTION,
    QUESTIONS_PER_STEP,
    DistillationObjective,
    DistillationTarget,
    top_divergence,
)
from softprompt.objectives.teacher import ANSWER_TOKENS, TOP

TOKENS = 16  # soft tokens
SCORED = QUESTIONS_PER_STEP * ANSWERS_PER_QUESTION * ANSWER_TOKENS


def make_answers(model: CausalLM, questions: tuple[str, ...]) -> list[tuple[str, tuple[Answer, ...]]]:
    """Return random answers of full length, with a random teacher. The work does not depend on what they say."""
    generator = torch.Generator().manual_seed(0)

    def answer() -> Answer:
        ids = torch.randint(1000, model.vocabulary - 1, (ANSWER_TOKENS,), generator=generator).tolist()
        top = torch.randint(0, model.vocabulary, (ANSWER_TOKENS, TOP), generator=generator)
        logs = torch.randn(ANSWER_TOKENS, TOP, generator=generator).log_softmax(-1) - 0.1
        return Answer(tuple(ids), top, logs)

    return [(question, tuple(answer() for _ in range(ANSWERS_PER_QUESTION))) for question in questions]


def packed_step(model: CausalLM) -> Callable[[], None]:
    """Return our step: forward, backward and Adam."""
    objective = DistillationObjective(model, config_for("causal", {"tokens": TOKENS}), [TOKENS])
    asked = make_answers(model, objective.questions[:QUESTIONS_PER_STEP])
    target = DistillationTarget((tuple(asked),) * objective.turns)
    objective.set_slots([SlotTarget(target, TOKENS, 1)])
    vectors = (torch.randn(1, TOKENS, model.width) * model.token_std).requires_grad_()
    optimizer = torch.optim.Adam([vectors], 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        objective.evaluate(vectors, 0).loss.sum().backward()
        optimizer.step()

    return step


def peft_step(model: CausalLM) -> Callable[[], None]:
    """Return the step of a loop with PEFT's PromptTuningConfig."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    objective = DistillationObjective(model, config_for("causal", {"tokens": TOKENS}), [TOKENS])
    asked = make_answers(model, objective.questions[:QUESTIONS_PER_STEP])
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=TOKENS)
    tuned: Any = get_peft_model(model._model, config)
    rows, first = [], []
    for question, answers in asked:
        ids = [token for token in soft_row(model, question, TOKENS, "system") if token != SOFT]
        for each in answers:
            rows.append([*ids, *each.ids[:-1]])
            first.append(TOKENS + len(ids) - 1)
    size = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (size - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (size - len(row)) for row in rows])
    positions = torch.tensor([[start + i for i in range(ANSWER_TOKENS)] for start in first])
    flat = [each for _, answers in asked for each in answers]
    top_ids, top_logs = torch.cat([each.top_ids for each in flat]), torch.cat([each.top_logs for each in flat])
    optimizer = torch.optim.Adam([weight for weight in tuned.parameters() if weight.requires_grad], 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        logits: Tensor = tuned(input_ids=ids, attention_mask=mask).logits
        scored = logits[torch.arange(len(rows))[:, None], positions].flatten(0, 1).float()
        top_divergence(scored, top_ids, top_logs).mean().backward()
        optimizer.step()

    return step


STEPS: dict[str, Callable[[CausalLM], Callable[[], None]]] = {"packed rows": packed_step, "PEFT": peft_step}


def run_child(name: str, model_name: str, steps: int) -> None:
    model = load_model(model_name, "cpu")
    assert isinstance(model, CausalLM)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = STEPS[name](model)
    step()
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak": peak, "before": before}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-q4")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child, options.model, options.steps)
        return
    seconds: dict[str, list[float]] = {name: [] for name in STEPS}
    peaks = dict.fromkeys(STEPS, 0)
    for _ in range(options.rounds):
        for name in STEPS:
            command = [sys.executable, "-m", "tests.benchmarks.distillation", "--child", name,
                       "--model", options.model, "--steps", str(options.steps)]  # fmt: skip
            measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds[name] += measured["seconds"]
            peaks[name] = max(peaks[name], measured["peak"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(
            f"{name:12} {median:6.2f} s per step (fastest {min(values):.2f})  {SCORED / median:6.0f} scored tokens/s"
            f"  peak memory {peaks[name] / 1e6:.2f} GB"
        )
    ours, theirs = (statistics.median(seconds[name]) for name in STEPS)
    print(f"PEFT takes {theirs / ours:.2f} times as long")


if __name__ == "__main__":
    main()
