"""Tokenize hard prompts, including mixes and prompts that must be cut or split into chunks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from softprompt.config import LongPromptPolicy
from softprompt.encoders.base import encode_prompt
from softprompt.encoders.clip.rows import contexts_with_room
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import check_text, empty_prompt, prompt_too_long
from softprompt.objectives.base import HardPrompt
from softprompt.prompts.lineage import WeightedText


def tokenize_prompt(encoder: TextEncoder, text: str, long: LongPromptPolicy = "refuse") -> HardPrompt:
    """Tokenize a prompt.

    Args:
        long: what to do if the prompt does not fit into the context length. "refuse": raise PromptTooLong. "chunk":
            split it; the target is the mean of the chunks. "cut": drop the end.

    Raises:
        PromptError: the prompt is empty or contains a special token.
        PromptTooLong: the prompt does not fit, and `long` is "refuse".
    """
    ids = encode_prompt(encoder.tokenizer, check_text("prompt", text))
    if not ids:
        raise empty_prompt()
    if len(ids) <= encoder.max_prompt_tokens:
        return HardPrompt(text, (tuple(ids),))
    dropped = encoder.tokenizer.decode(ids[encoder.max_prompt_tokens :]).strip()
    match long:
        case "cut":
            return HardPrompt(text, (tuple(ids[: encoder.max_prompt_tokens]),), dropped)
        case "chunk":
            return HardPrompt(text, _split_evenly(ids, encoder.max_prompt_tokens))
        case "refuse":
            raise prompt_too_long(len(ids), encoder.name, encoder.max_prompt_tokens, dropped)


def tokenize_weighted(
    encoder: TextEncoder, text: str, meanings: Sequence[WeightedText], long: LongPromptPolicy = "refuse"
) -> HardPrompt:
    """Tokenize the mix of `meanings`, which `text` describes. Raises the same errors as `tokenize_prompt`."""
    variants = tuple((meaning.share, tokenize_prompt(encoder, meaning.text, long)) for meaning in meanings)
    chunks = tuple(chunk for _, variant in variants for chunk in variant.chunks)
    return HardPrompt(text, chunks, " … ".join(variant.dropped for _, variant in variants if variant.dropped), variants)


def tokenize_target(
    encoder: TextEncoder, text: str, meanings: Sequence[WeightedText], long: LongPromptPolicy = "refuse"
) -> HardPrompt:
    """Tokenize the mix of `meanings`, or `text` if there are none. Raises the same errors as `tokenize_prompt`."""
    return tokenize_weighted(encoder, text, meanings, long) if meanings else tokenize_prompt(encoder, text, long)


def _split_evenly(ids: Sequence[int], room: int) -> tuple[tuple[int, ...], ...]:
    """Split token ids into the fewest chunks of nearly equal length that fill at most about 4/5 of `room`.

    The rest of `room` is for a context around each chunk.
    """
    count = -(-len(ids) // max(1, room * 4 // 5))
    ends = [round(len(ids) * i / count) for i in range(count + 1)]
    return tuple(tuple(ids[a:b]) for a, b in pairwise(ends))


def contexts_that_fit(encoder: TextEncoder, prompt: HardPrompt, contexts: Sequence[str], tokens: int) -> list[str]:
    """Return the contexts with room for the hard prompt and for `tokens` soft tokens."""
    return contexts_with_room(encoder, contexts, max(tokens, *map(len, prompt.chunks)))
