"""Measure soft tokens, and find the words nearest to them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from softprompt.api.hard import as_hard_prompt
from softprompt.api.values import as_soft_prompt
from softprompt.arguments import checked
from softprompt.composition.composer import check_vectors
from softprompt.config import MAX_CONTEXTS, LongPromptPolicy, TrainConfig, check_item_count
from softprompt.encoders.base import check_token_count
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ArgumentError, ConfigError
from softprompt.evaluation import fidelity, readout
from softprompt.library.entry import Entry
from softprompt.objectives.base import HardPrompt
from softprompt.prompts.contexts import GRADING_CONTEXTS
from softprompt.prompts.results import ContextFidelity, ReadoutToken
from softprompt.prompts.soft_prompt import Array, SoftPrompt


@checked
def grade(
    encoder: TextEncoder,
    prompt: SoftPrompt | Entry | str | HardPrompt,
    vectors: SoftPrompt | Entry | Array | Tensor | None = None,
    contexts: str | Sequence[str] = GRADING_CONTEXTS,
    *,
    long: LongPromptPolicy = TrainConfig.long,
) -> tuple[float, ContextFidelity | None]:
    """Measure how well soft tokens stand for a prompt, alone and in contexts.

    Args:
        prompt: a text, or a soft prompt, which stands for its hard prompt.
        vectors: (tokens, width), or a soft prompt; by default those of `prompt`.
        contexts: sentences with `{}`; by default those that no training run uses.
        long: what to do with a text that is longer than the context length: "refuse", "chunk" or "cut".

    Returns:
        The similarity alone, and the fidelity in the contexts that have room, or None if there are no such contexts.

    Raises:
        PromptError: the prompt, the vectors or a context cannot be used.
        ConfigError: the vectors belong to another model.

    Example:
        similarity, composition = grade(encoder, soft_prompt)
    """
    if vectors is None and not isinstance(prompt, SoftPrompt | Entry):
        raise ArgumentError("grade needs the argument 'vectors' unless prompt is a SoftPrompt")
    check_item_count("contexts", [contexts] if isinstance(contexts, str) else contexts, MAX_CONTEXTS)
    measured = vectors if vectors is not None else prompt
    array = as_vectors(encoder, measured)  # type: ignore[arg-type]
    return fidelity.grade(encoder, as_hard_prompt(encoder, prompt, long), array, contexts)


@checked
def read_out(
    encoder: TextEncoder | CausalLM, vectors: SoftPrompt | Entry | Array | Tensor, alternatives: int = 4
) -> tuple[tuple[ReadoutToken, ...], str]:
    """Return the readout, one token per soft token, and its text as a user would type it.

    Args:
        vectors: (tokens, width), or a soft prompt.
        alternatives: number of further tokens for each soft token.

    Raises:
        ConfigError: the vectors belong to another model, or `alternatives` is out of bounds.
        PromptError: the model cannot compute with the vectors.
    """
    if not 0 <= alternatives <= MAX_ALTERNATIVES:
        raise ConfigError(f"alternatives is {alternatives}; it must be a whole number from 0 to {MAX_ALTERNATIVES}")
    return readout.read_out(encoder, as_vectors(encoder, vectors), alternatives)


MAX_ALTERNATIVES = 1000


def as_vectors(encoder: TextEncoder | CausalLM, value: SoftPrompt | Entry | Array | Tensor) -> Array | Tensor:
    """Return vectors (tokens, width) for the encoder.

    Raises:
        ConfigError: the soft prompt belongs to another model, the width is different, or there are too many.
        PromptError: the model cannot compute with the vectors.
    """
    name = ""
    if isinstance(value, SoftPrompt | Entry):
        soft_prompt = as_soft_prompt(value)
        encoder.check_compatible(soft_prompt)
        name, value = soft_prompt.name, soft_prompt.vectors
    if value.shape[1] != encoder.width:
        raise ConfigError(
            f"the vectors have width {value.shape[1]}, but {encoder.name} has width {encoder.width}. Use vectors that "
            "were trained on this model."
        )
    check_token_count(encoder, value.shape[0])
    if isinstance(encoder, TextEncoder):
        check_vectors(encoder, value, name)
    return value
