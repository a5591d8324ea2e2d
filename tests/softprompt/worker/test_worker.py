"""The worker, as a real process over its real socket: what it is asked, what it answers, what it survives."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import softprompt
from softprompt import Library
from softprompt.config import HardConfig, TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import EntryNotFound, HomeError, RunNotFound, RunRefused, UnknownModel, WorkerError
from softprompt.evaluation.readout import readout_similarity
from softprompt.jobs.job import SweepJob, TrainJob, hard_readout_job
from softprompt.prompts.contexts import TRAINING_CONTEXTS
from softprompt.prompts.lineage import MAX_PROMPT_LENGTH, Ancestor, WeightedText
from softprompt.worker import client as worker_client
from softprompt.worker import protocol as p
from softprompt.worker.client import Client, WorkerGone, connect
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.log import log_path
from softprompt.worker.run_folder import CHECKPOINT, EVENTS, RunFolder, all_runs, runs_folder
from tests.conftest import BOAT, FOX
from tests.kept import trained
from tests.library_model import a_prompt
from tests.nursery import Nursery
from tests.worker_process import Home, events, is_listening, nicenesses, same_bits, saved, until, wait_for

LONG = {"tokens": 2, "steps": 50_000, "contexts": ()}  # a training that a test ends itself
SHORT = {"tokens": 1, "steps": 20, "contexts": ()}
USUAL = {"tokens": 2, "steps": 30}  # with contexts


@pytest.fixture
def worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home whose worker, if one is started, is this test's alone."""
    made = Home(monkeypatch.setenv)
    yield made
    made.close()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[tuple[Home, Path]]:
    """One worker for the tests that leave it as it was."""
    nursery.learn_to_type()
    with pytest.MonkeyPatch.context() as patch:
        made = Home(patch.setenv)
        yield made, tmp_path_factory.mktemp("lasting")
        made.close()


@pytest.fixture
def shared(lasting: tuple[Home, Path], monkeypatch: pytest.MonkeyPatch, kept_models: Path) -> Iterator[Client]:
    """A client of the lasting worker, and at the end nothing in its queue."""
    made, home = lasting
    monkeypatch.setenv("SOFTPROMPT_HOME", str(home))
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(made.runtime))
    if not (home / "cache").exists():
        (home / "cache").mkdir()
        for kept in kept_models.glob("models-*"):  # not the log of another test's worker
            (home / "cache" / kept.name).symlink_to(kept)
    with made.client() as client:
        yield client
    with made.client() as client:
        for run in client.runs:
            if run["state"] not in ("done", "stopped", "failed"):
                client.request(p.Stop(run["id"]))
                wait_for(client, run["id"], lambda told: told["state"] in ("done", "stopped", "failed"))


def submit(client: Client, prompt: str = FOX, **settings: Any) -> str:
    run: str = client.request(p.Submit(TrainJob(prompt, TrainConfig(**settings), device="cpu").as_dict()))["id"]
    return run


def state(client: Client, run: str, wanted: str) -> dict[str, Any]:
    return wait_for(client, run, lambda told: told["state"] == wanted)


def training(client: Client, run: str) -> dict[str, Any]:
    """The first report of a run."""
    for event in events(client):
        if event["type"] == "report" and event["run"] == run:
            return event
    raise AssertionError


class Raw:
    """A client that says what it likes."""

    def __init__(self, hello: dict[str, Any] | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(os.fspath(Endpoint().socket))
        self.lines = self.socket.makefile("rb")
        if hello is not None:
            self.say(hello)

    def say(self, message: dict[str, Any]) -> None:
        self.socket.sendall(p.encode(message))

    def hear(self, kind: str) -> dict[str, Any]:
        for line in self.lines:
            message: dict[str, Any] = json.loads(line)
            if message["type"] == kind:
                return message
        raise AssertionError(f"the line was cut before any {kind}")

    def ends(self) -> bool:
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionError:
            pass
        return True

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


# runs


def test_a_run_is_trained_and_saved_once_under_its_own_id(shared: Client, encoder: TextEncoder) -> None:
    run = submit(shared, FOX, **USUAL)
    ended = state(shared, run, "done")
    assert (ended["entry"], ended["step"], ended["error"]) == (run, 30, "")
    assert same_bits(saved(run), trained(encoder, FOX, **USUAL))
    points = shared.request(p.Curve(run))["points"]
    assert [step for step, _, _ in points] == sorted({step for step, _, _ in points})
    assert points[-1][0] == 30
    assert points[-1][1] == pytest.approx(float(saved(run).losses[-1]))
    folder = runs_folder() / run
    assert {path.name for path in folder.iterdir()} == {"spec.json", "events.jsonl", "lease.1"}
    for path in (folder, folder.parent, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_runs_are_trained_in_their_order_which_can_be_changed(shared: Client) -> None:
    first = submit(shared, **LONG)
    training(shared, first)
    second, third, fourth = (submit(shared, **SHORT) for _ in range(3))
    shared.request(p.Move(fourth, before=second))
    shared.request(p.Move(second))
    with connect() as other:  # type: ignore[union-attr]
        assert [run["id"] for run in other.runs[:4]] == [first, fourth, third, second]
    shared.request(p.Stop(first))
    ended = []
    for event in events(shared):
        if event["type"] == "run" and event["run"]["state"] in ("done", "stopped"):
            ended.append(event["run"]["id"])
            if len(ended) == 4:
                break
    assert ended == [first, fourth, third, second]


def test_runs_that_wait_together_share_a_batch_and_each_keeps_its_end(worker: Home, encoder: TextEncoder) -> None:
    """Behind a run of another plan three wait: they train at once, one is paused meanwhile, one stopped, and a kill loses nothing."""
    with worker.client() as client:
        first = submit(client, tokens=1, steps=100_000, contexts=())
        settings: dict[str, Any] = {"tokens": 2, "steps": 150, "contexts": ()}
        going, paused, stopped = (submit(client, text, **settings) for text in (FOX, BOAT, "a green hill"))
        training(client, first)
        client.request(p.Stop(first))
        for run in (going, paused, stopped):
            training(client, run)
        assert set(client.request(p.Status())["running"].split(", ")) == {going, paused, stopped}
        client.request(p.Pause(paused))
        client.request(p.Stop(stopped))
        state(client, paused, "paused")
        state(client, stopped, "stopped")
    worker.kill()
    assert worker.ended(going).state == "done"
    with worker.client() as client:
        client.request(p.Resume(paused))
        state(client, paused, "done")
    for run, text in ((going, FOX), (paused, BOAT)):
        alone = trained(encoder, text, **settings)
        assert saved(run).steps == 150
        assert saved(run).similarity == pytest.approx(alone.similarity, abs=2e-3)
    assert saved(stopped).stopped == "interrupted"


def test_a_sweep_trains_all_numbers_and_keeps_what_is_chosen(shared: Client, encoder: TextEncoder) -> None:
    before = Library().list().total
    job = SweepJob(FOX, TrainConfig(steps=USUAL["steps"]), device="cpu", sweep=(1, 2, 4), name="swept fox")
    run = shared.request(p.Submit(job.as_dict()))["id"]
    told = training(shared, run)
    assert [k for k, _, _ in told["sweep"]] == [1, 2, 4]
    assert len(told["restarts"]) == 3
    ended = state(shared, run, "done")
    assert (ended["kind"], ended["sweep"], ended["entry"]) == ("sweep", [1, 2, 4], "")
    assert [one["tokens"] for one in ended["results"]] == [1, 2, 4]
    assert sum(one["knee"] for one in ended["results"]) == 1
    assert Library().list().total == before
    kept = shared.request(p.Keep(run, [4, 2]))["kept"]
    assert [(one["tokens"], one["name"]) for one in kept] == [(4, "swept fox-k4"), (2, "swept fox-k2")]
    assert shared.request(p.Keep(run, [2]))["kept"] == kept[1:]
    with pytest.raises(RunRefused, match="has no soft prompt of 3 tokens; it has 1, 2, 4"):
        shared.request(p.Keep(run, [3]))
    assert Library().list().total == before + 2
    alone = trained(encoder, FOX, **USUAL)
    assert saved(kept[1]["entry"]).similarity == pytest.approx(alone.similarity, abs=2e-3)
    assert [asdict(result) for result in RunFolder(runs_folder() / run).read().results] == ended[
        "results"
    ]  # as the next worker reads it


def test_a_hard_readout_is_looked_for_and_becomes_the_entrys_next_revision(shared: Client) -> None:
    config = TrainConfig(tokens=2, steps=5, contexts=())
    job = TrainJob(FOX, config, device="cpu", hard=HardConfig(steps=2, restarts=1))
    run = shared.request(p.Submit(job.as_dict()))["id"]
    assert state(shared, run, "done")["entry"] == run
    found = saved(run).hard
    assert found is not None
    assert found.tokens == 2
    asked = hard_readout_job(Library().open(run), HardConfig(tokens=3, steps=3, restarts=1), "cpu")
    again = shared.request(p.Submit(asked.as_dict()))["id"]
    told = training(shared, again)
    assert told["text"]
    assert (told["step"], told["steps"]) == (1, 3)
    assert told["loss"] == pytest.approx(1 - told["similarity"])
    ended = state(shared, again, "done")
    assert (ended["kind"], ended["of_entry"], ended["entry"]) == ("hard", run, run)
    entry = Library().open(run)
    assert entry.revision == 2
    assert entry.prompt.hard is not None
    assert entry.prompt.hard.tokens == 3


def test_a_paused_run_lets_the_next_one_train_and_goes_on_where_it_was(shared: Client) -> None:
    first = submit(shared, **LONG)
    training(shared, first)
    second = submit(shared, **SHORT)
    shared.request(p.Pause(first))
    paused = state(shared, first, "paused")
    assert paused["step"] > 0
    state(shared, second, "done")
    shared.request(p.Resume(first))
    assert training(shared, first)["step"] > paused["step"]
    shared.request(p.Stop(first))
    state(shared, first, "stopped")
    assert saved(first).stopped == "interrupted"


def test_stopping_saves_the_best_so_far_also_of_a_paused_run(shared: Client) -> None:
    run = submit(shared, **LONG)
    training(shared, run)
    shared.request(p.Pause(run))
    step = state(shared, run, "paused")["step"]
    shared.request(p.Stop(run))
    ended = state(shared, run, "stopped")
    assert saved(run).steps >= step
    assert ended["entry"] == run


def test_a_run_that_has_not_begun_is_stopped_without_a_trace_in_the_library(shared: Client) -> None:
    first = submit(shared, **LONG)
    second = submit(shared, **SHORT)
    assert shared.request(p.Stop(second))["state"] == "stopped"
    with pytest.raises(EntryNotFound):
        Library().open(second)
    training(shared, first)
    with pytest.raises(RunRefused, match="is training"):
        shared.request(p.Drop(first))
    assert shared.request(p.Drop(second))["id"] == second
    assert not (runs_folder() / second).exists()
    with pytest.raises(RunNotFound, match="no run's id begins with"):
        shared.request(p.Drop(second))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (p.Pause, "only a run to come or under way"),
        (p.Resume, "only a paused or failed run"),
        (p.Stop, "is over already"),
        (p.Move, "has a place"),
    ],
)
def test_what_cannot_be_done_to_a_run_that_is_over(shared: Client, request_: Any, said: str) -> None:
    run = submit(shared, **SHORT)
    state(shared, run, "done")
    with pytest.raises(RunRefused, match=said):
        shared.request(request_(run))


def test_a_run_that_fails_says_why_and_the_next_one_trains(shared: Client) -> None:
    foreign = Library().save(a_prompt(name="of another model"))
    bad = shared.request(p.Submit(TrainJob(FOX, TrainConfig(init="soft"), device="cpu").as_dict(), start=foreign.id))[
        "id"
    ]
    good = submit(shared, **SHORT)
    assert "was trained on other weights" in state(shared, bad, "failed")["error"]
    state(shared, good, "done")


IMPOSSIBLE: list[tuple[dict[str, Any], str, str]] = [
    ({"precision": "x"}, "ConfigError", "precision is 'x'; it can be float32 or bfloat16"),
    ({"precision": ""}, "ConfigError", "precision is ''"),
    *(({"device": name}, "DeviceError", f"device is '{name}'; it can be auto, cpu, cuda, cuda:1 or mps")
      for name in ("cuda:²", "cuda:-1", "cuda:99999999999", "", "tpu", "cuda:", "cuda:٣")),
    ({"device": "cuda:7"}, "DeviceError", "'cuda:7' is not on this machine"),
    ({"device": "c" * 10**6}, "DeviceError", "device is 'ccc"),
    ({"sweep": [10**30]}, "ConfigError", "from 1 to 4,096"),
    ({"sweep": [0]}, "ConfigError", "a number of tokens is 0"),
    ({"sweep": list(range(1, 100))}, "ConfigError", "it takes from 1 to 64 of them"),
    ({"sweep": [1, 76]}, "ConfigError", "tokens is 76; mini has room for 1 to 75"),
    ({"sweep": 5}, "ConfigError", "this is no training job"),
    ({"config": {"tokens": 76}}, "ConfigError", "tokens is 76; mini has room for 1 to 75"),
    ({"config": {"tokens": 10**30}}, "ConfigError", "from 1 to 4,096"),
    ({"config": {"against": [1], "objective": "contrastive"}}, "ConfigError", "against"),
    ({"config": {"init": "soft"}}, "ConfigError", "none was given"),
    ({"config": []}, "ConfigError", "this is no training job"),
    ({"prompt": "fox " * 200}, "PromptTooLong", "the prompt has 200 tokens, mini takes 75"),
    ({"prompt": "🦊" * MAX_PROMPT_LENGTH}, "PromptError", "can be tokenised"),
    ({"prompt": " "}, "PromptError", "the prompt is empty"),
    ({"prompt": 7}, "ConfigError", "this is no training job"),
    ({"model": "minni"}, "UnknownModel", "Close: mini"),
    ({"model": "m" * 10**6}, "ConfigError", "model is a name of 1,000,000 characters"),
    ({"model": "local-dir:/nowhere"}, "UnknownModel", "there is no folder /nowhere"),
    ({"model": "local-dir:/\0"}, "ConfigError", "there is a NUL in the model"),
    ({"entry": "nobody", "hard": {}}, "EntryNotFound", "nobody"),
    ({"hard": {"tokens": 10**30}}, "ConfigError", "from 1 to 64"),
]  # fmt: skip


def test_what_can_never_train_is_refused_when_it_is_submitted(shared: Client) -> None:
    """Whatever a client sends: a typed error, nothing in the queue, and no word of it in the log but for what was not foreseen."""
    raw, usual = Raw(p.hello()), TrainJob(FOX, TrainConfig(tokens=1), device="cpu").as_dict()
    for number, (changes, kind, said) in enumerate(IMPOSSIBLE):
        raw.say({"do": "submit", "id": number, "job": {**usual, **changes}})
        answer = raw.hear("error")
        assert (answer["id"], answer["kind"], answer["bad_input"]) == (number, kind, True), (changes, answer["message"])
        assert said in answer["message"]
    for job in ({"prompt": FOX}, {}, {**usual, "config": {"tokens": [[1]]}}):
        raw.say({"do": "submit", "id": 1, "job": job})
        assert raw.hear("error")["kind"] == "ConfigError"
    raw.close()
    with pytest.raises(EntryNotFound):
        shared.request(p.Submit(TrainJob(FOX).as_dict(), start="nobody"))
    status = shared.request(p.Status())
    assert (status["running"], status["queued"]) == ("", 0)
    assert "Traceback" not in log_path().read_text()


def test_a_run_can_begin_from_a_saved_soft_prompt_that_is_gone_by_then(shared: Client, encoder: TextEncoder) -> None:
    made = trained(encoder, FOX, **USUAL)
    entry = Library().save(made)
    first = submit(shared, **LONG)
    job = TrainJob(BOAT, TrainConfig(tokens=2, steps=10, init="soft", contexts=()))
    run = shared.request(p.Submit(job.as_dict(), start=entry.id))["id"]
    Library().path(entry.id, 1).unlink()
    shared.request(p.Stop(first))
    state(shared, run, "done")
    assert same_bits(saved(run), softprompt.train(encoder, BOAT, job.config, start=made))


def test_a_mix_is_trained_as_any_other_run(shared: Client, encoder: TextEncoder) -> None:
    meanings = (WeightedText(FOX, 0.7), WeightedText(BOAT, 0.3))
    lineage = Ancestor("mixed", "0" * 16, "fox", FOX, "mini", encoder.fingerprint, 0.7)
    job = TrainJob("a sum", TrainConfig(tokens=2, steps=10), meanings=meanings, ancestry=(lineage,))
    run = shared.request(p.Submit(job.as_dict()))["id"]
    state(shared, run, "done")
    here = softprompt.train(encoder, "a sum", job.config, meanings=meanings)
    assert same_bits(saved(run), replace(here, ancestry=(lineage,)))
    assert (saved(run).meanings, saved(run).ancestry, saved(run).hard_prompt) == (meanings, (lineage,), "a sum")


# questions


def test_questions_are_answered_within_200_ms_while_a_training_runs(shared: Client, encoder: TextEncoder) -> None:
    entry = Library().save(trained(encoder, FOX, tokens=3, steps=100).named("fox"))
    run = submit(shared, **LONG)
    training(shared, run)
    asked = [
        p.Similarity("mini", [FOX, "[fox] beside a river", "a red car"]),
        p.Neighbours(run=run, top=5),
        p.Neighbours(entry=entry.id, top=3),
        p.Models(),
    ]
    for question in asked:
        shared.request(question)  # the first of a kind makes things ready
    seconds = []
    for _ in range(5):
        for question in asked:
            began = time.perf_counter()
            shared.request(question)
            seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[len(seconds) // 2] < 0.2, seconds
    found = shared.request(asked[0])
    assert found["tokens"][1] == 6
    assert found["similarities"][0][1] > found["similarities"][0][2]
    assert found["written_out"][0] is None
    assert found["written_out"][1]["text"] == f"{FOX} beside a river"
    assert found["written_out"][1]["similarity"] > max(0.98, found["written_out"][1]["floor"])
    assert found["written_out"][1]["saved"] == found["written_out"][1]["tokens"] - 6
    assert found["written_out"][1]["mixed"] == ""
    near = shared.request(asked[2])
    assert near["readout_text"] == Library().open("fox").prompt.readout_text
    assert [len(words) for words in near["neighbours"]] == [3, 3, 3]
    assert any(model["name"] == "mini" for model in shared.request(p.Models())["models"])


def test_the_readout_of_a_run_is_compared_with_what_the_run_is_trained_on(shared: Client, encoder: TextEncoder) -> None:
    job = TrainJob(
        "(fox*.6 + boat*.4)",
        TrainConfig(**LONG),
        device="cpu",
        meanings=(WeightedText(FOX, 0.6), WeightedText(BOAT, 0.4)),
    )  # type: ignore[arg-type]
    run = shared.request(p.Submit(job.as_dict()))["id"]
    training(shared, run)
    live = shared.request(p.Neighbours(run=run))
    shared.request(p.Stop(run))
    state(shared, run, "stopped")
    wanted = readout_similarity(encoder, live["readout_text"], saved(run).target)
    assert live["readout_similarity"] == pytest.approx(wanted, abs=1e-5)
    alone = encoder.encode([job.prompt])[0]
    assert abs(wanted - readout_similarity(encoder, live["readout_text"], alone)) > 0.01
    kept = shared.request(p.Neighbours(entry=run))
    assert kept["readout_similarity"] == pytest.approx(saved(run).readout_similarity, abs=1e-5)


def test_questions_that_cannot_be_answered_say_why(shared: Client) -> None:
    for question, error, said in (
        (p.Similarity("mini", ["[nobody] on a hill"]), EntryNotFound, "no soft prompt is named 'nobody'"),
        (p.Similarity("mini", ["[x"]), softprompt.errors.TemplateError, "^at character 1: this [ has no partner"),
        (p.Similarity("nothing", ["a"]), UnknownModel, "no model is named"),
        (p.Neighbours(run="0123"), RunNotFound, "is not training"),
        (p.Neighbours(entry="0123"), EntryNotFound, "no soft prompt"),
    ):
        with pytest.raises(error, match=said.replace("[", r"\[")):
            shared.request(question)


def test_a_model_that_is_not_loaded_does_not_hold_up_a_training(shared: Client) -> None:
    run = submit(shared, **LONG)
    training(shared, run)
    with pytest.raises(WorkerError, match="a training is under way: ask again"):
        shared.request(p.Similarity("ViT-B-32-quickgelu/openai", ["a"]))


def test_the_newest_question_wins(shared: Client) -> None:
    run = submit(shared, **LONG)
    training(shared, run)
    raw = Raw(p.hello())
    raw.hear("snapshot")
    questions = [p.as_message(p.Similarity("mini", [f"{FOX} {i}"]), i) for i in range(30)]
    raw.socket.sendall(b"".join(map(p.encode, questions)))
    answers: dict[int, str] = {}
    while len(answers) < 30:
        message = json.loads(raw.lines.readline())
        if message["type"] in ("reply", "error"):
            answers[message["id"]] = message.get("kind", "answered")
    assert answers[29] == "answered"
    assert set(answers.values()) <= {"answered", "Superseded"}
    assert list(answers.values()).count("Superseded") >= 10
    raw.close()


# clients


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{\n", b"[]\n", b"\xff\xfe\n", b'{"do":"submit"}\n', b'{"do":"nothing","id":1}\n', b"[" * 100_000 + b"\n"],
)
def test_a_client_that_says_nonsense_harms_nobody(shared: Client, line: bytes) -> None:
    raw = Raw(p.hello())
    raw.hear("snapshot")
    raw.socket.sendall(line)
    if line.startswith(b'{"do"'):
        assert raw.hear("error")["kind"] == "WorkerError"
    else:
        assert raw.ends()
    raw.close()
    assert shared.request(p.Status())["pid"]


def test_a_client_that_reads_nothing_is_dropped_and_can_come_back(shared: Client) -> None:
    run = submit(shared, **SHORT)
    state(shared, run, "done")
    raw = Raw(p.hello())
    raw.socket.settimeout(5)
    try:
        for number in range(200_000):
            raw.say(p.as_message(p.Curve(run, 2000), number))
    except (ConnectionError, TimeoutError):
        pass
    else:
        pytest.fail("it took 200,000 requests without an answer being read")
    assert shared.request(p.Status())["clients"] >= 1
    raw.close()
    again = Raw(p.hello())
    assert again.hear("snapshot")
    again.close()


def test_a_stranger_with_an_old_protocol_is_told_so(shared: Client) -> None:
    raw = Raw(p.hello() | {"protocol": 0, "version": "0.0.1"})
    assert "update softprompt-tui" in raw.hear("bye")["reason"]
    assert raw.ends()
    raw.close()


# life and death


def test_there_is_never_more_than_one_worker(worker: Home) -> None:
    pids: list[int] = []

    def begin() -> None:
        with worker.client() as client:
            pids.append(client.request(p.Status())["pid"])

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 6
    assert len(set(pids)) == 1
    second = subprocess.run([sys.executable, "-m", "softprompt.worker"], check=False, capture_output=True)
    assert second.stdout + second.stderr == b""
    assert worker.pid() == pids[0]


def test_killed_at_any_step_it_resumes_to_the_same_bits(worker: Home, encoder: TextEncoder) -> None:
    # in contexts that take turns; of other tokens, so that neither shares the other's batch
    settings, others = ({"tokens": tokens, "steps": 80, "contexts": TRAINING_CONTEXTS[:4]} for tokens in (2, 3))
    with worker.client() as client:
        first, second = submit(client, **settings), submit(client, BOAT, **others)
        training(client, first)
    worker.kill()
    with worker.client() as client:
        training(client, first)
        client.request(p.Pause(first))
        state(client, first, "paused")  # its checkpoint is written
        training(client, second)  # else the first may have its turn again before it
        client.request(p.Resume(first))
    worker.kill()
    assert worker.record(first).state == "queued"
    assert (RunFolder(runs_folder() / first).path / CHECKPOINT).exists()
    for run, prompt, asked in ((first, FOX, settings), (second, BOAT, others)):
        assert worker.ended(run).state == "done"
        assert same_bits(saved(run), trained(encoder, prompt, **asked))


def test_a_damaged_checkpoint_and_a_torn_event_cost_time_and_nothing_else(worker: Home, encoder: TextEncoder) -> None:
    with worker.client() as client:
        run = submit(client, tokens=1, steps=80)
        training(client, run)
        client.request(p.Pause(run))
        state(client, run, "paused")
    worker.kill()
    folder = runs_folder() / run
    checkpoint = folder / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:-3] + b"abc")
    with (folder / EVENTS).open("ab") as file:
        file.write(b'{"at": "2026", "event": "rep')
    with worker.client() as client:
        client.request(p.Resume(run))
        state(client, run, "done")
        steps = [step for step, _, _ in client.request(p.Curve(run))["points"]]
    assert steps == sorted(set(steps))
    assert same_bits(saved(run), trained(encoder, FOX, tokens=1, steps=80))


def test_told_to_end_it_keeps_the_run_for_the_next_one(worker: Home) -> None:
    run = worker.submit(FOX, **LONG)
    with worker.client() as client:
        training(client, run)
        assert client.request(p.Shutdown()) == {"running": run}
        with pytest.raises(WorkerGone):
            list(events(client))
    until(lambda: worker.pid() is None)
    assert not Endpoint().socket.exists()
    step = worker.record(run).latest["step"]
    with worker.client() as client:
        assert training(client, run)["step"] > step
        client.request(p.Stop(run))
        state(client, run, "stopped")


def test_told_to_finish_it_ends_with_the_run(worker: Home) -> None:
    with worker.client() as client:
        run, left = submit(client, tokens=2, steps=150, contexts=()), submit(client, BOAT, **SHORT)
        training(client, run)
        client.request(p.Shutdown(finish=True))
        with pytest.raises(WorkerGone):
            list(events(client))
    assert (worker.record(run).state, worker.record(left).state) == ("done", "queued")


def test_an_older_worker_finishes_its_run_and_makes_way(worker: Home) -> None:
    with worker.client() as client:
        run, left = submit(client, tokens=2, steps=150, contexts=()), submit(client, BOAT, **SHORT)
        pid = worker.pid()
        training(client, run)
        newer = Raw(p.hello() | {"version": "99.0"})
        assert newer.hear("making_way")["run"] == run
        with pytest.raises(WorkerGone):
            list(events(client))
    newer.close()
    assert worker.record(run).state == "done"
    assert worker.record(left).state == "queued"
    assert worker.ended(left).state == "done"
    assert worker.pid() != pid


@pytest.fixture
def older(worker: Home, nursery: Nursery) -> tuple[Home, str]:
    """A worker of the protocol before, in the middle of a long training, with a second run waiting; and the first one's id."""
    worker.begin_an_older_one(nursery)
    client = Raw(p.hello() | {"protocol": p.PROTOCOL - 1})
    client.hear("snapshot")
    for number in (1, 2):
        client.say(p.as_message(p.Submit(TrainJob(FOX, TrainConfig(**LONG), device="cpu").as_dict()), number))  # type: ignore[arg-type]
    run = client.hear("reply")["result"]["id"]
    client.hear("report")
    client.close()
    return worker, run


def test_an_older_worker_is_spoken_to_while_it_finishes_its_run(older: tuple[Home, str]) -> None:
    worker, run = older
    pid = worker.pid()
    client = connect(older=True)
    assert client is not None
    with client:
        assert client.making_way == run
        assert client.request(p.Status())["pid"] == pid
        assert client.request(p.Curve(run))["run"] == run
        assert training(client, run)
        for request in (p.Submit(TrainJob(FOX).as_dict()), p.Resume(run), p.Similarity("mini", [FOX])):
            with pytest.raises(WorkerError, match=f"makes way when run {run[:8]} is done"):
                client.request(request)
        client.request(p.Stop(run))
        with pytest.raises(WorkerGone):
            list(events(client))
    assert worker.record(run).state == "stopped"
    with worker.client() as client:
        assert client.making_way is None
        assert client.worker["protocol"] == p.PROTOCOL


def test_what_an_older_worker_would_misunderstand_waits_for_a_newer_one(older: tuple[Home, str]) -> None:
    worker, run = older
    told: list[str] = []

    def stop(words: str) -> None:
        told.append(words)
        with connect(older=True) as client:  # type: ignore[union-attr]
            client.request(p.Stop(run))

    meanings = (WeightedText(FOX, 0.7), WeightedText(BOAT, 0.3))
    with connect(on_wait=stop) as client:  # type: ignore[union-attr]
        made = client.request(p.Submit(TrainJob("both", meanings=meanings, device="cpu").as_dict()))["id"]
    assert [f"a worker of an older version finishes run {run}" in words for words in told] == [True]
    assert worker.record(made).job.meanings == meanings


def test_its_socket_is_made_again_where_it_vanished(worker: Home) -> None:
    run = worker.submit(FOX, **LONG)
    pid = worker.pid()
    for path in worker.runtime.iterdir():
        path.unlink()
    worker.runtime.rmdir()
    until(is_listening)
    with worker.client() as client:
        assert client.request(p.Status())["pid"] == pid
        client.request(p.Stop(run))


def test_who_started_it_may_leave_before_it_listens(worker: Home) -> None:
    Endpoint().prepare()
    reading, writing = os.pipe()
    os.close(reading)
    subprocess.run(
        [sys.executable, "-m", "softprompt.worker", "--ready-fd", str(writing)], check=True, pass_fds=(writing,)
    )
    os.close(writing)
    until(worker.pid)
    pid = worker.pid()
    with worker.client() as client:
        assert client.request(p.Status())["pid"] == pid


def test_without_clients_and_runs_it_ends(worker: Home) -> None:
    Endpoint().prepare()
    subprocess.run([sys.executable, "-m", "softprompt.worker", "--end-after", "0.2"], check=True)
    until(lambda: worker.pid() is not None)
    until(lambda: worker.pid() is None)


@pytest.mark.usefixtures("real_start")
def test_it_leaves_no_trace_on_the_terminal_and_a_private_log(
    worker: Home, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = worker.submit(FOX, **SHORT)
    worker.ended(run)
    (log,) = (home / "cache").glob("worker-*.log")
    assert f"run {run}: done" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    pid = worker.pid()
    assert [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)] == [os.devnull, str(log), str(log)]
    assert capfd.readouterr() == ("", "")


def test_where_nothing_can_be_written_nothing_is_acknowledged(worker: Home, home: Path) -> None:
    (home / "data").mkdir(parents=True)
    (home / "data" / "runs").write_text("in the way")
    with worker.client() as client:
        with pytest.raises(HomeError, match="cannot be"):
            client.request(p.Submit(TrainJob(FOX).as_dict()))
        assert client.request(p.Status())["queued"] == 0


def facts_of(pid: int) -> dict[str, Any]:
    """What the kernel knows of a process that depends on how it was started."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    facts: dict[str, Any] = {name: status[name] for name in ("Umask", "SigBlk", "SigIgn", "SigCgt", "NoNewPrivs")}
    kinds = [re.sub(r"\d+|sp\w+", "", os.readlink(path)) for path in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115
    return facts | {
        "folder": os.readlink(f"/proc/{pid}/cwd"),  # noqa: PTH115
        "leads its session": os.getsid(pid) == pid,
        "nicenesses": nicenesses(pid),
        "descriptors": sorted(kinds),
    }


def test_a_worker_that_is_forked_is_like_one_that_is_started(worker: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests start their workers from tests/nursery.py. The kernel sees no difference between those and real ones."""
    facts = []
    for module in (worker_client.subprocess, subprocess):
        monkeypatch.setattr(worker_client, "subprocess", module)
        with worker.client() as connection:
            connection.request(p.Similarity("mini", [FOX]))  # by then all of its threads are there
            pid = connection.request(p.Status())["pid"]
            assert pid == worker.pid()
            facts.append(facts_of(pid))
        worker.kill()
    assert facts[0] == facts[1]


@pytest.mark.usefixtures("real_start")
def test_a_module_that_lies_where_the_user_is_is_not_imported(
    worker: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "torch", "softprompt", "secrets"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'planted')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    with worker.client() as client:
        assert client.request(p.Status())["pid"] == worker.pid()
    assert not (tmp_path / "planted").exists()


def test_a_relative_home_is_the_same_one_for_the_worker(
    worker: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTPROMPT_HOME", "relative")
    run = worker.submit(FOX, **SHORT)
    assert worker.ended(run).state == "done"
    assert (tmp_path / "relative" / "data" / "library" / "entries" / f"{run}.1.safetensors").exists()


def test_a_pause_that_was_acknowledged_holds_though_the_worker_is_killed(worker: Home) -> None:
    run = worker.submit(FOX, **LONG)
    with worker.client() as client:
        wait_for(client, run, lambda record: record["state"] == "running")
        client.request(p.Pause(run))
        worker.kill()
    with worker.client() as client:
        (left,) = client.runs
        assert left["state"] == "paused"
        client.request(p.Stop(run))


def test_any_number_of_moves_into_one_gap_finds_a_place(shared: Client) -> None:
    first = submit(shared, **LONG)
    training(shared, first)
    runs = [submit(shared, **SHORT) for _ in range(3)]
    for i in range(120):
        shared.request(p.Move(runs[1 + i % 2], before=runs[2 - i % 2]))
        shared.request(p.Move(runs[1 + (i + 1) % 2], before=runs[2 - (i + 1) % 2]))
    with connect() as other:  # type: ignore[union-attr]
        order = [run["id"] for run in other.runs if run["state"] == "queued"]
    assert sorted(order) == sorted(runs)
    shared.request(p.Move(runs[0], before=order[0] if order[0] != runs[0] else order[1]))
    with connect() as other:  # type: ignore[union-attr]
        assert next(run["id"] for run in other.runs if run["state"] == "queued") == runs[0]


def test_many_clients_that_submit_at_once_get_a_position_each(shared: Client) -> None:
    """While the list is scanned and read, and runs come and go."""
    first = submit(shared, **LONG)
    training(shared, first)

    def submit_some(_: int) -> list[str]:
        with connect() as client:  # type: ignore[union-attr]
            return [submit(client, **LONG) for _ in range(8)]

    with ThreadPoolExecutor(8) as pool:
        each = list(pool.map(submit_some, range(8)))
    positions = {run.id: run.position for run in all_runs(runs_folder())}
    assert len({positions[run] for runs in each for run in runs}) == 64
    for runs in each:
        assert [positions[run] for run in runs] == sorted(positions[run] for run in runs)
        for run in runs:
            shared.request(p.Stop(run))
    shared.request(p.Stop(first))


def test_the_longest_prompts_are_taken_and_shown_cut(shared: Client) -> None:
    prompt = "fox " * (MAX_PROMPT_LENGTH // 4)
    run = shared.request(p.Submit(TrainJob(prompt, TrainConfig(long="cut", **SHORT), device="cpu").as_dict()))
    assert len(run["prompt"]) == 400
    with connect() as other:  # type: ignore[union-attr]
        assert max(len(one["prompt"]) for one in other.runs) == 400
    assert RunFolder(runs_folder() / run["id"]).read().job.prompt == prompt
    state(shared, run["id"], "done")


def test_figures_that_are_no_numbers_are_null_in_a_run(tmp_path: Path) -> None:
    import torch

    from softprompt.training.loop import Report
    from softprompt.worker.run_recorder import event_of

    nothing = float("nan")
    report = Report(
        7,
        9,
        nothing,
        float("inf"),
        0.5,
        nothing,
        1.0,
        torch.zeros(1, 4),
        (nothing, 0.5),
        lambda: pytest.fail("not asked for"),
    )
    folder, waiting = RunFolder.create(tmp_path, TrainJob(FOX), 1.0)
    run = waiting.apply(folder.append(event_of(report)))
    assert (run.as_dict()["step"], run.as_dict()["loss"], run.points) == (7, None, ())
    assert folder.read().as_dict() == run.as_dict()
