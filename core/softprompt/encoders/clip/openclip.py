"""open_clip's models as text encoders: their text tower taken out, checked against open_clip itself, and the rest let go.

Importing this module is cheap; open_clip (5-8 s) is imported when a model is loaded. No library may run code that comes
with a model: each is told so, and none can ask.

pyproject.toml keeps open_clip 4 out. Support for it needs a tower for `text_arch: "modern"` (rotary positions, RMSNorm,
gated MLPs, masked pooling), its new text settings in model_folder.py, and a look at every function of open_clip's that is
used here; `load_openai_model`, which it removes, is not one of them.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from softprompt.encoders.base import PromptTokenizer, SpecialTokens, readable
from softprompt.encoders.catalog import LOCAL, resolve
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.encoders.clip.transformer import Activation, Block, Pooling, TextTransformer, TextTransformerConfig
from softprompt.encoders.model_folder import (
    ModelFolder,
    check_weights,
    find_weights,
    holds_code,
    local_folder,
    named_code,
    read_folder,
)
from softprompt.errors import ModelUnavailable, SoftPromptError, not_supported, reason, shortened, typed_reason

if TYPE_CHECKING:
    from softprompt.encoders.catalog import ModelInfo
    from softprompt.encoders.download import OnBytes

TOLERANCE = 1e-4  # of a unit vector's components, between open_clip's forward and ours, in float32
EXTRA = "pip install transformers"
RUNS_PICKLES = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def tower_of(name: str, model: nn.Module) -> TextTransformer:
    """The text tower of an open_clip model, as views of its weights. Raises ModelRefused for one built otherwise than ours."""
    text: Any = getattr(model, "text", model)
    transformer: Any = getattr(text, "transformer", None)
    if not hasattr(text, "token_embedding") or not hasattr(transformer, "resblocks"):
        raise not_supported(
            name, f"its text tower is a {type(text).__name__}, which cannot be run from token embeddings here"
        )
    blocks = list(transformer.resblocks)
    if not blocks or any(type(block).__name__ != "ResidualAttentionBlock" for block in blocks):
        raise not_supported(name, f"its text blocks are {type(blocks[0]).__name__ if blocks else 'missing'}")
    if getattr(text, "use_pad_mask", False) or getattr(text, "correct_cls_mask", False):
        raise not_supported(name, "its attention is masked by padding")
    projection: Any = text.text_projection
    bias: Tensor | None = None
    if isinstance(projection, nn.Linear):
        projection, bias = projection.weight.T, projection.bias
    cls = getattr(text, "cls_emb", None)
    width = text.ln_final.weight.shape[0]
    config = TextTransformerConfig(
        width=width,
        heads=blocks[0].attn.num_heads,
        layers=len(blocks),
        context=text.context_length,
        vocabulary=text.token_embedding.num_embeddings,
        embed_dim=width if projection is None else projection.shape[1],
        mlp_width=blocks[0].mlp.c_fc.out_features,
        activation=_activation(name, blocks[0].mlp.gelu),
        causal=_causal(name, text.attn_mask),
        pooling="cls" if cls is not None else _pooling(name, text),
        norm_eps=text.ln_final.eps,
    )
    return TextTransformer(
        config=config,
        table=text.token_embedding.weight,
        positions=text.positional_embedding,
        blocks=[_block(name, block) for block in blocks],
        norm_weight=text.ln_final.weight,
        norm_bias=text.ln_final.bias,
        projection=projection,
        projection_bias=bias,
        cls=cls,
    )


def _activation(name: str, module: nn.Module) -> Activation:
    if type(module).__name__ == "QuickGELU":
        return "quick_gelu"
    if isinstance(module, nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    raise not_supported(name, f"its activation is {type(module).__name__}")


def _causal(name: str, mask: Tensor | None) -> bool:
    if mask is None:
        return False
    if not torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1)):
        raise not_supported(name, "its attention mask is neither causal nor none")
    return True


def _pooling(name: str, text: Any) -> Pooling:
    # open_clip's CLIP class keeps the tower's fields under other names
    pooling: Pooling = getattr(text, "text_pool_type", None) or text.pool_type
    if pooling not in ("argmax", "eos", "first", "last"):
        raise not_supported(name, f"its pooling is {pooling!r}")
    return pooling


def _block(name: str, block: Any) -> Block:
    attention, mlp = block.attn, block.mlp
    if attention.in_proj_weight is None or attention.bias_k is not None:
        raise not_supported(name, "its attention has separate or added key and value weights")
    scales = [getattr(scale, "gamma", None) for scale in (block.ls_1, block.ls_2)]
    outs = []
    for linear, scale in zip((attention.out_proj, mlp.c_proj), scales, strict=True):
        # a layer scale is linear: it can stand in the weights before it
        outs += (
            [linear.weight, linear.bias] if scale is None else [linear.weight * scale.unsqueeze(1), linear.bias * scale]
        )
    return Block(
        block.ln_1.weight, block.ln_1.bias, attention.in_proj_weight, attention.in_proj_bias, outs[0], outs[1],
        block.ln_2.weight, block.ln_2.bias, mlp.c_fc.weight, mlp.c_fc.bias, outs[2], outs[3],
    )  # fmt: skip


class TransformersTokenizer:
    """A Hugging Face tokenizer as open_clip wraps it, with the same normalisation."""

    def __init__(self, name: str, wrapped: Any) -> None:
        if wrapped.tokenizer_mode:
            raise not_supported(name, f"its tokenizer has the mode {wrapped.tokenizer_mode!r}")
        self._inner, self._clean = wrapped.tokenizer, wrapped.clean_fn
        self.special_ids = frozenset(self._inner.all_special_ids)
        self.reserved_ids = self.special_ids - {self._inner.unk_token_id}
        ordinary = (i for i in self._inner.get_vocab().values() if i not in self.reserved_ids)
        self._length = max(ordinary, default=-1) + 1

    def __len__(self) -> int:
        return self._length

    def encode(self, text: str) -> list[int]:
        return list(self._inner(self._clean(text), add_special_tokens=False).input_ids)

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._inner.decode(list(ids)))

    def piece(self, token: int) -> str:
        return self.decode([token])


def _specials(name: str, wrapped: Any, tokenizer: TransformersTokenizer, context: int) -> SpecialTokens:
    """What the wrapped tokenizer puts around a text, read off its output and checked on texts of several lengths."""
    full = wrapped("lake", context_length=context)[0].tolist()
    content = tokenizer.encode("lake")
    begin = next((i for i in range(len(full)) if full[i : i + len(content)] == content), 0)
    ends = wrapped.tokenizer.num_special_tokens_to_add() - begin
    after = begin + len(content)
    specials = SpecialTokens(tuple(full[:begin]), tuple(full[after : after + ends]), full[-1])
    for text in ("", "a dog", "two dogs on a long beach at night, photographed from far away"):
        row = [*specials.start, *tokenizer.encode(text), *specials.end]
        row += [specials.pad] * (context - len(row))
        if len(row) == context and row != wrapped(text, context_length=context)[0].tolist():
            raise not_supported(name, "its tokenizer arranges a prompt in a way that is not known here")
    return specials


def tokenizer_of(
    name: str, text_cfg: dict[str, Any], folder: Path | None = None
) -> tuple[PromptTokenizer, SpecialTokens]:
    """The tokenizer that an open_clip text configuration asks for, and what it puts around a prompt.

    A `folder` is where a model of its own has its tokenizer's files, if it needs any.
    """
    settings = dict(text_cfg.get("tokenizer_kwargs") or {})
    own = not text_cfg.get("hf_tokenizer_name")
    # others would drop words at random, or reach transformers, where trust_remote_code runs what stands in a folder
    unknown = set(settings) - {"clean", "additional_special_tokens" if own else "strip_sep_token"}
    if unknown:
        raise not_supported(name, f"its tokenizer has settings that are not known here: {', '.join(sorted(unknown))}")
    if own:
        try:
            _check_special(settings.get("additional_special_tokens", ()))
            tokenizer = Tokenizer(settings.get("clean", "lower"), settings.get("additional_special_tokens", ()))
        except ValueError as error:
            raise not_supported(name, f"its tokenizer has a setting that is not known here: {error}") from error
        return tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,))
    source = folder or text_cfg["hf_tokenizer_name"]
    if folder and (file := named_code(folder)):
        raise not_supported(name, f"its {file} names Python code (auto_map), and code in a model is never run")
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ModelUnavailable(f"{name} has a tokenizer that needs the package transformers: {EXTRA}") from error
    from open_clip.tokenizer import HFTokenizer

    context = text_cfg.get("context_length", 77)
    try:
        with unattended():
            wrapped = HFTokenizer(
                str(source), context, tokenizer_mode=text_cfg.get("tokenizer_mode"), trust_remote_code=False, **settings
            )
            adapted = TransformersTokenizer(name, wrapped)
            return adapted, _specials(name, wrapped, adapted, context)
    except SoftPromptError:
        raise
    except (
        Exception
    ) as error:  # transformers raises whatever its parts raise; the reader needs the model's name and the cause
        if "trust_remote_code" in str(error):
            raise not_supported(name, "its tokenizer is Python code, and code in a model is never run") from error
        pull = f"with a network, `softprompt-tui models pull {name}` fetches it"
        hint = "its files belong into the same folder" if folder else pull
        raise ModelUnavailable(
            f"the tokenizer of {name} ({text_cfg['hf_tokenizer_name']}) cannot be loaded: {typed_reason(error)}; {hint}"
        ) from error


def _check_special(tokens: object) -> None:
    """Raise ValueError for special tokens that open_clip, which makes a pattern of them as they are, would misread."""
    if not isinstance(tokens, list | tuple) or not all(
        isinstance(t, str) and re.fullmatch(r"[\w<>/-]+", t) for t in tokens
    ):
        raise ValueError(
            f"additional_special_tokens is {shortened(repr(tokens))}; it can be a list of words such as <mask>"
        )


@contextmanager
def unattended() -> Iterator[None]:
    """Let a library read a model without asking anybody: standard input is at its end, and what it prints is dropped.

    Parts of transformers load other tokenizers without passing on what they were told, and would ask. The environment
    variable that makes torch run pickles where a caller says nothing does not count meanwhile.
    """
    stdin, sys.stdin = sys.stdin, io.StringIO()
    forced = os.environ.pop(RUNS_PICKLES, None)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.stdin = stdin
        if forced is not None:
            os.environ[RUNS_PICKLES] = forced


def check_fits(name: str, text_cfg: dict[str, Any], tokenizer: PromptTokenizer, specials: SpecialTokens) -> None:
    """Raise ModelRefused for a tower that cannot read what its tokenizer writes."""
    rows, context = text_cfg.get("vocab_size", 49408), text_cfg.get("context_length", 77)
    if rows < len(tokenizer):
        raise not_supported(name, f"the model has {rows:,} token rows, its tokenizer {len(tokenizer):,}")
    highest = max(*specials.start, *specials.end, specials.pad)
    if highest >= rows:
        raise not_supported(
            name, f"the model has {rows:,} token rows, and its start, end or padding token is {highest:,}"
        )
    around = len(specials.start) + len(specials.end)
    if context <= around:
        raise not_supported(
            name, f"its context of {context} has no room for a prompt beside {around} start and end tokens"
        )


def encoder_of(name: str, model: nn.Module, tokenizer: PromptTokenizer, specials: SpecialTokens) -> TextEncoder:
    """A text encoder of `model`'s text tower that was seen to agree with `model.encode_text`. Raises ModelRefused."""
    tower = tower_of(name, model).to(torch.device("cpu"), torch.float32)
    encoder = TextEncoder(name, tower, tokenizer, specials)
    if not any(readable(tokenizer.piece(i)) for i in encoder.ordinary_ids.tolist()):
        raise not_supported(name, "its tokenizer has no token that can be read and typed")
    ids = encoder.ordinary_ids[:: max(1, len(encoder.ordinary_ids) // 64)].tolist()
    rows = [ids[:1], ids[1:8], ids[8 : 8 + encoder.max_prompt_tokens]]
    full = [[*specials.start, *row, *specials.end] for row in rows]
    padded = torch.tensor([[*row, *[specials.pad] * (tower.config.context - len(row))] for row in full])
    with torch.no_grad():
        reference: Tensor = model.encode_text(padded)  # type: ignore[operator]
        ours = encoder.batch_rows(rows).outputs().squeeze(0)
    difference = float((F.normalize(reference.float(), dim=-1) - F.normalize(ours, dim=-1)).abs().max())
    if not difference <= TOLERANCE:
        raise not_supported(name, f"its embeddings differ from open_clip's by {difference:.1g}")
    return encoder


def load(
    name: str, config: dict[str, Any], weights: Callable[[], Path], folder: ModelFolder | None = None
) -> TextEncoder:
    """Load an open_clip model from its `config` and keep its text tower only.

    `weights` is asked for last: it may download gigabytes, and what else is missing is known by then.
    """
    text_cfg = config["text_cfg"]
    if text_cfg.get("hf_model_name"):
        raise not_supported(name, f"its text tower is the Hugging Face model {text_cfg['hf_model_name']}")
    tokenizer, specials = tokenizer_of(name, text_cfg, folder.path if folder else None)
    check_fits(name, text_cfg, tokenizer, specials)
    path = weights()
    try:
        with unattended():
            if folder:
                check_weights(folder, path)
            model = _model(config, path)
    except SoftPromptError:
        raise
    except pickle.UnpicklingError as error:
        raise holds_code(name, path) from error
    except (
        Exception
    ) as error:  # open_clip raises RuntimeError, ValueError, OSError, pickle's and safetensors' own errors
        if "loading state_dict" in str(error):
            raise not_supported(name, f"its weights do not fit its configuration ({reason(error)})") from error
        raise ModelUnavailable(f"{name} cannot be loaded: {typed_reason(error)}") from error
    return encoder_of(name, model, tokenizer, specials)


def _model(config: dict[str, Any], path: Path) -> nn.Module:
    """The whole model as open_clip builds it of this configuration, with the weights in `path`."""
    import open_clip

    config = deepcopy(config)
    config["vision_cfg"]["timm_model_pretrained"] = False  # weights of its own would be fetched, and then replaced
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    classes = (open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP) if custom else open_clip.CLIP
    model: nn.Module = classes(**config).eval()
    open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    return model


def load_by_name(name: str, on_progress: OnBytes | None) -> TextEncoder:
    """A `MODEL/TAG` of open_clip, fetched if it is not here, or a `local-dir:` folder."""
    from softprompt.encoders.download import fetch

    if name.startswith(LOCAL):
        path = local_folder(name)
        folder = read_folder(f"{LOCAL}{path}", path)
        return load(folder.name, folder.config, lambda: find_weights(folder), folder)
    info = resolve(name)
    return load(info.name, known_config(info), lambda: fetch(info, on_progress))


def known_config(info: ModelInfo) -> dict[str, Any]:
    """open_clip's configuration of a model that it knows by name, with the activation of its weights."""
    from open_clip.factory import get_model_config
    from open_clip.pretrained import get_pretrained_cfg

    model, _, tag = info.name.partition("/")
    config: dict[str, Any] = get_model_config(model)
    if get_pretrained_cfg(model, tag).get("quick_gelu"):
        config["quick_gelu"] = True
    return config
