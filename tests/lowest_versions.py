"""Print the lowest version of everything that pyproject.toml allows, as constraints for pip.

Usage: `python -m tests.lowest_versions > lowest.txt && pip install -c lowest.txt -e '.[test]'`
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest_versions() -> list[str]:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    requirements = sum(project["optional-dependencies"].values(), project["dependencies"])
    found = re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\w.]+)", "\n".join(requirements), re.MULTILINE)
    return sorted({f"{name}=={version}" for name, version in found})


if __name__ == "__main__":
    print("\n".join(lowest_versions()))
