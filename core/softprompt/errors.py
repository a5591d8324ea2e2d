"""What can go wrong, as types. Every message says what was wrong, what would be right and what to do next."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt

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


class TrainingFailed(SoftPromptError):
    """Training that could not go on; `best` is the best soft prompt until then, or None."""

    def __init__(self, message: str, best: SoftPrompt | None = None) -> None:
        super().__init__(message)
        self.best = best


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
