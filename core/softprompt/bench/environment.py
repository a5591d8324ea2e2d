"""Shared state of a benchmark: the encoder, the plan, progress messages, and the peer's tuned rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from softprompt.bench.plan import Plan
from softprompt.bench.prompts import min_prompt_tokens, select_prompts
from softprompt.bench.textual_inversion import tune_rate
from softprompt.config import TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder

SOFT_TOKENS = 8  # used for the step ratio and the time to a similarity
ALONE_GOAL, COMPOSED_GOAL = 0.99, 0.98
GOAL_CONFIG = TrainConfig(tokens=SOFT_TOKENS, contexts=(), stop_at=ALONE_GOAL)


@dataclass(frozen=True)
class BenchEnvironment:
    """The encoder and the plan of a benchmark. `notify` is called with a message before each measurement."""

    encoder: TextEncoder
    plan: Plan
    notify: Callable[[str], None] = lambda _: None

    def select_texts(self, tokens: int, count: int) -> list[str]:
        """Return prompts long enough to measure `tokens` soft tokens. Calls `notify` if there are none."""
        texts = select_prompts(self.encoder, list(self.plan.texts), tokens, count)
        if not texts:
            self.notify(
                f"skipping k {tokens}: no prompt has {min_prompt_tokens(tokens)} to "
                f"{self.encoder.max_prompt_tokens} tokens"
            )
        return texts

    @cached_property
    def tuned_rate(self) -> float:
        self.notify(f"textual inversion: tuning the rate on {len(self.plan.others)} separate prompts")
        return tune_rate(self.encoder, list(self.plan.others), GOAL_CONFIG, ALONE_GOAL)
