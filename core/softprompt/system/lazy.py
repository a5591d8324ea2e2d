"""Packages whose public names are imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from sys import modules as loaded_modules
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str], constants: Mapping[str, Callable[[], Any]] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package (PEP 562).

    A package defines them under `if not TYPE_CHECKING`, so that type checkers know its names and report all others.

    Args:
        modules: the module below `package` that defines each name.
        constants: functions that compute the values of further names.
    """
    constants = constants or {}

    def get(name: str) -> Any:
        from softprompt.system.threads import spin_limited  # 2 ms, which a start does not need

        if name in modules:
            with spin_limited():  # the module may be the first to import torch
                value = getattr(import_module(f"{package}.{modules[name]}"), name)
        elif name in constants:
            value = constants[name]()
        else:
            from difflib import get_close_matches

            close = "" if name.startswith("_") else ", ".join(get_close_matches(name, [*modules, *constants], 1))
            hint = f". Did you mean {close!r}?" if close else ""
            raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")
        setattr(loaded_modules[package], name, value)  # so that the next access does not come here
        return value

    def names() -> list[str]:
        return sorted({*vars(loaded_modules[package]), *modules, *constants} - {"annotations", "TYPE_CHECKING"})

    return get, names
