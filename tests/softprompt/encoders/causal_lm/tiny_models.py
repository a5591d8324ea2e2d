"""Tiny random causal language models of the real classes, with a tokenizer, saved as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIAL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
           "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"]  # fmt: skip
BOS, EOS, PAD = 0, 1, 2
VOCABULARY, ROWS = 330, 336  # the table has unused rows, as Qwen's
TEXT = (
    "You are a pirate. Answer in one short line.\n\nWhat is the capital of France? user system assistant model The of "
)
CONTEXT = 64
EOS_TOKEN = {"__type": "AddedToken", "content": "</s>", "special": True, "normalized": False, "lstrip": False,
             "rstrip": False, "single_word": False}  # fmt: skip
_SIZES: dict[str, Any] = {
    "vocab_size": ROWS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "bos_token_id": BOS, "eos_token_id": EOS,
    "pad_token_id": PAD, "initializer_range": 0.3,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "Llama": _SIZES,
    "Mistral": _SIZES | {"sliding_window": 8},
    "Qwen2": _SIZES | {"tie_word_embeddings": True},
    "Qwen3": _SIZES | {"head_dim": 8},
    "Gemma": _SIZES | {"head_dim": 8},
    "Gemma2": _SIZES | {"head_dim": 8, "sliding_window": 8, "attn_logit_softcapping": 1.0},
    "Phi": _SIZES,
    "GPT2": _SIZES,
    "OPT": _SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 16},
}  # fmt: skip


def make_tokenizer(adds_start: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True, normalized=False) for text in SPECIAL]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 50, trainer)
    if adds_start:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return tokenizer


def save_tokenizer(folder: Path, adds_start: bool = True, template: str | None = None) -> None:
    """Save the tokenizer with truncation and padding, which many repositories leave in the file by mistake."""
    tokenizer = make_tokenizer(adds_start)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": EOS_TOKEN,
              "pad_token": "<pad>"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | ({"chat_template": template} if template else {}))
    )


def save_model(family: str, folder: Path, template: str | None = None, **settings: Any) -> Path:
    """Save a model of a family with its tokenizer. Return the folder.

    Args:
        settings: values of the model's configuration to change.
    """
    torch.manual_seed(0)
    model_class = getattr(transformers, family + ("LMHeadModel" if family == "GPT2" else "ForCausalLM"))
    model = model_class(getattr(transformers, f"{family}Config")(**CONFIGS[family] | settings))
    model.save_pretrained(folder)
    save_tokenizer(folder, adds_start=family not in ("GPT2", "Qwen2"), template=template)
    return folder


def change_json(path: Path, **values: object) -> None:
    """Change values of a JSON file. None removes a value."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
