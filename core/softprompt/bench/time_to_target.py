"""Measure how long training takes to reach a similarity, one prompt at a time and, for our method, in one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import median

from softprompt.bench.environment import ALONE_GOAL, COMPOSED_GOAL, GOAL_CONFIG, SOFT_TOKENS, BenchEnvironment
from softprompt.bench.machine import synchronize
from softprompt.bench.results import DEFAULT, INVERSION, OURS, TOGETHER, TUNED, WARM, TimeRow
from softprompt.bench.textual_inversion import DEFAULT_RATE, GoalResult, train_to_goal
from softprompt.config import MAX_STEPS, TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import SoftPromptError
from softprompt.evaluation.fidelity import grade
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.prompts.contexts import GRADING_CONTEXTS
from softprompt.system.generators import drive
from softprompt.training.loop import train_one
from softprompt.training.model_kinds import make_objective
from softprompt.training.scheduler import train_scheduled
from softprompt.training.task import TrainingTask

SEEDS = 4  # per prompt in the batch: more tasks than fit at once, so that slots are refilled
GRADE_STEPS = 5  # steps between gradings


def measure_time(environment: BenchEnvironment) -> Iterator[TimeRow]:
    """Yield a TimeRow per method. Methods take turns on each prompt; all but the warm start share start vectors."""
    encoder, plan, notify = environment.encoder, environment.plan, environment.notify
    texts = environment.select_texts(SOFT_TOKENS, plan.count)
    if not texts:
        return
    goal = f"{ALONE_GOAL:g} alone"
    both_goals = f"{goal}, {COMPOSED_GOAL:g} composed"
    inversion = partial(
        train_to_goal, encoder, config=GOAL_CONFIG, at_least=ALONE_GOAL, steps=MAX_STEPS, seconds=plan.patience
    )
    methods: dict[str, tuple[str, Callable[[str], GoalResult]]] = {
        OURS: (goal, partial(_train_ours, encoder, config=GOAL_CONFIG)),
        WARM: (goal, partial(_train_ours, encoder, config=replace(GOAL_CONFIG, init="prompt"))),
        DEFAULT: (both_goals, partial(_train_to_both_goals, encoder, config=TrainConfig(tokens=SOFT_TOKENS))),
        TUNED: (goal, partial(inversion, rate=environment.tuned_rate)),
        INVERSION: (goal, partial(inversion, rate=DEFAULT_RATE)),
    }
    _train_ours(encoder, texts[0], GOAL_CONFIG)  # absorbs the one-time work of the first step
    results: dict[str, list[GoalResult]] = {method: [] for method in methods}
    batch_row: TimeRow | None = None
    interrupted: KeyboardInterrupt | None = None
    try:
        for i, text in enumerate(texts):
            if i == len(texts) // 2:  # halfway, so that a machine that gets busier slows all methods alike
                notify(f"time to {goal}: {len(texts)} prompts with {SEEDS} seeds each, in one batch")
                batch_row = _train_together(encoder, texts, GOAL_CONFIG, goal)
            notify(f"time to {goal}: each method alone, prompt {i + 1} of {len(texts)}")
            for method, (_, run_method) in methods.items():
                results[method].append(run_method(text))
    except KeyboardInterrupt as error:
        interrupted = error
    for method, method_results in results.items():
        if method_results:
            yield _summarize(method, methods[method][0], method_results)
    if batch_row:
        yield batch_row
    if interrupted:
        raise interrupted


def _summarize(method: str, goal: str, results: list[GoalResult]) -> TimeRow:
    seconds = [result.seconds for result in results]
    return TimeRow(
        method=method,
        goal=goal,
        tokens=SOFT_TOKENS,
        count=len(results),
        reached=sum(result.reached for result in results),
        seconds=median(seconds),
        steps=median(result.steps for result in results),
        prompts_per_second=len(results) / sum(seconds),
    )


def _train_ours(encoder: TextEncoder, text: str, config: TrainConfig) -> GoalResult:
    synchronize(encoder.device)
    started_at = time.perf_counter()
    training = train_one(
        encoder, partial(make_objective, encoder), tokenize_prompt(encoder, text), config, interval=lambda _: False
    )
    result = drive(training)
    return GoalResult(result.stopped == "stop_at", time.perf_counter() - started_at, result.steps)


def _train_to_both_goals(encoder: TextEncoder, text: str, config: TrainConfig) -> GoalResult:
    """Train with the shipped defaults until both goals are reached. Time spent on grading does not count."""
    synchronize(encoder.device)
    started_at = time.perf_counter()
    prompt = tokenize_prompt(encoder, text)
    training = train_one(encoder, partial(make_objective, encoder), prompt, config, interval=GRADE_STEPS)
    seconds = 0.0
    for report in training:
        seconds += time.perf_counter() - started_at
        if report.best_similarity >= ALONE_GOAL:
            similarity, composition = grade(encoder, prompt, report.vectors, GRADING_CONTEXTS)
            composed = 1.0 if composition is None else composition.mean
            if similarity >= ALONE_GOAL and composed >= COMPOSED_GOAL:
                return GoalResult(True, seconds, report.step)
        synchronize(encoder.device)
        started_at = time.perf_counter()
    return GoalResult(False, seconds, config.steps)


def _train_together(encoder: TextEncoder, texts: list[str], config: TrainConfig, goal: str) -> TimeRow:
    """Train all texts in one batch. The row's `seconds` is the average per task."""
    tasks = [TrainingTask(text, replace(config, seed=seed)) for seed in range(SEEDS) for text in texts]
    synchronize(encoder.device)
    started_at = time.perf_counter()
    steps, reached = [], 0
    for _, slot in train_scheduled(encoder, partial(make_objective, encoder), tasks):
        if isinstance(slot, SoftPromptError):
            raise slot
        steps.append(slot.step)
        reached += slot.stopped == "stop_at"
    seconds = time.perf_counter() - started_at
    return TimeRow(
        TOGETHER, goal, SOFT_TOKENS, len(tasks), reached, seconds / len(tasks), median(steps), len(tasks) / seconds
    )
