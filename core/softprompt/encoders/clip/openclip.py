"""Load open_clip models: keep the text tower, compare its embeddings with open_clip's, and free the rest.

Importing this module does not import open_clip (5-8 s); loading a model does. Code that comes with a model is never
run: every library call forbids it, and no library can prompt the user to allow it.

pyproject.toml excludes open_clip 4. To support it, this package needs a tower for `text_arch: "modern"` (rotary
positions, RMSNorm, gated MLPs, masked pooling), the new text settings in model_folder.py, and a review of every
open_clip function that this module calls. open_clip 4 removes `load_openai_model`, which this module does not call.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from softprompt.encoders.base import OnStage, PromptTokenizer, SpecialTokens, is_readable
from softprompt.encoders.catalog import LOCAL_PREFIX, check_open_clip, resolve
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.encoders.clip.transformer import Activation, Block, Pooling, TextTransformer, TextTransformerConfig
from softprompt.encoders.model_folder import (
    ModelFolder,
    check_weights,
    find_code_reference,
    find_weights,
    local_folder,
    read_folder,
    unsafe_pickle,
)
from softprompt.encoders.unattended import unattended
from softprompt.errors import (
    ModelUnavailable,
    SoftPromptError,
    command,
    describe_error,
    describe_error_with_type,
    model_not_supported,
    shorten,
    wording,
)

if TYPE_CHECKING:
    from softprompt.encoders.catalog import ModelInfo
    from softprompt.encoders.download import OnBytes

TOLERANCE = 1e-4  # largest difference from open_clip in any component of the unit embedding, in float32
INSTALL_HINT = "pip install transformers"


def extract_tower(name: str, model: nn.Module) -> TextTransformer:
    """Return the text tower of an open_clip model. Its tensors are views of the model's weights.

    Raises:
        ModelRefused: `TextTransformer` does not support this architecture.
    """
    text: Any = getattr(model, "text", model)
    transformer: Any = getattr(text, "transformer", None)
    if not hasattr(text, "token_embedding") or not hasattr(transformer, "resblocks"):
        raise model_not_supported(name, f"its text tower, {type(text).__name__}, does not accept token embeddings")
    blocks = list(transformer.resblocks)
    if not blocks or any(type(block).__name__ != "ResidualAttentionBlock" for block in blocks):
        raise model_not_supported(name, f"its text blocks are {type(blocks[0]).__name__ if blocks else 'missing'}")
    if getattr(text, "use_pad_mask", False) or getattr(text, "correct_cls_mask", False):
        raise model_not_supported(name, "its attention mask depends on padding")
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
        activation=_read_activation(name, blocks[0].mlp.gelu),
        causal=_is_causal(name, text.attn_mask),
        pooling="cls" if cls is not None else _read_pooling(name, text),
        norm_eps=text.ln_final.eps,
    )
    return TextTransformer(
        config=config,
        table=text.token_embedding.weight,
        positions=text.positional_embedding,
        blocks=[_convert_block(name, block) for block in blocks],
        norm_weight=text.ln_final.weight,
        norm_bias=text.ln_final.bias,
        projection=projection,
        projection_bias=bias,
        cls=cls,
    )


def _read_activation(name: str, module: nn.Module) -> Activation:
    if type(module).__name__ == "QuickGELU":
        return "quick_gelu"
    if isinstance(module, nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    raise model_not_supported(name, f"its activation is {type(module).__name__}")


def _is_causal(name: str, mask: Tensor | None) -> bool:
    if mask is None:
        return False
    if not torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1)):
        raise model_not_supported(name, "its attention mask is not causal")
    return True


def _read_pooling(name: str, text: Any) -> Pooling:
    # this setting is called text_pool_type in open_clip's CLIP class and pool_type in its text towers
    pooling: Pooling = getattr(text, "text_pool_type", None) or text.pool_type
    if pooling not in ("argmax", "eos", "first", "last"):
        raise model_not_supported(name, f"its pooling is {pooling!r}")
    return pooling


def _convert_block(name: str, block: Any) -> Block:
    attention, mlp = block.attn, block.mlp
    if attention.in_proj_weight is None or attention.bias_k is not None:
        raise model_not_supported(name, "its attention has separate weights or extra biases for keys and values")
    scales = [getattr(scale, "gamma", None) for scale in (block.ls_1, block.ls_2)]
    outs = []
    for linear, scale in zip((attention.out_proj, mlp.c_proj), scales, strict=True):
        # a layer scale is linear, so it can be folded into the preceding weights
        outs += (
            [linear.weight, linear.bias] if scale is None else [linear.weight * scale.unsqueeze(1), linear.bias * scale]
        )
    return Block(
        block.ln_1.weight, block.ln_1.bias, attention.in_proj_weight, attention.in_proj_bias, outs[0], outs[1],
        block.ln_2.weight, block.ln_2.bias, mlp.c_fc.weight, mlp.c_fc.bias, outs[2], outs[3],
    )  # fmt: skip


class TransformersTokenizer:
    """A Hugging Face tokenizer with open_clip's text normalization."""

    def __init__(self, name: str, wrapped: Any) -> None:
        if wrapped.tokenizer_mode:
            raise model_not_supported(name, f"its tokenizer has the mode {wrapped.tokenizer_mode!r}")
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


def _detect_specials(name: str, wrapped: Any, tokenizer: TransformersTokenizer, context: int) -> SpecialTokens:
    """Find the special tokens in a tokenizer's output, and check the result on texts of several lengths."""
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
            raise model_not_supported(
                name, "its tokenizer adds special tokens in a way that this version does not support"
            )
    return specials


def load_tokenizer(
    name: str, text_cfg: dict[str, Any], folder: Path | None = None
) -> tuple[PromptTokenizer, SpecialTokens]:
    """Load the tokenizer and the special tokens for an open_clip text configuration.

    Args:
        folder: the folder of a local model; it must contain the tokenizer's files too.
    """
    settings = dict(text_cfg.get("tokenizer_kwargs") or {})
    is_clip = not text_cfg.get("hf_tokenizer_name")
    # other settings drop words at random, or reach transformers, where trust_remote_code runs code from the folder
    unknown = set(settings) - {"clean", "additional_special_tokens" if is_clip else "strip_sep_token"}
    if unknown:
        raise model_not_supported(name, f"its tokenizer has unsupported settings: {', '.join(sorted(unknown))}")
    if is_clip:
        try:
            _check_special_tokens(settings.get("additional_special_tokens", ()))
            tokenizer = Tokenizer(settings.get("clean", "lower"), settings.get("additional_special_tokens", ()))
        except ValueError as error:
            raise model_not_supported(name, f"its tokenizer has an invalid setting: {error}") from error
        return tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,))
    source = folder or text_cfg["hf_tokenizer_name"]
    if folder and (file := find_code_reference(folder)):
        raise model_not_supported(name, f"its {file} refers to Python code (auto_map). Code in a model is never run")
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ModelUnavailable(
            f"the tokenizer of {name} needs the transformers package. Run {INSTALL_HINT}."
        ) from error
    from open_clip.tokenizer import HFTokenizer

    context = text_cfg.get("context_length", 77)
    try:
        with unattended():
            wrapped = HFTokenizer(
                str(source), context, tokenizer_mode=text_cfg.get("tokenizer_mode"), trust_remote_code=False, **settings
            )
            adapted = TransformersTokenizer(name, wrapped)
            return adapted, _detect_specials(name, wrapped, adapted, context)
    except SoftPromptError:
        raise
    except Exception as error:  # transformers raises errors of any type; add the model's name
        if "trust_remote_code" in str(error):
            raise model_not_supported(name, "its tokenizer is Python code. Code in a model is never run") from error
        pull = command(f"models pull {name}", f"softprompt.load_encoder({name!r})")
        hint = "Put its files in the same folder" if folder else f"Connect to a network and run {pull} to download it"
        raise ModelUnavailable(
            f"the tokenizer of {name} ({text_cfg['hf_tokenizer_name']}) cannot be loaded: "
            f"{describe_error_with_type(error)}. {hint}."
        ) from error


def _check_special_tokens(tokens: object) -> None:
    """Raise ValueError for a special token that changes the regular expression into which open_clip inserts it."""
    if not isinstance(tokens, list | tuple) or not all(
        isinstance(token, str) and re.fullmatch(r"[\w<>/-]+", token) for token in tokens
    ):
        raise ValueError(
            f"additional_special_tokens is {shorten(repr(tokens))}; it must be a list of words such as <mask>"
        )


def check_tokenizer_fits(
    name: str, text_cfg: dict[str, Any], tokenizer: PromptTokenizer, specials: SpecialTokens
) -> None:
    """Raise ModelRefused if the tower has too few token embeddings or positions for its tokenizer."""
    rows, context = text_cfg.get("vocab_size", 49408), text_cfg.get("context_length", 77)
    if rows < len(tokenizer):
        raise model_not_supported(
            name, f"it has {rows:,} token embeddings, but its tokenizer has {len(tokenizer):,} tokens"
        )
    highest = max(*specials.start, *specials.end, specials.pad)
    if highest >= rows:
        raise model_not_supported(
            name, f"it has {rows:,} token embeddings, but its start, end or padding token has the id {highest:,}"
        )
    reserved = len(specials.start) + len(specials.end)
    if context <= reserved:
        raise model_not_supported(
            name, f"its context length of {context} leaves no room for a prompt besides {reserved} start and end tokens"
        )


def build_encoder(name: str, model: nn.Module, tokenizer: PromptTokenizer, specials: SpecialTokens) -> TextEncoder:
    """Build a text encoder from an open_clip model.

    Raises:
        ModelRefused: the architecture is not supported, no token can be shown and typed, or the embeddings differ from
            the results of `model.encode_text`.
    """
    tower = extract_tower(name, model).to(torch.device("cpu"), torch.float32)
    encoder = TextEncoder(name, tower, tokenizer, specials)
    if not any(is_readable(tokenizer.piece(i)) for i in encoder.ordinary_ids.tolist()):
        raise model_not_supported(name, "its tokenizer has no token that can be shown and typed")
    ids = encoder.ordinary_ids[:: max(1, len(encoder.ordinary_ids) // 64)].tolist()
    rows = [ids[:1], ids[1:8], ids[8 : 8 + encoder.max_prompt_tokens]]
    full = [[*specials.start, *row, *specials.end] for row in rows]
    padded = torch.tensor([[*row, *[specials.pad] * (tower.config.context - len(row))] for row in full])
    with torch.no_grad():
        reference: Tensor = model.encode_text(padded)  # type: ignore[operator]
        outputs = encoder.batch_rows(rows).outputs().squeeze(0)
    difference = float((F.normalize(reference.float(), dim=-1) - F.normalize(outputs, dim=-1)).abs().max())
    if not difference <= TOLERANCE:
        raise model_not_supported(name, f"its embeddings differ from open_clip's by {difference:.1g}")
    return encoder


def load(
    name: str,
    config: dict[str, Any],
    weights: Callable[[], Path],
    folder: ModelFolder | None = None,
    on_stage: OnStage = lambda _stage: None,
) -> TextEncoder:
    """Load an open_clip model, keeping only its text tower.

    Args:
        config: open_clip's `model_cfg`.
        weights: returns the path of the weights. It is called last, because it may download gigabytes.
        folder: the folder of a local model.
    """
    text_cfg = config["text_cfg"]
    if text_cfg.get("hf_model_name"):
        raise model_not_supported(name, f"its text tower is the Hugging Face model {text_cfg['hf_model_name']}")
    on_stage("loading the tokenizer")
    tokenizer, specials = load_tokenizer(name, text_cfg, folder.path if folder else None)
    check_tokenizer_fits(name, text_cfg, tokenizer, specials)
    path = weights()
    on_stage("reading the weights")
    try:
        with unattended():
            if folder:
                check_weights(folder, path)
            model = _build_model(config, path)
    except SoftPromptError:
        raise
    except pickle.UnpicklingError as error:
        raise unsafe_pickle(name, path) from error
    except Exception as error:
        # open_clip raises RuntimeError, ValueError and OSError, and passes on errors of pickle and safetensors
        if "loading state_dict" in str(error):
            raise model_not_supported(
                name, f"its weights do not match its configuration ({describe_error(error)})"
            ) from error
        delete = wording(f"`softprompt-tui models delete {name}` deletes it", "Delete it")
        advice = "Copy it again." if folder else f"{delete}; the next load downloads it again."
        raise ModelUnavailable(
            f"{name} cannot be loaded: {describe_error_with_type(error)}. {path} may be damaged or incomplete. {advice}"
        ) from error
    on_stage("comparing its embeddings with open_clip's")
    return build_encoder(name, model, tokenizer, specials)


def _build_model(config: dict[str, Any], path: Path) -> nn.Module:
    """Build a model with open_clip, with the weights in `path`, but without its image tower.

    The weights are mapped from the file, and only the text tower's are read and copied. Measured with ViT-L-14, whose
    file has 1,711 MB: loading takes 0.6 times the file in memory and 7 s. Copying all weights into a model with random
    ones, as open_clip does, takes 1.9 times the file and 17 s.
    """
    check_open_clip()
    import open_clip

    config = deepcopy(config)
    config["vision_cfg"]["timm_model_pretrained"] = False  # timm would download weights, only to replace them
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    classes = (open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP) if custom else open_clip.CLIP
    is_array = path.suffix in (".npz", ".npy")  # open_clip copies these into the model
    with nullcontext() if is_array else _without_initialization():
        model: nn.Module = classes(**config).eval()
    if not is_array:
        model.load_state_dict = partial(model.load_state_dict, assign=True)  # type: ignore[method-assign]
    open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    model.__dict__.pop("load_state_dict", None)
    model.visual = nn.Identity()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():  # a copy: another program may change the file
            tensor.data = tensor.data.to(torch.float32, copy=True)
    return model


@contextmanager
def _without_initialization() -> Iterator[None]:
    """Leave new parameters uninitialized, because weights replace all of them. Their memory is then never used."""
    with torch._C._EnableTorchFunction(), _SkipInitialization():  # torch_settings.neutral_torch disables modes
        yield


class _SkipInitialization(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        target = args[0] if args else kwargs.get("tensor")  # functions of torch.nn.init pass it by name
        if isinstance(target, nn.Parameter) and name.endswith("_") and not name.endswith("__"):
            return target
        return function(*args, **kwargs)


def load_by_name(name: str, on_progress: OnBytes | None, on_stage: OnStage) -> TextEncoder:
    """Load an open_clip model (`MODEL/TAG`), downloading it if necessary, or a model from a `local-dir:` folder."""
    from softprompt.encoders.download import fetch

    if name.startswith(LOCAL_PREFIX):
        path = local_folder(name)
        folder = read_folder(f"{LOCAL_PREFIX}{path}", path)
        return load(folder.name, folder.config, lambda: find_weights(folder), folder, on_stage)
    on_stage("starting open_clip")  # its import takes 5 to 8 s
    info = resolve(name)
    return load(info.name, pretrained_config(info), lambda: fetch(info, on_progress), on_stage=on_stage)


def pretrained_config(info: ModelInfo) -> dict[str, Any]:
    """Return open_clip's configuration of a model, with the activation that its weights were trained with."""
    from open_clip.factory import get_model_config
    from open_clip.pretrained import get_pretrained_cfg

    model, _, tag = info.name.partition("/")
    config: dict[str, Any] = get_model_config(model)
    if get_pretrained_cfg(model, tag).get("quick_gelu"):
        config["quick_gelu"] = True
    return config
