"""Many answers at once: sampled, or the most likely ones.

All rows share a beginning, such as a system turn, which is computed once. The rows of a batch have different lengths:
padding on the right is hidden by the mask, and every row keeps its own positions.

Shapes: B rows, T tokens, w width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.packed_rows import additive_mask
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.errors import PromptError

BATCH_ROWS = 64  # on two cores, more rows are no faster


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
    shared: Tensor,
    endings: Sequence[Tensor],
    max_tokens: int,
    *,
    samples: int = 0,
    generator: torch.Generator | None = None,
    top: int = 1,
    on_token: Callable[[int], object] | None = None,
) -> list[Answer]:
    """Answer several inputs, each of which is `shared` followed by one of the endings.

    Args:
        shared: (T, w), the embeddings at the start of all inputs; it may be empty.
        endings: (T, w) each, not empty.
        max_tokens: the largest number of tokens in an answer.
        samples: number of sampled answers to each input, at temperature 1; 0 for the one most likely answer.
        generator: the source of randomness, on the CPU.
        top: number of the most likely tokens to keep at each position.
        on_token: called after each token of a batch, with the number of complete answers.

    Raises:
        PromptError: an input leaves no room for an answer.
    """
    longest = len(shared) + max(map(len, endings))
    if longest + max_tokens > model.window:
        raise PromptError(
            f"the prompt with its longest question has {longest:,} tokens, but {model.name} reads at most "
            f"{model.window - max_tokens:,} before an answer of {max_tokens}. Shorten the prompt or the questions."
        )
    answers: list[Answer] = []
    size = max(1, BATCH_ROWS // max(1, samples))
    for start in range(0, len(endings), size):
        batch = endings[start : start + size]
        steps = []
        for step in _steps(model, shared, batch, max_tokens, max(1, samples), samples > 0, generator, top):
            steps.append(step)
            if on_token is not None:
                on_token(len(answers))
        answers += _collect(model, steps)
    return answers


def _collect(model: CausalLM, steps: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[Answer]:
    """Return the answers whose tokens are given step by step, each cut after its end token."""
    ids, logs, tops = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
    answers = []
    for row, tokens in enumerate(ids.tolist()):
        end = next((i + 1 for i, token in enumerate(tokens) if token in model.specials.end), len(tokens))
        answers.append(Answer(tuple(tokens[:end]), tops[row, :end].clone(), logs[row, :end].clone()))
    return answers


def _steps(
    model: CausalLM,
    shared: Tensor,
    endings: Sequence[Tensor],
    max_tokens: int,
    repeats: int,
    is_sampled: bool,
    generator: torch.Generator | None,
    top: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the next tokens (B,) of all answers, and the most likely ones: log-probabilities and ids (B, top)."""
    from transformers import DynamicCache

    cache = DynamicCache()  # without a configuration, which would make layers forget what leaves their window
    lengths = torch.tensor([len(ending) for ending in endings])
    size = int(lengths.max())
    padded = torch.stack([torch.nn.functional.pad(ending, (0, 0, 0, size - len(ending))) for ending in endings])
    begin = len(shared)
    if begin:
        causal = torch.ones(begin, begin, dtype=torch.bool).tril()
        model.states(shared[None], additive_mask(causal[None, None], model), torch.arange(begin)[None], cache)
        _repeat(cache, len(endings))
    seen = torch.ones(len(endings), 1, size, begin + size, dtype=torch.bool).tril(begin)
    is_token = torch.arange(size) < lengths[:, None]
    seen[..., begin:] &= is_token[:, None, None]
    seen[..., begin:] |= torch.eye(size, dtype=torch.bool)  # padding sees itself
    positions = (begin + torch.arange(size)).expand(len(endings), -1)
    states = model.states(padded, additive_mask(seen, model), positions.to(model.device), cache)
    last = states[torch.arange(len(endings)), lengths.to(states.device) - 1]
    _repeat(cache, repeats)
    last, lengths = (values.repeat_interleave(repeats, 0) for values in (last, lengths))
    visible = torch.cat([torch.ones(len(endings), begin, dtype=torch.bool), is_token], 1).repeat_interleave(repeats, 0)
    is_done = torch.zeros(len(lengths), dtype=torch.bool)
    end = torch.tensor(model.specials.end)
    for step in range(max_tokens):
        logs = model.head(last).log_softmax(-1).cpu()
        token = _sample(logs, generator) if is_sampled else logs.argmax(-1)
        yield token, *logs.topk(min(top, logs.shape[-1]), dim=-1)
        is_done |= torch.isin(token, end)
        if step == max_tokens - 1 or bool(is_done.all()):
            return
        visible = torch.cat([visible, torch.ones(len(visible), 1, dtype=torch.bool)], 1)
        positions = (begin + lengths + step)[:, None].to(model.device)
        embeddings = model.embed(token[:, None].to(model.device))
        last = model.states(embeddings, additive_mask(visible[:, None, None], model), positions, cache)[:, 0]


def _sample(logs: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return a token (B,) for each row of log-probabilities (B, v), by the same random numbers on every device."""
    total = logs.double().exp().cumsum(-1)
    drawn = torch.rand(len(logs), 1, generator=generator, dtype=torch.float64) * total[:, -1:]
    return torch.searchsorted(total, drawn).squeeze(-1).clamp(max=logs.shape[-1] - 1)


def _repeat(cache: Any, times: int) -> None:
    if times > 1:
        cache.batch_repeat_interleave(times)
