"""The token ids of a question with a hard prompt, with soft tokens, or alone.

In the placements "system" and "user", the question is a turn of the chat template. In the placement "start", there is
no template: the prompt begins the text, and the question follows on the next line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softprompt.config import Placement
from softprompt.encoders.base import encode_prompt
from softprompt.encoders.causal_lm.chat_template import SEPARATOR

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM

Ids = list[int]
SOFT = -1  # stands for the next soft token among token ids
LINE_BREAK = "\n"  # between the prompt and the question, without a template


def template_digest(model: CausalLM, placement: Placement) -> str:
    """Return the digest of the chat template that a placement uses, or "" if it uses none."""
    return "" if placement == "start" else model.chat_template.digest


def encode_around(model: CausalLM, question: str, placement: Placement) -> tuple[Ids, Ids]:
    """Return the token ids in front of the soft tokens and behind them.

    The sides are tokenized separately, because no token can reach across soft tokens.

    Raises:
        PromptError: the question contains a special token, or cannot be encoded.
        ModelRefused: the placement needs a chat template, and the model has none that can be used.
    """
    if placement == "start":
        return [*model.tokenizer.start], [*model.tokenizer.encode(LINE_BREAK), *_encode_stripped(model, question)]
    return model.chat_template.encode_around(question, placement)


def hard_row(model: CausalLM, question: str, prompt: str, placement: Placement) -> Ids:
    """Return the ids of a question with a hard prompt in place. Raises the errors of `encode_around`."""
    if placement == "start":
        before, after = encode_around(model, question, placement)
        return [*before, *_encode_stripped(model, prompt), *after]
    if placement == "system":
        return model.chat_template.encode(question, prompt).ids
    return model.chat_template.encode(prompt.strip() + SEPARATOR + question).ids


def bare_row(model: CausalLM, question: str, placement: Placement) -> Ids:
    """Return the ids of a question alone."""
    if placement == "start":
        return [*model.tokenizer.start, *_encode_stripped(model, question)]
    return model.chat_template.encode(question).ids


def soft_row(model: CausalLM, question: str, tokens: int, placement: Placement) -> Ids:
    """Return the ids of a question with SOFT in place of each soft token."""
    return token_row(model, question, [SOFT] * tokens, placement)


def token_row(model: CausalLM, question: str, ids: Sequence[int], placement: Placement) -> Ids:
    """Return the ids of a question with these token ids where the soft tokens would stand."""
    before, after = encode_around(model, question, placement)
    return [*before, *ids, *after]


def encode_output(model: CausalLM, output: str, placement: Placement) -> Ids:
    """Return the ids of an output, as the model's answer to an input. Without a template, a space is in between.

    Raises PromptError if it contains a special token.
    """
    return encode_prompt(model.tokenizer, f" {output.strip()}" if placement == "start" else output)


def common_start(rows: Sequence[Sequence[int]]) -> int:
    """Return how many ids all rows have in common at their start. Each row keeps at least its last id."""
    shortest = min(len(row) for row in rows) - 1
    return next((at for at in range(shortest) if any(row[at] != rows[0][at] for row in rows)), shortest)


def _encode_stripped(model: CausalLM, text: str) -> Ids:
    return encode_prompt(model.tokenizer, text.strip())
