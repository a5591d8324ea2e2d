"""Who may import whom, and what starting up may cost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from softprompt.system.threads import SPINS
from softprompt_tui.cli import COMMANDS

ROOT = Path(__file__).parent.parent


def imported(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_engine_imports_no_interface_library_and_no_torch() -> None:
    assert (
        imported("import softprompt")
        & {"textual", "rich", "click", "plotext", "torch", "numpy", "open_clip", "softprompt_tui"}
        == set()
    )


def test_the_whole_engine_imports_no_interface_library() -> None:
    modules = sorted(
        path.relative_to(ROOT / "core").with_suffix("") for path in (ROOT / "core" / "softprompt").rglob("*.py")
    )
    code = "\n".join(f"import {'.'.join(module.parts)}" for module in modules if "__" not in module.name)
    assert imported(code) & {"textual", "rich", "click", "plotext", "open_clip", "softprompt_tui"} == set()


def test_counting_and_checking_a_prompt_load_no_model_library(home: Path) -> None:
    """In a home where the list of models is not kept yet, either."""
    code = (
        "from softprompt.jobs.job import TrainJob; from softprompt.jobs.preflight import check_fits; from softprompt_tui.services.token_count import count\n"
        "assert count('a lake', 'mini').context == 77; check_fits(TrainJob('a lake')); check_fits(TrainJob('a lake', model='ViT-L-14/openai'))"
    )
    assert imported(code) & {"torch", "open_clip", "textual"} == set()


def test_the_command_line_imports_no_torch_and_no_textual() -> None:
    code = "from tests.commands import all_commands; assert len(all_commands()) > 20"
    assert imported(code) & {"torch", "numpy", "open_clip", "textual", "plotext", "rich"} == set()


def test_listing_and_the_first_paint_import_no_numpy() -> None:
    assert "numpy" not in imported(
        "import softprompt_tui.cli.commands.library, softprompt_tui.cli.commands.runs, softprompt_tui.app"
    )


def test_the_first_paint_waits_for_nothing_that_a_key_asks_for() -> None:
    """Dialogs, what makes a job of a form, and the folders of runs: half of what the interface would import of ours."""
    later = {"jobs.job", "config", "composition.sentence", "prompts.syntax", "encoders.catalog", "worker.run_folder"}
    code = "import sys, softprompt_tui.app; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert {f"softprompt.{name}" for name in later} & loaded == set()
    assert {name.split(".")[-1] for name in loaded if name.startswith("softprompt_tui.screens.")} <= {
        "dialogs",
        "progress",
    }


def test_a_command_imports_its_own_module_only() -> None:
    code = "import sys; from softprompt_tui.cli import main\n"
    for name, module in (("--help", None), ("list", "library"), ("completion", "completion")):
        ask = f"main.main([{name!r}, '--help'], standalone_mode=False); print('MODULES', *sys.modules)"
        done = subprocess.run([sys.executable, "-c", code + ask], capture_output=True, text=True, check=True)
        loaded = set(done.stdout.split("MODULES")[1].split())
        commands = {where.split(":")[0] for where, _ in COMMANDS.values()}
        assert {one for one in commands if f"softprompt_tui.cli.commands.{one}" in loaded} == (
            {module} if module else set()
        )


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [("core/softprompt", r"textual|rich|click|plotext|softprompt_tui"), ("softprompt_tui", r"torch|open_clip")],
)
def test_no_file_reaches_over_the_wall(folder: str, forbidden: str) -> None:
    pattern = re.compile(rf"^\s*(?:import|from)\s+({forbidden})\b", re.MULTILINE)
    assert [path.name for path in (ROOT / folder).rglob("*.py") if pattern.search(path.read_text())] == []


def test_public_names_are_there_and_hide_no_module() -> None:
    import softprompt

    modules = {path.stem for path in (ROOT / "core" / "softprompt").iterdir()}
    assert modules & set(softprompt.__all__) == set()
    assert all(getattr(softprompt, name) is not None for name in softprompt.__all__)
    with pytest.raises(AttributeError):
        _ = softprompt.nothing_of_this_name


@pytest.mark.parametrize(
    ("args", "most"),
    [
        (["-c", "import softprompt"], 0.1),
        (["-m", "softprompt_tui", "--help"], 0.3),
        (["-m", "softprompt_tui", "list"], 0.3),
    ],
)
def test_starting_up_is_quick(args: list[str], most: float) -> None:
    """The bound is on what comes on top of Python itself; the least of five, since other programs run here too."""
    import time

    def seconds(*command: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        return time.perf_counter() - began

    bare = min(seconds("-c", "pass") for _ in range(3))
    took = min(seconds(*args) for _ in range(5))
    assert took - (bare if args[0] == "-c" else 0) < most


def test_two_trainings_at_once_do_not_stall_each_other() -> None:
    """What is said of OpenMP's threads is said before torch is there to hear it, and the user's own word stands."""
    said = "import os, softprompt_tui.cli as cli; cli.main = lambda **_: None; cli.run = lambda _: print(os.environ.get('GOMP_SPINCOUNT')); cli.entry()"
    for environment, wanted in (({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")):
        plain = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        done = subprocess.run(
            [sys.executable, "-c", said], env=plain | environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == wanted
