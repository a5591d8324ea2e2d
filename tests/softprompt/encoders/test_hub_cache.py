"""What of a model is in the Hugging Face cache, and deleting exactly that. huggingface_hub itself is the judge."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.file_download import repo_folder_name

from softprompt.encoders import hub_cache
from softprompt.encoders.catalog import ModelInfo, mini_model
from softprompt.encoders.hub_cache import DiskState, delete, find_files, repository_folder, scan, try_lock
from softprompt.errors import ConfigError, ModelUnavailable

REPOSITORY, FILE = "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"
INFO = ModelInfo(
    "ViT-B-32-quickgelu/openai", 512, 12, 77, 63_000_000, REPOSITORY, (FILE, "open_clip_pytorch_model.bin")
)
OLD, NEW = "0" * 40, "1" * 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def add_revision(commit: str, contents: dict[str, bytes], repository: str = REPOSITORY, ref: str = "") -> Path:
    """Put a revision into the cache, as huggingface_hub does. Files with the same bytes share a blob."""
    folder = repository_folder(repository)
    snapshot = folder / "snapshots" / commit
    for path in (folder / "blobs", folder / "refs", snapshot):
        path.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        blob = folder / "blobs" / f"{abs(hash(data)):x}"
        blob.write_bytes(data)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    if ref:
        (folder / "refs" / ref).write_text(commit)
    return snapshot


def add_partial(size: int = 7) -> Path:
    partial = repository_folder(REPOSITORY) / "blobs" / f"abc{hub_cache.PARTIAL_SUFFIX}"
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(bytes(size))
    partial.with_name(f"{partial.name}.lock").touch()
    return partial


def commits(repository: str = REPOSITORY) -> set[str]:
    """Return the revisions that huggingface_hub sees, and check that it finds nothing broken."""
    cached = scan_cache_dir(hub_cache.cache_root())
    assert cached.warnings == []
    return {rev.commit_hash for repo in cached.repos if repo.repo_id == repository for rev in repo.revisions}


def test_folders_have_the_names_that_huggingface_hub_gives_them(cache: Path) -> None:
    assert repository_folder(REPOSITORY) == cache / repo_folder_name(repo_id=REPOSITORY, repo_type="model")


def test_one_scan_finds_the_weights_of_all_models() -> None:
    other = ModelInfo("ViT-L-14/openai", 768, 12, 77, 1, "timm/other", (FILE,))
    second_name = ModelInfo("RN50/openai", 512, 12, 77, 1, REPOSITORY, ("missing.safetensors",))
    snapshot = add_revision(NEW, {FILE: b"weights"}, ref="main")
    states = scan([mini_model(), INFO, other, second_name])
    assert states[INFO.name] == DiskState(snapshot / FILE, 7)
    assert states[INFO.name].path == INFO.weights_path
    assert states["mini"].bytes > 10_000_000
    assert states[other.name] == states[second_name.name] == DiskState()


def test_without_a_cache_nothing_is_on_disk() -> None:
    assert scan([INFO]) == {INFO.name: DiskState()}
    assert not find_files(INFO.name, REPOSITORY)


def test_only_the_revision_that_the_hub_calls_main_counts_as_on_disk() -> None:
    add_revision(OLD, {FILE: b"old"})
    assert scan([INFO])[INFO.name].path is None
    assert INFO.weights_path is None
    add_revision(NEW, {"config.json": b"{}"}, ref="main")
    assert scan([INFO])[INFO.name].path is None
    assert INFO.weights_path is None


def test_an_unfinished_download_is_a_part() -> None:
    add_partial(7)
    assert scan([INFO])[INFO.name] == DiskState(None, 0, 7)
    files = find_files(INFO.name, REPOSITORY)
    assert (files.bytes, files.revisions) == (7, ())
    assert delete(files) == 7
    assert not repository_folder(REPOSITORY).exists()


def test_deleting_removes_the_listed_revisions_and_what_only_they_use() -> None:
    add_revision(OLD, {FILE: b"old weights", "config.json": b"shared"})
    files = find_files(INFO.name, REPOSITORY)
    assert [revision.commit for revision in files.revisions] == [OLD]
    new = add_revision(NEW, {FILE: b"new weights", "config.json": b"shared"}, ref="main")  # by another program
    assert delete(files) == len(b"old weights")
    assert commits() == {NEW}
    assert (new / FILE).read_bytes() == b"new weights"
    assert (new / "config.json").read_bytes() == b"shared"
    assert len(list((new.parents[1] / "blobs").iterdir())) == 2


def test_deleting_everything_leaves_no_folder_but_keeps_what_another_program_is_adding() -> None:
    add_revision(NEW, {FILE: b"weights"}, ref="main")
    incomplete = repository_folder(REPOSITORY) / "blobs" / "def.incomplete"
    incomplete.write_bytes(b"another program's download")
    assert delete(find_files(INFO.name, REPOSITORY)) == len(b"weights")
    assert [path for path in repository_folder(REPOSITORY).rglob("*") if path.is_file()] == [incomplete]
    incomplete.unlink()
    add_revision(NEW, {FILE: b"weights"}, ref="main")
    delete(find_files(INFO.name, REPOSITORY))
    assert not repository_folder(REPOSITORY).exists()


def test_a_copy_of_the_repository_with_the_same_commit_stays() -> None:
    for repository in (REPOSITORY, "somebody/copy", "a/copy"):
        add_revision(NEW, {FILE: b"weights"}, repository, ref="main")
    delete(find_files(INFO.name, REPOSITORY))
    assert commits() == set()
    assert commits("somebody/copy") == commits("a/copy") == {NEW}


def test_what_another_program_deleted_first_is_no_error() -> None:
    add_revision(NEW, {FILE: b"weights"}, ref="main")
    partial = add_partial()
    files = find_files(INFO.name, REPOSITORY)
    scan_cache_dir(hub_cache.cache_root()).delete_revisions(NEW).execute()
    assert not partial.exists()
    assert delete(files) == 0


def break_a_link() -> None:
    (repository_folder(REPOSITORY) / "snapshots" / NEW / "config.json").symlink_to("../../blobs/missing")


def add_a_lost_name() -> None:
    (repository_folder(REPOSITORY) / "refs" / "old").write_text("2" * 40)


@pytest.mark.parametrize("damage", [break_a_link, add_a_lost_name])
def test_a_damaged_repository_can_be_deleted(damage: Callable[[], None]) -> None:
    """huggingface_hub's listing leaves it out, but its weights are on disk."""
    add_revision(OLD, {FILE: b"old weights", "config.json": b"shared"})
    add_revision(NEW, {FILE: b"weights", "tokenizer.json": b"shared"}, ref="main")
    damage()
    assert scan([INFO])[INFO.name].bytes == 7
    files = find_files(INFO.name, REPOSITORY)
    assert {revision.commit: (revision.bytes, revision.refs) for revision in files.revisions} == {
        OLD: (17, ()), NEW: (13, ("main",)),
    }  # fmt: skip
    assert files.bytes == delete(files) == 24
    assert scan([INFO])[INFO.name] == DiskState()
    assert list(repository_folder(REPOSITORY).rglob("blobs/*")) == []


def test_a_cache_that_is_no_folder_is_reported(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(ModelUnavailable, match=r"cannot read the Hugging Face cache .*hub .*set HF_HOME"):
        find_files(INFO.name, REPOSITORY)


@pytest.fixture
def pulling_program() -> Iterator[Path]:
    """Another process that holds the lock of a download."""
    partial = add_partial()
    context = multiprocessing.get_context("spawn")
    has_locked, may_end = context.Event(), context.Event()
    process = context.Process(target=hold_lock, args=(partial, has_locked, may_end))
    process.start()
    assert has_locked.wait(30)
    yield partial
    may_end.set()
    process.join()


def hold_lock(partial: Path, has_locked, may_end) -> None:  # type: ignore[no-untyped-def]
    lock = try_lock(partial)
    assert lock is not None
    has_locked.set()
    may_end.wait(60)
    lock.release()


def test_nothing_is_deleted_while_another_program_pulls(pulling_program: Path) -> None:
    add_revision(NEW, {FILE: b"weights"}, ref="main")
    with pytest.raises(ModelUnavailable, match=r"another program is pulling ViT-B-32-quickgelu/openai\. Wait"):
        delete(find_files(INFO.name, REPOSITORY))
    assert commits() == {NEW}
    assert pulling_program.exists()


@pytest.mark.parametrize("name", ["mini", "MINI", "local-dir:/home/me/model"])
def test_the_built_in_model_and_the_users_folders_are_never_deleted(name: str) -> None:
    with pytest.raises(ConfigError, match=r"never deletes|cannot be deleted"):
        find_files(name, REPOSITORY)
