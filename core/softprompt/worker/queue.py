"""The worker's runs: which there are, whose turn it is, and what may be asked of each.

One thread owns the queue and calls all its methods, since most of them wait for the disk. Others get runs, which never change, through
`tell`. A run that waits costs nothing but its folder: its lease is taken when its turn comes, or when it is to be changed.
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

from softprompt.errors import RunNotFound, RunRefused
from softprompt.jobs.job import AnyJob
from softprompt.library import Library
from softprompt.library.names import name_for
from softprompt.worker.active_run import ActiveRun, StopRequest
from softprompt.worker.batching import next_batch_size
from softprompt.worker.events import MAX_NUMBER
from softprompt.worker.leases import UNHEARD, Lease, holder_of, is_free, newest, sign_of_life, take_lease, unheard_for
from softprompt.worker.run_folder import (
    EVENTS,
    FIRST_LEASE,
    AnyRun,
    Run,
    RunFolder,
    UnreadableRun,
    folders,
    in_order,
    look,
    named,
    runs_folder,
    swept_file,
    swept_id,
    swept_name,
)

log = logging.getLogger(__name__)
STALE = 3600.0  # seconds after which what a crash left half made is swept away
PIECE_SECONDS = 0.05  # of a scan, between which other things are asked of the queue
MAX_POSITION = (
    MAX_NUMBER / 2
)  # of a run that others are put behind; who wrote a higher one is last, and leaves room for more
MIN_GAP = 1e-6  # between two positions; a smaller one is widened before a run is put into it

Tell = Callable[[Collection[AnyRun], Collection[str]], None]


class Queue:
    """The runs of a data folder, as far as they are this process's to train; others are shown.

    `tell` is called with runs as they have become, and with the ids of those that are gone.
    """

    def __init__(self, home: Path, tell: Tell) -> None:
        self.folder = runs_folder(home)
        self.runs: dict[str, AnyRun] = {}
        self.training: dict[str, ActiveRun] = {}  # what the trainer has, by run
        self._tell = tell
        self._here: set[str] = set()  # runs that wait on this host: taken by this process, or free to be
        self._leases: dict[str, Lease] = {}
        self._seen: dict[str, tuple[int, ...]] = {}  # the state of a folder on disk when its run was read
        self._last = 0.0  # the highest position ever given

    # what there is

    def scan(self) -> Iterator[None]:
        """Look at all folders, in pieces of `PIECE_SECONDS`. Raises HomeError where they cannot be listed."""
        listed = folders(self.folder)
        there = {folder.id for folder in listed}
        if gone := [run for run in self.runs if run not in there and run not in self.training]:
            self._forget(gone)
        began, changed = time.monotonic(), list[AnyRun]()
        for folder in listed:
            with suppress(OSError):
                changed += self._look(folder)
            if time.monotonic() - began > PIECE_SECONDS:
                self._tell(changed, ())
                yield
                began, changed = time.monotonic(), []
        self._tell(changed, ())
        self._sweep()

    def _look(self, folder: RunFolder) -> list[AnyRun]:
        """The run in a folder, if it is another than is known."""
        known, seen = self.runs.get(folder.id), _signature(folder.path)
        is_settled = isinstance(known, Run) and (known.is_over or folder.id in self._here)
        if folder.id in self.training or (is_settled and self._seen.get(folder.id) == seen):
            return []
        with suppress(RunNotFound):
            run = self._placed(folder, look(folder))
            self._seen[folder.id] = seen
            return [run] if run != known else []
        return []

    def _placed(self, folder: RunFolder, run: AnyRun) -> AnyRun:
        """A run as it is on disk becomes what is known of it."""
        self._here.discard(run.id)
        if isinstance(run, Run):
            self._count(run.position)
            if not run.is_over and (self._holds(run.id) or is_free(folder.path)):
                self._here.add(run.id)
                run = run.left()
        self.runs[run.id] = run
        return run

    def _holds(self, run: str) -> bool:
        lease = self._leases.get(run)
        if lease is None or lease.is_ours():
            return lease is not None
        del self._leases[run]
        return False

    def _forget(self, runs: Sequence[str]) -> None:
        for run in runs:
            self.runs.pop(run, None)
            self._leases.pop(run, None)
            self._seen.pop(run, None)
            self._here.discard(run)
        self._tell((), runs)

    def _sweep(self) -> None:
        if not self.folder.is_dir():
            return
        for path in self.folder.glob(".*.partial"):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > STALE:
                    shutil.rmtree(path)

    def find(self, name: str) -> AnyRun:
        """The run whose id begins so; raises RunNotFound."""
        return self.runs[name] if name in self.runs else named(in_order(self.runs.values()), name)

    # training

    def next(self) -> list[ActiveRun]:
        """The run whose turn it is, taken for training, and those behind it that can share its batch: they take little longer together.

        Nothing where something trains already. What comes later waits, so that who watches a run does not see it slow down.
        """
        beginning: list[Run] = []
        while not self.training:
            queued = [run for run in self._waiting() if run.state == "queued"]
            queued.sort(key=lambda run: (not run.stopping, run.position, run.id))
            beginning = queued[: next_batch_size([(run.job.batch, run.job.config.restarts) for run in queued])]
            beginning = [self._taken_up(run) or run for run in beginning]
            if all(run.id in self._here and self.runs[run.id] is run and run.state == "queued" for run in beginning):
                break
        for run in beginning:
            self.training[run.id] = ActiveRun(
                run, self._folder(run), self._leases[run.id], "stop" if run.stopping else ""
            )
        return list(self.training.values()) if beginning else []

    def _taken_up(self, run: Run) -> Run | None:
        """A waiting run with its lease taken, or None where it is not this host's any more."""
        try:
            return self._held(run)
        except (RunRefused, RunNotFound, OSError) as error:
            log.warning("run %s is not trained here now: %s", run.id, error)
            self._here.discard(run.id)
            return None

    def put_back(self) -> None:
        """What was taken for training has not begun, and waits again."""
        self.training.clear()

    def record(self, run: str, event: dict[str, Any]) -> Run | None:
        """What the trainer did, as it has written it down; the run after it, None where it is gone."""
        known = self.runs.get(run)
        if not isinstance(known, Run):
            return None
        self.runs[run] = known = known.apply(event)
        if event["event"] != "report":
            self._tell([known], ())
        return known

    def ended(self, run: str, event: dict[str, Any]) -> None:
        """The trainer is done with a run, one way or another; `event` is empty where it was left for another worker."""
        self.training.pop(run, None)
        known = self.runs.get(run)
        if not isinstance(known, Run):
            return
        with suppress(OSError):
            if not self._holds(run):  # what its new holder makes of it stands on disk
                self._refreshed(run)
                return
        known = (known.apply(event) if event else known).left()
        self._become(known)

    def renew(self) -> None:
        """A sign of life for other hosts; what they have taken, or somebody removed, is trained no further."""
        try:
            if self.folder.is_dir():
                sign_of_life(self.folder)
        except OSError as error:
            log.warning("other hosts cannot be told that this one is there: %s", error)
        for run, training in self.training.items():
            try:
                if training.lease.is_ours():
                    training.lease.renew()
                    continue
            except OSError as error:
                log.warning("run %s: its lease cannot be renewed: %s", run, error)
                if not isinstance(error, FileNotFoundError):
                    continue
            training.stop_request = "leave"

    # what a client may ask for

    def submit(self, job: AnyJob, start: bytes) -> Run:
        """Makes a run, durably; `start` is the entry that it begins from. Raises HomeError."""
        folder, run = RunFolder.create(self.folder, job, self._last + 1, start)
        self._last = run.position
        self._leases[run.id] = Lease(folder.path, FIRST_LEASE)
        self._here.add(run.id)
        self._become(run)
        return run

    def stop(self, name: str) -> Run:
        run = self._changeable(name)
        if run.is_over:
            raise RunRefused(f"run {run.id} is over already: {run.state}")
        if not self._request_stop(run, "stop") and not run.began:  # nothing has been done, so there is nothing to save
            run = self._write(run, {"event": "stopped"})
            self._folder(run).forget_progress()
            return run
        if run.state == "paused":
            run = self._write(run, {"event": "queued"})
        return self._write(run, {"event": "stopping"})

    def pause(self, name: str) -> Run:
        run = self._changeable(name)
        if run.state not in ("queued", "running") or run.stopping:
            raise RunRefused(
                f"run {run.id} is {'stopping' if run.stopping else run.state}: only a run to come or under way can be paused"
            )
        if run.id not in self.training:
            return self._write(run, {"event": "paused"})
        run = self._write(run, {"event": "pausing"})
        self._request_stop(run, "pause")
        return run

    def resume(self, name: str) -> Run:
        run = self._readable(name)
        if run.id not in self._here and not run.is_over:
            return self._taken_over(run)
        if run.state not in ("paused", "failed"):
            raise RunRefused(f"run {run.id} is {run.state}: only a paused or failed run can be resumed")
        if run.state == "paused":
            return self._write(self._held(run), {"event": "queued"})
        run = self._held(run, whoever=True)
        return self._write(run, {"event": "queued", "position": self._last + 1})

    def move(self, name: str, before: str) -> Run:
        """Gives a waiting run a position before another's, or the last one."""
        run = self._changeable(name)
        if not self._waits(run):
            raise RunRefused(f"run {run.id} is {self._state(run)}: only a waiting run has a place in the queue")
        if not before:
            return self._write(run, {"event": "moved", "position": self._last + 1})
        other = self._changeable(before)
        if not self._waits(other):
            raise RunRefused(f"run {other.id} is {self._state(other)}: name a waiting run to be put before")
        if other.id == run.id:
            return run
        waiting = [known for known in self._waiting() if known.id != run.id]
        for neighbour, position in _spread(waiting, waiting.index(other)):
            self._write(run if neighbour is None else self._held(neighbour), {"event": "moved", "position": position})
        return self._readable(run.id)

    def drop(self, name: str) -> AnyRun:
        """Removes a run that is not training here, nor anywhere else."""
        run = self.find(name)
        if run.id in self.training:
            raise RunRefused(f"run {run.id} is training: stop or pause it first")
        if isinstance(run, Run):
            self._held(run, whoever=run.is_over)
        else:
            self._check_abandoned(run)
        self._folder(run).remove()
        self._forget([run.id])
        return run

    # taking runs

    def _readable(self, name: str) -> Run:
        run = self.find(name)
        if isinstance(run, UnreadableRun):
            raise RunRefused(
                f"run {run.id} cannot be read ({run.reason}): `softprompt-tui runs drop {run.id[:8]}` removes it"
            )
        return run

    def _changeable(self, name: str) -> Run:
        """The run of this name, held by this process unless it is over. Raises RunRefused where it is another host's."""
        run = self._readable(name)
        return run if run.is_over or run.id in self.training else self._held(run)

    def _held(self, run: Run, whoever: bool = False) -> Run:
        """Take a run's lease, unless it is held; return the run as its last holder left it.

        Args:
            whoever: also of another host, which has no use for a run that is over.

        Raises:
            RunRefused: it is another host's, or was taken by another process just now.
        """
        if self._holds(run.id):
            return run
        folder = self._folder(run)
        number = newest(folder.path)
        if not whoever and not is_free(folder.path, number):
            self._refreshed(run.id)
            raise RunRefused(
                f"run {run.id} is {_whose(folder.path)}: say so there, or resume it here once it is not heard of"
            )
        return self._take(run, number, run.is_over)

    def _take(self, run: Run, number: int, expected_over: bool) -> Run:
        """Take the lease after `number`, and read what the run has become since it was looked at."""
        folder = self._folder(run)
        lease = take_lease(folder.path, number)
        if lease is None:
            self._refreshed(run.id)
            raise RunRefused(f"run {run.id} was taken by another process just now: look again")
        self._leases[run.id] = lease
        self._refreshed(run.id)  # anew: its last holder may have written until it died
        run = self._readable(run.id)
        if run.is_over != expected_over:
            raise RunRefused(f"run {run.id} is {run.state} by now: look again")
        return run

    def _taken_over(self, run: Run) -> Run:
        """Take a run of another host that is no longer heard of."""
        folder = self._folder(run)
        number = newest(folder.path)
        free = is_free(folder.path, number)
        if not free and holder_of(folder.path, number) is not None and unheard_for(folder.path) < UNHEARD:
            raise RunRefused(
                f"run {run.id} is {_whose(folder.path)}, which was heard of less than {UNHEARD:.0f} seconds ago: stop the worker there first"
            )
        run = self._take(run, number, expected_over=False)
        return self._write(
            run, {"event": run.state}
        )  # what the other one may still write counts for nothing from here on

    def _check_abandoned(self, run: UnreadableRun) -> None:
        """Raises RunRefused where another process may be training a run that is unreadable here only."""
        folder = self._folder(run).path
        if folder.is_symlink() or not folder.is_dir():
            return
        number = newest(folder)
        holder = holder_of(folder, number)
        if holder is not None and not is_free(folder, number) and unheard_for(folder) < UNHEARD:
            raise RunRefused(f"run {run.id} is {_whose(folder)}: drop it there")
        if number and take_lease(folder, number) is None:
            raise RunRefused(f"run {run.id} was taken by another process just now: look again")

    def _refreshed(self, run: str) -> None:
        """What is known of a run becomes what its folder tells."""
        folder = RunFolder(self.folder / run)
        try:
            self._tell([self._placed(folder, look(folder))], ())
        except RunNotFound:
            self._forget([run])

    # helpers

    def _waiting(self) -> list[Run]:
        """The runs of this host that have not begun, in their order; the trainer may have been given the first of them."""
        runs = map(self.runs.__getitem__, self._here)
        waiting = [run for run in runs if isinstance(run, Run) and run.state in ("queued", "paused")]
        return sorted(waiting, key=lambda run: (run.position, run.id))

    def _waits(self, run: Run) -> bool:
        return run.state in ("queued", "paused") and run.id not in self.training

    def _state(self, run: Run) -> str:
        """The state of a run in a message: the trainer has not told yet of a run that it has been given just now."""
        return "training" if run.id in self.training else run.state

    def _folder(self, run: AnyRun) -> RunFolder:
        return RunFolder(self.folder / run.id)

    def _request_stop(self, run: Run, request: StopRequest) -> bool:
        """Ask the trainer to stop a run, if it has it; return whether it has."""
        if run.id in self.training:
            self.training[run.id].stop_request = request
        return run.id in self.training

    def _write(self, run: Run, event: dict[str, Any]) -> Run:
        """Durable before it counts. Raises OSError."""
        number = self.training[run.id].lease.number if run.id in self.training else self._leases[run.id].number
        return self._become(run.apply(self._folder(run).append(event, number)))

    def _become(self, run: Run) -> Run:
        """Take over a run that this process has just changed."""
        self._count(run.position)
        self.runs[run.id] = run
        if run.is_over:
            self._leases.pop(run.id, None)
            self._here.discard(run.id)
        else:
            self._here.add(run.id)
        with suppress(OSError):
            self._seen[run.id] = _signature(self._folder(run).path)
        self._tell([run], ())
        return run

    def _count(self, position: float) -> None:
        if position < MAX_POSITION:
            self._last = max(self._last, position)


def keep_swept(library: Library, folder: RunFolder, run: Run, tokens: Sequence[int]) -> dict[str, Any]:
    """Saves soft prompts of a sweep under ids made of the run's and their tokens, so that each is there once."""
    from softprompt.library.entry import unpack  # numpy

    there, saved = {result.tokens for result in run.results}, []
    if missing := [k for k in tokens if k not in there]:
        raise RunRefused(
            f"run {run.id} has no soft prompt of {missing[0]} tokens; it has {', '.join(map(str, sorted(there))) or 'none'}"
        )
    for k in tokens:
        name = swept_file(k)
        try:
            made = unpack(folder.bytes_of(name), str(folder.path / name)).prompt
        except OSError as error:
            raise RunRefused(f"what run {run.id} came to cannot be read ({error.strerror}): sweep again") from error
        wished = swept_name(run.job.name or name_for(made.hard_prompt, ()), k)
        entry = library.save(made.named(wished), swept_id(run.id, k))
        saved.append({"tokens": k, "entry": entry.id, "name": entry.prompt.name})
    return {"kept": saved}


def _spread(waiting: Sequence[Run], place: int) -> list[tuple[Run | None, float]]:
    """Positions for a run before `waiting[place]`, which is None here, and for as many neighbours as have to make room for it."""
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


def _signature(folder: Path) -> tuple[int, ...]:
    """What changes when something is added to a run's folder, or to its events. Raises OSError where there is no folder."""
    changed = os.lstat(folder).st_ctime_ns
    try:
        events = os.lstat(f"{folder}/{EVENTS}")
    except OSError:
        return (changed,)
    return (changed, events.st_ctime_ns, events.st_size)


def _whose(folder: Path) -> str:
    holder = holder_of(folder)
    return f"held by {holder.host}" if holder else "held by an unknown host"
