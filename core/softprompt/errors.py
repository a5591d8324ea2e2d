"""What can go wrong, as types. Every message says what was wrong, what would be right and what to do next."""

from __future__ import annotations

import errno

# a disk that is full, over its quota, read-only or broken, or a process without descriptors: nobody's input is at fault
STORAGE_FAILURES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENFILE, errno.EMFILE, errno.EFBIG}
)


class SoftPromptError(Exception):
    """Base of every error this package raises on purpose; `bad_input` is true where the caller's input is at fault."""

    bad_input = False


def is_bad_input(error: SoftPromptError) -> bool:
    """Return whether the caller's input is at fault. Never for an error that a failing disk caused, whatever its type."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in STORAGE_FAILURES:
            return False
        cause = cause.__cause__
    return error.bad_input


class PromptError(SoftPromptError):
    """A hard prompt, context or other text that cannot be used."""

    bad_input = True


class PromptTooLong(PromptError):
    """A hard prompt that does not fit into the model's context, and was not allowed to be cut or chunked."""


class TemplateError(PromptError):
    """A template that cannot be read; `column` is where, in characters from 1, or 0 where only the message is known."""

    def __init__(self, message: str, column: int = 0) -> None:
        super().__init__(f"at character {column}: {message}" if column else message)
        self.column = column


class ConfigError(SoftPromptError):
    """A setting out of its bounds: the message gives the value, the bound and what would work."""

    bad_input = True


class UnknownModel(SoftPromptError):
    """A model's name that stands for nothing here; the message lists close matches."""

    bad_input = True


class ModelRefused(SoftPromptError):
    """A model that exists, but that this package would not run faithfully."""

    bad_input = True


class ModelUnavailable(SoftPromptError):
    """A supported model that cannot be had here and now: not on disk and no network, broken files, a missing package."""


class DeviceError(SoftPromptError):
    """A device that this machine does not have."""

    bad_input = True


class LibraryError(SoftPromptError):
    """The library's folder or one of its files cannot be used; nothing was half-written."""


class HomeError(LibraryError):
    """The folder of the user's files cannot be written to."""

    bad_input = True


class BadName(LibraryError):
    """A name that cannot be given to a soft prompt."""

    bad_input = True


class EntryNotFound(LibraryError):
    """No entry of that name or id; the message lists close matches."""

    bad_input = True


class EntryChanged(LibraryError):
    """An entry that another program has changed since it was looked at; it is as that one left it."""


class EntryDamaged(LibraryError):
    """A file whose bytes are not what was saved."""


class EntryRefused(LibraryError):
    """A soft prompt that could not be opened again if it were saved; the message names what is wrong. Nothing was written."""

    bad_input = True


class ArchiveError(LibraryError):
    """A backup that cannot be written, or is not whole; the library is as it was."""

    bad_input = True


class FileRefused(SoftPromptError):
    """A file from outside that is not read: what it is, what was wrong with it, what would be read. Nothing was written."""

    bad_input = True


class ExportRefused(SoftPromptError):
    """What the other program could not use; the message names what it needs. Nothing was written."""

    bad_input = True


class FileInTheWay(ExportRefused):
    """There is a file of the export's name already."""


class WorkerError(SoftPromptError):
    """The worker cannot be started, reached or understood."""


class MessageTooLong(WorkerError):
    """A message over the longest line of the worker's protocol."""

    bad_input = True


class RunNotFound(SoftPromptError):
    """No run of that id; the message says which there are."""

    bad_input = True


class RunUnreadable(SoftPromptError):
    """A run folder whose files cannot be understood; the message says which of them, and why."""


class RunRefused(SoftPromptError):
    """What was asked of a run that is not in a state for it."""

    bad_input = True


MAX_REASON_LENGTH = 300  # characters


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
    return ConfigError(
        f"init is 'soft', which starts from a soft prompt of {width}; {had}: name one, or choose another init"
    )


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
    return shortened(text, MAX_REASON_LENGTH) or type(error).__name__


def typed_reason(error: BaseException) -> str:
    """The same, with the type of the error before it."""
    name, said = type(error).__name__, reason(error)
    return name if said == name else f"{name}: {said}"
