"""The text tower gives open_clip's embeddings for every text configuration of open_clip, or rejects it by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.factory import get_model_config
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.clip import openclip
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.errors import ModelRefused

SMALL_VISION = {"image_size": 32, "patch_size": 16, "width": 64, "head_width": 32, "layers": 1}
SMALL_DECODER = {"layers": 1, "width": 64, "heads": 2, "vocab_size": 64}
TOLERANCE = 1e-5  # for the components of unit vectors
VOCABULARY_SIZE = 2_000  # CLIP's two special tokens are the last


def configurations() -> dict[str, dict[str, Any]]:
    """Return the first model of every distinct text configuration, reduced in size.

    The reduced models have two layers, two heads of the original size, a small vision tower and a small vocabulary. All
    other differences remain, and building one takes a tenth of the time of the full width.
    """
    by_shape: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in open_clip.list_models():
        config = get_model_config(name)
        text = config["text_cfg"]
        if "hf_model_name" in text:
            continue
        text["layers"] = 2
        text["vocab_size"] = VOCABULARY_SIZE  # the largest vocabulary has 901,629 rows of width 1,024
        settings = {key: config[key] for key in ("quick_gelu", "custom_text") if key in config}
        shape = {**settings, "embed_dim": 64, "vision_cfg": SMALL_VISION, "text_cfg": text}
        if "multimodal_cfg" in config:  # the caption decoder, which is not used
            shape["multimodal_cfg"] = {**config["multimodal_cfg"], **SMALL_DECODER}
        distinct = json.dumps({**shape, "text_cfg": {**text, "hf_tokenizer_name": None}}, sort_keys=True)
        text["width"], text["heads"] = 2 * text["width"] // text["heads"], 2
        if text.get("proj_type") == "none":
            shape["embed_dim"] = text["width"]
        by_shape.setdefault(distinct, (name, shape))
    return dict(by_shape.values())


CONFIGURATIONS = configurations()
PLAIN: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": SMALL_VISION,
    "text_cfg": {"width": 64, "heads": 2, "layers": 2},
}
HF_TOWERS = [name for name in open_clip.list_models() if "hf_model_name" in get_model_config(name)["text_cfg"]]


def specials_of(text_cfg: dict[str, Any]) -> SpecialTokens:
    """Return the special tokens that this family's tokenizer adds."""
    tokenizer = text_cfg.get("hf_tokenizer_name", "")
    if "bert" in tokenizer:
        return SpecialTokens((101,), (0,), 0)
    if "SigLIP2" in tokenizer:
        return SpecialTokens((), (1,), 0)
    if "SigLIP" in tokenizer or "mt5" in tokenizer:
        return SpecialTokens((), (1,), 1 if "SigLIP" in tokenizer else 0)
    if "xlm" in tokenizer:
        return SpecialTokens((0,), (2,), 1)
    return SpecialTokens((VOCABULARY_SIZE - 2,), (VOCABULARY_SIZE - 1,), 0)


def random_model(name: str, config: dict[str, Any], folder: Path) -> Any:
    """Build a model with random weights, including the biases and norms that open_clip initializes to 0 or 1."""
    (folder / f"test-{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    model = open_clip.create_model(f"test-{name}").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def encode(model: Any, ids: Tensor) -> Tensor:
    return F.normalize(model.encode_text(ids), dim=-1)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_text_configuration_gives_the_same_embeddings_as_open_clip(name: str, tmp_path: Path) -> None:
    config = CONFIGURATIONS[name]
    model, specials = random_model(name, config, tmp_path), specials_of(config["text_cfg"])
    tower = openclip.extract_tower(name, model)
    encoder = TextEncoder(name, tower, Tokenizer(), specials)
    rng = torch.Generator().manual_seed(1)
    rows = [
        torch.randint(3, tower.config.vocabulary - 10, (n,), generator=rng).tolist()
        for n in (1, 4, 9, encoder.max_prompt_tokens - 1, encoder.max_prompt_tokens)
        if n <= encoder.max_prompt_tokens
    ]
    if specials.start == (VOCABULARY_SIZE - 2,):
        rows.append([300, VOCABULARY_SIZE - 1, 301])  # an end token inside the prompt
        rows.append([0, 5, 0])  # "!" has the id of the padding
    context = tower.config.context
    full = [[*specials.start, *row, *specials.end] for row in rows]
    padded = torch.tensor([row + [specials.pad] * (context - len(row)) for row in full])
    with torch.no_grad():
        reference = encode(model, padded)
        ids = encoder.encode_rows(rows)
        # the same rows, with each token's embedding as a soft token
        soft = torch.stack(
            [
                encoder.encode_rows([[-1 - i for i in range(len(row))]], encoder.embed(row))[0]
                for row in rows
                if VOCABULARY_SIZE - 1 not in row and 0 not in row
            ]
        )
    torch.testing.assert_close(ids, reference, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(soft, reference[: len(soft)], atol=TOLERANCE, rtol=0)


def test_the_configurations_cover_all_kinds_of_towers() -> None:
    texts = [config["text_cfg"] for config in CONFIGURATIONS.values()]
    assert {text.get("pool_type", "argmax") for text in texts} == {"argmax", "eos", "last"}
    assert {text.get("context_length", 77) for text in texts} >= {16, 32, 64, 72, 76, 77}
    assert any(text.get("embed_cls") for text in texts)
    assert any(text.get("no_causal_mask") for text in texts)
    assert len(CONFIGURATIONS) > 25


@pytest.mark.parametrize("name", HF_TOWERS)
def test_hugging_face_towers_are_rejected_by_name(name: str) -> None:
    with pytest.raises(ModelRefused, match=f"{name}/tag is not supported: its text tower is the Hugging Face model"):
        openclip.load(
            f"{name}/tag", get_model_config(name), lambda: pytest.fail("the weights are not needed to reject the model")
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: setattr(model, "attn_mask", torch.zeros(77, 77)), "attention mask is not causal"),
        (lambda model: setattr(model, "text_pool_type", "none"), "pooling is 'none'"),
        (lambda model: setattr(model.transformer.resblocks[0].mlp, "gelu", torch.nn.ReLU()), "activation is ReLU"),
        (
            lambda model: model.transformer.resblocks[1].register_forward_hook(lambda *_: torch.zeros(3, 77, 64)),
            "differ from open_clip's",
        ),
    ],
)
def test_a_tower_with_other_embeddings_is_rejected(change: Any, reason: str, tmp_path: Path) -> None:
    model = random_model("plain", PLAIN, tmp_path)
    change(model)
    tokenizer = Tokenizer()
    with pytest.raises(ModelRefused, match=reason):
        openclip.build_encoder("a-model", model, tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,)))


def test_layer_scales_are_folded_into_the_weights(tmp_path: Path) -> None:
    config = {
        "embed_dim": 64,
        "vision_cfg": SMALL_VISION,
        "text_cfg": {"width": 64, "heads": 2, "layers": 2, "ls_init_value": 0.1},
    }
    model = random_model("scaled", config, tmp_path)
    tokenizer = Tokenizer()
    encoder = openclip.build_encoder("scaled", model, tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,)))
    ids = open_clip.SimpleTokenizer()(["a fox in snow"])
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode(["a fox in snow"]), encode(model, ids), atol=TOLERANCE, rtol=0)
