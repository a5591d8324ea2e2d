"""Train every prompt of a list or a file, each exactly once, and save the soft prompts in a library."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Unpack, get_args

from softprompt.api.progress import ProgressBar
from softprompt.argument_types import wrong_type
from softprompt.arguments import checked, is_stop
from softprompt.batches.batch import Batch
from softprompt.batches.results import BatchProgress, Result
from softprompt.batches.row_job import Defaults
from softprompt.batches.rows import Format
from softprompt.config import TrainConfig, TrainSettings, check_choice, check_device, check_precision, config_for
from softprompt.encoders.catalog import MINI, model_kind
from softprompt.errors import ConfigError
from softprompt.library.names import check_tags

if TYPE_CHECKING:
    import torch

    from softprompt.library import Library

OnProgress = Callable[[BatchProgress], bool | None]
log = logging.getLogger(__name__)


@checked(settings=TrainSettings, renamed={"places": "row_limit"})
def train_batch(
    source: str | os.PathLike[str] | BinaryIO | Iterable[str | Mapping[str, Any]],
    config: TrainConfig | None = None,
    *,
    library: Library | None = None,
    out: Path | str | None = None,
    row_limit: int | None = None,
    on_progress: Callable[[BatchProgress], bool | None] | None = None,
    format: Format | None = None,
    column: str = "prompt",
    model: str = MINI,
    device: str | torch.device = "auto",
    precision: str | torch.dtype = "float32",
    tags: str | Collection[str] = (),
    plain: bool = False,
    progress: bool = False,
    **settings: Unpack[TrainSettings],
) -> list[Result]:
    """Train and save every prompt of `source` that is not in the library yet. Return one result per prompt, in order.

    Repeating the call trains only what is missing, also after the process was killed.

    Args:
        source: a list of texts or of mappings (a prompt, its settings, name, model and tags), the path of a text, CSV
            or JSON Lines file, or a binary stream. Tags in a file are not used, because caption files have other tags
            there; a warning in the log names such columns.
        config: settings for rows that do not set their own; `settings` override its fields.
        library: by default the user's library.
        out: a file that gets one line of JSON per result. Prompts that already have a line there are left out.
        row_limit: number of restarts to train at once; by default as many as the device's memory allows.
        on_progress: called a few times per second; returns True to save a checkpoint and stop.
        format: "text", "csv" or "jsonl"; by default detected.
        column: the column or key that holds the prompt.
        model: the model where a row does not name one.
        tags: tags for every saved soft prompt, besides those of its mapping.
        plain: remove image-program syntax, such as weights and LoRA tags, from every prompt.
        progress: show a progress bar.

    Raises:
        FileRefused: the input cannot be read, or has no prompts.
        RunRefused: another process is training this batch or writing to `out`.
        ConfigError, ModelUnavailable, HomeError: the settings, the model or the library cannot be used.

    Example:
        results = train_batch(["a red fox", {"prompt": "a lake", "tokens": 3}], steps=100)
        [result.similarity for result in results]
    """
    defaults = _defaults(config, settings, model, device, precision, tags, plain)
    results = _results(source, defaults, format, column, library, out, row_limit, on_progress, progress)
    return sorted(results, key=lambda result: result.line)


@checked(settings=TrainSettings)
def iter_batch(
    source: str | os.PathLike[str] | BinaryIO | Iterable[str | Mapping[str, Any]],
    config: TrainConfig | None = None,
    *,
    library: Library | None = None,
    out: Path | str | None = None,
    row_limit: int | None = None,
    on_progress: Callable[[BatchProgress], bool | None] | None = None,
    format: Format | None = None,
    column: str = "prompt",
    model: str = MINI,
    device: str | torch.device = "auto",
    precision: str | torch.dtype = "float32",
    tags: str | Collection[str] = (),
    plain: bool = False,
    progress: bool = False,
    **settings: Unpack[TrainSettings],
) -> Generator[Result, None, None]:
    """Do the same as `train_batch`, as a generator that yields each result as soon as it is there.

    Results of earlier runs and rows that cannot be trained come first.
    """
    defaults = _defaults(config, settings, model, device, precision, tags, plain)
    return _results(source, defaults, format, column, library, out, row_limit, on_progress, progress)


def _defaults(
    config: TrainConfig | None,
    settings: Mapping[str, Any],
    model: str,
    device: object,
    precision: object,
    tags: str | Collection[str],
    plain: bool,
) -> Defaults:
    merged = replace(config, **settings) if config is not None else config_for(model_kind(model), settings)
    precision_name = str(precision).removeprefix("torch.")
    check_device(str(device))
    check_precision(precision_name)
    return Defaults(merged, model, str(device), precision_name, check_tags(tags), plain)


def _results(
    source: Any,
    defaults: Defaults,
    format: Format | None,
    column: str,
    library: Library | None,
    out: Path | str | None,
    row_limit: int | None,
    on_progress: OnProgress | None,
    progress: bool,
) -> Generator[Result, None, None]:
    """Check the arguments, and return a generator that reads the source and trains it."""
    if isinstance(source, str) and not source:
        raise wrong_type("source", source, "a path, a binary stream or a list of texts or of mappings")
    if format is not None:
        check_choice("format", format, get_args(Format))
    if row_limit is not None and row_limit < 1:
        raise ConfigError(f"row_limit is {row_limit}; it must be at least 1. Leave it out to use all memory.")

    def run() -> Generator[Result, None, None]:
        batch = closing(Batch(source, defaults, format=format, column=column))
        with batch as prompts, ProgressBar(progress, "training", "prompt") as bar:
            if prompts.unused:
                log.warning("not used: %s", ", ".join(prompts.unused))
            for note in prompts.notes:
                log.warning("%s", note)

            def show(now: BatchProgress) -> bool:
                bar.show(now.done, now.total, rate=f"{now.prompts_per_second:.2f}/s", failed=str(now.failed))
                return on_progress is not None and is_stop("on_progress", on_progress(now))

            yield from prompts.train(
                library, out=None if out is None else Path(out), row_limit=row_limit, on_progress=show
            )

    return run()
