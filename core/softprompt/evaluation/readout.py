"""The readout: the vocabulary token nearest to each soft token, and the similarity of these tokens as text."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.base import FrozenModel, is_readable
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.prompts.results import Neighbour, ReadoutToken
from softprompt.prompts.soft_prompt import Array

# (ids, unit vectors) of the readable tokens, cached per model: normalizing 49,408 x 256 values takes 15 ms
_vocabularies: WeakKeyDictionary[FrozenModel, tuple[Tensor, Tensor]] = WeakKeyDictionary()


def readable_vocabulary(model: FrozenModel) -> tuple[Tensor, Tensor]:
    """Return ids (m,) and unit vectors (m, w) of all tokens except special tokens and parts of characters."""
    if model not in _vocabularies:
        ids = [i for i in model.ordinary_ids.tolist() if is_readable(model.tokenizer.piece(i))]
        readable = torch.tensor(ids, device=model.device)
        _vocabularies[model] = readable, F.normalize(model.embed(readable), dim=-1)
    return _vocabularies[model]


def nearest_tokens(model: FrozenModel, vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return ids and cosines, both (k, count), of the nearest readable tokens, nearest first."""
    ids, unit = readable_vocabulary(model)
    top = (F.normalize(vectors.to(model.device, torch.float32), dim=-1) @ unit.T).topk(min(count, len(ids)), dim=-1)
    return ids[top.indices], top.values


@neutral_torch()
@torch.no_grad()
def read_out(
    model: FrozenModel, vectors: Tensor | Array, alternatives: int = 4
) -> tuple[tuple[ReadoutToken, ...], str]:
    """Return the readout of `vectors` (k, w), one token per vector, and its text as a user would type it."""
    ids, cosines = nearest_tokens(model, torch.asarray(vectors, copy=True), alternatives + 1)
    tokens = []
    for row, values in zip(ids.tolist(), cosines.tolist(), strict=True):
        first, *others = (
            Neighbour(model.tokenizer.piece(i), round(cosine, 6)) for i, cosine in zip(row, values, strict=True)
        )
        tokens.append(ReadoutToken(first.token, first.cosine, tuple(others)))
    return tuple(tokens), model.tokenizer.decode(ids[:, 0].tolist()).strip()


@neutral_torch()
@torch.no_grad()
def readout_similarity(encoder: TextEncoder, text: str, target: Tensor | Array) -> float:
    """Return the similarity of `text`, re-tokenized and cut to the context length, to `target` (e,)."""
    row = encoder.tokenizer.encode(text)[: encoder.max_prompt_tokens]
    direction = torch.asarray(target, copy=True).to(encoder.device)
    return float(F.normalize(direction, dim=-1) @ encoder.encode_rows([row])[0])
