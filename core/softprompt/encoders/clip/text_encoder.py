"""The text encoder: a tokenizer and a text tower, from text or from embeddings to the pooled embedding.

What a row is and what a frame: rows.py. Shapes: k soft tokens, w width, b rows, e embed_dim.
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
from softprompt.errors import ConfigError, without_room

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt


class TextEncoder:
    """A frozen text tower with its tokenizer, on one device. `softprompt.load_encoder` makes one."""

    def __init__(self, name: str, tower: TextTransformer, tokenizer: PromptTokenizer, specials: SpecialTokens) -> None:
        self.name = name
        self.tower = tower
        self.config = tower.config
        self.tokenizer = tokenizer
        self.specials = specials

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextEncoder:
        """This encoder on another device, or in another precision."""
        tower = self.tower.to(torch.device(device), dtype or self.tower.table.dtype)
        return TextEncoder(self.name, tower, self.tokenizer, self.specials)

    @property
    def device(self) -> torch.device:
        return self.tower.table.device

    @property
    def device_label(self) -> str:
        """Where it computes and how, such as "cpu, float32"."""
        return f"{self.device}, {str(self.tower.table.dtype).removeprefix('torch.')}"

    @property
    def width(self) -> int:
        return self.config.width

    @property
    def max_prompt_tokens(self) -> int:
        """How many tokens of a prompt fit into the context, beside start and end."""
        return self.config.context - len(self.specials.start) - len(self.specials.end)

    @cached_property
    def ordinary_ids(self) -> Tensor:
        """(m,) ids that text can become, special tokens aside. Rows beyond the tokenizer's tokens mean nothing."""
        rows = min(self.config.vocabulary, len(self.tokenizer))
        special = [i for i in self.tokenizer.special_ids | {*self.specials.start, *self.specials.end} if i < rows]
        keep = torch.ones(rows, dtype=torch.bool)
        keep[special] = False
        return keep.nonzero().squeeze(1).to(self.device)

    @cached_property
    def token_std(self) -> float:
        """Standard deviation of the ordinary token embeddings' components: the unit that rates and noise are given in."""
        return float(self.tower.table[self.ordinary_ids].float().std())

    @cached_property
    def token_norm(self) -> float:
        """Mean L2 norm of the ordinary token embeddings."""
        return float(self.tower.table[self.ordinary_ids].float().norm(dim=-1).mean())

    @cached_property
    def fingerprint(self) -> str:
        """What tells two towers of one name apart: SHA-256 over their shape and a sample of every weight tensor."""
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
        digest = hashlib.sha256(repr(self.config).encode())
        for tensor in [*tensors, *(weight for block in tower.blocks for weight in block)]:
            if tensor is not None:
                # rounded, so that one tower in float32 and in bfloat16 is one tower
                digest.update(tensor.flatten()[::997].bfloat16().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def check_belongs(self, prompt: SoftPrompt) -> None:
        """Raises ConfigError for a soft prompt of another model or of other weights: its vectors mean nothing here."""
        if prompt.model_fingerprint == self.fingerprint:
            return
        name, theirs = prompt.name or "the soft prompt", f"{prompt.model} ({prompt.model_fingerprint})"
        if not prompt.model_fingerprint:
            raise ConfigError(
                f"of {name} it is not known which model it belongs to: `softprompt-tui assign '{name}' --model MODEL` says so, "
                f"if its width of {prompt.vectors.shape[1]} fits"
            )
        if prompt.model == self.name:
            raise ConfigError(
                f"{name} was trained on other weights of {theirs} than those here ({self.fingerprint}): train it again"
            )
        raise ConfigError(
            f"{name} belongs to {theirs}, and the model here is {self.name} ({self.fingerprint}): train it again for it"
        )

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text` as one row; raises PromptError where it does not fit, or holds a special token."""
        ids = encode_prompt(self.tokenizer, text)
        self.check_fits(len(ids))
        return ids

    def check_fits(self, tokens: int) -> None:
        if tokens > self.max_prompt_tokens:
            raise without_room(tokens, self.name, self.max_prompt_tokens)

    def embed(self, ids: Sequence[int] | Tensor) -> Tensor:
        """(…, w) token embeddings of `ids` (…), float32."""
        return self.tower.table[torch.as_tensor(ids, dtype=torch.long, device=self.device)].float()

    def batch_rows(self, rows: Sequence[Row]) -> TokenBatch:
        """Rows made ready for encoding; raises PromptError for one that does not fit into the context."""
        for row in rows:
            self.check_fits(len(row))
        return TokenBatch(self.tower, self.specials, rows)

    @torch.no_grad()
    def encode(self, texts: str | Sequence[str]) -> Tensor:
        """(len(texts), e) pooled embeddings, float32 unit vectors. Raises PromptError for a text longer than the context."""
        texts = [texts] if isinstance(texts, str) else texts
        return self.encode_rows([self.tokenize(text) for text in texts])

    @torch.no_grad()
    def encode_rows(
        self, rows: Sequence[Row], soft: Tensor | None = None, unit: bool = True, batch: int = 64
    ) -> Tensor:
        """(len(rows), e) pooled embeddings of rows, their soft tokens taken from `soft` (k, w)."""
        if not rows:
            return torch.empty(0, self.config.embed_dim, device=self.device)
        # rows of like length together: each batch is as long as its longest
        order = sorted(range(len(rows)), key=lambda i: len(rows[i])) if len(rows) > batch else list(range(len(rows)))
        found = torch.empty(len(rows), self.config.embed_dim, device=self.device)
        for start in range(0, len(rows), batch):
            part = order[start : start + batch]
            outputs = (
                self.batch_rows([rows[i] for i in part]).outputs(None if soft is None else soft.unsqueeze(0)).squeeze(0)
            )
            found[part] = F.normalize(outputs, dim=-1) if unit else outputs
        return found


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine along the last dimension, broadcast over the others."""
    return (F.normalize(a, dim=-1) * F.normalize(b, dim=-1)).sum(-1)
