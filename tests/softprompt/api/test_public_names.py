"""The public API can be discovered, and every part of a public signature is public too."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import softprompt
from softprompt import (
    HardConfig,
    HardReadout,
    HardSettings,
    Library,
    SoftPrompt,
    SoftPromptError,
    TrainConfig,
    TrainSettings,
)

PUBLIC = {name: getattr(softprompt, name) for name in softprompt.__all__}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
# classes whose methods people call; the others hold values
WITH_METHODS = ("Library", "SoftPrompt", "TextEncoder")
# methods of these that only the program itself calls
INTERNAL = {
    "Library": {
        "save_all", "snapshot", "prepare", "path", "latest", "open_revision", "newest_intact", "with_taken_names",
    },
    "TextEncoder": {
        "tokenize", "check_fits", "embed", "batch_rows", "encode_rows", "check_compatible", "moved_to", "__init__",
    },
    "SoftPrompt": {"__init__", "as_dict", "from_dict"},
    "CausalLM": {"embed", "logits", "generate", "stream", "check_compatible", "__init__"},
}  # fmt: skip
# words of annotations that are no names of ours
FOREIGN = {
    "Any", "Array", "Axes", "Binary", "BinaryIO", "Callable", "ClassVar", "Collection", "DataFrame", "Format",
    "Generator", "Interval", "Iterable", "Iterator", "Literal", "Mapping", "None", "OnProgress", "Path", "PathLike",
    "LongPromptPolicy", "Sequence", "Tensor", "Unpack", "NDArray", "Self", "DTypeLike", "ArrayLike",
}  # fmt: skip


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public functions and methods that people call."""
    yield from FUNCTIONS.items()
    for owner in WITH_METHODS:
        for name in dir(CLASSES[owner]):
            value = inspect.getattr_static(CLASSES[owner], name)
            method = value.__func__ if isinstance(value, classmethod) else value
            is_ours = inspect.isfunction(method) and method.__module__.startswith("softprompt.")
            if is_ours and (name == "__init__" or not name.startswith("_")) and name not in INTERNAL[owner]:
                yield f"{owner}.{name}", method


def test_names_help_and_version_show_what_there_is() -> None:
    assert set(softprompt.__all__) <= set(dir(softprompt))
    assert softprompt.__version__ == version("softprompt-tui")
    page = pydoc.plain(pydoc.render_doc(softprompt))
    assert {name for name in [*FUNCTIONS, *CLASSES] if not re.search(rf"\b{name}\b", page)} == set()


@pytest.mark.parametrize(("wrong", "close"), [("trian", "train"), ("softprompt", "SoftPrompt"), ("Libary", "Library")])
def test_a_misspelled_name_gets_the_nearest_one(wrong: str, close: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{wrong}'. Did you mean '{close}'?"):
        getattr(softprompt, wrong)


def test_a_star_import_gives_the_public_names() -> None:
    code = "from softprompt import *; print(train.__name__, Library.__name__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "train Library\n"


@pytest.mark.parametrize(("name", "function"), public_callables())
def test_every_public_function_checks_its_arguments_and_is_documented(name: str, function: Callable[..., Any]) -> None:
    assert hasattr(function, "__wrapped__"), f"{name} is not decorated with @checked"
    if not name.endswith("__init__"):
        assert function.__doc__
    with pytest.raises(softprompt.ArgumentError, match="has no argument 'no_such_name'"):
        function(no_such_name=1)


PARAMETERS = [
    (name, parameter.name)
    for name, function in public_callables()
    for parameter in inspect.signature(function).parameters.values()
    if parameter.name not in ("self", "cls", "ax") and parameter.kind is not parameter.VAR_KEYWORD
]


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_an_argument_of_a_strange_type_is_named(
    encoder: softprompt.TextEncoder, tmp_path: Path, name: str, parameter: str
) -> None:
    """The functions get valid arguments besides, so that only the strange one can be at fault."""
    function = dict(public_callables())[name]
    valid = {"encoder": encoder, "text": "a fox", "prompt": untrained_prompt(), "vectors": [[0.0] * 256], "paths": "x"}
    valid |= {"to": "numpy", "source": ["a fox"], "path": str(tmp_path / "x"), "name": "fox", "new": "wolf", "note": ""}
    valid |= {
        "hard": HardReadout("a fox", 2, 1.0, None, "pez", 1, 0.1),
        "change": lambda prompt: prompt,
        "texts": "a fox",
        "examples": [("a", "b")] * 4,
        "device": "cpu",
    }
    given = {
        other.name: valid[other.name]
        for other in inspect.signature(function).parameters.values()
        if other.default is other.empty and other.name not in ("self", "cls") and other.kind is not other.VAR_KEYWORD
    }
    owner = name.partition(".")[0]
    bound_to = {"Library": Library(), "TextEncoder": encoder, "SoftPrompt": untrained_prompt()}
    args = [bound_to[owner]] if "." in name else []
    with pytest.raises(softprompt.ArgumentError, match=f"^{parameter} is an object; expected ") as caught:
        function(*args, **given | {parameter: object()})
    assert "\n" not in str(caught.value)


def untrained_prompt() -> SoftPrompt:
    vectors, empty = np.zeros((1, 256), np.float32), np.empty(0, np.float32)
    return SoftPrompt(
        hard_prompt="", model="", model_fingerprint="", vectors=vectors, target=empty, losses=empty,
        similarities=empty, similarity=None, composition=None, loss=None, steps=0, seconds=0.0, stopped="", readout=(),
        readout_text="", readout_similarity=None, config={},
    )  # fmt: skip


@pytest.mark.parametrize(("name", "function"), public_callables())
def test_every_name_in_a_public_signature_is_public(name: str, function: Callable[..., Any]) -> None:
    signature = inspect.signature(function)
    annotations = [parameter.annotation for parameter in signature.parameters.values()] + [signature.return_annotation]
    words = {
        word
        for annotation in annotations
        if annotation is not inspect.Signature.empty
        for word in re.findall(r"\b[A-Z]\w+", str(annotation))
    }
    assert words - FOREIGN - set(softprompt.__all__) == set()


def test_every_error_is_public_and_a_softprompt_error() -> None:
    from softprompt import errors

    of_the_worker = {"WorkerError", "MessageTooLong", "RunNotFound", "RunUnreadable"}
    all_errors = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert all_errors - of_the_worker <= set(softprompt.__all__)
    for name, value in CLASSES.items():
        if issubclass(value, Exception):
            assert issubclass(value, SoftPromptError), name


@pytest.mark.parametrize(
    ("settings", "config", "left_out"), [(TrainSettings, TrainConfig, set()), (HardSettings, HardConfig, {"tokens"})]
)
def test_the_settings_are_the_fields_of_the_config(settings: type, config: type, left_out: set[str]) -> None:
    assert set(settings.__annotations__) == {field.name for field in fields(config)} - left_out  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(name for name, value in CLASSES.items() if issubclass(value, Exception)))
def test_every_error_can_be_pickled(name: str) -> None:
    """Errors come back from a pool of processes."""
    error = CLASSES[name]("something is wrong")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
