"""Run a library that loads models, without letting it ask the user anything or write to the terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

UNSAFE_LOAD_VARIABLE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def unattended() -> Iterator[None]:
    """Context manager that keeps libraries from prompting the user: stdin is empty and stdout is discarded.

    Some transformers tokenizers load further tokenizers without passing on `trust_remote_code=False`, and would prompt.
    The environment variable that makes torch run code in pickles has no effect inside the context.
    """
    stdin, sys.stdin = sys.stdin, io.StringIO()
    variable = os.environ.pop(UNSAFE_LOAD_VARIABLE, None)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.stdin = stdin
        if variable is not None:
            os.environ[UNSAFE_LOAD_VARIABLE] = variable


@contextmanager
def silent_transformers() -> Iterator[None]:
    """Context manager in which transformers shows no progress bars and no warnings. They would cover the interface."""
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
