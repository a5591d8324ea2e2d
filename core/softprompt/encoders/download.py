"""Fetching a model's weights from the Hugging Face hub: resumed where it broke off, and checked before it counts.

huggingface_hub itself starts anew after an interruption. So the bytes are fetched here, into the hub's own cache folder, and
huggingface_hub then finds them there as its own. HF_ENDPOINT, HF_HOME and HF_TOKEN mean what they mean to it.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock, SoftFileLock

from softprompt.encoders.catalog import ModelInfo
from softprompt.errors import ModelUnavailable, not_supported

TRIES = 5  # that bring nothing
WAIT, LONGEST_WAIT = 0.25, 600.0  # seconds; the first is doubled at every vain try; a busy hub may ask for more
BUSY = (429, 503)  # status codes
WAKE_EVERY = 0.25  # seconds between two looks, while a busy hub is waited for, whether to go on with that
OnBytes = Callable[[int, int], None]
"""Called with (bytes here, bytes in all), both 0 before the size is known; what it raises ends the download, a wait too."""

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


def fetch(info: ModelInfo, on_progress: OnBytes | None = None) -> Path:
    """The file of a model's weights, fetched if it is not on disk. Raises ModelRefused, ModelUnavailable."""
    if info.refused:
        raise not_supported(info.name, info.refused)
    here = info.on_disk
    if here is not None:
        return here
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    for file in info.files:
        try:
            return _fetch_file(info, file, on_progress)
        except EntryNotFoundError:
            continue  # the next of the names that the weights may have
        except GatedRepoError as error:
            raise ModelUnavailable(
                f"{info.name} asks its users to accept terms: do so at huggingface.co/{info.repository}, then set HF_TOKEN"
            ) from error
        except RepositoryNotFoundError as error:
            hidden = " that it shows without a token. Set HF_TOKEN" if error.response.status_code == 401 else ""
            raise ModelUnavailable(f"the hub has no {info.repository}, from which {info.name} comes{hidden}") from error
        except HfHubHTTPError as error:
            raise _answered(info, error.response.status_code) from error
    raise ModelUnavailable(f"{info.repository} on the hub has none of {', '.join(info.files)}")


def _unreachable(info: ModelInfo, why: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{info.name} is not on disk and cannot be fetched: {why}. Try again with a network (what came is kept), set HF_ENDPOINT "
        "to a mirror, or fetch it elsewhere with `softprompt-tui models pull` and copy the hub's cache folder (HF_HOME). "
        "The built-in model needs no network: --model mini"
    )


def _answered(info: ModelInfo, status: int) -> ModelUnavailable:
    """The error for an answer of the hub's that is no file."""
    if status == 401:
        return ModelUnavailable(
            f"the hub does not give {info.repository} to everybody (401): set HF_TOKEN to a token that it knows"
        )
    if status == 403:
        return ModelUnavailable(
            f"the hub does not give {info.repository} to this user (403): accept its terms at huggingface.co/{info.repository}, "
            "or set HF_TOKEN to a token that may read it"
        )
    return _unreachable(info, f"the hub is busy ({status})" if status in BUSY else f"the hub answered {status}")


def _asked_to_wait(response: Any) -> float | None:
    """The seconds that a busy hub asks to wait, 0 where it does not say how long; None for one that is not busy."""
    if getattr(response, "status_code", 0) not in BUSY:
        return None
    asked = response.headers.get("retry-after", "")
    if asked.isdecimal():
        return float(asked)
    try:
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone
        return 0.0


def _wait_for(info: ModelInfo, url: str, seconds: float, vain: int, on_wait: Callable[[], None]) -> None:
    """Waits as a busy hub asks, or the longer the more tries were in vain; raises ModelUnavailable where that is too long."""
    hub = urlsplit(url).netloc
    if seconds > LONGEST_WAIT:
        raise _unreachable(info, f"{hub} is busy, and asks to wait {seconds:.0f} s")
    if seconds:
        log.warning("%s is busy, and asks to wait %.0f s: waiting (Ctrl-C ends it)", hub, seconds)
    until = time.monotonic() + (seconds or WAIT * 2**vain)
    while (left := until - time.monotonic()) > 0:
        on_wait()
        time.sleep(min(left, WAKE_EVERY))


def _patiently(info: ModelInfo, url: str, call: Callable[[], Answer], on_wait: Callable[[], None]) -> Answer:
    """What `call` returns; where it fails since the hub is busy, that is waited for. Raises what `call` raises."""
    for vain in range(TRIES):
        try:
            return call()
        except Exception as error:
            # some functions of the hub's client raise an error of their own, with the answer behind it
            seconds = _asked_to_wait(getattr(error, "response", None) or getattr(error.__cause__, "response", None))
            if seconds is None or vain == TRIES - 1:
                raise
        _wait_for(info, url, seconds, vain, on_wait)
    raise AssertionError("the last try returns or raises")


def _fetch_file(info: ModelInfo, file: str, on_progress: OnBytes | None) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.file_download import repo_folder_name

    url = hf_hub_url(info.repository, file)

    def on_wait() -> None:
        if on_progress:  # which may end it, by an exception
            on_progress(0, 0)

    try:
        metadata = _patiently(info, url, lambda: get_hf_file_metadata(url), on_wait)
    except (HfHubHTTPError, ModelUnavailable):
        raise
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise _unreachable(info, "HF_HUB_OFFLINE is set") from error
    except Exception as error:  # the hub's client has changed its HTTP library, and with it these types, more than once
        raise _unreachable(info, f"no answer from the hub ({type(error).__name__})") from error
    etag, size = metadata.etag, metadata.size
    if not etag or not etag.isalnum() or size is None:
        raise _unreachable(info, "the hub's answer names no version and size of the file")
    blob = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=info.repository, repo_type="model") / "blobs" / etag
    if not blob.is_file() or blob.stat().st_size != size:
        try:
            _fetch_blob(info, metadata.location, blob, size, on_progress)
        except OSError as error:
            raise ModelUnavailable(
                f"{blob.parent} cannot be written to ({error.strerror}): free it, or set HF_HOME to another folder"
            ) from error
    try:
        return Path(_patiently(info, url, lambda: hf_hub_download(info.repository, file), on_wait))
    except ModelUnavailable:
        raise
    except Exception as error:  # as above; the weights are on disk, the next call needs no network
        raise _unreachable(info, f"the hub broke off ({type(error).__name__})") from error


def _fetch_blob(info: ModelInfo, url: str, blob: Path, size: int, on_progress: OnBytes | None) -> None:
    """Fetches `url` as `blob`, going on from what an earlier try left; checks size and, where the name gives it, SHA-256."""
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f"{blob.name}.softprompt-partial")

    def on_wait() -> None:
        if on_progress:
            on_progress(_size(partial), size)

    with _locked(f"{partial}.lock"):  # two programs must not append to one file
        if blob.is_file() and blob.stat().st_size == size:
            return
        why, vain = "", 0
        while vain < TRIES:
            begin = _size(partial)
            if begin > size:
                partial.unlink()
            elif begin == size:
                break
            missing, free = size - _size(partial), shutil.disk_usage(blob.parent).free
            if missing > free:
                raise ModelUnavailable(
                    f"{info.name} takes {missing / 1e6:,.0f} MB more, and {free / 1e6:,.0f} MB are free in {blob.parent}: free "
                    "some, or set HF_HOME to a folder on another disk"
                )
            seconds = 0.0
            try:
                if asked := _fetch_piece(info, url, partial, size, on_progress):
                    status, seconds = asked
                    why = f"the hub is busy ({status})"
            except (OSError, ModelUnavailable):
                raise
            except Exception as error:  # whatever the hub's HTTP library raises for a broken connection or a bad status
                why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'the connection broke'}"
            if _size(partial) <= begin:  # only tries that bring nothing are counted
                vain += 1
                if vain < TRIES:
                    _wait_for(info, url, seconds, vain - 1, on_wait)
        if _size(partial) != size:
            raise _unreachable(info, why or "the hub sends the file cut short")
        if len(blob.name) == 64 and _sha256(partial) != blob.name:
            partial.unlink()
            raise _unreachable(info, "what came does not match its checksum and was thrown away")
        partial.replace(blob)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Holds a lock file; where the file system has no locks, one that is there while it is held."""
    lock: FileLock | SoftFileLock = FileLock(path)
    try:
        lock.acquire()
    except NotImplementedError:
        lock = SoftFileLock(path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_piece(
    info: ModelInfo, url: str, partial: Path, size: int, on_progress: OnBytes | None
) -> tuple[int, float] | None:
    """Appends what one request brings; returns a busy hub's status and how many seconds it asks to wait.

    Raises ModelUnavailable for an answer that would be the same the next time, and what the hub's HTTP library raises.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]  # documented, not re-exported

    begin = _size(partial)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
    is_hub = urlsplit(url).netloc == urlsplit(hf_hub_url(info.repository, "x")).netloc
    if not is_hub:
        headers.pop("authorization", None)  # the user's token is the hub's business, not that of where it sends us
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
        if (seconds := _asked_to_wait(response)) is not None:
            return response.status_code, seconds
        if is_hub and response.status_code in (401, 403):
            raise _answered(info, response.status_code)
        response.raise_for_status()
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            raise _unreachable(
                info, f"it comes compressed ({encoding[:20]!r}), though it was asked for as it is: a proxy may do that"
            )
        begin = begin if response.status_code == 206 else 0
        with partial.open("ab" if begin else "wb") as out:
            for (
                piece
            ) in response.iter_raw():  # as it comes: what a larger piece waits for is lost when the connection breaks
                out.write(piece)
                begin += len(piece)
                if on_progress:
                    on_progress(min(begin, size), size)
                if begin > size:
                    break
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
