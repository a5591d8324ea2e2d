"""The packages of the extra `llm`, which the base installation lacks."""

from __future__ import annotations

from importlib import import_module

from softprompt.errors import ModelUnavailable, describe_error

INSTALL_HINT = "pip install 'softprompt-tui[llm]'"


def check_packages(*packages: str) -> None:
    """Import packages of the extra `llm`. Raises ModelUnavailable if one is missing or broken."""
    for package in packages:
        try:
            import_module(package)
        except (ImportError, OSError, RuntimeError) as error:
            is_missing = isinstance(error, ModuleNotFoundError)
            reason = "is not installed" if is_missing else f"cannot be imported ({describe_error(error)})"
            raise ModelUnavailable(
                f"language models need the package {package}, which {reason}. Run {INSTALL_HINT}."
            ) from error
