"""The worker's queue of runs. It chooses the next runs to train and changes runs on request.

Most methods wait for the disk, so all of them are called from a single thread. Other threads receive runs, which are
immutable, through `on_change`. A waiting run needs no lease; the queue takes one to train or change the run.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from softprompt.errors import HomeError, RunNotFound, RunRefused
from softprompt.jobs.job import AnyJob
from softprompt.library import Library
from softprompt.library.names import name_from_prompt
from softprompt.system.files import NO_SPACE_ERRNOS
from softprompt.worker.active_run import ActiveRun, StopRequest
from softprompt.worker.batching import next_batch_size
from softprompt.worker.events import MAX_NUMBER
from softprompt.worker.leases import (
    TAKEOVER_SECONDS,
    Lease,
    is_free,
    newest_lease,
    read_holder,
    seconds_since_heartbeat,
    take_lease,
    write_heartbeat,
)
from softprompt.worker.run_folder import (
    DROPPED_SECONDS,
    EVENTS,
    FIRST_LEASE,
    MAX_DROPPED,
    AnyRun,
    Run,
    RunFolder,
    UnreadableRun,
    find_dropped,
    find_run,
    list_folders,
    load_run,
    purge_dropped,
    runs_folder,
    sort_runs,
    sweep_entry_id,
    sweep_entry_name,
    sweep_file_name,
)

log = logging.getLogger(__name__)
STALE_SECONDS = 3600.0  # age at which half-written folders are deleted
PIECE_SECONDS = 0.05  # duration of one piece of a scan; the queue handles requests between pieces
# new runs go after all positions below this; higher positions, from damaged folders, must not use up the numbers
MAX_POSITION = MAX_NUMBER / 2
MIN_GAP = 1e-6  # minimum distance between positions; a smaller gap is widened before a run moves into it

OnChange = Callable[[Collection[AnyRun], Collection[str]], None]


class Queue:
    """The runs of a data folder: those that this process trains, and those of other hosts, which it only shows.

    Args:
        on_change: called with the changed runs and the ids of deleted runs.
    """

    def __init__(self, home: Path, on_change: OnChange) -> None:
        self.folder = runs_folder(home)
        self.runs: dict[str, AnyRun] = {}
        self.active: dict[str, ActiveRun] = {}  # the trainer's runs, by id
        self._on_change = on_change
        self._local: set[str] = set()  # unfinished runs that this process owns or may take
        self._leases: dict[str, Lease] = {}
        self._signatures: dict[str, tuple[int, ...]] = {}  # signature of each run's folder when it was last read
        self._last_position = 0.0  # the highest position so far

    # reading folders

    def scan(self) -> Iterator[None]:
        """Read all folders that have changed, yielding every `PIECE_SECONDS`.

        Raises HomeError if the folders cannot be listed.
        """
        run_folders = list_folders(self.folder)
        ids_on_disk = {folder.id for folder in run_folders}
        if deleted := [run_id for run_id in self.runs if run_id not in ids_on_disk and run_id not in self.active]:
            self._forget(deleted)
        began, changed = time.monotonic(), list[AnyRun]()
        for folder in run_folders:
            with suppress(OSError):
                changed += self._reload_if_changed(folder)
            if time.monotonic() - began > PIECE_SECONDS:
                self._on_change(changed, ())
                yield
                began, changed = time.monotonic(), []
        self._on_change(changed, ())
        self._remove_stale_folders()

    def _reload_if_changed(self, folder: RunFolder) -> list[AnyRun]:
        """Read a folder if it has changed. Return a list with its run, or [] if the run is the same as before."""
        known, signature = self.runs.get(folder.id), _folder_signature(folder.path)
        is_settled = isinstance(known, Run) and (known.is_over or folder.id in self._local)
        if folder.id in self.active or (is_settled and self._signatures.get(folder.id) == signature):
            return []
        with suppress(RunNotFound):
            run = self._store_from_disk(folder, load_run(folder))
            self._signatures[folder.id] = signature
            return [run] if run != known else []
        return []

    def _store_from_disk(self, folder: RunFolder, run: AnyRun) -> AnyRun:
        """Store a run that was read from disk. Return the stored run, which is queued again if its worker is dead."""
        self._local.discard(run.id)
        if isinstance(run, Run):
            self._note_position(run.position)
            if not run.is_over and (self._holds_lease(run.id) or is_free(folder.path)):
                self._local.add(run.id)
                run = run.requeued()
        self.runs[run.id] = run
        return run

    def _holds_lease(self, run_id: str) -> bool:
        lease = self._leases.get(run_id)
        if lease is None or lease.is_current():
            return lease is not None
        del self._leases[run_id]
        return False

    def _forget(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self.runs.pop(run_id, None)
            self._leases.pop(run_id, None)
            self._signatures.pop(run_id, None)
            self._local.discard(run_id)
        self._on_change((), run_ids)

    def _remove_stale_folders(self) -> None:
        if not self.folder.is_dir():
            return
        purge_dropped(self.folder, MAX_DROPPED, DROPPED_SECONDS)
        for path in self.folder.glob(".*.partial"):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(path)

    def find(self, prefix: str) -> AnyRun:
        """Return the run whose id starts with `prefix`. Raises RunNotFound."""
        return self.runs[prefix] if prefix in self.runs else find_run(sort_runs(self.runs.values()), prefix)

    # training

    def take_next_batch(self) -> list[ActiveRun]:
        """Take the next run for training, along with the following runs that can share its batch at little extra cost.

        Return [] while another run is active. No run joins a batch later, so a run never slows down midway.
        """
        batch: list[Run] = []
        while not self.active:
            queued = [run for run in self._waiting_runs() if run.state == "queued"]
            queued.sort(key=lambda run: (not run.stopping, run.position, run.id))
            batch = queued[: next_batch_size([(run.job.batch_key, run.job.config.restarts) for run in queued])]
            batch = [self._try_ensure_lease(run) or run for run in batch]
            if all(run.id in self._local and self.runs[run.id] is run and run.state == "queued" for run in batch):
                break
        for run in batch:
            self.active[run.id] = ActiveRun(
                run, self._folder(run), self._leases[run.id], "stop" if run.stopping else ""
            )
        return list(self.active.values()) if batch else []

    def _try_ensure_lease(self, run: Run) -> Run | None:
        """Take a waiting run's lease. Return the run, or None if it no longer belongs to this host."""
        try:
            return self._ensure_lease(run)
        except (RunRefused, RunNotFound, OSError) as error:
            log.warning("cannot train run %s on this host: %s", run.id, error)
            self._local.discard(run.id)
            return None

    def put_back(self) -> None:
        """Put the active runs back in the queue. Call this only if the trainer has not received them."""
        self.active.clear()

    def record_event(self, run_id: str, event: dict[str, Any]) -> Run | None:
        """Apply an event that the trainer has written. Return the updated run, or None if the run was deleted."""
        run = self.runs.get(run_id)
        if not isinstance(run, Run):
            return None
        self.runs[run_id] = run = run.apply(event)
        if event["event"] != "report":
            self._on_change([run], ())
        return run

    def handle_end(self, run_id: str, event: dict[str, Any]) -> None:
        """Apply the last event of an active run. An empty `event` leaves the run to another worker."""
        self.active.pop(run_id, None)
        run = self.runs.get(run_id)
        if not isinstance(run, Run):
            return
        with suppress(OSError):
            if not self._holds_lease(run_id):  # another process owns the run, so only the folder is up to date
                self._refresh(run_id)
                return
        run = (run.apply(event) if event else run).requeued()
        self._store(run)

    def renew_leases(self) -> None:
        """Write the heartbeat, and stop training runs that were deleted or taken over by other hosts."""
        try:
            if self.folder.is_dir():
                write_heartbeat(self.folder)
        except OSError as error:
            log.warning("cannot write the heartbeat for other hosts: %s", error)
        for run_id, active in self.active.items():
            try:
                if active.lease.is_current():
                    active.lease.renew()
                    continue
            except OSError as error:
                log.warning("run %s: cannot renew its lease: %s", run_id, error)
                if not isinstance(error, FileNotFoundError):
                    continue
            active.stop_request = "leave"

    # clients' requests

    def submit(self, job: AnyJob, start: bytes) -> Run:
        """Create a run and sync it to disk. `start` is the packed entry to start from, or b"". Raises HomeError."""
        try:
            folder, run = RunFolder.create(self.folder, job, self._last_position + 1, start)
        except HomeError as error:
            if getattr(error.__cause__, "errno", 0) not in NO_SPACE_ERRNOS:
                raise
            purge_dropped(self.folder, keep=0, max_age=0.0)  # they may have filled the disk
            folder, run = RunFolder.create(self.folder, job, self._last_position + 1, start)
        self._last_position = run.position
        self._leases[run.id] = Lease(folder.path, FIRST_LEASE)
        self._local.add(run.id)
        self._store(run)
        return run

    def stop(self, prefix: str) -> Run:
        run = self._find_changeable(prefix)
        if run.is_over:
            raise RunRefused(f"run {run.id} is already {run.state}")
        if not self._request_stop(run, "stop") and not run.began:  # there is no progress to save
            run = self._write_event(run, {"event": "stopped"})
            self._folder(run).remove_progress()
            return run
        if run.state == "paused":
            run = self._write_event(run, {"event": "queued"})
        return self._write_event(run, {"event": "stopping"})

    def pause(self, prefix: str) -> Run:
        run = self._find_changeable(prefix)
        if run.state not in ("queued", "running") or run.stopping:
            raise RunRefused(
                f"run {run.id} is {'stopping' if run.stopping else run.state}: "
                "only queued or running runs can be paused"
            )
        if run.id not in self.active:
            return self._write_event(run, {"event": "paused"})
        run = self._write_event(run, {"event": "pausing"})
        self._request_stop(run, "pause")
        return run

    def resume(self, prefix: str) -> Run:
        run = self._find_readable(prefix)
        if run.id not in self._local and not run.is_over:
            return self._take_over(run)
        if run.state not in ("paused", "failed"):
            raise RunRefused(f"run {run.id} is {run.state}: only paused or failed runs can be resumed")
        if run.state == "paused":
            return self._write_event(self._ensure_lease(run), {"event": "queued"})
        run = self._ensure_lease(run, from_any_host=True)
        return self._write_event(run, {"event": "queued", "position": self._last_position + 1})

    def move(self, prefix: str, before: str) -> Run:
        """Move a waiting run in front of run `before`, or to the end of the queue if `before` is empty."""
        run = self._find_changeable(prefix)
        if not self._is_waiting(run):
            raise RunRefused(f"run {run.id} is {self._describe_state(run)}: only waiting runs can be moved")
        if not before:
            return self._write_event(run, {"event": "moved", "position": self._last_position + 1})
        other = self._find_changeable(before)
        if not self._is_waiting(other):
            raise RunRefused(
                f"run {other.id} is {self._describe_state(other)}: a run can only be moved ahead of a waiting run"
            )
        if other.id == run.id:
            return run
        waiting = [waiting_run for waiting_run in self._waiting_runs() if waiting_run.id != run.id]
        for neighbour, position in _spread_positions(waiting, waiting.index(other)):
            self._write_event(
                run if neighbour is None else self._ensure_lease(neighbour), {"event": "moved", "position": position}
            )
        return self._find_readable(run.id)

    def drop(self, prefix: str) -> AnyRun:
        """Hide a run that is not training on any host. `restore` brings it back until it is purged."""
        run = self.find(prefix)
        if run.id in self.active:
            raise RunRefused(f"run {run.id} is training: stop or pause it first")
        if isinstance(run, Run):
            self._ensure_lease(run, from_any_host=run.is_over)
        else:
            self._check_abandoned(run)
        self._folder(run).drop()
        self._forget([run.id])
        purge_dropped(self.folder, MAX_DROPPED, DROPPED_SECONDS)
        return run

    def restore(self, prefix: str) -> AnyRun:
        """Bring a dropped run back in the state that it had. A queued run takes its old place in the queue."""
        folder = find_dropped(self.folder, prefix)
        folder.restore()
        run = self._store_from_disk(folder, load_run(folder))
        self._on_change([run], ())
        return run

    # leases

    def _find_readable(self, prefix: str) -> Run:
        run = self.find(prefix)
        if isinstance(run, UnreadableRun):
            raise RunRefused(
                f"run {run.id} is unreadable ({run.reason}): run `softprompt-tui runs drop {run.id[:8]}` to delete it"
            )
        return run

    def _find_changeable(self, prefix: str) -> Run:
        """Find a run, and take its lease unless the run is over. Raises RunRefused if it belongs to another host."""
        run = self._find_readable(prefix)
        return run if run.is_over or run.id in self.active else self._ensure_lease(run)

    def _ensure_lease(self, run: Run, from_any_host: bool = False) -> Run:
        """Take a run's lease unless this process has it already. Return the run as its last holder left it.

        Args:
            from_any_host: take the run even if it belongs to another host. Only allowed for runs that are over.

        Raises:
            RunRefused: the run belongs to another host, or another process was faster.
        """
        if self._holds_lease(run.id):
            return run
        folder = self._folder(run)
        number = newest_lease(folder.path)
        if not from_any_host and not is_free(folder.path, number):
            self._refresh(run.id)
            raise RunRefused(
                f"run {run.id} belongs to {_describe_holder(folder.path)}: change it there, or resume it here "
                "once that host has gone silent"
            )
        return self._take_lease(run, number, run.is_over)

    def _take_lease(self, run: Run, number: int, expected_over: bool) -> Run:
        """Take the lease that follows `number`, then read the run again."""
        folder = self._folder(run)
        lease = take_lease(folder.path, number)
        if lease is None:
            self._refresh(run.id)
            raise RunRefused(f"another process has just taken run {run.id}: list the runs again")
        self._leases[run.id] = lease
        self._refresh(run.id)  # the last holder may have written more events before it died
        run = self._find_readable(run.id)
        if run.is_over != expected_over:
            raise RunRefused(f"run {run.id} is now {run.state}: list the runs again")
        return run

    def _take_over(self, run: Run) -> Run:
        """Take over a run from a host that has gone silent."""
        folder = self._folder(run)
        number = newest_lease(folder.path)
        run_is_free = is_free(folder.path, number)
        if (
            not run_is_free
            and read_holder(folder.path, number) is not None
            and seconds_since_heartbeat(folder.path) < TAKEOVER_SECONDS
        ):
            raise RunRefused(
                f"run {run.id} belongs to {_describe_holder(folder.path)}, which was active less than "
                f"{TAKEOVER_SECONDS:.0f} seconds ago: stop the worker there first"
            )
        run = self._take_lease(run, number, expected_over=False)
        # once this event is written, readers ignore any further events from the other host
        return self._write_event(run, {"event": run.state})

    def _check_abandoned(self, run: UnreadableRun) -> None:
        """Raise RunRefused if another process may be training the run with a version that can read it."""
        folder = self._folder(run).path
        if folder.is_symlink() or not folder.is_dir():
            return
        number = newest_lease(folder)
        holder = read_holder(folder, number)
        if holder is not None and not is_free(folder, number) and seconds_since_heartbeat(folder) < TAKEOVER_SECONDS:
            raise RunRefused(f"run {run.id} belongs to {_describe_holder(folder)}: drop it there")
        if number and take_lease(folder, number) is None:
            raise RunRefused(f"another process has just taken run {run.id}: list the runs again")

    def _refresh(self, run_id: str) -> None:
        """Read a run again from its folder."""
        folder = RunFolder(self.folder / run_id)
        try:
            self._on_change([self._store_from_disk(folder, load_run(folder))], ())
        except RunNotFound:
            self._forget([run_id])

    # helpers

    def _waiting_runs(self) -> list[Run]:
        """Return this host's waiting runs in queue order. The trainer may already have received the first of them."""
        runs = map(self.runs.__getitem__, self._local)
        waiting = [run for run in runs if isinstance(run, Run) and run.state in ("queued", "paused")]
        return sorted(waiting, key=lambda run: (run.position, run.id))

    def _is_waiting(self, run: Run) -> bool:
        return run.state in ("queued", "paused") and run.id not in self.active

    def _describe_state(self, run: Run) -> str:
        """Return a run's state for a message. A run that was just passed to the trainer counts as training."""
        return "training" if run.id in self.active else run.state

    def _folder(self, run: AnyRun) -> RunFolder:
        return RunFolder(self.folder / run.id)

    def _request_stop(self, run: Run, request: StopRequest) -> bool:
        """Ask the trainer to stop a run. Return whether the run is active."""
        if run.id in self.active:
            self.active[run.id].stop_request = request
        return run.id in self.active

    def _write_event(self, run: Run, event: dict[str, Any]) -> Run:
        """Write an event to disk, then apply it. Raises OSError."""
        number = self.active[run.id].lease.number if run.id in self.active else self._leases[run.id].number
        return self._store(run.apply(self._folder(run).append(event, number)))

    def _store(self, run: Run) -> Run:
        """Store a run that this process has changed."""
        self._note_position(run.position)
        self.runs[run.id] = run
        if run.is_over:
            self._leases.pop(run.id, None)
            self._local.discard(run.id)
        else:
            self._local.add(run.id)
        with suppress(OSError):
            self._signatures[run.id] = _folder_signature(self._folder(run).path)
        self._on_change([run], ())
        return run

    def _note_position(self, position: float) -> None:
        if position < MAX_POSITION:
            self._last_position = max(self._last_position, position)


def save_sweep_prompts(library: Library, folder: RunFolder, run: Run, tokens: Sequence[int]) -> dict[str, Any]:
    """Save soft prompts from a sweep in the library. Each has a fixed id, so nothing is saved twice."""
    from softprompt.library.entry import unpack  # numpy

    available, saved = {result.tokens for result in run.results}, []
    if missing := [k for k in tokens if k not in available]:
        raise RunRefused(
            f"run {run.id} has no soft prompt of {missing[0]} tokens; "
            f"available: {', '.join(map(str, sorted(available))) or 'none'}"
        )
    for k in tokens:
        name = sweep_file_name(k)
        try:
            prompt = unpack(folder.read_bytes(name), str(folder.path / name)).prompt
        except OSError as error:
            raise RunRefused(
                f"cannot read the results of run {run.id} ({error.strerror}): run the sweep again"
            ) from error
        preferred_name = sweep_entry_name(run.job.name or name_from_prompt(prompt.hard_prompt, ()), k)
        entry = library.save(prompt.named(preferred_name), id=sweep_entry_id(run.id, k))
        saved.append({"tokens": k, "entry": entry.id, "name": entry.prompt.name})
    return {"kept": saved}


def _spread_positions(waiting: Sequence[Run], place: int) -> list[tuple[Run | None, float]]:
    """Return the positions that put a run in front of `waiting[place]`, as (run, position) pairs.

    The run itself is None. The other pairs move neighbours to make room.
    """
    width = 0
    while True:
        first, end = max(0, place - width), min(len(waiting), place + width)
        moved = [*waiting[first:place], None, *waiting[place:end]]
        low = waiting[first - 1].position if first else waiting[0].position - len(moved) - 1
        high = waiting[end].position if end < len(waiting) else waiting[-1].position + len(moved) + 1
        gap = (high - low) / (len(moved) + 1)
        if gap > MIN_GAP or len(moved) > len(waiting):
            return [(run, low + gap * i) for i, run in enumerate(moved, 1)]
        width = 2 * width or 1


def _folder_signature(folder: Path) -> tuple[int, ...]:
    """Return a value that changes whenever a run's folder or events change. Raises OSError if the folder is missing."""
    changed = os.lstat(folder).st_ctime_ns
    try:
        events = os.lstat(f"{folder}/{EVENTS}")
    except OSError:
        return (changed,)
    return (changed, events.st_ctime_ns, events.st_size)


def _describe_holder(folder: Path) -> str:
    holder = read_holder(folder)
    return f"host {holder.host}" if holder else "an unknown host"
