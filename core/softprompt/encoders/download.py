"""Download a model's weights from the Hugging Face hub, resume interrupted downloads and verify the result.

huggingface_hub starts over after an interruption, so this module downloads the file itself. It writes to the hub's
cache folder, where huggingface_hub then finds the file. HF_ENDPOINT, HF_HOME and HF_TOKEN work as usual.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, TypeVar
from urllib.parse import urlsplit

from softprompt.encoders.catalog import ModelInfo
from softprompt.encoders.hub_cache import PARTIAL_SUFFIX, repository_folder, try_lock
from softprompt.errors import ModelUnavailable, model_not_supported, wording

MAX_FAILED_TRIES = 5  # tries that receive no bytes
# the wait doubles with every failed try; a hub that asks for more than the maximum counts as unavailable
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.25, 600.0
BUSY_STATUSES = (429, 503)
POLL_SECONDS = 0.25  # between calls to `on_progress` while waiting; it can cancel the wait
SILENCE_SECONDS = 30.0  # a hub that sends nothing for this long has failed the try
MAX_READ_AHEAD = 16  # pieces of a file that wait to be written, about 64 KB each
OnBytes = Callable[[int, int], None]
"""Called with the bytes received and the total, both 0 while the total is unknown. May raise to cancel the download.

It is called several times a second, even while the hub sends nothing.
"""

Item = TypeVar("Item")
Result = TypeVar("Result")
log = logging.getLogger(__name__)


def fetch(info: ModelInfo, on_progress: OnBytes | None = None) -> Path:
    """Return the path of a model's weights, downloading them if necessary.

    Raises:
        ModelRefused: this version cannot run the model.
        ModelUnavailable: the download failed, or this user has no access to the weights.
    """
    path = fetch_if_present(info, on_progress)
    if path is None:
        raise ModelUnavailable(
            f"{info.name} is unavailable: {info.repository} on the hub contains none of {', '.join(info.files)}"
        )
    return path


def fetch_if_present(info: ModelInfo, on_progress: OnBytes | None = None) -> Path | None:
    """Return the path of a model's file, downloading it if necessary, or None if its repository has no such file.

    Raises the errors of `fetch`.
    """
    if info.refused:
        raise model_not_supported(info.name, info.refused)
    path = info.weights_path
    if path is not None:
        return path
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    for file in info.files:
        try:
            return _fetch_file(info, file, on_progress)
        except EntryNotFoundError:
            continue  # try the next file name
        except GatedRepoError as error:
            raise ModelUnavailable(
                f"access to {info.name} requires accepting its terms of use. Accept them at "
                f"huggingface.co/{info.repository}, then set HF_TOKEN."
            ) from error
        except RepositoryNotFoundError as error:
            hint = (
                ", or it is private. Set HF_TOKEN to a token with read access."
                if error.response.status_code == 401
                else ""
            )
            raise ModelUnavailable(f"{info.name} is unavailable: the hub has no {info.repository}{hint}") from error
        except HfHubHTTPError as error:
            raise _status_error(info, error.response.status_code) from error
    return None


def _cannot_download(info: ModelInfo, reason: str) -> ModelUnavailable:
    pull = wording("run `softprompt-tui models pull`", "load the model")
    mini = wording("--model mini", "softprompt.load_encoder('mini')")
    return ModelUnavailable(
        f"{info.name} is not on disk and cannot be downloaded: {reason}. Try again with a network connection (the "
        f"download resumes where it stopped), set HF_ENDPOINT to a mirror, or {pull} on another machine and copy the "
        f"hub's cache folder (HF_HOME). The built-in model needs no network: {mini}."
    )


def _status_error(info: ModelInfo, status: int) -> ModelUnavailable:
    """Return the error for an HTTP status sent by the hub."""
    if status == 401:
        return ModelUnavailable(f"the hub requires a valid token for {info.repository} (status 401). Set HF_TOKEN.")
    if status == 403:
        return ModelUnavailable(
            f"the hub denies access to {info.repository} (status 403). Accept its terms at "
            f"huggingface.co/{info.repository}, or set HF_TOKEN to a token with read access."
        )
    return _cannot_download(
        info, f"the hub is busy ({status})" if status in BUSY_STATUSES else f"the hub responded with status {status}"
    )


def _seconds_to_wait(response: Any) -> float | None:
    """Return how many seconds a busy hub asks us to wait (0 if it gives no time), or None if it is not busy."""
    if getattr(response, "status_code", 0) not in BUSY_STATUSES:
        return None
    retry_after = response.headers.get("retry-after", "")
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # neither a number nor a date with a time zone
        return 0.0


def _wait(info: ModelInfo, url: str, seconds: float, failed: int, on_poll: Callable[[], None]) -> None:
    """Wait before the next try: `seconds` if the hub gave a time, otherwise longer after every failed try.

    Raises:
        ModelUnavailable: the hub asks us to wait longer than MAX_WAIT_SECONDS.
    """
    hub = urlsplit(url).netloc
    if seconds > MAX_WAIT_SECONDS:
        raise _cannot_download(info, f"{hub} is busy and asked us to retry in {seconds:.0f} s")
    if seconds:
        log.warning("%s is busy and asked us to retry in %.0f s; waiting (Ctrl-C cancels)", hub, seconds)
    deadline = time.monotonic() + (seconds or FIRST_WAIT_SECONDS * 2**failed)
    while (remaining := deadline - time.monotonic()) > 0:
        on_poll()
        time.sleep(min(remaining, POLL_SECONDS))
    log.info("trying again")


def _retry_while_busy(info: ModelInfo, url: str, call: Callable[[], Result], on_poll: Callable[[], None]) -> Result:
    """Return the result of `call`. While the hub is too busy, wait and try again."""
    for failed in range(MAX_FAILED_TRIES):
        try:
            return next(_poll_while(_as_items(call), on_poll))
        except Exception as error:
            # some of huggingface_hub's functions wrap the HTTP error in one of their own
            seconds = _seconds_to_wait(getattr(error, "response", None) or getattr(error.__cause__, "response", None))
            if seconds is None or failed == MAX_FAILED_TRIES - 1:
                raise
        _wait(info, url, seconds, failed, on_poll)
    raise AssertionError("unreachable: the last try returns or raises")


def _as_items(call: Callable[[], Result]) -> Generator[Result]:
    yield call()


def _poll_while(items: Generator[Item], on_poll: Callable[[], None]) -> Generator[Item]:
    """Yield the items of a generator, and call `on_poll` several times a second while waiting for them.

    The generator runs in a thread, because a request blocks until the hub answers. If `on_poll` raises, the thread is
    abandoned: it ends with the timeout of its request at the latest, and touches no file.
    """
    results: Queue[tuple[list[Item], BaseException | None]] = Queue(MAX_READ_AHEAD)
    is_abandoned = threading.Event()

    def put(found: list[Item], error: BaseException | None = None) -> None:
        while not is_abandoned.is_set():
            try:
                results.put((found, error), timeout=POLL_SECONDS)
                return
            except Full:
                continue

    def read() -> None:
        try:
            for item in items:
                put([item])
                if is_abandoned.is_set():
                    break
            put([])
        except BaseException as error:  # raised again by the thread that waits
            put([], error)
        finally:
            items.close()

    threading.Thread(target=read, name="hub", daemon=True).start()
    try:
        while True:
            try:
                found, error = results.get(timeout=POLL_SECONDS)
            except Empty:
                on_poll()
                continue
            if error is not None:
                raise error
            if not found:
                return
            yield found[0]
    finally:
        is_abandoned.set()


def _fetch_file(info: ModelInfo, file: str, on_progress: OnBytes | None) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    url = hf_hub_url(info.repository, file)

    def on_poll() -> None:
        if on_progress:
            on_progress(0, 0)

    try:
        metadata = _retry_while_busy(info, url, lambda: get_hf_file_metadata(url), on_poll)
    except (HfHubHTTPError, ModelUnavailable):
        raise
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise _cannot_download(info, "HF_HUB_OFFLINE is set") from error
    except Exception as error:  # of any type: huggingface_hub has changed its HTTP library more than once
        raise _cannot_download(info, f"no answer from the hub ({type(error).__name__})") from error
    etag, size = metadata.etag, metadata.size
    if not etag or not etag.isalnum() or size is None:
        raise _cannot_download(info, "the hub did not report the version and size of the file")
    blob = repository_folder(info.repository) / "blobs" / etag
    if not blob.is_file() or blob.stat().st_size != size:
        try:
            _fetch_blob(info, metadata.location, blob, size, on_progress)
        except OSError as error:
            raise ModelUnavailable(
                f"cannot write to {blob.parent}: {error.strerror}. Set HF_HOME to a writable folder on a "
                "disk with enough space."
            ) from error
    try:
        return Path(_retry_while_busy(info, url, lambda: hf_hub_download(info.repository, file), on_poll))
    except ModelUnavailable:
        raise
    except Exception as error:  # of any type, as above; the weights are on disk now, so the next call needs no network
        raise _cannot_download(info, f"the connection to the hub was lost ({type(error).__name__})") from error


def _fetch_blob(info: ModelInfo, url: str, blob: Path, size: int, on_progress: OnBytes | None) -> None:
    """Download `url` to `blob`, resuming a partial download. Verify the size, and the SHA-256 if it names the blob."""
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f"{blob.name}{PARTIAL_SUFFIX}")

    def on_poll() -> None:
        if on_progress:
            on_progress(_file_size(partial), size)

    with hold_lock(info, partial, on_poll):  # two processes must not append to the same file
        if blob.is_file() and blob.stat().st_size == size:
            return
        reason, failed = "", 0
        while failed < MAX_FAILED_TRIES:
            received = _file_size(partial)
            if received > size:
                partial.unlink()
            elif received == size:
                break
            missing, free = size - _file_size(partial), shutil.disk_usage(blob.parent).free
            if missing > free:
                raise ModelUnavailable(
                    f"{info.name} needs {missing / 1e6:,.0f} MB, but {blob.parent} has only {free / 1e6:,.0f} MB free. "
                    "Free some space, or set HF_HOME to a folder on another disk."
                )
            seconds = 0.0
            try:
                if busy := _fetch_rest(info, url, partial, size, on_progress):
                    status, seconds = busy
                    reason = f"the hub is busy ({status})"
            except (OSError, ModelUnavailable):
                raise
            except Exception as error:  # the HTTP library's errors for a lost connection or an error status
                reason = _describe_lost_connection(error)
            if _file_size(partial) <= received:  # a try that received bytes does not count
                failed += 1
                if failed < MAX_FAILED_TRIES:
                    _wait(info, url, seconds, failed - 1, on_poll)
        if _file_size(partial) != size:
            raise _cannot_download(info, reason or "the hub sent a truncated file")
        if len(blob.name) == 64 and _sha256(partial) != blob.name:
            partial.unlink()
            raise _cannot_download(info, "the downloaded file does not match its checksum and was deleted")
        partial.replace(blob)


@contextmanager
def hold_lock(info: ModelInfo, partial: Path, on_poll: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a download, waiting for another program that downloads the same file."""
    has_waited = False
    while (lock := try_lock(partial)) is None:
        if not has_waited:
            log.warning("another program is pulling %s; waiting for it (Ctrl-C cancels)", info.name)
            has_waited = True
        on_poll()
        time.sleep(POLL_SECONDS)
    if has_waited:
        log.info("the other program has finished or stopped")
    try:
        yield
    finally:
        lock.release()


def _describe_lost_connection(error: Exception) -> str:
    name = type(error).__name__
    if "Timeout" in name:
        return f"the hub sent nothing for {SILENCE_SECONDS:.0f} s"
    return f"{name}: {str(error).splitlines()[0] if str(error) else 'the connection was lost'}"


def _fetch_rest(
    info: ModelInfo, url: str, partial: Path, size: int, on_progress: OnBytes | None
) -> tuple[int, float] | None:
    """Send one request and append the received bytes to `partial`.

    Returns:
        The status and the seconds to wait if the hub is busy, otherwise None.

    Raises:
        ModelUnavailable: trying again would not help.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, but not re-exported

    received = _file_size(partial)
    headers = (
        build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={received}-"} if received else {})
    )
    is_hub = urlsplit(url).netloc == urlsplit(hf_hub_url(info.repository, "x")).netloc
    if not is_hub:
        headers.pop("authorization", None)  # never send the user's token to a host that the hub redirects to

    def report() -> None:
        if on_progress:
            on_progress(min(received, size), size)

    with closing(_poll_while(_request(url, headers), report)) as pieces:
        response = next(pieces)
        if (seconds := _seconds_to_wait(response)) is not None:
            return response.status_code, seconds
        if is_hub and response.status_code in (401, 403):
            raise _status_error(info, response.status_code)
        response.raise_for_status()
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            raise _cannot_download(
                info,
                f"the file arrived compressed ({encoding[:20]!r}), which was not requested. A proxy may be the cause",
            )
        received = received if response.status_code == 206 else 0
        report()
        with partial.open("ab" if received else "wb") as out:
            for data in pieces:
                out.write(data)
                received += len(data)
                report()
                if received > size:
                    break
    return None


def _request(url: str, headers: dict[str, str]) -> Generator[Any]:
    """Yield the response to a GET request, then the pieces of its body."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # documented, but not re-exported

    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=SILENCE_SECONDS) as response:
        yield response
        # no chunk size: bytes of an incomplete chunk would be lost with the connection
        yield from response.iter_raw()


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
