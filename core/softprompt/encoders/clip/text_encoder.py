"""The text encoder: a tokenizer and a text tower, from text or from embeddings to the pooled embedding.

A prompt is a *row*: a list of token ids without start and end, in which -1, -2, … stand for soft tokens 0, 1, … So
`[v1][v2] on a hill` is [-1, -2, 525, 320, 3965]. A *frame* is a batch of rows made ready once, to be encoded many times with
changing soft tokens. Shapes: r sets of soft tokens, k soft tokens, w width, b rows, n positions, e embed_dim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.base import PromptTokenizer, Row, Specials, encode_prompt
from softprompt.encoders.clip.cpu_autograd import outputs
from softprompt.encoders.clip.transformer import Pooling, Tower, block_forward
from softprompt.errors import ConfigError, without_room
from softprompt.text_states import Reads

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt

AT_THE_END: tuple[Pooling, ...] = ("argmax", "eos")  # towers that are pooled at the end token


class TextEncoder:
    """A frozen text tower with its tokenizer, on one device. `softprompt.load_encoder` makes one."""

    def __init__(self, name: str, tower: Tower, tokenizer: PromptTokenizer, specials: Specials, graphs: bool = False) -> None:
        self.name = name
        self.graphs = graphs  # whether training on cuda records its steps (softprompt.training.cuda_graphs)
        self.tower = tower
        self.config = tower.config
        self.tokenizer = tokenizer
        self.specials = specials

    def moved(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextEncoder:
        """This encoder on another device, or in another precision."""
        tower = self.tower.to(torch.device(device), dtype or self.tower.table.dtype)
        return TextEncoder(self.name, tower, self.tokenizer, self.specials, self.graphs)

    @property
    def device(self) -> torch.device:
        return self.tower.table.device

    @property
    def arithmetic(self) -> str:
        """Where it computes and how, such as "cpu, float32"."""
        return f"{self.device}, {str(self.tower.table.dtype).removeprefix('torch.')}"

    @property
    def width(self) -> int:
        return self.config.width

    @property
    def room(self) -> int:
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
        self.check_length(len(ids))
        return ids

    def check_length(self, tokens: int) -> None:
        if tokens > self.room:
            raise without_room(tokens, self.name, self.room)

    def embed(self, ids: Sequence[int]) -> Tensor:
        """(len(ids), w) token embeddings, float32."""
        return self.tower.table[torch.as_tensor(ids, dtype=torch.long, device=self.device)].float()

    def frame(self, rows: Sequence[Row]) -> Frame:
        """Rows made ready for encoding; raises PromptError for one that does not fit into the context."""
        for row in rows:
            self.check_length(len(row))
        return Frame(self, rows)

    @torch.no_grad()
    def encode(self, texts: str | Sequence[str]) -> Tensor:
        """(len(texts), e) pooled embeddings, float32 unit vectors. Raises PromptError for a text longer than the context."""
        texts = [texts] if isinstance(texts, str) else texts
        return self.encode_rows([self.tokenize(text) for text in texts])

    @torch.no_grad()
    def encode_rows(self, rows: Sequence[Row], soft: Tensor | None = None, unit: bool = True, batch: int = 64) -> Tensor:
        """(len(rows), e) pooled embeddings of rows, their soft tokens taken from `soft` (k, w)."""
        if not rows:
            return torch.empty(0, self.config.embed_dim, device=self.device)
        # rows of like length together: each batch is as long as its longest
        order = sorted(range(len(rows)), key=lambda i: len(rows[i])) if len(rows) > batch else list(range(len(rows)))
        found = torch.empty(len(rows), self.config.embed_dim, device=self.device)
        for start in range(0, len(rows), batch):
            part = order[start : start + batch]
            outputs = self.frame([rows[i] for i in part]).outputs(None if soft is None else soft.unsqueeze(0)).squeeze(0)
            found[part] = F.normalize(outputs, dim=-1) if unit else outputs
        return found


class Frame:
    """Rows with their constant part embedded; `outputs` and `read` put soft tokens in and run the tower."""

    def __init__(self, encoder: TextEncoder, rows: Sequence[Row]) -> None:
        tower, config, specials = encoder.tower, encoder.config, encoder.specials
        self.tower = tower
        full = [[*specials.start, *row, *specials.end] for row in rows]
        longest = max(map(len, full))
        if config.pooling == "cls":
            # open_clip masks each key by the token before it, so the first pad is seen and must be there
            longest = min(longest + 1, config.context)
        n = longest if config.short else config.context
        ids = torch.tensor([[*row, *[specials.pad] * (n - len(row))] for row in full])
        # (b, m) which of the positions after the start tokens are a row's own, neither end nor pad
        self.words = torch.arange(max(map(len, rows))) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
        self.first = len(specials.start)
        self.at = pooled_position(ids, tower, specials)
        self.mask = cls_mask(ids, specials.pad) if config.pooling == "cls" else None
        soft = ids < 0
        self.slots = soft.nonzero()  # (number of slots, 2): row and position
        self.which = -1 - ids[soft]  # which soft token stands there
        words = (~soft).unsqueeze(-1).to(encoder.device)
        self.x = tower.table[ids.clamp(min=0).to(encoder.device)] * words + tower.positions[:n]
        if tower.cls is not None:
            last = (tower.cls + tower.positions[config.context]).expand(len(rows), 1, -1)
            self.x = torch.cat([self.x, last], dim=1)
        for name in ("at", "mask", "slots", "which", "words"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value.to(encoder.device))

    def _fill(self, soft: Tensor | None) -> tuple[Tensor, int]:
        """(r x b, n, w) embedded rows with their soft tokens in place, and r."""
        if soft is None:
            return self.x, 1
        r = soft.shape[0]
        x = self.x.expand(r, *self.x.shape)
        if len(self.which):
            rows, positions = self.slots.T
            # a product with ones and zeros: the gradient of an index that repeats is summed in no fixed order
            chosen = F.one_hot(self.which, soft.shape[1]).to(x.dtype) @ soft.to(x.dtype)
            there = (torch.arange(r, device=x.device).unsqueeze(1), rows, positions)
            x = x.index_put(there, chosen + self.x[rows, positions])
        return x.flatten(0, 1), r

    def outputs(self, soft: Tensor | None = None) -> Tensor:
        """(r, b, e) in float32 for `soft` (r, k, w), not of unit length; gradients flow to `soft`."""
        x, r = self._fill(soft)
        mask = None if self.mask is None else self.mask.repeat(r, 1, 1, 1)
        return outputs(self.tower, x, self.at.repeat(r), mask).float().view(r, len(self.words), -1)

    def read(self, soft: Tensor | None, reads: Reads) -> Read:
        """`outputs`, and what a family of diffusion models `reads` beside them, in one pass that computes no more than that.

        `soft` (r, k, w) as for `outputs`; gradients flow to it.
        """
        x, r = self._fill(soft)
        mask = None if self.mask is None else self.mask.repeat(r, 1, 1, 1)
        return read_states(self.tower, x, self.at.repeat(r), mask, reads, (r, len(self.words)), self.words, self.first)


class Read(NamedTuple):
    """outputs (r, b, e) as of `Frame.outputs`; states (r, b, m, w), of which `words` (b, m) or (r, b, m) says which are a row's own.

    Start, end and pads are left out. A family that reads one vector has one state, at the end token.
    """

    outputs: Tensor
    states: Tensor
    words: Tensor


def read_states(
    tower: Tower, x: Tensor, at: Tensor, mask: Tensor | None, reads: Reads, shape: tuple[int, int], words: Tensor, first: int
) -> Read:
    """What a family `reads` of embedded rows `x` (r x b, n, w), `shape` being (r, b), whose own positions begin at `first`."""
    (r, b), m = shape, words.shape[-1]
    states = tower.states(x, mask, len(tower.blocks) - 1)
    if reads.last and not reads.pooled:
        states = block_forward(states, tower.blocks[-1], tower.config, mask)
        pooled = tower.final_norm(states[torch.arange(r * b, device=at.device), at])
    else:
        pooled = tower.pooled(states, at, mask)
    outputs = tower.project(pooled).float().view(r, b, -1)
    if reads.pooled:
        if tower.config.pooling not in AT_THE_END:
            end = first + words.sum(-1)  # the end token stands right behind a row's own
            pooled = tower.pooled(states, end.expand(r, b).flatten(), mask)
        return Read(outputs, pooled.float().view(r, b, 1, -1), torch.ones_like(words[..., :1]))
    states = states[:, first : first + m]
    states = tower.final_norm(states) if reads.normed else states
    return Read(outputs, states.float().reshape(r, b, m, -1), words)


def pooled_position(ids: Tensor, tower: Tower, specials: Specials) -> Tensor:
    """(b,) where open_clip reads the pooled embedding of each row of ids (b, n); text may hold an end token of its own."""
    rows, n = ids.shape
    match tower.config.pooling:
        case "argmax":
            return (ids == ids.max(dim=1, keepdim=True).values).int().argmax(dim=1)
        case "eos":
            return (ids == specials.end[0]).int().argmax(dim=1)
        case "first":
            return torch.zeros(rows, dtype=torch.long)
        case "last":
            return torch.full((rows,), n - 1)
        case "cls":
            return torch.full((rows,), n)


def cls_mask(ids: Tensor, pad: int) -> Tensor:
    """(b, 1, n + 1, n + 1) causal mask of CoCa, whose padding mask is shifted by one position, as its weights were trained."""
    b, n = ids.shape
    keys = torch.cat([torch.ones(b, 1, dtype=torch.bool), ids != pad], dim=1)
    causal = torch.ones(n + 1, n + 1, dtype=torch.bool).tril()
    return (causal & keys.unsqueeze(1)).unsqueeze(1)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine along the last dimension, broadcast over the others."""
    return (F.normalize(a, dim=-1) * F.normalize(b, dim=-1)).sum(-1)
