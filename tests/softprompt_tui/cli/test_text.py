"""One rule for text: arguments, standard input, requests and the library's own functions take UTF-8 and nothing else."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest

from softprompt import Library
from softprompt.config import HardConfig, TrainConfig
from softprompt.errors import BadName, ConfigError, PromptError
from softprompt.jobs.job import TrainJob
from softprompt.library import entry as entries
from softprompt.worker import protocol as p
from tests.commands import all_commands
from tests.conftest import FOX
from tests.library_model import a_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]

LATIN1 = b"a caf\xe9"
BAD = os.fsdecode(LATIN1)  # as Python gives such an argument to a program
REFUSED = "not valid UTF-8: character 6 cannot be read. Use UTF-8 text."
FILE_NAME = os.fsdecode(b"caf\xe9")


def text_parameters(
    commands: Mapping[str, click.Command], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Parameter]]:
    """Every parameter of every command that takes any text."""
    for name, command in commands.items():
        if isinstance(command, click.Group):
            yield from text_parameters(command.commands, (*path, name))
        for param in command.params:
            if isinstance(param.type, click.types.StringParamType):
                yield (*path, name), command, param


def test_every_text_on_the_command_line_must_be_utf8(run: Run) -> None:
    checked = 0
    for path, command, param in text_parameters(all_commands()):
        others = [[other.opts[0], "x"] if isinstance(other, click.Option) else ["x"]
                  for other in command.params if other.required and other is not param]  # fmt: skip
        typed = [BAD] if isinstance(param, click.Argument) else [param.opts[0], BAD]
        done = run(*path, *typed, *(word for words in others for word in words))
        assert done.returncode == 2, (path, param.name, done)
        assert REFUSED in done.stderr, (path, param.name, done)
        assert done.stderr.count("\n") == 1
        checked += 1
    assert checked > 40
    assert not list(Library().entries.glob("*"))


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    return lambda data: monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
    )


def test_standard_input_is_refused_in_the_same_words_as_an_argument(run: Run, typed: Callable[[bytes], None]) -> None:
    words = f"softprompt-tui: the prompt is {REFUSED}\n"
    assert run("train", BAD).stderr == words
    typed(LATIN1)
    assert run("train", "-").stderr == words
    Library().save(a_prompt(name="fox"))
    typed(LATIN1)
    assert run("note", "fox", "-").stderr == f"softprompt-tui: the note is {REFUSED}\n"
    typed(b"\xef\xbb\xbfsnow \xe2\x9d\x84\n")
    assert run("note", "fox", "-").returncode == 0
    assert Library().open("fox").note == "snow ❄"


def test_standard_input_that_is_too_long_is_called_so_also_where_the_bound_cuts_a_character(
    run: Run, typed: Callable[[bytes], None]
) -> None:
    for command in (("train", "-"), ("note", "fox", "-")):
        typed(b"a" * ((1 << 20) - 1) + "é and more".encode())
        done = run(*command)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "standard input has more than 1,048,576 bytes, the limit for a" in done.stderr


def test_the_library_api_refuses_what_is_no_text_with_a_typed_error() -> None:
    with pytest.raises(PromptError, match=REFUSED):
        TrainJob(BAD)
    with pytest.raises(ConfigError, match=REFUSED):
        TrainJob(FOX, device=BAD)
    with pytest.raises(ConfigError, match=REFUSED):
        TrainConfig(contexts=(f"{BAD} {{}}",))
    with pytest.raises(ConfigError, match=REFUSED):
        TrainConfig(objective="contrastive", against=(BAD,))
    with pytest.raises(ConfigError, match=REFUSED):
        HardConfig(block=(BAD,))
    for field in ("hard_prompt", "model", "readout_text"):
        with pytest.raises(PromptError, match=f"the {field.replace('_', ' ')} of this soft prompt is not valid UTF-8"):
            Library().save(a_prompt(**{"name": "x", field: BAD}))
    saved = Library().save(a_prompt(name="fox"))
    with pytest.raises(BadName, match=REFUSED):
        Library().annotate(saved.id, BAD)
    for request in (p.Similarity("mini", [BAD]), p.Stop(BAD)):
        with pytest.raises(PromptError, match=REFUSED):
            p.parse_request(p.decode(p.encode(p.as_message(request, 1))))


def test_what_version_0_1_saved_still_opens_and_can_be_changed(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(entries, "_check_texts", lambda _: None)
        saved = Library().save(a_prompt(name="old", hard_prompt=f"{BAD} 🦊"))
    assert Library().open(saved.id).prompt.hard_prompt == "a caf\ufffd 🦊"
    assert json.loads(run("list", "--json").stdout)[0]["hard_prompt"] == "a caf\ufffd 🦊"
    assert Library().rename(saved.id, "new").prompt.hard_prompt == "a caf\ufffd 🦊"


def test_a_file_name_may_hold_any_bytes_and_is_printed_safely(run: Run, tmp_path: Path) -> None:
    Library().save(a_prompt(name="fox"))
    numpy, backup = tmp_path / f"{FILE_NAME}.npy", tmp_path / f"{FILE_NAME}.zip"
    done = run("export", "fox", "--to", "numpy", "--out", str(numpy))
    assert (done.returncode, np.load(numpy).ndim) == (0, 2)
    assert r"caf\udce9.npy" in done.stdout
    done = run("import", str(numpy))
    assert done.returncode == 0, done.stderr
    assert "caf\ufffd.npy" in done.stdout
    done = run("library", "backup", str(backup))
    assert (done.returncode, backup.exists()) == (0, True)
    assert r"caf\udce9.zip" in done.stdout
    assert run("library", "restore-backup", str(backup)).returncode == 0
    assert run("batch", str(tmp_path / FILE_NAME)).stderr.endswith("caf\\udce9: No such file or directory\n")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "koi8-r", "ascii"])
def test_characters_that_the_locale_lacks_are_replaced(
    run: Run, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = np.geomspace(1, 0.01, 50, dtype=np.float32)
    Library().save(
        a_prompt(name="狐", hard_prompt="ein Fuchs — im “Schnee” 狐🦊…", losses=losses, similarities=1 - losses)
    )
    screen = io.BytesIO()
    for command in (("list",), ("show", "狐")):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(screen, encoding=encoding))
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(screen, encoding=encoding))
        assert run(*command).returncode == 0
        sys.stdout.flush()
    text = screen.getvalue().decode(
        "utf-8" if encoding == "ascii" else encoding
    )  # click writes UTF-8 where only ASCII is named
    assert "Fuchs" in text
    assert "loss" in text
    if encoding == "latin-1":
        head, row = text.splitlines()[:2]
        assert row.startswith("??    ")  # as wide as the name is
        assert 'ein Fuchs - im "Schnee" ????.' in row
        assert head.index("hard prompt") == row.index("ein Fuchs")
        assert sum("*" in line for line in text.splitlines()) > 5  # the curve
        assert any(line.strip().startswith("+---") for line in text.splitlines())  # its frame


def test_a_sweep_saves_before_it_draws(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Broken())
    assert run("sweep", FOX, "--tokens", "1-2", "--steps", "2", "--keep", "all", "-q").returncode == 1
    assert Library().list().total == 2
