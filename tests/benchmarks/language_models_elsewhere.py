"""Compare the code that an export of a language model's soft prompt prints with this program, on a real model.

    python tests/benchmarks/language_models_elsewhere.py MODEL [--placement system] [--questions 20] [--tokens 24]

The soft prompt has 16 random vectors. Prints a line for transformers and for both kinds of PEFT: how many most likely
answers are equal, and the largest difference of any logit. For PEFT's prompt tuning, also how many are equal with the
key-value cache.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import warnings
from typing import Any

import torch

import softprompt
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.question_rows import encode_around
from softprompt.formats.writers.causal_lm.instructions import EXAMPLE_QUESTION, MAX_NEW_TOKENS
from softprompt.prompts.questions import load_questions
from softprompt.prompts.soft_prompt import SoftPrompt
from tests.softprompt.formats.language_prompts import make_prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--placement", default="system")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=24)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # PEFT warns at every token that it ignores the positions
    model = softprompt.load_causal_lm(options.model, "cpu")
    prompt = make_prompt(model, options.placement, tokens=16)
    questions = load_questions()[: options.questions]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for to in ("transformers", "peft", "peft-tokens"):
            compare(model, prompt, to, questions, options.tokens)


def compare(model: CausalLM, prompt: SoftPrompt, to: str, questions: tuple[str, ...], tokens: int) -> None:
    code = softprompt.export(prompt, to, encoder=model).line.replace(
        f"max_new_tokens={MAX_NEW_TOKENS}", f"max_new_tokens={tokens}"
    )
    setup, question_line, rest = code.partition("question = ")
    names: dict[str, Any] = {}
    exec(setup, names)  # loads the model once
    ask = question_line + rest.rpartition("\n")[0]  # without the line that prints the answer
    equal = equal_cached = 0
    largest = 0.0
    for question in questions:
        row = own_row(model, prompt, question)
        with torch.no_grad():
            expected, own_logits = model.generate(row, tokens), model.logits(row.unsqueeze(0))[0]
        this = ask.replace(json.dumps(EXAMPLE_QUESTION), repr(question))
        exec(this, names)
        equal += answer(names) == expected
        with torch.no_grad():
            logits = names["model"](**inputs(names)).logits[0, :, : model.vocabulary]
        largest = max(largest, float((logits - own_logits).abs().max()))
        if "use_cache=False" in this:
            exec(this.replace(", use_cache=False", ""), names)
            equal_cached += answer(names) == expected
    cached = f", with the cache {equal_cached}" if "use_cache=False" in ask else ""
    print(f"{to}: {equal} of {len(questions)} answers equal{cached}; largest difference of a logit {largest:.1e}")


def own_row(model: CausalLM, prompt: SoftPrompt, question: str) -> torch.Tensor:
    """Return the embeddings (T, w) of a whole chat."""
    assert prompt.answers is not None
    before, after = encode_around(model, question, prompt.answers.placement)  # type: ignore[arg-type]
    return torch.cat([model.embed(before), torch.tensor(prompt.vectors), model.embed(after)])


def inputs(names: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the other program's forward pass."""
    if "row" in names:
        return {"inputs_embeds": names["row"], "attention_mask": names["mask"]}
    return {"input_ids": names["ids"], "attention_mask": torch.ones_like(names["ids"])}


def answer(names: dict[str, Any]) -> list[int]:
    begin = 0 if "row" in names else names["ids"].shape[1]  # from embeddings, the answer is all there is
    return list(map(int, names["answer"][0, begin:]))


if __name__ == "__main__":
    main()
