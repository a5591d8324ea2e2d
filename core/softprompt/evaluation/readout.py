"""The readout: what a soft prompt's tokens look like as their nearest vocabulary words, and what these mean as text."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.base import readable
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.prompts.results import Neighbour, ReadoutToken
from softprompt.prompts.soft_prompt import Array

# (ids, unit vectors) of the tokens a readout may show; made once per encoder: normalising 49,408 x 256 takes 15 ms
_vocabularies: WeakKeyDictionary[TextEncoder, tuple[Tensor, Tensor]] = WeakKeyDictionary()


def vocabulary(encoder: TextEncoder) -> tuple[Tensor, Tensor]:
    """(m,) ids and (m, w) unit vectors of the readable tokens: special ones and parts of characters are left out."""
    if encoder not in _vocabularies:
        ids = [i for i in encoder.ordinary_ids.tolist() if readable(encoder.tokenizer.piece(i))]
        kept = torch.tensor(ids, device=encoder.device)
        _vocabularies[encoder] = kept, F.normalize(encoder.tower.table[kept].float(), dim=-1)
    return _vocabularies[encoder]


def nearest(encoder: TextEncoder, vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(k, count) ids of the nearest readable tokens by cosine, and their cosines, nearest first."""
    ids, unit = vocabulary(encoder)
    top = (F.normalize(vectors.to(encoder.device, torch.float32), dim=-1) @ unit.T).topk(min(count, len(ids)), dim=-1)
    return ids[top.indices], top.values


@torch.no_grad()
def read_out(
    encoder: TextEncoder, vectors: Tensor | Array, alternatives: int = 4
) -> tuple[tuple[ReadoutToken, ...], str]:
    """(readout of `vectors` (k, w), one token each; the readable string, as a person would type it)."""
    ids, cosines = nearest(encoder, torch.asarray(vectors, copy=True), alternatives + 1)
    tokens = []
    for row, values in zip(ids.tolist(), cosines.tolist(), strict=True):
        first, *others = (
            Neighbour(encoder.tokenizer.piece(i), round(cosine, 6)) for i, cosine in zip(row, values, strict=True)
        )
        tokens.append(ReadoutToken(first.token, first.cosine, tuple(others)))
    return tuple(tokens), encoder.tokenizer.decode(ids[:, 0].tolist()).strip()


@torch.no_grad()
def readout_similarity(encoder: TextEncoder, text: str, target: Tensor | Array) -> float:
    """Similarity of `text`, typed back in and tokenised again, to `target` (e,). Cut to the context, as typing it would be."""
    row = encoder.tokenizer.encode(text)[: encoder.max_prompt_tokens]
    wanted = torch.asarray(target, copy=True).to(encoder.device)
    return float(F.normalize(wanted, dim=-1) @ encoder.encode_rows([row])[0])
