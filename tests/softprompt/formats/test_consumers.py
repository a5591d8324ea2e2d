"""Read exports the way the target programs do.

diffusers, transformers and peft run themselves, on small random models with CLIP's tokenizer and context length. The
other programs cannot be installed here. Assertions repeat what their loaders require, after the source code of

- AUTOMATIC1111 and Forge, modules/textual_inversion/textual_inversion.py: EmbeddingDatabase.load_from_file (Forge:
  create_embedding_from_data), safe.py: check_pt, image_embedding.py: embedding_from_b64, sd_models_xl.py:
  encode_embedding_init_text
- ComfyUI, comfy/sd1_clip.py: load_embed, SDTokenizer.tokenize_with_weights, SDClipModel.set_up_textual_embeddings
- InvokeAI, model_manager/configs/textual_inversion.py: TI_Config_Base, textual_inversion.py: from_checkpoint,
model_patcher.py:
  apply_ti, app/util/ti_utils.py: extract_ti_triggers_from_prompt
- kohya's sd-scripts, gen_img.py (textual_inversion_embeddings), train_textual_inversion.py: load_weights
- KoboldAI, fileops.py: checksp, aiserver.py: spRequest
"""

from __future__ import annotations

import base64
import io
import json
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from softprompt import SoftPrompt, TextEncoder
from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.clip.tokenizer import Tokenizer, _byte_pairs
from softprompt.encoders.clip.transformer import Block, TextTransformer, TextTransformerConfig
from softprompt.formats.writers.exporter import ExportResult, export
from softprompt.text_states import HIDDEN_STATE_SPECS
from tests.library_model import a_prompt

SENTENCES = ("{}", "a photo of {} at night", "{}, oil painting of a dog next to {}")
VOCABULARY = 49408
TOLERANCE = {"atol": 1e-4, "rtol": 0}


def make_prompt(width: int, name: str = "red fox", tokens: int = 3) -> SoftPrompt:
    generator = np.random.default_rng(width)
    return a_prompt(name=name, vectors=generator.normal(0, 0.03, (tokens, width)).astype(np.float32))


def clip_tokenizer() -> CLIPTokenizer:
    """Return the CLIP tokenizer of transformers, from open_clip's vocabulary file."""
    pieces, merges = _byte_pairs()
    vocabulary = {piece: i for i, piece in enumerate((*pieces, "<|startoftext|>", "<|endoftext|>"))}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=77)


def clip_model(kind: type, width: int, activation: str = "gelu", **changes: Any) -> Any:
    """Return a transformers model with random weights and CLIP's full vocabulary."""
    torch.manual_seed(width)
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=256, num_hidden_layers=2, num_attention_heads=width // 64,
        projection_dim=64, vocab_size=1, hidden_act=activation, **changes,
    )  # fmt: skip
    model = kind(config).eval()
    rows = torch.randn(1000, width) * 0.02  # 50,000 take seconds; no two tokens in these tests share a row
    model.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows.repeat(50, 1)[:VOCABULARY]))

    def resize(count: int) -> None:
        """Resize like transformers, but without new random rows: the loader overwrites or keeps them all."""
        table = model.get_input_embeddings().weight
        new = torch.zeros(count - len(table), width)
        model.set_input_embeddings(torch.nn.Embedding.from_pretrained(torch.cat([table, new])))

    model.resize_token_embeddings = resize
    return model


def as_own_encoder(model: Any) -> TextEncoder:
    """Return this program's text encoder with the same weights."""
    weights = {name.removeprefix("text_model."): tensor.detach().clone() for name, tensor in model.state_dict().items()}
    config, layers = model.config, range(model.config.num_hidden_layers)

    def block(i: int) -> Block:
        prefix = f"encoder.layers.{i}."
        qkv = [
            torch.cat([weights[f"{prefix}self_attn.{letter}_proj.{kind}"] for letter in "qkv"])
            for kind in ("weight", "bias")
        ]
        others = [
            [weights[f"{prefix}{part}.{kind}"] for kind in ("weight", "bias")]
            for part in ("layer_norm1", "self_attn.out_proj", "layer_norm2", "mlp.fc1", "mlp.fc2")
        ]
        return Block(*others[0], *qkv, *others[1], *others[2], *others[3], *others[4])

    projection = weights.get("text_projection.weight")
    tower = TextTransformer(
        TextTransformerConfig(
            width=config.hidden_size, heads=config.num_attention_heads, layers=len(layers), context=77,
            vocabulary=VOCABULARY, embed_dim=config.hidden_size if projection is None else config.projection_dim,
            mlp_width=config.intermediate_size, activation=config.hidden_act,
        ),
        table=weights["embeddings.token_embedding.weight"], positions=weights["embeddings.position_embedding.weight"],
        blocks=[block(i) for i in layers],
        norm_weight=weights["final_layer_norm.weight"], norm_bias=weights["final_layer_norm.bias"],
        projection=None if projection is None else projection.T,
    )  # fmt: skip
    tokenizer = Tokenizer()
    return TextEncoder("random", tower, tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,)))


def tokenize_with_prompt(encoder: TextEncoder, sentence: str, prompt: SoftPrompt) -> list[int]:
    """Return the token ids of a sentence with the soft tokens at each `{}`."""
    tokens = [-1 - i for i in range(prompt.tokens)]
    parts = [encoder.tokenizer.encode(part) for part in sentence.split("{}")]
    return parts[0] + [token for part in parts[1:] for token in [*tokens, *part]]


@pytest.fixture(scope="module", params=[(768, "quick_gelu"), (1024, "gelu")], ids=["SD 1.x", "SD 2.x"])
def pipeline(request: pytest.FixtureRequest) -> tuple[Any, TextEncoder]:
    """Return a pipeline with a randomly initialized text encoder, and this program's encoder with the same weights."""
    model = clip_model(CLIPTextModel, *request.param)
    parts = dict.fromkeys(("vae", "unet", "scheduler", "safety_checker", "feature_extractor"))
    pipe = StableDiffusionPipeline(
        text_encoder=model, tokenizer=clip_tokenizer(), requires_safety_checker=False, **parts
    )  # fmt: skip
    return pipe, as_own_encoder(model)


def check_same_encoding(pipe: Any, encoder: TextEncoder, prompt: SoftPrompt, token: str) -> None:
    """Check that both give the same hidden states and pooled embedding, for the soft prompt alone and in sentences."""
    vectors = torch.as_tensor(prompt)
    for sentence in SENTENCES:
        text = sentence.replace("{}", token)
        hidden_states, _ = pipe.encode_prompt(text, "cpu", 1, False)
        states = (
            encoder.batch_rows([tokenize_with_prompt(encoder, sentence, prompt)])
            .read_states(vectors.unsqueeze(0), HIDDEN_STATE_SPECS["sd1"])
            .states[0, 0]
        )
        torch.testing.assert_close(hidden_states[0, 1 : 1 + len(states)], states, **TOLERANCE)  # after the start token
        ids = pipe.tokenizer(pipe.maybe_convert_prompt(text, pipe.tokenizer), return_tensors="pt").input_ids
        pooled = encoder.encode_rows([tokenize_with_prompt(encoder, sentence, prompt)], vectors, unit=False)
        torch.testing.assert_close(pipe.text_encoder(ids).pooler_output, pooled, **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("to", ["diffusers", "safetensors", "a1111"])
def test_diffusers_encodes_an_export_like_this_program(pipeline: Any, tmp_path: Path, to: str) -> None:
    pipe, encoder = pipeline
    prompt = make_prompt(encoder.width, name=f"Red Fox {to}")
    exported = export(prompt, to, tmp_path)
    token = f"<red-fox-{to}>"
    if to == "diffusers":
        assert exported.word == token
        exec(exported.line, {"pipe": pipe})
    else:
        pipe.load_textual_inversion(str(exported.paths[0]), token=token)
    check_same_encoding(pipe, encoder, prompt, token)


@torch.no_grad()
def test_both_encoders_of_sdxl_use_a_pair(tmp_path: Path) -> None:
    first, second = clip_model(CLIPTextModel, 768, "quick_gelu"), clip_model(CLIPTextModelWithProjection, 1280)
    encoders = as_own_encoder(first), as_own_encoder(second)
    pipe = StableDiffusionXLPipeline(
        vae=None, unet=None, scheduler=None, text_encoder=first, text_encoder_2=second,
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(),
    )  # fmt: skip
    pair = make_prompt(768), make_prompt(1280, name="fox g")
    exported = export(pair[0], "diffusers", tmp_path, other=pair[1])
    exec(exported.line, {"pipe": pipe, "safetensors": safetensors})
    for sentence in SENTENCES:
        text = sentence.replace("{}", exported.word)
        states, _, pooled, _ = pipe.encode_prompt(
            text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        rows = [tokenize_with_prompt(encoder, sentence, prompt) for encoder, prompt in zip(encoders, pair, strict=True)]
        vectors = [torch.as_tensor(prompt) for prompt in pair]
        hidden = [
            encoder.batch_rows([row]).read_states(soft_tokens.unsqueeze(0), HIDDEN_STATE_SPECS["sdxl"]).states[0, 0]
            for encoder, row, soft_tokens in zip(encoders, rows, vectors, strict=True)
        ]
        torch.testing.assert_close(states[0, 1 : 1 + len(rows[0])], torch.cat(hidden, dim=-1), **TOLERANCE)
        torch.testing.assert_close(pooled, encoders[1].encode_rows([rows[1]], vectors[1], unit=False), **TOLERANCE)


@torch.no_grad()
def test_transformers_pools_at_a_soft_token_if_eos_token_id_is_2(tmp_path: Path) -> None:
    """The reason for the note about eos_token_id 2, whose advice fixes the problem."""
    prompt, model, tokenizer = make_prompt(768), clip_model(CLIPTextModel, 768, eos_token_id=2), clip_tokenizer()
    encoder = as_own_encoder(model)
    pipe = StableDiffusionPipeline(
        text_encoder=model, tokenizer=tokenizer, requires_safety_checker=False,
        **dict.fromkeys(("vae", "unet", "scheduler", "safety_checker", "feature_extractor")),
    )  # fmt: skip
    exported = export(prompt, "diffusers", tmp_path)
    exec(exported.line, {"pipe": pipe})
    assert any("eos_token_id to 2" in note for note in exported.notes)
    ids = tokenizer(pipe.maybe_convert_prompt(f"{exported.word} at night", tokenizer), return_tensors="pt").input_ids
    expected = encoder.encode_rows(
        [tokenize_with_prompt(encoder, "{} at night", prompt)], torch.as_tensor(prompt), unit=False
    )
    assert (model(ids).pooler_output - expected).abs().max() > 0.1
    getattr(model, "text_model", model).eos_token_id = 49407  # transformers before 5.6 has a model inside the model
    torch.testing.assert_close(model(ids).pooler_output, expected, **TOLERANCE)


@torch.no_grad()
def test_diffusers_uses_only_the_first_vector_of_a_token_with_capital_letters(pipeline: Any) -> None:
    """The reason why export rejects such tokens: diffusers loads the other vectors but never uses them."""
    pipe, encoder = pipeline
    pipe.load_textual_inversion({"<Lake>": torch.as_tensor(make_prompt(encoder.width))})
    assert pipe.maybe_convert_prompt("<Lake> at night", pipe.tokenizer) == "<Lake> at night"


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft triggers it in transformers
def test_peft_loads_the_folder_bit_for_bit(tmp_path: Path) -> None:
    prompt = make_prompt(256)
    (folder,) = {path.parent for path in export(prompt, "peft", tmp_path).paths}
    base = BertModel(
        BertConfig(hidden_size=256, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, vocab_size=50)
    )
    loaded = peft.PeftModel.from_pretrained(base, str(folder))
    assert loaded.get_prompt_embedding_to_save("default").numpy().tobytes() == prompt.vectors.tobytes()
    embedding: Any = loaded.prompt_encoder["default"]
    assert isinstance(embedding, peft.PromptEmbedding)
    out = loaded(input_ids=torch.tensor([[1, 2, 3]]), attention_mask=torch.ones(1, 3))
    assert out.last_hidden_state.shape == (1, 3 + 3, 256)


def only_path(exported: ExportResult) -> Path:
    (path,) = exported.paths
    return path


def test_koboldai_accepts_the_zip(tmp_path: Path) -> None:
    prompt = make_prompt(2048)
    path = only_path(export(prompt, "kobold", tmp_path))
    with zipfile.ZipFile(path) as archive, archive.open("tensor.npy") as file:
        version = np.lib.format.read_magic(file)
        assert version == (1, 0)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        assert len(shape) == 2
        assert dtype in ("V2", np.float16, np.float32)
        assert shape[1] == 2048
        assert shape[0] < 2048
        assert not fortran
        meta = json.loads(archive.read("meta.json"))
    assert isinstance(meta["name"], str)
    assert all(isinstance(model, str) for model in meta["supported"])
    with np.load(path, allow_pickle=False) as loaded:
        assert loaded["tensor.npy"].tobytes() == prompt.vectors.tobytes()


def read_a1111(path: Path) -> Any:
    match path.suffix:
        case ".png":
            text = Image.open(path).text["sd-ti-embedding"]  # type: ignore[attr-defined]

            def tensor(values: dict[str, Any]) -> Any:
                return torch.from_numpy(np.array(values["TORCHTENSOR"])) if "TORCHTENSOR" in values else values

            return json.loads(base64.b64decode(text), object_hook=tensor)
        case ".pt":
            return torch.load(path, map_location="cpu", weights_only=True)
        case _:
            return safetensors.torch.load_file(path, device="cpu")


@pytest.mark.parametrize(("to", "width"), [("a1111", 768), ("a1111", 1024), ("a1111-png", 768), ("safetensors", 1024)])
def test_a1111_and_forge_accept_a_single_soft_prompt(tmp_path: Path, to: str, width: int) -> None:
    prompt = make_prompt(width)
    path = only_path(export(prompt, to, tmp_path))
    data = read_a1111(path)
    if "string_to_param" in data:
        assert len(data["string_to_param"]) == 1
        (vectors,) = data["string_to_param"].values()
        assert data["name"] == path.stem == "red-fox"
        assert data["step"] == prompt.steps
        assert data["string_to_token"] == {"*": 265}
        assert data["sd_checkpoint"] is None
    else:
        assert type(data) is dict
        assert len(data) == 1
        (vectors,) = data.values()
        assert type(vectors) is torch.Tensor
    assert vectors.detach().to(dtype=torch.float32).numpy().tobytes() == prompt.vectors.tobytes()
    assert vectors.shape[-1] in (768, 1024)  # the widths of SD 1 and SD 2; A1111 ignores other widths
    assert path.suffix in (".png", ".pt", ".safetensors")


def test_a1111_finds_nothing_malicious_in_the_pt(tmp_path: Path) -> None:
    """Its check rejects the zip members that newer versions of torch add, and unknown globals in the pickle."""
    with zipfile.ZipFile(only_path(export(make_prompt(768), "a1111", tmp_path))) as archive:
        assert all(re.match(r"^([^/]+)/((data/\d+)|version|(data\.pkl))$", name) for name in archive.namelist())
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        names = {
            argument
            for operation, argument, _ in pickletools.genops(archive.read(pickled))
            if operation.name == "GLOBAL"
        }
    assert names == {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"}


def test_a1111_and_forge_accept_a_pair_for_sdxl(tmp_path: Path) -> None:
    pair = make_prompt(768), make_prompt(1280)
    data = read_a1111(only_path(export(*pair[:1], "a1111", tmp_path, other=pair[1])))
    assert "string_to_param" not in data
    assert type(data) is dict
    assert all(callable(tensor.detach) for tensor in data.values())  # it treats each value as a tensor
    assert data["clip_g"].shape[-1] + data["clip_l"].shape[-1] == 2048  # both encoders of SDXL side by side
    assert data["clip_g"].shape[0] == data["clip_l"].shape[0]  # it uses the count of clip_g for both
    assert data["clip_l"].numpy().tobytes() == pair[0].vectors.tobytes()
    assert data["clip_g"].numpy().tobytes() == pair[1].vectors.tobytes()


@pytest.mark.parametrize("width", [768, 1024, 1280])
def test_comfyui_uses_the_first_tensor(tmp_path: Path, width: int) -> None:
    prompt = make_prompt(width)
    exported = export(prompt, "comfyui", tmp_path)
    data = safetensors.torch.load_file(only_path(exported), device="cpu")
    assert not {"string_to_param", "clip_l", "clip_g", "clip_h"} & data.keys()
    assert not [key for key in data if key.startswith("bundle_emb.")]
    first = next(iter(data.values()))
    assert first.numpy().tobytes() == prompt.vectors.tobytes()
    # a name starts at the beginning or after a space and ends at white space; ComfyUI tries several suffixes
    text = f"a photo of {exported.word} at night"
    assert re.split(" embedding:", text)[1].split()[0] == "red-fox"
    assert only_path(exported) == tmp_path / "red-fox.safetensors"


def test_comfyui_finds_each_half_of_a_pair_by_its_key(tmp_path: Path) -> None:
    data = safetensors.torch.load_file(
        only_path(export(make_prompt(1280), "comfyui", tmp_path, other=make_prompt(768))), device="cpu"
    )
    assert {key: tensor.shape[1] for key, tensor in data.items()} == {"clip_l": 768, "clip_g": 1280}


def test_invokeai_recognizes_the_model_and_finds_the_trigger(tmp_path: Path) -> None:
    def base(data: dict[str, Any]) -> int:
        if "string_to_token" in data:
            return int(next(iter(data["string_to_param"].values())).shape[-1])
        if "emb_params" in data:
            return int(data["emb_params"].shape[-1])
        return int((data["clip_g"] if "clip_g" in data else next(iter(data.values())).T).shape[-1])

    for width in (768, 1024):
        exported = export(make_prompt(width, name=f"fox {width}"), "invokeai", tmp_path)
        assert base(safetensors.torch.load_file(only_path(exported))) == width
        assert re.findall(r"<[a-zA-Z0-9., _-]+>", f"a photo of {exported.word} at night") == [f"<fox-{width}>"]
    pair = safetensors.torch.load_file(
        only_path(export(make_prompt(768), "invokeai", tmp_path, other=make_prompt(1280)))
    )
    assert base(pair) == 1280
    assert pair.keys() == {"clip_l", "clip_g"}
    # with diffusers' key, InvokeAI takes the number of vectors for the width, so export uses another key
    assert base(safetensors.torch.load_file(only_path(export(make_prompt(768), "diffusers", tmp_path)))) == 3


SYNTAX = (
    "AND", "BREAK", "and", "Break", "cats AND dogs", "salt-AND-pepper", "BREAKFAST", "_AND_", "__fox__", "a__b__c",
    "fox_", "_fox", "a|b", "(fox:1.2)", "[fox]", "<lora:x:1>", "fox, lake", "{a|b}", "embedding:fox", "_CON", "__",
    "--n 4", "a:1.3", "fox\\", "",
)  # fmt: skip


def is_found(to: str, word: str, text: str) -> bool:
    """Return whether the program's prompt parser finds the word."""
    match to:
        case "a1111" | "a1111-png":
            tokenizer = Tokenizer()
            parts = [
                part for part in re.split(r"\bAND\b|\bBREAK\b|[()\[\]\\:]", re.sub(r"<\w+:[^>]+>", "", text)) if part
            ]
            needle = tokenizer.encode(word)
            rows = [tokenizer.encode(part) for part in parts]
            return any(row[i : i + len(needle)] == needle for row in rows for i in range(len(row)))
        case "comfyui":
            segments = [re.sub(r":[\d.]+$", "", segment) for segment in re.split(r"[()]", text)]
            names = [
                match.split()[0].strip(",") for segment in segments for match in f" {segment}".split(" embedding:")[1:]
            ]
            return names == [word.removeprefix("embedding:")]
        case "invokeai":
            return re.findall(r"<[a-zA-Z0-9., _-]+>", text) == [word] and not re.search("__.+__", text)
        case _:  # kohya adds the word to its tokenizer, which finds it anywhere
            return (
                "BREAK" not in text
                and " AND " not in text
                and not re.search(r"[()\[\]:{}|\\ ]", word)
                and "--" not in word
            )


@pytest.mark.parametrize("name", SYNTAX)
def test_no_program_treats_the_word_of_an_export_as_syntax(tmp_path: Path, name: str) -> None:
    for to in ("comfyui", "a1111", "a1111-png", "invokeai", "kohya"):
        (tmp_path / to).mkdir()
        exported = export(make_prompt(768, name=name), to, tmp_path / to)
        for prompt in ("{}", "a photo of {} at night", "{}, oil painting", "a sea ({}:1.3)"):
            assert is_found(to, exported.word, prompt.format(exported.word)), (to, exported.word, prompt)
        assert export(make_prompt(768, name=name), to, only_path(exported), force=True).word == exported.word


@pytest.mark.parametrize("name", ["red fox", "fox"])
def test_kohya_can_add_the_file_name_to_its_tokenizer(tmp_path: Path, name: str) -> None:
    prompt = make_prompt(768, name=name)
    exported = export(prompt, "kohya", tmp_path)
    data = safetensors.torch.load_file(only_path(exported))
    assert "string_to_param" not in data
    vectors = next(iter(data.values()))
    words = [exported.word, *(f"{exported.word}{i}" for i in range(1, len(vectors)))]
    assert exported.word == only_path(exported).stem
    tokenizer = clip_tokenizer()
    assert tokenizer.add_tokens(words) == prompt.tokens
    ids = tokenizer.convert_tokens_to_ids(words)
    assert ids == list(range(VOCABULARY, VOCABULARY + prompt.tokens))
    assert vectors.numpy().tobytes() == prompt.vectors.tobytes()


def test_kohya_accepts_a_pair_for_sdxl(tmp_path: Path) -> None:
    data = safetensors.torch.load_file(only_path(export(make_prompt(768), "kohya", tmp_path, other=make_prompt(1280))))
    assert data["clip_l"].shape == (3, 768)
    assert data["clip_g"].shape == (3, 1280)


def test_numpy_reads_the_array_without_pickles(tmp_path: Path) -> None:
    prompt = make_prompt(256)
    read = np.load(io.BytesIO(only_path(export(prompt, "numpy", tmp_path)).read_bytes()), allow_pickle=False)
    assert read.tobytes() == prompt.vectors.tobytes()
