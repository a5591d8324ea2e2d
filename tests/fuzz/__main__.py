"""Fuzzes a parser of bytes from outside: python -m tests.fuzz TARGET [--seconds 600] [--seed 0] [--keep FOLDER] [--grow].

Fails on any exception but the target's typed one, on an input that takes longer than 5 s, and on more than 1 GiB of memory. The same seed
on the same code makes the same inputs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS, Target

LONGEST, LARGEST = 5.0, 1 << 30  # seconds for one input, bytes of memory
MOST_KEPT = 2000
CORPUS = Path(__file__).parent / "corpus"
MOST_GROWN, LONGEST_GROWN = 200, 300  # inputs, and bytes of one, that `--grow` keeps in the repository


class TooLong(BaseException):
    """Raised by the alarm; no parser may catch it."""


def outcome(target: Target, raw: bytes) -> str:
    """How the target answered: what a typed refusal said, or "read". Lets everything else through."""
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        target.parse(raw)
        return "read"
    except target.typed as error:
        return re.sub(r"'[^']*'|\d+", "#", f"{type(error).__name__} {error}")[:160]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def load_corpus(name: str) -> list[bytes]:
    """Return the inputs that earlier runs kept for a target: one a line, as JSON whose characters are the bytes."""
    path = CORPUS / f"{name}.jsonl"
    return [json.loads(line).encode("latin-1") for line in path.read_text().splitlines()] if path.exists() else []


def save_corpus(name: str, inputs: list[bytes]) -> None:
    CORPUS.mkdir(exist_ok=True)
    short = [raw for raw in dict.fromkeys(inputs) if len(raw) <= LONGEST_GROWN][:MOST_GROWN]
    (CORPUS / f"{name}.jsonl").write_text("".join(f"{json.dumps(raw.decode('latin-1'))}\n" for raw in short))


def fuzz(
    target: Target, seconds: float, seed: int, keep: Path, grown: list[bytes] | None = None
) -> tuple[int, int, int]:
    """(inputs, different outcomes, findings); the inputs that found something are kept in a folder, those answered in a new way put
    into `grown`."""
    chance, corpus = random.Random(seed), [*target.seeds(), *load_corpus(target.name)]
    seen = {outcome(target, raw) for raw in corpus}
    assert "read" in seen, "none of the seeds is read: the target is not reached"
    before = _peak()
    inputs, findings, until = len(corpus), set[str](), time.monotonic() + seconds
    while time.monotonic() < until:
        raw = mutated(chance, corpus, target.words)
        if target.mend and chance.random() < 0.8:
            raw = target.mend(raw)
        inputs += 1
        try:
            said = outcome(target, raw)
        except (Exception, TooLong) as error:  # whatever it is, it is what is looked for
            where = "".join(traceback.format_tb(error.__traceback__)[-2:])
            found = f"{type(error).__name__}\n{where}"
            if found not in findings:
                findings.add(found)
                path = keep / f"{target.name}-{len(findings)}"
                path.write_bytes(raw)
                print(f"{type(error).__name__}: {str(error)[:200]}\n{where}kept as {path}", flush=True)
            continue
        if said not in seen and len(corpus) < MOST_KEPT:
            seen.add(said)
            corpus.append(raw)
            if grown is not None:
                grown.append(raw)
        if _peak() - before > LARGEST:
            print(f"more than {LARGEST:,} bytes of memory", flush=True)
            (keep / f"{target.name}-memory").write_bytes(raw)
            findings.add("memory")
            break
    return inputs, len(seen), len(findings)


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument(
        "--grow", action="store_true", help="keep short inputs that are answered in a new way in the repository"
    )
    options = parser.parse_args()

    def alarm(*_: object) -> None:
        raise TooLong(f"longer than {LONGEST} s")

    signal.signal(signal.SIGALRM, alarm)
    keep = options.keep or Path(tempfile.mkdtemp(prefix="softprompt-fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    grown = load_corpus(options.target)
    inputs, outcomes, findings = fuzz(TARGETS[options.target], options.seconds, options.seed, keep, grown)
    if options.grow:
        save_corpus(options.target, grown)
    print(
        f"{options.target}: {inputs:,} inputs in {options.seconds:.0f} s, {outcomes} outcomes, {findings} findings, {_peak() >> 20} MiB at most"
    )
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
