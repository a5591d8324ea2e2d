"""Fixtures for all tests: the built-in model, a home for each test, and the command line in this process."""

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
from tests.worker_process import Home

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder

# imports and interfaces create hundreds of thousands of objects, and few of them are garbage
gc.set_threshold(20_000, 20, 20)
limit_openmp_spin()  # before torch: many tests and workers run at the same time
# A step of `mini` consists of some hundred operations that are too short to split. A second thread costs half as much
# processor time again on a quiet machine, and three times as much on a busy one. Tests whose result could depend on
# threads use `two_threads`.
os.environ.setdefault("OMP_NUM_THREADS", "1")

FOX = "a red fox asleep in deep snow under tall pine trees at dusk"
BOAT = "a small wooden boat drifting on a foggy river beside an old stone mill"

hypothesis.settings.register_profile("quiet", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("quiet")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may use the network; download tests set their own value


@pytest.fixture(scope="session", autouse=True)
def cached_mini() -> Iterator[None]:
    """Read the built-in model once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "load_mini", kept.cache_mini(mini.load_mini))
        yield


@pytest.fixture(scope="session")
def cached_typeable() -> Iterator[None]:
    """Find the typeable tokens of CLIP's vocabulary once for all encoders that use it."""
    from softprompt.discrete import vocabulary

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "typeable_tokens", kept.cache_typeable(vocabulary.typeable_tokens))
        yield


@pytest.fixture(scope="session", autouse=True)
def nursery() -> Iterator[Nursery]:
    """Fork the workers that tests start from this process, instead of starting a process that imports torch again."""
    nursery = Nursery()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "subprocess", nursery.as_subprocess())
        yield nursery
    nursery.close()


@pytest.fixture(scope="session", autouse=True)
def cached_style_rules() -> Iterator[None]:
    """Parse the interface's style sheets once for the hundreds of interfaces that the tests start."""
    parse, cache = Stylesheet._parse_rules, {}

    def parse_cached(self: Stylesheet, *args: Any, **kwargs: Any) -> list[RuleSet]:
        key = (*self._variables.items(), *args, *kwargs.items())
        if key not in cache:
            cache[key] = parse(self, *args, **kwargs)
        return cache[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stylesheet, "_parse_rules", parse_cached)
        yield


@pytest.fixture(scope="module", autouse=True)
def frozen_imports() -> None:
    """Exempt imported modules from garbage collection, so that Python does not scan all of torch again and again."""
    gc.freeze()


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every run of this process compute with two threads, whatever else the machine is doing."""
    import torch

    from softprompt.training import trainer

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(trainer, "choose_threads", lambda limit, _work: limit)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def real_worker_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start workers as the program does for users."""
    monkeypatch.setattr(client, "subprocess", subprocess)


@pytest.fixture(scope="session")
def encoder(cached_mini: None) -> TextEncoder:
    return softprompt.load_encoder("mini", device="cpu")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test its own home, so that it sees neither the user's files nor those of other tests."""
    monkeypatch.setenv("SOFTPROMPT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A worker for this test only. Clients start it."""
    worker_home = Home(monkeypatch.setenv)
    yield worker_home
    worker_home.close()


@pytest.fixture(scope="session")
def cached_model_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder that already has open_clip's list of models: reading the list takes seconds."""
    folder = tmp_path_factory.mktemp("cached")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTPROMPT_HOME", str(folder))
        catalog.list_models.cache_clear()
        catalog.list_models()  # in this process, because the tests of real models import open_clip anyway
    return folder / "cache"


@pytest.fixture
def run(
    home: Path, cached_model_list: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run softprompt-tui as the installed command does, but in this process, which has already imported torch."""
    home.mkdir()
    (home / "cache").symlink_to(cached_model_list)

    def call(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name, value in ({"COLUMNS": "100"} | environment).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["softprompt-tui", *args])
            patch.setattr(batch, "lower_priority", lambda _: None)  # would slow down later tests
            capsys.readouterr()
            with pytest.raises(SystemExit) as exit_info:
                entry()
        for handler in logging.root.handlers[:]:
            if isinstance(handler, Narrator):  # would print the warnings of later tests
                logging.root.removeHandler(handler)
        code = exit_info.value.code
        return subprocess.CompletedProcess(args, code if isinstance(code, int) else 0, *capsys.readouterr())

    return call
