"""Which libraries each part may import, and how long a start may take."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from softprompt.system.threads import SPIN_COUNT
from softprompt_tui.cli import COMMANDS

ROOT = Path(__file__).parent.parent


def imported(code: str) -> set[str]:
    """Return the top-level packages that are loaded after running `code`."""
    result = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in result.stdout.split()}


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
    """This also holds in a new home, where the list of models is not cached yet."""
    code = (
        "from softprompt.jobs.job import TrainJob; from softprompt.jobs.preflight import check_fits\n"
        "from softprompt_tui.services.token_count import count_tokens\n"
        "assert count_tokens('a lake', 'mini').context_length == 77; check_fits(TrainJob('a lake'))\n"
        "check_fits(TrainJob('a lake', model='ViT-L-14/openai'))"
    )
    assert imported(code) & {"torch", "open_clip", "textual"} == set()


def test_the_command_line_imports_no_torch_and_no_textual() -> None:
    code = "from tests.commands import all_commands; assert len(all_commands()) > 20"
    assert imported(code) & {"torch", "numpy", "open_clip", "textual", "plotext", "rich"} == set()


def test_listing_and_the_first_paint_import_no_numpy() -> None:
    assert "numpy" not in imported(
        "import softprompt_tui.cli.commands.library, softprompt_tui.cli.commands.runs, softprompt_tui.app"
    )


def test_the_first_paint_imports_nothing_that_only_a_key_needs() -> None:
    """Dialogs, job forms and run folders are half of the program's modules that the interface would import."""
    lazy = {"jobs.job", "config", "composition.sentence", "prompts.syntax", "encoders.catalog", "worker.run_folder"}
    code = "import sys, softprompt_tui.app; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert {f"softprompt.{name}" for name in lazy} & loaded == set()
    assert {name.split(".")[-1] for name in loaded if name.startswith("softprompt_tui.screens.")} <= {
        "dialogs",
        "progress",
    }


def test_a_command_imports_only_its_own_module() -> None:
    code = "import sys; from softprompt_tui.cli import main\n"
    for name, module in (("--help", None), ("list", "library"), ("completion", "completion")):
        call = f"main.main([{name!r}, '--help'], standalone_mode=False); print('MODULES', *sys.modules)"
        result = subprocess.run([sys.executable, "-c", code + call], capture_output=True, text=True, check=True)
        loaded = set(result.stdout.split("MODULES")[1].split())
        modules = {location.split(":")[0] for location, _ in COMMANDS.values()}
        assert {command for command in modules if f"softprompt_tui.cli.commands.{command}" in loaded} == (
            {module} if module else set()
        )


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [("core/softprompt", r"textual|rich|click|plotext|softprompt_tui"), ("softprompt_tui", r"torch|open_clip")],
)
def test_no_file_imports_a_forbidden_library(folder: str, forbidden: str) -> None:
    pattern = re.compile(rf"^\s*(?:import|from)\s+({forbidden})\b", re.MULTILINE)
    assert [path.name for path in (ROOT / folder).rglob("*.py") if pattern.search(path.read_text())] == []


def test_public_names_exist_and_shadow_no_module() -> None:
    import softprompt

    modules = {path.stem for path in (ROOT / "core" / "softprompt").iterdir()}
    assert modules & set(softprompt.__all__) == set()
    assert all(getattr(softprompt, name) is not None for name in softprompt.__all__)
    with pytest.raises(AttributeError):
        _ = softprompt.no_such_name


@pytest.mark.parametrize(
    ("args", "max_seconds"),
    [
        (["-c", "import softprompt"], 0.1),
        (["-m", "softprompt_tui", "--help"], 0.3),
        (["-m", "softprompt_tui", "list"], 0.3),
    ],
)
def test_the_program_starts_fast(args: list[str], max_seconds: float) -> None:
    """An import is measured without Python's own start. The test uses the minimum of five: the machine may be busy.

    Modules are compiled, as they are after an installation, whatever this environment says about writing bytecode.
    """
    import time

    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def seconds(*command: str) -> float:
        start_time = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True, env=environment)
        return time.perf_counter() - start_time

    python_alone = min(seconds("-c", "pass") for _ in range(3))
    start = min(seconds(*args) for _ in range(5))
    assert start - (python_alone if args[0] == "-c" else 0) < max_seconds


def test_two_trainings_at_once_do_not_stall_each_other() -> None:
    """Before it imports torch, the program limits how long OpenMP's threads spin. The user's setting has priority."""
    code = (
        "import os, softprompt_tui.cli as cli; cli.main = lambda **_: None\n"
        "cli.run = lambda _: print(os.environ.get('GOMP_SPINCOUNT')); cli.entry()"
    )
    for environment, expected in (
        ({}, SPIN_COUNT),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ):
        plain = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        result = subprocess.run(
            [sys.executable, "-c", code], env=plain | environment, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == expected
