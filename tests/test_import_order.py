"""The import order: a package imports only packages below it, and no file is part of a cycle.

Imports inside functions and imports for types count too: a reader has to follow them, even if Python does not.
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
        ("argument_types",),
        ("arguments",),
        ("system", "text_states"),
        ("prompts",),
        ("config",),
        ("encoders", "library"),
        ("objectives",),
        ("evaluation", "composition"),
        ("training", "discrete"),
        ("jobs",),
        ("formats", "worker", "batches", "bench"),
        ("api",),
    ),
    "softprompt_tui": (
        ("terminal_output",),
        ("rendering", "state", "messages", "bindings", "themes", "input_queue", "terminal_input", "crash_report"),
        ("services",),
        ("widgets", "app_context", "painter"),
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
    "softprompt": {"argument_types", "arguments", "errors", "config", "text_states"},
    "softprompt_tui": {
        "messages", "bindings", "themes", "input_queue", "terminal_input", "terminal_output", "crash_report",
        "app_context", "painter", "main_screen", "commands", "app", "terminal", "__main__",
    },
}  # fmt: skip
# the only import of the interface by the command line
INTERFACE_IMPORTS = {"softprompt_tui.cli": "softprompt_tui.terminal"}
WITH_TORCH = (
    "api", "encoders", "objectives", "evaluation", "composition.composer", "training", "discrete", "bench",
    "jobs.checkpoint", "worker.inference", "worker.model_cache", "formats.writers.encode",
    "formats.writers.causal_lm.files",
)  # fmt: skip
WITHOUT_TORCH = ("encoders.catalog", "encoders.download", "encoders.clip.tokenizer", "objectives.workspace")
CONTRACTS = {"softprompt.encoders.base", "softprompt.objectives.base", "softprompt.objectives.workspace"}
TORCH_SETTINGS = "softprompt.encoders.torch_settings"
CHOOSES_THE_OBJECTIVE = "softprompt.training.model_kinds"
# what the command line may import; "" is softprompt_tui itself
SHARED = ("rendering", "services", "state", "crash_report", "cli", "")


@cache
def imports() -> dict[str, dict[str, list[int]]]:
    """Return, for each module, the modules that it imports and the lines of these imports."""
    files = {}
    for folder in ("core/softprompt", "softprompt_tui"):
        for path in (ROOT / folder).rglob("*.py"):
            name = ".".join(path.relative_to((ROOT / folder).parent).with_suffix("").parts).removesuffix(".__init__")
            files[name] = ast.parse(path.read_text(encoding="utf-8"))
    imports_by_module: dict[str, dict[str, list[int]]] = {name: {} for name in files}
    for name, tree in files.items():
        for node in ast.walk(tree):
            for module in imported_modules(node, set(files)):
                if module != name:
                    imports_by_module[name].setdefault(module, []).append(node.lineno)  # type: ignore[attr-defined]
    return imports_by_module


def imported_modules(node: ast.AST, modules: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        assert not node.level, "imports are absolute"
        for alias in node.names:
            yield submodule if (submodule := f"{node.module}.{alias.name}") in modules else node.module


def package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def layer(module: str) -> int:
    layers = LAYERS[module.split(".")[0]]
    return next(number for number, packages in enumerate(layers) if package(module) in packages)


@pytest.mark.parametrize("tree", LAYERS)
def test_every_module_belongs_to_a_package_of_the_import_order(tree: str) -> None:
    in_tree = {package(module) for module in imports() if module.split(".")[0] == tree}
    assert in_tree - {"", "__main__"} == {name for packages in LAYERS[tree] for name in packages}
    folder = ROOT / ("core" if tree == "softprompt" else "") / tree
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == FLAT[tree]


@pytest.mark.parametrize("tree", LAYERS)
def test_a_package_imports_only_packages_below_it(tree: str) -> None:
    violations = [
        f"{module}:{lines[0]} imports {target}"
        for module, targets in imports().items()
        for target, lines in targets.items()
        if package(module) not in ("", "__main__")
        and module.split(".")[0] == target.split(".")[0] == tree
        and "." in target
        and package(module) != package(target)
        and layer(target) >= layer(module)
    ]
    assert violations == []


def test_the_engine_does_not_import_the_application() -> None:
    assert [
        module
        for module, targets in imports().items()
        if module.startswith("softprompt.") and any(target.startswith("softprompt_tui") for target in targets)
    ] == []


def test_no_controller_imports_another() -> None:
    controllers = {module for module in imports() if package(module) == "controllers" and module.count(".") > 1}
    assert [module for module in controllers if controllers & set(imports()[module])] == []


def test_the_command_line_and_the_interface_share_only_rendering_state_and_services() -> None:
    """The command line imports one module of the interface. The layers forbid the reverse."""
    interface_imports = {
        (module, target)
        for module, targets in imports().items()
        for target in targets
        if module.startswith("softprompt_tui.cli")
        and target.startswith("softprompt_tui")
        and package(target) not in SHARED
    }
    assert interface_imports == set(INTERFACE_IMPORTS.items())


def test_no_file_is_part_of_a_cycle() -> None:
    """Remove files that import no remaining file, again and again. The files that remain belong to cycles."""
    remaining = {
        module: {target for target in targets if target in imports()}
        for module, targets in imports().items()
        if package(module)
    }
    while leaves := [module for module, targets in remaining.items() if not targets & set(remaining)]:
        for module in leaves:
            del remaining[module]
    assert sorted(remaining) == []


def test_only_modules_that_compute_import_torch() -> None:
    def may_import_torch(module: str) -> bool:
        name = module.removeprefix("softprompt.")
        return name.startswith(WITH_TORCH) and name not in WITHOUT_TORCH

    with_torch = [
        module for module, targets in imports().items() if any(target.split(".")[0] == "torch" for target in targets)
    ]
    assert [module for module in with_torch if not may_import_torch(module)] == []


@pytest.mark.parametrize(
    "module",
    sorted(module for module in imports() if package(module) == "training" and module != CHOOSES_THE_OBJECTIVE),
)
def test_training_imports_no_model_family_and_no_loss(module: str) -> None:
    imported = {target for target in imports()[module] if package(target) in ("encoders", "objectives", "text_states")}
    assert imported - {TORCH_SETTINGS} <= CONTRACTS
