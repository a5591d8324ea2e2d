"""One rule for text: arguments, standard input, requests and the library's functions accept only UTF-8."""

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
from softprompt.prompts import prompt_file
from softprompt.worker import protocol as p
from tests.commands import all_commands
from tests.conftest import FOX
from tests.library_model import a_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]

LATIN1_TEXT = b"a caf\xe9"
BAD_TEXT = os.fsdecode(LATIN1_TEXT)  # how Python passes such an argument to a program
NOT_UTF8 = "not valid UTF-8: character 6 cannot be decoded. Use UTF-8 text."
FILE_NAME = os.fsdecode(b"caf\xe9")


def text_parameters(
    commands: Mapping[str, click.Command], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Parameter]]:
    """Yield the path, command and parameter for every parameter that takes free text."""
    for name, command in commands.items():
        if isinstance(command, click.Group):
            yield from text_parameters(command.commands, (*path, name))
        for param in command.params:
            if isinstance(param.type, click.types.StringParamType):
                yield (*path, name), command, param


def test_every_text_on_the_command_line_must_be_utf8(run: Run) -> None:
    checked = 0
    for path, command, param in text_parameters(all_commands()):
        required_args = [
            [parameter.opts[0], "x"] if isinstance(parameter, click.Option) else ["x"]
            for parameter in command.params
            if parameter.required and parameter is not param
        ]
        bad_args = [BAD_TEXT] if isinstance(param, click.Argument) else [param.opts[0], BAD_TEXT]
        result = run(*path, *bad_args, *(arg for args in required_args for arg in args))
        assert result.returncode == 2, (path, param.name, result)
        assert NOT_UTF8 in result.stderr, (path, param.name, result)
        assert result.stderr.count("\n") == 1
        checked += 1
    assert checked > 40
    assert not list(Library().entries.glob("*"))


@pytest.fixture
def set_stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    return lambda data: monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
    )


def test_standard_input_and_arguments_are_refused_with_the_same_message(
    run: Run, set_stdin: Callable[[bytes], None]
) -> None:
    message = f"softprompt-tui: the prompt is {NOT_UTF8}\n"
    assert run("train", BAD_TEXT).stderr == message
    set_stdin(LATIN1_TEXT)
    assert run("train", "-").stderr == message
    Library().save(a_prompt(name="fox"))
    set_stdin(LATIN1_TEXT)
    assert run("note", "fox", "-").stderr == f"softprompt-tui: the note is {NOT_UTF8}\n"
    set_stdin(b"\xef\xbb\xbfsnow \xe2\x9d\x84\n")
    assert run("note", "fox", "-").returncode == 0
    assert Library().open("fox").note == "snow ❄"


def test_too_long_standard_input_is_reported_even_if_the_limit_cuts_a_character(
    run: Run, set_stdin: Callable[[bytes], None]
) -> None:
    for command in (("train", "-"), ("note", "fox", "-")):
        set_stdin(b"a" * ((1 << 20) - 1) + "é and more".encode())
        result = run(*command)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
        assert "standard input has more than 1,048,576 bytes, the limit for a" in result.stderr


def test_the_python_api_refuses_invalid_text_with_a_typed_error() -> None:
    with pytest.raises(PromptError, match=NOT_UTF8):
        TrainJob(BAD_TEXT)
    with pytest.raises(ConfigError, match=NOT_UTF8):
        TrainJob(FOX, device=BAD_TEXT)
    with pytest.raises(ConfigError, match=NOT_UTF8):
        TrainConfig(contexts=(f"{BAD_TEXT} {{}}",))
    with pytest.raises(ConfigError, match=NOT_UTF8):
        TrainConfig(objective="contrastive", against=(BAD_TEXT,))
    with pytest.raises(ConfigError, match=NOT_UTF8):
        HardConfig(block=(BAD_TEXT,))
    for field in ("hard_prompt", "model", "readout_text"):
        with pytest.raises(PromptError, match=f"the {field.replace('_', ' ')} of this soft prompt is not valid UTF-8"):
            Library().save(a_prompt(**{"name": "x", field: BAD_TEXT}))
    entry = Library().save(a_prompt(name="fox"))
    with pytest.raises(BadName, match=NOT_UTF8):
        Library().annotate(entry.id, BAD_TEXT)
    for request in (p.Similarity("mini", [BAD_TEXT]), p.Stop(BAD_TEXT)):
        with pytest.raises(PromptError, match=NOT_UTF8):
            p.parse_request(p.decode(p.encode(p.as_message(request, 1))))


def test_entries_saved_by_version_0_1_still_open_and_can_be_changed(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(prompt_file, "_check_texts", lambda _: None)
        entry = Library().save(a_prompt(name="old", hard_prompt=f"{BAD_TEXT} 🦊"))
    assert Library().open(entry.id).prompt.hard_prompt == "a caf\ufffd 🦊"
    assert json.loads(run("list", "--json").stdout)[0]["hard_prompt"] == "a caf\ufffd 🦊"
    assert Library().rename(entry.id, "new").prompt.hard_prompt == "a caf\ufffd 🦊"


def test_a_file_name_may_hold_any_bytes_and_is_printed_safely(run: Run, tmp_path: Path) -> None:
    Library().save(a_prompt(name="fox"))
    numpy_file, backup_file = tmp_path / f"{FILE_NAME}.npy", tmp_path / f"{FILE_NAME}.zip"
    result = run("export", "fox", "--to", "numpy", "--out", str(numpy_file))
    assert (result.returncode, np.load(numpy_file).ndim) == (0, 2)
    assert r"caf\udce9.npy" in result.stdout
    result = run("import", str(numpy_file))
    assert result.returncode == 0, result.stderr
    assert "caf\ufffd.npy" in result.stdout
    result = run("library", "backup", str(backup_file))
    assert (result.returncode, backup_file.exists()) == (0, True)
    assert r"caf\udce9.zip" in result.stdout
    assert run("library", "restore-backup", str(backup_file)).returncode == 0
    assert run("batch", str(tmp_path / FILE_NAME)).stderr.endswith("caf\\udce9: No such file or directory\n")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "koi8-r", "ascii"])
def test_characters_that_the_locale_lacks_are_replaced(
    run: Run, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = np.geomspace(1, 0.01, 50, dtype=np.float32)
    Library().save(
        a_prompt(name="狐", hard_prompt="ein Fuchs — im “Schnee” 狐🦊…", losses=losses, similarities=1 - losses)
    )
    output = io.BytesIO()
    for command in (("list",), ("show", "狐")):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding))
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(output, encoding=encoding))
        assert run(*command).returncode == 0
        sys.stdout.flush()
    text = output.getvalue().decode("utf-8" if encoding == "ascii" else encoding)  # under ASCII, click writes UTF-8
    assert "Fuchs" in text
    assert "loss" in text
    if encoding == "latin-1":
        header, row = text.splitlines()[:2]
        assert row.startswith("??    ")  # as wide as the name
        assert 'ein Fuchs - im "Schnee" ????.' in row
        assert header.index("hard prompt") == row.index("ein Fuchs")
        assert sum("*" in line for line in text.splitlines()) > 5  # the curve
        assert any(line.strip().startswith("+---") for line in text.splitlines())  # its frame


def test_a_sweep_saves_before_it_prints(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullStream(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", FullStream())
    assert run("sweep", FOX, "--tokens", "1-2", "--steps", "2", "--keep", "all", "-q").returncode == 1
    assert Library().list().total == 2
