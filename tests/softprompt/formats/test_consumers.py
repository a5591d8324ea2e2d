"""Our exports, read by the programs that they are for.

diffusers, transformers and peft are run themselves, on small random models with CLIP's own tokenizer and context. The others
cannot be installed here: what their loaders demand, and what they do with it, is said again in plain assertions, after reading

- AUTOMATIC1111 and Forge, modules/textual_inversion/textual_inversion.py: EmbeddingDatabase.load_from_file (Forge:
  create_embedding_from_data), safe.py: check_pt, image_embedding.py: embedding_from_b64, sd_models_xl.py: encode_embedding_init_text
- ComfyUI, comfy/sd1_clip.py: load_embed, SDTokenizer.tokenize_with_weights, SDClipModel.set_up_textual_embeddings
- InvokeAI, model_manager/configs/textual_inversion.py: TI_Config_Base, textual_inversion.py: from_checkpoint, model_patcher.py:
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
from softprompt.formats.writers.exporter import Exported, export
from softprompt.text_states import READS
from tests.library_model import a_prompt

SENTENCES = ("{}", "a photo of {} at night", "{}, oil painting of a dog next to {}")
VOCABULARY = 49408
CLOSE = {"atol": 1e-4, "rtol": 0}


def soft(width: int, name: str = "red fox", tokens: int = 3) -> SoftPrompt:
    generator = np.random.default_rng(width)
    return a_prompt(name=name, vectors=generator.normal(0, 0.03, (tokens, width)).astype(np.float32))


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer of transformers, from the vocabulary file that open_clip ships."""
    pieces, merges = _byte_pairs()
    vocabulary = {piece: i for i, piece in enumerate((*pieces, "<|startoftext|>", "<|endoftext|>"))}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=77)


def clip_model(kind: type, width: int, activation: str = "gelu", **changes: Any) -> Any:
    """A model of transformers with random weights, and CLIP's whole vocabulary."""
    torch.manual_seed(width)
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=256, num_hidden_layers=2, num_attention_heads=width // 64, projection_dim=64, vocab_size=1,
        hidden_act=activation, **changes,
    )  # fmt: skip
    model = kind(config).eval()
    rows = torch.randn(1000, width) * 0.02  # drawing 50,000 takes seconds; no two tokens of the tests are alike
    model.set_input_embeddings(torch.nn.Embedding.from_pretrained(rows.repeat(50, 1)[:VOCABULARY]))

    def grow(count: int) -> None:
        """As transformers does it, but without drawing all rows anew, which the loader overwrites or keeps anyway."""
        table = model.get_input_embeddings().weight
        new = torch.zeros(count - len(table), width)
        model.set_input_embeddings(torch.nn.Embedding.from_pretrained(torch.cat([table, new])))

    model.resize_token_embeddings = grow
    return model


def ours(model: Any) -> TextEncoder:
    """Our text encoder of the same weights."""
    weights = {name.removeprefix("text_model."): tensor.detach().clone() for name, tensor in model.state_dict().items()}
    config, layers = model.config, range(model.config.num_hidden_layers)

    def block(i: int) -> Block:
        at = f"encoder.layers.{i}."
        qkv = [
            torch.cat([weights[f"{at}self_attn.{one}_proj.{kind}"] for one in "qkv"]) for kind in ("weight", "bias")
        ]  # fmt: skip
        around = [[weights[f"{at}{part}.{kind}"] for kind in ("weight", "bias")] for part in ("layer_norm1", "self_attn.out_proj", "layer_norm2", "mlp.fc1", "mlp.fc2")]  # fmt: skip
        return Block(*around[0], *qkv, *around[1], *around[2], *around[3], *around[4])

    projection = weights.get("text_projection.weight")
    tower = TextTransformer(
        TextTransformerConfig(
            width=config.hidden_size, heads=config.num_attention_heads, layers=len(layers), context=77, vocabulary=VOCABULARY,
            embed_dim=config.hidden_size if projection is None else config.projection_dim, mlp_width=config.intermediate_size,
            activation=config.hidden_act,
        ),
        table=weights["embeddings.token_embedding.weight"], positions=weights["embeddings.position_embedding.weight"],
        blocks=[block(i) for i in layers], norm_weight=weights["final_layer_norm.weight"], norm_bias=weights["final_layer_norm.bias"],
        projection=None if projection is None else projection.T,
    )  # fmt: skip
    tokenizer = Tokenizer()
    return TextEncoder("random", tower, tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,)))


def row(encoder: TextEncoder, sentence: str, prompt: SoftPrompt) -> list[int]:
    """The sentence with the soft tokens in its places."""
    tokens = [-1 - i for i in range(prompt.tokens)]
    parts = [encoder.tokenizer.encode(part) for part in sentence.split("{}")]
    return parts[0] + [token for part in parts[1:] for token in [*tokens, *part]]


@pytest.fixture(scope="module", params=[(768, "quick_gelu"), (1024, "gelu")], ids=["SD 1.x", "SD 2.x"])
def pipeline(request: pytest.FixtureRequest) -> tuple[Any, TextEncoder]:
    """A pipeline whose text encoder is real in all but its weights, and our encoder of the same weights."""
    model = clip_model(CLIPTextModel, *request.param)
    parts = dict.fromkeys(("vae", "unet", "scheduler", "safety_checker", "feature_extractor"))
    pipe = StableDiffusionPipeline(
        text_encoder=model, tokenizer=clip_tokenizer(), requires_safety_checker=False, **parts
    )  # fmt: skip
    return pipe, ours(model)


def check_reads_as_ours(pipe: Any, encoder: TextEncoder, prompt: SoftPrompt, token: str) -> None:
    """Hidden states and pooled output of diffusers and of our engine are the same, for the soft prompt alone and in sentences."""
    vectors = torch.from_numpy(prompt.vectors)
    for sentence in SENTENCES:
        text = sentence.replace("{}", token)
        theirs, _ = pipe.encode_prompt(text, "cpu", 1, False)
        states = (
            encoder.batch_rows([row(encoder, sentence, prompt)]).read(vectors.unsqueeze(0), READS["sd1"]).states[0, 0]
        )
        torch.testing.assert_close(theirs[0, 1 : 1 + len(states)], states, **CLOSE)  # behind the start token
        ids = pipe.tokenizer(pipe.maybe_convert_prompt(text, pipe.tokenizer), return_tensors="pt").input_ids
        pooled = encoder.encode_rows([row(encoder, sentence, prompt)], vectors, unit=False)
        torch.testing.assert_close(pipe.text_encoder(ids).pooler_output, pooled, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("to", ["diffusers", "safetensors", "a1111"])
def test_diffusers_loads_and_reads_them_as_our_engine_does(pipeline: Any, tmp_path: Path, to: str) -> None:
    pipe, encoder = pipeline
    prompt = soft(encoder.width, name=f"Red Fox {to}")
    made = export(prompt, to, tmp_path)
    token = f"<red-fox-{to}>"
    if to == "diffusers":
        assert made.word == token
        exec(made.line, {"pipe": pipe})
    else:
        pipe.load_textual_inversion(str(made.paths[0]), token=token)
    check_reads_as_ours(pipe, encoder, prompt, token)


@torch.no_grad()
def test_a_pair_is_read_by_both_encoders_of_sdxl(tmp_path: Path) -> None:
    first, second = clip_model(CLIPTextModel, 768, "quick_gelu"), clip_model(CLIPTextModelWithProjection, 1280)
    encoders = ours(first), ours(second)
    pipe = StableDiffusionXLPipeline(
        vae=None, unet=None, scheduler=None, text_encoder=first, text_encoder_2=second, tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer()
    )  # fmt: skip
    pair = soft(768), soft(1280, name="fox g")
    made = export(pair[0], "diffusers", tmp_path, other=pair[1])
    exec(made.line, {"pipe": pipe, "safetensors": safetensors})
    for sentence in SENTENCES:
        text = sentence.replace("{}", made.word)
        states, _, pooled, _ = pipe.encode_prompt(
            text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        rows = [row(encoder, sentence, prompt) for encoder, prompt in zip(encoders, pair, strict=True)]
        vectors = [torch.from_numpy(prompt.vectors) for prompt in pair]
        hidden = [
            encoder.batch_rows([one]).read(soft_tokens.unsqueeze(0), READS["sdxl"]).states[0, 0]
            for encoder, one, soft_tokens in zip(encoders, rows, vectors, strict=True)
        ]
        torch.testing.assert_close(states[0, 1 : 1 + len(rows[0])], torch.cat(hidden, dim=-1), **CLOSE)
        torch.testing.assert_close(pooled, encoders[1].encode_rows([rows[1]], vectors[1], unit=False), **CLOSE)


@torch.no_grad()
def test_an_old_end_token_makes_transformers_pool_at_a_soft_token(tmp_path: Path) -> None:
    """Why an export for diffusers warns of eos_token_id 2: the note's advice is what mends it."""
    prompt, model, tokenizer = soft(768), clip_model(CLIPTextModel, 768, eos_token_id=2), clip_tokenizer()
    encoder = ours(model)
    pipe = StableDiffusionPipeline(
        text_encoder=model, tokenizer=tokenizer, requires_safety_checker=False, **dict.fromkeys(("vae", "unet", "scheduler", "safety_checker", "feature_extractor"))
    )  # fmt: skip
    made = export(prompt, "diffusers", tmp_path)
    exec(made.line, {"pipe": pipe})
    assert any("eos_token_id 2" in note for note in made.notes)
    ids = tokenizer(pipe.maybe_convert_prompt(f"{made.word} at night", tokenizer), return_tensors="pt").input_ids
    expected = encoder.encode_rows([row(encoder, "{} at night", prompt)], torch.from_numpy(prompt.vectors), unit=False)
    assert (model(ids).pooler_output - expected).abs().max() > 0.1
    model.eos_token_id = 49407
    torch.testing.assert_close(model(ids).pooler_output, expected, **CLOSE)


@torch.no_grad()
def test_diffusers_uses_one_vector_of_a_token_with_capital_letters(pipeline: Any) -> None:
    """Why such tokens are refused: the further vectors are loaded, and never found."""
    pipe, encoder = pipeline
    pipe.load_textual_inversion({"<Lake>": torch.from_numpy(soft(encoder.width).vectors)})
    assert pipe.maybe_convert_prompt("<Lake> at night", pipe.tokenizer) == "<Lake> at night"


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft's question to transformers
def test_peft_loads_the_folder_with_the_same_bits(tmp_path: Path) -> None:
    prompt = soft(256)
    (folder,) = {path.parent for path in export(prompt, "peft", tmp_path).paths}
    base = BertModel(
        BertConfig(hidden_size=256, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, vocab_size=50)
    )
    loaded = peft.PeftModel.from_pretrained(base, str(folder))
    assert loaded.get_prompt_embedding_to_save("default").numpy().tobytes() == prompt.vectors.tobytes()
    inside: Any = loaded.prompt_encoder["default"]
    assert isinstance(inside, peft.PromptEmbedding)
    out = loaded(input_ids=torch.tensor([[1, 2, 3]]), attention_mask=torch.ones(1, 3))
    assert out.last_hidden_state.shape == (1, 3 + 3, 256)


def one(made: Exported) -> Path:
    (path,) = made.paths
    return path


def test_kobold_takes_the_zip(tmp_path: Path) -> None:
    prompt = soft(2048)
    path = one(export(prompt, "kobold", tmp_path))
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
def test_a1111_and_forge_take_one(tmp_path: Path, to: str, width: int) -> None:
    prompt = soft(width)
    path = one(export(prompt, to, tmp_path))
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
    assert vectors.shape[-1] in (768, 1024)  # the width of the loaded model's encoder; others are passed over
    assert path.suffix in (".png", ".pt", ".safetensors")


def test_a1111_finds_nothing_malicious_in_the_pt(tmp_path: Path) -> None:
    """Its check knows neither the members that newer versions of torch put into the zip, nor other globals in the pickle."""
    with zipfile.ZipFile(one(export(soft(768), "a1111", tmp_path))) as archive:
        assert all(re.match(r"^([^/]+)/((data/\d+)|version|(data\.pkl))$", name) for name in archive.namelist())
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        names = {
            argument
            for operation, argument, _ in pickletools.genops(archive.read(pickled))
            if operation.name == "GLOBAL"
        }
    assert names == {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"}


def test_a1111_and_forge_take_a_pair_for_sdxl(tmp_path: Path) -> None:
    pair = soft(768), soft(1280)
    data = read_a1111(one(export(*pair[:1], "a1111", tmp_path, other=pair[1])))
    assert "string_to_param" not in data
    assert type(data) is dict
    assert all(callable(tensor.detach) for tensor in data.values())  # each value is taken for a tensor
    assert data["clip_g"].shape[-1] + data["clip_l"].shape[-1] == 2048  # both encoders of SDXL side by side
    assert data["clip_g"].shape[0] == data["clip_l"].shape[0]  # clip_g's count stands for both
    assert data["clip_l"].numpy().tobytes() == pair[0].vectors.tobytes()
    assert data["clip_g"].numpy().tobytes() == pair[1].vectors.tobytes()


@pytest.mark.parametrize("width", [768, 1024, 1280])
def test_comfyui_takes_one_as_the_first_tensor(tmp_path: Path, width: int) -> None:
    prompt = soft(width)
    made = export(prompt, "comfyui", tmp_path)
    data = safetensors.torch.load_file(one(made), device="cpu")
    assert not {"string_to_param", "clip_l", "clip_g", "clip_h"} & data.keys()
    assert not [key for key in data if key.startswith("bundle_emb.")]
    first = next(iter(data.values()))
    assert first.numpy().tobytes() == prompt.vectors.tobytes()
    # a name ends at white space, begins after a space or at the start, and is looked for with these endings
    text = f"a photo of {made.word} at night"
    assert re.split(" embedding:", text)[1].split()[0] == "red-fox"
    assert one(made) == tmp_path / "red-fox.safetensors"


def test_comfyui_takes_from_a_pair_the_half_that_its_encoder_asks_for(tmp_path: Path) -> None:
    data = safetensors.torch.load_file(one(export(soft(1280), "comfyui", tmp_path, other=soft(768))), device="cpu")
    assert {key: tensor.shape[1] for key, tensor in data.items()} == {"clip_l": 768, "clip_g": 1280}


def test_invokeai_recognises_the_model_and_finds_the_trigger(tmp_path: Path) -> None:
    def base(data: dict[str, Any]) -> int:
        if "string_to_token" in data:
            return int(next(iter(data["string_to_param"].values())).shape[-1])
        if "emb_params" in data:
            return int(data["emb_params"].shape[-1])
        return int((data["clip_g"] if "clip_g" in data else next(iter(data.values())).T).shape[-1])

    for width in (768, 1024):
        made = export(soft(width, name=f"fox {width}"), "invokeai", tmp_path)
        assert base(safetensors.torch.load_file(one(made))) == width
        assert re.findall(r"<[a-zA-Z0-9., _-]+>", f"a photo of {made.word} at night") == [f"<fox-{width}>"]
    pair = safetensors.torch.load_file(one(export(soft(768), "invokeai", tmp_path, other=soft(1280))))
    assert base(pair) == 1280
    assert pair.keys() == {"clip_l", "clip_g"}
    # why diffusers' own key would not do: with several vectors it is taken for a model of that many dimensions
    assert base(safetensors.torch.load_file(one(export(soft(768), "diffusers", tmp_path)))) == 3


SYNTAX = (
    "AND", "BREAK", "and", "Break", "cats AND dogs", "salt-AND-pepper", "BREAKFAST", "_AND_", "__fox__", "a__b__c", "fox_", "_fox", "a|b", "(fox:1.2)", "[fox]",
    "<lora:x:1>", "fox, lake", "{a|b}", "embedding:fox", "_CON", "__", "--n 4", "a:1.3", "fox\\", "",
)  # fmt: skip


def is_found(to: str, word: str, text: str) -> bool:
    """Whether the program finds the word in a prompt, as its parser takes the prompt apart."""
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
                found.split()[0].strip(",") for segment in segments for found in f" {segment}".split(" embedding:")[1:]
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
def test_no_program_takes_an_exports_word_for_syntax(tmp_path: Path, name: str) -> None:
    for to in ("comfyui", "a1111", "a1111-png", "invokeai", "kohya"):
        (tmp_path / to).mkdir()
        made = export(soft(768, name=name), to, tmp_path / to)
        for prompt in ("{}", "a photo of {} at night", "{}, oil painting", "a sea ({}:1.3)"):
            assert is_found(to, made.word, prompt.format(made.word)), (to, made.word, prompt)
        assert export(soft(768, name=name), to, one(made), force=True).word == made.word


@pytest.mark.parametrize("name", ["red fox", "fox"])
def test_kohya_can_add_the_files_name_to_its_tokenizer(tmp_path: Path, name: str) -> None:
    prompt = soft(768, name=name)
    made = export(prompt, "kohya", tmp_path)
    data = safetensors.torch.load_file(one(made))
    assert "string_to_param" not in data
    vectors = next(iter(data.values()))
    words = [made.word, *(f"{made.word}{i}" for i in range(1, len(vectors)))]
    assert made.word == one(made).stem
    tokenizer = clip_tokenizer()
    assert tokenizer.add_tokens(words) == prompt.tokens
    ids = tokenizer.convert_tokens_to_ids(words)
    assert ids == list(range(VOCABULARY, VOCABULARY + prompt.tokens))
    assert vectors.numpy().tobytes() == prompt.vectors.tobytes()


def test_kohya_takes_a_pair_for_sdxl(tmp_path: Path) -> None:
    data = safetensors.torch.load_file(one(export(soft(768), "kohya", tmp_path, other=soft(1280))))
    assert data["clip_l"].shape == (3, 768)
    assert data["clip_g"].shape == (3, 1280)


def test_numpy_reads_the_array_without_pickles(tmp_path: Path) -> None:
    prompt = soft(256)
    read = np.load(io.BytesIO(one(export(prompt, "numpy", tmp_path)).read_bytes()), allow_pickle=False)
    assert read.tobytes() == prompt.vectors.tobytes()
