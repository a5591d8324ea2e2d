"""Loading open_clip models: `local-dir:` folders and MODEL/TAG, with the right activation and tokenizer."""

from __future__ import annotations

import builtins
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


def write_model_folder(folder: Path, *, weights: bool = True, **changes: Any) -> tuple[str, Any]:
    """Write a model folder. Return its `local-dir:` name and open_clip's own model of it."""
    folder.mkdir(exist_ok=True)
    config = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT | changes.pop("text_cfg", {}), **changes}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    if weights:
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}", model


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_a_local_folder_gives_the_same_embeddings_as_open_clip(tmp_path: Path, quick_gelu: bool) -> None:
    name, model = write_model_folder(tmp_path / "model", quick_gelu=quick_gelu)
    encoder = softprompt.load_encoder(name, device="cpu")
    expected = F.normalize(model.encode_text(open_clip.SimpleTokenizer()([SENTENCE])), dim=-1)
    torch.testing.assert_close(encoder.encode([SENTENCE]), expected.detach(), atol=1e-5, rtol=0)
    assert encoder.config.activation == ("quick_gelu" if quick_gelu else "gelu")
    prompt = softprompt.train(encoder, SENTENCE, tokens=2, steps=20)
    assert prompt.model == name
    assert prompt.vectors.shape == (2, 64)


def test_only_the_text_tower_stays_in_memory(tmp_path: Path) -> None:
    import gc

    name, model = write_model_folder(tmp_path / "model")
    encoder = softprompt.load_encoder(name, device="cpu")
    gc.collect()
    leaked = [
        thing
        for thing in gc.get_objects()
        if type(thing).__module__.startswith("open_clip")
        and type(thing).__name__ in ("VisionTransformer", "TextTransformer")
        and thing is not model.visual
    ]
    assert leaked == []
    assert encoder.tower.parameter_count < 3_400_000


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / "open_clip_config.json").unlink(), ModelUnavailable, "open_clip_config.json is not"),
        (lambda folder: (folder / "open_clip_config.json").write_text("{}"), ModelUnavailable, "model_cfg"),
        (lambda folder: (folder / "open_clip_model.safetensors").unlink(), ModelUnavailable, "cannot be loaded"),
        (
            lambda folder: (folder / "open_clip_model.safetensors").write_bytes(b"x" * 100),
            ModelUnavailable,
            r"cannot be loaded: .*\.safetensors may be damaged or incomplete\. Copy it again\.",
        ),
    ],
)
def test_a_damaged_folder_is_never_run_with_random_weights(
    tmp_path: Path, damage: Any, error: type, message: str
) -> None:
    name, _ = write_model_folder(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(error, match=message):
        softprompt.load_encoder(name)


def test_a_missing_folder_is_reported() -> None:
    with pytest.raises(UnknownModel, match="there is no folder /nowhere"):
        softprompt.load_encoder("local-dir:/nowhere")


def test_a_missing_transformers_package_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _ = write_model_folder(tmp_path / "model")
    path = tmp_path / "model" / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = str(tmp_path / "tokenizer")
    path.write_text(json.dumps(config))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelUnavailable, match=r"needs the transformers package. Run pip install transformers"):
        softprompt.load_encoder(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trust_remote_code": True}, "unsupported settings: trust_remote_code"),
        ({"clean": "foo"}, "clean is 'foo'"),
        ({"reduction_mask": "random"}, "reduction_mask"),
    ],
)
def test_unknown_tokenizer_settings_are_rejected(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    text_cfg = {"tokenizer_kwargs": settings} | ({"hf_tokenizer_name": "x"} if "trust_remote_code" in settings else {})
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT | text_cfg}})
    )
    with pytest.raises(ModelRefused, match=message):
        softprompt.load_encoder(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("strip", [False, True])
def test_a_transformers_tokenizer_adds_the_same_special_tokens_as_open_clip(tmp_path: Path, strip: bool) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing
    from transformers import PreTrainedTokenizerFast

    words = (
        "[PAD] [UNK] [CLS] [SEP] [MASK] a fox asleep in the snow lake dog two dogs on long beach at night , "
        "photographed from far away"
    ).split()
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
    name, model = write_model_folder(tmp_path / "model", text_cfg=text_cfg)
    encoder = softprompt.load_encoder(name, device="cpu")
    ids = open_clip.get_tokenizer(name)([SENTENCE])
    expected = F.normalize(model.encode_text(ids), dim=-1).detach()
    torch.testing.assert_close(encoder.encode([SENTENCE]), expected, atol=1e-5, rtol=0)
    assert encoder.max_prompt_tokens == 30
    prompt = softprompt.train(encoder, SENTENCE, tokens=2, steps=20)
    assert set(prompt.readout_text.split()) <= set(words)


@pytest.fixture
def _cached_models(home: Path, cached_model_list: Path) -> None:
    home.mkdir()
    (home / "cache").symlink_to(cached_model_list)


@pytest.mark.usefixtures("_cached_models")
def test_the_name_of_the_built_in_model_ignores_case() -> None:
    assert softprompt.load_encoder("Mini").name == "mini"


@pytest.mark.usefixtures("_cached_models")
def test_a_name_resolves_to_open_clips_spelling_with_the_right_activation() -> None:
    assert loading.resolve("vit-b-32/laion2b-s34b-b79k").name == "ViT-B-32/laion2b_s34b_b79k"
    # for this name, open_clip builds the model with plain GELU and only warns
    assert loading.resolve("ViT-L-14/openai").name == "ViT-L-14-quickgelu/openai"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-L-14/opena", "ViT-L-14/laion2b_s32b_b82k"),
        ("ViT-B-32", "no weights named 'ViT-B-32'.* ViT-B-32/openai"),
        ("VitL14/openai", "Close: .*ViT-L-14"),
        ("minni", "Close: mini"),
        ("qqqqqqq", r"`softprompt\.list_models\(\)` lists all"),
    ],
)
def test_the_error_for_an_unknown_model_lists_close_matches(name: str, message: str) -> None:
    with pytest.raises(UnknownModel, match=message):
        softprompt.load_encoder(name)


def test_a_torchvision_that_does_not_fit_torch_is_reported(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import of open_clip fails then. The message says what to do."""
    folder, _ = write_model_folder(tmp_path / "model")
    import_module = builtins.__import__

    def fail_for_open_clip(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "open_clip":
            raise RuntimeError("operator torchvision::nms does not exist")
        return import_module(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail_for_open_clip)
    catalog.list_models.cache_clear()
    for load in (catalog.list_models, lambda: softprompt.load_encoder(folder)):
        with pytest.raises(ModelUnavailable, match=r"torchvision::nms does not exist.*Install both in one command"):
            load()


def test_the_catalog_is_cached_and_rebuilt_if_damaged(home: Path) -> None:
    catalog.list_models.cache_clear()
    first = catalog.list_models()
    cache_file = next((home / "cache").glob("models-*.json"))
    catalog.list_models.cache_clear()
    assert catalog.list_models() == first
    cache_file.write_text("[{]")
    catalog.list_models.cache_clear()
    assert catalog.list_models() == first
    names = [info.name for info in first]
    assert names[:3] == ["mini", "smollm2", "smollm2-q4"]
    assert names[3:] == [f"{model}/{tag}" for model, tag in open_clip.list_pretrained()]


def test_the_catalog_has_the_sizes_of_the_tower(tmp_path: Path) -> None:
    info = next(info for info in catalog.list_models() if info.name == "ViT-B-32/openai")
    model = open_clip.create_model("ViT-B-32")
    tower = openclip.extract_tower("ViT-B-32", model)
    assert (info.width, info.layers, info.context, info.parameters) == (512, 12, 77, tower.parameter_count)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        *((name, "this machine has no device .*Use cpu") for name in ("cuda:99", "cpu:1")),
        *((name, "it must be auto, cpu, cuda, cuda:1 or mps") for name in ("tpu", "cuda:x", "")),
    ],
)
def test_a_missing_device_is_reported(device: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        softprompt.load_encoder("mini", device=device)
