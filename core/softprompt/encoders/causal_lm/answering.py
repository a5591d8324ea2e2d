"""Many answers at once: sampled, or the most likely ones.

All answers of a batch grow as branches of one packed row. Its common beginning, such as a system turn, is computed and
cached once. There is no padding, and an answer that has ended costs nothing more.

Shapes: A answers, T tokens, w width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.packed_rows import PackedRow, additive_mask
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.errors import PromptError

BATCH_ANSWERS = 64  # on two cores, more are no faster


@dataclass(frozen=True)
class Answer:
    """An answer, and what the model expected at each of its tokens.

    Attributes:
        ids: the tokens, with the end token if the answer ended.
        top_ids, top_logs: (tokens, top) the most likely tokens at each position, most likely first, and the logarithms
            of their probabilities.
    """

    ids: tuple[int, ...]
    top_ids: Tensor
    top_logs: Tensor


@neutral_torch()
@torch.no_grad()
def answer(
    model: CausalLM,
    inputs: Sequence[tuple[Tensor, Tensor]],
    max_tokens: int,
    *,
    samples: int = 0,
    generator: torch.Generator | None = None,
    top: int = 1,
    on_token: Callable[[int], object] | None = None,
) -> list[Answer]:
    """Answer several inputs.

    Args:
        inputs: the start and the end of each input, embeddings (T, w). A start may be empty. It is computed once for
            all inputs of a batch that have the same tensor as their start.
        max_tokens: the largest number of tokens in an answer.
        samples: number of sampled answers to each input, at temperature 1; 0 for the one most likely answer.
        generator: the source of randomness, on the CPU.
        top: number of the most likely tokens to keep at each position.
        on_token: called after each token of a batch, with the number of complete answers.

    Raises:
        PromptError: an input leaves no room for an answer.
    """
    longest = max(len(start) + len(end) for start, end in inputs)
    if longest + max_tokens > model.window:
        raise PromptError(
            f"the prompt with its longest question has {longest:,} tokens, but {model.name} reads at most "
            f"{model.window - max_tokens:,} before an answer of {max_tokens}. Shorten the prompt or the questions."
        )
    answers: list[Answer] = []
    size = max(1, BATCH_ANSWERS // max(1, samples))
    for at in range(0, len(inputs), size):
        steps = []
        batch = inputs[at : at + size]
        for step in _steps(model, batch, max_tokens, max(1, samples), samples > 0, generator, top):
            steps.append(step)
            if on_token is not None:
                on_token(len(answers))
        answers += _collect(steps)
    return answers


class _Step(NamedTuple):
    """The next token of those answers that have not ended (A), and the most likely ones (A, top)."""

    answers: Tensor  # (A,) their numbers
    tokens: Tensor
    top_logs: Tensor
    top_ids: Tensor


def _collect(steps: Sequence[_Step]) -> list[Answer]:
    """Return the answers whose tokens are given step by step."""
    parts: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in range(len(steps[0].answers))]
    for step in steps:
        for index, (number, token) in enumerate(zip(step.answers.tolist(), step.tokens.tolist(), strict=True)):
            parts[number].append((token, step.top_ids[index], step.top_logs[index]))
    return [
        Answer(tuple(ids), torch.stack(tops), torch.stack(logs))
        for ids, tops, logs in (zip(*part, strict=True) for part in parts)
    ]


def _steps(
    model: CausalLM,
    inputs: Sequence[tuple[Tensor, Tensor]],
    max_tokens: int,
    repeats: int,
    is_sampled: bool,
    generator: torch.Generator | None,
    top: int,
) -> Iterator[_Step]:
    """Yield the next token of every answer that has not ended, until all have."""
    from transformers import DynamicCache

    row, roots, ends = PackedRow(), dict[int, int](), list[int]()
    embeddings = list[Tensor]()
    for start, end in inputs:
        if id(start) not in roots:
            roots[id(start)] = row.add([0] * len(start))
            embeddings.append(start)
        ends.append(row.ends[row.add([0] * len(end), roots[id(start)])])
        embeddings.append(end)
    visible = row.visible()
    cache = DynamicCache()  # without a configuration, which would make layers forget what leaves their window
    states = model.states(
        torch.cat(embeddings).unsqueeze(0),
        additive_mask(visible[None, None], model),
        torch.tensor(row.depths, device=model.device).unsqueeze(0),
        cache,
    )
    answers = torch.arange(len(inputs) * repeats)  # those that have not ended
    last = states[0, ends].repeat_interleave(repeats, 0)
    visible = visible[ends].repeat_interleave(repeats, 0)  # what each answer sees: its input and its own tokens
    positions = torch.tensor([row.depths[end] for end in ends]).repeat_interleave(repeats)
    stops = torch.tensor(model.specials.end)
    for step in range(max_tokens):
        logs = model.head(last).log_softmax(-1).cpu()
        tokens = _sample(logs, generator) if is_sampled else logs.argmax(-1)
        yield _Step(answers, tokens, *logs.topk(min(top, logs.shape[-1]), dim=-1))
        goes_on = ~torch.isin(tokens, stops)
        if step == max_tokens - 1 or not goes_on.any():
            return
        answers, tokens, visible = answers[goes_on], tokens[goes_on], visible[goes_on]
        positions = positions[goes_on] + 1
        visible = torch.cat([visible, torch.eye(len(tokens), dtype=torch.bool)], 1)
        last = model.states(
            model.embed(tokens.to(model.device)).unsqueeze(0),
            additive_mask(visible[None, None], model),
            positions.to(model.device).unsqueeze(0),
            cache,
        )[0]


def _sample(logs: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return a token (A,) for each row of log-probabilities (A, v), by the same random numbers on every device."""
    total = logs.double().exp().cumsum(-1)
    drawn = torch.rand(len(logs), 1, generator=generator, dtype=torch.float64) * total[:, -1:]
    return torch.searchsorted(total, drawn).squeeze(-1).clamp(max=logs.shape[-1] - 1)
