"""A model of ViT-L-14's real shape with random weights, pulled from a hub on this machine, loaded and trained.

    python -m tests.benchmarks.real_shape

Prints the peak memory and the progress of the pull, the memory and time of loading, and those of a training run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from threading import Thread

from softprompt.encoders.catalog import resolve
from tests.fake_hub import serve_hub

MODEL = "ViT-L-14-quickgelu/openai"
PROMPT = "image of serene landscape at sunrise with trees mountains and lake"
MAKE_WEIGHTS = """
import sys, open_clip
from open_clip.factory import get_model_config
from safetensors.torch import save_file
model = open_clip.CLIP(**get_model_config("ViT-L-14") | {"quick_gelu": True})
save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, sys.argv[1])
"""
LOAD = """
import sys, time
import open_clip
from softprompt.encoders.loading import load_encoder
def memory(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # reset the peak
stages, start = [], time.perf_counter()
load_encoder(sys.argv[1], "cpu", on_stage=stages.append)
print(memory("VmHWM") - before, time.perf_counter() - start, "; ".join(stages), sep="|")
"""


def peak_of(process: subprocess.Popen[str], peaks: list[int]) -> None:
    """Append the peak memory of a process, in bytes, when it ends."""
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        try:
            lines = status.read_text().splitlines()
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))])
        except OSError:  # it has ended
            break
        time.sleep(0.02)
    peaks.append(peak)


def run(environment: dict[str, str], *args: str) -> tuple[list[float], list[str], int, float]:
    """Run a command. Return the times and the texts of its output lines, its peak memory and its seconds."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *args],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    peaks: list[int] = []
    watcher = Thread(target=peak_of, args=(process, peaks))
    watcher.start()
    assert process.stdout is not None
    times, lines = [], []
    for line in process.stdout:
        times.append(time.perf_counter())
        lines.append(line)
    watcher.join()
    if process.wait():
        raise SystemExit(f"{' '.join(args[:4])} failed with {process.returncode}")
    return times, lines, peaks[0], time.perf_counter() - start


def main() -> None:
    info = resolve(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        run({}, "-c", MAKE_WEIGHTS, str(file))
        weights = file.read_bytes()
        file.unlink()
        with serve_hub(weights, f"/{info.repository}/resolve/main/{info.files[0]}") as hub:
            environment = hub.environment(folder) | {"SOFTPROMPT_HOME": f"{folder}/home"}
            run(environment, "-m", "softprompt_tui", "models", "vitl14")  # reads open_clip's list of models, once
            times, lines, peak, seconds = run(
                environment, "-m", "softprompt_tui", "models", "pull", "--json", "--", MODEL
            )
        arrived = [when for when, line in zip(times, lines, strict=True) if json.loads(line).get("bytes")]
        gap = max(later - earlier for earlier, later in pairwise(arrived))
        print(f"file                     {len(weights) / 1e6:8,.0f} MB")
        print(f"pull: peak memory        {peak / 1e6:8,.0f} MB   (at most 200)")
        print(f"pull: seconds            {seconds:8.1f}")
        print(f"pull: reports per second {len(arrived) / (arrived[-1] - arrived[0]):8.1f}   (at least 2)")
        print(f"pull: longest gap        {gap:8.2f} s")
        _, lines, _, _ = run(environment, "-c", LOAD, MODEL)
        memory, took, stages = lines[-1].strip().split("|")
        print(f"load: peak / file        {int(memory) / len(weights):8.2f}   (at most 1.5)")
        print(f"load: seconds            {float(took):8.1f}   ({stages})")
        options = ("--model", MODEL, "--device", "cpu", "-k", "3", "--steps", "30", "--json", "--quiet")
        _, lines, peak, seconds = run(environment, "-m", "softprompt_tui", "train", PROMPT, *options)
        result = json.loads("".join(lines))
        print(f"train, 30 steps: seconds {seconds:8.1f}   ({result['steps_per_second']:.2f} steps/s)")
        print(f"train: peak memory       {peak / 1e6:8,.0f} MB")


if __name__ == "__main__":
    main()
