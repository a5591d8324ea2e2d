"""Find and delete models on disk: in the Hugging Face cache, a folder that all programs of a user share, and our own.

Finding imports neither torch nor huggingface_hub, apart from its constants.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from softprompt.encoders.catalog import (
    HUB_PREFIX,
    LANGUAGE_MODELS,
    MINI,
    ModelInfo,
    find_local,
    hub_repository,
    quick_gelu_name,
)
from softprompt.encoders.causal_lm.facts import PARTIAL_PREFIX, find_weight_files, is_causal_folder, read_sizes
from softprompt.encoders.causal_lm.folder import INDEX_FILE, WEIGHTS_FILE
from softprompt.errors import ConfigError, ModelUnavailable, UnknownModel, describe_error

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, HFCacheInfo

LOCK_SUFFIX = ".lock"
PARTIAL_SUFFIX = ".softprompt-partial"  # of an unfinished download; huggingface_hub's own ones end in .incomplete


def cache_root() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def repository_folder(repository: str) -> Path:
    """Return the folder of a repository in the cache. It exists once something has been downloaded."""
    return cache_root() / f"models--{repository.replace('/', '--')}"


# finding


@dataclass(frozen=True)
class DiskState:
    """The files of a model on disk.

    Attributes:
        path: the path of the weights or of their first file, or None if they are not on disk.
        bytes: size of all weights files, or 0.
        partial_bytes: size of unfinished downloads, which the next download continues.
    """

    path: Path | None = None
    bytes: int = 0
    partial_bytes: int = 0


def scan(models: Iterable[ModelInfo]) -> dict[str, DiskState]:
    """Return the state of each model by name. Lists the cache folder once and looks only into folders that exist."""
    root = cache_root()
    try:
        present = set(os.listdir(root))  # noqa: PTH208  # four times as fast
    except OSError:  # there is no cache yet, or it cannot be read
        present = set()
    states = {}
    for info in models:
        if info.name == MINI:
            states[info.name] = _weights_state([info.weights_path])
        elif not info.repository:
            states[info.name] = _sum_state(info.weight_files)
        else:
            folder = repository_folder(info.repository)
            states[info.name] = _scan_repository(folder, info) if folder.name in present else DiskState()
    return states


def list_language_models() -> list[ModelInfo]:
    """Return the language models in the hub's cache, also unfinished ones, without those that the catalog lists."""
    listed = {info.repository for info in LANGUAGE_MODELS}
    models = []
    for folder in sorted(cache_root().glob("models--*--*")):
        try:
            name = f"{HUB_PREFIX}{folder.name.removeprefix('models--').replace('--', '/')}"
            repository, snapshot = hub_repository(name), _main_snapshot(folder)
        except (OSError, ValueError, UnknownModel):  # a stranger's folder, or nothing has been downloaded completely
            continue
        is_started = find_weight_files(snapshot) or any(_find_partials(folder))
        if repository not in listed and is_started and is_causal_folder(snapshot):
            files = (WEIGHTS_FILE, INDEX_FILE)
            models.append(ModelInfo(name, *read_sizes(snapshot), repository, files, kind="causal"))
    return models


def _main_snapshot(folder: Path) -> Path:
    """Return the folder of the revision that the hub calls main. Raises OSError or ValueError if there is none."""
    return folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="utf-8").strip()


def _scan_repository(folder: Path, info: ModelInfo) -> DiskState:
    try:
        snapshot = _main_snapshot(folder)
        if info.kind == "causal":
            state = _sum_state(find_weight_files(snapshot))
        else:
            state = _weights_state([snapshot / file for file in info.files])
    except (OSError, ValueError):  # nothing has been downloaded completely
        state = DiskState()
    return replace(state, partial_bytes=sum(_size(partial) for partial in _find_partials(folder)))


def _weights_state(paths: Iterable[Path | None]) -> DiskState:
    for path in paths:
        if path is not None and path.is_file():
            return DiskState(path, _size(path))
    return DiskState()


def _sum_state(files: Sequence[Path]) -> DiskState:
    """Return the state of a model that has all these files."""
    return DiskState(files[0], sum(map(_size, files))) if files else DiskState()


def _find_partials(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Return the unfinished downloads in a repository, or with LOCK_SUFFIX those whose lock exists."""
    with suppress(OSError):
        for path in (folder / "blobs").iterdir():
            if path.name.endswith(f"{PARTIAL_SUFFIX}{suffix}"):
                yield path.with_name(path.name.removesuffix(suffix))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it has just vanished
        return 0


def describe(models: Iterable[ModelInfo]) -> list[dict[str, object]]:
    """Return the JSON output of `models`: the facts about each model, and which of its files are on disk.

    `bytes` is the size of the weights, or null if they are not on disk, because only the hub knows their size.
    `same_as` is the model that is loaded under this name, or null if that is the model itself.
    """
    models = list(models)
    states, names = scan(models), {info.name for info in models}
    descriptions = []
    for info in models:
        state, variant = states[info.name], quick_gelu_name(info.name)
        descriptions.append(
            info.as_dict(on_disk=state.path is not None)
            | {
                "bytes": state.bytes if state.path else None,
                "partial_bytes": state.partial_bytes,
                "repository": info.repository or None,
                "same_as": variant if variant in names else None,
            }
        )
    return descriptions


# deleting


@dataclass(frozen=True)
class CachedRevision:
    """A version of a repository in the cache. `refs` are its names on the hub, such as main."""

    commit: str
    bytes: int
    refs: tuple[str, ...] = ()


@dataclass(frozen=True)
class CachedFiles:
    """The files that deleting a model removes: the revisions of its repository and its unfinished downloads.

    Attributes:
        bytes: total size on disk. It can be less than the sum of the revisions, because they can share files.
        converted: the folder of a converted model in our own cache, which has no repository, or None.
    """

    model: str
    repository: str
    bytes: int = 0
    revisions: tuple[CachedRevision, ...] = ()
    partials: tuple[Path, ...] = ()
    partial_bytes: int = 0
    converted: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.revisions or self.partials or self.converted)


def check_deletable(model: str) -> None:
    """Raise ConfigError for the built-in model and for the user's own files: neither is in the cache."""
    if model.lower() == MINI:
        raise ConfigError("mini is part of the package and cannot be deleted. Delete models that were downloaded.")
    if find_local(model) is not None:
        raise ConfigError(
            f"{model} is a model of your own, which this program never deletes. Delete models that were downloaded."
        )


def find_files(model: str, repository: str) -> CachedFiles:
    """Return what the cache holds of a model. Reads the whole cache.

    Raises:
        ConfigError: the model is not one that was downloaded.
    """
    check_deletable(model)
    if not repository:
        return _find_converted(model)
    folder = repository_folder(repository)
    partials = tuple(sorted(_find_partials(folder)))
    partial_bytes = sum(map(_size, partials))
    found = _cached_repository(repository)
    repo = found[1] if found else None
    revisions = sorted(repo.revisions, key=lambda revision: -revision.last_modified) if repo else []
    return CachedFiles(
        model,
        repository,
        (repo.size_on_disk if repo else 0) + partial_bytes,
        tuple(
            CachedRevision(revision.commit_hash, revision.size_on_disk, tuple(sorted(revision.refs)))
            for revision in revisions
        ),
        partials,
        partial_bytes,
    )


def _find_converted(model: str) -> CachedFiles:
    """Return the files of a model that comes from a wheel."""
    wheel = next((info.wheel for info in LANGUAGE_MODELS if info.name == model), None)
    if wheel is None or not wheel.folder.is_dir():
        return CachedFiles(model, "")
    return CachedFiles(model, "", sum(map(_size, wheel.folder.iterdir())), converted=wheel.folder)


def delete(files: CachedFiles) -> int:
    """Delete the listed revisions and unfinished downloads. Keep newer ones. Return the bytes freed.

    Files that other revisions use are kept. Files that another program has already deleted are skipped.

    Raises:
        ModelUnavailable: another program is downloading the model, or a file cannot be deleted.
    """
    if files.converted is not None:
        return _delete_converted(files, files.converted)
    folder = repository_folder(files.repository)
    partials = {*_find_partials(folder), *_find_partials(folder, LOCK_SUFFIX)}
    with ExitStack() as locks:
        for partial in partials:
            lock = try_lock(partial)
            if lock is None:
                raise _is_being_pulled_error(files.model)
            locks.callback(lock.release)
        freed = _delete_revisions(files.repository, [revision.commit for revision in files.revisions])
        for partial in partials:
            if partial in files.partials or not partial.exists():  # a finished download leaves its lock behind
                freed += _delete_partial(partial)
        _remove_empty_folders(folder)
    left = [revision.commit for revision in files.revisions if (folder / "snapshots" / revision.commit).exists()]
    if left:
        raise ModelUnavailable(
            f"cannot delete {folder / 'snapshots' / left[0]}. Check who owns the folder, and delete it by hand."
        )
    return freed


def _is_being_pulled_error(model: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"another program is pulling {model}. Wait until it is done, or stop it, then delete again."
    )


def _delete_converted(files: CachedFiles, folder: Path) -> int:
    """Delete a converted model. It loses its name first, so that a half deleted one never counts as being on disk."""
    lock = try_lock(folder.parent / files.model)
    if lock is None:
        raise _is_being_pulled_error(files.model)
    doomed = folder.parent / f"{PARTIAL_PREFIX}{secrets.token_hex(8)}"
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except FileNotFoundError:  # another program has deleted it first
        return 0
    except OSError as error:
        raise ModelUnavailable(
            f"cannot delete {folder}: {error.strerror}. Check who owns the folder, and delete it by hand."
        ) from error
    finally:
        lock.release()
    return files.bytes


def _cached_repository(repository: str) -> tuple[HFCacheInfo, CachedRepoInfo] | None:
    """Return a copy of the cache's listing that has only this repository, and the repository. None if it is missing.

    Raises:
        ModelUnavailable: the cache cannot be read.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    root = cache_root()
    try:
        cached = scan_cache_dir(root)
        repo = next((repo for repo in cached.repos if (repo.repo_type, repo.repo_id) == ("model", repository)), None)
        if repo is None:  # huggingface_hub leaves out a repository as soon as one of its links is broken
            repo = _read_damaged_repository(repository)
    except CacheNotFound:
        return None
    except (OSError, ValueError) as error:
        reason = describe_error(error) if isinstance(error, OSError) else "it is a file"
        raise ModelUnavailable(
            f"cannot read the Hugging Face cache {root} ({reason}). It must be a folder that you can read. Check "
            "it, or set HF_HOME to another folder."
        ) from error
    return (replace(cached, repos=frozenset([repo])), repo) if repo else None


def _read_damaged_repository(repository: str) -> CachedRepoInfo | None:
    """Return the revisions of a repository with the files that they still have, or None if there are none."""
    from huggingface_hub import CachedFileInfo, CachedRepoInfo, CachedRevisionInfo

    folder = repository_folder(repository)
    if not (folder / "snapshots").is_dir():
        return None
    refs: dict[str, set[str]] = {}
    for path in (folder / "refs").rglob("*"):
        if path.is_file():
            commit = path.read_text(encoding="utf-8", errors="replace").strip()
            refs.setdefault(commit, set()).add(path.relative_to(folder / "refs").as_posix())
    revisions = []
    for snapshot in (folder / "snapshots").iterdir():
        if snapshot.is_symlink() or not snapshot.is_dir():
            continue
        files = []
        for path in snapshot.rglob("*"):
            if path.is_file():  # its blob is there
                blob = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path
                files.append(CachedFileInfo(path.name, path, blob, _size(blob), 0.0, 0.0))
        size = sum(_size(blob) for blob in {file.blob_path for file in files})
        names = frozenset(refs.get(snapshot.name, ()))
        modified = snapshot.stat().st_mtime
        revisions.append(CachedRevisionInfo(snapshot.name, snapshot, size, frozenset(files), names, modified))
    if not revisions:
        return None
    blobs = {file.blob_path for revision in revisions for file in revision.files}
    total = sum(map(_size, blobs))
    return CachedRepoInfo(repository, "model", folder, total, len(blobs), frozenset(revisions), 0.0, 0.0)


def _delete_revisions(repository: str, commits: Iterable[str]) -> int:
    """Delete those of the revisions that still exist. Return the bytes freed."""
    found = _cached_repository(repository)
    if found is None:
        return 0
    cached, repo = found
    revisions = [revision for revision in repo.revisions if revision.commit_hash in commits]
    # `cached` holds only this repository, because a copy of it on the hub can have the same commits
    plan = cached.delete_revisions(*(revision.commit_hash for revision in revisions))
    if plan.repos:  # huggingface_hub would delete the whole folder, with what another program is adding to it
        plan = replace(
            plan,
            repos=frozenset(),
            snapshots=frozenset(revision.snapshot_path for revision in revisions),
            refs=frozenset(repo.repo_path / "refs" / ref for revision in revisions for ref in revision.refs),
            blobs=frozenset(
                file.blob_path
                for revision in revisions
                for file in revision.files
                if revision.snapshot_path not in file.blob_path.parents  # on file systems without symlinks
            ),
        )
    plan.execute()
    for revision in revisions:
        shutil.rmtree(repo.repo_path / ".no_exist" / revision.commit_hash, ignore_errors=True)
    return plan.expected_freed_size


def _delete_partial(partial: Path) -> int:
    """Delete an unfinished download, whose lock this process holds. Return the bytes freed."""
    freed = _size(partial)
    try:
        partial.unlink(missing_ok=True)
        _lock_path(partial).unlink(missing_ok=True)
    except OSError as error:
        raise ModelUnavailable(
            f"cannot delete {partial}: {error.strerror}. Check who owns the folder, and delete it by hand."
        ) from error
    return freed


def _remove_empty_folders(folder: Path) -> None:
    """Remove what is left of a repository's folder if it contains no file."""
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty
            Path(path).rmdir()


# locks


def _lock_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}{LOCK_SUFFIX}")


def is_being_pulled(repository: str) -> bool:
    """Return whether a program is downloading a model of this repository."""
    for partial in _find_partials(repository_folder(repository), LOCK_SUFFIX):
        lock = try_lock(partial)
        if lock is None and _lock_path(partial).exists():
            return True
        if lock is not None:
            lock.release()
    return False


def try_lock(partial: Path) -> BaseFileLock | None:
    """Lock an unfinished download. Return None if another program is downloading it.

    On file systems without locking, the existence of the lock file is the lock.
    """
    path = _lock_path(partial)
    for lock in (FileLock(path), SoftFileLock(path)):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        except NotImplementedError:
            continue
        if path.exists():
            return lock
        lock.release()  # a deletion has just removed the file, so no other process would find this lock
        return None
    return None
