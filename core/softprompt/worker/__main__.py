"""Start the worker for a data folder, unless it is already running. Clients do this automatically (see client.py)."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from softprompt.errors import SoftPromptError, word_messages_for
from softprompt.system.locks import try_lock
from softprompt.system.priority import WORKER_NICENESS, lower_priority
from softprompt.system.threads import limit_openmp_spin
from softprompt.worker import log as logs
from softprompt.worker.client import ANOTHER, READY, SAFE_PATH_FLAGS
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.server import END_SECONDS, RELEASE_SECONDS, Server

# SOFTPROMPT_RUNTIME is not among them, because it is resolved against the data folder
FOLDER_VARIABLES = ("SOFTPROMPT_HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME")
log = logging.getLogger("softprompt.worker")


@word_messages_for("commands")
def main() -> None:
    parser = argparse.ArgumentParser(prog="softprompt.worker", description=__doc__)
    parser.add_argument(
        "--release-after", type=float, default=RELEASE_SECONDS, help="release GPU memory after this many idle seconds"
    )
    parser.add_argument(
        "--end-after",
        type=float,
        default=END_SECONDS,
        help="exit after this many seconds without clients or runs",
    )
    parser.add_argument(
        "--ready-fd", type=int, help="pipe that gets one line once the worker accepts clients or fails to start"
    )
    parser.add_argument("--lock-fd", type=int, help="lock inherited from a worker that has restarted itself")
    options = parser.parse_args()
    if options.lock_fd is None and os.fork():  # the parent exits at once, so the client has no child to wait for
        os._exit(0)
    if os.getsid(0) != os.getpid():
        os.setsid()
    for variable in FOLDER_VARIABLES:  # resolve relative paths against the client's current folder
        if (value := os.environ.get(variable)) and not value.startswith("~"):
            os.environ[variable] = str(Path(value).absolute())
    lower_priority(WORKER_NICENESS)  # after setsid, so that it applies to the whole session
    limit_openmp_spin()
    os.chdir("/")
    os.umask(0o077)
    ready_pipe = _ReadyPipe(options.ready_fd)
    try:
        logs.start_worker_log()
        endpoint = Endpoint()
        endpoint.prepare()
        lock = try_lock(endpoint.worker_lock) if options.lock_fd is None else options.lock_fd
    except (SoftPromptError, OSError) as error:
        ready_pipe.write(str(error))
        raise SystemExit(1) from error
    if lock is None:
        ready_pipe.write(ANOTHER)
        raise SystemExit(0)
    os.set_inheritable(lock, False)
    faulthandler.enable()
    server = Server(endpoint, lock, options.release_after, options.end_after)
    log.info("started for %s", endpoint.home)
    try:
        asyncio.run(server.run(lambda: ready_pipe.write(READY)))
    except (SoftPromptError, OSError) as error:
        log.exception("ended with an error")
        ready_pipe.write(str(error))
        raise SystemExit(1) from error
    log.info("ended")
    logging.shutdown()
    if server.broken:
        os._exit(1)
    if server.should_restart:  # in the same process, which keeps the lock, so no other worker can start in between
        os.set_inheritable(server.lock, True)
        timeouts = ["--release-after", str(options.release_after), "--end-after", str(options.end_after)]
        os.execv(
            sys.executable,
            [sys.executable, *SAFE_PATH_FLAGS, "softprompt.worker", "--lock-fd", str(server.lock), *timeouts],
        )
    os._exit(0)  # skip cleanup, because the trainer's thread may still be inside torch


class _ReadyPipe:
    """The pipe to the client that started this process. It carries one line. The client may already have exited."""

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor

    def write(self, line: str) -> None:
        if self.descriptor is not None:
            descriptor, self.descriptor = self.descriptor, None
            with suppress(BrokenPipeError), os.fdopen(descriptor, "w") as pipe:
                pipe.write(line)


if __name__ == "__main__":
    main()
