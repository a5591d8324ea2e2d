"""What all tests share: the real built-in model, a home of their own, the command line in and out of process."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

import softprompt
from softprompt.encoders import catalog
from softprompt.encoders.clip import mini
from softprompt.system.threads import limit_openmp_spin
from softprompt.worker import client
from softprompt_tui.cli import entry
from softprompt_tui.cli.commands import batch
from softprompt_tui.cli.common import Narrator
from tests import kept
from tests.nursery import Nursery

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder

gc.set_threshold(
    20_000, 20, 20
)  # imports and interfaces make objects by the hundred thousand, and little garbage among them
limit_openmp_spin()  # before torch: the tests and the workers that they start are many at once
# a step of `mini` is some hundred parts too short to share: a second thread costs half as much processor time again on a
# quiet machine, three times as much on a busy one, and `two_threads` is there for what threads could change
os.environ.setdefault("OMP_NUM_THREADS", "1")

FOX = "a red fox asleep in deep snow under tall pine trees at dusk"
BOAT = "a small wooden boat drifting on a foggy river beside an old stone mill"

hypothesis.settings.register_profile("quiet", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("quiet")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may ask the network; those of the download path set their own


@pytest.fixture(scope="session", autouse=True)
def kept_mini() -> Iterator[None]:
    """The built-in model is read once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "load_mini", kept.kept_mini(mini.load_mini))
        yield


@pytest.fixture(scope="session")
def kept_typeable() -> Iterator[None]:
    """What of CLIP's vocabulary survives being typed is found once for all encoders that have it."""
    from softprompt.discrete import vocabulary

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "typeable", kept.kept_typeable(vocabulary.typeable))
        yield


@pytest.fixture(scope="session", autouse=True)
def nursery() -> Iterator[Nursery]:
    """Workers that a test starts from this process are forked, with torch imported already."""
    made = Nursery()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "subprocess", made.as_subprocess())
        yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def kept_rules() -> Iterator[None]:
    """The interface's style sheets are parsed once for all tests, not by each of the hundreds of interfaces that they start."""
    read, known = Stylesheet._parse_rules, {}

    def kept_or_read(self: Stylesheet, *args: Any, **named: Any) -> list[RuleSet]:
        key = (*self._variables.items(), *args, *named.items())
        if key not in known:
            known[key] = read(self, *args, **named)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stylesheet, "_parse_rules", kept_or_read)
        yield


@pytest.fixture(scope="module", autouse=True)
def kept_imports() -> None:
    """What was imported by now stays: Python need not look through all of torch again and again for what is garbage."""
    gc.freeze()


@pytest.fixture
def two_threads() -> Iterator[None]:
    """torch computes with two threads, as it does for users."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def real_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are started as they are for users."""
    monkeypatch.setattr(client, "subprocess", subprocess)


@pytest.fixture(scope="session")
def encoder(kept_mini: None) -> TextEncoder:
    return softprompt.load_encoder("mini", device="cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a home of its own, so that none sees another's files or the user's."""
    monkeypatch.setenv("SOFTPROMPT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def kept_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which open_clip's list of models is kept already: reading it takes seconds."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTPROMPT_HOME", str(folder))
        catalog.list_models.cache_clear()
        catalog.list_models()  # here, where the tests of real models need open_clip anyway
    return folder / "cache"


@pytest.fixture
def run(
    home: Path, kept_models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs softprompt-tui as its installed command does, but in this process, which has imported torch already."""
    home.mkdir()
    (home / "cache").symlink_to(kept_models)

    def call(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name, value in ({"COLUMNS": "100"} | environment).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["softprompt-tui", *args])
            patch.setattr(batch, "lower_priority", lambda _: None)  # would slow what follows
            capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                entry()
        for handler in logging.root.handlers[:]:
            if isinstance(handler, Narrator):  # what later tests warn of is not said by this command
                logging.root.removeHandler(handler)
        code = end.value.code
        return subprocess.CompletedProcess(args, code if isinstance(code, int) else 0, *capsys.readouterr())

    return call
