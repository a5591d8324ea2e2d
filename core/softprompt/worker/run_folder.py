"""A run is a folder: what was asked for (`spec.json`), what happened (`events.jsonl`), and where it can go on (`checkpoint`).

The events are appended by one process at a time and never changed. A line that a crash tore is passed over; `began` at a step
makes void what was reported beyond that step. An event says under which lease it was written: one of a lower number than one before
comes from a process that has lost the run, and counts for nothing. Whatever else the files hold, reading them ends soon, with a `Run`
or the reason why there is none.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from softprompt.errors import HomeError, RunNotFound, RunUnreadable, SoftPromptError
from softprompt.jobs.job import AnyJob, HardReadoutJob, Job, SweepJob
from softprompt.library.names import MAX_NAME_LENGTH
from softprompt.prompts.downsample import downsample
from softprompt.prompts.sweep_result import SweepResult
from softprompt.system.files import open_file, read_file, retry_without_reserve, sync_folder, write_new
from softprompt.system.filesystems import set_mode, sync
from softprompt.system.paths import VARIABLE, data_folder, make_folder
from softprompt.worker import events as e
from softprompt.worker.events import MAX_LINE_BYTES, WHOLE, BadEvent
from softprompt.worker.leases import is_free, newest, take_lease
from softprompt.worker.summary import ENDED, RunSummary

FORMAT = 1
SPEC, EVENTS, CHECKPOINT, START = "spec.json", "events.jsonl", "checkpoint", "start.safetensors"
FIRST_LEASE = 1
TAIL = 8192  # bytes; an event that ends a run is among the last of its file
MAX_SPEC_BYTES = 16 << 20  # the longest line of the protocol is a quarter of it
MAX_EVENTS_BYTES = 1 << 30  # the longest trainings, 100,000 steps for each of 75 numbers of tokens, write 200 MB
MAX_FILE_BYTES = 8 << 30  # of a checkpoint or an entry
MAX_POINTS = 4096  # of a curve in memory; it is thinned to half of them when they are reached
MAX_REASON = 300  # characters
_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)

Point = tuple[Any, ...]  # step, loss, similarity, and the losses of all restarts where there are several


@dataclass(frozen=True)
class Run:
    """A run as its folder tells it. `state`: queued, running, paused, done, stopped (by its user) or failed."""

    id: str
    job: AnyJob
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
    results: tuple[SweepResult, ...] = ()  # of a sweep: what each number of tokens came to
    latest: Mapping[str, Any] = field(default_factory=dict)  # the last report
    points: tuple[Point, ...] = ()
    lease: int = 0  # the highest number that an event bore

    @property
    def is_over(self) -> bool:
        return self.state in ENDED

    def apply(self, event: Mapping[str, Any]) -> Run:
        """The run after one more event. Raises BadEvent where the event decides about it and cannot be read."""
        lease = event.get("lease")
        if type(lease) is int and 0 < lease < self.lease:
            return self
        checked = e.check_event(event)
        if checked is None:
            return self
        run = self if checked.lease <= self.lease else replace(self, lease=checked.lease)
        values = checked.values
        match checked.kind:
            case "queued" | "paused" as state:
                position = values.get("position", run.position)
                return replace(run, state=state, position=position, error="", ended="", stopping=False, pausing=False)
            case "moved":
                return replace(run, position=values["position"])
            case "stopping":
                return replace(run, stopping=True, pausing=False)
            case "pausing":
                return replace(run, pausing=True)
            case "began":
                points = tuple(point for point in run.points if point[0] <= values["step"])
                return replace(run, state="running", began=run.began or checked.at, points=points)
            case "report":
                return replace(run, latest=values, points=run._points_with(values))
            case state:
                return replace(
                    run,
                    state=state,
                    ended=checked.at,
                    error=values.get("error", ""),
                    began=values.get("began", run.began),
                    entry=values.get("entry", ""),
                    name=values.get("name", ""),
                    results=values.get("results", ()),
                    latest=values.get("latest") or run.latest,
                )

    def _points_with(self, report: Mapping[str, Any]) -> tuple[Point, ...]:
        # "auto" goes on to the next number of tokens with a curve of its own
        points = self.points if report["tokens"] == self.latest.get("tokens", report["tokens"]) else ()
        is_search = (
            "hard_step" in report and self.job.kind == "train"
        )  # the training is over, and these are its last figures
        loss, similarity = report.get("loss"), report.get("similarity")
        if loss is None or similarity is None or is_search:
            return points
        points = (*points, (report["step"], loss, similarity, *report.get("restarts", ())))
        return points if len(points) < MAX_POINTS else tuple(downsample(points, MAX_POINTS // 2 + 1))

    def left(self) -> Run:
        """Its training was left as it was, by its worker's death or on purpose: its turn comes again, unless it was to be paused."""
        if self.state != "running":
            return self
        return replace(self, state="paused" if self.pausing else "queued", pausing=False)

    def summary(self) -> RunSummary:
        """The run as clients and scripts see it."""
        job, latest = self.job, self.latest
        return RunSummary(
            self.id, self.state, prompt=job.prompt, model=job.model, device=job.device, tokens=job.config.tokens,
            steps=latest.get("steps") or job.config.steps, name=self.name or job.name, position=self.position, created=self.created, began=self.began,
            kind=job.kind, sweep=job.sweep if isinstance(job, SweepJob) else (), results=self.results,
            of_entry=job.entry if isinstance(job, HardReadoutJob) else "", hard=job.hard_config is not None,
            batch="" if job.batch is None else hashlib.sha256(repr(job.batch).encode("utf-8", "backslashreplace")).hexdigest()[:16],
            rows=job.config.restarts, ended=self.ended, stopping=self.stopping, pausing=self.pausing, error=self.error, entry=self.entry,
            step=latest.get("step"), loss=latest.get("loss"), similarity=latest.get("similarity"), best_loss=latest.get("best_loss"),
            best_similarity=latest.get("best_similarity"), seconds=latest.get("seconds"), steps_per_second=latest.get("steps_per_second"),
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Plain values for clients and scripts."""
        return self.summary().as_dict()


@dataclass(frozen=True)
class UnreadableRun:
    """A run folder that cannot be read, and why. It can be dropped, and nothing else."""

    id: str
    reason: str
    state: ClassVar[str] = "unreadable"
    position: ClassVar[float] = 0.0
    is_over: ClassVar[bool] = False

    def summary(self) -> RunSummary:
        return RunSummary(self.id, self.state, kind="", error=self.reason)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the fields of a readable run."""
        return self.summary().as_dict()


AnyRun = Run | UnreadableRun


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @classmethod
    def create(cls, runs: Path, job: AnyJob, position: float, start: bytes = b"") -> tuple[RunFolder, Run]:
        """Makes a run durably: under a hidden name first, so that a run is there whole or not at all. Raises HomeError."""
        make_folder(runs)
        final = runs / secrets.token_hex(8)
        making = runs / f".{final.name}.partial"
        created = now()
        try:
            retry_without_reserve(runs, lambda: making.mkdir(mode=0o700))
            set_mode(making, 0o700)
            folder = cls(making)
            if start:
                write_new(making / START, start)
            folder.append({"event": "queued", "position": position}, FIRST_LEASE)
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
        return cls(final), Run(final.name, job, created, position=position, lease=FIRST_LEASE)

    def append(self, event: dict[str, Any], lease: int = 0, durable: bool = True) -> dict[str, Any]:
        """Adds an event, with its time and the number of the writer's lease, in one write; returns it as it was written."""
        event = self.stamped(event, lease)
        line = json.dumps(event, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        retry_without_reserve(self.path, lambda: self._append(line, durable))
        return event

    def _append(self, line: bytes, durable: bool) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path / EVENTS, flags, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "it is no regular file", str(self.path / EVENTS))
            set_mode(descriptor, 0o600)
            if status.st_size and os.pread(descriptor, 1, status.st_size - 1) != b"\n":
                line = b"\n" + line  # a torn line keeps to itself
            if os.write(descriptor, line) < len(line):  # the disk is full: what is there of the line is torn
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                sync(descriptor)
        finally:
            os.close(descriptor)

    def stamped(self, event: dict[str, Any], lease: int = 0) -> dict[str, Any]:
        return {"at": now(), **({"lease": lease} if lease else {}), **event}

    def read(self) -> Run:
        """The run as far as it is. Raises RunUnreadable, and RunNotFound where there is no such folder."""
        with self._reasons(EVENTS):
            return _replayed(self._specified(), self._events())

    def glance(self) -> Run:
        """As `read`, but only the end of the events is read where that tells that the run is over; there is no curve then."""
        with self._reasons(EVENTS), open_file(f"{self.path}/{EVENTS}", MAX_EVENTS_BYTES) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read(TAIL).split(b"\n")
        if size <= TAIL:
            with self._reasons(EVENTS):
                return _replayed(self._specified(), lines)
        with suppress(RunUnreadable, OSError):
            run = _replayed(self._specified(), lines)
            # what a process that lost the run wrote is told from what counts by the events before, which were not read
            if run.is_over and (not run.lease or run.lease == newest(self.path)):
                return replace(run, points=())
        return self.read()

    def _specified(self) -> Run:
        if not stat.S_ISDIR(os.lstat(self.path).st_mode):
            raise RunUnreadable("it is no folder")
        with self._reasons(SPEC):
            try:
                spec = e.decode(read_file(f"{self.path}/{SPEC}", MAX_SPEC_BYTES))
                if spec["format"] != FORMAT:
                    raise ValueError(
                        f"its format is {str(spec['format'])[:20]}, and this version reads {FORMAT}. Update softprompt-tui"
                    )
                return Run(self.id, Job.from_dict(spec["job"]), e.time(spec["created"]))
            except KeyError as error:
                raise ValueError(f"{error} is missing") from error
            except TypeError as error:
                raise ValueError("it is no object") from error

    def _events(self) -> Iterator[bytes]:
        """Its lines; one that is longer than an event can be is left out."""
        with io.BufferedReader(open_file(f"{self.path}/{EVENTS}", MAX_EVENTS_BYTES)) as file:
            whole = True
            while line := file.readline(MAX_LINE_BYTES):
                begins, whole = whole, line.endswith(b"\n")
                if begins and (whole or len(line) < MAX_LINE_BYTES):
                    yield line

    @contextmanager
    def _reasons(self, name: str) -> Iterator[None]:
        """Whatever is wrong with a file is said as RunUnreadable."""
        try:
            yield
        except (RunNotFound, RunUnreadable):
            raise
        except FileNotFoundError as error:
            if not os.path.lexists(self.path):
                raise RunNotFound(f"run {self.id} is gone") from error
            raise RunUnreadable(f"{name} is missing") from error
        except OSError as error:
            raise RunUnreadable(f"{name}: {_why(error)}"[:MAX_REASON]) from error
        except RecursionError as error:
            raise RunUnreadable(f"{name}: its values are nested too deeply") from error
        except UnicodeDecodeError as error:
            raise RunUnreadable(f"{name}: it is not UTF-8") from error
        except (ValueError, OverflowError, SoftPromptError) as error:
            raise RunUnreadable(f"{name}: {error}"[:MAX_REASON]) from error

    def bytes_of(self, name: str) -> bytes:
        return read_file(self.path / name, MAX_FILE_BYTES)

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
        if stat.S_ISDIR(gone.lstat().st_mode):
            shutil.rmtree(gone, ignore_errors=True)
        else:
            gone.unlink(missing_ok=True)


def _replayed(run: Run, lines: Iterable[bytes]) -> Run:
    """The run after the events in these lines. Raises RunUnreadable where what they say of its state is not known."""
    problem = "no event says that it was queued"
    for line in lines:
        event = e.read_line(line) if line else None
        if event is None:
            continue
        try:
            before, run = run, run.apply(event)
        except BadEvent as error:
            problem = str(error)
        else:
            if event.get("event") in WHOLE and run is not before:
                problem = ""
    if problem:
        raise RunUnreadable(f"{EVENTS}: {problem}"[:MAX_REASON])
    return run


def _why(error: OSError) -> str:
    links_and_kinds = {
        errno.ELOOP: "it is a symbolic link",
        errno.ENXIO: "it is no regular file",
        errno.ENOTDIR: "it is not in a folder",
    }
    return links_and_kinds.get(error.errno or 0) or error.strerror or str(error)


def swept_file(tokens: int) -> str:
    """The file of a sweep's soft prompt of so many tokens."""
    return f"tokens-{tokens}.safetensors"


def swept_id(run: str, tokens: int) -> str:
    """The id under which it is kept."""
    return hashlib.sha256(f"{run} {tokens} tokens".encode()).hexdigest()[: len(run)]


def swept_name(stem: str, tokens: int) -> str:
    """The name under which it is kept, where that is free."""
    return f"{stem[: MAX_NAME_LENGTH - 8]}-k{tokens}"


def runs_folder(home: Path | None = None) -> Path:
    return (home or data_folder()) / "runs"


def folders(runs: Path) -> list[RunFolder]:
    """Every run's folder, and what else lies there under a run's id; raises HomeError where the folder of them cannot be read."""
    try:
        with os.scandir(runs) as entries:
            return [RunFolder(runs / entry.name) for entry in entries if _ID.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HomeError(f"{runs} cannot be read: {error.strerror}. Set {VARIABLE} to a folder of yours") from error


def look(folder: RunFolder) -> AnyRun:
    """The run in a folder at a glance, or why it cannot be read. Raises RunNotFound where there is no such folder."""
    try:
        return folder.glance()
    except RunUnreadable as error:
        return UnreadableRun(folder.id, str(error))


def all_runs(runs: Path) -> list[AnyRun]:
    """All runs: those to come in their order, those that cannot be read, then the ended ones, the latest first."""
    known: list[AnyRun] = []
    for folder in folders(runs):
        with suppress(RunNotFound):
            run = look(folder)
            known.append(
                run.left() if isinstance(run, Run) and run.state == "running" and is_free(folder.path) else run
            )
    return in_order(known)


_FIRST = {"running": 0, "queued": 1, "paused": 2, UnreadableRun.state: 3}


def in_order(runs: Iterable[AnyRun]) -> list[AnyRun]:
    going: list[AnyRun] = []
    over: list[Run] = []
    for run in runs:
        if isinstance(run, Run) and run.is_over:
            over.append(run)
        else:
            going.append(run)
    going.sort(key=lambda run: (_FIRST[run.state], run.position, run.id))
    return [*going, *sorted(over, key=lambda run: (run.ended, run.id), reverse=True)]


def named(runs: Sequence[AnyRun], run: str) -> AnyRun:
    """The one whose id begins so; raises RunNotFound."""
    matches = [known for known in runs if run and known.id.startswith(run.lower())]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunNotFound(f"{run!r} begins the ids of several runs: {', '.join(known.id for known in matches[:8])}")
    latest = ", ".join(known.id for known in runs[:4])
    raise RunNotFound(
        f"no run's id begins with {run[:40]!r}. " + (f"The first of all: {latest}" if latest else "There are no runs")
    )


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
