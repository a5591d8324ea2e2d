"""Messages name what their readers can type: arguments and calls in Python, options and commands in the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cache
from inspect import isfunction, signature
from pathlib import Path
from subprocess import CompletedProcess

import click
import numpy as np
import pytest

import softprompt
from softprompt import HardConfig, Library, SoftPrompt, SoftPromptError, TextEncoder, TrainConfig
from softprompt.encoders.causal_lm.wheel import PIP_ARGUMENTS
from softprompt.errors import option, word_messages_for, wording
from softprompt.formats.readers.sandbox import SUPPORTED_FILES
from softprompt_tui.cli import COMMANDS, main
from tests.conftest import FOX
from tests.library_model import a_prompt

PACKAGE = Path(softprompt.__file__).parent
FOR_COMMANDS = ("worker", "bench")  # nothing in the Python API uses these packages
WORDERS = ("option", "wording", "command")  # the functions that word a message; see `softprompt.errors`
COMMAND_LINE = re.compile(r"(?:^|[\s`'(])--[a-z]|softprompt-tui [a-z]|\(F\d")
# texts that look like a command line but hold for everyone: other programs' options, and this program's name
EXCEPTIONS = {
    ("encoders/causal_lm/wheel.py", PIP_ARGUMENTS),
    ("batches/rows.py", "--prompt"),  # in files for AUTOMATIC1111
    ("encoders/clip/mini.py", "). Run pip install --force-reinstall softprompt-tui."),
    ("encoders/clip/tokenizer.py", ". Run pip install --force-reinstall open_clip_torch."),
    ("formats/readers/detect.py", "entry of a softprompt-tui library"),
    ("formats/readers/detect.py", "its softprompt-tui provenance is damaged ("),
    ("formats/readers/detect.py", "its softprompt-tui provenance is damaged (it names the rows "),
    ("formats/readers/sandbox.py", SUPPORTED_FILES),
    ("formats/writers/causal_lm/instructions.py", " --enable-prompt-embeds --dtype "),  # of vLLM
    (
        "formats/writers/causal_lm/instructions.py",
        "start the server with `python -m sglang.launch_server --model-path ",
    ),
    (
        "formats/writers/causal_lm/instructions.py",
        " --disable-radix-cache`, SGLang 0.4 or newer. It takes no embeddings while its prefix cache is on.",
    ),
    ("formats/writers/instructions.py", "--textual_inversion_embeddings "),  # of kohya's scripts
}


@cache
def trees() -> dict[str, ast.Module]:
    """Return the parsed modules that the Python API can use, by path."""
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if name.split("/")[0] not in FOR_COMMANDS
    }


def worded(tree: ast.AST) -> Iterator[tuple[str, list[ast.expr]]]:
    """Yield the name and the arguments of every call that words a message."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in WORDERS]
    own = {part for function in functions for part in ast.walk(function)}  # they call each other
    for node in ast.walk(tree):
        is_wording = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WORDERS
        if is_wording and node not in own:
            yield node.func.id, node.args  # type: ignore[attr-defined]


def literals(tree: ast.Module) -> Iterator[str]:
    """Yield all strings of a module that can become part of a message for users of the API."""
    skipped: set[ast.AST] = {part for _, args in worded(tree) for part in ast.walk(args[0])}
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node) is not None:
                skipped.add(node.body[0].value)  # type: ignore[attr-defined]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.value


def text_of(node: ast.expr) -> str:
    """Return the text of a string or an f-string, with x for every value."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(values):
            return "".join(text_of(value) for value in values)
        case ast.FormattedValue(conversion=conversion):
            return "'x'" if conversion == ord("r") else "x"
    raise AssertionError(f"line {node.lineno}: write the text here, so that this test can check it")


def options_of_commands() -> set[str]:
    """Return the options of all commands and subcommands."""
    with click.Context(main) as context:
        commands = [command for name in main.list_commands(context) if (command := main.get_command(context, name))]
    for command in commands:
        if isinstance(command, click.Group):
            commands.extend(command.commands.values())
    return {option for command in commands for parameter in command.params for option in parameter.opts}


def names_of_arguments() -> set[str]:
    """Return the arguments and settings of the public functions."""
    functions = [value for name in softprompt.__all__ if isfunction(value := getattr(softprompt, name))]
    settings = {field.name for config in (TrainConfig, HardConfig) for field in fields(config)}
    return settings | {name for function in functions for name in signature(function).parameters}


def test_no_message_for_users_of_the_api_names_an_option_a_command_or_a_key() -> None:
    found = {(name, text) for name, tree in trees().items() for text in literals(tree) if COMMAND_LINE.search(text)}
    assert found == EXCEPTIONS


def test_what_messages_name_exists() -> None:
    options, arguments, commands = options_of_commands(), names_of_arguments(), set(COMMANDS)
    count = 0
    for tree in trees().values():
        for worder, (first, *rest) in worded(tree):
            count += 1
            if worder == "option":
                assert text_of(first) in arguments
                assert f"--{text_of(first).replace('_', '-')}" in options
                continue
            line, api = text_of(first), text_of(rest[0])
            assert set(re.findall(r"--[a-z-]+", line)) <= options
            assert set(re.findall(r"`(\w+)`", api)) <= arguments
            assert all(hasattr(Library, name) for name in re.findall(r"\blibrary\.(\w+)", api))
            assert all(name in softprompt.__all__ for name in re.findall(r"\bsoftprompt\.(\w+)", api))
            if worder == "command":
                assert line.split()[0] in commands
                compile(api, "message", "exec")
    assert count > 40


def narrow(hard_prompt: str) -> SoftPrompt:
    """Return a soft prompt whose width only the built-in model has."""
    return a_prompt(name="fox", hard_prompt=hard_prompt, vectors=np.ones((2, 256), np.float32))


def save_and_delete() -> None:
    library = Library()
    library.save(a_prompt(name="fox"))
    library.delete("fox")
    library.open("fox")


def export_twice() -> None:
    for _ in range(2):
        softprompt.export(a_prompt(name="fox"), "numpy")


@dataclass(frozen=True)
class Case:
    """A call that fails, and the part of its message that has two wordings."""

    call: Callable[[TextEncoder], object]
    api: str
    commands: str


CASES = {
    "stop_at": Case(
        lambda encoder: softprompt.train(encoder, FOX, tokens="auto"),
        "for example with stop_at=0.99.",
        "for example with --stop-at 0.99.",
    ),
    "against": Case(
        lambda _: TrainConfig(objective="contrastive"),
        "Add one with against=['TEXT'].",
        "Add one with --against TEXT.",
    ),
    "objective": Case(
        lambda _: TrainConfig(against=("a cat",)),
        "Use objective='contrastive', or remove 'against'.",
        "Use --objective contrastive, or remove 'against'.",
    ),
    "long": Case(
        lambda encoder: softprompt.train(encoder, f"{FOX} " * 12, tokens=1, steps=1),
        "use long='chunk' to train on the mean of its chunks, or use long='cut' to drop the part that does not fit.",
        "use --long chunk to train on the mean of its chunks, or use --long cut to drop the part that does not fit "
        "(F8 in the app).",
    ),
    "hidden": Case(
        lambda encoder: softprompt.train(encoder, f"{FOX} " * 12, objective="hidden", long="chunk"),
        "Use objective='cosine', or long='cut' for a long prompt.",
        "Use --objective cosine, or --long cut for a long prompt.",
    ),
    "start": Case(
        lambda encoder: softprompt.train(encoder, FOX, init="soft"),
        "Pass one as `start`, or choose a different init.",
        "Name a saved soft prompt, or choose a different init.",
    ),
    "empty library": Case(
        lambda _: Library().open("fox"), "`library.list()` shows all.", "`softprompt-tui list` shows all."
    ),
    "empty trash": Case(
        lambda _: Library().restore("fox"),
        "`library.list(trashed=True)` shows all.",
        "`softprompt-tui list --trash` shows all.",
    ),
    "in the trash": Case(
        lambda _: save_and_delete(),
        "Run `library.restore('fox')` to restore it.",
        "Run `softprompt-tui restore fox` to restore it.",
    ),
    "force": Case(
        lambda _: export_twice(),
        "Use force=True to replace it, or choose another path with `path`.",
        "Use --force to replace it, or choose another path with --out.",
    ),
    "token": Case(
        lambda _: softprompt.export(a_prompt(name="fox"), "numpy", token="<fox>"),
        "uses the file name instead. Set it with `path`.",
        "uses the file name instead. Set it with --out.",
    ),
    "port": Case(
        lambda _: softprompt.export(narrow("a red fox"), "a1111"),
        "use `softprompt.port(softprompt.load_encoder('ViT-L-14-quickgelu/openai'), prompt)`. The formats",
        "use `softprompt-tui port 'fox' --model ViT-L-14-quickgelu/openai`. The formats",
    ),
    "hard prompt": Case(
        lambda _: softprompt.export(narrow(""), "a1111"),
        "set its hard prompt with `softprompt.assign(prompt, hard_prompt='TEXT')`. The formats",
        "set its hard prompt with `softprompt-tui assign 'fox' --prompt TEXT`. The formats",
    ),
    "model": Case(
        lambda encoder: encoder.check_compatible(a_prompt(name="fox", model="", model_fingerprint="")),
        "with `softprompt.assign(prompt, softprompt.load_encoder('MODEL'))`.",
        "with `softprompt-tui assign 'fox' --model MODEL`.",
    ),
    "out": Case(
        lambda _: softprompt.train_batch([FOX], out="/dev/null"),
        "/dev/null is not a regular file. Choose another file for `out`.",
        "/dev/null is not a regular file. Without --out, the results go to standard output.",
    ),
    "opened": Case(
        lambda encoder: softprompt.compose(encoder, "[v1] at night"),
        "Write [name:1], or pass one as `opened`.",
        "Write [name:1], or open a soft prompt: press enter in the library, or use --with NAME.",
    ),
    "sweep": Case(
        lambda encoder: softprompt.sweep(encoder, FOX, ()),
        "Use a range such as range(1, 17), or a list such as [1, 2, 4, 8].",
        "Use a range such as 1-16, or a list such as 1,2,4,8.",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_messages_have_one_wording_for_the_api_and_one_for_the_commands(
    case: Case, encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SoftPromptError) as raised:
        case.call(encoder)
    assert case.api in str(raised.value)
    assert not COMMAND_LINE.search(str(raised.value))
    Library().purge()
    for path in tmp_path.glob("*.npy"):
        path.unlink()
    with word_messages_for("commands"), pytest.raises(SoftPromptError) as raised:
        case.call(encoder)
    assert case.commands in str(raised.value)


def test_the_advice_for_imported_soft_prompts_works(encoder: TextEncoder) -> None:
    named = softprompt.assign(narrow(""), hard_prompt="a red fox")
    assert softprompt.assign(replace(named, model_fingerprint=""), encoder).similarity is not None


def test_the_wording_belongs_to_the_process_and_ends_with_it(run: Callable[..., CompletedProcess[str]]) -> None:
    """The command line runs in this process here. Its threads have its wording too."""
    assert "`softprompt-tui list` shows all." in run("show", "fox").stderr
    assert wording("commands", "api") == "api"
    with word_messages_for("commands"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(option, "stop_at", 0.99).result() == "--stop-at 0.99"
    with pytest.raises(softprompt.EntryNotFound), word_messages_for("commands"):
        Library().open("fox")
    assert option("force", True) == "force=True"
