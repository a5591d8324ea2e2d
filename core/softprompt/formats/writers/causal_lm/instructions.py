"""The code that uses an export of a language model's soft prompt, and notes for the user.

The code runs as it stands, with the public API of the other program. Its texts are those that the soft tokens were
trained in: a chat template can print another date tomorrow.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.errors import wording
from softprompt.formats.writers.causal_lm.layout import ChatLayout
from softprompt.formats.writers.causal_lm.placement import trained_place
from softprompt.formats.writers.instructions import python_literal
from softprompt.prompts.safetensors_header import EMB_PARAMS
from softprompt.prompts.soft_prompt import SoftPrompt

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM

EXAMPLE_QUESTION = "What is the capital of France?"
VLLM_CHAT_URL, VLLM_MESSAGE = "http://localhost:8000/v1/chat/completions", 'reply["choices"][0]["message"]["content"]'
VLLM_COMPLETIONS_URL, VLLM_TEXT = "http://localhost:8000/v1/completions", 'reply["choices"][0]["text"]'
SGLANG_URL = "http://localhost:30000/generate"
MAX_NEW_TOKENS = 200
_HARD_PROMPT_IN_FILE = ("safetensors", "transformers", "peft", "peft-tokens", "kobold")
_PADDING = (
    "to score several questions at once, pad them on the right: padding on the left would stand between the soft "
    "tokens and the question. To generate, ask one question at a time."
)
_DIFFERS = ": answers differ from those measured. For KoboldAI, train with the placement start."
_OTHER_QUESTIONS = (
    "the file holds the whole chat with this question. For others, export again, or use the code of the format "
    "transformers."
)


def transformers_code(path: Path, model: CausalLM, layout: ChatLayout, source: str) -> str:
    return f"""\
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({python_literal(source)})
model = AutoModelForCausalLM.from_pretrained({python_literal(source)}, dtype=torch.float32)
soft = load_file({python_literal(str(path))})["{EMB_PARAMS}"]
question = {python_literal(EXAMPLE_QUESTION)}
before, after = {python_literal(layout.before)}, {_text_after(layout.shared + layout.between, layout.after)}
ids = [tokenizer.encode(text, add_special_tokens=False) for text in (before, after)]
first, last = (model.get_input_embeddings()(torch.tensor(row, dtype=torch.long, device=model.device)) for row in ids)
row = torch.cat([first, soft.to(first), last]).unsqueeze(0)
mask = torch.ones(row.shape[:2], dtype=torch.long, device=model.device)  # it covers the soft tokens too
{_generate(model, "inputs_embeds=row, attention_mask=mask")}
print(tokenizer.decode(answer[0], skip_special_tokens=True))"""


def peft_code(folder: Path, model: CausalLM, layout: ChatLayout, source: str) -> str:
    return f"""\
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({python_literal(source)})
model = AutoModelForCausalLM.from_pretrained({python_literal(source)}, dtype=torch.float32)
model = PeftModel.from_pretrained(model, {python_literal(str(folder))})
question = {python_literal(EXAMPLE_QUESTION)}
text = {_text_after(layout.between, layout.after)}  # the folder has all that is in front
ids = tokenizer.encode(text, add_special_tokens=False, return_tensors="pt").to(model.device)
{_generate(model, "input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False")}
print(tokenizer.decode(answer[0, ids.shape[1]:], skip_special_tokens=True))"""


def peft_tokens_code(
    folder: Path, model: CausalLM, layout: ChatLayout, source: str, words: Sequence[str], ids: Sequence[int]
) -> str:
    return f"""\
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({python_literal(str(folder))})  # the model's, with {len(words)} new tokens
model = AutoModelForCausalLM.from_pretrained({python_literal(source)}, dtype=torch.float32)
if len(tokenizer) > model.get_input_embeddings().num_embeddings:
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
model = PeftModel.from_pretrained(model, {python_literal(str(folder))})
soft = {python_literal("".join(words))}
question = {python_literal(EXAMPLE_QUESTION)}
text = {python_literal(layout.before)} + soft + {_text_after(layout.shared + layout.between, layout.after)}
ids = tokenizer.encode(text, add_special_tokens=False, return_tensors="pt").to(model.device)
new = list(range({ids[0]}, {ids[-1] + 1}))  # the model must not answer with them
{_generate(model, "input_ids=ids, attention_mask=torch.ones_like(ids), suppress_tokens=new")}
print(tokenizer.decode(answer[0, ids.shape[1]:], skip_special_tokens=True))"""


def _text_after(between: str, after: str) -> str:
    """Return the expression for the text behind the soft tokens. A template drops the white space of a question."""
    parts = (python_literal(between) if between else "", "question.strip()", python_literal(after) if after else "")
    return " + ".join(filter(None, parts))


def _generate(model: CausalLM, inputs: str) -> str:
    end = f", eos_token_id={list(model.specials.end)}" if model.specials.end else ""
    return f"answer = model.generate({inputs}, do_sample=False, max_new_tokens={MAX_NEW_TOKENS}{end})"


def request_code(path: Path, url: str, answer: str, question: bool = False) -> str:
    """Return the code that sends a request.

    Args:
        answer: the expression for the text in the reply.
        question: whether the question can be changed in the request.
    """
    change = f'\nrequest["messages"][-1]["content"] = {python_literal(EXAMPLE_QUESTION)}' if question else ""
    return f"""\
import json
import urllib.request
from pathlib import Path

request = json.loads(Path({python_literal(str(path))}).read_text()){change}
headers = {{"Content-Type": "application/json"}}
call = urllib.request.Request({python_literal(url)}, json.dumps(request).encode(), headers)
reply = json.load(urllib.request.urlopen(call))
print({answer})"""


def notes(to: str, prompt: SoftPrompt) -> tuple[str, ...]:
    """Return notes for the user: what the files hold, how to use them, and what goes wrong elsewhere."""
    placement = trained_place(prompt).placement
    where = "at the start of a text" if placement == "start" else f"in placement {placement} of its chat template"
    lines = [f"the vectors only work with {prompt.model}, {where}"]
    match to:
        case "transformers":
            lines += ["needs transformers 5.0 or newer", _PADDING]
        case "peft":
            lines += [
                "needs PEFT 0.18 or newer. The folder also has the tokens around the soft tokens: "
                f"{'the line break behind them' if placement == 'start' else 'those of the template'}.",
                "`use_cache=False` is needed: with PEFT 0.21 and transformers 5.24, answers with the cache are wrong. "
                "The code of the format transformers is right with the cache, because it passes `inputs_embeds`.",
                _PADDING,
            ]
        case "peft-tokens":
            lines += [
                "needs PEFT 0.18 or newer. The new tokens can stand anywhere in a text, but they were trained in this "
                "placement.",
                _PADDING,
            ]
        case "kobold":
            lines += [
                "put the file into KoboldAI's softprompts folder. KoboldAI hides it for models of another width, and "
                "puts the vectors in front of all text, without a chat template"
                f"{'. Begin the text with a line break.' if placement == 'start' else _DIFFERS}",
                "KoboldCpp cannot use it: it has no soft prompts",
            ]
        case "numpy" | "safetensors":
            lines.append(
                "the file has the vectors, without the template around them. The format transformers gives code that "
                "uses them."
            )
    if to in _HARD_PROMPT_IN_FILE and prompt.hard_prompt:
        lines.append("the file contains the hard prompt, which anyone with the file can read")
    return tuple(lines)


def vllm_notes(source: str, dtype: str, *, is_chat: bool, prints_date: bool) -> tuple[str, ...]:
    """Return notes on the server and on the request's tensor."""
    version, route = ("0.21", "chat") if is_chat else ("0.9", "completions")
    lines = [
        f"start the server with `vllm serve {shlex.quote(source)} --enable-prompt-embeds --dtype {dtype}`. The {route} "
        f"route takes embeddings since vLLM {version}.",
        f"the tensor is {dtype}. Older servers answer 500 if theirs is another. Set it with "
        f"{wording('--dtype', '`dtype`')}.",
        "older versions also fail on embeddings for quantized and multimodal models",
    ]
    if is_chat and prints_date:
        lines.append("the chat template prints the date of the day. In training it was another day.")
    if not is_chat:
        lines.append(_OTHER_QUESTIONS)
    return tuple(lines)


def sglang_notes(source: str) -> tuple[str, ...]:
    """Return notes on the server and on the request."""
    return (
        f"start the server with `python -m sglang.launch_server --model-path {shlex.quote(source)} "
        "--disable-radix-cache`, SGLang 0.4 or newer. It takes no embeddings while its prefix cache is on.",
        _OTHER_QUESTIONS,
    )
