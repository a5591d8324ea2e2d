"""Run all parts of a benchmark plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from softprompt.bench.environment import BenchEnvironment
from softprompt.bench.hard import measure_hard
from softprompt.bench.plan import Plan
from softprompt.bench.prompts import min_prompt_tokens
from softprompt.bench.results import Row
from softprompt.bench.soft import measure_soft
from softprompt.bench.speed import measure_speed
from softprompt.bench.time_to_target import measure_time
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import PromptError

MEASUREMENTS: dict[str, Callable[[BenchEnvironment], Iterator[Row]]] = {
    "speed": measure_speed,
    "time": measure_time,
    "soft": measure_soft,
    "hard": measure_hard,
}


def measure(encoder: TextEncoder, plan: Plan, notify: Callable[[str], None] = lambda _: None) -> Iterator[Row]:
    """Run the plan and yield each row as soon as it is measured.

    Args:
        notify: called with a message before each measurement.

    Raises:
        PromptError: no prompt has a suitable length for any measurement.
    """
    environment, has_rows = BenchEnvironment(encoder, plan, notify), False
    for part, measure_part in MEASUREMENTS.items():
        if part in plan.parts:
            for row in measure_part(environment):
                has_rows = True
                yield row
    if not has_rows:
        raise PromptError(
            f"nothing could be measured: no prompt has a suitable length. Use prompts of {min_prompt_tokens(1)} to "
            f"{encoder.max_prompt_tokens} tokens, preferably 16 or more."
        )
