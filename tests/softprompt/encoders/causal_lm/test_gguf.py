"""GGUF files are converted once, completely or not at all."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from softprompt.encoders.causal_lm.gguf import PARTIAL_PREFIX, convert_gguf
from softprompt.encoders.causal_lm.loading import load_causal_lm
from softprompt.errors import ModelRefused, ModelUnavailable, UnknownModel
from softprompt.system.paths import cache_folder
from tests.softprompt.encoders.causal_lm.test_chat_template import CHATML
from tests.softprompt.encoders.causal_lm.tiny_models import save_model

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
}  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("Llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def file(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama as llama.cpp's converter writes it, in float32."""
    gguf = pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(gguf, llama, path, "llama")
    return path


def write_gguf(gguf: Any, folder: Path, path: Path, architecture: str) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokens = [token for token, _ in sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])]
    tokens += [f"<unused{i}>" for i in range(config.vocab_size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if i < 10 else 1 for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHATML)
    for name, weight in model.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for part, count in heads.items():
            if part in name:  # llama.cpp rotates other pairs of components
                rows = weight.shape[0] // count // 2
                weight = weight.reshape(count, 2, rows, -1).swapaxes(1, 2).reshape(weight.shape)
        for old, new in NAMES.items():
            name = name.replace(old, new)
        writer.add_tensor(name, weight.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_converted_file_is_the_same_model(file: Path, llama: Path) -> None:
    stages: list[str] = []
    model, original = load_causal_lm(file, "cpu", on_stage=stages.append), load_causal_lm(llama, "cpu")
    assert stages[:3] == ["reading tiny.gguf", "checking tiny.gguf", "unpacking the tokenizer"]
    assert model.name == f"local-dir:{file}"
    ids = original.tokenizer.encode("You are a pirate. What is the capital of France?")
    assert model.tokenizer.encode("You are a pirate. What is the capital of France?") == ids
    # the folder holds float16
    torch.testing.assert_close(
        model.logits(model.embed([ids])), original.logits(original.embed([ids])), atol=0.3, rtol=0
    )
    assert model.specials.end[0] == original.specials.end[0]
    assert model.chat_template.has_system_turn
    folder = model.folder
    assert len(folder.name.removeprefix("tiny-")) == 64
    assert folder.parent == cache_folder() / "gguf"
    stages.clear()
    assert load_causal_lm(file, "cpu", on_stage=stages.append).folder == folder
    assert stages == ["reading tiny.gguf", "loading the tokenizer", "reading the weights"]


def test_an_interrupted_conversion_leaves_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(transformers.LlamaForCausalLM, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_gguf(file, lambda _stage: None)
    assert list((cache_folder() / "gguf").iterdir()) == []


def test_files_beside_it_are_not_read(file: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(file, tmp_path / "copy.gguf"))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model"}')
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoConfig": "evil.Config"}}')
    names = {path.name for path in convert_gguf(copy, lambda _stage: None).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names


def test_another_architecture_is_refused(file: Path, llama: Path, tmp_path: Path) -> None:
    write_gguf(pytest.importorskip("gguf"), llama, tmp_path / "a.gguf", "falcon")
    with pytest.raises(ModelRefused, match=r"its architecture is 'falcon'. Supported: llama"):
        convert_gguf(tmp_path / "a.gguf", lambda _stage: None)


def test_a_damaged_file_is_refused(file: Path, tmp_path: Path) -> None:
    raw = file.read_bytes()
    for damaged in (raw[: len(raw) // 2], raw[:20], raw[:200] + bytes(200) + raw[400:]):
        (tmp_path / "a.gguf").write_bytes(damaged)
        with pytest.raises(ModelUnavailable, match=r"cannot convert .*a.gguf.*download it again") as error:
            convert_gguf(tmp_path / "a.gguf", lambda _stage: None)
        assert "\n" not in str(error.value)
    assert not list((cache_folder() / "gguf").glob(f"{PARTIAL_PREFIX}*"))


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="there is no file"):
        load_causal_lm(tmp_path / "none.gguf", "cpu")
    (tmp_path / "a.gguf").write_bytes(b"PK\3\4")
    with pytest.raises(ModelUnavailable, match="is not a GGUF file"):
        load_causal_lm(tmp_path / "a.gguf", "cpu")
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(ModelUnavailable, match=r"is not a regular file|Is a directory"):
        load_causal_lm(tmp_path / "folder.gguf", "cpu")


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModelUnavailable, match=r"need the package gguf.*softprompt-tui\[llm\]"):
        load_causal_lm(tmp_path / "a.gguf", "cpu")
