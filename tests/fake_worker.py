"""A fake worker for tests of the interface: it speaks the protocol but does not train.

One test compares it with the real worker.
"""

from __future__ import annotations

import asyncio
import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from softprompt import Library
from softprompt.errors import RunNotFound, RunRefused, SoftPromptError
from softprompt.jobs.job import Job
from softprompt.system.devices import DeviceFacts
from softprompt.worker import protocol as p
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.hub_variables import fingerprint
from softprompt.worker.run_folder import Run, now, sweep_entry_id, sweep_entry_name
from tests.library_model import a_prompt


@dataclass
class FakeWorker:
    """A worker on `Endpoint().socket`. Runs make progress only when the test calls `begin`, `report` or `end`."""

    runs: dict[str, Run] = field(default_factory=dict)
    requests: list[p.Request] = field(default_factory=list)
    dropped: dict[str, Run] = field(default_factory=dict)
    devices: list[DeviceFacts] = field(
        default_factory=lambda: [DeviceFacts("cpu", "AMD EPYC, 2 cores", 16 * 10**9, 12 * 10**9, 0.87)]
    )
    hub: dict[str, str] = field(default_factory=fingerprint)  # of its Hugging Face variables
    begin_on_submit: bool = False  # start a submitted run before the reply
    page_size: int = 1000  # number of runs in a page
    may_send_pages: asyncio.Event = field(
        default_factory=asyncio.Event
    )  # clear it to hold back all pages but the first

    def __post_init__(self) -> None:
        self.may_send_pages.set()

    async def __aenter__(self) -> FakeWorker:
        endpoint = Endpoint()
        endpoint.prepare()
        self._writers: list[asyncio.StreamWriter] = []
        self._page_tasks: list[asyncio.Task[None]] = []
        endpoint.socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, os.fspath(endpoint.socket), limit=p.MAX_LINE_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.die()
        await asyncio.sleep(0)

    def die(self) -> None:
        """End like a killed process, as clients see it."""
        self._server.close()
        for task in self._page_tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        Endpoint().socket.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readline()
            self._write(writer, p.hello() | {"hub": self.hub})
            pending_ids = list(self.runs)
            self._write_page(writer, {"type": "snapshot", "ready": True}, pending_ids)
            self._writers.append(writer)
            self._page_tasks.append(asyncio.create_task(self._send_pages(writer, pending_ids)))
            while line := await reader.readline():
                message = p.decode(line)
                try:
                    request = p.parse_request(message)
                    self.requests.append(request)
                    self._write(writer, {"type": "reply", "id": message["id"], "result": self._handle_request(request)})
                except SoftPromptError as error:
                    reply = {
                        "type": "error",
                        "id": message["id"],
                        "kind": type(error).__name__,
                        "bad_input": error.bad_input,
                        "message": str(error),
                    }
                    self._write(writer, reply)
        writer.close()

    async def _send_pages(self, writer: asyncio.StreamWriter, pending_ids: list[str]) -> None:
        while pending_ids:
            await self.may_send_pages.wait()
            self._write_page(writer, {"type": "page"}, pending_ids)

    def _write_page(self, writer: asyncio.StreamWriter, head: dict[str, Any], pending_ids: list[str]) -> None:
        """Send the next runs, and remove them from `pending_ids`."""
        page = [self.runs[run_id].as_dict() for run_id in pending_ids[: self.page_size] if run_id in self.runs]
        del pending_ids[: self.page_size]
        self._write(writer, {**head, "runs": page, "more": bool(pending_ids)})

    def _write(self, writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
        writer.write(p.encode(message))

    def _broadcast(self, message: dict[str, Any]) -> None:
        for writer in self._writers:
            self._write(writer, message)

    def _handle_request(self, request: p.Request) -> dict[str, Any]:
        match request:
            case p.Submit():
                run = Run(
                    f"{len(self.runs) + 1:016x}", Job.from_dict(request.job), now(), position=len(self.runs) + 1.0
                )
                self.runs[run.id] = run
                reply = self._apply_event(run, {"event": "queued", "position": run.position})
                if self.begin_on_submit:
                    self.begin(run.id)
                return reply
            case p.Stop():
                run, reply = self.runs[request.run], None
                if run.state == "running":
                    reply = self._apply_event(run, {"event": "stopping"})
                ended = self._apply_event(self.runs[request.run], {"event": "stopped"})
                return reply or ended
            case p.Pause():
                return self._apply_event(self.runs[request.run], {"event": "paused"})
            case p.Resume() | p.Move():
                return self._apply_event(self.runs[request.run], {"event": "queued"})
            case p.Drop():
                run = self.dropped[request.run] = self.runs.pop(request.run)
                self._broadcast({"type": "dropped", "run": run.id})
                return run.as_dict()
            case p.Restore():
                if request.run not in self.dropped:
                    raise RunNotFound(f"no dropped run is named {request.run!r}")
                self.runs[request.run] = self.dropped.pop(request.run)
                self._broadcast({"type": "run", "run": self.runs[request.run].as_dict()})
                return self.runs[request.run].as_dict()
            case p.Keep():
                run = self.runs[request.run]
                if missing := set(request.tokens) - {result.tokens for result in run.results}:
                    raise RunRefused(f"run {run.id} has no soft prompt of {min(missing)} tokens")
                saved = []
                for k in request.tokens:
                    prompt = a_prompt(hard_prompt=run.job.prompt, name=sweep_entry_name(run.job.name or "swept", k))
                    entry = Library().save(prompt, id=sweep_entry_id(run.id, k))
                    saved.append({"tokens": k, "entry": entry.id, "name": entry.prompt.name})
                return {"kept": saved}
            case p.Curve():
                if request.run not in self.runs:
                    raise RunNotFound(f"no run is named {request.run!r}")
                return {"run": request.run, "points": self.runs[request.run].points}
            case p.Similarity():
                if any("[nobody]" in text for text in request.texts):
                    Library().find("nobody")  # raises EntryNotFound, as the real worker does
                is_composition = ["[" in text.replace("\\[", "") for text in request.texts]
                references = [
                    {
                        "text": text,
                        "tokens": 9,
                        "saved": 4,
                        "similarity": 0.987,
                        "floor": 0.912,
                        "mixed": "near" if "+" in text else "",
                    }
                    if is_composed
                    else None
                    for text, is_composed in zip(request.texts, is_composition, strict=True)
                ]
                similarities = [[1.0 if a is b else 0.5 for b in request.texts] for a in request.texts]
                return {
                    "model": request.model,
                    "room": 75,
                    "tokens": [5] * len(is_composition),
                    "similarities": similarities,
                    "written_out": references,
                }
            case p.Neighbours():
                return {
                    "model": "mini",
                    "readout_text": "fox snow",
                    "readout_similarity": 0.5,
                    "neighbours": [[{"token": "fox", "cosine": 0.4}, {"token": "foxes", "cosine": 0.3}]],
                }
            case p.Devices():
                training = [run.job.device for run in self.runs.values() if run.state == "running"]
                names = [self.devices[0].name if name == "auto" else name for name in training]
                return {"devices": [device.as_dict() for device in self.devices], "training": names}
        return {}

    def _apply_event(self, run: Run, event: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[run.id] = run.apply({"at": now(), **event})
        self._broadcast({"type": "run", "run": run.as_dict()})
        return run.as_dict()

    # for tests: make runs progress

    def begin(self, run_id: str) -> None:
        self._apply_event(self.runs[run_id], {"event": "began", "step": 0, "tokens": 0})

    def load(self, run_id: str, stage: str, received: int = 0, of: int = 0) -> None:
        """Report a stage of loading the run's model."""
        self._broadcast({"type": "loading", "run": run_id, "stage": stage, "bytes": received, "of": of})

    def report(self, run_id: str, step: int, loss: float = 0.5, restarts: tuple[float, ...] = ()) -> None:
        self._broadcast_report(run_id, _figures(step, loss) | ({"restarts": list(restarts)} if restarts else {}))

    def report_search(self, run_id: str, step: int, text: str, similarity: float) -> None:
        """Report the progress of a search for a hard readout."""
        search = {"text": text, "hard_similarity": similarity if text else None, "hard_step": step, "hard_steps": 100}
        run = self.runs[run_id]
        training = {key: value for key, value in run.latest.items() if key not in ("at", "event")}
        progress = _figures(step, 1 - similarity) | {"steps": 100, "tokens": 0}
        self._broadcast_report(run_id, (training if run.job.kind == "train" else progress) | search)

    def report_sweep(self, run_id: str, step: int, results: list[tuple[int, float | None, float | None]]) -> None:
        """Report the progress of a sweep: number of tokens, similarity and composed similarity of each row."""
        tokens, similarity, _ = results[-1]
        rows = [list(result) for result in results]
        losses = [None if alone is None else 1 - alone for _, alone, _ in results][:16]
        self._broadcast_report(
            run_id, {**_figures(step, 1 - (similarity or 0)), "tokens": tokens, "restarts": losses, "sweep": rows}
        )

    def _broadcast_report(self, run_id: str, figures: dict[str, Any]) -> None:
        self.runs[run_id] = self.runs[run_id].apply({"at": now(), "event": "report", **figures})
        self._broadcast({"type": "report", "run": run_id, **figures})

    def end(
        self,
        run_id: str,
        error: str = "",
        error_kind: str = "",
        results: list[dict[str, Any]] | None = None,
        **changes: Any,
    ) -> None:
        """End a run, as failed if there is an `error`. Save its entry, or its hard readout in the entry of the job."""
        run = self.runs[run_id]
        if error:
            failed = {"event": "failed", "error": error, "error_kind": error_kind}
            self._apply_event(run, failed | {"latest": dict(run.latest)})
            return
        if run.job.kind == "sweep":
            self._apply_event(run, {"event": "done", "results": results, "latest": dict(run.latest)})
            return
        if run.job.kind == "hard":
            entry = Library().set_hard_readout(run.job.entry, changes["hard"])
            self._apply_event(
                run, {"event": "done", "entry": entry.id, "name": entry.prompt.name, "latest": dict(run.latest)}
            )
            return
        entry = Library().save(a_prompt(hard_prompt=run.job.prompt, name=run.job.name, **changes), id=run_id)
        self._apply_event(
            run, {"event": "done", "entry": entry.id, "name": entry.prompt.name, "latest": dict(run.latest)}
        )


def _figures(step: int, loss: float) -> dict[str, Any]:
    return {
        "step": step, "tokens": 3, "loss": loss, "similarity": 1 - loss, "best_loss": loss, "best_similarity": 1 - loss,
        "seconds": step / 100, "steps_per_second": 100.0,
    }  # fmt: skip


def sweep_result(k: int, knee: int = 3) -> dict[str, Any]:
    """Return a plausible result of a sweep for `k` soft tokens."""
    near = math.exp(-0.9 * k)
    return {
        "tokens": k, "similarity": 0.9998 - 0.2 * near, "composed": 0.998 - 0.25 * math.sqrt(near),
        "worst": 0.996 - 0.3 * math.sqrt(near), "floor": 0.928,
        "readout_text": " ".join(["sunrise", "landscape", "terrace", "lake", "hills"][:k]), "readout_similarity": 0.8,
        "knee": k == knee,
    }  # fmt: skip
