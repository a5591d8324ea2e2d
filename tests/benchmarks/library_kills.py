"""Kills a process again and again while it changes a library: python -m tests.benchmarks.library_kills [--kills 1000] [--seed 0].

After every kill each acknowledged change must be there whole, the one under way there or not there, and no file damaged.
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
    """Makes one change after another, each announced and acknowledged on the pipe `out`, until it is killed."""
    chance = random.Random(seed)
    for number in range(seed * 10_000, seed * 10_000 + 10_000):
        step = random_step(chance, model, number)
        os.write(out, f"{step.op} {step.target or '-'} {number}\n".encode())
        made = step.apply(library)
        model = step.expected_after(model, made)
        os.write(out, f"ack {made}\n".encode())


def kill_once(
    library: Library, seed: int, model: dict[str, ExpectedEntry], chance: random.Random
) -> tuple[dict[str, ExpectedEntry], str]:
    """The library as it is found after one kill, and the operation that was under way."""
    back, out = os.pipe()
    child = os.fork()
    if not child:
        try:
            change_until_killed(library, seed, dict(model), out)
        finally:
            os._exit(1)
    os.close(out)
    select.select([back], [], [], 5.0)  # it has begun
    delay = time.monotonic() + chance.random() * 0.02
    while time.monotonic() < delay:
        pass
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the changing process failed by itself"
    with os.fdopen(back) as lines:
        said = [line.split() for line in lines.read().splitlines()]
    # replay what was acknowledged; the process drew its steps from the same model, so that drawing again gives the same
    again, pending = random.Random(seed), None
    for words in said:
        if words[0] == "ack":
            assert pending is not None
            model, pending = pending.expected_after(model, words[1]), None
        else:
            pending = random_step(again, model, int(words[2]))
            assert (pending.op, pending.target or "-") == (words[0], words[1])
    found = read_entries(library)
    if pending is None:
        assert found == model, f"{found}\n{model}"
    else:
        assert pending.allows(found, model), f"{pending}\n{found}\n{model}"
    return found, pending.op if pending else "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, during = time.monotonic(), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as home:
        os.environ["SOFTPROMPT_HOME"] = home
        library, model, chance = Library(), dict[str, ExpectedEntry](), random.Random(options.seed)
        for i in range(options.kills):
            model, op = kill_once(library, options.seed + i + 1, model, chance)
            during[op] += 1
            if (i + 1) % 100 == 0:
                done = library.check()
                assert done.damaged == []
                print(f"{i + 1} kills, {done.files} files whole, {done.unfinished} writes cut off", flush=True)
        assert library.check().damaged == []
        assert library.check().unknown_files == []
    print(
        f"{options.kills} kills in {time.monotonic() - began:.0f} s, during {dict(during)}: nothing lost, nothing half there"
    )


if __name__ == "__main__":
    main()
