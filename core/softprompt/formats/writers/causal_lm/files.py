"""Encode soft prompts of language models in other programs' file formats.

Formats: PEFT's PromptTuningConfig, TrainableTokensConfig and utils/save_and_load.py; vLLM's docs/features/prompt_embeds
and renderers/embed_utils.py (a dense floating-point tensor, read with weights_only); SGLang's GenerateReqInput.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from softprompt.encoders.causal_lm.folder import check_folder
from softprompt.errors import ExportRefused
from softprompt.formats.writers.causal_lm.layout import ChatLayout
from softprompt.prompts import prompt_file
from softprompt.prompts.prompt_file import pack_tensors
from softprompt.prompts.safetensors_header import ROWS_KEY
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.prompts.tensors import MAX_TOKENS

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_ANSWER_TOKENS = 200  # of the requests, which users can change
# the module with the token embeddings, by the model_type of config.json
EMBEDDINGS = {"gpt2": "transformer.wte", "opt": "model.decoder.embed_tokens"}
DEFAULT_EMBEDDINGS = "model.embed_tokens"


def embed(model: CausalLM, ids: Sequence[int]) -> Array:
    """Return the token embeddings (T, width) of ids in float32."""
    rows: Array = model.embed(ids).detach().cpu().numpy().astype(np.float32).reshape(-1, model.width)
    return rows


def model_type(model: CausalLM) -> str:
    return str(check_folder(model.name, model.folder).config["model_type"])


def peft(prompt: SoftPrompt, model: CausalLM, layout: ChatLayout, source: str) -> dict[str, bytes]:
    """Encode a folder for prompt tuning. The template's fixed tokens around the soft tokens are stored with them.

    PEFT puts its virtual tokens in front of the text, so this is the only way to keep the placement.
    """
    before, shared = (model.tokenizer.encode(text) for text in (layout.before, layout.shared))
    rows = np.concatenate([embed(model, before), prompt.vectors, embed(model, shared)])
    if len(rows) > MAX_TOKENS:
        raise ExportRefused(
            f"the soft tokens with the chat template around them are {len(rows):,} virtual tokens. At most "
            f"{MAX_TOKENS:,} are allowed. Use the format transformers instead."
        )
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source,
        "num_virtual_tokens": len(rows),
        "token_dim": rows.shape[1],
        "num_transformer_submodules": 1,
        "num_attention_heads": None,
        "num_layers": None,
        "inference_mode": True,
        "prompt_tuning_init": "RANDOM",
    }
    return _adapter(config, {"prompt_embeddings": rows}, prompt, len(before))


def peft_tokens(
    prompt: SoftPrompt, model: CausalLM, tokenizer: Any, source: str
) -> tuple[dict[str, bytes], list[str], list[int]]:
    """Encode a folder with the soft tokens as new tokens, and with the tokenizer that has them.

    Args:
        tokenizer: transformers' tokenizer of the model. It gets the new tokens.

    Returns:
        The files, the new tokens and their ids.
    """
    words = _new_words(tokenizer, prompt.tokens)
    tokenizer.add_tokens(words, special_tokens=True)  # special tokens are split off before anything else
    ids = [int(i) for i in tokenizer.convert_tokens_to_ids(words)]
    module = EMBEDDINGS.get(model_type(model), DEFAULT_EMBEDDINGS)
    config = {
        "peft_type": "TRAINABLE_TOKENS",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source,
        "inference_mode": True,
        "init_weights": True,
        "target_modules": module,
        "token_indices": ids,
    }
    modules = (module, "lm_head") if _is_tied(model) else (module,)
    rows = {f"base_model.model.{name}.trainable_tokens_delta": prompt.vectors for name in modules}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
    return files | _adapter(config, rows, prompt, 0), words, ids


def _is_tied(model: CausalLM) -> bool:
    """Return whether the head is the token table. PEFT then expects the new tokens in both."""
    from transformers import AutoConfig  # which knows the default of each family

    config = AutoConfig.from_pretrained(str(model.folder), trust_remote_code=False, local_files_only=True)
    return bool(config.tie_word_embeddings)


def _new_words(tokenizer: Any, count: int) -> list[str]:
    """Return `[v1]`, `[v2]`, …, or higher numbers if the tokenizer has one of these tokens."""
    vocabulary = tokenizer.get_vocab()
    first = 1
    while any(f"[v{number}]" in vocabulary for number in range(first, first + count)):
        first += 1
    return [f"[v{number}]" for number in range(first, first + count)]


def _adapter(config: dict[str, Any], rows: dict[str, Array], prompt: SoftPrompt, start: int) -> dict[str, bytes]:
    """Encode the two files of an adapter folder. The soft tokens are the rows of each tensor from `start`."""
    where = {ROWS_KEY: f"{start}:{start + prompt.tokens}"}
    return {
        CONFIG: json.dumps(config, indent=2, sort_keys=True).encode(),
        WEIGHTS: prompt_file.encode(rows, prompt.as_dict(), pack_tensors(prompt.extra_tensors), where),
    }


def whole_rows(prompt: SoftPrompt, model: CausalLM, layout: ChatLayout, question: str) -> Array:
    """Return the embeddings (T, width) of a whole chat with a question, up to where the answer begins.

    Raises ExportRefused if the question is too long, and PromptError if it contains a special token.
    """
    before, after = layout.rows(model, question)
    length = len(before) + prompt.tokens + len(after)
    if length >= model.context:
        raise ExportRefused(
            f"the question with the soft tokens and the chat template has {length:,} tokens, but {model.name} reads at "
            f"most {model.context - 1:,} before an answer. Shorten the question."
        )
    rows: Array = np.concatenate([embed(model, before), prompt.vectors, embed(model, after)])
    return rows


def vllm_chat(
    prompt: SoftPrompt, model: CausalLM, source: str, question: str, dtype: str, options: dict[str, Any]
) -> bytes:
    """Encode a request for vLLM's chat route: the soft tokens are the system text, and the server adds the template."""
    part = {"type": "prompt_embeds", "data": _tensor(prompt.vectors, dtype)}
    messages = [{"role": "system", "content": [part]}, {"role": "user", "content": question}]
    return _request({"model": source, "messages": messages} | options | _vllm_options(model))


def vllm_completion(rows: Array, model: CausalLM, source: str, dtype: str) -> bytes:
    """Encode a request for vLLM's completions route, which adds no template: the whole chat is embedded."""
    return _request({"model": source, "prompt_embeds": _tensor(rows, dtype)} | _vllm_options(model))


def sglang(rows: Array, model: CausalLM) -> bytes:
    """Encode a request for SGLang's route /generate, with the whole chat."""
    options = {
        "temperature": 0,
        "max_new_tokens": MAX_ANSWER_TOKENS,
        "stop_token_ids": list(model.specials.end),
    }
    return _request({"input_embeds": rows.tolist(), "sampling_params": options})


def _vllm_options(model: CausalLM) -> dict[str, Any]:
    return {"max_tokens": MAX_ANSWER_TOKENS, "temperature": 0, "stop_token_ids": list(model.specials.end)}


def _tensor(rows: Array, dtype: str) -> str:
    """Return base64 of a tensor as torch.save writes it: dense, contiguous, and without more data than its own."""
    import torch

    file = io.BytesIO()
    torch.save(torch.from_numpy(rows.copy()).to(getattr(torch, dtype)).contiguous(), file)
    return base64.b64encode(file.getvalue()).decode()


def _request(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=True, allow_nan=False).encode()
