"""One run: all parts of a plan, a row at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from softprompt.bench.environment import Setting
from softprompt.bench.hard import hard_rows
from softprompt.bench.plan import Plan
from softprompt.bench.prompts import least_tokens
from softprompt.bench.results import Row
from softprompt.bench.soft import soft_rows
from softprompt.bench.speed import speed_rows
from softprompt.bench.time_to_target import time_rows
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import PromptError

MEASURING: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "speed": speed_rows,
    "time": time_rows,
    "soft": soft_rows,
    "hard": hard_rows,
}


def measure(encoder: TextEncoder, plan: Plan, say: Callable[[str], None] = lambda _: None) -> Iterator[Row]:
    """Measures what the plan asks for and yields each row as soon as it is known; `say` is told what comes next.

    Raises PromptError where no prompt is long enough for anything.
    """
    setting, some = Setting(encoder, plan, say), False
    for part, rows in MEASURING.items():
        if part in plan.parts:
            for row in rows(setting):
                some = True
                yield row
    if not some:
        raise PromptError(
            f"nothing could be measured: give prompts of {least_tokens(1)} to {encoder.max_prompt_tokens} tokens, better of 16 and more"
        )
