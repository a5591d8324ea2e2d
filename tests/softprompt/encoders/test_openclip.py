"""open_clip's models from disk: any `local-dir:` folder and any MODEL/TAG, with the right activation and tokenizer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

import softprompt
from softprompt.encoders import catalog, loading
from softprompt.encoders.clip import openclip
from softprompt.errors import DeviceError, ModelRefused, ModelUnavailable, UnknownModel

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "patch_size": 16, "width": 64, "head_width": 32, "layers": 1}
SENTENCE = "a fox asleep in the snow"


def local_dir(folder: Path, *, weights: bool = True, **changes: Any) -> tuple[str, Any]:
    """A folder as open_clip's local-dir: reads it, and open_clip's own model of it."""
    folder.mkdir(exist_ok=True)
    config = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT | changes.pop("text_cfg", {}), **changes}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    if weights:
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}", model


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_a_local_folder_gives_open_clips_embeddings(tmp_path: Path, quick_gelu: bool) -> None:
    name, model = local_dir(tmp_path / "model", quick_gelu=quick_gelu)
    encoder = softprompt.load_encoder(name, device="cpu")
    expected = F.normalize(model.encode_text(open_clip.SimpleTokenizer()([SENTENCE])), dim=-1)
    torch.testing.assert_close(encoder.encode([SENTENCE]), expected.detach(), atol=1e-5, rtol=0)
    assert encoder.config.activation == ("quick_gelu" if quick_gelu else "gelu")
    made = softprompt.train(encoder, SENTENCE, tokens=2, steps=20)
    assert made.model == name
    assert made.vectors.shape == (2, 64)


def test_only_the_text_tower_stays_in_memory(tmp_path: Path) -> None:
    import gc

    name, _ = local_dir(tmp_path / "model")
    encoder = softprompt.load_encoder(name, device="cpu")
    gc.collect()
    left = [
        o
        for o in gc.get_objects()
        if type(o).__name__ in ("VisionTransformer", "TextTransformer") and o is not _.visual
    ]
    assert left == []
    assert encoder.tower.parameters < 3_400_000


@pytest.mark.parametrize(
    ("tear", "error", "said"),
    [
        (lambda folder: (folder / "open_clip_config.json").unlink(), ModelUnavailable, "open_clip_config.json is not"),
        (lambda folder: (folder / "open_clip_config.json").write_text("{}"), ModelUnavailable, "model_cfg"),
        (lambda folder: (folder / "open_clip_model.safetensors").unlink(), ModelUnavailable, "cannot be loaded"),
        (
            lambda folder: (folder / "open_clip_model.safetensors").write_bytes(b"x" * 100),
            ModelUnavailable,
            "cannot be loaded",
        ),
    ],
)
def test_a_broken_folder_is_never_run_with_random_weights(tmp_path: Path, tear: Any, error: type, said: str) -> None:
    name, _ = local_dir(tmp_path / "model")
    tear(tmp_path / "model")
    with pytest.raises(error, match=said):
        softprompt.load_encoder(name)


def test_a_missing_folder_is_said() -> None:
    with pytest.raises(UnknownModel, match="there is no folder /nowhere"):
        softprompt.load_encoder("local-dir:/nowhere")


def test_a_tokenizer_that_needs_transformers_says_so_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = local_dir(tmp_path / "model")
    path = tmp_path / "model" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = str(tmp_path / "tokenizer")
    path.write_text(json.dumps(config))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelUnavailable, match=r"needs the package transformers: pip install transformers"):
        softprompt.load_encoder(name)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trust_remote_code": True}, "settings that are not known here: trust_remote_code"),
        ({"clean": "foo"}, "clean is 'foo'"),
        ({"reduction_mask": "random"}, "reduction_mask"),
    ],
)
def test_tokenizer_settings_from_a_folder_are_not_believed(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    text_cfg = {"tokenizer_kwargs": settings} | ({"hf_tokenizer_name": "x"} if "trust_remote_code" in settings else {})
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT | text_cfg}})
    )
    with pytest.raises(ModelRefused, match=said):
        softprompt.load_encoder(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("strip", [False, True])
def test_a_transformers_tokenizer_is_arranged_as_open_clip_does(tmp_path: Path, strip: bool) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing
    from transformers import PreTrainedTokenizerFast

    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a fox asleep in the snow lake dog two dogs on long beach at night , photographed from far away".split()
    inner = Tokenizer(WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer, inner.post_processor = BertPreTokenizer(), BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(tmp_path / "model")
    text_cfg = {
        "context_length": 32, "vocab_size": 64, "hf_tokenizer_name": "in-the-folder", "no_causal_mask": True,
        "pool_type": "last", "tokenizer_kwargs": {"strip_sep_token": strip},
    }  # fmt: skip
    name, model = local_dir(tmp_path / "model", text_cfg=text_cfg)
    encoder = softprompt.load_encoder(name, device="cpu")
    ids = open_clip.get_tokenizer(name)([SENTENCE])
    expected = F.normalize(model.encode_text(ids), dim=-1).detach()
    torch.testing.assert_close(encoder.encode([SENTENCE]), expected, atol=1e-5, rtol=0)
    assert encoder.max_prompt_tokens == 30
    made = softprompt.train(encoder, SENTENCE, tokens=2, steps=20)
    assert set(made.readout_text.split()) <= set(words)


@pytest.fixture
def _kept(home: Path, kept_models: Path) -> None:
    home.mkdir()
    (home / "cache").symlink_to(kept_models)


@pytest.mark.usefixtures("_kept")
def test_the_built_in_model_is_known_in_any_case() -> None:
    assert softprompt.load_encoder("Mini").name == "mini"


@pytest.mark.usefixtures("_kept")
def test_names_resolve_as_open_clip_spells_them_and_with_the_right_activation() -> None:
    assert loading.resolve("vit-b-32/laion2b-s34b-b79k").name == "ViT-B-32/laion2b_s34b_b79k"
    # open_clip would build the plain gelu for these weights, and only warn
    assert loading.resolve("ViT-L-14/openai").name == "ViT-L-14-quickgelu/openai"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-L-14/opena", "ViT-L-14/laion2b_s32b_b82k"),
        ("ViT-B-32", "names no weights .* ViT-B-32/openai"),
        ("VitL14/openai", "Close: .*ViT-L-14"),
        ("minni", "Close: mini"),
        ("qqqqqqq", "`softprompt-tui models` lists all"),
    ],
)
def test_an_unknown_model_is_answered_with_close_matches(name: str, said: str) -> None:
    with pytest.raises(UnknownModel, match=said):
        softprompt.load_encoder(name)


def test_the_catalogue_is_kept_and_made_again_when_broken(home: Path) -> None:
    catalog.list_models.cache_clear()
    first = catalog.list_models()
    kept = next((home / "cache").glob("models-*.json"))
    catalog.list_models.cache_clear()
    assert catalog.list_models() == first
    kept.write_text("[{]")
    catalog.list_models.cache_clear()
    assert catalog.list_models() == first
    assert {info.name for info in first} == {"mini", *(f"{m}/{t}" for m, t in open_clip.list_pretrained())}


def test_the_catalogues_sizes_are_the_towers(tmp_path: Path) -> None:
    info = next(info for info in catalog.list_models() if info.name == "ViT-B-32/openai")
    model = open_clip.create_model("ViT-B-32")
    tower = openclip.tower_of("ViT-B-32", model)
    assert (info.width, info.layers, info.context, info.parameters) == (512, 12, 77, tower.parameters)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        *((name, "is not on this machine; it has cpu") for name in ("cuda:99", "cpu:1")),
        *((name, "it can be auto, cpu, cuda, cuda:1 or mps") for name in ("tpu", "cuda:x", "")),
    ],
)
def test_a_device_that_is_not_there_is_said(device: str, said: str) -> None:
    with pytest.raises(DeviceError, match=said):
        softprompt.load_encoder("mini", device=device)
