"""The engine's import order: a package imports packages below it, and no file is part of a cycle.

Imports inside functions and those for types only count as well: what a reader must follow, not what Python loads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CORE = Path(__file__).parent.parent / "core"
LAYERS = (
    ("errors",),
    ("prompts", "system", "text_states"),
    ("config",),
    ("encoders", "library"),
    ("objectives",),
    ("evaluation", "composition"),
    ("training", "discrete"),
    ("jobs",),
    ("formats", "worker", "batches", "bench"),
)
MODULES_OF_THE_ROOT = {"errors", "config", "text_states"}
WITH_TORCH = (
    "encoders", "objectives", "evaluation", "composition.composer", "training", "discrete", "bench", "jobs.checkpoint",
    "worker.inference", "worker.model_cache", "formats.writers.encode",
)  # fmt: skip
WITHOUT_TORCH = ("encoders.catalog", "encoders.download", "encoders.clip.tokenizer")
CONTRACTS = {"softprompt.encoders.base", "softprompt.objectives.base"}
CHOOSES_THE_OBJECTIVE = "softprompt.training.trainer"


@cache
def imports() -> dict[str, dict[str, list[int]]]:
    """The modules that each module of the engine imports, and where."""
    files = {}
    for path in (CORE / "softprompt").rglob("*.py"):
        name = ".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__")
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
    return next(number for number, packages in enumerate(LAYERS) if package(module) in packages)


def test_every_module_lies_in_a_package_of_the_order() -> None:
    assert {package(module) for module in imports()} - {""} == {name for packages in LAYERS for name in packages}
    flat = {path.stem for path in (CORE / "softprompt").glob("*.py")} - {"__init__"}
    assert flat == MODULES_OF_THE_ROOT


def test_a_package_imports_only_packages_below_it() -> None:
    against = [
        f"{module}:{lines[0]} imports {other}"
        for module, others in imports().items()
        for other, lines in others.items()
        if package(module)
        and other.startswith("softprompt.")
        and package(module) != package(other)
        and layer(other) >= layer(module)
    ]
    assert against == []


def test_no_file_is_part_of_a_cycle() -> None:
    """Files that import nothing which is left are taken away until nothing changes: what remains imports itself in the end."""
    left = {module: {other for other in others if other in imports()} for module, others in imports().items() if package(module)}
    while free := [module for module, others in left.items() if not others & set(left)]:
        for module in free:
            del left[module]
    assert sorted(left) == []


def test_only_what_computes_imports_torch() -> None:
    def may(module: str) -> bool:
        name = module.removeprefix("softprompt.")
        return name.startswith(WITH_TORCH) and name not in WITHOUT_TORCH

    with_torch = [module for module, others in imports().items() if any(other.split(".")[0] == "torch" for other in others)]
    assert [module for module in with_torch if not may(module)] == []


@pytest.mark.parametrize(
    "module", sorted(module for module in imports() if package(module) == "training" and module != CHOOSES_THE_OBJECTIVE)
)
def test_training_knows_no_model_family_and_no_loss(module: str) -> None:
    known = {other for other in imports()[module] if package(other) in ("encoders", "objectives", "text_states")}
    assert known <= CONTRACTS
