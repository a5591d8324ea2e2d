"""What is refused before a model is loaded and by the model itself, in the same words."""

from __future__ import annotations

from softprompt.errors import ConfigError, ModelRefused, PromptError, PromptTooLong, SoftPromptError

LONGEST_REASON = 300  # characters


def check_text(what: str, text: str, kind: type[SoftPromptError] = PromptError) -> str:
    """Return `text`; raise an error of `kind` if it holds a NUL or half of a surrogate pair.

    Python decodes a byte that is no UTF-8 to such a half, whether it comes from an argument, standard input or a file.
    """
    if text.isprintable():  # cheaper than encoding, and true of most prompts
        return text
    if "\0" in text:
        raise kind(f"there is a NUL in the {what}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise kind(f"the {what} is no UTF-8 text: character {error.start + 1} cannot be read") from None
    return text


def not_supported(name: str, why: str) -> ModelRefused:
    return ModelRefused(f"{name} is not supported: {why}. `softprompt-tui models` lists those that are")


def no_prompt() -> PromptError:
    return PromptError("the prompt is empty: type what the soft prompt should mean, such as 'a lake at sunrise'")


def without_room(tokens: int, model: str, room: int) -> PromptError:
    return PromptError(f"{tokens} tokens do not fit: {model} takes at most {room} beside start and end")


def too_many(tokens: int, model: str, room: int) -> ConfigError:
    return ConfigError(f"tokens is {tokens}; {model} has room for 1 to {room} (10 are usual, 3 are often enough)")


def too_many_hard(tokens: int, model: str, room: int) -> ConfigError:
    return ConfigError(f"a hard readout of {tokens} tokens was asked for; {model} has room for 1 to {room}")


def no_start(had: str = "none was given", width: str = "the model's width") -> ConfigError:
    return ConfigError(f"init is 'soft', which starts from a soft prompt of {width}; {had}: name one, or choose another init")


def too_long(tokens: int, model: str, room: int, beyond: str) -> PromptTooLong:
    return PromptTooLong(
        f"the prompt has {tokens:,} tokens, {model} takes {room}; what does not fit: '{shortened(beyond.strip())}'. "
        "Shorten it, or choose: --long chunk trains on the mean of its chunks, --long cut drops what does not fit (in the interface: F8)"
    )


def shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def reason(error: BaseException) -> str:
    """What a library says of its error, in one bounded line: the first one, or the first two where they belong together."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return shortened(text, LONGEST_REASON) or type(error).__name__


def typed_reason(error: BaseException) -> str:
    """The same, with the type of the error before it."""
    name, said = type(error).__name__, reason(error)
    return name if said == name else f"{name}: {said}"
