"""What a soft prompt is trained towards: the pooled embeddings of the hard prompt, alone and inside contexts.

Several hard prompts with shares mean together the weighted mean of their unit embeddings, in every context: a mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import Long
from softprompt.encoders.base import Row, encode_prompt
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import check_text, no_prompt, too_long
from softprompt.prompts.contexts import SLOT, split_context
from softprompt.prompts.lineage import Meaning

ALONE = SLOT  # the context with nothing around


@dataclass(frozen=True)
class HardPrompt:
    """A hard prompt made ready for one model: the user's text, and its tokens in as many pieces as the context asks for.

    `dropped` is the end of the text where it was cut, or empty. One that means several texts together has them, with their shares, as
    `variants`: its own text is for people to read, and its pieces are all of theirs.
    """

    text: str
    pieces: tuple[tuple[int, ...], ...]
    dropped: str = ""
    variants: tuple[tuple[float, HardPrompt], ...] = ()

    @property
    def tokens(self) -> int:
        """Of the longest of its variants, where it has any."""
        return max((one.tokens for _, one in self.variants), default=sum(map(len, self.pieces)))

    @property
    def meanings(self) -> tuple[Meaning, ...]:
        return tuple(Meaning(one.text, share) for share, one in self.variants)


def hard_prompt(encoder: TextEncoder, text: str, long: Long = "refuse") -> HardPrompt:
    """The prompt's tokens; one longer than the context is refused, chunked or cut. Raises PromptError, PromptTooLong."""
    ids = encode_prompt(encoder.tokenizer, check_text("prompt", text))
    if not ids:
        raise no_prompt()
    if len(ids) <= encoder.room:
        return HardPrompt(text, (tuple(ids),))
    beyond = encoder.tokenizer.decode(ids[encoder.room :]).strip()
    match long:
        case "cut":
            return HardPrompt(text, (tuple(ids[: encoder.room]),), beyond)
        case "chunk":
            return HardPrompt(text, _chunks(ids, encoder.room))
        case "refuse":
            raise too_long(len(ids), encoder.name, encoder.room, beyond)


def weighted_prompt(encoder: TextEncoder, text: str, meanings: Sequence[Meaning], long: Long = "refuse") -> HardPrompt:
    """What `meanings` mean together, by their shares; `text` says it to people. Raises what `hard_prompt` raises."""
    variants = tuple((one.share, hard_prompt(encoder, one.text, long)) for one in meanings)
    pieces = tuple(piece for _, one in variants for piece in one.pieces)
    return HardPrompt(text, pieces, " … ".join(one.dropped for _, one in variants if one.dropped), variants)


def meant_prompt(encoder: TextEncoder, text: str, meanings: Sequence[Meaning], long: Long = "refuse") -> HardPrompt:
    """What a training is on: `meanings` together, or `text` itself where there are none. Raises what `hard_prompt` raises."""
    return weighted_prompt(encoder, text, meanings, long) if meanings else hard_prompt(encoder, text, long)


def _chunks(ids: Sequence[int], room: int) -> tuple[tuple[int, ...], ...]:
    """As few pieces as fit with room for a context around each, of nearly equal length."""
    count = -(-len(ids) // max(1, room * 4 // 5))
    ends = [round(len(ids) * i / count) for i in range(count + 1)]
    return tuple(tuple(ids[a:b]) for a, b in pairwise(ends))


def rows_in(encoder: TextEncoder, context: str, inside: Sequence[Row]) -> list[list[int]]:
    """The context's tokens around each of these rows; the context "{}" is nothing around."""
    before, after = (encode_prompt(encoder.tokenizer, words) if words else [] for words in split_context(context))
    return [[*before, *row, *after] for row in inside]


def soft_rows(encoder: TextEncoder, contexts: Sequence[str], tokens: int) -> list[list[int]]:
    """One row a context, with soft tokens 0 to `tokens` - 1 inside."""
    slots = [-1 - i for i in range(tokens)]
    return [row for context in contexts for row in rows_in(encoder, context, [slots])]


def with_room(encoder: TextEncoder, contexts: Sequence[str], tokens: int) -> list[str]:
    """Those contexts in which so many tokens fit."""
    return [context for context in contexts if len(rows_in(encoder, context, [[0] * tokens])[0]) <= encoder.room]


def fitting(encoder: TextEncoder, prompt: HardPrompt, contexts: Sequence[str], tokens: int) -> list[str]:
    """Those contexts in which both the hard prompt and `tokens` soft tokens fit."""
    return with_room(encoder, contexts, max(tokens, *map(len, prompt.pieces)))


def targets_in(encoder: TextEncoder, prompt: HardPrompt, contexts: Sequence[str]) -> Tensor:
    """(b, e) what the encoder makes of the hard prompt in each context, not of unit length; for one in pieces, their mean.

    Of variants it is the weighted mean of their directions, as long as they are on the average.
    """
    return targets_of(encoder, [(prompt, contexts)])[0]


def targets_of(encoder: TextEncoder, wanted: Sequence[tuple[HardPrompt, Sequence[str]]]) -> list[Tensor]:
    """As `targets_in`, of several hard prompts and each one's contexts in one pass: for short prompts that is many times quicker."""
    rows = [row for prompt, contexts in wanted for context in contexts for row in rows_in(encoder, context, prompt.pieces)]
    outputs = encoder.encode_rows(rows, unit=False)
    found, at = [], 0
    for prompt, contexts in wanted:
        end = at + len(contexts) * len(prompt.pieces)
        each = outputs[at:end].view(len(contexts), len(prompt.pieces), encoder.config.embed_dim)
        found.append(_weighted(each, prompt) if prompt.variants else each.mean(1))
        at = end
    return found


def _weighted(each: Tensor, prompt: HardPrompt) -> Tensor:
    """(b, e) of the outputs (b, pieces of all variants, e)."""
    parts = each.split_with_sizes([len(one.pieces) for _, one in prompt.variants], dim=1)
    means = [(share, part.mean(1)) for (share, _), part in zip(prompt.variants, parts, strict=True)]
    mean = torch.stack([share * F.normalize(output, dim=-1) for share, output in means]).sum(0)
    length = torch.stack([share * output.norm(dim=-1, keepdim=True) for share, output in means]).sum(0)
    return F.normalize(mean, dim=-1) * length
