"""Self-study: questions that a language model writes itself about a hard prompt (Cartridges, arXiv 2506.06266)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch

from softprompt.encoders.causal_lm.answering import answer
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.question_rows import common_start
from softprompt.objectives.workspace import NO_WORKSPACE, Workspace

QUESTION_TOKENS = 24
MAX_ROUNDS = 8  # a small model repeats itself; more rounds find few new questions
_REQUESTS = (
    "Write one short question that this text answers.",
    "Ask one question about a name or a number in this text.",
    "Ask one question about what this text tells an assistant to do.",
    "What would a visitor ask after reading this text? Write one question.",
)


def write_questions(
    model: CausalLM, prompt: str, count: int, seed: int, *, run: str = "", workspace: Workspace = NO_WORKSPACE
) -> list[str]:
    """Return `count` questions about `prompt`. If the model writes too few different ones, they repeat.

    Raises:
        PromptError: the prompt contains a special token, or is too long for the model.
    """
    values = [model.fingerprint, model.chat_template.digest, prompt, count, seed]
    name = f"questions-{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]}"
    stored = _parse(workspace.read(run, name), count)
    if stored is not None:
        return stored
    generator = torch.Generator().manual_seed(seed)
    rows = [model.chat_template.encode(f"{prompt.strip()}\n\n{request}").ids for request in _REQUESTS]
    begin = common_start(rows)
    shared = model.embed(rows[0][:begin])
    inputs = [(shared, model.embed(row[begin:])) for row in rows]
    questions: dict[str, None] = {}
    for _ in range(MAX_ROUNDS):
        samples = -(-2 * (count - len(questions)) // len(rows))
        for each in answer(model, inputs, QUESTION_TOKENS, samples=samples, generator=generator):
            if question := _first_question(model.tokenizer.decode(each.ids)):
                questions.setdefault(question)
        workspace.post_stage(f"writing questions: {min(len(questions), count)} of {count}")
        if len(questions) >= count:
            break
    if not questions:
        questions = dict.fromkeys(["What should I know?"])
    written = list(questions)
    result = [written[i % len(written)] for i in range(count)]
    workspace.write(run, name, json.dumps(result).encode())
    return result


def _first_question(text: str) -> str:
    """Return the first question in a text, or ""."""
    head, mark, _ = text.partition("?")
    question = head.splitlines()[-1].strip(" \"'*-") if mark and head.splitlines() else ""
    return f"{question}?" if len(question.split()) > 2 and question.isprintable() else ""


def _parse(raw: bytes | None, count: int) -> list[str] | None:
    try:
        values: Sequence[object] = json.loads(raw) if raw is not None else ()
    except ValueError:
        return None
    if isinstance(values, list) and len(values) == count and all(isinstance(value, str) for value in values):
        return [str(value) for value in values]
    return None
