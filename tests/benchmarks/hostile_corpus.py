"""Imports every hostile file through the real command line: python -m tests.benchmarks.hostile_corpus.

Counts executions, tracebacks and wrong exit codes (all must be 0), and measures memory and time of each; the library must stay as it was.
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

MOST_MEMORY, MOST_SECONDS = 1 << 30, 10.0


@dataclass(frozen=True)
class Done:
    """One import: its exit code, what it printed, its memory at most (its child's too) and its time."""

    code: int
    out: str
    err: str
    memory: int
    seconds: float


def imported(path: Path, home: Path, scratch: Path) -> Done:
    """Runs `softprompt-tui import` as a user would."""
    out, err = scratch / "out", scratch / "err"
    began = time.perf_counter()
    child = os.fork()
    if not child:
        for number, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["SOFTPROMPT_HOME"] = str(home)
        os.execv(sys.executable, [sys.executable, "-m", "softprompt_tui", "import", "--", str(path)])
    _, status, used = os.wait4(child, 0)
    seconds = time.perf_counter() - began
    text = [file.read_text(encoding="utf-8", errors="replace") for file in (out, err)]
    return Done(os.waitstatus_to_exitcode(status), *text, used.ru_maxrss * 1024, seconds)


def state_of(folder: Path) -> str:
    """A digest of every file in a folder, the index aside: what must not change."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path).encode("utf-8", "surrogateescape"))
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 30:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    with tempfile.TemporaryDirectory() as where:
        corpus, home, scratch = (Path(where) / name for name in ("corpus", "home", "scratch"))
        scratch.mkdir()
        canary = scratch / "CANARY"
        refused, read = write_all(corpus, canary)
        os.environ["SOFTPROMPT_HOME"] = str(home)
        Library().save(a_prompt(name="kept"))
        before = state_of(home / "data"), state_of(corpus)
        wrong: list[str] = []
        memory = seconds = 0.0
        executions = tracebacks = codes = 0
        for i, path in enumerate((*refused, *read)):
            done = imported(path, home if i < len(refused) else Path(where) / "other", scratch)
            expected = 2 if i < len(refused) else 0
            executions += canary.exists()
            canary.unlink(missing_ok=True)
            tracebacks += "Traceback" in done.err
            codes += done.code != expected
            if (
                done.code != expected
                or "Traceback" in done.err
                or done.memory > MOST_MEMORY
                or done.seconds > MOST_SECONDS
                or "\x1b" in done.err + done.out
            ):
                wrong.append(
                    f"{path.name}: exit {done.code}, {done.memory >> 20} MiB, {done.seconds:.1f} s: {done.err[:300]!r}"
                )
            if done.memory > memory or done.seconds > seconds:
                print(f"{i}: {path.name} took {done.memory >> 20} MiB and {done.seconds:.2f} s", flush=True)
            memory, seconds = max(memory, done.memory), max(seconds, done.seconds)
        unchanged = (state_of(home / "data"), state_of(corpus)) == before
        print(f"{len(refused)} files to be refused, {len(read)} with hostile names to be read: {executions} executions, {tracebacks} tracebacks, "
              f"{codes} wrong exit codes, at most {memory / (1 << 20):.0f} MiB and {seconds:.1f} s each; library {'un' * unchanged}changed")  # fmt: skip
        print(*wrong, sep="\n")
        sys.exit(bool(wrong or executions or not unchanged))


if __name__ == "__main__":
    main()
