"""A worker that speaks the protocol and trains nothing: for tests of the interface. One test holds it against the real one."""

from __future__ import annotations

import asyncio
import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from softprompt import Library
from softprompt.errors import RunRefused, SoftPromptError
from softprompt.jobs.job import Job
from softprompt.worker import protocol as p
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.run_folder import Run, now, swept_id, swept_name
from tests.library_model import a_prompt


@dataclass
class FakeWorker:
    """Serves `Place().socket`. A submitted run is running at once, and goes on as the test tells it: `report`, `end`."""

    records: dict[str, Run] = field(default_factory=dict)
    asked: list[p.Request] = field(default_factory=list)
    begins_at_once: bool = False  # a submitted run, before the submission is answered
    page: int = 1000  # runs in a page of the list
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)  # the list, after its first page

    def __post_init__(self) -> None:
        self.may_go_on.set()

    async def __aenter__(self) -> FakeWorker:
        place = Endpoint()
        place.prepare()
        self._writers: list[asyncio.StreamWriter] = []
        self._rests: list[asyncio.Task[None]] = []  # of lists
        place.socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, os.fspath(place.socket), limit=p.MAX_LINE_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.die()
        await asyncio.sleep(0)

    def die(self) -> None:
        """As a kill would look from the other end."""
        self._server.close()
        for rest in self._rests:
            rest.cancel()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        Endpoint().socket.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readline()
            self._write(writer, p.hello())
            listed = list(self.records)
            self._write_page(writer, {"type": "snapshot", "ready": True}, listed)
            self._writers.append(writer)
            self._rests.append(asyncio.create_task(self._send_rest(writer, listed)))
            while line := await reader.readline():
                message = p.decode(line)
                try:
                    request = p.request_of(message)
                    self.asked.append(request)
                    self._write(writer, {"type": "reply", "id": message["id"], "result": self._do(request)})
                except SoftPromptError as error:
                    said = {
                        "type": "error",
                        "id": message["id"],
                        "kind": type(error).__name__,
                        "bad_input": error.bad_input,
                        "message": str(error),
                    }
                    self._write(writer, said)
        writer.close()

    async def _send_rest(self, writer: asyncio.StreamWriter, listed: list[str]) -> None:
        while listed:
            await self.may_go_on.wait()
            self._write_page(writer, {"type": "page"}, listed)

    def _write_page(self, writer: asyncio.StreamWriter, head: dict[str, Any], listed: list[str]) -> None:
        """Takes the next runs off the list."""
        page = [self.records[run].as_dict() for run in listed[: self.page] if run in self.records]
        del listed[: self.page]
        self._write(writer, {**head, "runs": page, "more": bool(listed)})

    def _write(self, writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
        writer.write(p.encode(message))

    def _tell(self, message: dict[str, Any]) -> None:
        for writer in self._writers:
            self._write(writer, message)

    def _do(self, request: p.Request) -> dict[str, Any]:
        match request:
            case p.Submit():
                record = Run(
                    f"{len(self.records) + 1:016x}", Job.from_dict(request.job), now(), position=len(self.records) + 1.0
                )
                self.records[record.id] = record
                answer = self._event(record, {"event": "queued", "position": record.position})
                if self.begins_at_once:
                    self.begin(record.id)
                return answer
            case p.Stop():
                return self._event(self.records[request.run], {"event": "stopped"})
            case p.Pause():
                return self._event(self.records[request.run], {"event": "paused"})
            case p.Resume() | p.Move():
                return self._event(self.records[request.run], {"event": "queued"})
            case p.Drop():
                record = self.records.pop(request.run)
                self._tell({"type": "dropped", "run": record.id})
                return record.as_dict()
            case p.Keep():
                record = self.records[request.run]
                if missing := set(request.tokens) - {result.tokens for result in record.results}:
                    raise RunRefused(f"run {record.id} has no soft prompt of {min(missing)} tokens")
                kept = []
                for k in request.tokens:
                    made = a_prompt(hard_prompt=record.job.prompt, name=swept_name(record.job.name or "swept", k))
                    entry = Library().save(made, swept_id(record.id, k))
                    kept.append({"tokens": k, "entry": entry.id, "name": entry.prompt.name})
                return {"kept": kept}
            case p.Curve():
                return {"run": request.run, "points": self.records[request.run].points}
            case p.Similarity():
                mixed = ["[" in text.replace("\\[", "") for text in request.texts]
                written = [
                    {
                        "text": text,
                        "tokens": 9,
                        "saved": 4,
                        "similarity": 0.987,
                        "floor": 0.912,
                        "mixed": "near" if "+" in text else "",
                    }
                    if one
                    else None
                    for text, one in zip(request.texts, mixed, strict=True)
                ]
                table = [[1.0 if a is b else 0.5 for b in request.texts] for a in request.texts]
                return {
                    "model": request.model,
                    "room": 75,
                    "tokens": [5] * len(mixed),
                    "similarities": table,
                    "written_out": written,
                }
            case p.Neighbours():
                return {
                    "model": "mini",
                    "readout_text": "fox snow",
                    "readout_similarity": 0.5,
                    "neighbours": [[{"token": "fox", "cosine": 0.4}, {"token": "foxes", "cosine": 0.3}]],
                }
        return {}

    def _event(self, record: Run, event: dict[str, Any]) -> dict[str, Any]:
        record = self.records[record.id] = record.apply({"at": now(), **event})
        self._tell({"type": "run", "run": record.as_dict()})
        return record.as_dict()

    # what the test lets happen

    def begin(self, run: str) -> None:
        self._event(self.records[run], {"event": "began", "step": 0, "tokens": 0})

    def report(self, run: str, step: int, loss: float = 0.5, restarts: tuple[float, ...] = ()) -> None:
        self._report(run, _figures(step, loss) | ({"restarts": list(restarts)} if restarts else {}))

    def search(self, run: str, step: int, text: str, similarity: float) -> None:
        """Reports how far the search for a hard readout is."""
        found = {"text": text, "hard_similarity": similarity if text else None, "hard_step": step, "hard_steps": 100}
        record = self.records[run]
        trained = {key: value for key, value in record.latest.items() if key not in ("at", "event")}
        own = _figures(step, 1 - similarity) | {"steps": 100, "tokens": 0}
        self._report(run, (trained if record.job.kind == "train" else own) | found)

    def sweep(self, run: str, step: int, results: list[tuple[int, float | None, float | None]]) -> None:
        """Reports how far a sweep is: numbers of tokens, similarities alone, and in the contexts of the training."""
        tokens, similarity, _ = results[-1]
        told = [list(result) for result in results]
        losses = [None if alone is None else 1 - alone for _, alone, _ in results][:16]
        self._report(
            run, {**_figures(step, 1 - (similarity or 0)), "tokens": tokens, "restarts": losses, "sweep": told}
        )

    def _report(self, run: str, figures: dict[str, Any]) -> None:
        self.records[run] = self.records[run].apply({"at": now(), "event": "report", **figures})
        self._tell({"type": "report", "run": run, **figures})

    def end(self, run: str, error: str = "", results: list[dict[str, Any]] | None = None, **changes: Any) -> None:
        """Ends a run: saves an entry under its id, a hard readout with the entry that it is of, or fails with `error`."""
        record = self.records[run]
        if error:
            self._event(record, {"event": "failed", "error": error})
            return
        if record.job.kind == "sweep":
            self._event(record, {"event": "done", "results": results, "latest": dict(record.latest)})
            return
        if record.job.kind == "hard":
            entry = Library().harden(record.job.entry, changes["hard"])
            self._event(
                record, {"event": "done", "entry": entry.id, "name": entry.prompt.name, "latest": dict(record.latest)}
            )
            return
        entry = Library().save(a_prompt(hard_prompt=record.job.prompt, name=record.job.name, **changes), run)
        self._event(
            record, {"event": "done", "entry": entry.id, "name": entry.prompt.name, "latest": dict(record.latest)}
        )


def _figures(step: int, loss: float) -> dict[str, Any]:
    return {
        "step": step, "tokens": 3, "loss": loss, "similarity": 1 - loss, "best_loss": loss, "best_similarity": 1 - loss, "seconds": step / 100, "steps_per_second": 100.0,
    }  # fmt: skip


def swept(k: int, knee: int = 3) -> dict[str, Any]:
    """What a sweep might tell of so many soft tokens."""
    near = math.exp(-0.9 * k)
    return {
        "tokens": k, "similarity": 0.9998 - 0.2 * near, "composed": 0.998 - 0.25 * math.sqrt(near), "worst": 0.996 - 0.3 * math.sqrt(near), "floor": 0.928,
        "readout_text": " ".join(["sunrise", "landscape", "terrace", "lake", "hills"][:k]), "readout_similarity": 0.8, "knee": k == knee,
    }  # fmt: skip
