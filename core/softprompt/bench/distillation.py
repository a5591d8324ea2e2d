"""A step of distillation beside a loop with PEFT's prompt tuning: the same answers, loss, precision and threads.

A step has QUESTIONS_PER_STEP questions with ANSWERS_PER_QUESTION answers of ANSWER_TOKENS tokens each. PEFT gets them
as rows of a question and an answer, padded on the right to the longest. Each method runs in a process of its own, which
`python -m softprompt.bench.distillation` starts, so that the peak memory is its own; the methods take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from softprompt.bench.machine import PeakMemory, synchronize
from softprompt.config import config_for
from softprompt.encoders.causal_lm.answering import Answer
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.question_rows import SOFT, soft_row
from softprompt.encoders.loading import load_model
from softprompt.errors import SoftPromptError, shorten
from softprompt.objectives.base import SlotTarget
from softprompt.objectives.distillation import (
    ANSWERS_PER_QUESTION,
    QUESTIONS_PER_STEP,
    DistillationObjective,
    DistillationTarget,
    top_divergence,
    training_questions,
)
from softprompt.objectives.teacher import ANSWER_TOKENS, TOP

OURS, PEFT = "ours", "PEFT"
TOKENS = 16  # soft tokens
CONFIG = config_for("causal", {"tokens": TOKENS})
SCORED = QUESTIONS_PER_STEP * ANSWERS_PER_QUESTION * ANSWER_TOKENS  # tokens of answers in a step
STEPS, ROUNDS, QUICK_ROUNDS = 4, 3, 1
MAX_REASON = 500  # characters of a child's message that are shown


@dataclass(frozen=True)
class DistillationRow:
    """The cost of a step.

    Attributes:
        seconds: median of the steps.
        tokens_per_second: tokens of answers that the loss reads.
        memory: peak in bytes, with the model, or None if the system does not report it.
    """

    method: str
    seconds: float
    fastest: float
    tokens_per_second: float
    memory: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def methods() -> tuple[str, ...]:
    """Return the methods that can run here: PEFT is not a dependency."""
    return (OURS, PEFT) if find_spec("peft") else (OURS,)


def measure_distillation(
    model: str, device: str, precision: str, rounds: int, notify: Callable[[str], None] = lambda _: None
) -> Iterator[DistillationRow]:
    """Measure the step of every method, and yield their rows.

    Args:
        rounds: how often each method takes its turn.
        notify: called with a message before each turn.

    Raises:
        SoftPromptError: a method fails. The message says why.
    """
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in methods()}
    for number in range(1, rounds + 1):
        for method, known in results.items():
            notify(f"round {number} of {rounds}: {method}")
            known.append(_run(method, model, device, precision))
    for method, known in results.items():
        seconds = [value for result in known for value in result["seconds"]]
        memory = [result["memory"] for result in known if result["memory"] is not None]
        middle = median(seconds)
        yield DistillationRow(method, middle, min(seconds), SCORED / middle, max(memory, default=None))


def _run(method: str, model: str, device: str, precision: str) -> dict[str, Any]:
    """Measure a method in a process of its own."""
    command = [sys.executable, "-P", "-m", "softprompt.bench.distillation", method, model, device, precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"it ended with exit code {done.returncode}"]
        raise SoftPromptError(f"the step of {method} cannot be measured: {shorten(reason[0], MAX_REASON)}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(method: str, model_name: str, device: str, precision: str) -> None:
    """Measure a method in this process, and write its figures to standard output, as JSON."""
    model = load_model(model_name, device, precision)
    assert isinstance(model, CausalLM)
    step = {OURS: packed_step, PEFT: peft_step}[method](model)
    seconds = []
    with PeakMemory(model.device) as peak:
        step()
        for _ in range(STEPS):
            synchronize(model.device)
            began = perf_counter()
            step()
            synchronize(model.device)
            seconds.append(perf_counter() - began)
    sys.stdout.write(json.dumps({"seconds": seconds, "memory": peak.memory}) + "\n")


def make_answers(model: CausalLM) -> list[tuple[str, tuple[Answer, ...]]]:
    """Return the questions of a step with random answers of full length, and a random teacher.

    The work does not depend on what they say.
    """
    generator = torch.Generator().manual_seed(0)

    def answer() -> Answer:
        ids = torch.randint(0, model.vocabulary, (ANSWER_TOKENS,), generator=generator).tolist()
        top = torch.randint(0, model.vocabulary, (ANSWER_TOKENS, TOP), generator=generator)
        logs = torch.randn(ANSWER_TOKENS, TOP, generator=generator).log_softmax(-1) - 0.1
        return Answer(tuple(ids), top, logs)

    questions, _ = training_questions(CONFIG)
    return [
        (question, tuple(answer() for _ in range(ANSWERS_PER_QUESTION))) for question in questions[:QUESTIONS_PER_STEP]
    ]


def packed_step(model: CausalLM) -> Callable[[], None]:
    """Return our step: forward, backward and Adam."""
    objective = DistillationObjective(model, CONFIG, [TOKENS])
    target = DistillationTarget((tuple(make_answers(model)),) * objective.turns)
    objective.set_slots([SlotTarget(target, TOKENS, 1)])
    vectors = (torch.randn(1, TOKENS, model.width, device=model.device) * model.token_std).requires_grad_()
    optimizer = torch.optim.Adam([vectors], 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(objective.evaluate(vectors, 0).loss.sum())
        optimizer.step()

    return step


def peft_step(model: CausalLM) -> Callable[[], None]:
    """Return the step of a loop with PEFT's PromptTuningConfig."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    asked = make_answers(model)
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=TOKENS)
    tuned: Any = get_peft_model(model._model, config)
    rows, first = [], []
    for question, answers in asked:
        asking = [token for token in soft_row(model, question, TOKENS, "system") if token != SOFT]
        for each in answers:
            rows.append([*asking, *each.ids[:-1]])
            first.append(TOKENS + len(asking) - 1)
    size = max(map(len, rows))
    device = model.device
    ids = torch.tensor([[*row, *[0] * (size - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (size - len(row)) for row in rows], device=device)
    positions = torch.tensor([[start + i for i in range(ANSWER_TOKENS)] for start in first], device=device)
    flat = [each for _, answers in asked for each in answers]
    top_ids = torch.cat([each.top_ids for each in flat]).to(device)
    top_logs = torch.cat([each.top_logs for each in flat]).to(device)
    numbers = torch.arange(len(rows), device=device)[:, None]
    optimizer = torch.optim.Adam([weight for weight in tuned.parameters() if weight.requires_grad], 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        logits: Tensor = tuned(input_ids=ids, attention_mask=mask).logits
        scored = logits[numbers, positions].flatten(0, 1).float()
        torch.autograd.backward(top_divergence(scored, top_ids, top_logs).mean())
        optimizer.step()

    return step


if __name__ == "__main__":
    main(*sys.argv[1:])
