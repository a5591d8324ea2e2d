"""Train all prompts in a file, each exactly once, even if the process is killed and restarted.

The library shows which prompts are finished: an entry's id is derived from its job, and the same id is never saved
twice. The states of unfinished prompts are in one checkpoint file, which is replaced every few seconds. There is no
other state that could become inconsistent. Running a batch again trains the prompts that are missing, including rows
added to the file since.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from softprompt.batches.checkpoints import BatchCheckpoint, ProcessLock, batches_folder, remove_stale
from softprompt.batches.output import OutputFile
from softprompt.batches.record import SUFFIX
from softprompt.batches.results import BatchProgress, Result
from softprompt.batches.row_job import ROW_KEYS, TAGS, Defaults, plain_row
from softprompt.batches.rows import Format, Row, RowKeys, parse_row, read_rows
from softprompt.batches.spool import Spool
from softprompt.errors import ArgumentError, FileRefused, option, wording

if TYPE_CHECKING:
    from softprompt.batches.backends.local import Load
    from softprompt.library import Library

Source = str | os.PathLike[str] | BinaryIO | Iterable[str | Mapping[str, Any]]


class Batch:
    """All prompts from one source, read once at construction. Close the batch after use.

    Args:
        source: a file path, a binary stream, or an iterable of prompts or of mappings (a prompt and settings).
        defaults: settings used where a row gives none.
        format: the file format, or None to detect it.
        column: the column or key that holds the prompt.

    Attributes:
        unused: ignored columns.
        syntax: the kinds of image-program syntax found in the prompts.
        notes: other remarks for the user.

    Raises:
        FileRefused, HomeError.
    """

    def __init__(
        self, source: Source, defaults: Defaults | None = None, *, format: Format | None = None, column: str = "prompt"
    ) -> None:
        self.defaults = defaults or Defaults()
        self.folder = batches_folder()
        keys = RowKeys(ROW_KEYS, column)
        with ExitStack() as stack:
            rows, source_path = _open_rows(source, keys, format, stack)
            self.spool = Spool(rows, self.defaults, self.folder)
        if not len(self.spool):
            self.close()
            raise FileRefused("the input has no prompts")
        self.unused, self.notes = tuple(keys.unused), tuple(keys.notes)
        self.syntax = frozenset(self.spool.syntax)
        self.place = source_path
        # an edited file is still the same batch, so unfinished rows resume; piped input is identified by its content
        identity = json.dumps([source_path or self.spool.digest, self.defaults.as_dict()], sort_keys=True)
        self.id = hashlib.sha256(identity.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.spool)

    def close(self) -> None:
        self.spool.close()

    def train(
        self,
        library: Library | None = None,
        *,
        out: Path | None = None,
        row_limit: int | None = None,
        on_progress: Callable[[BatchProgress], bool | None] | None = None,
        load: Load | None = None,
    ) -> Iterator[Result]:
        """Train and save every prompt that is not in the library yet. Yield one Result per prompt.

        Prompts that are already in the library or cannot be trained come first, in file order. Trained prompts follow
        as they finish. If training a prompt fails, nothing is saved for it.

        Args:
            out: output file with one line of JSON per result. Prompts that already have a line there are not yielded.
            row_limit: number of restarts to train at once. Default: as many as the device's memory allows.
            on_progress: called a few times per second. Return True to save a checkpoint and stop.
            load: function that loads a model. Default: `load_model`.

        Raises:
            RunRefused: another process is training this batch or writing to `out`.
            TrainingFailed: the device failed.
            FileRefused, HomeError, or an error from loading the default model.
        """
        from softprompt.batches.backends.local import BatchRunner
        from softprompt.encoders.loading import load_model
        from softprompt.library import Library

        library = library or Library()
        library.prepare()
        remove_stale(self.folder)
        with ExitStack() as stack:
            message = "another process is training this batch. Wait for it to finish, or stop it and continue here."
            stack.callback(ProcessLock(self.folder / f"{self.id}.lock", message).release)
            output = None
            if out is not None:
                path = Path(os.path.realpath(out))
                if str(path) == self.place:
                    raise FileRefused(
                        f"{option('out')} is {out}, which is the file with the prompts. Choose another file."
                    )
                name = hashlib.sha256(bytes(path)).hexdigest()[:16]
                stack.callback(
                    ProcessLock(
                        self.folder / f"out-{name}.lock",
                        f"another process is writing to {path}. Choose another file for {option('out')}.",
                    ).release
                )
                record = self.folder / f"out-{name}{SUFFIX}"
                output = stack.enter_context(closing(OutputFile(path, os.fspath(out), self.spool, record, self.id)))
            runner = BatchRunner(
                self.spool,
                library,
                BatchCheckpoint(self.folder, self.id),
                output,
                on_progress or _ignore_progress,
                load or load_model,
            )
            yield from runner.results(row_limit)


def _open_rows(source: Source, keys: RowKeys, format: Format | None, stack: ExitStack) -> tuple[Iterator[Row], str]:
    """Return the rows, and the path of the source or "" if it is not a regular file."""
    if isinstance(source, str | os.PathLike):
        try:
            file: BinaryIO = stack.enter_context(Path(source).open("rb"))  # noqa: SIM115  # the caller closes it
            is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
            hint = wording("", f". A string is the path of a file; for one prompt, pass [{source!r}].")
            raise FileRefused(
                f"cannot read {os.fspath(source)}: {getattr(error, 'strerror', error)}"
                + (hint if isinstance(source, str) and isinstance(error, FileNotFoundError) else "")
            ) from error
        return _read_file(file, os.fspath(source), keys, format), os.path.realpath(source) if is_regular else ""
    if hasattr(source, "readline"):
        name = wording("standard input", "the stream `source`")
        return _read_file(source, name, keys, format), ""  # type: ignore[arg-type]
    keys = RowKeys(keys.known | {TAGS}, keys.prompt, strict=True)
    return (_python_row(number, value, keys) for number, value in enumerate(source, 1)), ""


def _python_row(number: int, value: Any, keys: RowKeys) -> Row:
    """Return the row for a caller's text or mapping."""
    row = parse_row(number, value, keys)
    try:
        return replace(row, values=plain_row(row.values))
    except ArgumentError as error:
        return Row(number, {"prompt": row.values.get("prompt")}, str(error))


def _read_file(file: BinaryIO, name: str, keys: RowKeys, format: Format | None) -> Iterator[Row]:
    try:
        yield from read_rows(file, name, keys, format)
    except OSError as error:
        raise FileRefused(f"cannot read {name}: {error.strerror}") from error
    except ValueError as error:  # a closed stream
        raise FileRefused(f"cannot read {name}: {error}") from error


def _ignore_progress(_progress: BatchProgress) -> None:
    pass
