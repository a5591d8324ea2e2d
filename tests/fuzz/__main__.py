"""Fuzz a parser of untrusted bytes: python -m tests.fuzz TARGET [--seconds 600] [--seed 0] [--keep FOLDER] [--grow].

Fails on any exception except the target's expected errors, on an input that takes longer than 5 s, and if memory grows
by more than 1 GiB. The same seed on the same code gives the same inputs.
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

from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, Target

MAX_SECONDS, MAX_MEMORY_BYTES = 5.0, 1 << 30  # for one input; memory growth of the whole run
MAX_CORPUS_INPUTS = 2000
CORPUS = Path(__file__).parent / "corpus"
MAX_SAVED_INPUTS, MAX_SAVED_BYTES = 200, 300  # `--grow` saves so many inputs, each of at most so many bytes


class InputTimeout(BaseException):
    """An input took too long. Not an Exception, so that no parser catches it."""


def run_input(target: Target, raw: bytes) -> str:
    """Parse an input, and return "read" or the message of an expected error. Any other exception propagates."""
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        target.parse(raw)
        return "read"
    except target.expected_errors as error:
        return re.sub(r"'[^']*'|\d+", "#", f"{type(error).__name__} {error}")[:160]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def load_corpus(name: str) -> list[bytes]:
    """Return a target's saved inputs. The file has one per line, as a JSON string whose characters are the bytes."""
    path = CORPUS / f"{name}.jsonl"
    return [json.loads(line).encode("latin-1") for line in path.read_text().splitlines()] if path.exists() else []


def save_corpus(name: str, inputs: list[bytes]) -> None:
    CORPUS.mkdir(exist_ok=True)
    short = [raw for raw in dict.fromkeys(inputs) if len(raw) <= MAX_SAVED_BYTES][:MAX_SAVED_INPUTS]
    (CORPUS / f"{name}.jsonl").write_text("".join(f"{json.dumps(raw.decode('latin-1'))}\n" for raw in short))


def fuzz(
    target: Target, seconds: float, seed: int, folder: Path, new_inputs: list[bytes] | None = None
) -> tuple[int, int, int]:
    """Fuzz a target for a number of seconds.

    Saves each input that causes a finding in `folder`. Appends each input with a new outcome to `new_inputs`.

    Returns:
        The number of inputs, of different outcomes, and of findings.
    """
    rng, corpus = random.Random(seed), [*target.seeds(), *load_corpus(target.name)]
    outcomes = {run_input(target, raw) for raw in corpus}
    assert "read" in outcomes, "the target reads none of its seeds"
    initial_peak = _peak_bytes()
    inputs, findings, deadline = len(corpus), set[str](), time.monotonic() + seconds
    while time.monotonic() < deadline:
        raw = mutate(rng, corpus, target.words)
        if target.repair and rng.random() < 0.8:
            raw = target.repair(raw)
        inputs += 1
        try:
            outcome = run_input(target, raw)
        except (Exception, InputTimeout) as error:  # any other exception is a finding
            frames = "".join(traceback.format_tb(error.__traceback__)[-2:])
            finding = f"{type(error).__name__}\n{frames}"
            if finding not in findings:
                findings.add(finding)
                path = folder / f"{target.name}-{len(findings)}"
                path.write_bytes(raw)
                print(f"{type(error).__name__}: {str(error)[:200]}\n{frames}saved as {path}", flush=True)
            continue
        if outcome not in outcomes and len(corpus) < MAX_CORPUS_INPUTS:
            outcomes.add(outcome)
            corpus.append(raw)
            if new_inputs is not None:
                new_inputs.append(raw)
        if _peak_bytes() - initial_peak > MAX_MEMORY_BYTES:
            print(f"memory grew by more than {MAX_MEMORY_BYTES:,} bytes", flush=True)
            (folder / f"{target.name}-memory").write_bytes(raw)
            findings.add("memory")
            break
    return inputs, len(outcomes), len(findings)


def _peak_bytes() -> int:
    """Return this process's peak memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--grow", action="store_true", help="save short inputs with a new outcome in the repository")
    options = parser.parse_args()

    def alarm(*_: object) -> None:
        raise InputTimeout(f"the input took longer than {MAX_SECONDS} s")

    signal.signal(signal.SIGALRM, alarm)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="softprompt-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    saved_inputs = load_corpus(options.target)
    inputs, outcomes, findings = fuzz(TARGETS[options.target], options.seconds, options.seed, folder, saved_inputs)
    if options.grow:
        save_corpus(options.target, saved_inputs)
    print(
        f"{options.target}: {inputs:,} inputs in {options.seconds:.0f} s, {outcomes} outcomes, {findings} findings, "
        f"peak memory {_peak_bytes() >> 20} MiB"
    )
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
