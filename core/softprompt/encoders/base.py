"""The contract of a frozen model: all that the training loop knows about a model.

The loop never encodes anything. It asks the model for facts about its token embeddings, to initialize and to scale soft
prompts; how soft tokens become a loss is up to the objective (objectives/base.py). A new model family is therefore one
`FrozenModel` and at least one objective that runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from softprompt.errors import PromptError, too_many_tokens

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from softprompt.prompts.soft_prompt import SoftPrompt

Row = Sequence[int]


@dataclass(frozen=True)
class SpecialTokens:
    """The token ids around every prompt: start and end tokens, then padding."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int = 0


class PromptTokenizer(Protocol):
    """A model's tokenizer. It adds no start, end or padding tokens.

    Attributes:
        special_ids: all special tokens of the vocabulary.
        reserved_ids: the special tokens that a prompt must not spell. The unknown token is special but not reserved:
            it replaces characters that are not in the vocabulary.
    """

    special_ids: frozenset[int]
    reserved_ids: frozenset[int]

    def __len__(self) -> int:
        """Return a bound for ids: every id that is not reserved is lower."""
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
    """Return the token ids of a text that a user typed.

    Raises:
        PromptError: the text spells a reserved token. Most models pool at the first end token and would ignore the
            words after it.
    """
    ids = tokenizer.encode(text)
    reserved = next((i for i in ids if i in tokenizer.reserved_ids), None)
    if reserved is not None:
        raise PromptError(
            f"the text contains {tokenizer.piece(reserved)}, a special token of the model. Remove it: the model "
            "ignores everything after an end token."
        )
    return ids


def is_readable(piece: str) -> bool:
    """Return whether a token's text can be shown and typed: not blank, no part of a character, no control character."""
    return bool(piece.strip()) and piece.isprintable() and "\ufffd" not in piece


class FrozenModel(Protocol):
    """A model whose weights never change and whose input can be token embeddings.

    Implementations load their weights without gradients. Soft prompts live on the model's device, in float32.

    Attributes:
        name: the model's full name, such as "ViT-B-32/openai". Saved with every soft prompt.
        tokenizer: the tokenizer that the model was trained with.
    """

    name: str
    tokenizer: PromptTokenizer

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    @property
    def width(self) -> int:
        """Number of components of a token embedding, and so of a soft token."""
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
        """Ids (m,) of the tokens that text can produce. Special tokens are not among them."""
        ...

    @property
    def token_std(self) -> float:
        """Standard deviation of the components of all ordinary token embeddings: the unit of rates and noise."""
        ...

    @property
    def token_norm(self) -> float:
        """Mean L2 norm of the ordinary token embeddings."""
        ...

    def embed(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Return the token embeddings (…, width) of `ids` (…), in float32."""
        ...

    def check_compatible(self, prompt: SoftPrompt) -> None:
        """Check that a soft prompt was trained on this model with these weights.

        Raises:
            ConfigError: it was not, or its model is unknown. Vectors mean nothing to another model.
        """
        ...


def check_token_count(model: FrozenModel, tokens: int) -> None:
    """Raise ConfigError if the model has no room for so many soft tokens."""
    if tokens > model.max_prompt_tokens:
        raise too_many_tokens(tokens, model.name, model.max_prompt_tokens)
