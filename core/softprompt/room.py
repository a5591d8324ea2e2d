"""What has room in a model's context, before the model is loaded: what a training would refuse, refused before anything waits for it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from softprompt.catalogue import MINI, ModelInfo, is_kept, mini_model
from softprompt.errors import UnknownModel
from softprompt.models import LOCAL, resolve
from softprompt.refusals import no_prompt, too_long, too_many, too_many_hard, without_room

if TYPE_CHECKING:
    from softprompt.job import Job
    from softprompt.text import Tokenizer

AROUND = 2  # start and end, where the tokenizer is CLIP's


@lru_cache(maxsize=1)
def clip_tokenizer() -> Tokenizer:
    """One for all that only count. Takes 0.1 s the first time."""
    from softprompt.text import Tokenizer  # a command that counts nothing does not wait for it

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


def check_fits(job: Job) -> None:
    """Raises ConfigError for more soft tokens than the job's model has room for, PromptTooLong for a prompt that it is to refuse, and
    PromptError for one that is no text to it, and for another prompt without room, which is never cut. Of a model that it does not know, nothing is said."""
    info = known_model(job.model)
    if info is None:
        return
    room, config = info.context - AROUND, job.config
    tokens = max(job.sweep, default=0) or (0 if config.tokens == "auto" or job.entry else config.tokens)
    if tokens > room:
        raise too_many(tokens, info.name, room)
    if job.hard and (job.hard.tokens or 0) > room:
        raise too_many_hard(job.hard.tokens or 0, info.name, room)
    if job.entry:  # its prompt was trained on already
        return
    from softprompt.text import encode_prompt

    for text in [one.text for one in job.meanings] or [job.prompt]:
        ids = encode_prompt(clip_tokenizer(), text)
        if not ids:
            raise no_prompt()
        if len(ids) > room and config.long == "refuse":
            raise too_long(len(ids), info.name, room, clip_tokenizer().decode(ids[room:]))
    for text in config.against:
        if (length := len(encode_prompt(clip_tokenizer(), text))) > room:
            raise without_room(length, info.name, room)
