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
from tests.library_model import Kept, a_prompt, a_step, found_in


def member(number: int, operations: int, shared: str) -> dict[str, Kept]:
    """Does its operations, every tenth of them on the shared entry; returns what it has left of its own."""
    library, chance, model = Library(say=lambda _: None), random.Random(number), dict[str, Kept]()
    for i in range(operations):
        if i % 10 == 0:
            library.annotate(shared, f"{number}-{i}")
            continue
        step = a_step(chance, model, number * 1_000_000 + i, most=40)
        model = step.done(model, step.do(library))
    return model


def crowd(processes: int, operations: int) -> tuple[dict[str, Kept], dict[str, Kept], str]:
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
                    pipe.write(repr(member(number, operations, shared)))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        os.close(out)
        children.append((child, back))
    said: dict[str, Kept] = {}
    ended: Sequence[int] = []
    for child, back in children:
        with os.fdopen(back) as pipe:
            said |= eval(pipe.read() or "{}")  # our own repr
        ended = [*ended, os.waitpid(child, 0)[1]]
    assert ended == [0] * processes
    return said, found_in(Library()), shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--operations", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["SOFTPROMPT_HOME"] = home
        began = time.monotonic()
        said, found, shared = crowd(options.processes, options.operations)
        noted = found.pop(shared)
        assert found == said
        done, revisions = Library().check(), Library().revisions.numbers(shared)
        assert done.damaged == []
        assert revisions == list(range(1, 2 + options.processes * -(-options.operations // 10)))
        print(
            f"{options.processes} processes x {options.operations} operations in {time.monotonic() - began:.0f} s: {len(found)} entries as left, "
            f"{len(revisions) - 1} changes of the shared one kept, its note {noted.note!r}, {done.files} files whole"
        )


if __name__ == "__main__":
    main()
