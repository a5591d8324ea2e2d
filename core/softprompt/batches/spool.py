"""All rows of a batch in a temporary file. A row takes about 20 bytes of memory, and as many again in a set.

The source is copied once to an unnamed file that disappears with the process. This way, the rows of standard input can
be read several times, later edits of the source have no effect, and the prompts themselves take no memory.
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

from softprompt.batches.row_job import Defaults, entry_id, job_digest, job_from_row, row_tags
from softprompt.batches.rows import Row
from softprompt.errors import ConfigError, FileRefused, HomeError, LibraryError, PromptError
from softprompt.jobs.job import TrainJob
from softprompt.prompts.syntax import SyntaxKind, prepare_prompt

MAX_ROWS = 1_000_000  # prompts; 60 MB of memory


@dataclass(frozen=True)
class BatchRequest:
    """A row with its job and entry id, or with its error."""

    line: int
    id: str
    job: TrainJob | None
    prompt: str = ""
    error: tuple[str, str] = ("", "")  # kind, message
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchGroup:
    """The settings that rows must share to train in one batch. All other settings, such as the seed, stay on disk."""

    model: str
    batch_key: Hashable


class Spool:
    """All rows of a batch, in file order.

    Attributes:
        offsets, ids, group_numbers: one number per row. `group_numbers` index `groups`; -1 means no valid job.
        syntax: the kinds of image-program syntax found in the prompts.
        digest: SHA-256 of all rows.

    Raises:
        FileRefused, HomeError.
    """

    def __init__(self, rows: Iterable[Row], defaults: Defaults, folder: Path) -> None:
        self.defaults = defaults
        self.groups: list[BatchGroup] = []
        self.syntax: set[SyntaxKind] = set()
        self.offsets, self.ids, self.group_numbers = array("Q"), array("Q"), array("l")
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # open until `close`
        content, numbers, counts = hashlib.sha256(), dict[BatchGroup, int](), dict[bytes, int]()
        try:
            for row in rows:
                self._add(row, numbers, counts, content)
        except OSError as error:
            raise HomeError(
                f"cannot write to {folder}: {error.strerror}. Free some space, or make the folder writable."
            ) from error
        except BaseException:  # including Ctrl-C
            self.close()
            raise
        self.digest = content.hexdigest()

    def _add(self, row: Row, numbers: dict[BatchGroup, int], counts: dict[bytes, int], content: Any) -> None:
        if len(self.offsets) == MAX_ROWS:
            raise FileRefused(f"the input has more than {MAX_ROWS:,} prompts, the limit for a batch. Split it.")
        number, group_number, values = 0, -1, self._with_prepared_prompt(row.values)
        error = (PromptError.__name__, row.error) if row.error else ""
        if not error:
            try:
                job = job_from_row(values, self.defaults)
            except (PromptError, ConfigError, LibraryError) as invalid:
                error = (type(invalid).__name__, str(invalid))
            else:
                digest = job_digest(job)
                counts[digest] = counts.get(digest, 0) + 1
                number = int(entry_id(digest, counts[digest]), 16)
                group = BatchGroup(job.model, job.config.batch_key)
                group_number = numbers.setdefault(group, len(numbers))
                if group_number == len(self.groups):
                    self.groups.append(group)
        line = json.dumps([row.line, values, error], default=str).encode() + b"\n"
        content.update(line)
        self.offsets.append(self.file.tell())
        self.ids.append(number)
        self.group_numbers.append(group_number)
        self.file.write(line)

    def _with_prepared_prompt(self, values: dict[str, Any]) -> dict[str, Any]:
        prompt = values.get("prompt")
        if not isinstance(prompt, str):
            return values
        prepared = prepare_prompt(prompt, self.defaults.plain)
        self.syntax |= prepared.kinds
        return values | {"prompt": prepared.text} if prepared.kinds else values

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> BatchRequest:
        self.file.seek(self.offsets[index])
        line, values, error = json.loads(self.file.readline())
        prompt = _display_prompt(values)
        if error:
            return BatchRequest(line, "", None, prompt, tuple(error))
        job, tags = job_from_row(values, self.defaults), row_tags(values, self.defaults)
        return BatchRequest(line, f"{self.ids[index]:016x}", job, prompt, tags=tags)

    def prompts(self) -> Iterator[tuple[int, str]]:
        """Yield the line number and prompt of every row, as they appear in its result."""
        self.file.seek(0)
        for raw in self.file:
            line, values, _ = json.loads(raw)
            yield line, _display_prompt(values)

    def __iter__(self) -> Iterator[BatchRequest]:
        return (self[index] for index in range(len(self)))

    def close(self) -> None:
        self.file.close()


def _display_prompt(values: dict[str, Any]) -> str:
    """Return the prompt of a row, with U+FFFD for invalid UTF-8, or "" if the row has no prompt."""
    prompt = values.get("prompt")
    return prompt.strip().encode(errors="surrogatepass").decode(errors="replace") if isinstance(prompt, str) else ""
