"""The worker with many runs and many clients: every message is short, and a client is given up only when it reads nothing."""

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
from softprompt.library.names import MAX_NAME_LENGTH as LONGEST_NAME
from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker import connection as clients
from softprompt.worker import messages
from softprompt.worker import protocol as p
from softprompt.worker.client import Client
from softprompt.worker.connection import Connection as Connection
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.run_folder import Run
from tests.worker_process import Home, left_runs

WIDE = "🦊"  # JSON takes 12 bytes for it
MOST_RUNS = 800  # told in one message, they would be longer than the longest line


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Path, list[str]]]:
    """One worker that a home with many paused runs was left to."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("crowd")
        patch.setenv("SOFTPROMPT_HOME", str(home))
        process = Home(patch.setenv)
        runs = left_runs([TrainJob(WIDE * 400, TrainConfig(long="cut"))] * MOST_RUNS, "paused")
        with process.client() as client:
            assert len(client.runs) == MOST_RUNS  # all of them have been looked at
        yield process, home, runs
        process.close()


@pytest.fixture
def runs(crowd: tuple[Home, Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    process, home, runs = crowd
    monkeypatch.setenv("SOFTPROMPT_HOME", str(home))
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(process.runtime))
    return runs


class Raw:
    """A client that reads when it likes."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(os.fspath(Endpoint().socket))
        self.lines = self.socket.makefile("rb")
        self.socket.sendall(p.encode(p.hello()))
        self.bytes = 0

    def hear(self) -> dict[str, Any]:
        line = self.lines.readline()
        self.bytes += len(line)
        assert len(line) < p.MAX_LINE_BYTES / 16
        return p.message_of(line)

    def hear_list(self) -> list[str]:
        """All that is told of until the list is whole; the ids in their order."""
        listed = []
        while True:
            message = self.hear()
            listed += [run["id"] for run in message.get("runs", [])]
            if message.get("more") is False:
                return listed


def test_a_long_list_comes_in_pages_that_any_reader_takes(runs: list[str]) -> None:
    raw = Raw()
    assert raw.hear_list() == runs
    assert raw.bytes > p.MAX_LINE_BYTES
    with Client(_connected()) as client:
        assert client.request(p.Status())["paused"] == MOST_RUNS  # before the pages have been read
        assert [run["id"] for run in client.runs] == runs
    raw.socket.close()


def test_what_changes_between_two_pages_is_told(runs: list[str]) -> None:
    """A client that waits after its first page knows, in the end, what one knows that comes later."""
    raw = Raw()
    message = raw.hear()
    while message["type"] != "snapshot":
        message = raw.hear()
    with Client(_connected()) as other:
        for run in (runs[0], runs[-2]):  # of the first page, and of the last one
            other.request(p.Move(run, before=runs[-1]))
        other.request(p.Drop(runs[-3]))
        other.request(p.Drop(runs[1]))
    known = {run["id"]: run for run in message["runs"]}
    while message.get("more", True):
        message = raw.hear()
        known |= {run["id"]: run for run in message.get("runs", [])}
        if message["type"] == "run":
            known[message["run"]["id"]] = message["run"]
        elif message["type"] == "dropped":
            known.pop(message["run"], None)
    with Client(_connected()) as later:
        now = {run["id"]: run for run in later.runs}
    assert runs[-3] not in known
    assert known == now
    runs[:] = now
    raw.socket.close()


def test_a_client_that_is_behind_is_told_the_latest_of_each_run_and_costs_no_more_memory(runs: list[str]) -> None:
    raw = Raw()
    raw.hear_list()
    moved, before = runs[:100], raw.bytes
    with Client(_connected()) as other:
        for turn in range(3 * len(moved)):  # 1.6 MB of news, of which the slow one reads a little now and then
            last = other.request(p.Move(moved[turn % len(moved)]))
            other._events.clear()
            if turn % 20 == 0:
                raw.hear()
    news: dict[str, dict[str, Any]] = {}
    while news.get(last["id"], {}).get("position") != last["position"]:
        message = raw.hear()
        news |= {message["run"]["id"]: message["run"]} if message["type"] == "run" else {}
    assert set(news) <= set(moved)
    assert raw.bytes - before < 2 * clients.ROOM + len(moved) * 6000
    runs[:] = runs[100:] + moved
    raw.socket.close()


def test_a_request_over_the_limit_is_answered_and_the_client_stays(runs: list[str]) -> None:
    raw = Raw()
    raw.hear_list()
    raw.socket.sendall(b'{"do":"submit","id":1,"job":"' + b"x" * (2 * p.MAX_LINE_BYTES) + b'"}\n')
    answer = raw.hear()
    assert (answer["type"], answer["kind"], answer["bad_input"]) == ("error", "MessageTooLong", True)
    raw.socket.sendall(p.encode(p.as_message(p.Status(), 2)))
    assert raw.hear()["result"]["paused"] == len(runs)
    raw.socket.close()
    with Client(_connected()) as client, pytest.raises(MessageTooLong, match="at most 4,194,304 are read"):
        client.request(p.Submit({"prompt": "x" * p.MAX_LINE_BYTES}))


def test_no_message_of_any_kind_is_near_the_longest_line() -> None:
    """The worst of every kind; what can be of any length is made as long as a hostile folder or request could."""
    endless = WIDE * 100_000
    job = TrainJob("fox", TrainConfig(steps=100_000), hard=HardConfig())
    result = {"tokens": 1, "readout_text": endless, "similarity": -0.12345678901234567, "knee": True}
    for name, value in {"prompt": endless, "model": endless, "device": endless, "sweep": tuple(range(1000))}.items():
        object.__setattr__(job, name, value)  # past its own checks
    record = Run(
        "f" * 16, job, "2026", error=endless, entry=endless, name=endless, results=(SweepResult(**result),) * 1000
    )
    number, figure = (1 << 63) - 1, -0.12345678901234567
    run = messages.shown(record)
    lines_of_runs = messages.RunLines()
    found: dict[str, list[bytes]] = {
        "hello": [p.encode(p.hello())],
        "making_way": [p.encode({"type": "making_way", "run": "f" * 16})],
        "snapshot": [lines_of_runs.page({"type": "snapshot", "ready": True}, [record], True)],
        "page": [lines_of_runs.page({"type": "page"}, [record], True) + b" " * messages.PAGE_BYTES],  # a run more than fills it
        "ready": [p.encode({"type": "ready"})],
        "loading": [p.encode({"type": "loading", "run": "f" * 16, "bytes": number, "of": number})],
        "run": [lines_of_runs.news(record)],
        "report": [p.encode({"type": "report", "run": "f" * 16, "step": number, "tokens": number, "loss": figure, "similarity": figure,
                             "text": WIDE * 64 * 20, "restarts": [figure] * 16, "sweep": [[number, figure, figure]] * 64})],
        "dropped": [p.encode({"type": "dropped", "run": "f" * 16})],
        "bye": [p.encode({"type": "bye", "again": False, "reason": "x" * messages.MAX_ERROR_LENGTH})],
        "error": [messages.error(number, ValueError(endless))],
        "reply": [
            messages.reply(number, run),
            messages.reply(number, {"run": "f" * 16, "points": [[number, *[figure] * (messages.FIGURES_OF_A_POINT - 1)]] * 2001}),
            messages.reply(number, {"kept": [{"tokens": number, "entry": "f" * 16, "name": WIDE * LONGEST_NAME}] * p.MAX_TEXTS}),
            messages.reply(number, {"models": [mini_model().as_dict() | {"name": "m" * 80, "refused": "r" * 80}] * 500, "loaded": ["m" * 80] * 2}),
            messages.reply(number, {"similarities": [[figure] * 64] * 64, "written_out": [{"text": WIDE * 2000}] * 64}),
            messages.reply(number, {"neighbours": [[{"token": WIDE * 8, "cosine": figure}] * 100] * 77}),
            messages.reply(number, {"text": endless * 9}),  # whatever else: it is refused in its place
        ],
    }  # fmt: skip
    assert found.keys() == p.MESSAGES.keys()
    for kind, lines in found.items():
        for line in lines:
            assert len(line) < p.MAX_LINE_BYTES / 2, kind
            assert p.message_of(line)["type"] in (kind, "error")


def test_a_client_that_reads_slowly_stays_and_one_that_reads_nothing_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "STALLED", 0.5)

    async def scene() -> None:
        served: asyncio.Queue[Connection] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await served.put(Connection(1, reader, writer))

        path = f"{tmp_path}/s"
        server = await asyncio.start_unix_server(serve, path)
        slow, silent = (socket.socket(socket.AF_UNIX) for _ in range(2))
        for client in (slow, silent):
            client.connect(path)
        connections = [await served.get() for _ in range(2)]
        for connection in connections:
            connection.send(b"x" * (3 << 20))  # more than any client could take at once
        began = time.monotonic()
        stalled = [False, False]
        while time.monotonic() - began < 3 * clients.STALLED:
            await asyncio.sleep(0.05)
            slow.recv(clients.IN_KERNEL // 4)  # never all that waits
            stalled = [connection.is_stalled() for connection in connections]
            assert not stalled[0]
        assert stalled == [False, True]
        assert connections[0].unread > 2 << 20  # the slow one is still far from the end
        for connection, client in zip(connections, (slow, silent), strict=True):
            connection.drop()
            client.close()
        await asyncio.sleep(0)
        assert not any(
            connection.is_stalled() for connection in connections[:1]
        )  # nor does it stumble over one that is gone
        server.close()

    asyncio.run(scene())


def _connected() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.fspath(Endpoint().socket))
    return connection
