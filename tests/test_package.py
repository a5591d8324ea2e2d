"""The built package is whole: what the wheel and the source distribution hold, and what PyPI shows."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import EmailPolicy
from html.parser import HTMLParser
from pathlib import Path
from typing import cast

import pytest
from readme_renderer import markdown

ROOT = Path(__file__).parent.parent
PACKAGES = {"softprompt": ROOT / "core", "softprompt_tui": ROOT}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution and the wheel, as `python -m build` does. Return their folder."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> EmailMessage:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return cast(EmailMessage, BytesParser(policy=EmailPolicy(utf8=True)).parsebytes(wheel.read(name)))


@pytest.fixture(scope="module")
def page(metadata: EmailMessage) -> str:
    """The project's page as PyPI renders it."""
    rendered = markdown.render(metadata.get_payload())
    assert rendered is not None
    return rendered


class References(HTMLParser):
    """Collects what a page links to and shows, and the places in it that a link can lead to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page)

    def handle_starttag(self, _: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in {"href", "src", "srcset"}:
                self.targets.append(value or "")
            elif name in {"id", "name"}:
                self.anchors.add(f"#{value}")


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_holds_both_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {str(path.relative_to(root)) for name, root in PACKAGES.items() for path in files(root / name)}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected
    assert expected >= {f"{name}/py.typed" for name in PACKAGES}


def test_the_tests_can_run_from_the_source_distribution(built: Path) -> None:
    """It holds all that the tests read: the programs, the tests' own files, the documents and their pictures."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = {path for name in ("core", "softprompt_tui", "tests", "screenshots", ".ci") for path in files(ROOT / name)}
    needed |= {*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "pyproject.toml"}
    assert {str(path.relative_to(ROOT)) for path in needed} - held == set()


def test_the_author_is_the_holder_of_the_licence(metadata: EmailMessage) -> None:
    (holder,) = re.findall(r"Copyright \(c\) \d+ (.+)", (ROOT / "LICENSE").read_text(encoding="utf-8"))
    assert metadata["Author"] == holder


def test_the_page_on_pypi_links_to_nothing_inside_the_repository(page: str) -> None:
    references = References(page)
    assert len(references.targets) > 3
    relative = [target for target in references.targets if not target.startswith("https://")]
    assert set(relative) <= references.anchors


def test_the_page_on_pypi_is_for_people_who_install_the_package(page: str) -> None:
    text = re.sub(r"<[^>]*>", "", page)
    for command in ("pipx install softprompt-tui ", "uv tool install softprompt-tui", "pip install softprompt-tui "):
        assert command in text, command
    assert text.index("about 1.2 GB") < text.index("about 5.6 GB") < text.index("pipx install")
    for expression in ("clone", "install .", "install -e", "install -q -e", ".ci/run", "](", "<!--", "screenshots"):
        assert expression not in text, expression
