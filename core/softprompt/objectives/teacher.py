"""The teacher: the model's own answers to questions, sampled with the hard prompt in place.

Each answer keeps the most likely tokens at each of its positions. Training minimizes the divergence from these; grading
computes the divergence over the whole vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from softprompt.config import Placement
from softprompt.encoders.causal_lm.answering import Answer, answer
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.question_rows import common_start, hard_row, template_digest
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.objectives.workspace import NO_WORKSPACE, Workspace

TOP = 64  # likely tokens kept at each position; more do not train better, and understate diffuse text little
ANSWER_TOKENS = 16  # longest sampled answer; the start of an answer is what a prompt decides
log = logging.getLogger(__name__)


# the answers of each model by key, most recently used last: a sweep and its grading ask for the same ones
_recent: WeakKeyDictionary[CausalLM, dict[str, list[list[Answer]]]] = WeakKeyDictionary()
RECENT_TEACHERS = 4  # 400 answers take 4 MB


@neutral_torch()
def sample_teacher(
    model: CausalLM,
    prompt: str,
    questions: Sequence[str],
    samples: int,
    placement: Placement,
    seed: int,
    *,
    label: str,
    run: str = "",
    workspace: Workspace = NO_WORKSPACE,
) -> list[list[Answer]]:
    """Return sampled answers to each question, with the hard prompt in place.

    Equal arguments give equal answers. They are read from the workspace if it has them, and written to it otherwise.

    Args:
        samples: number of answers to each question.
        label: what the answers are for, such as "training": the start of their name in the workspace.
        run: the key of the run.

    Raises:
        PromptError: a text contains a special token, or is too long for the model.
    """
    values = [
        model.fingerprint, template_digest(model, placement), prompt, list(questions), samples, placement, seed, TOP,
        ANSWER_TOKENS,
    ]  # fmt: skip
    key = f"{label}-{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]}"
    known = _recent.setdefault(model, {})
    raw = workspace.read(run, key)
    answers = known.pop(key, None)
    if answers is None and raw is not None:
        answers = _unpack(raw, len(questions), samples)
    is_kept = answers is not None and raw is not None
    if answers is None:
        rows = [hard_row(model, question, prompt, placement) for question in questions]
        begin, total = common_start(rows), len(rows) * samples
        shared = model.embed(rows[0][:begin])
        flat = answer(
            model,
            [(shared, model.embed(row[begin:])) for row in rows],
            ANSWER_TOKENS,
            samples=samples,
            generator=torch.Generator().manual_seed(seed),
            top=TOP,
            on_token=lambda done: workspace.post_stage(f"sampling answers: {done} of {total}"),
        )
        answers = [flat[at : at + samples] for at in range(0, total, samples)]
    if not is_kept:
        workspace.write(run, key, _pack(answers))
    known[key] = answers
    while len(known) > RECENT_TEACHERS:
        del known[next(iter(known))]
    return answers


def _pack(answers: Sequence[Sequence[Answer]]) -> bytes:
    flat = [each for group in answers for each in group]
    tensors = {
        "lengths": torch.tensor([len(each.ids) for each in flat], dtype=torch.int32),
        "ids": torch.tensor([token for each in flat for token in each.ids], dtype=torch.int32),
        "top_ids": torch.cat([each.top_ids for each in flat]).int(),
        "top_logs": torch.cat([each.top_logs for each in flat]).float(),
    }
    raw: bytes = save(tensors)
    return hashlib.sha256(raw).digest() + raw


def _unpack(raw: bytes, questions: int, samples: int) -> list[list[Answer]] | None:
    """Return the answers of `_pack`, or None if they are damaged or do not fit."""
    size = hashlib.sha256().digest_size
    try:
        if hashlib.sha256(raw[size:]).digest() != raw[:size]:
            raise ValueError("the bytes do not match their checksum")
        tensors = load(raw[size:])
        lengths = tensors["lengths"].tolist()
        if len(lengths) != questions * samples:
            raise ValueError("the number of answers differs")
        parts: list[tuple[Tensor, ...]] = [tensors[name].split(lengths) for name in ("ids", "top_ids", "top_logs")]
        flat = [
            Answer(tuple(ids.tolist()), top_ids.long(), top_logs) for ids, top_ids, top_logs in zip(*parts, strict=True)
        ]
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        log.warning("the stored answers are computed again: %s", error)
        return None
    return [flat[at : at + samples] for at in range(0, len(flat), samples)]
