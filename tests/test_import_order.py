"""The import order: a package imports packages below it, and no file is part of a cycle.

Imports inside functions and those for types only count as well: what a reader must follow, not what Python loads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = {
    "softprompt": (
        ("errors",),
        ("prompts", "system", "text_states"),
        ("config",),
        ("encoders", "library"),
        ("objectives",),
        ("evaluation", "composition"),
        ("training", "discrete"),
        ("jobs",),
        ("formats", "worker", "batches", "bench"),
    ),
    "softprompt_tui": (
        ("rendering", "state", "messages", "bindings", "themes", "input_queue", "terminal_input", "crash_report"),
        ("services",),
        ("widgets", "app_context"),
        ("screens",),
        ("controllers",),
        ("main_screen",),
        ("commands",),
        ("app",),
        ("terminal",),
        ("cli",),
    ),
}
FLAT = {
    "softprompt": {"errors", "config", "text_states"},
    "softprompt_tui": {
        "messages", "bindings", "themes", "input_queue", "terminal_input", "crash_report", "app_context", "main_screen", "commands",
        "app", "terminal", "__main__",
    },
}  # fmt: skip
DOORS = {"softprompt_tui.cli": "softprompt_tui.terminal"}  # what the command line knows of the interface
WITH_TORCH = (
    "encoders", "objectives", "evaluation", "composition.composer", "training", "discrete", "bench", "jobs.checkpoint",
    "worker.inference", "worker.model_cache", "formats.writers.encode",
)  # fmt: skip
WITHOUT_TORCH = ("encoders.catalog", "encoders.download", "encoders.clip.tokenizer")
CONTRACTS = {"softprompt.encoders.base", "softprompt.objectives.base"}
CHOOSES_THE_OBJECTIVE = "softprompt.training.trainer"
SHARED = (
    "rendering",
    "services",
    "state",
    "crash_report",
    "cli",
    "",
)  # by command line and interface; "" is softprompt_tui itself


@cache
def imports() -> dict[str, dict[str, list[int]]]:
    """The modules of the tree that each module imports, and where."""
    files = {}
    for folder in ("core/softprompt", "softprompt_tui"):
        for path in (ROOT / folder).rglob("*.py"):
            name = ".".join(path.relative_to((ROOT / folder).parent).with_suffix("").parts).removesuffix(".__init__")
            files[name] = ast.parse(path.read_text(encoding="utf-8"))
    found: dict[str, dict[str, list[int]]] = {name: {} for name in files}
    for name, tree in files.items():
        for node in ast.walk(tree):
            for module in imported(node, set(files)):
                if module != name:
                    found[name].setdefault(module, []).append(node.lineno)  # type: ignore[attr-defined]
    return found


def imported(node: ast.AST, known: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        assert not node.level, "imports are absolute"
        for alias in node.names:
            yield whole if (whole := f"{node.module}.{alias.name}") in known else node.module


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def layer(module: str) -> int:
    layers = LAYERS[module.split(".")[0]]
    return next(number for number, packages in enumerate(layers) if package(module) in packages)


@pytest.mark.parametrize("tree", LAYERS)
def test_every_module_lies_in_a_package_of_the_order(tree: str) -> None:
    found = {package(module) for module in imports() if module.split(".")[0] == tree}
    assert found - {"", "__main__"} == {name for packages in LAYERS[tree] for name in packages}
    folder = ROOT / ("core" if tree == "softprompt" else "") / tree
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == FLAT[tree]


@pytest.mark.parametrize("tree", LAYERS)
def test_a_package_imports_only_packages_below_it(tree: str) -> None:
    against = [
        f"{module}:{lines[0]} imports {other}"
        for module, others in imports().items()
        for other, lines in others.items()
        if package(module) not in ("", "__main__")
        and module.split(".")[0] == other.split(".")[0] == tree
        and "." in other
        and package(module) != package(other)
        and layer(other) >= layer(module)
    ]
    assert against == []


def test_the_engine_does_not_know_the_application() -> None:
    assert [
        m
        for m, others in imports().items()
        if m.startswith("softprompt.") and any(o.startswith("softprompt_tui") for o in others)
    ] == []


def test_no_controller_imports_another() -> None:
    controllers = {module for module in imports() if package(module) == "controllers" and module.count(".") > 1}
    assert [module for module in controllers if controllers & set(imports()[module])] == []


def test_the_command_line_and_the_interface_share_only_what_draws_keeps_and_serves() -> None:
    """The interface knows nothing of the command line, by the order; the command line knows one door to the interface."""
    known = {
        (module, other)
        for module, others in imports().items()
        for other in others
        if module.startswith("softprompt_tui.cli")
        and other.startswith("softprompt_tui")
        and package(other) not in SHARED
    }
    assert known == set(DOORS.items())


def test_no_file_is_part_of_a_cycle() -> None:
    """Files that import nothing which is left are taken away until nothing changes: what remains imports itself in the end."""
    left = {
        module: {other for other in others if other in imports()}
        for module, others in imports().items()
        if package(module)
    }
    while free := [module for module, others in left.items() if not others & set(left)]:
        for module in free:
            del left[module]
    assert sorted(left) == []


def test_only_what_computes_imports_torch() -> None:
    def may(module: str) -> bool:
        name = module.removeprefix("softprompt.")
        return name.startswith(WITH_TORCH) and name not in WITHOUT_TORCH

    with_torch = [
        module for module, others in imports().items() if any(other.split(".")[0] == "torch" for other in others)
    ]
    assert [module for module in with_torch if not may(module)] == []


@pytest.mark.parametrize(
    "module",
    sorted(module for module in imports() if package(module) == "training" and module != CHOOSES_THE_OBJECTIVE),
)
def test_training_knows_no_model_family_and_no_loss(module: str) -> None:
    known = {other for other in imports()[module] if package(other) in ("encoders", "objectives", "text_states")}
    assert known <= CONTRACTS
