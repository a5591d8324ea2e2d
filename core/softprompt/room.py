"""What has room in a model's context, before the model is loaded: what a training would refuse, refused before anything waits for it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from softprompt.catalogue import MINI, ModelInfo, is_kept, mini_model
from softprompt.errors import ConfigError, PromptError, PromptTooLong, UnknownModel
from softprompt.models import LOCAL, resolve

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
    PromptError for one that is no text to it. Of a model that it does not know, nothing is said."""
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
    for text in [one.text for one in job.meanings] or [job.prompt]:
        ids = clip_tokenizer().encode(text)
        if not ids:
            raise no_prompt()
        if len(ids) > room and config.long == "refuse":
            raise too_long(len(ids), info.name, room, clip_tokenizer().decode(ids[room:]))


def no_prompt() -> PromptError:
    return PromptError("the prompt is empty: type what the soft prompt should mean, such as 'a lake at sunrise'")


def too_many(tokens: int, model: str, room: int) -> ConfigError:
    return ConfigError(f"tokens is {tokens}; {model} has room for 1 to {room} (10 are usual, 3 are often enough)")


def too_many_hard(tokens: int, model: str, room: int) -> ConfigError:
    return ConfigError(f"a hard readout of {tokens} tokens was asked for; {model} has room for 1 to {room}")


def too_long(tokens: int, model: str, room: int, beyond: str) -> PromptTooLong:
    return PromptTooLong(
        f"the prompt has {tokens:,} tokens, {model} takes {room}; what does not fit: '{shortened(beyond.strip())}'. "
        "Shorten it, or choose: --long chunk trains on the mean of its chunks, --long cut drops what does not fit (in the interface: F8)"
    )


def shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
