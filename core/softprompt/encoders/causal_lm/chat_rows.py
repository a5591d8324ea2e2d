"""Chat rows: the token ids of a question with a hard prompt, soft tokens or nothing in its place."""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.config import Placement
from softprompt.encoders.base import encode_prompt
from softprompt.encoders.causal_lm.chat_template import SEPARATOR
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.packed_rows import SOFT

Ids = list[int]


def hard_row(model: CausalLM, question: str, prompt: str, placement: Placement) -> Ids:
    """Return the ids of a question with a hard prompt in place. Raises PromptError, see `ChatTemplate.encode`."""
    template = model.chat_template
    if placement == "system":
        return template.encode(question, prompt).ids
    if placement == "user":
        return template.encode(prompt.strip() + SEPARATOR + question).ids
    before, after = template.encode_around(question, "start")
    return [*before, *encode_prompt(model.tokenizer, prompt), *after]


def bare_row(model: CausalLM, question: str) -> Ids:
    """Return the ids of a question alone, as the template renders it."""
    return model.chat_template.encode(question).ids


def soft_row(model: CausalLM, question: str, tokens: int, placement: Placement) -> Ids:
    """Return the ids of a question with SOFT in place of each soft token."""
    before, after = model.chat_template.encode_around(question, placement)
    return [*before, *[SOFT] * tokens, *after]


def token_row(model: CausalLM, question: str, ids: Sequence[int], placement: Placement) -> Ids:
    """Return the ids of a question with these token ids where the soft tokens would stand."""
    before, after = model.chat_template.encode_around(question, placement)
    return [*before, *ids, *after]


def common_start(rows: Sequence[Sequence[int]]) -> int:
    """Return how many ids all rows have in common at their start. Each row keeps at least its last id."""
    shortest = min(len(row) for row in rows) - 1
    return next((at for at in range(shortest) if any(row[at] != rows[0][at] for row in rows)), shortest)
