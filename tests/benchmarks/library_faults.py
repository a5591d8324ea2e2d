"""Make every system call of a save fail in turn, and save to full file systems.

    python -m tests.benchmarks.library_faults

This needs strace, which injects the errors. The small file systems also need the permission to mount them (root).
"""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from softprompt import Library
from softprompt.errors import HomeError
from softprompt.jobs.job import TrainJob
from softprompt.system.files import replace_file
from softprompt.worker.run_folder import RunFolder, runs_folder
from softprompt_tui.state import settings
from tests.library_model import a_prompt, read_entries

CALLS = (
    "open,openat,write,fsync,fdatasync,close,link,linkat,unlink,unlinkat,rename,renameat,renameat2,fchmod,chmod,mkdir,"
    "fstat,lseek,ftruncate"
)
SAVE_SCRIPT = (
    "from tests.library_model import *; from softprompt.library.entry import pack; import sys\n"
    "Library().save(a_prompt(name='new')); print('saved')"
)
ROOT = Path(__file__).parents[2]


def trace_save(home: str, out: Path, *inject: str) -> subprocess.CompletedProcess[str]:
    command = ["strace", "-f", "-y", "-o", str(out), "-e", f"trace={CALLS}", *inject, sys.executable, "-c", SAVE_SCRIPT]
    return subprocess.run(command, env=os.environ | {"SOFTPROMPT_HOME": home}, cwd=ROOT, capture_output=True, text=True)


def find_calls(home: str, scratch: Path) -> list[tuple[str, int, str]]:
    """Return the system calls of a save in the entries folder: name, number among calls of this name, arguments."""
    result = trace_save(home, scratch / "trace")
    assert result.stdout == "saved\n", result.stderr
    counts: collections.Counter[str] = collections.Counter()
    calls = []
    for line in (scratch / "trace").read_text(errors="replace").splitlines():
        match = re.match(r"\d+\s+(\w+)\((.*)", line)
        if match:
            counts[match[1]] += 1
            if "/library/entries" in match[2]:
                calls.append((match[1], counts[match[1]], match[2]))
    return calls


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        counts = collections.Counter[str]()
        home = f"{scratch}/first"
        os.environ["SOFTPROMPT_HOME"] = home
        Library().save(a_prompt(name="old"))
        calls = find_calls(home, Path(scratch))
        for i, (name, number, arguments) in enumerate(calls):
            home = f"{scratch}/{i}"
            os.environ["SOFTPROMPT_HOME"] = home
            old_entry = Library().save(a_prompt(name="old")).id
            before = {path.name for path in Library().entries.iterdir()}
            error = "ENOSPC" if name in ("write", "openat", "open", "link", "mkdir") else "EIO"
            result = trace_save(home, Path(scratch) / "trace", "-e", f"inject={name}:error={error}:when={number}")
            entries = read_entries(Library())
            assert entries[old_entry].name == "old"
            assert Library().check().damaged == []
            new_files = {path.name for path in Library().entries.iterdir()} - before
            if result.stdout == "saved\n":
                assert len(entries) == 2, arguments
                counts["saved anyway"] += 1
                assert not [file for file in new_files if file.endswith(".partial")] or name in (
                    "unlink",
                    "unlinkat",
                ), (name, arguments, new_files)
            else:
                last_line = result.stderr.strip().splitlines()[-1]
                assert "HomeError" in last_line, result.stderr
                assert len(entries) == 1, arguments
                assert not new_files or name.startswith("unlink"), (name, arguments, new_files)
                counts["reported an error"] += 1
            synced = re.findall(r"fsync\(\d+<(.*?)>", (Path(scratch) / "trace").read_text(errors="replace"))
            assert len(synced) == len(set(synced)), f"synced twice: {synced}"
            counts[name] += 1
        print(f"{len(calls)} system calls of a save made to fail in turn: {dict(counts)}")
        save_to_small_disks(Path(scratch) / "small")
        save_to_nearly_full_disks(Path(scratch) / "full")


def mount_tmpfs(mount: Path, kilobytes: int) -> bool:
    """Mount an empty file system of this size. Return whether this machine permits it."""
    options = f"size={kilobytes}k,mode=700"
    result = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)], capture_output=True, text=True
    )
    if result.returncode:
        print(f"cannot mount a small file system: {result.stderr.strip()}")
    return result.returncode == 0


def save_to_small_disks(mount: Path) -> None:
    """Save to file systems of growing size, from too small to large enough."""
    mount.mkdir()
    refused = saved = 0
    for pages in range(1, 40):  # tmpfs counts in pages of 4 kB
        if not mount_tmpfs(mount, pages * 4):
            return
        os.environ["SOFTPROMPT_HOME"] = str(mount)
        try:
            Library(notify=lambda _: None).save(a_prompt(hard_prompt="a lake " * 3000))
            saved += 1
        except HomeError as error:
            refused += 1
            print(f"  {pages * 4} kB: {error}") if refused == 1 else None
        library = Library(notify=lambda _: None)
        names = [path.name for path in library.entries.iterdir()] if library.entries.is_dir() else []
        assert not [name for name in names if name.endswith(".partial")]
        assert library.check().damaged == []
        subprocess.run(["umount", str(mount)], check=True)
    assert refused
    assert saved
    print(
        f"file systems of 4 to 156 kB, in steps of a page: {refused} saves failed and left nothing behind, "
        f"then {saved} succeeded"
    )


def save_to_nearly_full_disks(mount: Path) -> None:
    """Check that every write succeeds on a disk that has an index and at most 5 free pages."""
    mount.mkdir()
    home = mount / "home"
    os.environ["SOFTPROMPT_HOME"] = str(home)
    writes = {
        "a training": lambda: Library(notify=notices.append).save(a_prompt(name="new", hard_prompt="a lake " * 1000)),
        "a rename": lambda: Library(notify=notices.append).rename("fox-7", "wolf"),
        "rm": lambda: Library(notify=notices.append).delete("fox-7"),
        "rm and purge": lambda: (
            Library(notify=notices.append).delete("fox-7"),
            Library(notify=notices.append).purge(),
        ),
        "settings": lambda: settings.save(settings.Settings(prompt="a draft " * 500)),
        "a run": lambda: RunFolder.create(runs_folder(), TrainJob("a lake " * 500), 1.0),
        "a checkpoint": lambda: replace_file(home / "data" / "checkpoint", bytes(20_000)),
    }
    for label, write in writes.items():
        for free_pages in range(6):
            if not mount_tmpfs(mount, 32 << 10):
                return
            notices: list[str] = []
            library = Library(notify=notices.append)
            for i in range(40):
                library.save(a_prompt(name=f"fox-{i}"))
            assert library.list().total == 40
            index = sum(path.stat().st_size for path in (home / "cache").glob("library-*"))
            assert index > 50_000
            filler_pages = os.statvfs(mount).f_bavail - free_pages
            (mount / "other").write_bytes(bytes(filler_pages * os.statvfs(mount).f_frsize))
            write()
            assert Library(notify=notices.append).check().damaged == []
            assert len(notices) <= 3, notices
            partial_files = list(home.rglob("*.partial"))
            assert not partial_files, partial_files
            total = Library(notify=notices.append).list().total
            assert total == {"a training": 41, "rm": 39, "rm and purge": 39}.get(label, 40), (label, free_pages, total)
            subprocess.run(["umount", str(mount)], check=True)
    print(f"a disk with an index and up to 5 free pages: {', '.join(writes)} succeeded each time, and nothing was lost")


if __name__ == "__main__":
    main()
