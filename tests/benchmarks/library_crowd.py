"""Many processes change one library at once: python -m tests.benchmarks.library_crowd [--processes 8] [--operations 500].

Each changes entries of its own and tags one that all share; at the end nothing may be missing.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
import traceback
from collections.abc import Sequence

from softprompt import Library
from tests.library_model import ExpectedEntry, a_prompt, random_step, read_entries


def run_process(number: int, operations: int, shared: str) -> dict[str, ExpectedEntry]:
    """Does its operations, every tenth of them on the shared entry; returns what it has left of its own."""
    library, chance, model = Library(notify=lambda _: None), random.Random(number), dict[str, ExpectedEntry]()
    for i in range(operations):
        if i % 10 == 0:
            library.annotate(shared, f"{number}-{i}")
            continue
        step = random_step(chance, model, number * 1_000_000 + i, max_entries=40)
        model = step.expected_after(model, step.apply(library))
    return model


def run_crowd(processes: int, operations: int) -> tuple[dict[str, ExpectedEntry], dict[str, ExpectedEntry], str]:
    """(what the processes say they left, what is found, the shared entry's id); raises AssertionError where one of them failed."""
    shared = Library().save(a_prompt(name="shared")).id
    children = []
    for number in range(1, processes + 1):
        back, out = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(back)
                with os.fdopen(out, "w") as pipe:
                    pipe.write(repr(run_process(number, operations, shared)))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        os.close(out)
        children.append((child, back))
    said: dict[str, ExpectedEntry] = {}
    ended: Sequence[int] = []
    for child, back in children:
        with os.fdopen(back) as pipe:
            said |= eval(pipe.read() or "{}")  # our own repr
        ended = [*ended, os.waitpid(child, 0)[1]]
    assert ended == [0] * processes
    return said, read_entries(Library()), shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--operations", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["SOFTPROMPT_HOME"] = home
        began = time.monotonic()
        said, found, shared = run_crowd(options.processes, options.operations)
        noted = found.pop(shared)
        assert found == said
        done, revisions = Library().check(), Library().revisions.revision_numbers(shared)
        assert done.damaged == []
        assert revisions == list(range(1, 2 + options.processes * -(-options.operations // 10)))
        print(
            f"{options.processes} processes x {options.operations} operations in {time.monotonic() - began:.0f} s: {len(found)} entries as left, "
            f"{len(revisions) - 1} changes of the shared one kept, its note {noted.note!r}, {done.files} files whole"
        )


if __name__ == "__main__":
    main()
