"""Tests of the worker with many runs and many clients.

Every message is short, and the worker drops a client only if the client reads nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import HardConfig, TrainConfig
from softprompt.encoders.catalog import mini_model
from softprompt.errors import MessageTooLong
from softprompt.jobs.job import TrainJob
from softprompt.library.names import MAX_NAME_LENGTH
from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker import connection, messages
from softprompt.worker import protocol as p
from softprompt.worker.client import Client
from softprompt.worker.connection import Connection
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.run_folder import Run
from tests.worker_process import Home, create_abandoned_runs

WIDE = "🦊"  # 12 bytes in JSON
RUN_COUNT = 800  # too many runs for a single message


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Path, list[str]]]:
    """A worker whose home has many paused runs."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("crowd")
        patch.setenv("SOFTPROMPT_HOME", str(home))
        process = Home(patch.setenv)
        runs = create_abandoned_runs([TrainJob(WIDE * 400, TrainConfig(long="cut"))] * RUN_COUNT, "paused")
        with process.client() as client:
            assert len(client.runs) == RUN_COUNT  # the worker has read all of them
        yield process, home, runs
        process.close()


@pytest.fixture
def runs(crowd: tuple[Home, Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    process, home, runs = crowd
    monkeypatch.setenv("SOFTPROMPT_HOME", str(home))
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(process.runtime))
    return runs


class RawClient:
    """A client that reads only when the test says so."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(os.fspath(Endpoint().socket))
        self.lines = self.socket.makefile("rb")
        self.socket.sendall(p.encode(p.hello()))
        self.bytes = 0

    def receive(self) -> dict[str, Any]:
        line = self.lines.readline()
        self.bytes += len(line)
        assert len(line) < p.MAX_LINE_BYTES / 16
        return p.parse_message(line)

    def receive_list(self) -> list[str]:
        """Receive pages until the list of runs is complete, and return the ids in order."""
        run_ids = []
        while True:
            message = self.receive()
            run_ids += [run["id"] for run in message.get("runs", [])]
            if message.get("more") is False:
                return run_ids


def test_a_long_list_arrives_in_short_pages(runs: list[str]) -> None:
    raw = RawClient()
    assert raw.receive_list() == runs
    assert raw.bytes > p.MAX_LINE_BYTES
    with Client(_connect()) as client:
        assert client.request(p.Status())["paused"] == RUN_COUNT  # before the client has read all pages
        assert [run["id"] for run in client.runs] == runs
    raw.socket.close()


def test_changes_between_two_pages_reach_the_client(runs: list[str]) -> None:
    """A client that pauses after its first page ends up with the same list as a later client."""
    raw = RawClient()
    message = raw.receive()
    while message["type"] != "snapshot":
        message = raw.receive()
    with Client(_connect()) as other:
        for run in (runs[0], runs[-2]):  # on the first page and on the last
            other.request(p.Move(run, before=runs[-1]))
        other.request(p.Drop(runs[-3]))
        other.request(p.Drop(runs[1]))
    known = {run["id"]: run for run in message["runs"]}
    while message.get("more", True):
        message = raw.receive()
        known |= {run["id"]: run for run in message.get("runs", [])}
        if message["type"] == "run":
            known[message["run"]["id"]] = message["run"]
        elif message["type"] == "dropped":
            known.pop(message["run"], None)
    with Client(_connect()) as later:
        now = {run["id"]: run for run in later.runs}
    assert runs[-3] not in known
    assert known == now
    runs[:] = now
    raw.socket.close()


def test_a_slow_client_gets_the_latest_state_of_each_run_and_a_bounded_backlog(runs: list[str]) -> None:
    raw = RawClient()
    raw.receive_list()
    moved, before = runs[:100], raw.bytes
    with Client(_connect()) as other:
        for i in range(3 * len(moved)):  # 1.6 MB of changes; the slow client reads a little now and then
            last = other.request(p.Move(moved[i % len(moved)]))
            other._events.clear()
            if i % 20 == 0:
                raw.receive()
    received: dict[str, dict[str, Any]] = {}
    while received.get(last["id"], {}).get("position") != last["position"]:
        message = raw.receive()
        received |= {message["run"]["id"]: message["run"]} if message["type"] == "run" else {}
    assert set(received) <= set(moved)
    assert raw.bytes - before < 2 * connection.MAX_BACKLOG_BYTES + len(moved) * 6000
    runs[:] = runs[100:] + moved
    raw.socket.close()


def test_a_request_that_is_too_long_gets_an_error_and_the_connection_stays(runs: list[str]) -> None:
    raw = RawClient()
    raw.receive_list()
    raw.socket.sendall(b'{"do":"submit","id":1,"job":"' + b"x" * (2 * p.MAX_LINE_BYTES) + b'"}\n')
    reply = raw.receive()
    assert (reply["type"], reply["kind"], reply["bad_input"]) == ("error", "MessageTooLong", True)
    raw.socket.sendall(p.encode(p.as_message(p.Status(), 2)))
    assert raw.receive()["result"]["paused"] == len(runs)
    raw.socket.close()
    with Client(_connect()) as client, pytest.raises(MessageTooLong, match="the limit is 4,194,304"):
        client.request(p.Submit({"prompt": "x" * p.MAX_LINE_BYTES}))


def test_messages_of_every_kind_stay_far_below_the_longest_line() -> None:
    """Checks the longest message of every kind, with values as long as a hostile folder or request can make them."""
    endless = WIDE * 100_000
    job = TrainJob("fox", TrainConfig(steps=100_000), hard=HardConfig())
    result = {"tokens": 1, "readout_text": endless, "similarity": -0.12345678901234567, "knee": True}
    for name, value in {"prompt": endless, "model": endless, "device": endless, "sweep": tuple(range(1000))}.items():
        object.__setattr__(job, name, value)  # bypasses the checks
    run = Run(
        "f" * 16, job, "2026", error=endless, entry=endless, name=endless, results=(SweepResult(**result),) * 1000
    )
    number, figure = (1 << 63) - 1, -0.12345678901234567
    values = messages.describe_run(run)
    run_messages = messages.RunMessages()
    lines_by_kind: dict[str, list[bytes]] = {
        "hello": [p.encode(p.hello())],
        "making_way": [p.encode({"type": "making_way", "run": "f" * 16})],
        "snapshot": [run_messages.encode_page({"type": "snapshot", "ready": True}, [run], True)],
        # a page is sent once its runs exceed PAGE_BYTES
        "page": [run_messages.encode_page({"type": "page"}, [run], True) + b" " * messages.PAGE_BYTES],
        "ready": [p.encode({"type": "ready"})],
        "loading": [
            p.encode({"type": "loading", "run": "f" * 16, "stage": "x" * 60, "bytes": number, "of": number})
        ],
        "run": [run_messages.encode_run(run)],
        "report": [
            p.encode({"type": "report", "run": "f" * 16, "step": number, "tokens": number,
                      "loss": figure, "similarity": figure, "text": WIDE * 64 * 20,
                      "restarts": [figure] * 16, "sweep": [[number, figure, figure]] * 64}),
        ],
        "dropped": [p.encode({"type": "dropped", "run": "f" * 16})],
        "bye": [p.encode({"type": "bye", "again": False, "reason": "x" * messages.MAX_ERROR_LENGTH})],
        "error": [messages.encode_error(number, ValueError(endless))],
        "reply": [
            messages.encode_reply(number, values),
            messages.encode_reply(
                number, {"run": "f" * 16, "points": [[number, *[figure] * (messages.MAX_POINT_VALUES - 1)]] * 2001}
            ),
            messages.encode_reply(
                number, {"kept": [{"tokens": number, "entry": "f" * 16, "name": WIDE * MAX_NAME_LENGTH}] * p.MAX_TEXTS}
            ),
            messages.encode_reply(
                number,
                {"models": [mini_model().as_dict() | {"name": "m" * 80, "refused": "r" * 80}] * 500,
                 "loaded": ["m" * 80] * 2},
            ),
            messages.encode_reply(
                number, {"similarities": [[figure] * 64] * 64, "written_out": [{"text": WIDE * 2000}] * 64}
            ),
            messages.encode_reply(number, {"neighbours": [[{"token": WIDE * 8, "cosine": figure}] * 100] * 77}),
            messages.encode_reply(number, {"text": endless * 9}),  # becomes an error, since it is too long
        ],
    }  # fmt: skip
    assert lines_by_kind.keys() == p.MESSAGES.keys()
    for kind, lines in lines_by_kind.items():
        for line in lines:
            assert len(line) < p.MAX_LINE_BYTES / 2, kind
            assert p.parse_message(line)["type"] in (kind, "error")


def test_a_slow_client_stays_and_a_client_that_reads_nothing_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.5)

    async def scene() -> None:
        accepted: asyncio.Queue[Connection] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accepted.put(Connection(1, reader, writer))

        path = f"{tmp_path}/s"
        server = await asyncio.start_unix_server(serve, path)
        slow, silent = (socket.socket(socket.AF_UNIX) for _ in range(2))
        for client in (slow, silent):
            client.connect(path)
        connections = [await accepted.get() for _ in range(2)]
        for accepted_connection in connections:
            accepted_connection.send(b"x" * (3 << 20))  # more than the socket's buffers hold
        began = time.monotonic()
        stalled = [False, False]
        while time.monotonic() - began < 3 * connection.STALLED_SECONDS:
            await asyncio.sleep(0.05)
            slow.recv(connection.KERNEL_BUFFER_BYTES // 4)  # never all of the backlog
            stalled = [accepted_connection.is_stalled() for accepted_connection in connections]
            assert not stalled[0]
        assert stalled == [False, True]
        assert connections[0].unsent_bytes > 2 << 20  # the slow client is still far from the end
        for accepted_connection, client in zip(connections, (slow, silent), strict=True):
            accepted_connection.drop()
            client.close()
        await asyncio.sleep(0)
        # also works for a closed connection
        assert not any(accepted_connection.is_stalled() for accepted_connection in connections[:1])
        server.close()

    asyncio.run(scene())


def _connect() -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(os.fspath(Endpoint().socket))
    return client
