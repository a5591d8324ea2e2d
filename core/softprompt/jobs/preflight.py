"""Check a job against its model before the model is loaded.

`Job` itself rejects settings that cannot work on any model or machine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from softprompt.config import MAX_TOKENS, check_objective
from softprompt.encoders.catalog import LOCAL_PREFIX, MINI, ModelInfo, is_cached, mini_model, model_kind, resolve
from softprompt.encoders.model_folder import local_folder
from softprompt.errors import (
    UnknownModel,
    empty_prompt,
    model_not_supported,
    needs_text_encoder,
    prompt_too_long,
    tokens_do_not_fit,
    too_many_hard_tokens,
    too_many_tokens,
)
from softprompt.jobs.job import AnyJob, HardReadoutJob, SweepJob, TrainJob
from softprompt.prompts.questions import load_questions, split_questions

if TYPE_CHECKING:
    from softprompt.encoders.clip.tokenizer import Tokenizer

SPECIAL_TOKEN_COUNT = 2  # start and end token of CLIP's tokenizer


@lru_cache(maxsize=1)
def clip_tokenizer() -> Tokenizer:
    """Return a shared tokenizer for counting. The first call takes 0.1 s."""
    from softprompt.encoders.clip.tokenizer import Tokenizer  # commands that count no tokens skip this import

    return Tokenizer()


def known_model(name: str) -> ModelInfo | None:
    """Return the facts about a model with CLIP's tokenizer.

    Return None if the model has another tokenizer or is unknown, or if finding out would take seconds.
    """
    if name.startswith(LOCAL_PREFIX) or model_kind(name) == "causal" or not (name.lower() == MINI or is_cached()):
        return None
    try:
        info = mini_model() if name.lower() == MINI else resolve(name)
    except UnknownModel:
        return None
    return None if info.tokenizer or info.refused else info


def _model_info(name: str) -> ModelInfo | None:
    """Return information about a job's model, or None if looking it up would take seconds.

    Raises UnknownModel or ModelUnavailable.
    """
    if name.lower() == MINI:
        return mini_model()
    if not name.startswith(LOCAL_PREFIX):
        return resolve(name) if is_cached() else None
    from softprompt.encoders.model_folder import read_folder  # the import takes 5 ms

    text = read_folder(name, local_folder(name)).text_config
    context, refused = text.get("context_length", 77), text.get("hf_model_name")
    if not SPECIAL_TOKEN_COUNT < context <= MAX_TOKENS:
        return None  # loading the model reports the problem
    tokenizer = "" if not (text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs")) else "its own"
    return ModelInfo(
        name,
        0,
        0,
        context,
        0,
        tokenizer=tokenizer,
        refused=f"its text tower is the Hugging Face model {refused}" * bool(refused),
    )


def check_fits(job: AnyJob) -> None:
    """Reject a job that its model cannot run.

    The prompt is checked only if the model uses CLIP's tokenizer. Nothing is checked if the model's context length is
    unknown until the model is loaded.

    Raises:
        UnknownModel, ModelUnavailable, ModelRefused: the model does not exist, cannot be used or is of the wrong kind.
        ConfigError: the objective needs another kind of model, or the model has no room for this many soft tokens or
            hard tokens.
        PromptTooLong: the prompt does not fit, and `long` is "refuse".
        PromptError: the prompt has no tokens, or a text in `against` does not fit (such texts are never cut).
    """
    kind = model_kind(job.model)
    if kind == "causal" and job.hard_config:
        raise needs_text_encoder(job.model, "a hard readout")
    if kind == "causal" and job.meanings:
        raise needs_text_encoder(job.model, "a mix of prompts")
    if not isinstance(job, HardReadoutJob):
        check_objective(job.config, kind, job.model)
    if kind == "causal":
        _check_language_model(job)
        return
    info = _model_info(job.model)
    if info is None:
        return
    if info.refused:
        raise model_not_supported(info.name, info.refused)
    is_countable = not info.tokenizer
    room, config = info.context - (SPECIAL_TOKEN_COUNT if is_countable else 0), job.config
    match job:
        case SweepJob():
            tokens = max(job.sweep)
        case TrainJob():
            tokens = 0 if config.tokens == "auto" else config.tokens
        case HardReadoutJob():
            tokens = 0
    if tokens > room:
        raise too_many_tokens(tokens, info.name, room)
    if job.hard_config and (job.hard_config.tokens or 0) > room:
        raise too_many_hard_tokens(job.hard_config.tokens or 0, info.name, room)
    if isinstance(job, HardReadoutJob) or not is_countable:  # an entry's prompt was already trained on
        return
    from softprompt.encoders.base import encode_prompt

    for text in [meaning.text for meaning in job.meanings] or [job.prompt]:
        ids = encode_prompt(clip_tokenizer(), text)
        if not ids:
            raise empty_prompt()
        if len(ids) > room and config.long == "refuse":
            raise prompt_too_long(len(ids), info.name, room, clip_tokenizer().decode(ids[room:]))
    for text in config.against:
        if (length := len(encode_prompt(clip_tokenizer(), text))) > room:
            raise tokens_do_not_fit(length, info.name, room)


def _check_language_model(job: AnyJob) -> None:
    """Check what is known of a language model without its tokenizer. Raises ConfigError or a model error."""
    info = resolve(job.model)
    tokens = max(job.sweep) if isinstance(job, SweepJob) else job.config.tokens
    if info.context and tokens != "auto" and tokens >= info.context:
        raise too_many_tokens(tokens, info.name, info.context - 1)
    if not isinstance(job, HardReadoutJob):
        split_questions(job.config.questions or load_questions())  # before the model is loaded, which takes seconds
