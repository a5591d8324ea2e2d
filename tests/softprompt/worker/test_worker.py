"""Tests of a real worker process over its socket: requests, queries, clients, failures and restarts."""

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
from softprompt.worker.run_folder import CHECKPOINT, EVENTS, RunFolder, list_runs, runs_folder
from tests.conftest import BOAT, FOX
from tests.kept import train_cached
from tests.library_model import a_prompt
from tests.nursery import Nursery
from tests.worker_process import (
    Home,
    events,
    is_listening,
    nicenesses,
    same_bits,
    saved_prompt,
    wait_for_run,
    wait_until,
)

LONG = {"tokens": 2, "steps": 50_000, "contexts": ()}  # the test must end this training
SHORT = {"tokens": 1, "steps": 20, "contexts": ()}
USUAL = {"tokens": 2, "steps": 30}  # with contexts


@pytest.fixture(scope="module")
def shared_worker(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[tuple[Home, Path]]:
    """A worker for all tests that leave it unchanged."""
    nursery.warm_vocabulary()
    with pytest.MonkeyPatch.context() as patch:
        worker_home = Home(patch.setenv)
        yield worker_home, tmp_path_factory.mktemp("shared")
        worker_home.close()


@pytest.fixture
def shared_client(
    shared_worker: tuple[Home, Path], monkeypatch: pytest.MonkeyPatch, cached_model_list: Path
) -> Iterator[Client]:
    """A client of the shared_client worker. At the end, the queue is empty."""
    worker_home, home = shared_worker
    monkeypatch.setenv("SOFTPROMPT_HOME", str(home))
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(worker_home.runtime))
    if not (home / "cache").exists():
        (home / "cache").mkdir()
        for cached in cached_model_list.glob("models-*"):  # without the log of another test's worker
            (home / "cache" / cached.name).symlink_to(cached)
    with worker_home.client() as client:
        yield client
    with worker_home.client() as client:
        for run in client.runs:
            if run["state"] not in ("done", "stopped", "failed"):
                client.request(p.Stop(run["id"]))
                wait_for_run(client, run["id"], lambda run: run["state"] in ("done", "stopped", "failed"))


def submit(client: Client, prompt: str = FOX, **settings: Any) -> str:
    run: str = client.request(p.Submit(TrainJob(prompt, TrainConfig(**settings), device="cpu").as_dict()))["id"]
    return run


def wait_for_state(client: Client, run_id: str, state: str) -> dict[str, Any]:
    return wait_for_run(client, run_id, lambda run: run["state"] == state)


def wait_for_report(client: Client, run_id: str) -> dict[str, Any]:
    """Wait for the next report of a run, and return it."""
    for event in events(client):
        if event["type"] == "report" and event["run"] == run_id:
            return event
    raise AssertionError


class RawClient:
    """A client that may send anything."""

    def __init__(self, hello: dict[str, Any] | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(os.fspath(Endpoint().socket))
        self.lines = self.socket.makefile("rb")
        if hello is not None:
            self.send(hello)

    def send(self, message: dict[str, Any]) -> None:
        self.socket.sendall(p.encode(message))

    def receive(self, kind: str) -> dict[str, Any]:
        for line in self.lines:
            message: dict[str, Any] = json.loads(line)
            if message["type"] == kind:
                return message
        raise AssertionError(f"the connection ended before a message of type {kind}")

    def is_closed_by_worker(self) -> bool:
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


def test_a_run_is_trained_and_saved_under_its_id(shared_client: Client, encoder: TextEncoder) -> None:
    run = submit(shared_client, FOX, **USUAL)
    ended = wait_for_state(shared_client, run, "done")
    assert (ended["entry"], ended["step"], ended["error"]) == (run, 30, "")
    assert same_bits(saved_prompt(run), train_cached(encoder, FOX, **USUAL))
    points = shared_client.request(p.Curve(run))["points"]
    assert [step for step, _, _ in points] == sorted({step for step, _, _ in points})
    assert points[-1][0] == 30
    assert points[-1][1] == pytest.approx(float(saved_prompt(run).losses[-1]))
    folder = runs_folder() / run
    assert {path.name for path in folder.iterdir()} == {"spec.json", "events.jsonl", "lease.1"}
    for path in (folder, folder.parent, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_runs_train_in_queue_order_and_clients_can_change_the_order(shared_client: Client) -> None:
    first = submit(shared_client, **LONG)
    wait_for_report(shared_client, first)
    second, third, fourth = (submit(shared_client, **SHORT) for _ in range(3))
    shared_client.request(p.Move(fourth, before=second))
    shared_client.request(p.Move(second))
    with connect() as other:  # type: ignore[union-attr]
        assert [run["id"] for run in other.runs[:4]] == [first, fourth, third, second]
    shared_client.request(p.Stop(first))
    ended = []
    for event in events(shared_client):
        if event["type"] == "run" and event["run"]["state"] in ("done", "stopped"):
            ended.append(event["run"]["id"])
            if len(ended) == 4:
                break
    assert ended == [first, fourth, third, second]


def test_waiting_runs_share_a_batch_and_end_independently(worker: Home, encoder: TextEncoder) -> None:
    """Three runs train together. A client pauses one and stops another, and a kill loses nothing."""
    with worker.client() as client:
        first = submit(client, tokens=1, steps=100_000, contexts=())
        settings: dict[str, Any] = {"tokens": 2, "steps": 150, "contexts": ()}
        going, paused, stopped = (submit(client, text, **settings) for text in (FOX, BOAT, "a green hill"))
        wait_for_report(client, first)
        client.request(p.Stop(first))
        for run in (going, paused, stopped):
            wait_for_report(client, run)
        assert set(client.request(p.Status())["running"].split(", ")) == {going, paused, stopped}
        client.request(p.Pause(paused))
        client.request(p.Stop(stopped))
        wait_for_state(client, paused, "paused")
        wait_for_state(client, stopped, "stopped")
    worker.kill()
    assert worker.wait_until_ended(going).state == "done"
    with worker.client() as client:
        client.request(p.Resume(paused))
        wait_for_state(client, paused, "done")
    for run, text in ((going, FOX), (paused, BOAT)):
        alone = train_cached(encoder, text, **settings)
        assert saved_prompt(run).steps == 150
        assert saved_prompt(run).similarity == pytest.approx(alone.similarity, abs=2e-3)
    assert saved_prompt(stopped).stopped == "interrupted"


def test_a_sweep_trains_every_number_of_tokens_and_saves_the_chosen_ones(
    shared_client: Client, encoder: TextEncoder
) -> None:
    before = Library().list().total
    job = SweepJob(FOX, TrainConfig(steps=USUAL["steps"]), device="cpu", sweep=(1, 2, 4), name="swept fox")
    run = shared_client.request(p.Submit(job.as_dict()))["id"]
    report = wait_for_report(shared_client, run)
    assert [k for k, _, _ in report["sweep"]] == [1, 2, 4]
    assert len(report["restarts"]) == 3
    ended = wait_for_state(shared_client, run, "done")
    assert (ended["kind"], ended["sweep"], ended["entry"]) == ("sweep", [1, 2, 4], "")
    assert [result["tokens"] for result in ended["results"]] == [1, 2, 4]
    assert sum(result["knee"] for result in ended["results"]) == 1
    assert Library().list().total == before
    saved = shared_client.request(p.Keep(run, [4, 2]))["kept"]
    assert [(entry["tokens"], entry["name"]) for entry in saved] == [(4, "swept fox-k4"), (2, "swept fox-k2")]
    assert shared_client.request(p.Keep(run, [2]))["kept"] == saved[1:]
    with pytest.raises(RunRefused, match="has no soft prompt of 3 tokens; available: 1, 2, 4"):
        shared_client.request(p.Keep(run, [3]))
    assert Library().list().total == before + 2
    alone = train_cached(encoder, FOX, **USUAL)
    assert saved_prompt(saved[1]["entry"]).similarity == pytest.approx(alone.similarity, abs=2e-3)
    # the next worker reads the same results
    assert [asdict(result) for result in RunFolder(runs_folder() / run).read().results] == ended["results"]


def test_a_hard_readout_becomes_the_next_revision_of_its_entry(shared_client: Client) -> None:
    config = TrainConfig(tokens=2, steps=5, contexts=())
    job = TrainJob(FOX, config, device="cpu", hard=HardConfig(steps=2, restarts=1))
    run = shared_client.request(p.Submit(job.as_dict()))["id"]
    assert wait_for_state(shared_client, run, "done")["entry"] == run
    hard = saved_prompt(run).hard
    assert hard is not None
    assert hard.tokens == 2
    hard_job = hard_readout_job(Library().open(run), HardConfig(tokens=3, steps=3, restarts=1), "cpu")
    hard_run = shared_client.request(p.Submit(hard_job.as_dict()))["id"]
    report = wait_for_report(shared_client, hard_run)
    assert report["text"]
    assert (report["step"], report["steps"]) == (1, 3)
    assert report["loss"] == pytest.approx(1 - report["similarity"])
    ended = wait_for_state(shared_client, hard_run, "done")
    assert (ended["kind"], ended["of_entry"], ended["entry"]) == ("hard", run, run)
    entry = Library().open(run)
    assert entry.revision == 2
    assert entry.prompt.hard is not None
    assert entry.prompt.hard.tokens == 3


def test_a_paused_run_lets_the_next_run_train_and_later_resumes_at_its_step(shared_client: Client) -> None:
    first = submit(shared_client, **LONG)
    wait_for_report(shared_client, first)
    second = submit(shared_client, **SHORT)
    shared_client.request(p.Pause(first))
    paused = wait_for_state(shared_client, first, "paused")
    assert paused["step"] > 0
    wait_for_state(shared_client, second, "done")
    shared_client.request(p.Resume(first))
    assert wait_for_report(shared_client, first)["step"] > paused["step"]
    shared_client.request(p.Stop(first))
    wait_for_state(shared_client, first, "stopped")
    assert saved_prompt(first).stopped == "interrupted"


def test_stopping_a_paused_run_saves_its_best_result(shared_client: Client) -> None:
    run = submit(shared_client, **LONG)
    wait_for_report(shared_client, run)
    shared_client.request(p.Pause(run))
    step = wait_for_state(shared_client, run, "paused")["step"]
    shared_client.request(p.Stop(run))
    ended = wait_for_state(shared_client, run, "stopped")
    assert saved_prompt(run).steps >= step
    assert ended["entry"] == run


def test_stopping_a_run_that_has_not_started_saves_no_entry(shared_client: Client) -> None:
    first = submit(shared_client, **LONG)
    second = submit(shared_client, **SHORT)
    assert shared_client.request(p.Stop(second))["state"] == "stopped"
    with pytest.raises(EntryNotFound):
        Library().open(second)
    wait_for_report(shared_client, first)
    with pytest.raises(RunRefused, match="is training"):
        shared_client.request(p.Drop(first))
    assert shared_client.request(p.Drop(second))["id"] == second
    assert not (runs_folder() / second).exists()
    with pytest.raises(RunNotFound, match="no run id starts with"):
        shared_client.request(p.Drop(second))


@pytest.mark.parametrize(
    ("request_type", "message"),
    [
        (p.Pause, "only queued or running runs"),
        (p.Resume, "only paused or failed runs"),
        (p.Stop, "is already done"),
        (p.Move, "only waiting runs"),
    ],
)
def test_requests_that_a_finished_run_rejects(shared_client: Client, request_type: Any, message: str) -> None:
    run = submit(shared_client, **SHORT)
    wait_for_state(shared_client, run, "done")
    with pytest.raises(RunRefused, match=message):
        shared_client.request(request_type(run))


def test_a_failed_run_shows_the_reason_and_the_next_run_trains(shared_client: Client) -> None:
    foreign = Library().save(a_prompt(name="of another model"))
    bad = shared_client.request(
        p.Submit(TrainJob(FOX, TrainConfig(init="soft"), device="cpu").as_dict(), start=foreign.id)
    )["id"]
    good = submit(shared_client, **SHORT)
    assert "was trained on different weights" in wait_for_state(shared_client, bad, "failed")["error"]
    wait_for_state(shared_client, good, "done")


IMPOSSIBLE: list[tuple[dict[str, Any], str, str]] = [
    ({"precision": "x"}, "ConfigError", "precision is 'x'; it must be float32 or bfloat16"),
    ({"precision": ""}, "ConfigError", "precision is ''"),
    *(({"device": name}, "DeviceError", f"device is '{name}'; it must be auto, cpu, cuda, cuda:1 or mps")
      for name in ("cuda:²", "cuda:-1", "cuda:99999999999", "", "tpu", "cuda:", "cuda:٣")),
    ({"device": "cuda:7"}, "DeviceError", "this machine has no device 'cuda:7'"),
    ({"device": "c" * 10**6}, "DeviceError", "device is 'ccc"),
    ({"sweep": [10**30]}, "ConfigError", "from 1 to 4,096"),
    ({"sweep": [0]}, "ConfigError", "a token count in the sweep is 0"),
    ({"sweep": list(range(1, 100))}, "ConfigError", "it must have 1 to 64"),
    ({"sweep": [1, 76]}, "ConfigError", "tokens is 76, but mini has room for 75"),
    ({"sweep": 5}, "ConfigError", "this is not a valid job"),
    ({"config": {"tokens": 76}}, "ConfigError", "tokens is 76, but mini has room for 75"),
    ({"config": {"tokens": 10**30}}, "ConfigError", "from 1 to 4,096"),
    ({"config": {"against": [1], "objective": "contrastive"}}, "ConfigError", "against"),
    ({"config": {"init": "soft"}}, "ConfigError", "none was given"),
    ({"config": []}, "ConfigError", "the settings are a list; they must be a dict"),
    ({"prompt": "fox " * 200}, "PromptTooLong", "the prompt has 200 tokens, but mini has room for 75"),
    ({"prompt": "🦊" * MAX_PROMPT_LENGTH}, "PromptError", "can be tokenized"),
    ({"prompt": " "}, "PromptError", "the prompt is empty"),
    ({"prompt": 7}, "ConfigError", "this is not a valid job"),
    ({"model": "minni"}, "UnknownModel", "Close: mini"),
    ({"model": "smollm2"}, "ConfigError", "the objective is cosine, but smollm2 is a language model"),
    ({"model": "hf:a/b"}, "ConfigError", "the objective is cosine, but hf:a/b is a language model"),
    ({"model": "m" * 10**6}, "ConfigError", "the model name has 1,000,000 characters"),
    ({"model": "local-dir:/nowhere"}, "UnknownModel", "there is no folder /nowhere"),
    ({"model": "local-dir:/\0"}, "ConfigError", "the model contains a NUL character"),
    ({"entry": "nobody", "hard": {}}, "EntryNotFound", "nobody"),
    ({"hard": {"tokens": 10**30}}, "ConfigError", "from 1 to 64"),
]  # fmt: skip


def test_a_job_that_can_never_train_is_rejected_when_it_is_submitted(shared_client: Client) -> None:
    """Whatever a client sends, it gets a typed error, the queue stays empty, and the log has no traceback."""
    raw, valid = RawClient(p.hello()), TrainJob(FOX, TrainConfig(tokens=1), device="cpu").as_dict()
    for number, (changes, kind, expected) in enumerate(IMPOSSIBLE):
        raw.send({"do": "submit", "id": number, "job": {**valid, **changes}})
        error = raw.receive("error")
        assert (error["id"], error["kind"], error["bad_input"]) == (number, kind, True), (changes, error["message"])
        assert expected in error["message"]
    for job in ({"prompt": FOX}, {}, {**valid, "config": {"tokens": [[1]]}}):
        raw.send({"do": "submit", "id": 1, "job": job})
        assert raw.receive("error")["kind"] == "ConfigError"
    raw.close()
    with pytest.raises(EntryNotFound, match="`softprompt-tui list` shows all"):  # worded for the commands
        shared_client.request(p.Submit(TrainJob(FOX).as_dict(), start="nobody"))
    status = shared_client.request(p.Status())
    assert (status["running"], status["queued"]) == ("", 0)
    assert "Traceback" not in log_path().read_text()


def test_a_run_can_start_from_an_entry_that_is_deleted_meanwhile(shared_client: Client, encoder: TextEncoder) -> None:
    prompt = train_cached(encoder, FOX, **USUAL)
    entry = Library().save(prompt)
    first = submit(shared_client, **LONG)
    job = TrainJob(BOAT, TrainConfig(tokens=2, steps=10, init="soft", contexts=()))
    run = shared_client.request(p.Submit(job.as_dict(), start=entry.id))["id"]
    Library().path(entry.id, 1).unlink()
    shared_client.request(p.Stop(first))
    wait_for_state(shared_client, run, "done")
    assert same_bits(saved_prompt(run), softprompt.train(encoder, BOAT, job.config, start=prompt))


def test_a_mix_trains_like_any_other_run(shared_client: Client, encoder: TextEncoder) -> None:
    meanings = (WeightedText(FOX, 0.7), WeightedText(BOAT, 0.3))
    lineage = Ancestor("mixed", "0" * 16, "fox", FOX, "mini", encoder.fingerprint, 0.7)
    job = TrainJob("a sum", TrainConfig(tokens=2, steps=10), meanings=meanings, ancestry=(lineage,))
    run = shared_client.request(p.Submit(job.as_dict()))["id"]
    wait_for_state(shared_client, run, "done")
    expected = softprompt.train(encoder, "a sum", job.config, meanings=meanings)
    assert same_bits(saved_prompt(run), replace(expected, ancestry=(lineage,)))
    assert (saved_prompt(run).meanings, saved_prompt(run).ancestry, saved_prompt(run).hard_prompt) == (
        meanings,
        (lineage,),
        "a sum",
    )


# queries


def test_queries_take_less_than_200_ms_during_a_training(shared_client: Client, encoder: TextEncoder) -> None:
    entry = Library().save(train_cached(encoder, FOX, tokens=3, steps=100).named("fox"))
    run = submit(shared_client, **LONG)
    wait_for_report(shared_client, run)
    queries = [
        p.Similarity("mini", [FOX, "[fox] beside a river", "a red car"]),
        p.Neighbours(run=run, top=5),
        p.Neighbours(entry=entry.id, top=3),
        p.Models(),
    ]
    for query in queries:
        shared_client.request(query)  # the first query of a kind takes longer
    seconds = []
    for _ in range(5):
        for query in queries:
            began = time.perf_counter()
            shared_client.request(query)
            seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[len(seconds) // 2] < 0.2, seconds
    reply = shared_client.request(queries[0])
    assert reply["tokens"][1] == 6
    assert reply["similarities"][0][1] > reply["similarities"][0][2]
    assert reply["written_out"][0] is None
    assert reply["written_out"][1]["text"] == f"{FOX} beside a river"
    assert reply["written_out"][1]["similarity"] > max(0.98, reply["written_out"][1]["floor"])
    assert reply["written_out"][1]["saved"] == reply["written_out"][1]["tokens"] - 6
    assert reply["written_out"][1]["mixed"] == ""
    readout = shared_client.request(queries[2])
    assert readout["readout_text"] == Library().open("fox").prompt.readout_text
    assert [len(words) for words in readout["neighbours"]] == [3, 3, 3]
    assert any(model["name"] == "mini" for model in shared_client.request(p.Models())["models"])


def test_the_readout_of_a_run_is_compared_with_its_training_target(shared_client: Client, encoder: TextEncoder) -> None:
    job = TrainJob(
        "(fox*.6 + boat*.4)",
        TrainConfig(**LONG),
        device="cpu",
        meanings=(WeightedText(FOX, 0.6), WeightedText(BOAT, 0.4)),
    )  # type: ignore[arg-type]
    run = shared_client.request(p.Submit(job.as_dict()))["id"]
    wait_for_report(shared_client, run)
    live = shared_client.request(p.Neighbours(run=run))
    shared_client.request(p.Stop(run))
    wait_for_state(shared_client, run, "stopped")
    expected = readout_similarity(encoder, live["readout_text"], saved_prompt(run).target)
    assert live["readout_similarity"] == pytest.approx(expected, abs=1e-5)
    alone = encoder.encode([job.prompt])[0]
    assert abs(expected - readout_similarity(encoder, live["readout_text"], alone)) > 1e-4
    of_entry = shared_client.request(p.Neighbours(entry=run))
    assert of_entry["readout_similarity"] == pytest.approx(saved_prompt(run).readout_similarity, abs=1e-5)


def test_queries_that_cannot_be_answered_return_errors(shared_client: Client) -> None:
    for query, error, message in (
        (p.Similarity("mini", ["[nobody] on a hill"]), EntryNotFound, "no soft prompt is named 'nobody'"),
        (p.Similarity("mini", ["[x"]), softprompt.errors.TemplateError, "^at character 1: this [ has no closing ]"),
        (p.Similarity("nothing", ["a"]), UnknownModel, "no model is named"),
        (p.Neighbours(run="0123"), RunNotFound, "is not training"),
        (p.Neighbours(entry="0123"), EntryNotFound, "no soft prompt"),
    ):
        with pytest.raises(error, match=message.replace("[", r"\[")):
            shared_client.request(query)


def test_a_query_about_a_model_that_is_not_loaded_does_not_stall_a_training(shared_client: Client) -> None:
    run = submit(shared_client, **LONG)
    wait_for_report(shared_client, run)
    with pytest.raises(WorkerError, match="cannot be loaded while a run is training: try again later"):
        shared_client.request(p.Similarity("ViT-B-32-quickgelu/openai", ["a"]))


def test_the_newest_query_replaces_older_ones(shared_client: Client) -> None:
    run = submit(shared_client, **LONG)
    wait_for_report(shared_client, run)
    raw = RawClient(p.hello())
    raw.receive("snapshot")
    queries = [p.as_message(p.Similarity("mini", [f"{FOX} {i}"]), i) for i in range(30)]
    raw.socket.sendall(b"".join(map(p.encode, queries)))
    outcomes: dict[int, str] = {}
    while len(outcomes) < 30:
        message = json.loads(raw.lines.readline())
        if message["type"] in ("reply", "error"):
            outcomes[message["id"]] = message.get("kind", "answered")
    assert outcomes[29] == "answered"
    assert set(outcomes.values()) <= {"answered", "Superseded"}
    assert list(outcomes.values()).count("Superseded") >= 10
    raw.close()


# clients


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{\n", b"[]\n", b"\xff\xfe\n", b'{"do":"submit"}\n', b'{"do":"nothing","id":1}\n', b"[" * 100_000 + b"\n"],
)
def test_nonsense_from_a_client_does_not_affect_others(shared_client: Client, line: bytes) -> None:
    raw = RawClient(p.hello())
    raw.receive("snapshot")
    raw.socket.sendall(line)
    if line.startswith(b'{"do"'):
        assert raw.receive("error")["kind"] == "WorkerError"
    else:
        assert raw.is_closed_by_worker()
    raw.close()
    assert shared_client.request(p.Status())["pid"]


def test_a_client_that_reads_nothing_is_dropped_and_can_connect_again(shared_client: Client) -> None:
    run = submit(shared_client, **SHORT)
    wait_for_state(shared_client, run, "done")
    raw = RawClient(p.hello())
    raw.socket.settimeout(5)
    try:
        for number in range(200_000):
            raw.send(p.as_message(p.Curve(run, 2000), number))
    except (ConnectionError, TimeoutError):
        pass
    else:
        pytest.fail("the worker accepted 200,000 requests from a client that reads no replies")
    assert shared_client.request(p.Status())["clients"] >= 1
    raw.close()
    second = RawClient(p.hello())
    assert second.receive("snapshot")
    second.close()


def test_a_client_with_an_old_protocol_is_told_to_update(shared_client: Client) -> None:
    raw = RawClient(p.hello() | {"protocol": 0, "version": "0.0.1"})
    assert "update softprompt-tui" in raw.receive("bye")["reason"]
    assert raw.is_closed_by_worker()
    raw.close()


# starting, ending and restarting


def test_many_clients_start_only_one_worker(worker: Home) -> None:
    pids: list[int] = []

    def start() -> None:
        with worker.client() as client:
            pids.append(client.request(p.Status())["pid"])

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 6
    assert len(set(pids)) == 1
    second = subprocess.run([sys.executable, "-m", "softprompt.worker"], check=False, capture_output=True)
    assert second.stdout + second.stderr == b""
    assert worker.pid() == pids[0]


def test_after_a_kill_a_run_resumes_with_bit_identical_results(worker: Home, encoder: TextEncoder) -> None:
    # with contexts that take turns; different numbers of tokens, so that the runs share no batch
    first_settings, second_settings = (
        {"tokens": tokens, "steps": 80, "contexts": TRAINING_CONTEXTS[:4]} for tokens in (2, 3)
    )
    with worker.client() as client:
        first, second = submit(client, **first_settings), submit(client, BOAT, **second_settings)
        wait_for_report(client, first)
    worker.kill()
    with worker.client() as client:
        wait_for_report(client, first)
        client.request(p.Pause(first))
        wait_for_state(client, first, "paused")  # its checkpoint is written now
        wait_for_report(client, second)  # otherwise the first run may resume before it
        client.request(p.Resume(first))
    worker.kill()
    assert worker.read_run(first).state == "queued"
    assert (RunFolder(runs_folder() / first).path / CHECKPOINT).exists()
    for run, prompt, settings in ((first, FOX, first_settings), (second, BOAT, second_settings)):
        assert worker.wait_until_ended(run).state == "done"
        assert same_bits(saved_prompt(run), train_cached(encoder, prompt, **settings))


def test_a_damaged_checkpoint_and_a_torn_event_do_not_change_the_result(worker: Home, encoder: TextEncoder) -> None:
    with worker.client() as client:
        run = submit(client, tokens=1, steps=80)
        wait_for_report(client, run)
        client.request(p.Pause(run))
        wait_for_state(client, run, "paused")
    worker.kill()
    folder = runs_folder() / run
    checkpoint = folder / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:-3] + b"abc")
    with (folder / EVENTS).open("ab") as file:
        file.write(b'{"at": "2026", "event": "rep')
    with worker.client() as client:
        client.request(p.Resume(run))
        wait_for_state(client, run, "done")
        steps = [step for step, _, _ in client.request(p.Curve(run))["points"]]
    assert steps == sorted(set(steps))
    assert same_bits(saved_prompt(run), train_cached(encoder, FOX, tokens=1, steps=80))


def test_shutdown_leaves_the_run_to_the_next_worker(worker: Home) -> None:
    run = worker.submit(FOX, **LONG)
    with worker.client() as client:
        wait_for_report(client, run)
        assert client.request(p.Shutdown()) == {"running": run}
        with pytest.raises(WorkerGone):
            list(events(client))
    wait_until(lambda: worker.pid() is None)
    assert not Endpoint().socket.exists()
    step = worker.read_run(run).latest["step"]
    with worker.client() as client:
        assert wait_for_report(client, run)["step"] > step
        client.request(p.Stop(run))
        wait_for_state(client, run, "stopped")


def test_shutdown_with_finish_ends_after_the_run(worker: Home) -> None:
    with worker.client() as client:
        run, waiting = submit(client, tokens=2, steps=150, contexts=()), submit(client, BOAT, **SHORT)
        wait_for_report(client, run)
        client.request(p.Shutdown(finish=True))
        with pytest.raises(WorkerGone):
            list(events(client))
    assert (worker.read_run(run).state, worker.read_run(waiting).state) == ("done", "queued")


def test_an_older_worker_finishes_its_run_and_then_ends(worker: Home) -> None:
    with worker.client() as client:
        run, waiting = submit(client, tokens=2, steps=150, contexts=()), submit(client, BOAT, **SHORT)
        pid = worker.pid()
        wait_for_report(client, run)
        newer = RawClient(p.hello() | {"version": "99.0"})
        assert newer.receive("making_way")["run"] == run
        with pytest.raises(WorkerGone):
            list(events(client))
    newer.close()
    assert worker.read_run(run).state == "done"
    assert worker.read_run(waiting).state == "queued"
    assert worker.wait_until_ended(waiting).state == "done"
    assert worker.pid() != pid


@pytest.fixture
def older(worker: Home, nursery: Nursery) -> tuple[Home, str]:
    """A worker with the previous protocol that trains a long run while another waits, and the first run's id."""
    worker.start_older_worker(nursery)
    client = RawClient(p.hello() | {"protocol": p.PROTOCOL - 1})
    client.receive("snapshot")
    for number in (1, 2):
        client.send(p.as_message(p.Submit(TrainJob(FOX, TrainConfig(**LONG), device="cpu").as_dict()), number))  # type: ignore[arg-type]
    run = client.receive("reply")["result"]["id"]
    client.receive("report")
    client.close()
    return worker, run


def test_clients_can_use_an_older_worker_while_it_finishes_its_run(older: tuple[Home, str]) -> None:
    worker, run = older
    pid = worker.pid()
    client = connect(accept_older=True)
    assert client is not None
    with client:
        assert client.making_way == run
        assert client.request(p.Status())["pid"] == pid
        assert client.request(p.Curve(run))["run"] == run
        assert wait_for_report(client, run)
        for request in (p.Submit(TrainJob(FOX).as_dict()), p.Resume(run), p.Similarity("mini", [FOX])):
            with pytest.raises(WorkerError, match=f"will exit after run {run[:8]}"):
                client.request(request)
        client.request(p.Stop(run))
        with pytest.raises(WorkerGone):
            list(events(client))
    assert worker.read_run(run).state == "stopped"
    with worker.client() as client:
        assert client.making_way is None
        assert client.worker["protocol"] == p.PROTOCOL


def test_a_job_that_an_older_worker_would_misread_waits_for_a_newer_worker(older: tuple[Home, str]) -> None:
    worker, run = older
    notices: list[str] = []

    def stop(notice: str) -> None:
        notices.append(notice)
        with connect(accept_older=True) as client:  # type: ignore[union-attr]
            client.request(p.Stop(run))

    meanings = (WeightedText(FOX, 0.7), WeightedText(BOAT, 0.3))
    with connect(on_wait=stop) as client:  # type: ignore[union-attr]
        run_id = client.request(p.Submit(TrainJob("both", meanings=meanings, device="cpu").as_dict()))["id"]
    assert [f"an older version of the worker is finishing run {run}" in notice for notice in notices] == [True]
    assert worker.read_run(run_id).job.meanings == meanings


def test_a_vanished_socket_is_created_again(worker: Home) -> None:
    run = worker.submit(FOX, **LONG)
    pid = worker.pid()
    for path in worker.runtime.iterdir():
        path.unlink()
    worker.runtime.rmdir()
    wait_until(is_listening)
    with worker.client() as client:
        assert client.request(p.Status())["pid"] == pid
        client.request(p.Stop(run))


def test_the_client_that_started_the_worker_may_leave_before_it_listens(worker: Home) -> None:
    Endpoint().prepare()
    reading, writing = os.pipe()
    os.close(reading)
    subprocess.run(
        [sys.executable, "-m", "softprompt.worker", "--ready-fd", str(writing)], check=True, pass_fds=(writing,)
    )
    os.close(writing)
    wait_until(worker.pid)
    pid = worker.pid()
    with worker.client() as client:
        assert client.request(p.Status())["pid"] == pid


def test_a_worker_without_clients_and_runs_ends(worker: Home) -> None:
    Endpoint().prepare()
    subprocess.run([sys.executable, "-m", "softprompt.worker", "--end-after", "0.2"], check=True)
    wait_until(lambda: worker.pid() is not None)
    wait_until(lambda: worker.pid() is None)


@pytest.mark.usefixtures("real_worker_start")
def test_the_worker_prints_nothing_on_the_terminal_and_writes_a_private_log(
    worker: Home, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = worker.submit(FOX, **SHORT)
    worker.wait_until_ended(run)
    (log,) = (home / "cache").glob("worker-*.log")
    assert f"run {run}: done" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    pid = worker.pid()
    assert [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)] == [os.devnull, str(log), str(log)]
    assert capfd.readouterr() == ("", "")


def test_a_run_that_cannot_be_written_is_not_acknowledged(worker: Home, home: Path) -> None:
    (home / "data").mkdir(parents=True)
    (home / "data" / "runs").write_text("in the way")
    with worker.client() as client:
        with pytest.raises(HomeError, match="cannot"):
            client.request(p.Submit(TrainJob(FOX).as_dict()))
        assert client.request(p.Status())["queued"] == 0


def describe_process(pid: int) -> dict[str, Any]:
    """Return the properties of a process that depend on how it was started, as the kernel sees them."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    description: dict[str, Any] = {name: status[name] for name in ("Umask", "SigBlk", "SigIgn", "SigCgt", "NoNewPrivs")}
    kinds = [re.sub(r"\d+|sp\w+", "", os.readlink(path)) for path in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115
    return description | {
        "folder": os.readlink(f"/proc/{pid}/cwd"),  # noqa: PTH115
        "leads its session": os.getsid(pid) == pid,
        "nicenesses": nicenesses(pid),
        "descriptors": sorted(kinds),
    }


def test_a_forked_worker_is_like_a_real_one(worker: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests fork their workers (tests/nursery.py). The kernel sees no difference to real ones."""
    descriptions = []
    for module in (worker_client.subprocess, subprocess):
        monkeypatch.setattr(worker_client, "subprocess", module)
        with worker.client() as connection:
            connection.request(p.Similarity("mini", [FOX]))  # all of its threads run now
            pid = connection.request(p.Status())["pid"]
            assert pid == worker.pid()
            descriptions.append(describe_process(pid))
        worker.kill()
    assert descriptions[0] == descriptions[1]


@pytest.mark.usefixtures("real_worker_start")
def test_modules_in_the_current_folder_are_not_imported(
    worker: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "torch", "softprompt", "secrets"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'planted')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    with worker.client() as client:
        assert client.request(p.Status())["pid"] == worker.pid()
    assert not (tmp_path / "planted").exists()


def test_a_relative_home_works_for_the_worker_too(
    worker: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOFTPROMPT_HOME", "relative")
    run = worker.submit(FOX, **SHORT)
    assert worker.wait_until_ended(run).state == "done"
    assert (tmp_path / "relative" / "data" / "library" / "entries" / f"{run}.1.safetensors").exists()


def test_an_acknowledged_pause_survives_a_kill(worker: Home) -> None:
    run = worker.submit(FOX, **LONG)
    with worker.client() as client:
        wait_for_run(client, run, lambda run: run["state"] == "running")
        client.request(p.Pause(run))
        worker.kill()
    with worker.client() as client:
        (paused,) = client.runs
        assert paused["state"] == "paused"
        client.request(p.Stop(run))


def test_runs_can_move_into_one_gap_any_number_of_times(shared_client: Client) -> None:
    first = submit(shared_client, **LONG)
    wait_for_report(shared_client, first)
    runs = [submit(shared_client, **SHORT) for _ in range(3)]
    for i in range(120):
        shared_client.request(p.Move(runs[1 + i % 2], before=runs[2 - i % 2]))
        shared_client.request(p.Move(runs[1 + (i + 1) % 2], before=runs[2 - (i + 1) % 2]))
    with connect() as other:  # type: ignore[union-attr]
        order = [run["id"] for run in other.runs if run["state"] == "queued"]
    assert sorted(order) == sorted(runs)
    shared_client.request(p.Move(runs[0], before=order[0] if order[0] != runs[0] else order[1]))
    with connect() as other:  # type: ignore[union-attr]
        assert next(run["id"] for run in other.runs if run["state"] == "queued") == runs[0]


def test_runs_that_many_clients_submit_at_once_get_different_positions(shared_client: Client) -> None:
    """Meanwhile, new clients read the list and other runs change."""
    first = submit(shared_client, **LONG)
    wait_for_report(shared_client, first)

    def submit_some(_: int) -> list[str]:
        with connect() as client:  # type: ignore[union-attr]
            return [submit(client, **LONG) for _ in range(8)]

    with ThreadPoolExecutor(8) as pool:
        runs_by_client = list(pool.map(submit_some, range(8)))
    positions = {run.id: run.position for run in list_runs(runs_folder())}
    assert len({positions[run] for runs in runs_by_client for run in runs}) == 64
    for runs in runs_by_client:
        assert [positions[run] for run in runs] == sorted(positions[run] for run in runs)
        for run in runs:
            shared_client.request(p.Stop(run))
    shared_client.request(p.Stop(first))


def test_the_longest_prompts_are_accepted_and_shown_shortened(shared_client: Client) -> None:
    prompt = "fox " * (MAX_PROMPT_LENGTH // 4)
    run = shared_client.request(p.Submit(TrainJob(prompt, TrainConfig(long="cut", **SHORT), device="cpu").as_dict()))
    assert len(run["prompt"]) == 400
    with connect() as other:  # type: ignore[union-attr]
        assert max(len(listed["prompt"]) for listed in other.runs) == 400
    assert RunFolder(runs_folder() / run["id"]).read().job.prompt == prompt
    wait_for_state(shared_client, run["id"], "done")


def test_nan_and_infinity_become_null_in_a_run(tmp_path: Path) -> None:
    import torch

    from softprompt.training.loop import Report
    from softprompt.worker.run_recorder import event_from_report

    nan = float("nan")
    report = Report(
        7,
        9,
        nan,
        float("inf"),
        0.5,
        nan,
        1.0,
        torch.zeros(1, 4),
        (nan, 0.5),
        lambda: pytest.fail("not asked for"),
    )
    folder, waiting = RunFolder.create(tmp_path, TrainJob(FOX), 1.0)
    run = waiting.apply(folder.append(event_from_report(report)))
    assert (run.as_dict()["step"], run.as_dict()["loss"], run.points) == (7, None, ())
    assert folder.read().as_dict() == run.as_dict()
