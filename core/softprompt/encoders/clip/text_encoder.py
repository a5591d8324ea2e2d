"""The text encoder: a tokenizer and a text tower that turn text or token embeddings into pooled embeddings.

See rows.py for token rows. Shapes: k soft tokens, w width, e embed_dim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.arguments import checked
from softprompt.config import ModelKind, check_precision
from softprompt.encoders.base import FrozenModel, PromptTokenizer, Row, SpecialTokens, check_fingerprint, encode_prompt
from softprompt.encoders.clip.rows import TokenBatch
from softprompt.encoders.clip.transformer import TextTransformer
from softprompt.encoders.devices import pick_device
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.errors import needs_text_encoder, tokens_do_not_fit
from softprompt.prompts.html import show_figures
from softprompt.prompts.visible_text import short_repr

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt


class TextEncoder:
    """A frozen text tower with its tokenizer, on one device. Load it with `softprompt.load_encoder`.

    Attributes:
        name: the model's name.
        kind: "text", see `encoders.base.FrozenModel`.

    Example:
        encoder = load_encoder("mini")
        encoder.encode(["a cat", "a dog"]).shape  # (2, 384)
    """  # implements encoders.base.FrozenModel

    kind: ModelKind = "text"

    def __init__(self, name: str, tower: TextTransformer, tokenizer: PromptTokenizer, specials: SpecialTokens) -> None:
        self.name = name
        self.tower = tower
        self.config = tower.config
        self.tokenizer = tokenizer
        self.specials = specials

    def __repr__(self) -> str:
        context = self.config.context
        return short_repr("TextEncoder", self.name, device=self.device_label, width=self.width, context=context)

    def _repr_html_(self) -> str:
        figures: dict[str, str | float | None] = {
            "device": self.device_label,
            "width": self.width,
            "context": self.config.context,
            "room for soft tokens": self.max_prompt_tokens,
            "embedding": self.config.embed_dim,
            "layers": len(self.tower.blocks),
            "vocabulary": self.config.vocabulary,
        }
        return show_figures(self.name, figures)

    @neutral_torch()
    @checked
    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> TextEncoder:
        """Return this encoder on another device, such as "cuda:1", or in another precision.

        Raises DeviceError if this machine has no such device, or ConfigError if `dtype` is not float32 or bfloat16.
        """
        if dtype is not None:
            check_precision(str(dtype).removeprefix("torch."))
        return self.moved_to(pick_device(str(device)), dtype)

    @neutral_torch()
    def moved_to(self, device: torch.device, dtype: torch.dtype | None = None) -> TextEncoder:
        """Return this encoder on a device that is known to exist."""
        tower = self.tower.to(device, dtype or self.tower.table.dtype)
        return TextEncoder(self.name, tower, self.tokenizer, self.specials)

    @property
    def device(self) -> torch.device:
        return self.tower.table.device

    @property
    def device_label(self) -> str:
        """Device and precision for display, such as "cpu, float32"."""
        return f"{self.device}, {str(self.tower.table.dtype).removeprefix('torch.')}"

    @property
    def width(self) -> int:
        """Width of the token embeddings, and so of soft tokens."""
        return self.config.width

    @property
    def max_prompt_tokens(self) -> int:
        """Largest number of tokens that fit between the start and end tokens in the context length."""
        return self.config.context - len(self.specials.start) - len(self.specials.end)

    @cached_property
    @neutral_torch()
    def ordinary_ids(self) -> Tensor:
        """Ids, one-dimensional, of the tokens that text can produce, without special tokens and unused table rows."""
        rows = min(self.config.vocabulary, len(self.tokenizer))
        special = [i for i in self.tokenizer.special_ids | {*self.specials.start, *self.specials.end} if i < rows]
        keep = torch.ones(rows, dtype=torch.bool)
        keep[special] = False
        return keep.nonzero().squeeze(1).to(self.device)

    @cached_property
    @neutral_torch()
    def token_std(self) -> float:
        """Standard deviation over the components of all ordinary token embeddings.

        Learning rates and noise are given in multiples of it.
        """
        return float(self.tower.table[self.ordinary_ids].float().std())

    @cached_property
    @neutral_torch()
    def token_norm(self) -> float:
        """Mean L2 norm of all ordinary token embeddings."""
        return float(self.tower.table[self.ordinary_ids].float().norm(dim=-1).mean())

    @cached_property
    @neutral_torch()
    def fingerprint(self) -> str:
        """Shortened SHA-256 digest of the tower's shape and a sample of every weight tensor.

        It distinguishes models that have the same name but different weights.
        """
        tower = self.tower
        tensors = [
            tower.table,
            tower.positions,
            tower.norm_weight,
            tower.norm_bias,
            tower.projection,
            tower.projection_bias,
            tower.cls,
        ]
        # "TowerConfig" is the old name of the class; it must stay, because entries store fingerprints
        shape = ", ".join(f"{name}={value!r}" for name, value in vars(self.config).items())
        digest = hashlib.sha256(f"TowerConfig({shape})".encode())
        for tensor in [*tensors, *(weight for block in tower.blocks for weight in block)]:
            if tensor is not None:
                # rounding gives a tower the same fingerprint in float32 and bfloat16
                digest.update(tensor.flatten()[::997].bfloat16().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def check_compatible(self, prompt: SoftPrompt) -> None:
        """Raise ConfigError if a soft prompt was trained on a different model or on different weights."""
        check_fingerprint(prompt, self.name, self.fingerprint, self.width)

    @checked
    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text. Raises PromptError if it is too long or contains a reserved token."""
        ids = encode_prompt(self.tokenizer, text)
        self.check_fits(len(ids))
        return ids

    def check_fits(self, tokens: int) -> None:
        """Raise PromptError if this many tokens do not fit into the context length."""
        if tokens > self.max_prompt_tokens:
            raise tokens_do_not_fit(tokens, self.name, self.max_prompt_tokens)

    @neutral_torch()
    def embed(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Return the token embeddings (…, w) of `ids` (…), in float32."""
        return self.tower.table[torch.as_tensor(ids, dtype=torch.long, device=self.device)].float()

    def batch_rows(self, rows: Sequence[Row]) -> TokenBatch:
        """Prepare token rows for encoding. Raises PromptError if one does not fit into the context length."""
        for row in rows:
            self.check_fits(len(row))
        return TokenBatch(self.tower, self.specials, rows)

    @neutral_torch()
    @checked
    @torch.no_grad()
    def encode(self, texts: str | Sequence[str]) -> Tensor:
        """Return the pooled embeddings (number of texts, embed_dim), as float32 unit vectors.

        Raises:
            PromptError: a text does not fit into the context length, or contains a reserved token.
        """
        texts = [texts] if isinstance(texts, str) else texts
        return self.encode_rows([self.tokenize(text) for text in texts])

    @neutral_torch()
    @torch.no_grad()
    def encode_rows(
        self, rows: Sequence[Row], soft: Tensor | None = None, unit: bool = True, batch: int = 64
    ) -> Tensor:
        """Return the pooled embeddings (len(rows), e) of token rows in which `soft` (k, w) are the soft tokens."""
        if not rows:
            return torch.empty(0, self.config.embed_dim, device=self.device)
        # sorted by length, because all rows of a batch are padded to the longest
        order = sorted(range(len(rows)), key=lambda i: len(rows[i])) if len(rows) > batch else list(range(len(rows)))
        embeddings = torch.empty(len(rows), self.config.embed_dim, device=self.device)
        for start in range(0, len(rows), batch):
            part = order[start : start + batch]
            outputs = (
                self.batch_rows([rows[i] for i in part]).outputs(None if soft is None else soft.unsqueeze(0)).squeeze(0)
            )
            embeddings[part] = F.normalize(outputs, dim=-1) if unit else outputs
        return embeddings


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosines of `a` and `b` along the last dimension. Broadcasts."""
    return (F.normalize(a, dim=-1) * F.normalize(b, dim=-1)).sum(-1)


def as_text_encoder(model: FrozenModel, what: str) -> TextEncoder:
    """Return a model that is a text encoder.

    Args:
        what: what needs it, such as "a hard readout".

    Raises:
        ModelRefused: the model is a language model.
    """
    if not isinstance(model, TextEncoder):
        raise needs_text_encoder(model.name, what)
    return model
