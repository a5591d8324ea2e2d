"""The contract of a frozen model: training knows no more of it than this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from softprompt.errors import PromptError, too_many

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from softprompt.prompts.soft_prompt import SoftPrompt

Row = Sequence[int]


@dataclass(frozen=True)
class SpecialTokens:
    """What stands around a prompt in the context: start and end tokens, and the padding after them."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int = 0


class PromptTokenizer(Protocol):
    """What a text encoder asks of its tokenizer; ids never include the start, end and padding tokens.

    `reserved_ids` are the special tokens that stand around a text, so that no text may spell them. The unknown token,
    which is special too, is none of them: it stands for a character outside the vocabulary. The length is one more than
    the highest id that is not reserved.
    """

    special_ids: frozenset[int]
    reserved_ids: frozenset[int]

    def __len__(self) -> int: ...
    def __hash__(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def piece(self, token: int) -> str: ...


def encode_prompt(tokenizer: PromptTokenizer, text: str) -> list[int]:
    """Token ids of a text that a person typed.

    Raises:
        PromptError: the text spells a special token. Most models pool at the first end token, so the words after it
            would be trained on, shown and never read.
    """
    ids = tokenizer.encode(text)
    reserved = next((i for i in ids if i in tokenizer.reserved_ids), None)
    if reserved is not None:
        raise PromptError(
            f"the text has {tokenizer.piece(reserved)}, a special token of the model: what stands after an end token is not "
            "read. Leave it out"
        )
    return ids


def readable(piece: str) -> bool:
    """Whether a token's text can be shown and typed: not empty, no part of a character, no control character."""
    return bool(piece.strip()) and piece.isprintable() and "\ufffd" not in piece


class FrozenModel(Protocol):
    """A model that reads embedded tokens, and whose weights stay as they are."""

    name: str
    tokenizer: PromptTokenizer

    @property
    def device(self) -> torch.device: ...
    @property
    def width(self) -> int: ...
    @property
    def max_prompt_tokens(self) -> int:
        """How many tokens of a prompt fit."""
        ...

    @property
    def device_label(self) -> str:
        """Where the model computes and how, such as "cpu, float32"."""
        ...

    @property
    def ordinary_ids(self) -> Tensor:
        """(m,) ids that text can become, special tokens aside."""
        ...

    @property
    def token_std(self) -> float:
        """Standard deviation of the ordinary token embeddings' components: the unit of rates and noise."""
        ...

    @property
    def token_norm(self) -> float:
        """Mean L2 norm of the ordinary token embeddings."""
        ...

    def embed(self, ids: Sequence[int] | Tensor) -> Tensor:
        """(…, w) token embeddings of `ids` (…), float32."""
        ...

    def check_belongs(self, prompt: SoftPrompt) -> None:
        """Raise ConfigError for a soft prompt of another model or of other weights."""
        ...


def check_tokens(model: FrozenModel, tokens: int) -> None:
    """Raise ConfigError for more soft tokens than the model has room for."""
    if tokens > model.max_prompt_tokens:
        raise too_many(tokens, model.name, model.max_prompt_tokens)
