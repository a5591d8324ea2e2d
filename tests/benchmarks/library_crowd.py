"""Let many processes change one library at the same time, and check that no change is lost.

    python -m tests.benchmarks.library_crowd [--processes 8] [--operations 500]

Each process changes its own entries, and annotates one entry that all processes share.
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
    """Change a library, and the shared entry in every tenth operation. Return the expected entries of this process."""
    library, rng, model = Library(notify=lambda _: None), random.Random(number), dict[str, ExpectedEntry]()
    for i in range(operations):
        if i % 10 == 0:
            library.annotate(shared, f"{number}-{i}")
            continue
        step = random_step(rng, model, number * 1_000_000 + i, max_entries=40)
        model = step.expected_after(model, step.apply(library))
    return model


def run_crowd(processes: int, operations: int) -> tuple[dict[str, ExpectedEntry], dict[str, ExpectedEntry], str]:
    """Run the processes.

    Returns:
        The entries that the processes expect, the entries that the library has, and the shared entry's id.

    Raises:
        AssertionError: a process failed.
    """
    shared = Library().save(a_prompt(name="shared")).id
    children = []
    for number in range(1, processes + 1):
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(read_end)
                with os.fdopen(write_end, "w") as pipe:
                    pipe.write(repr(run_process(number, operations, shared)))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        os.close(write_end)
        children.append((child, read_end))
    expected: dict[str, ExpectedEntry] = {}
    statuses: Sequence[int] = []
    for child, read_end in children:
        with os.fdopen(read_end) as pipe:
            expected |= eval(pipe.read() or "{}")  # the child's repr
        statuses = [*statuses, os.waitpid(child, 0)[1]]
    assert statuses == [0] * processes
    return expected, read_entries(Library()), shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--operations", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["SOFTPROMPT_HOME"] = home
        start = time.monotonic()
        expected, entries, shared = run_crowd(options.processes, options.operations)
        shared_entry = entries.pop(shared)
        assert entries == expected
        report, revisions = Library().check(), Library().revisions.revision_numbers(shared)
        assert report.damaged == []
        assert revisions == list(range(1, 2 + options.processes * -(-options.operations // 10)))
        print(
            f"{options.processes} processes x {options.operations} operations in {time.monotonic() - start:.0f} s: "
            f"{len(entries)} entries as expected, {len(revisions) - 1} changes of the shared entry, "
            f"whose note is {shared_entry.note!r}, {report.files} intact files"
        )


if __name__ == "__main__":
    main()
