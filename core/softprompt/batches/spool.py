"""The rows of a batch on disk, and the little that is kept of each in memory: 20 bytes, and as many of a set again.

The source is read once, into a file without a name that is gone with the process. So standard input can be gone through several times, a
file that is edited meanwhile changes nothing, and a thousand prompts take no more memory than ten.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from array import array
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt.batches.row_job import Defaults, digest_of, entry_id, job_from_row
from softprompt.batches.rows import Row
from softprompt.errors import ConfigError, FileRefused, HomeError, LibraryError, PromptError, SoftPromptError
from softprompt.jobs.job import TrainJob
from softprompt.prompts.syntax import SyntaxKind, prepare_prompt

MAX_ROWS = 1_000_000  # prompts; 60 MB of memory


@dataclass(frozen=True)
class BatchRequest:
    """A row made a job with the id of its entry, or what is wrong with it."""

    line: int
    id: str
    job: TrainJob | None
    prompt: str = ""
    error: tuple[str, str] = ("", "")  # kind, message


@dataclass(frozen=True)
class How:
    """What rows must have in common to be trained together. Settings that a row has for itself, such as its seed, are not
    in it: each would keep a configuration in memory."""

    model: str
    plan: Hashable


class Spool:
    """All rows of a batch, in the order of the file. Raises FileRefused, HomeError.

    `syntax` are the kinds of syntax that their prompts hold.
    """

    def __init__(self, rows: Iterable[Row], defaults: Defaults, folder: Path) -> None:
        self.defaults = defaults
        self.hows: list[How] = []
        self.syntax: set[SyntaxKind] = set()
        self.at, self.ids, self.how = array("Q"), array("Q"), array("l")  # of each row; how is -1 where it is no job
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it lives as long as this
        text, known, times = hashlib.sha256(), dict[How, int](), dict[bytes, int]()
        try:
            for row in rows:
                self._add(row, known, times, text)
        except OSError as error:
            raise HomeError(f"{folder} cannot be written to ({error.strerror}): free it") from error
        except BaseException:  # Ctrl-C too: close the file, and raise it again
            self.close()
            raise
        self.content = text.hexdigest()

    def _add(self, row: Row, known: dict[How, int], times: dict[bytes, int], text: Any) -> None:
        if len(self.at) == MAX_ROWS:
            raise FileRefused(
                f"these are more than {MAX_ROWS:,} prompts, the most that one batch takes: split the file"
            )
        number, how, values = 0, -1, self._with_prepared_prompt(row.values)
        if not row.error:
            try:
                job = job_from_row(values, self.defaults)
            except (PromptError, ConfigError, LibraryError):
                pass  # found again, and told, when the row is read back
            else:
                digest = digest_of(job)
                times[digest] = times.get(digest, 0) + 1
                number = int(entry_id(digest, times[digest]), 16)
                common = How(job.model, job.config.plan)
                how = known.setdefault(common, len(known))
                if how == len(self.hows):
                    self.hows.append(common)
        line = json.dumps([row.line, values, row.error], default=str).encode() + b"\n"
        text.update(line)
        self.at.append(self.file.tell())
        self.ids.append(number)
        self.how.append(how)
        self.file.write(line)

    def _with_prepared_prompt(self, values: dict[str, Any]) -> dict[str, Any]:
        prompt = values.get("prompt")
        if not isinstance(prompt, str):
            return values
        prepared = prepare_prompt(prompt, self.defaults.plain)
        self.syntax |= prepared.kinds
        return values | {"prompt": prepared.text} if prepared.kinds else values

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, index: int) -> BatchRequest:
        self.file.seek(self.at[index])
        line, values, error = json.loads(self.file.readline())
        prompt = _shown(values)
        if error:
            return BatchRequest(line, "", None, prompt, (PromptError.__name__, error))
        try:
            job = job_from_row(values, self.defaults)
        except SoftPromptError as wrong:
            return BatchRequest(line, "", None, prompt, (type(wrong).__name__, str(wrong)))
        return BatchRequest(line, f"{self.ids[index]:016x}", job, prompt)

    def texts(self) -> Iterator[tuple[int, str]]:
        """Yield the line and the prompt of every row, as its result gives them."""
        self.file.seek(0)
        for raw in self.file:
            line, values, _ = json.loads(raw)
            yield line, _shown(values)

    def __iter__(self) -> Iterator[BatchRequest]:
        return (self[index] for index in range(len(self)))

    def close(self) -> None:
        self.file.close()


def _shown(values: dict[str, Any]) -> str:
    """Return the prompt of a row, with marks in the place of what is no UTF-8; "" where it has none."""
    prompt = values.get("prompt")
    return prompt.strip().encode(errors="surrogatepass").decode(errors="replace") if isinstance(prompt, str) else ""
