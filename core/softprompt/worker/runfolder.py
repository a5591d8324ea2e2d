"""A run is a folder: what was asked for (`spec.json`), what happened (`events.jsonl`), and where it can go on (`checkpoint`).

The events are appended by one process at a time and never changed. A line that a crash tore is passed over; `began` at a step
makes void what was reported beyond that step.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from softprompt.errors import HomeError, RunNotFound
from softprompt.files import sync_folder, with_room, write_new
from softprompt.home import VARIABLE, data_folder, make_folder
from softprompt.job import Job
from softprompt.library.names import LONGEST
from softprompt.mounts import set_mode, sync
from softprompt.worker.leases import is_free, take_lease

FORMAT = 1
SPEC, EVENTS, CHECKPOINT, START = "spec.json", "events.jsonl", "checkpoint", "start.safetensors"
ENDED = ("done", "stopped", "failed")
TAIL = 8192  # bytes; an event that ends a run is among the last of its file

Point = tuple[Any, ...]  # step, loss, similarity, and the losses of all restarts where there are several


@dataclass
class Record:
    """A run as its folder tells it. `state`: queued, running, paused, done, stopped (by its user) or failed."""

    id: str
    job: Job
    created: str
    state: str = "queued"
    position: float = 0.0
    began: str = ""
    ended: str = ""
    error: str = ""
    entry: str = ""  # the saved soft prompt's id and name
    name: str = ""
    stopping: bool = False
    pausing: bool = False
    results: list[dict[str, Any]] = field(default_factory=list)  # of a sweep: what each number of tokens came to
    latest: dict[str, Any] = field(default_factory=dict)  # the last report
    points: list[Point] = field(default_factory=list)

    def apply(self, event: dict[str, Any]) -> None:
        """What one event changes."""
        match event["event"]:
            case "queued" | "paused" as state:
                self.state, self.error, self.ended, self.stopping, self.pausing = state, "", "", False, False
                self.position = float(event.get("position", self.position))
            case "moved":
                self.position = float(event["position"])
            case "stopping":
                self.stopping, self.pausing = True, False
            case "pausing":
                self.pausing = True
            case "began":
                self.state, self.began = "running", self.began or event["at"]
                self.points = [point for point in self.points if point[0] <= event["step"]]
            case "report":
                if event["tokens"] != self.latest.get("tokens", event["tokens"]):
                    self.points = []  # "auto" goes on to the next number of tokens
                self.latest = event
                looks = "hard_step" in event and self.job.kind == "train"  # the training is over, and these are its last figures
                if event["loss"] is not None and event["similarity"] is not None and not looks:
                    self.points.append((event["step"], event["loss"], event["similarity"], *event.get("restarts", ())))
            case state if state in ENDED:
                self.state, self.ended, self.error = state, event["at"], event.get("error", "")
                self.began = event.get("began", self.began)
                self.entry, self.name = event.get("entry", ""), event.get("name", "")
                self.results = event.get("results", [])
                self.latest = event.get("latest") or self.latest

    def left(self) -> None:
        """Its training was left as it was, by its worker's death or on purpose: its turn comes again, unless it was to be paused."""
        if self.state == "running":
            self.state, self.pausing = "paused" if self.pausing else "queued", False

    def as_dict(self) -> dict[str, Any]:
        """Plain values for clients and scripts."""
        job = self.job
        return {
            "id": self.id, "state": self.state, "prompt": job.prompt, "model": job.model, "device": job.device, "tokens": job.config.tokens,
            "steps": self.latest.get("steps") or job.config.steps, "name": self.name or job.name, "position": self.position, "created": self.created, "began": self.began,
            "kind": job.kind, "sweep": list(job.sweep), "results": self.results, "of_entry": job.entry, "hard": job.hard is not None,
            "batch": "" if job.batch is None else hashlib.sha256(repr(job.batch).encode()).hexdigest()[:16], "rows": job.config.restarts,
            "ended": self.ended, "stopping": self.stopping, "pausing": self.pausing, "error": self.error, "entry": self.entry,
            **{key: self.latest.get(key) for key in ("step", "loss", "similarity", "best_loss", "best_similarity", "seconds", "steps_per_second")},
        }  # fmt: skip


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @classmethod
    def create(cls, runs: Path, job: Job, position: float, start: bytes = b"") -> tuple[RunFolder, Record]:
        """Makes a run durably: under a hidden name first, so that a run is there whole or not at all. Raises HomeError."""
        make_folder(runs)
        final = runs / secrets.token_hex(8)
        making = runs / f".{final.name}.partial"
        created = now()
        try:
            with_room(runs, lambda: making.mkdir(mode=0o700))
            set_mode(making, 0o700)
            folder = cls(making)
            if start:
                write_new(making / START, start)
            folder.append({"event": "queued", "position": position})
            take_lease(making)
            write_new(making / SPEC, json.dumps({"format": FORMAT, "created": created, "job": job.as_dict()}).encode())
            making.rename(final)
            sync_folder(runs)
        except OSError as error:
            for left in (making, final):
                shutil.rmtree(left, ignore_errors=True)
            raise HomeError(
                f"{runs} cannot be written to ({error.strerror}); nothing was queued. Free it, or set {VARIABLE}"
            ) from error
        return cls(final), Record(final.name, job, created, position=position)

    def append(self, event: dict[str, Any], durable: bool = True) -> dict[str, Any]:
        """Adds an event, with its time, in one write; returns it as it was written."""
        event = self.stamped(event)
        line = json.dumps(event, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        with_room(self.path, lambda: self._append(line, durable))
        return event

    def _append(self, line: bytes, durable: bool) -> None:
        descriptor = os.open(self.path / EVENTS, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            set_mode(descriptor, 0o600)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # a torn line keeps to itself
            if os.write(descriptor, line) < len(line):  # the disk is full: what is there of the line is torn
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                sync(descriptor)
        finally:
            os.close(descriptor)

    def stamped(self, event: dict[str, Any]) -> dict[str, Any]:
        return {"at": now(), **event}

    def read(self) -> Record:
        """The run as far as it is; raises RunNotFound for a folder that is none."""
        record = self._specified()
        for event in _events(self.bytes_of(EVENTS)):
            with suppress(KeyError, TypeError, ValueError):
                record.apply(event)
        return record

    def glance(self) -> Record:
        """As `read`, but only the end of the events is read where that tells that the run is over; there is no curve then."""
        record = self._specified()
        with suppress(OSError), (self.path / EVENTS).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            for event in _events(file.read(TAIL)):
                with suppress(KeyError, TypeError, ValueError):
                    record.apply(event)
        return record if record.state in ENDED else self.read()

    def _specified(self) -> Record:
        try:
            spec = json.loads(self.bytes_of(SPEC))
            if spec["format"] != FORMAT:
                raise RunNotFound(f"{self.path} has format {spec['format']}, this version reads {FORMAT}: update softprompt-tui")
            return Record(self.id, Job.from_dict(spec["job"]), str(spec["created"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunNotFound(f"{self.path} is no run ({type(error).__name__}: {error})") from error

    def bytes_of(self, name: str) -> bytes:
        descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def start(self) -> bytes:
        """The entry that the run begins from, or nothing."""
        try:
            return self.bytes_of(START)
        except FileNotFoundError:
            return b""

    def forget_progress(self) -> None:
        """Removes what only an unfinished run needs."""
        for name in (CHECKPOINT, START):
            with suppress(OSError):
                (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the run; renamed first, so that it is there whole or not at all."""
        gone = self.path.with_name(f".{self.id}.{secrets.token_hex(4)}.partial")
        self.path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def swept_file(tokens: int) -> str:
    """The file of a sweep's soft prompt of so many tokens."""
    return f"tokens-{tokens}.safetensors"


def swept_id(run: str, tokens: int) -> str:
    """The id under which it is kept."""
    return hashlib.sha256(f"{run} {tokens} tokens".encode()).hexdigest()[: len(run)]


def swept_name(stem: str, tokens: int) -> str:
    """The name under which it is kept, where that is free."""
    return f"{stem[: LONGEST - 8]}-k{tokens}"


def runs_folder(home: Path | None = None) -> Path:
    return (home or data_folder()) / "runs"


def folders(runs: Path) -> list[RunFolder]:
    """Every run's folder; raises HomeError where the folder of them cannot be read."""
    try:
        return [RunFolder(path) for path in runs.iterdir() if not path.name.startswith(".") and not path.is_symlink()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HomeError(f"{runs} cannot be read: {error.strerror}. Set {VARIABLE} to a folder of yours") from error


def records(runs: Path) -> list[Record]:
    """All runs, as far as they can be read: those to come in their order, then the ended ones, the latest first."""
    found = []
    for folder in folders(runs):
        with suppress(RunNotFound):
            record = folder.glance()
            if record.state == "running" and is_free(folder.path):
                record.left()
            found.append(record)
    return in_order(found)


def in_order(found: list[Record]) -> list[Record]:
    going = [record for record in found if record.state not in ENDED]
    over = [record for record in found if record.state in ENDED]
    first = {"running": 0, "queued": 1, "paused": 2}
    going.sort(key=lambda record: (first[record.state], record.position, record.id))
    return going + sorted(over, key=lambda record: (record.ended, record.id), reverse=True)


def named(found: list[Record], run: str) -> Record:
    """The one whose id begins so; raises RunNotFound."""
    matches = [record for record in found if run and record.id.startswith(run.lower())]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunNotFound(f"{run!r} begins the ids of several runs: {', '.join(record.id for record in matches[:8])}")
    latest = ", ".join(record.id for record in found[:4])
    raise RunNotFound(
        f"no run's id begins with {run[:40]!r}. " + (f"The first of all: {latest}" if latest else "There are no runs")
    )


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _events(raw: bytes) -> Iterator[dict[str, Any]]:
    for line in raw.split(b"\n"):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # torn, or the beginning cut off
        if isinstance(event, dict) and "event" in event and "at" in event:
            yield event
