"""How long a training takes to a similarity: the peers and ours one prompt at a time, and ours all together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from statistics import median

from softprompt.bench.environment import ALONE_GOAL, COMPOSED_GOAL, TOKENS, TOWARDS, Setting
from softprompt.bench.machine import synchronise
from softprompt.bench.results import DEFAULT, INVERSION, OURS, TOGETHER, TUNED, WARM, TimeRow
from softprompt.bench.textual_inversion import DEFAULT_RATE, Reached, reach
from softprompt.config import MAX_STEPS, TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import SoftPromptError
from softprompt.evaluation.fidelity import grade
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.prompts.contexts import GRADING_CONTEXTS
from softprompt.system.generators import drive
from softprompt.training.loop import train_one
from softprompt.training.scheduler import train_scheduled
from softprompt.training.task import TrainingTask
from softprompt.training.trainer import objective_for

SEEDS = 4  # of each prompt, where they are trained together: more than a batch holds, so that places are filled again
GRADE_EVERY = 5  # steps


def time_rows(setting: Setting) -> Iterator[TimeRow]:
    """TimeRows of every method, all from the same start but for the warm one. On each prompt the methods take turns."""
    encoder, plan, say = setting.encoder, setting.plan, setting.say
    texts = setting.texts(TOKENS, plan.count)
    if not texts:
        return
    goal = f"{ALONE_GOAL:g} alone"
    both = f"{goal}, {COMPOSED_GOAL:g} composed"
    inversion = partial(reach, encoder, config=TOWARDS, at_least=ALONE_GOAL, steps=MAX_STEPS, seconds=plan.patience)
    methods: dict[str, tuple[str, Callable[[str], Reached]]] = {
        OURS: (goal, partial(_our_reach, encoder, config=TOWARDS)),
        WARM: (goal, partial(_our_reach, encoder, config=replace(TOWARDS, init="prompt"))),
        DEFAULT: (both, partial(_composed_reach, encoder, config=TrainConfig(tokens=TOKENS))),
        TUNED: (goal, partial(inversion, rate=setting.tuned_rate)),
        INVERSION: (goal, partial(inversion, rate=DEFAULT_RATE)),
    }
    _our_reach(encoder, texts[0], TOWARDS)  # what is made at the first step ever
    found: dict[str, list[Reached]] = {method: [] for method in methods}
    together: TimeRow | None = None
    interrupted: KeyboardInterrupt | None = None
    try:
        for i, text in enumerate(texts):
            if (
                i == len(texts) // 2
            ):  # in the middle, so that a machine that gets busier slows it no more than the others
                say(f"time to {goal}: {len(texts)} prompts with {SEEDS} seeds each, together")
                together = _together(encoder, texts, TOWARDS, goal)
            say(f"time to {goal}: each method one at a time, prompt {i + 1} of {len(texts)}")
            for method, (_, run) in methods.items():
                found[method].append(run(text))
    except KeyboardInterrupt as error:
        interrupted = error
    for method, each in found.items():
        if each:
            yield _row(method, methods[method][0], each)
    if together:
        yield together
    if interrupted:
        raise interrupted


def _row(method: str, goal: str, each: list[Reached]) -> TimeRow:
    seconds = [one.seconds for one in each]
    return TimeRow(
        method=method,
        goal=goal,
        tokens=TOKENS,
        count=len(each),
        reached=sum(one.reached for one in each),
        seconds=median(seconds),
        steps=median(one.steps for one in each),
        prompts_per_second=len(each) / sum(seconds),
    )


def _our_reach(encoder: TextEncoder, text: str, config: TrainConfig) -> Reached:
    synchronise(encoder.device)
    began = time.perf_counter()
    training = train_one(
        encoder, partial(objective_for, encoder), tokenize_prompt(encoder, text), config, interval=lambda _: False
    )
    trained = drive(training)
    return Reached(trained.stopped == "stop_at", time.perf_counter() - began, trained.steps)


def _composed_reach(encoder: TextEncoder, text: str, config: TrainConfig) -> Reached:
    """As shipped: until both goals are reached, the second in the grading contexts. The clock stands still while that is looked at."""
    synchronise(encoder.device)
    began = time.perf_counter()
    prompt = tokenize_prompt(encoder, text)
    training = train_one(encoder, partial(objective_for, encoder), prompt, config, interval=GRADE_EVERY)
    seconds = 0.0
    for report in training:
        seconds += time.perf_counter() - began
        if report.best_similarity >= ALONE_GOAL:
            similarity, composition = grade(encoder, prompt, report.vectors, GRADING_CONTEXTS)
            composed = 1.0 if composition is None else composition.mean
            if similarity >= ALONE_GOAL and composed >= COMPOSED_GOAL:
                return Reached(True, seconds, report.step)
        synchronise(encoder.device)
        began = time.perf_counter()
    return Reached(False, seconds, config.steps)


def _together(encoder: TextEncoder, texts: list[str], config: TrainConfig, goal: str) -> TimeRow:
    """`seconds` is what a prompt costs on the average: the time of all over their number."""
    tasks = [TrainingTask(text, replace(config, seed=seed)) for seed in range(SEEDS) for text in texts]
    synchronise(encoder.device)
    began = time.perf_counter()
    steps, reached = [], 0
    for _, member in train_scheduled(encoder, partial(objective_for, encoder), tasks):
        if isinstance(member, SoftPromptError):
            raise member
        steps.append(member.step)
        reached += member.stopped == "stop_at"
    seconds = time.perf_counter() - began
    return TimeRow(
        TOGETHER, goal, TOKENS, len(tasks), reached, seconds / len(tasks), median(steps), len(tasks) / seconds
    )
