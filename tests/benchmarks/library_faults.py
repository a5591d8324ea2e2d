"""Makes every system call of a save fail in turn, and fills small file systems: python -m tests.benchmarks.library_faults.

Needs strace, which makes the calls fail in the kernel's name; and, for the small file system, the right to mount one (root).
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

CALLS = "open,openat,write,fsync,fdatasync,close,link,linkat,unlink,unlinkat,rename,renameat,renameat2,fchmod,chmod,mkdir,fstat,lseek,ftruncate"
SAVING = "from tests.library_model import *; from softprompt.library.entry import pack; import sys; Library().save(a_prompt(name='new')); print('saved')"
ROOT = Path(__file__).parents[2]


def traced(home: str, out: Path, *inject: str) -> subprocess.CompletedProcess[str]:
    command = ["strace", "-f", "-y", "-o", str(out), "-e", f"trace={CALLS}", *inject, sys.executable, "-c", SAVING]
    return subprocess.run(command, env=os.environ | {"SOFTPROMPT_HOME": home}, cwd=ROOT, capture_output=True, text=True)


def calls_of_a_save(home: str, scratch: Path) -> list[tuple[str, int, str]]:
    """(system call, its number among those of its name, what it says) of all that touch the folder of entries."""
    done = traced(home, scratch / "trace")
    assert done.stdout == "saved\n", done.stderr
    counts: collections.Counter[str] = collections.Counter()
    found = []
    for line in (scratch / "trace").read_text(errors="replace").splitlines():
        match = re.match(r"\d+\s+(\w+)\((.*)", line)
        if match:
            counts[match[1]] += 1
            if "/library/entries" in match[2]:
                found.append((match[1], counts[match[1]], match[2]))
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        tried = collections.Counter[str]()
        home = f"{scratch}/first"
        os.environ["SOFTPROMPT_HOME"] = home
        Library().save(a_prompt(name="old"))
        calls = calls_of_a_save(home, Path(scratch))
        for i, (name, number, said) in enumerate(calls):
            home = f"{scratch}/{i}"
            os.environ["SOFTPROMPT_HOME"] = home
            kept = Library().save(a_prompt(name="old")).id
            before = {path.name for path in Library().entries.iterdir()}
            error = "ENOSPC" if name in ("write", "openat", "open", "link", "mkdir") else "EIO"
            done = traced(home, Path(scratch) / "trace", "-e", f"inject={name}:error={error}:when={number}")
            found = read_entries(Library())
            assert found[kept].name == "old"
            assert Library().check().damaged == []
            litter = {path.name for path in Library().entries.iterdir()} - before
            if done.stdout == "saved\n":
                assert len(found) == 2, said
                tried["saved all the same"] += 1
                assert not [one for one in litter if one.endswith(".partial")] or name in ("unlink", "unlinkat"), (
                    name,
                    said,
                    litter,
                )
            else:
                last = done.stderr.strip().splitlines()[-1]
                assert "HomeError" in last, done.stderr
                assert len(found) == 1, said
                assert not litter or name.startswith("unlink"), (name, said, litter)
                tried["said so"] += 1
            synced = re.findall(r"fsync\(\d+<(.*?)>", (Path(scratch) / "trace").read_text(errors="replace"))
            assert len(synced) == len(set(synced)), f"synced again: {synced}"
            tried[name] += 1
        print(f"{len(calls)} system calls of a save made to fail in turn: {dict(tried)}")
        small(Path(scratch) / "small")
        nearly_full(Path(scratch) / "full")


def mounted(mount: Path, kilobytes: int) -> bool:
    """Mount an empty file system of this size; return whether that can be done here."""
    options = f"size={kilobytes}k,mode=700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)], capture_output=True, text=True)
    if done.returncode:
        print(f"no small file system: {done.stderr.strip()}")
    return done.returncode == 0


def small(mount: Path) -> None:
    """A file system with so many kilobytes left, from none to enough for a save."""
    mount.mkdir()
    refused = saved = 0
    for pages in range(1, 40):  # tmpfs counts in pages of 4 kB
        if not mounted(mount, pages * 4):
            return
        os.environ["SOFTPROMPT_HOME"] = str(mount)
        try:
            Library(notify=lambda _: None).save(a_prompt(hard_prompt="a lake " * 3000))
            saved += 1
        except HomeError as error:
            refused += 1
            print(f"  {pages * 4} kB: {error}") if refused == 1 else None
        library = Library(notify=lambda _: None)
        left = [path.name for path in library.entries.iterdir()] if library.entries.is_dir() else []
        assert not [name for name in left if name.endswith(".partial")]
        assert library.check().damaged == []
        subprocess.run(["umount", str(mount)], check=True)
    assert refused
    assert saved
    print(
        f"a file system of 4 to 156 kB, a page more each time: {refused} saves refused with nothing left behind, then {saved} made"
    )


def nearly_full(mount: Path) -> None:
    """A disk on which an index has been made, filled up to the last page by something else: all is saved all the same."""
    mount.mkdir()
    home = mount / "home"
    os.environ["SOFTPROMPT_HOME"] = str(home)
    writes = {
        "a training": lambda: Library(notify=said.append).save(a_prompt(name="new", hard_prompt="a lake " * 1000)),
        "a rename": lambda: Library(notify=said.append).rename("fox-7", "wolf"),
        "rm": lambda: Library(notify=said.append).delete("fox-7"),
        "rm and purge": lambda: (Library(notify=said.append).delete("fox-7"), Library(notify=said.append).purge()),
        "settings": lambda: settings.save(settings.Settings(prompt="a draft " * 500)),
        "a run": lambda: RunFolder.create(runs_folder(), TrainJob("a lake " * 500), 1.0),
        "a checkpoint": lambda: replace_file(home / "data" / "checkpoint", bytes(20_000)),
    }
    for what, write in writes.items():
        for left in range(6):  # pages
            if not mounted(mount, 32 << 10):
                return
            said: list[str] = []
            library = Library(notify=said.append)
            for i in range(40):
                library.save(a_prompt(name=f"fox-{i}"))
            assert library.list().total == 40
            index = sum(path.stat().st_size for path in (home / "cache").glob("library-*"))
            assert index > 50_000
            free = os.statvfs(mount).f_bavail - left
            (mount / "other").write_bytes(bytes(free * os.statvfs(mount).f_frsize))
            write()
            assert Library(notify=said.append).check().damaged == []
            assert len(said) <= 3, said
            left_over = list(home.rglob("*.partial"))
            assert not left_over, left_over
            total = Library(notify=said.append).list().total
            assert total == {"a training": 41, "rm": 39, "rm and purge": 39}.get(what, 40), (what, left, total)
            subprocess.run(["umount", str(mount)], check=True)
    print(f"a disk with an index and up to 5 pages free: {', '.join(writes)} saved each time, and nothing lost")


if __name__ == "__main__":
    main()
