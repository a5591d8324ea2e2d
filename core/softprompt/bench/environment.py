"""What all parts of a run share: the encoder, the plan, who is told, and the peer's tuned rate, which is chosen once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from softprompt.bench.plan import Plan
from softprompt.bench.prompts import least_tokens, suited
from softprompt.bench.textual_inversion import tuned_rate
from softprompt.config import TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder

TOKENS = 8  # of the step ratio and of the time to a similarity
ALONE_GOAL, COMPOSED_GOAL = 0.99, 0.98
TOWARDS = TrainConfig(tokens=TOKENS, contexts=(), stop_at=ALONE_GOAL)


@dataclass(frozen=True)
class Setting:
    """`say` is told in words what is measured next."""

    encoder: TextEncoder
    plan: Plan
    say: Callable[[str], None] = lambda _: None

    def texts(self, tokens: int, count: int) -> list[str]:
        """Prompts that `tokens` soft tokens can be measured with; where there are none, that is said."""
        found = suited(self.encoder, list(self.plan.texts), tokens, count)
        if not found:
            self.say(
                f"k {tokens} is left out: no prompt has {least_tokens(tokens)} to {self.encoder.max_prompt_tokens} tokens"
            )
        return found

    @cached_property
    def tuned_rate(self) -> float:
        self.say(f"textual inversion: choosing a rate on {len(self.plan.others)} other prompts")
        return tuned_rate(self.encoder, list(self.plan.others), TOWARDS, ALONE_GOAL)
