"""The hard prompt tokenised for one model: cut, in chunks, or several texts with their shares."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from softprompt.config import Long
from softprompt.encoders.base import encode_prompt
from softprompt.encoders.clip.rows import contexts_with_room
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import check_text, no_prompt, too_long
from softprompt.objectives.base import HardPrompt
from softprompt.prompts.lineage import WeightedText


def tokenize_prompt(encoder: TextEncoder, text: str, long: Long = "refuse") -> HardPrompt:
    """The prompt's tokens; one longer than the context is refused, chunked or cut. Raises PromptError, PromptTooLong."""
    ids = encode_prompt(encoder.tokenizer, check_text("prompt", text))
    if not ids:
        raise no_prompt()
    if len(ids) <= encoder.max_prompt_tokens:
        return HardPrompt(text, (tuple(ids),))
    beyond = encoder.tokenizer.decode(ids[encoder.max_prompt_tokens :]).strip()
    match long:
        case "cut":
            return HardPrompt(text, (tuple(ids[: encoder.max_prompt_tokens]),), beyond)
        case "chunk":
            return HardPrompt(text, _chunks(ids, encoder.max_prompt_tokens))
        case "refuse":
            raise too_long(len(ids), encoder.name, encoder.max_prompt_tokens, beyond)


def tokenize_weighted(
    encoder: TextEncoder, text: str, meanings: Sequence[WeightedText], long: Long = "refuse"
) -> HardPrompt:
    """What `meanings` mean together, by their shares; `text` says it to people. Raises what `hard_prompt` raises."""
    variants = tuple((one.share, tokenize_prompt(encoder, one.text, long)) for one in meanings)
    pieces = tuple(piece for _, one in variants for piece in one.pieces)
    return HardPrompt(text, pieces, " … ".join(one.dropped for _, one in variants if one.dropped), variants)


def tokenize_target(
    encoder: TextEncoder, text: str, meanings: Sequence[WeightedText], long: Long = "refuse"
) -> HardPrompt:
    """What a training is on: `meanings` together, or `text` itself where there are none. Raises what `hard_prompt` raises."""
    return tokenize_weighted(encoder, text, meanings, long) if meanings else tokenize_prompt(encoder, text, long)


def _chunks(ids: Sequence[int], room: int) -> tuple[tuple[int, ...], ...]:
    """As few pieces as fit with room for a context around each, of nearly equal length."""
    count = -(-len(ids) // max(1, room * 4 // 5))
    ends = [round(len(ids) * i / count) for i in range(count + 1)]
    return tuple(tuple(ids[a:b]) for a, b in pairwise(ends))


def contexts_that_fit(encoder: TextEncoder, prompt: HardPrompt, contexts: Sequence[str], tokens: int) -> list[str]:
    """Those contexts in which both the hard prompt and `tokens` soft tokens fit."""
    return contexts_with_room(encoder, contexts, max(tokens, *map(len, prompt.pieces)))
