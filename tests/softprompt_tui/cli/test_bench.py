"""`softprompt-tui bench`: tables for people, one document for scripts, and partial results after Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from softprompt.bench import hard
from softprompt.config import HardConfig
from tests.nursery import PIPE, Nursery
from tests.softprompt.conftest import CHATML
from tests.softprompt.encoders.causal_lm.tiny_models import save_model

Run = Callable[..., subprocess.CompletedProcess[str]]
ONE_RESTART_CODE = (
    "from functools import partial\nfrom softprompt.bench import hard\n"
    "hard.HardConfig = partial(hard.HardConfig, restarts=1)\n"
)
SHORT = ("--quick", "--only", "hard", "--count", "1", "--seconds", "0.1")


@pytest.fixture(autouse=True)
def one_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search with one restart instead of four. Every method gets as long as ours takes, so all finish sooner."""
    monkeypatch.setattr(hard, "HardConfig", partial(HardConfig, restarts=1))


def test_json_is_one_document_with_every_table(run: Run) -> None:
    result = run("bench", *SHORT, "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert set(document) == {
        "machine",
        "plan",
        "steps",
        "batches",
        "time",
        "soft",
        "pairs",
        "hard",
        "figures",
        "complete",
    }
    assert document["complete"] is True
    assert document["machine"]["model"] == "mini"
    assert document["machine"]["gflops"] > 0
    assert document["plan"]["parts"] == ["hard"]
    assert [(row["tokens"], row["method"]) for row in document["hard"]] == [
        (k, method)
        for k in (4, 8)
        for method in ("ours", "ours, warm start", "fast PEZ", "stock PEZ", "copy of the first k")
    ]
    assert {row["kept"] for row in document["hard"] if row["method"].startswith("ours")} == {1}
    assert "hard error to stock PEZ's, k 8" in document["figures"]
    assert "hard quality: 8 tokens" in result.stderr


def test_the_users_prompts_are_measured_and_printed_as_tables(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a red fox asleep in deep snow under tall pine trees at dusk\n")
    result = run("bench", *SHORT, "--prompts", str(path))
    assert result.returncode == 0, result.stderr
    assert "GFLOP/s" in result.stdout
    assert "hard readouts" in result.stdout
    assert "stock PEZ" in result.stdout
    assert "skipping k 8: no prompt has 16 to 75 tokens" in result.stderr


def test_ctrl_c_prints_the_measurements_so_far(home: Path, nursery: Nursery) -> None:
    nursery.warm_vocabulary()
    process = nursery.start_command("bench", *SHORT, "--json", stdout=PIPE, stderr=PIPE, before=ONE_RESTART_CODE)
    assert process.stderr is not None
    for line in process.stderr:
        if b"8 tokens" in line:
            process.send_signal(signal.SIGINT)
            break
    stdout, stderr = process.read_output()
    assert process.wait(60) == 130, stderr
    document = json.loads(stdout)
    assert document["complete"] is False
    assert {row["tokens"] for row in document["hard"]} == {4}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--only", "speeed"), "Choose from speed, time, soft, hard"),
        (("--count", "0"), "at least 1"),
        (("--seconds", "-1"), "greater than 0"),
        (("--batch", "1,many"), "not a list of whole numbers"),
        (("--prompts", "/nowhere/at-all.txt"), "cannot read"),
        (("--tower", "ViT-B32"), "Close: ViT-B-32"),
        (("--tower", "ViT-B-32", "--model", "ViT-L-14"), "exclude each other"),
        (("--model", "minni"), "no model is named"),
    ],
)
def test_bad_input_is_reported_before_anything_is_measured(run: Run, args: tuple[str, ...], message: str) -> None:
    result = run("bench", "--quick", *args)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_language_model_is_measured_beside_peft(run: Run, tmp_path: Path) -> None:
    folder = str(save_model("Llama", tmp_path, CHATML, max_position_embeddings=512))
    result = run("bench", "--quick", "--model", folder, "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    ours, peft = document["distillation"]
    assert (ours["method"], peft["method"]) == ("ours", "PEFT")
    assert document["figures"]["step of PEFT to ours"] == peft["seconds"] / ours["seconds"]
    assert min(ours["tokens_per_second"], peft["memory"]) > 0
    assert document["complete"] is True
    refused = run("bench", "--model", folder, "--only", "speed")
    assert refused.returncode == 2
    assert "--only is for text encoders" in refused.stderr
