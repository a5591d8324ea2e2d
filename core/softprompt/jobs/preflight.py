"""What is refused before a model is loaded: what no training could do, whether it is to begin now, in the worker or in a sweep.

`Job` itself refuses what works on no model and no machine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from softprompt.config import MAX_TOKENS
from softprompt.encoders.catalog import LOCAL, MINI, ModelInfo, is_kept, mini_model, resolve
from softprompt.encoders.model_folder import local_folder
from softprompt.errors import UnknownModel, no_prompt, not_supported, too_long, too_many, too_many_hard, without_room
from softprompt.jobs.job import AnyJob, HardReadoutJob, SweepJob, TrainJob

if TYPE_CHECKING:
    from softprompt.encoders.clip.tokenizer import Tokenizer

AROUND = 2  # start and end, where the tokenizer is CLIP's


@lru_cache(maxsize=1)
def clip_tokenizer() -> Tokenizer:
    """One for all that only count. Takes 0.1 s the first time."""
    from softprompt.encoders.clip.tokenizer import Tokenizer  # a command that counts nothing does not wait for it

    return Tokenizer()


def known_model(name: str) -> ModelInfo | None:
    """What is known of a model with CLIP's own tokenizer; None for others, for unknown ones, and where finding out would take seconds."""
    if name.startswith(LOCAL) or not (name.lower() == MINI or is_kept()):
        return None
    try:
        info = mini_model() if name.lower() == MINI else resolve(name)
    except UnknownModel:
        return None
    return None if info.tokenizer or info.refused else info


def _model_of(name: str) -> ModelInfo | None:
    """What is known of a job's model; None where finding out would take seconds. Raises UnknownModel and ModelUnavailable."""
    if name.lower() == MINI:
        return mini_model()
    if not name.startswith(LOCAL):
        return resolve(name) if is_kept() else None
    from softprompt.encoders.model_folder import read_folder  # 5 ms, for folders only

    text = read_folder(name, local_folder(name)).text
    context, refused = text.get("context_length", 77), text.get("hf_model_name")
    if not AROUND < context <= MAX_TOKENS:
        return None  # loading it says what is wrong
    own = "" if not (text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs")) else "its own"
    return ModelInfo(
        name,
        0,
        0,
        context,
        0,
        tokenizer=own,
        refused=f"its text tower is the Hugging Face model {refused}" * bool(refused),
    )


def check_fits(job: AnyJob) -> None:
    """Refuse a job that its model could never train.

    Where a model's tokenizer is not CLIP's, its prompt cannot be counted before it is loaded, and nothing is said of a model whose
    context is not known without loading it.

    Raises:
        UnknownModel, ModelUnavailable, ModelRefused: there is no such model, or none that can be trained on.
        ConfigError: more soft tokens than there is room for.
        PromptTooLong: the prompt has no room, and is not to be cut or chunked.
        PromptError: the prompt is no text to the model, or another prompt, which is never cut, has no room.
    """
    info = _model_of(job.model)
    if info is None:
        return
    if info.refused:
        raise not_supported(info.name, info.refused)
    counted = not info.tokenizer
    room, config = info.context - (AROUND if counted else 0), job.config
    match job:
        case SweepJob():
            tokens = max(job.sweep)
        case TrainJob():
            tokens = 0 if config.tokens == "auto" else config.tokens
        case HardReadoutJob():
            tokens = 0
    if tokens > room:
        raise too_many(tokens, info.name, room)
    if job.hard_config and (job.hard_config.tokens or 0) > room:
        raise too_many_hard(job.hard_config.tokens or 0, info.name, room)
    if isinstance(job, HardReadoutJob) or not counted:  # the prompt of an entry was trained on already
        return
    from softprompt.encoders.base import encode_prompt

    for text in [one.text for one in job.meanings] or [job.prompt]:
        ids = encode_prompt(clip_tokenizer(), text)
        if not ids:
            raise no_prompt()
        if len(ids) > room and config.long == "refuse":
            raise too_long(len(ids), info.name, room, clip_tokenizer().decode(ids[room:]))
    for text in config.against:
        if (length := len(encode_prompt(clip_tokenizer(), text))) > room:
            raise without_room(length, info.name, room)
