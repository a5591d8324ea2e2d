"""`python -m softprompt.worker`: begins the worker of a data folder, unless there is one. Clients call this; see client.py."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from softprompt.errors import SoftPromptError
from softprompt.system.locks import take
from softprompt.system.priority import WORKER, lower_priority
from softprompt.system.threads import limit_openmp_spin
from softprompt.worker import log as logs
from softprompt.worker.client import ANOTHER, READY, SAFELY
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.server import END_AFTER, RELEASE_AFTER, Server

# not SOFTPROMPT_RUNTIME, which is taken from the data folder
FOLDERS = ("SOFTPROMPT_HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME")
log = logging.getLogger("softprompt.worker")


def main() -> None:
    parser = argparse.ArgumentParser(prog="softprompt.worker", description=__doc__)
    parser.add_argument(
        "--release-after", type=float, default=RELEASE_AFTER, help="idle seconds after which models leave the GPU"
    )
    parser.add_argument(
        "--end-after", type=float, default=END_AFTER, help="seconds without clients and runs after which it ends"
    )
    parser.add_argument("--ready-fd", type=int, help="a pipe that is told when clients can come, or why not")
    parser.add_argument("--lock-fd", type=int, help="the worker's lock, where a worker starts itself afresh")
    options = parser.parse_args()
    if options.lock_fd is None and os.fork():  # the child belongs to nobody: who started it has no process to wait for
        os._exit(0)
    if os.getsid(0) != os.getpid():
        os.setsid()
    for variable in FOLDERS:  # they were meant from where the user is
        if (value := os.environ.get(variable)) and not value.startswith("~"):
            os.environ[variable] = str(Path(value).absolute())
    lower_priority(WORKER)  # as the leader of its session
    limit_openmp_spin()
    os.chdir("/")
    os.umask(0o077)
    told = _Told(options.ready_fd)
    try:
        logs.begin()
        place = Endpoint()
        place.prepare()
        lock = take(place.worker_lock) if options.lock_fd is None else options.lock_fd
    except (SoftPromptError, OSError) as error:
        told.tell(str(error))
        raise SystemExit(1) from error
    if lock is None:
        told.tell(ANOTHER)
        raise SystemExit(0)
    os.set_inheritable(lock, False)
    faulthandler.enable()
    server = Server(place, lock, options.release_after, options.end_after)
    log.info("begins for %s", place.home)
    try:
        asyncio.run(server.run(lambda: told.tell(READY)))
    except (SoftPromptError, OSError) as error:
        log.exception("ended by an error")
        told.tell(str(error))
        raise SystemExit(1) from error
    log.info("ends")
    logging.shutdown()
    if server.broken:
        os._exit(1)
    if server.again:  # in place, and the lock is kept: nobody can come between
        os.set_inheritable(server.lock, True)
        times = ["--release-after", str(options.release_after), "--end-after", str(options.end_after)]
        os.execv(sys.executable, [sys.executable, *SAFELY, "softprompt.worker", "--lock-fd", str(server.lock), *times])
    os._exit(0)  # the trainer's thread may still be inside torch, and nothing of it is to be kept


class _Told:
    """Who started this process waits for one line, unless they have left meanwhile; their runs are trained all the same."""

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor

    def tell(self, line: str) -> None:
        if self.descriptor is not None:
            descriptor, self.descriptor = self.descriptor, None
            with suppress(BrokenPipeError), os.fdopen(descriptor, "w") as pipe:
                pipe.write(line)


if __name__ == "__main__":
    main()
