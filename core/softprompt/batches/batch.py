"""Training all prompts of a file together, each once, however often the process is killed.

What is done is in the library: the id of an entry says which job of which kind it came from, and saving under an id is idempotent. What is
under way is in one file that is replaced every few seconds. Nothing else has to be remembered, so nothing can contradict it: the same
batch again trains what is missing, and an edited one what is new.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from softprompt.batches.checkpoints import BatchCheckpoint, Held, batches_folder, remove_stale
from softprompt.batches.output import OutFile
from softprompt.batches.record import SUFFIX
from softprompt.batches.results import BatchProgress, Result
from softprompt.batches.row_job import OF_A_ROW, Defaults
from softprompt.batches.rows import Format, Keys, Row, read_rows, row_of
from softprompt.batches.spool import Spool
from softprompt.config import TrainConfig
from softprompt.errors import FileRefused

if TYPE_CHECKING:
    from softprompt.batches.backends.local import Load
    from softprompt.library import Library

Source = str | os.PathLike[str] | BinaryIO | Iterable[str | Mapping[str, Any]]


class Batch:
    """The prompts of `source`: the path of a file, a binary stream, or an iterable of prompts and of mappings with a prompt and settings.

    It is read when this is made. `unused` are the columns that say nothing here, `syntax` the kinds of
    image programs' syntax that the prompts hold, `notes` what else to tell. Close it. Raises FileRefused, HomeError.
    """

    def __init__(
        self, source: Source, defaults: Defaults | None = None, *, format: Format | None = None, column: str = "prompt"
    ) -> None:
        self.defaults = defaults or Defaults()
        self.folder = batches_folder()
        keys = Keys(OF_A_ROW, column)
        with ExitStack() as stack:
            rows, place = _rows_of(source, keys, format, stack)
            self.spool = Spool(rows, self.defaults, self.folder)
        if not len(self.spool):
            self.close()
            raise FileRefused("there is no prompt in it")
        self.unused, self.notes = tuple(keys.unused), tuple(keys.notes)
        self.syntax = frozenset(self.spool.syntax)
        self.place = place
        # an edited file is the same batch, so that what was under way is found; what comes by a pipe is known by what it is
        asked = json.dumps([place or self.spool.content, self.defaults.as_dict()], sort_keys=True)
        self.id = hashlib.sha256(asked.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.spool)

    def close(self) -> None:
        self.spool.close()

    def train(
        self,
        library: Library | None = None,
        *,
        out: Path | None = None,
        places: int | None = None,
        on_progress: Callable[[BatchProgress], bool | None] | None = None,
        load: Load | None = None,
    ) -> Iterator[Result]:
        """Trains what is not in the library yet and saves it; yields a Result of every prompt: first of what is there from before and of
        what cannot be trained, in the order of the file, then of the others as they finish.

        With `out` each is also written to that file as a line of JSON, once, and those whose line is there are not yielded. `places` is how
        many are trained together, restarts counted; None for as many as the device's memory has room for. Of a training that fails nothing
        is kept. `on_progress` is called a few times a second; by
        returning True it ends this with what is under way written down. `load` is `load_encoder`. Raises RunRefused where another process
        trains this batch or writes to `out`, TrainingFailed where the device is lost, FileRefused, HomeError, and what loading the usual
        model raises.
        """
        from softprompt.batches.backends.local import BatchRunner
        from softprompt.encoders.loading import load_encoder
        from softprompt.library import Library

        library = library or Library()
        library.prepare()
        remove_stale(self.folder)
        with ExitStack() as stack:
            busy = "this batch is being trained by another process: wait for that one, or end it; this one goes on where it was"
            stack.callback(Held(self.folder / f"{self.id}.lock", busy).release)
            file = None
            if out is not None:
                path = Path(os.path.realpath(out))
                if str(path) == self.place:
                    raise FileRefused(f"{out} is the file of the prompts: give the results another name")
                name = hashlib.sha256(bytes(path)).hexdigest()[:16]
                stack.callback(
                    Held(
                        self.folder / f"out-{name}.lock", f"another process writes to {path}: give --out another name"
                    ).release
                )
                record = self.folder / f"out-{name}{SUFFIX}"
                file = stack.enter_context(closing(OutFile(path, os.fspath(out), self.spool, record, self.id)))
            work = BatchRunner(
                self.spool,
                library,
                BatchCheckpoint(self.folder, self.id),
                file,
                on_progress or _untold,
                load or load_encoder,
            )
            yield from work.results(places)


def train_batch(
    source: Source,
    config: TrainConfig | None = None,
    *,
    library: Library | None = None,
    out: Path | None = None,
    places: int | None = None,
    on_progress: Callable[[BatchProgress], bool | None] | None = None,
    format: Format | None = None,
    column: str = "prompt",
    **defaults: Any,
) -> Iterator[Result]:
    """Trains every prompt of `source` (see Batch) and saves it; yields a Result each (see Batch.train).

    `config` and `defaults` (model, device, precision, tags, plain) hold where a row says nothing else. The same call again trains what is missing.
    """
    with closing(Batch(source, Defaults(config or TrainConfig(), **defaults), format=format, column=column)) as batch:
        yield from batch.train(library, out=out, places=places, on_progress=on_progress)


def _rows_of(source: Source, keys: Keys, format: Format | None, stack: ExitStack) -> tuple[Iterator[Row], str]:
    """(the rows, the file's place, or "" for what is no regular file)."""
    if isinstance(source, str | os.PathLike):
        try:
            file: BinaryIO = stack.enter_context(Path(source).open("rb"))  # noqa: SIM115  # the caller closes it
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        except (OSError, ValueError) as error:  # a NUL in its name
            raise FileRefused(f"{os.fspath(source)} cannot be read: {getattr(error, 'strerror', error)}") from error
        return _read(file, os.fspath(source), keys, format), os.path.realpath(source) if regular else ""
    if hasattr(source, "readline"):
        return _read(source, "standard input", keys, format), ""  # type: ignore[arg-type]
    return (row_of(number, value, keys) for number, value in enumerate(source, 1)), ""


def _read(file: BinaryIO, name: str, keys: Keys, format: Format | None) -> Iterator[Row]:
    try:
        yield from read_rows(file, name, keys, format)
    except OSError as error:
        raise FileRefused(f"{name} cannot be read: {error.strerror}") from error


def _untold(_progress: BatchProgress) -> None:
    """Nobody asked."""
