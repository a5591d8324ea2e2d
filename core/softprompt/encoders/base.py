"""The frozen-model interface: all that the training loop knows about a model.

The loop never encodes anything. It asks the model only for facts about its token embeddings, and uses them to
initialize and scale soft prompts; the objective turns soft tokens into a loss (objectives/base.py). With a FrozenModel
and an objective, `train_one` and `train_scheduled` work; `train` also needs load_encoder and the grading in
training.model_kinds.measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from softprompt.config import ModelKind
from softprompt.errors import (
    ConfigError,
    PromptError,
    check_text,
    how_to_assign_model,
    too_many_tokens,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from softprompt.prompts.soft_prompt import SoftPrompt

Row = Sequence[int]
OnStage = Callable[[str], None]
"""Called with the next stage of loading a model, such as "reading the weights"."""


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of the tokens around every prompt: start tokens, end tokens and padding."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int = 0


class PromptTokenizer(Protocol):
    """A model's tokenizer. It adds no start, end or padding tokens.

    Attributes:
        special_ids: all special tokens of the vocabulary.
        reserved_ids: the special tokens that must not occur in a prompt. The unknown token is special but not reserved,
            because it replaces characters that are not in the vocabulary.
    """

    special_ids: frozenset[int]
    reserved_ids: frozenset[int]

    def __len__(self) -> int:
        """Return an upper bound: every id except reserved ones is below it."""
        ...

    def __hash__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without truncation."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids."""
        ...

    def piece(self, token: int) -> str:
        """Return the text of one token."""
        ...


def encode_prompt(tokenizer: PromptTokenizer, text: str) -> list[int]:
    """Return the token ids of a user's text.

    Raises:
        PromptError: the text contains a reserved token. Most models pool at the first end token and would ignore the
            words after it.
    """
    ids = tokenizer.encode(check_text("text", text))
    reserved = next((i for i in ids if i in tokenizer.reserved_ids), None)
    if reserved is not None:
        raise PromptError(
            f"the text contains {tokenizer.piece(reserved)}, a special token of the model. Remove it: the model "
            "ignores everything after an end token."
        )
    return ids


def is_readable(piece: str) -> bool:
    """Return whether a token can be shown and typed: not blank, not part of a character, not a control character."""
    return bool(piece.strip()) and piece.isprintable() and "\ufffd" not in piece


class FrozenModel(Protocol):
    """A model with fixed weights that accepts token embeddings as input.

    Implementations load their weights without gradients. Soft prompts are on the model's device, in float32.

    Attributes:
        name: the model's full name, such as "ViT-B-32/openai". It is saved with every soft prompt.
        kind: which objectives can train for it.
    """

    name: str
    kind: ModelKind

    @property
    def tokenizer(self) -> PromptTokenizer:
        """The tokenizer that the model was trained with."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        ...

    @property
    def width(self) -> int:
        """Number of components of a token embedding and of a soft token."""
        ...

    @property
    def max_prompt_tokens(self) -> int:
        """Largest number of tokens, hard or soft, that fit between the start and end tokens."""
        ...

    @property
    def device_label(self) -> str:
        """Device and precision for display, such as "cpu, float32"."""
        ...

    @property
    def ordinary_ids(self) -> Tensor:
        """Ids, one-dimensional, of the tokens that text can produce, without special tokens."""
        ...

    @property
    def token_std(self) -> float:
        """Standard deviation over the components of all ordinary token embeddings.

        Learning rates and noise are given in multiples of it.
        """
        ...

    @property
    def token_norm(self) -> float:
        """Mean L2 norm of all ordinary token embeddings."""
        ...

    def embed(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Return the token embeddings (…, width) of `ids` (…), in float32."""
        ...

    def check_compatible(self, prompt: SoftPrompt) -> None:
        """Check that a soft prompt was trained on this model with these weights.

        Raises:
            ConfigError: it was trained on other weights, so its vectors are meaningless here, or its model is unknown.
        """
        ...


def check_token_count(model: FrozenModel, tokens: int) -> None:
    """Raise ConfigError if the model has no room for this many soft tokens."""
    if tokens > model.max_prompt_tokens:
        raise too_many_tokens(tokens, model.name, model.max_prompt_tokens)


def check_fingerprint(prompt: SoftPrompt, model_name: str, fingerprint: str, width: int) -> None:
    """Check that a soft prompt was trained on the model with this name, fingerprint of its weights, and width.

    Raises:
        ConfigError: it was trained on another model or on other weights, or its model is unknown.
    """
    name, model = prompt.name or "the soft prompt", f"{prompt.model} ({prompt.model_fingerprint})"
    if prompt.model_fingerprint == fingerprint:
        if (prompt_width := prompt.vectors.shape[1]) != width:
            raise ConfigError(f"{name} has vectors of width {prompt_width}, but {model_name} has width {width}")
        return
    if not prompt.model_fingerprint:
        assign = how_to_assign_model(f"'{name}'")
        raise ConfigError(
            f"the model of {name} is unknown. Its width is {prompt.vectors.shape[1]}. Assign a model of this width "
            f"with {assign}."
        )
    if prompt.model == model_name:
        raise ConfigError(
            f"{name} was trained on different weights of {model} than those here ({fingerprint}). Train it again."
        )
    raise ConfigError(f"{name} belongs to {model}, but the model here is {model_name} ({fingerprint}). Train it again.")
