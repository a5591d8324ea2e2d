"""A run is a folder with its job (`spec.json`), its history (`events.jsonl`) and its progress (`checkpoint`).

Only one process at a time appends events; events are never modified. Readers skip lines left incomplete by a crash. A
`began` event at step n invalidates reports from later steps. Each event carries its writer's lease number; once a
higher number has appeared, events with a lower one are ignored, because their writer no longer owns the run. Reading
always terminates quickly, whatever the files contain: it yields a `Run` or the reason why the run is unreadable.
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
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from softprompt.errors import HomeError, RunNotFound, RunUnreadable, SoftPromptError
from softprompt.jobs.identity import training_digest
from softprompt.jobs.job import AnyJob, HardReadoutJob, Job, SweepJob
from softprompt.library.names import MAX_NAME_LENGTH
from softprompt.prompts.downsample import downsample
from softprompt.prompts.sweep_result import SweepResult
from softprompt.system.files import (
    open_file,
    read_file,
    replace_file,
    retry_after_freeing_cache,
    sync_folder,
    write_new,
)
from softprompt.system.filesystems import set_mode, sync
from softprompt.system.paths import HOME_VARIABLE, data_folder, make_folder
from softprompt.worker import events
from softprompt.worker.events import MAX_LINE_BYTES, STATE_EVENTS, BadEvent
from softprompt.worker.leases import is_free, newest_lease, take_lease
from softprompt.worker.summary import ENDED, RunSummary

FORMAT = 1
SPEC, EVENTS, CHECKPOINT, START = "spec.json", "events.jsonl", "checkpoint", "start.safetensors"
TARGET_PREFIX = "target-"  # of files with what an objective computes before the first step
FIRST_LEASE = 1
DROPPED_SECONDS, MAX_DROPPED = 86_400.0, 50  # how long, and how many dropped runs can be restored
TAIL_BYTES = 8192  # the event that ends a run is within this many bytes of the end of the file
MAX_SPEC_BYTES = 16 << 20  # four times the longest line of the protocol
MAX_EVENTS_BYTES = 1 << 30  # the longest runs, with 100,000 steps for each of 75 token counts, write 200 MB
MAX_FILE_BYTES = 8 << 30  # for a checkpoint or an entry
MAX_POINTS = 4096  # per curve in memory; a curve that reaches this is halved
MAX_REASON_LENGTH = 300  # characters
_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_DROPPED = re.compile(r"\.([0-9a-f]{16})\.dropped", re.ASCII)

Point = tuple[Any, ...]  # step, loss, similarity, and the loss of each restart if there are several


@dataclass(frozen=True)
class Run:
    """A run as read from its folder. `state` is queued, running, paused, done, stopped (by the user) or failed."""

    id: str
    job: AnyJob
    created: str
    state: str = "queued"
    position: float = 0.0
    began: str = ""
    ended: str = ""
    error: str = ""
    error_kind: str = ""  # name of the error's type, or "" if unknown
    entry: str = ""  # id of the saved soft prompt
    name: str = ""  # name of the saved soft prompt
    stopping: bool = False
    pausing: bool = False
    results: tuple[SweepResult, ...] = ()  # of a sweep, one per token count
    latest: Mapping[str, Any] = field(default_factory=dict)  # the latest report
    points: tuple[Point, ...] = ()
    lease: int = 0  # the highest lease number in the events

    @property
    def is_over(self) -> bool:
        return self.state in ENDED

    def apply(self, event: Mapping[str, Any]) -> Run:
        """Return the run updated with an event. Raises BadEvent if an invalid value affects the run's state."""
        lease = event.get("lease")
        if type(lease) is int and 0 < lease < self.lease:
            return self
        checked = events.check_event(event)
        if checked is None:
            return self
        run = self if checked.lease <= self.lease else replace(self, lease=checked.lease)
        values = checked.values
        match checked.kind:
            case "queued" | "paused" as state:
                position = values.get("position", run.position)
                return replace(
                    run, state=state, position=position, error="", error_kind="", ended="", stopping=False,
                    pausing=False,
                )  # fmt: skip
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
                return replace(run, latest=values, points=run._add_point(values))
            case state:
                return replace(
                    run,
                    state=state,
                    ended=checked.at,
                    error=values.get("error", ""),
                    error_kind=values.get("error_kind", ""),
                    began=values.get("began", run.began),
                    entry=values.get("entry", ""),
                    name=values.get("name", ""),
                    results=values.get("results", ()),
                    latest=values.get("latest") or run.latest,
                )

    def _add_point(self, report: Mapping[str, Any]) -> tuple[Point, ...]:
        # with tokens="auto", each token count starts a new curve
        points = self.points if report["tokens"] == self.latest.get("tokens", report["tokens"]) else ()
        # during a hard-readout search that follows training, reports repeat the last training figures
        is_search = "hard_step" in report and self.job.kind == "train"
        loss, similarity = report.get("loss"), report.get("similarity")
        if loss is None or similarity is None or is_search:
            return points
        points = (*points, (report["step"], loss, similarity, *report.get("restarts", ())))
        return points if len(points) < MAX_POINTS else tuple(downsample(points, MAX_POINTS // 2 + 1))

    def requeued(self) -> Run:
        """Return a running run whose worker died or left it: queued again, or paused if it was pausing."""
        if self.state != "running":
            return self
        return replace(self, state="paused" if self.pausing else "queued", pausing=False)

    def summary(self) -> RunSummary:
        """Return the run in the form that clients and scripts use."""
        job, latest = self.job, self.latest
        return RunSummary(
            self.id, self.state, prompt=job.prompt, model=job.model, device=job.device, tokens=job.config.tokens,
            steps=latest.get("steps") or job.config.steps, name=self.name or job.name, position=self.position,
            created=self.created, began=self.began,
            kind=job.kind, sweep=job.sweep if isinstance(job, SweepJob) else (), results=self.results,
            of_entry=job.entry if isinstance(job, HardReadoutJob) else "", hard=job.hard_config is not None,
            batch=""
            if job.batch_key is None
            else hashlib.sha256(repr(job.batch_key).encode("utf-8", "backslashreplace")).hexdigest()[:16],
            objective=job.config.objective, digest=training_digest(job), rows=job.config.restarts,
            ended=self.ended, stopping=self.stopping, pausing=self.pausing,
            error=self.error, error_kind=self.error_kind, entry=self.entry,
            step=latest.get("step"), loss=latest.get("loss"), similarity=latest.get("similarity"),
            best_loss=latest.get("best_loss"), best_similarity=latest.get("best_similarity"),
            seconds=latest.get("seconds"), steps_per_second=latest.get("steps_per_second"),
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return the values for clients and scripts, ready for JSON."""
        return self.summary().as_dict()


@dataclass(frozen=True)
class UnreadableRun:
    """A run whose folder is unreadable, and the reason. Clients can only drop it."""

    id: str
    reason: str
    state: ClassVar[str] = "unreadable"
    position: ClassVar[float] = 0.0
    is_over: ClassVar[bool] = False

    def summary(self) -> RunSummary:
        return RunSummary(self.id, self.state, kind="", error=self.reason)

    def as_dict(self) -> dict[str, Any]:
        """Return the same fields as for a readable run."""
        return self.summary().as_dict()


AnyRun = Run | UnreadableRun


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @classmethod
    def create(cls, runs: Path, job: AnyJob, position: float, start: bytes = b"") -> tuple[RunFolder, Run]:
        """Create a run and sync it to disk. Its folder is hidden until complete, so no half-written run appears.

        Raises:
            HomeError: the folder cannot be written to.
        """
        make_folder(runs)
        final = runs / secrets.token_hex(8)
        partial = runs / f".{final.name}.partial"
        created = now()
        try:
            retry_after_freeing_cache(runs, lambda: partial.mkdir(mode=0o700))
            set_mode(partial, 0o700)
            folder = cls(partial)
            if start:
                write_new(partial / START, start)
            folder.append({"event": "queued", "position": position}, FIRST_LEASE)
            take_lease(partial)
            write_new(partial / SPEC, json.dumps({"format": FORMAT, "created": created, "job": job.as_dict()}).encode())
            partial.rename(final)
            sync_folder(runs)
        except OSError as error:
            for path in (partial, final):
                shutil.rmtree(path, ignore_errors=True)
            raise HomeError(
                f"cannot write {runs}: {error.strerror}. Nothing was queued. "
                f"Free some space, or set {HOME_VARIABLE} to another folder."
            ) from error
        return cls(final), Run(final.name, job, created, position=position, lease=FIRST_LEASE)

    def append(self, event: dict[str, Any], lease: int = 0, durable: bool = True) -> dict[str, Any]:
        """Append an event in a single write, after adding the time and the writer's lease. Return the written event."""
        event = self.stamp(event, lease)
        line = json.dumps(event, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        retry_after_freeing_cache(self.path, lambda: self._append(line, durable))
        return event

    def _append(self, line: bytes, durable: bool) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path / EVENTS, flags, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "it is not a regular file", str(self.path / EVENTS))
            set_mode(descriptor, 0o600)
            if status.st_size and os.pread(descriptor, 1, status.st_size - 1) != b"\n":
                line = b"\n" + line  # start a new line after an incomplete one
            if os.write(descriptor, line) < len(line):  # the disk is full, and the line is incomplete
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                sync(descriptor)
        finally:
            os.close(descriptor)

    def stamp(self, event: dict[str, Any], lease: int = 0) -> dict[str, Any]:
        return {"at": now(), **({"lease": lease} if lease else {}), **event}

    def read(self) -> Run:
        """Read the run with its curve. Raises RunUnreadable, or RunNotFound if the folder does not exist."""
        with self._explain_errors(EVENTS):
            return _replay(self._read_spec(), self._event_lines())

    def peek(self) -> Run:
        """Read the run like `read`, but only its last events if these show that the run is over.

        The result then has no curve, unless the whole file was short enough to read.
        """
        with self._explain_errors(EVENTS), open_file(f"{self.path}/{EVENTS}", MAX_EVENTS_BYTES) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).split(b"\n")
        if size <= TAIL_BYTES:
            with self._explain_errors(EVENTS):
                return _replay(self._read_spec(), lines)
        with suppress(RunUnreadable, OSError):
            run = _replay(self._read_spec(), lines)
            # a lower lease number may come from a process that lost the run; only earlier events can show that
            if run.is_over and (not run.lease or run.lease == newest_lease(self.path)):
                return replace(run, points=())
        return self.read()

    def _read_spec(self) -> Run:
        if not stat.S_ISDIR(os.lstat(self.path).st_mode):
            raise RunUnreadable("it is not a folder")
        with self._explain_errors(SPEC):
            try:
                spec = events.decode(read_file(f"{self.path}/{SPEC}", MAX_SPEC_BYTES))
                if spec["format"] != FORMAT:
                    raise ValueError(
                        f"its format is {str(spec['format'])[:20]}; this version supports {FORMAT}. "
                        "Update softprompt-tui."
                    )
                return Run(self.id, Job.from_dict(spec["job"]), events.check_time(spec["created"]))
            except KeyError as error:
                raise ValueError(f"{error} is missing") from error
            except TypeError as error:
                raise ValueError("it is not an object") from error

    def _event_lines(self) -> Iterator[bytes]:
        """Yield the lines of the events file, skipping lines that are too long."""
        with io.BufferedReader(open_file(f"{self.path}/{EVENTS}", MAX_EVENTS_BYTES)) as file:
            is_complete = True
            while line := file.readline(MAX_LINE_BYTES):
                is_start, is_complete = is_complete, line.endswith(b"\n")
                if is_start and (is_complete or len(line) < MAX_LINE_BYTES):
                    yield line

    @contextmanager
    def _explain_errors(self, name: str) -> Iterator[None]:
        """Convert all errors from reading a file to RunUnreadable, or RunNotFound if the folder does not exist."""
        try:
            yield
        except (RunNotFound, RunUnreadable):
            raise
        except FileNotFoundError as error:
            if not os.path.lexists(self.path):
                raise RunNotFound(f"run {self.id} no longer exists") from error
            raise RunUnreadable(f"{name} is missing") from error
        except OSError as error:
            raise RunUnreadable(f"{name}: {_describe_error(error)}"[:MAX_REASON_LENGTH]) from error
        except RecursionError as error:
            raise RunUnreadable(f"{name}: its values are nested too deeply") from error
        except UnicodeDecodeError as error:
            raise RunUnreadable(f"{name}: it is not UTF-8") from error
        except (ValueError, OverflowError, SoftPromptError) as error:
            raise RunUnreadable(f"{name}: {error}"[:MAX_REASON_LENGTH]) from error

    def read_bytes(self, name: str) -> bytes:
        return read_file(self.path / name, MAX_FILE_BYTES)

    def read_start(self) -> bytes:
        """Return the packed entry that the run starts from, or b""."""
        try:
            return self.read_bytes(START)
        except FileNotFoundError:
            return b""

    def remove_progress(self) -> None:
        """Delete the files that are only needed while the run is unfinished."""
        for path in (self.path / CHECKPOINT, self.path / START, *self.path.glob(f"{TARGET_PREFIX}*")):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def read_target(self, name: str) -> bytes:
        """Return what `write_target` kept under a name. Raises OSError."""
        return self.read_bytes(f"{TARGET_PREFIX}{name}")

    def write_target(self, name: str, data: bytes) -> None:
        """Keep something that the run's objective computed, such as the teacher's answers. Raises OSError."""
        replace_file(self.path / f"{TARGET_PREFIX}{name}", data)

    @property
    def dropped_path(self) -> Path:
        """The run's folder after `drop`. Readers of the runs folder ignore this name."""
        return self.path.with_name(f".{self.id}.dropped")

    def drop(self) -> None:
        """Hide the run until `restore` brings it back or `purge_dropped` deletes it."""
        os.utime(self.path, follow_symlinks=False)  # first: if the process is killed in between, nothing is dropped
        self.path.rename(self.dropped_path)
        sync_folder(self.path.parent)

    def restore(self) -> None:
        """Bring a dropped run back. Raises RunNotFound if another process has just restored or deleted it."""
        try:
            self.dropped_path.rename(self.path)
        except FileNotFoundError as error:
            raise _no_dropped_run(self.id) from error
        sync_folder(self.path.parent)


def find_dropped(runs: Path, prefix: str) -> RunFolder:
    """Return the only dropped run whose id starts with `prefix`. The folder has its path from before the drop.

    Raises:
        RunNotFound: there is no such run, or there are several.
    """
    matches = [run for run in list_dropped(runs) if prefix and run.startswith(prefix.lower())]
    if len(matches) > 1:
        raise RunNotFound(f"several dropped runs start with {prefix!r}: {', '.join(matches[:8])}")
    if not matches:
        raise _no_dropped_run(prefix[:40])
    return RunFolder(runs / matches[0])


def list_dropped(runs: Path) -> list[str]:
    """Return the ids of the dropped runs."""
    try:
        with os.scandir(runs) as entries:
            return [match[1] for entry in entries if (match := _DROPPED.fullmatch(entry.name))]
    except OSError:
        return []


def _no_dropped_run(name: str) -> RunNotFound:
    return RunNotFound(
        f"no dropped run is named {name!r}. The last {MAX_DROPPED} dropped runs can be restored for "
        f"{DROPPED_SECONDS / 3600:.0f} hours. After that, they are deleted."
    )


def purge_dropped(runs: Path, keep: int, max_age: float) -> None:
    """Permanently delete dropped runs older than `max_age` seconds, and all but the `keep` latest of the others."""
    dropped = []
    for run_id in list_dropped(runs):
        path = RunFolder(runs / run_id).dropped_path
        with suppress(OSError):  # restored or purged by another process in the meantime
            dropped.append((path.lstat().st_mtime, path))
    for number, (changed, path) in enumerate(sorted(dropped, reverse=True)):
        if number >= keep or time.time() - changed > max_age:
            hidden = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
            with suppress(OSError):  # renamed first, so that no half-deleted run is restored
                path.rename(hidden)
                if stat.S_ISDIR(hidden.lstat().st_mode):
                    shutil.rmtree(hidden, ignore_errors=True)
                else:
                    hidden.unlink(missing_ok=True)


def _replay(run: Run, lines: Iterable[bytes]) -> Run:
    """Apply the events in `lines` to a run. Raises RunUnreadable if its state remains unknown."""
    problem = "no valid event sets the run's state"
    for line in lines:
        event = events.parse_line(line) if line else None
        if event is None:
            continue
        try:
            before, run = run, run.apply(event)
        except BadEvent as error:
            problem = str(error)
        else:
            if event.get("event") in STATE_EVENTS and run is not before:
                problem = ""
    if problem:
        raise RunUnreadable(f"{EVENTS}: {problem}"[:MAX_REASON_LENGTH])
    return run


def _describe_error(error: OSError) -> str:
    reasons = {
        errno.ELOOP: "it is a symbolic link",
        errno.ENXIO: "it is not a regular file",
        errno.ENOTDIR: "it is not in a folder",
    }
    return reasons.get(error.errno or 0) or error.strerror or str(error)


def sweep_file_name(tokens: int) -> str:
    """Return the name of the file that holds a sweep's soft prompt with `tokens` tokens."""
    return f"tokens-{tokens}.safetensors"


def sweep_entry_id(run: str, tokens: int) -> str:
    """Return the library id of a sweep's soft prompt. The id is fixed, so that nothing is saved twice."""
    return hashlib.sha256(f"{run} {tokens} tokens".encode()).hexdigest()[: len(run)]


def sweep_entry_name(stem: str, tokens: int) -> str:
    """Return the preferred library name of a sweep's soft prompt."""
    return f"{stem[: MAX_NAME_LENGTH - 8]}-k{tokens}"


def runs_folder(home: Path | None = None) -> Path:
    return (home or data_folder()) / "runs"


def list_folders(runs: Path) -> list[RunFolder]:
    """List the run folders: everything in `runs` whose name is a run id. Raises HomeError if `runs` is unreadable."""
    try:
        with os.scandir(runs) as entries:
            return [RunFolder(runs / entry.name) for entry in entries if _ID.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HomeError(f"cannot read {runs}: {error.strerror}. Set {HOME_VARIABLE} to another folder.") from error


def load_run(folder: RunFolder) -> AnyRun:
    """Read a run with `peek`, or return an UnreadableRun. Raises RunNotFound."""
    try:
        return folder.peek()
    except RunUnreadable as error:
        return UnreadableRun(folder.id, str(error))


def list_runs(runs: Path) -> list[AnyRun]:
    """List all runs: unfinished runs in queue order, then unreadable runs, then ended runs, the latest first."""
    all_runs: list[AnyRun] = []
    for folder in list_folders(runs):
        with suppress(RunNotFound):
            run = load_run(folder)
            all_runs.append(
                run.requeued() if isinstance(run, Run) and run.state == "running" and is_free(folder.path) else run
            )
    return sort_runs(all_runs)


_STATE_ORDER = {"running": 0, "queued": 1, "paused": 2, UnreadableRun.state: 3}


def sort_runs(runs: Iterable[AnyRun]) -> list[AnyRun]:
    unfinished: list[AnyRun] = []
    ended: list[Run] = []
    for run in runs:
        if isinstance(run, Run) and run.is_over:
            ended.append(run)
        else:
            unfinished.append(run)
    unfinished.sort(key=lambda run: (_STATE_ORDER[run.state], run.position, run.id))
    return [*unfinished, *sorted(ended, key=lambda run: (run.ended, run.id), reverse=True)]


def find_run(runs: Sequence[AnyRun], prefix: str) -> AnyRun:
    """Return the run whose id starts with `prefix`. Raises RunNotFound unless there is exactly one."""
    matches = [run for run in runs if prefix and run.id.startswith(prefix.lower())]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunNotFound(f"several run ids start with {prefix!r}: {', '.join(run.id for run in matches[:8])}")
    first_ids = ", ".join(run.id for run in runs[:4])
    raise RunNotFound(
        f"no run id starts with {prefix[:40]!r}. "
        + (f"The first runs are {first_ids}." if first_ids else "There are no runs.")
    )


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
