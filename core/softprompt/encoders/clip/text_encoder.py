"""The text encoder: a tokenizer and a text tower that turn text or token embeddings into pooled embeddings.

rows.py explains rows. Shapes: k soft tokens, w width, b rows, e embed_dim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.base import PromptTokenizer, Row, SpecialTokens, encode_prompt
from softprompt.encoders.clip.rows import TokenBatch
from softprompt.encoders.clip.transformer import TextTransformer
from softprompt.errors import ConfigError, tokens_do_not_fit

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt


class TextEncoder:
    """A frozen text tower with its tokenizer, on one device. Load one with `softprompt.load_encoder`."""

    def __init__(self, name: str, tower: TextTransformer, tokenizer: PromptTokenizer, specials: SpecialTokens) -> None:
        self.name = name
        self.tower = tower
        self.config = tower.config
        self.tokenizer = tokenizer
        self.specials = specials

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextEncoder:
        """Return this encoder on another device or in another precision."""
        tower = self.tower.to(torch.device(device), dtype or self.tower.table.dtype)
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
        return self.config.width

    @property
    def max_prompt_tokens(self) -> int:
        """Largest number of tokens that fit between the start and end tokens."""
        return self.config.context - len(self.specials.start) - len(self.specials.end)

    @cached_property
    def ordinary_ids(self) -> Tensor:
        """Ids (m,) of the tokens that text can produce, without special tokens or unused rows of the embedding."""
        rows = min(self.config.vocabulary, len(self.tokenizer))
        special = [i for i in self.tokenizer.special_ids | {*self.specials.start, *self.specials.end} if i < rows]
        keep = torch.ones(rows, dtype=torch.bool)
        keep[special] = False
        return keep.nonzero().squeeze(1).to(self.device)

    @cached_property
    def token_std(self) -> float:
        """Standard deviation of the components of all ordinary token embeddings: the unit of rates and noise."""
        return float(self.tower.table[self.ordinary_ids].float().std())

    @cached_property
    def token_norm(self) -> float:
        """Mean L2 norm of the ordinary token embeddings."""
        return float(self.tower.table[self.ordinary_ids].float().norm(dim=-1).mean())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, shortened, of the tower's shape and of a sample of every weight tensor.

        It tells models with the same name but other weights apart.
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
        # entries store fingerprints, so this string must never change, although the class has another name now
        shape = ", ".join(f"{name}={value!r}" for name, value in vars(self.config).items())
        digest = hashlib.sha256(f"TowerConfig({shape})".encode())
        for tensor in [*tensors, *(weight for block in tower.blocks for weight in block)]:
            if tensor is not None:
                # rounded, so that a tower has the same fingerprint in float32 and in bfloat16
                digest.update(tensor.flatten()[::997].bfloat16().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def check_compatible(self, prompt: SoftPrompt) -> None:
        """Raise ConfigError for a soft prompt of another model or other weights: its vectors mean nothing here."""
        if prompt.model_fingerprint == self.fingerprint:
            return
        name, model = prompt.name or "the soft prompt", f"{prompt.model} ({prompt.model_fingerprint})"
        if not prompt.model_fingerprint:
            raise ConfigError(
                f"the model of {name} is not known. Its width is {prompt.vectors.shape[1]}. Assign a model "
                f"of this width with `softprompt-tui assign '{name}' --model MODEL`."
            )
        if prompt.model == self.name:
            raise ConfigError(
                f"{name} was trained on other weights of {model} than those here ({self.fingerprint}). Train it again."
            )
        raise ConfigError(
            f"{name} belongs to {model}, and the model here is {self.name} ({self.fingerprint}). Train it again."
        )

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of a text. Raise PromptError if it is too long or contains a special token."""
        ids = encode_prompt(self.tokenizer, text)
        self.check_fits(len(ids))
        return ids

    def check_fits(self, tokens: int) -> None:
        """Raise PromptError if the context has no room for so many tokens."""
        if tokens > self.max_prompt_tokens:
            raise tokens_do_not_fit(tokens, self.name, self.max_prompt_tokens)

    def embed(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Return the token embeddings (…, w) of `ids` (…), in float32."""
        return self.tower.table[torch.as_tensor(ids, dtype=torch.long, device=self.device)].float()

    def batch_rows(self, rows: Sequence[Row]) -> TokenBatch:
        """Prepare rows for encoding. Raise PromptError if one does not fit into the context."""
        for row in rows:
            self.check_fits(len(row))
        return TokenBatch(self.tower, self.specials, rows)

    @torch.no_grad()
    def encode(self, texts: str | Sequence[str]) -> Tensor:
        """Return the pooled embeddings (len(texts), e), as float32 unit vectors.

        Raises:
            PromptError: a text does not fit into the context.
        """
        texts = [texts] if isinstance(texts, str) else texts
        return self.encode_rows([self.tokenize(text) for text in texts])

    @torch.no_grad()
    def encode_rows(
        self, rows: Sequence[Row], soft: Tensor | None = None, unit: bool = True, batch: int = 64
    ) -> Tensor:
        """Return the pooled embeddings (len(rows), e) of rows with soft tokens `soft` (k, w)."""
        if not rows:
            return torch.empty(0, self.config.embed_dim, device=self.device)
        # sort by length, because every row in a batch is padded to the longest one
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
    """Return the cosine along the last dimension, with broadcasting."""
    return (F.normalize(a, dim=-1) * F.normalize(b, dim=-1)).sum(-1)
