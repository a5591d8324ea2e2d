"""A frozen causal language model that reads token embeddings. Load it with `loading.load_causal_lm`.

Shapes: B rows, T tokens, k soft tokens, w width, v vocabulary.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softprompt.config import ModelKind
from softprompt.encoders.base import SpecialTokens, check_fingerprint
from softprompt.encoders.causal_lm.chat_template import ChatTemplate, load_chat_template
from softprompt.encoders.causal_lm.folder import causal_lm_refused
from softprompt.encoders.causal_lm.tokenizer import CausalLMTokenizer
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.errors import PromptError
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.prompts.tensors import MAX_TOKENS
from softprompt.prompts.visible_text import short_repr

EMBED_ROWS = 8192  # rows of the token table that become float32 at a time; a table can have gigabytes


class CausalLM:
    """A frozen causal language model with its tokenizer, on one device.

    The model runs through `inputs_embeds`, so a soft token can stand anywhere in its input.

    Attributes:
        name: the model's name.
        kind: "causal", see `encoders.base.FrozenModel`.
        folder: the folder with its files.
        specials: the tokens that start every text, the tokens that end an answer, and the padding token.
        context: the largest number of tokens in a row.
    """  # implements encoders.base.FrozenModel

    kind: ModelKind = "causal"

    def __init__(
        self,
        name: str,
        folder: Path,
        model: Any,  # a causal model of transformers, which has no types
        tokenizer: CausalLMTokenizer,
        specials: SpecialTokens,
        context: int,
    ) -> None:
        self.name = name
        self.folder = folder
        self.tokenizer = tokenizer
        self.specials = specials
        self.context = context
        self._model = model.eval().requires_grad_(False)
        # newer versions of transformers rename the argument that takes the key-value cache
        parameters = inspect.signature(self._model.forward).parameters
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"

        # Newer versions scale Gemma's embeddings in the embedding module, older ones in the forward. Soft tokens are
        # saved with the scale, so that they mean the same in every version.
        is_scaled = not self._model.config.model_type.startswith("gemma") or hasattr(self._table, "embed_scale")
        self._scale = 1.0 if is_scaled else self.width**0.5

    def __repr__(self) -> str:
        return short_repr("CausalLM", self.name, device=self.device_label, width=self.width, context=self.context)

    @property
    def _table(self) -> Any:
        """The embedding module. OPT projects its output to a larger width, after it has been `inputs_embeds`."""
        return self._model.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        device: torch.device = self._table.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights. Soft tokens and logits are always float32."""
        dtype: torch.dtype = self._table.weight.dtype
        return dtype

    @property
    def device_label(self) -> str:
        """Device and precision for display, such as "cpu, float32"."""
        return f"{self.device}, {str(self.dtype).removeprefix('torch.')}"

    @property
    def width(self) -> int:
        """Number of components of a token embedding and of a soft token."""
        return int(self._table.weight.shape[1])

    @property
    def layers(self) -> int:
        return int(self._model.config.num_hidden_layers)

    @property
    def vocabulary(self) -> int:
        """Number of rows of the token table, and of logits."""
        return int(self._table.weight.shape[0])

    @property
    def max_prompt_tokens(self) -> int:
        """Largest number of tokens, hard or soft, that leaves room for the start tokens and one token of an answer.

        A soft prompt's file has a limit too.
        """
        return min(MAX_TOKENS, self.context - len(self.specials.start) - 1)

    @cached_property
    @neutral_torch()
    def ordinary_ids(self) -> Tensor:
        """Ids, one-dimensional, of the tokens that text can produce, without special tokens and unused table rows."""
        return torch.tensor(self.tokenizer.ordinary_ids, dtype=torch.long, device=self.device)

    @cached_property
    @neutral_torch()
    @torch.no_grad()
    def _table_statistics(self) -> tuple[float, float]:
        count, total, squares, norms = 0, 0.0, 0.0, 0.0
        for ids in torch.split(self.ordinary_ids, EMBED_ROWS):
            rows = self.embed(ids).double()
            count += len(ids)
            total += float(rows.sum())
            squares += float(rows.square().sum())
            norms += float(rows.norm(dim=-1).sum())
        values = count * self.width
        variance = max(0.0, squares - total * total / values) / max(1, values - 1)
        return variance**0.5, norms / max(1, count)

    @property
    def token_std(self) -> float:
        """Standard deviation over the components of all ordinary token embeddings.

        Learning rates and noise are given in multiples of it.
        """
        return self._table_statistics[0]

    @property
    def token_norm(self) -> float:
        """Mean L2 norm of all ordinary token embeddings."""
        return self._table_statistics[1]

    @cached_property
    @neutral_torch()
    def fingerprint(self) -> str:
        """Shortened SHA-256 digest of the architecture and of the shape and a sample of every weight tensor.

        It distinguishes models that have the same name but different weights.
        """
        digest = hashlib.sha256(f"{self._model.config.model_type}\0".encode())
        for weight in self._model.parameters():
            digest.update(repr(tuple(weight.shape)).encode())
            # rounding gives a model the same fingerprint in float32 and bfloat16
            digest.update(weight.flatten()[::997].bfloat16().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def check_compatible(self, prompt: SoftPrompt) -> None:
        """Raise ConfigError if a soft prompt was trained on a different model or on different weights."""
        check_fingerprint(prompt, self.name, self.fingerprint, self.width)

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The model's chat template. Raises ModelRefused if it has none, or one that cannot be used."""
        template = load_chat_template(self.name, self.folder, self.tokenizer)
        if (largest := template.largest_id) >= (rows := len(self._table.weight)):
            raise causal_lm_refused(
                self.name,
                f"its chat template has the token {largest:,}, but there are {rows:,} token embeddings",
                "Use the template that belongs to the model",
            )
        return template

    @neutral_torch()
    def embed(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Return the token embeddings (…, w) of `ids` (…) as the model's forward expects them, in float32."""
        embeddings: Tensor = self._table(torch.as_tensor(ids, dtype=torch.long, device=self.device))
        return embeddings.float() * self._scale

    def _inputs(self, embeddings: Tensor) -> Tensor:
        """Return embeddings as this version of transformers accepts them."""
        return (embeddings / self._scale).to(self.device, self.dtype)

    def logits(self, embeddings: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return the logits of the next token after each position, in float32. Gradients reach the embeddings.

        Pad shorter rows on the right, with any embedding: attention is causal, so no token sees the padding after it.

        Args:
            embeddings: (B, T, w), from `embed` or soft tokens.
            positions: (P,), the positions whose logits are needed. By default all; a large vocabulary needs gigabytes.

        Returns:
            (B, P, v), or (B, T, v).
        """
        logits: Tensor = self._model(
            inputs_embeds=self._inputs(embeddings),
            use_cache=False,
            logits_to_keep=0 if positions is None else positions,
        ).logits
        return logits.float()

    @property
    def window(self) -> int:
        """The largest number of tokens that all layers see at once. Some models have layers with a sliding window."""
        config = self._model.config
        sliding = getattr(config, "sliding_window", None)
        if sliding is None or not getattr(config, "use_sliding_window", True):
            return self.context
        return min(self.context, int(sliding))

    def states(self, embeddings: Tensor, mask: Tensor, positions: Tensor, cache: Any = None) -> Tensor:
        """Return the last hidden states (B, T, ·), for `head`. Gradients reach the embeddings.

        Args:
            embeddings: (B, T, w), from `embed` or soft tokens.
            mask: (B, 1, T, C + T), added to the attention scores. C is the length of the cache.
            positions: (B, T), the position of each token in its text.
            cache: a DynamicCache of transformers, which this call extends.
        """
        states: Tensor = self._model.base_model(
            inputs_embeds=self._inputs(embeddings),
            attention_mask=mask,
            position_ids=positions,
            use_cache=cache is not None,
            **({} if cache is None else {self._cache_name: cache}),
        ).last_hidden_state
        return states

    def head(self, states: Tensor) -> Tensor:
        """Return the logits (…, v) of last hidden states, in float32."""
        logits: Tensor = self._model.get_output_embeddings()(states).float()
        cap = getattr(self._model.config, "final_logit_softcapping", None)  # Gemma 2
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def generate(self, embeddings: Tensor, max_tokens: int) -> list[int]:
        """Return the most likely answer to a row of embeddings (T, w). See `stream`."""
        return list(self.stream(embeddings, max_tokens))

    def stream(self, embeddings: Tensor, max_tokens: int) -> Iterator[int]:
        """Yield the token ids of the most likely answer as soon as each is known.

        The answer ends with an end token, after `max_tokens`, or when the context is full.

        Args:
            embeddings: (T, w), the whole input: token embeddings, soft tokens or both.

        Raises:
            PromptError: the input is empty, or leaves no room for an answer.
        """
        length = len(embeddings)
        if not 0 < length < self.context:
            raise PromptError(
                f"the input has {length:,} tokens, but {self.name} reads 1 to {self.context - 1:,} before an answer. "
                "Change its length."
            )
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        for _ in range(min(max_tokens, self.context - length)):
            token = self._next_token(embeddings, cache)
            yield token
            if token in self.specials.end:
                return
            embeddings = self.embed([token])

    @neutral_torch()
    @torch.no_grad()
    def _next_token(self, embeddings: Tensor, cache: Any) -> int:
        """Return the most likely token after `embeddings` (T, w), and extend the key-value cache by them."""
        logits = self._model(
            inputs_embeds=self._inputs(embeddings).unsqueeze(0),
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: cache},
        ).logits
        return int(logits[0, -1].argmax())
