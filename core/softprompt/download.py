"""Fetching a model's weights from the Hugging Face hub: resumed where it broke off, and checked before it counts.

huggingface_hub itself starts anew after an interruption. So the bytes are fetched here, into the hub's own cache folder, and
huggingface_hub then finds them there as its own. HF_ENDPOINT, HF_HOME and HF_TOKEN mean what they mean to it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from softprompt.catalogue import ModelInfo
from softprompt.errors import ModelUnavailable
from softprompt.refusals import refuse_model

TRIES = 5  # that bring nothing
WAIT, LONGEST_WAIT = 0.25, 60.0  # seconds; the first is doubled at every vain try
Progress = Callable[[int, int], None]
"""Called with (bytes here, bytes in all)."""


def fetch(info: ModelInfo, on_progress: Progress | None = None) -> Path:
    """The file of a model's weights, fetched if it is not on disk. Raises ModelRefused, ModelUnavailable."""
    if info.refused:
        raise refuse_model(info.name, info.refused)
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
            raise ModelUnavailable(f"the hub has no {info.repository}, from which {info.name} comes") from error
        except HfHubHTTPError as error:
            raise _unreachable(info, f"the hub answered {error.response.status_code}") from error
    raise ModelUnavailable(f"{info.repository} on the hub has none of {', '.join(info.files)}")


def _unreachable(info: ModelInfo, why: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{info.name} is not on disk and cannot be fetched: {why}. Try again with a network (what came is kept), set HF_ENDPOINT "
        "to a mirror, or fetch it elsewhere with `softprompt-tui models pull` and copy the hub's cache folder (HF_HOME). "
        "The built-in model needs no network: --model mini"
    )


def _fetch_file(info: ModelInfo, file: str, on_progress: Progress | None) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.file_download import repo_folder_name

    try:
        metadata = get_hf_file_metadata(hf_hub_url(info.repository, file))
    except HfHubHTTPError:
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
        return Path(hf_hub_download(info.repository, file))
    except Exception as error:  # as above; the weights are on disk, the next call needs no network
        raise _unreachable(info, f"the hub broke off ({type(error).__name__})") from error


def _fetch_blob(info: ModelInfo, url: str, blob: Path, size: int, on_progress: Progress | None) -> None:
    """Fetches `url` as `blob`, going on from what an earlier try left; checks size and, where the name gives it, SHA-256."""
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f"{blob.name}.softprompt-partial")
    with FileLock(f"{partial}.lock"):  # two programs must not append to one file
        if blob.is_file() and blob.stat().st_size == size:
            return
        why, vain = "", 0
        while vain < TRIES:
            begin = _size(partial)
            if begin > size:
                partial.unlink()
            elif begin == size:
                break
            wait = WAIT * 2**vain
            try:
                wait = _fetch_piece(info, url, partial, size, on_progress) or wait
            except OSError:
                raise
            except Exception as error:  # whatever the hub's HTTP library raises for a broken connection or a bad status
                why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'the connection broke'}"
            if _size(partial) <= begin:  # only tries that bring nothing are counted
                vain += 1
                if vain < TRIES:
                    time.sleep(min(wait, LONGEST_WAIT))
        if _size(partial) != size:
            raise _unreachable(info, why or "the hub sends the file cut short")
        if len(blob.name) == 64 and _sha256(partial) != blob.name:
            partial.unlink()
            raise _unreachable(info, "what came does not match its checksum and was thrown away")
        partial.replace(blob)


def _fetch_piece(info: ModelInfo, url: str, partial: Path, size: int, on_progress: Progress | None) -> float:
    """Appends what one request brings; returns how many seconds a busy hub asks to wait, or 0."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]  # documented, not re-exported

    begin = _size(partial)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begin}-"} if begin else {})
    if urlsplit(url).netloc != urlsplit(hf_hub_url(info.repository, "x")).netloc:
        headers.pop("authorization", None)  # the user's token is the hub's business, not that of where it sends us
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
        if response.status_code in (429, 503):
            asked = response.headers.get("retry-after", "")
            return float(asked) if asked.isdecimal() else 0.0
        response.raise_for_status()
        begin = begin if response.status_code == 206 else 0
        with partial.open("ab" if begin else "wb") as out:
            for piece in response.iter_raw():  # as it comes: what a larger piece waits for is lost when the connection breaks
                out.write(piece)
                begin += len(piece)
                if on_progress:
                    on_progress(min(begin, size), size)
                if begin > size:
                    break
    return 0.0


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
