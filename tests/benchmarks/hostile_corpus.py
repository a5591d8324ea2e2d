"""Import every hostile file through the real command line: python -m tests.benchmarks.hostile_corpus.

Counts executions, tracebacks and wrong exit codes, which must all be 0. Measures the memory and time of each import,
and checks that the library does not change.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from softprompt import Library
from tests.hostile_files import write_all
from tests.library_model import a_prompt

MAX_MEMORY_BYTES, MAX_SECONDS = 1 << 30, 10.0


@dataclass(frozen=True)
class ImportResult:
    """The result of an import: exit code, output, peak memory in bytes (of the child process too), and time."""

    code: int
    out: str
    err: str
    memory: int
    seconds: float


def run_import(path: Path, home: Path, scratch: Path) -> ImportResult:
    """Run `softprompt-tui import` as a user would."""
    out, err = scratch / "out", scratch / "err"
    start = time.perf_counter()
    child = os.fork()
    if not child:
        for number, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["SOFTPROMPT_HOME"] = str(home)
        os.execv(sys.executable, [sys.executable, "-m", "softprompt_tui", "import", "--", str(path)])
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in (out, err)]
    return ImportResult(os.waitstatus_to_exitcode(status), *texts, usage.ru_maxrss * 1024, seconds)


def folder_digest(folder: Path) -> str:
    """Return a digest of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path).encode("utf-8", "surrogateescape"))
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 30:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus, home, scratch = (Path(folder) / name for name in ("corpus", "home", "scratch"))
        scratch.mkdir()
        canary = scratch / "CANARY"
        rejected, readable = write_all(corpus, canary)
        os.environ["SOFTPROMPT_HOME"] = str(home)
        Library().save(a_prompt(name="fox"))
        before = folder_digest(home / "data"), folder_digest(corpus)
        failures: list[str] = []
        peak_memory = max_seconds = 0.0
        executions = tracebacks = wrong_codes = 0
        for i, path in enumerate((*rejected, *readable)):
            result = run_import(path, home if i < len(rejected) else Path(folder) / "other", scratch)
            expected = 2 if i < len(rejected) else 0
            executions += canary.exists()
            canary.unlink(missing_ok=True)
            tracebacks += "Traceback" in result.err
            wrong_codes += result.code != expected
            if (
                result.code != expected
                or "Traceback" in result.err
                or result.memory > MAX_MEMORY_BYTES
                or result.seconds > MAX_SECONDS
                or "\x1b" in result.err + result.out
            ):
                failures.append(
                    f"{path.name}: exit {result.code}, {result.memory >> 20} MiB, {result.seconds:.1f} s: "
                    f"{result.err[:300]!r}"
                )
            if result.memory > peak_memory or result.seconds > max_seconds:
                print(f"{i}: {path.name} took {result.memory >> 20} MiB and {result.seconds:.2f} s", flush=True)
            peak_memory, max_seconds = max(peak_memory, result.memory), max(max_seconds, result.seconds)
        is_unchanged = (folder_digest(home / "data"), folder_digest(corpus)) == before
        print(
            f"{len(rejected)} files to reject and {len(readable)} readable files with hostile names: "
            f"{executions} executions, {tracebacks} tracebacks, {wrong_codes} wrong exit codes, "
            f"at most {peak_memory / (1 << 20):.0f} MiB and {max_seconds:.1f} s each; "
            f"library {'un' * is_unchanged}changed"
        )
        print(*failures, sep="\n")
        sys.exit(bool(failures or executions or not is_unchanged))


if __name__ == "__main__":
    main()
