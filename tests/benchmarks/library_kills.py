"""Kill a process that changes a library, again and again.

    python -m tests.benchmarks.library_kills [--kills 1000] [--seed 0]

After each kill the library must have all acknowledged changes, and the change in progress completely or not at all. No
file may be damaged.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import select
import signal
import tempfile
import time

from softprompt import Library
from tests.library_model import ExpectedEntry, random_step, read_entries


def change_until_killed(library: Library, seed: int, model: dict[str, ExpectedEntry], out: int) -> None:
    """Make one change after another. Announce each change on the pipe `out`, and acknowledge it when it is done."""
    rng = random.Random(seed)
    for number in range(seed * 10_000, seed * 10_000 + 10_000):
        step = random_step(rng, model, number)
        os.write(out, f"{step.op} {step.target or '-'} {number}\n".encode())
        entry_id = step.apply(library)
        model = step.expected_after(model, entry_id)
        os.write(out, f"ack {entry_id}\n".encode())


def kill_once(
    library: Library, seed: int, model: dict[str, ExpectedEntry], rng: random.Random
) -> tuple[dict[str, ExpectedEntry], str]:
    """Kill a process that changes the library. Return the library's entries and the operation in progress."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            change_until_killed(library, seed, dict(model), write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    select.select([read_end], [], [], 5.0)  # until the first change is announced
    delay = time.monotonic() + rng.random() * 0.02
    while time.monotonic() < delay:
        pass
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the process failed before it was killed"
    with os.fdopen(read_end) as pipe:
        messages = [line.split() for line in pipe.read().splitlines()]
    # replay the acknowledged changes: the same seed and model give the same steps again
    replay_rng, pending = random.Random(seed), None
    for words in messages:
        if words[0] == "ack":
            assert pending is not None
            model, pending = pending.expected_after(model, words[1]), None
        else:
            pending = random_step(replay_rng, model, int(words[2]))
            assert (pending.op, pending.target or "-") == (words[0], words[1])
    entries = read_entries(library)
    if pending is None:
        assert entries == model, f"{entries}\n{model}"
    else:
        assert pending.allows(entries, model), f"{pending}\n{entries}\n{model}"
    return entries, pending.op if pending else "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start, killed_during = time.monotonic(), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as home:
        os.environ["SOFTPROMPT_HOME"] = home
        library, model, rng = Library(), dict[str, ExpectedEntry](), random.Random(options.seed)
        for i in range(options.kills):
            model, op = kill_once(library, options.seed + i + 1, model, rng)
            killed_during[op] += 1
            if (i + 1) % 100 == 0:
                report = library.check()
                assert report.damaged == []
                print(f"{i + 1} kills, {report.files} intact files, {report.unfinished} unfinished writes", flush=True)
        assert library.check().damaged == []
        assert library.check().unknown_files == []
    print(
        f"{options.kills} kills in {time.monotonic() - start:.0f} s, during {dict(killed_during)}: "
        "no change lost or incomplete"
    )


if __name__ == "__main__":
    main()
