"""The worker's runs: which there are, whose turn it is, and what may be asked of each. Lives on the main thread."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from softprompt.catalogue import MINI
from softprompt.errors import RunNotFound, RunRefused
from softprompt.job import Job
from softprompt.library import Library
from softprompt.library.names import name_for
from softprompt.models import LOCAL, resolve
from softprompt.worker.engine import Training, Wish
from softprompt.worker.leases import UNHEARD, Lease, holder_of, is_free, take_lease, unheard_for
from softprompt.worker.runfolder import (
    ENDED,
    Record,
    RunFolder,
    folders,
    in_order,
    named,
    runs_folder,
    swept_file,
    swept_id,
    swept_name,
)
from softprompt.worker.together import together

log = logging.getLogger(__name__)
STALE = 3600.0  # seconds after which what a crash left half made is swept away
SHOWN_ENDED = 100  # ended runs that a snapshot has


class Queue:
    """The runs of a data folder, as far as they are this process's to train; others are shown."""

    def __init__(self, home: Path) -> None:
        self.runs = runs_folder(home)
        self.library = Library(home)
        self.records: dict[str, Record] = {}
        self.leases: dict[str, Lease] = {}
        self.training: dict[str, Training] = {}  # what the engine has, by run

    def scan(self) -> None:
        """Looks at the folders: new runs are read, and those whose holder on this host is dead are taken up."""
        for folder in folders(self.runs):
            with suppress(RunNotFound, OSError):
                record = self.records.get(folder.id)
                if record is None or (folder.id not in self.leases and record.state not in ENDED):
                    record = self.records[folder.id] = folder.glance()
                if record.state not in ENDED and folder.id not in self.leases and is_free(folder.path):
                    self._take_up(folder)
        self._sweep()

    def _take_up(self, folder: RunFolder) -> None:
        lease = take_lease(folder.path)
        if lease is None:
            return
        record = folder.read()  # anew: its last holder may have written until it died
        if record.state in ENDED:
            self.records[folder.id] = record
            return
        record.left()
        self.leases[folder.id], self.records[folder.id] = lease, record
        log.info("run %s is taken up, %s", folder.id, record.state)

    def _sweep(self) -> None:
        if not self.runs.is_dir():
            return
        for path in self.runs.glob(".*.partial"):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime > STALE:
                    shutil.rmtree(path)

    def in_order(self) -> list[Record]:
        """What clients are shown: all that are not over, and the latest of those that are."""
        ordered = in_order(list(self.records.values()))
        going = [record for record in ordered if record.state not in ENDED]
        return ordered[: len(going) + SHOWN_ENDED]

    def submit(self, job: Job, start: str) -> Record:
        """Makes a run, durably. Raises UnknownModel, and LibraryError."""
        from softprompt.library.entry import pack  # numpy

        if job.model.lower() != MINI and not job.model.startswith(LOCAL):
            resolve(job.model)
        raw = pack(self.library.open(start)) if start else b""
        folder, record = RunFolder.create(self.runs, job, self._last() + 1, raw)
        self.records[record.id] = record
        self.leases[record.id] = Lease(folder.path, 1)
        return record

    def next(self) -> list[Training]:
        """The run whose turn it is, made ready for training, and those behind it that can share its batch: they take little longer together.

        What comes later waits, so that who watches a run does not see it slow down.
        """
        waiting = [record for record in self.records.values() if record.state == "queued" and record.id in self.leases]
        waiting.sort(key=lambda record: (not record.stopping, record.position, record.id))
        beginning = waiting[: together([(one.job.batch, one.job.config.restarts) for one in waiting])]
        ready = [Training(one, self.folder(one), self.leases[one.id], "stop" if one.stopping else "") for one in beginning]
        self.training = {one.folder.id: one for one in ready}
        return ready

    def ended(self, run: str) -> None:
        """The engine is done with a run, one way or another."""
        self.training.pop(run, None)
        record = self.records[run]
        record.left()
        if record.state in ENDED:
            self.leases.pop(run, None)

    def renew(self) -> None:
        """A sign of life for other hosts; what they have taken, or somebody removed, is not ours any more."""
        for run, lease in list(self.leases.items()):
            try:
                if lease.is_ours():
                    lease.renew()
                    continue
            except OSError as error:
                log.warning("run %s: its lease cannot be renewed: %s", run, error)
                if not isinstance(error, FileNotFoundError):
                    continue
            del self.leases[run]
            if run in self.training:
                self._wish(run, "leave")
            else:
                del self.records[run]

    def folder(self, record: Record) -> RunFolder:
        return RunFolder(self.runs / record.id)

    def find(self, run: str) -> Record:
        return named(self.in_order(), run)

    # what a client may ask of a run

    def stop(self, run: str) -> Record:
        record = self._held(run)
        if record.state in ENDED:
            raise RunRefused(f"run {record.id} is over already: {record.state}")
        if self._is_training(record):
            self._wish(record.id, "stop")
        elif not record.began:  # nothing has been done, so there is nothing to save
            self._write(record, {"event": "stopped"})
            self.folder(record).forget_progress()
            return record
        if record.state == "paused":
            self._write(record, {"event": "queued"})
        self._write(record, {"event": "stopping"})
        return record

    def pause(self, run: str) -> Record:
        record = self._held(run)
        if record.state not in ("queued", "running") or record.stopping:
            raise RunRefused(
                f"run {record.id} is {'stopping' if record.stopping else record.state}: only a run to come or under way can be paused"
            )
        if self._is_training(record):
            self._write(record, {"event": "pausing"})
            self._wish(record.id, "pause")
        else:
            self._write(record, {"event": "paused"})
        return record

    def resume(self, run: str) -> Record:
        record = self.find(run)
        if record.id not in self.leases and record.state not in ENDED:
            self._take_over(record)
            return self.records[record.id]
        if record.state not in ("paused", "failed"):
            raise RunRefused(f"run {record.id} is {record.state}: only a paused or failed run can be resumed")
        if record.state == "paused":
            self._write(record, {"event": "queued"})
            return record
        self.leases[record.id] = take_lease(self.folder(record).path) or self._refuse_taken(record)
        self._write(record, {"event": "queued", "position": self._last() + 1})
        return record

    def move(self, run: str, before: str) -> Record:
        record = self._held(run)
        if record.state not in ("queued", "paused"):
            raise RunRefused(f"run {record.id} is {record.state}: only a waiting run has a place in the queue")
        others = [one for one in in_order(list(self.records.values())) if one.state in ("queued", "paused") and one is not record]
        if before:
            other = self._held(before)
            if other not in others:
                raise RunRefused(f"run {other.id} is {other.state}: name a waiting run to be put before")
            place = others.index(other)
            earlier = others[place - 1].position if place else other.position - 1
            position = (earlier + other.position) / 2
            if not earlier < position < other.position:  # after some 50 moves into one gap there is no number left in it
                for i, one in enumerate(others):
                    self._write(one, {"event": "moved", "position": float(i + 1)})
                position = place + 0.5
        else:
            position = max((one.position for one in others), default=record.position) + 1
        self._write(record, {"event": "moved", "position": position})
        return record

    def keep(self, run: str, tokens: Sequence[int]) -> dict[str, Any]:
        """Saves soft prompts of a sweep under ids made of the run's and their tokens, so that each is there once."""
        from softprompt.library.entry import unpack  # numpy

        record, saved = self.find(run), []
        there = {result["tokens"] for result in record.results}
        if missing := [k for k in tokens if k not in there]:
            raise RunRefused(
                f"run {record.id} has no soft prompt of {missing[0]} tokens; it has {', '.join(map(str, sorted(there))) or 'none'}"
            )
        for k in tokens:
            name = swept_file(k)
            try:
                made = unpack(self.folder(record).bytes_of(name), str(self.runs / record.id / name)).prompt
            except OSError as error:
                raise RunRefused(f"what run {record.id} came to cannot be read ({error.strerror}): sweep again") from error
            wished = swept_name(record.job.name or name_for(made.hard_prompt, ()), k)
            entry = self.library.save(made.named(wished), swept_id(record.id, k))
            saved.append({"tokens": k, "entry": entry.id, "name": entry.prompt.name})
        return {"kept": saved}

    def drop(self, run: str) -> Record:
        record = self.find(run)
        if self._is_training(record):
            raise RunRefused(f"run {record.id} is training: stop or pause it first")
        if record.id not in self.leases and record.state not in ENDED:
            raise RunRefused(f"run {record.id} is {_whose(self.folder(record).path)}: drop it there")
        self.folder(record).remove()
        self.leases.pop(record.id, None)
        del self.records[record.id]
        return record

    def _held(self, run: str) -> Record:
        record = self.find(run)
        if record.id not in self.leases and record.state not in ENDED:
            raise RunRefused(
                f"run {record.id} is {_whose(self.folder(record).path)}: say so there, or resume it here once it is not heard of"
            )
        return record

    def _take_over(self, record: Record) -> None:
        folder = self.folder(record)
        holder = holder_of(folder.path)
        if not is_free(folder.path) and holder is not None and unheard_for(folder.path) < UNHEARD:
            raise RunRefused(
                f"run {record.id} is {_whose(folder.path)}, which was heard of less than {UNHEARD:.0f} seconds ago: stop the worker there first"
            )
        self._take_up(folder)
        if record.id not in self.leases:
            self._refuse_taken(record)

    def _refuse_taken(self, record: Record) -> Lease:
        raise RunRefused(f"run {record.id} was taken by another process just now: look again")

    def _is_training(self, record: Record) -> bool:
        return record.id in self.training

    def _wish(self, run: str, wish: Wish) -> None:
        self.training[run].wish = wish

    def _write(self, record: Record, event: dict[str, object]) -> None:
        """Durable before it counts. Raises OSError."""
        record.apply(self.folder(record).append(event))

    def _last(self) -> float:
        return max((record.position for record in self.records.values()), default=0.0)


def _whose(folder: Path) -> str:
    holder = holder_of(folder)
    return f"held by {holder.host}" if holder else "held by an unknown host"
