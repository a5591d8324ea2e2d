"""The exceptions this package raises. Each message states what is wrong, what is allowed and what to do next."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

# a full, read-only or failing disk, an exhausted quota, or no free file descriptors: never the fault of the input
STORAGE_FAILURES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENFILE, errno.EMFILE, errno.EFBIG}
)


Audience = Literal["api", "commands"]
_audience: Audience = "api"  # of the whole process, because threads do not inherit context variables


@contextmanager
def word_messages_for(audience: Audience) -> Iterator[None]:
    """Word this process's messages for users of the Python API, the default, or of the commands and the interface."""
    global _audience
    before, _audience = _audience, audience
    try:
        yield
    finally:
        _audience = before


def wording(commands: str, api: str) -> str:
    """Return the wording for users of the commands and the interface, or the one for users of the Python API."""
    return api if _audience == "api" else commands


def option(name: str, value: object = None) -> str:
    """Name a setting, with its value if given: `--stop-at 0.99` or `stop_at=0.99`. The value True makes a flag."""
    flag = f"--{name.replace('_', '-')}"
    if value is None:
        return wording(flag, f"`{name}`")
    return wording(flag if value is True else f"{flag} {value}", f"{name}={value!r}")


def command(line: str, call: str) -> str:
    """Name what to run, in backquotes: a command of softprompt-tui, or a call of the Python API."""
    return wording(f"`softprompt-tui {line}`", f"`{call}`")


MAX_MESSAGE_LENGTH = 4000  # characters; the longest message of ours, without quoted text, has 600


class SoftPromptError(Exception):
    """Base class of all errors that this package raises on purpose.

    `bad_input` is true if the caller's input is at fault.
    """

    bad_input = False

    def __str__(self) -> str:
        """Return the message as one line. It can quote names and paths that contain line breaks or are very long."""
        message = Exception.__str__(self)  # KeyError's would be the repr
        if len(message) > MAX_MESSAGE_LENGTH:
            half = MAX_MESSAGE_LENGTH // 2
            message = f"{message[:half]} … {message[-half:]}"
        return message if message.isprintable() else "".join(map(_as_printable, message))


def _as_printable(char: str) -> str:
    if char.isprintable():
        return char
    # U+2400 and up: the visible symbol of each control character, as everywhere else in this program
    return chr(0x2400 + ord(char)) if ord(char) < 0x20 else repr(char)[1:-1]


def is_bad_input(error: SoftPromptError) -> bool:
    """Return whether the caller's input is at fault. An error that a failing disk caused never is."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in STORAGE_FAILURES:
            return False
        cause = cause.__cause__
    return error.bad_input


class PromptError(SoftPromptError):
    """A prompt, context or other text that cannot be used."""

    bad_input = True


class PromptTooLong(PromptError):
    """A prompt longer than the model's context length when neither cutting nor chunking is allowed."""


class TemplateError(PromptError):
    """A template that cannot be parsed. `column` is the 1-based position of the error, or 0 if unknown."""

    def __init__(self, message: str, column: int = 0) -> None:
        super().__init__(f"at character {column}: {message}" if column else message)
        self.column = column


class ConfigError(SoftPromptError):
    """An invalid setting. The message gives the value, the bounds and a value that works."""

    bad_input = True


class ArgumentError(SoftPromptError, TypeError):
    """A wrong, missing or unknown argument. The message gives its name and what is expected."""

    bad_input = True


class MissingPackage(SoftPromptError, ImportError):
    """A function needs a package that is not installed. The message says how to install it."""

    bad_input = True


class UnknownModel(SoftPromptError):
    """An unknown model name. The message lists close matches."""

    bad_input = True


class ModelRefused(SoftPromptError):
    """An existing model that this package cannot run faithfully."""

    bad_input = True


class ModelUnavailable(SoftPromptError):
    """A supported model that cannot be loaded now, because of the network, broken files or a missing package."""


class DeviceError(SoftPromptError):
    """A device that is unknown or that this machine does not have."""

    bad_input = True


class LibraryError(SoftPromptError):
    """The library's folder or one of its files cannot be used. No file is left half-written."""


class HomeError(LibraryError):
    """The folder for the user's files cannot be used."""

    bad_input = True


class BadName(LibraryError):
    """An invalid name for a soft prompt."""

    bad_input = True


class EntryNotFound(LibraryError, KeyError):
    """No entry has this name or id. The message lists close matches."""

    bad_input = True


class EntryChanged(LibraryError):
    """Another program has changed the entry since it was read. The other program's version is left in place."""


class EntryDamaged(LibraryError):
    """A file whose bytes differ from what was saved."""


class EntryRefused(LibraryError):
    """A soft prompt that was not saved, because it could not have been opened again. The message gives the reason."""

    bad_input = True


class ArchiveError(LibraryError):
    """A backup that cannot be written or is incomplete. The library is unchanged."""

    bad_input = True


class FileRefused(SoftPromptError):
    """A rejected foreign file. The message says what is wrong and what is supported. Nothing was written."""

    bad_input = True


class ExportRefused(SoftPromptError):
    """An export that the target program could not use. The message says what it would need. Nothing was written."""

    bad_input = True


class FileInTheWay(ExportRefused):
    """A file with the export's name already exists."""


class WorkerError(SoftPromptError):
    """The worker cannot be started, reached or understood."""


class MessageTooLong(WorkerError):
    """A message longer than the worker protocol's maximum line length."""

    bad_input = True


class RunNotFound(SoftPromptError):
    """No run has this id. The message lists the runs."""

    bad_input = True


class RunUnreadable(SoftPromptError):
    """A run folder with an unreadable file. The message names the file and the reason."""


class RunRefused(SoftPromptError):
    """A request that the run's current state does not allow."""

    bad_input = True


MAX_REASON_LENGTH = 300  # characters


def check_text(label: str, text: str, error_type: type[SoftPromptError] = PromptError) -> str:
    """Return `text`, or raise `error_type` if it contains a NUL character or a lone surrogate.

    Python decodes invalid UTF-8 to lone surrogates, in arguments, standard input and files alike.
    """
    if text.isprintable():  # cheaper than encoding, and true for most prompts
        return text
    if "\0" in text:
        raise error_type(f"the {label} contains a NUL character. Remove it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise error_type(
            f"the {label} is not valid UTF-8: character {error.start + 1} cannot be decoded. Use UTF-8 text."
        ) from None
    return text


def examples_and_objective_differ(objective: str) -> ConfigError:
    """Return the error for examples with another objective, or for the objective "examples" without any."""
    tuning = command("tune FILE", "softprompt.tune(encoder, examples)")
    return ConfigError(
        f"the objective is {objective}. {tuning} trains on examples with the objective examples, and nothing else "
        "does. Use it, or choose another objective."
    )


def model_not_supported(name: str, reason: str) -> ModelRefused:
    return ModelRefused(
        f"{name} is not supported: {reason}. {command('models', 'softprompt.list_models()')} lists the supported "
        "models."
    )


def needs_text_encoder(name: str, what: str = "this") -> ModelRefused:
    """Return the error for something that only text encoders can do.

    Args:
        what: what needs a text encoder, such as "a hard readout".
    """
    call = f"softprompt.load_causal_lm({name!r})" if what == "this" else "softprompt.load_encoder('mini')"
    advice = wording("Choose a text encoder: `softprompt-tui models` lists them", f"Use {call}")
    return ModelRefused(f"{name} is a language model, but {what} needs a text encoder. {advice}.")


def empty_prompt() -> PromptError:
    return PromptError("the prompt is empty. Type what the soft prompt should mean, for example 'a lake at sunrise'.")


def tokens_do_not_fit(tokens: int, model: str, room: int) -> PromptError:
    return PromptError(
        f"{tokens} tokens do not fit: {model} has room for {room} between its start and end tokens. Shorten the text."
    )


def too_many_tokens(tokens: int, model: str, room: int) -> ConfigError:
    return ConfigError(
        f"tokens is {tokens}, but {model} has room for {room}. Use 1 to {room}; 10 is typical, and 3 is often enough."
    )


def too_many_hard_tokens(tokens: int, model: str, room: int) -> ConfigError:
    return ConfigError(f"a hard readout of {tokens} tokens does not fit: {model} has room for {room}. Use 1 to {room}.")


def missing_start_prompt(problem: str = "none was given", width: str = "the model's width") -> ConfigError:
    return ConfigError(
        f"init 'soft' needs a soft prompt of {width}, but {problem}. "
        f"{wording('Name a saved soft prompt', 'Pass one as `start`')}, or choose a different init."
    )


def prompt_too_long(tokens: int, model: str, room: int, dropped: str) -> PromptTooLong:
    return PromptTooLong(
        f"the prompt has {tokens:,} tokens, but {model} has room for {room}. This part does not fit: "
        f"'{shorten(dropped.strip())}'. Shorten the prompt, use {option('long', 'chunk')} to train on the mean of its "
        f"chunks, or use {option('long', 'cut')} to drop the part that does not fit{wording(' (F8 in the app)', '')}."
    )


def how_to_assign_model(name: str) -> str:
    """Return the command or call that sets an imported soft prompt's unknown model. `name` is quoted for a shell."""
    return command(f"assign {name} --model MODEL", "softprompt.assign(prompt, softprompt.load_encoder('MODEL'))")


def how_to_assign_prompt(name: str) -> str:
    """Return the command or call that sets an imported soft prompt's hard prompt. `name` is quoted for a shell."""
    return command(f"assign {name} --prompt TEXT", "softprompt.assign(prompt, hard_prompt='TEXT')")


def shorten(text: str, max_length: int = 60) -> str:
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def without_stop(message: object) -> str:
    """Return a message without its final full stop, for a sentence that goes on after it."""
    return str(message).removesuffix(".")


def describe_error(error: BaseException) -> str:
    """Return the first line of a third-party error message, plus the second if the first ends with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return shorten(without_stop(text), MAX_REASON_LENGTH) or type(error).__name__


def describe_error_with_type(error: BaseException) -> str:
    """Return the error's type and message as one short line."""
    name, message = type(error).__name__, describe_error(error)
    return name if message == name else f"{name}: {message}"
