"""The check for each annotation of a public function, and the messages about values that do not fit.

Importing this module imports neither numpy nor torch: a value can only be a tensor if its library has been imported.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, MappingView, Set
from itertools import islice
from pathlib import Path
from typing import Any

from softprompt.errors import ArgumentError, shorten

Check = Callable[[str, Any], Any]  # takes an argument's name and value; returns the value to pass on, or _MISMATCH
_MISMATCH = object()
MAX_SHOWN_LENGTH = 60  # characters of a value in a message
MAX_NUMBER = 2**63 - 1
MAX_ITEMS = 1_000_000  # of a list of strings, numbers or paths

# what to do about a wrong argument, by its name
ADVICE = {
    "ax": "For a plot of pyplot, pass plt.gca()",
    "config": "You can also write settings as arguments, such as tokens=3",
    "encoder": "Load one with softprompt.load_encoder('mini')",
    "library": "Open one with softprompt.Library()",
    "on_progress": "It is called with the progress",
    "on_report": "It is called with each report, and returns True to stop",
    "resume": "It is the value of report.state()",
    "source": "Open a file with mode 'rb', or pass its path; pass a column of a table, or table.to_dict('records')",
}

# what other libraries call an argument or a setting, and our names for it
SYNONYMS = {
    "callback": ("on_report", "on_progress"),
    "counts": ("token_counts",),
    "dtype": ("precision",),
    "encoder": ("model",),
    "epochs": ("steps",),
    "force": ("overwrite",),
    "learning_rate": ("rate",),
    "lr": ("rate",),
    "model": ("encoder", "name"),
    "num_virtual_tokens": ("tokens",),
    "overwrite": ("force",),
    "prompt": ("text", "hard_prompt"),
    "random_state": ("seed",),
    "sentences": ("texts", "text"),
    "text": ("prompt",),
    "verbose": ("progress",),
}


# messages


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known name that means the same as an unknown one, or is spelled most like it, or ""."""
    names = list(known)
    if same := next((synonym for synonym in SYNONYMS.get(name, ()) if synonym in names), ""):
        return same
    from difflib import get_close_matches

    return next(iter(get_close_matches(name[:MAX_SHOWN_LENGTH], names, 1)), "")


def wrong_type(name: str, value: Any, expected: str) -> ArgumentError:
    """Return the error for a value of the wrong type."""
    advice = f". {ADVICE[name]}." if name in ADVICE else ""
    return ArgumentError(f"{name} is {describe(value)}; expected {expected}{advice}")


def describe(value: Any) -> str:
    """Return a value and its type in a few words."""
    kind = type(value).__name__
    article = "an" if kind[0] in "AEIOUaeiou" or kind == "ndarray" else "a"
    shape = getattr(value, "shape", None)
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, str | bytes | float) or (isinstance(value, int) and value.bit_length() < 200):
        return f"{shorten(repr(value), MAX_SHOWN_LENGTH)} ({kind})"
    if isinstance(shape, tuple) and shape:
        return f"{article} {kind} of shape {tuple(shape)}"
    if isinstance(value, list | tuple | set | frozenset):
        others = [item for item in value if not isinstance(item, str)]
        return f"{article} {kind}" + (f" that contains {describe(others[0])}" if others else "")
    return f"{article} {kind}"


# checks, by annotation


@functools.cache
def check_for(annotation: str) -> Check:
    """Return the check for an annotation. Raises KeyError if it has a part that is not in `_CHECKS`: add it there."""
    heads = [_head(part) for part in _split_union(annotation)]
    checks = [_CHECKS[head] for head in heads]
    names = list(dict.fromkeys(_NAMES.get(head, f"a {head}") for head in heads))
    if "a path" in names and "a string" in names:
        names.remove("a string")
    expected = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def check(name: str, value: Any) -> Any:
        for candidate in checks:
            if (converted := candidate(name, value)) is not _MISMATCH:
                return converted
        raise wrong_type(name, value, expected)

    return check


def _split_union(annotation: str) -> list[str]:
    """Split a union at its top level: "int | Callable[[A | B], C]" has two parts."""
    parts, depth = [""], 0
    for char in annotation:
        depth += {"[": 1, "]": -1}.get(char, 0)
        if char == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _head(part: str) -> str:
    """Return a part of an annotation without its parameters, except those of collections."""
    head = part.partition("[")[0]
    return part if head in ("Sequence", "Collection", "Iterable", "Mapping", "tuple") else head


def plain_number(value: Any) -> Any:
    """Return a NumPy or torch number, or an array without dimensions, as a Python number.

    Never raises: any other value is returned unchanged, so that the next check can reject it.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        try:
            return value.item()
        except (TypeError, ValueError, RuntimeError):  # for example a tensor without values, on the meta device
            return value
    return value


def _none(_name: str, value: Any) -> Any:
    return None if value is None else _MISMATCH


def _anything(_name: str, value: Any) -> Any:
    return value


def _weighted_hard_prompt(name: str, value: Any) -> Any:
    pair = value if isinstance(value, tuple | list) and len(value) == 2 else (None, None)
    share, prompt = _number(name, pair[0]), _instance_of("objectives.base", "HardPrompt")(name, pair[1])
    return _MISMATCH if _MISMATCH in (share, prompt) else (share, prompt)


def _text(_name: str, value: Any) -> Any:
    return str.__str__(value) if isinstance(value, str) else _MISMATCH


def plain_value(value: Any) -> Any:
    """Return a number of NumPy or torch, or a member of an Enum with values, as Python's own number or string."""
    value = plain_number(value)
    for kind in (str, int, float):  # an Enum's own __str__ gives its name
        if isinstance(value, kind) and not isinstance(value, bool):
            return value if type(value) is kind else getattr(kind, f"__{kind.__name__}__")(value)
    return value


def list_of_strings(name: str, value: Any) -> list[str] | None:
    """Return the strings of a list, a tuple, an array or any other iterable, or None if the value is none of these.

    Raises ArgumentError if there are too many, perhaps endlessly many.
    """
    items = _list(name, value)
    if items is None or not all(isinstance(item, str) for item in items):
        return None
    return [str.__str__(item) for item in items]


def check_ordered(name: str, value: Any, expected: str = "a list of strings") -> None:
    """Raise ArgumentError for a set: the order of its items can differ between two runs."""
    if isinstance(value, Set) and not isinstance(value, MappingView):  # the keys of a dict have an order
        raise ArgumentError(f"{name} is a {type(value).__name__}, which has no order; expected {expected}")


def _list(name: str, value: Any) -> list[Any] | None:
    """Return the items of an iterable, or None if the value is not iterable."""
    if isinstance(value, str | bytes | os.PathLike | Mapping) or not isinstance(value, Iterable):
        return None
    if getattr(value, "ndim", 1) != 1:  # a single number, or a table, which yields the names of its columns
        return None
    items = list(islice(value, MAX_ITEMS + 1))
    if len(items) > MAX_ITEMS:
        raise ArgumentError(f"{name} has more than {MAX_ITEMS:,} items; expected at most {MAX_ITEMS:,}")
    return items


def _texts(name: str, value: Any) -> Any:
    texts = list_of_strings(name, value)
    return _MISMATCH if texts is None else texts


def _ordered_texts(name: str, value: Any) -> Any:
    check_ordered(name, value)
    return _texts(name, value)


def _whole(name: str, value: Any) -> Any:
    number = plain_number(value)
    if not isinstance(number, int) or isinstance(number, bool):
        return _MISMATCH
    if abs(number) > MAX_NUMBER:
        raise ArgumentError(f"{name} is a very long number; expected a whole number of at most {MAX_NUMBER:,}")
    return number


def _number(_name: str, value: Any) -> Any:
    number = plain_number(value)
    return number if isinstance(number, int | float) and not isinstance(number, bool) else _MISMATCH


def _flag(_name: str, value: Any) -> Any:
    truth = plain_number(value)
    return truth if isinstance(truth, bool) else _MISMATCH


def _path(name: str, value: Any) -> Any:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str):
        return _MISMATCH
    try:
        os.fsencode(path)  # names of files may hold bytes that are not UTF-8, which Python keeps as surrogates
        is_possible = bool(path) and "\0" not in path
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise ArgumentError(f"{name} is {shorten(repr(path), MAX_SHOWN_LENGTH)}; expected the path of a file or folder")
    if not os.path.isabs(path):  # noqa: PTH117
        try:
            Path.cwd()
        except OSError:
            shown = shorten(repr(path), MAX_SHOWN_LENGTH)
            raise ArgumentError(f"{name} is {shown}, but the working folder is gone. Use an absolute path.") from None
    return Path(path)


def _paths(name: str, value: Any) -> Any:
    items = _list(name, value)
    paths = [_MISMATCH] if items is None else [_path(name, item) for item in items]
    return _MISMATCH if _MISMATCH in paths else paths


def _function(_name: str, value: Any) -> Any:
    return value if callable(value) and not isinstance(value, type) else _MISMATCH


def _interval(name: str, value: Any) -> Any:
    number = plain_number(value)
    if isinstance(number, int) and not isinstance(number, bool):
        if number < 1:
            raise ArgumentError(
                f"{name} is {number}; expected at least 1. It is the number of steps between two reports."
            )
        return number
    return _function(name, value)


def _torch_type(kind: str) -> Check:
    """Return the check for torch.device or torch.dtype."""

    def check(_name: str, value: Any) -> Any:
        return value if type(value).__module__ == "torch" and type(value).__name__ == kind else _MISMATCH

    return check


def _whole_numbers(name: str, value: Any) -> Any:
    if (items := _list(name, value)) is None:
        return _MISMATCH
    numbers = [_whole(name, item) for item in items]
    if _MISMATCH in numbers:
        wrong = items[numbers.index(_MISMATCH)]
        raise ArgumentError(f"{name} contains {describe(wrong)}; expected a list of whole numbers")
    return numbers


def _items(name: str, value: Any) -> Any:
    """Accept anything iterable but a set, a text or a file; the function checks the items."""
    check_ordered(name, value, "a list")
    is_one = isinstance(value, str | bytes | Mapping) or hasattr(value, "readline") or getattr(value, "ndim", 1) != 1
    return value if isinstance(value, Iterable) and not is_one else _MISMATCH


def _pairs(name: str, value: Any) -> Any:
    return _items(name, value.items() if isinstance(value, Mapping) else value)


def _mapping(_name: str, value: Any) -> Any:
    return value if isinstance(value, Mapping) else _MISMATCH


def _stream(_name: str, value: Any) -> Any:
    return value if hasattr(value, "readline") and not hasattr(value, "encoding") else _MISMATCH  # text files have it


def is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "cpu")


def tensor_as_array(tensor: Any) -> Any:
    """Return a tensor as an array. NumPy lacks bfloat16; a complex tensor stays one, which is an error later."""
    tensor = tensor.detach().cpu()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


def _axes(_name: str, value: Any) -> Any:
    needed = ("plot", "twinx", "set_yscale")  # pyplot has the first two
    return value if all(hasattr(value, name) for name in needed) else _MISMATCH


def _vectors(name: str, value: Any) -> Any:
    """Return an array, a tensor or nested lists of numbers, (tokens, width), as a float32 array."""
    if not is_tensor(value) and not hasattr(value, "__array_interface__") and not isinstance(value, list | tuple):
        return _MISMATCH
    import numpy as np

    try:
        with np.errstate(over="ignore"):  # too large values become infinite, which is an error below
            array = np.asarray(tensor_as_array(value) if is_tensor(value) else value)
            array = array.astype(np.float32) if array.dtype.kind in "fiu" else array
    except (TypeError, ValueError, RuntimeError):  # for example lists of different lengths
        return _MISMATCH
    if array.dtype != np.float32:
        return _MISMATCH
    if array.ndim != 2 or not array.size:
        raise ArgumentError(f"{name} has shape {array.shape}; expected (tokens, width), such as (3, 256)")
    if not np.isfinite(array).all():
        raise ArgumentError(f"{name} has values that are not finite; expected finite numbers")
    return array


def _instance_of(module: str, name: str) -> Check:
    def check(_name: str, value: Any) -> Any:
        loaded = sys.modules.get(f"softprompt.{module}")
        return value if loaded is not None and isinstance(value, getattr(loaded, name)) else _MISMATCH

    return check


def _dict(_name: str, value: Any) -> Any:
    """Return a copy of a dict, so that two objects do not share it."""
    return value.copy() if isinstance(value, dict) and all(isinstance(key, str) for key in value) else _MISMATCH


def _tuple_of(check: Check) -> Check:
    def check_items(name: str, value: Any) -> Any:
        items = [check(name, item) for item in value] if isinstance(value, tuple | list) else [_MISMATCH]
        return _MISMATCH if _MISMATCH in items else tuple(items)

    return check_items


_CLASSES = {
    "Ancestor": "prompts.lineage",
    "AnswerFidelity": "prompts.results",
    "CausalLM": "encoders.causal_lm.model",
    "ContextFidelity": "prompts.results",
    "Composition": "api.compose",
    "Entry": "library.entry",
    "ExampleFidelity": "prompts.results",
    "ExampleSet": "prompts.examples",
    "HardConfig": "config",
    "HardPrompt": "objectives.base",
    "HardReadout": "prompts.results",
    "ReadoutToken": "prompts.results",
    "Library": "library.store",
    "SoftPrompt": "prompts.soft_prompt",
    "TextEncoder": "encoders.clip.text_encoder",
    "TrainConfig": "config",
    "TrainingState": "training.task",
    "WeightedText": "prompts.lineage",
}
_CHECKS: dict[str, Check] = {
    "None": _none,
    "Any": _anything,
    "object": _anything,
    "str": _text,
    "int": _whole,
    "float": _number,
    "bool": _flag,
    "Path": _path,
    "Array": _vectors,
    "Tensor": _vectors,
    **dict.fromkeys(("Callable", "OnProgress"), _function),
    "Interval": _interval,
    "torch.device": _torch_type("device"),
    "Sequence[str]": _ordered_texts,
    **dict.fromkeys(("Collection[str]", "Iterable[str]"), _texts),
    "Sequence[Path | str]": _paths,
    "Sequence[int]": _whole_numbers,
    "Sequence[WeightedText | tuple[str, float]]": _pairs,
    "Iterable[str | Mapping[str, Any]]": _items,
    "Iterable[tuple[str, str] | Mapping[str, str]]": _items,
    "Mapping[str, SoftPrompt | Entry]": _mapping,
    "os.PathLike": _path,
    "BinaryIO": _stream,
    **dict.fromkeys(("Format", "LongPromptPolicy"), _text),
    "torch.dtype": _torch_type("dtype"),
    "Axes": _axes,
    "dict": _dict,
    "tuple[str, ...]": _tuple_of(_text),
    "tuple[tuple[int, ...], ...]": _tuple_of(_tuple_of(_whole)),
    "tuple[tuple[float, HardPrompt], ...]": _tuple_of(_weighted_hard_prompt),
    **{name: _instance_of(module, name) for name, module in _CLASSES.items()},
    **{f"tuple[{name}, ...]": _tuple_of(_instance_of(module, name)) for name, module in _CLASSES.items()},
}
# how messages name what is expected; otherwise "a" and the annotation
_NAMES = {
    "None": "None",
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "Path": "a path",
    "Array": "an array of shape (tokens, width)",
    "Tensor": "an array of shape (tokens, width)",
    **dict.fromkeys(("Callable", "OnProgress"), "a function"),
    "Interval": "a whole number or a function of the step",
    "Entry": "an Entry",
    "dict": "a dict with strings as keys",
    **dict.fromkeys(("Sequence[str]", "Collection[str]", "Iterable[str]"), "a list of strings"),
    "Sequence[Path | str]": "a list of paths",
    "Sequence[int]": "a list of whole numbers",
    "Sequence[WeightedText | tuple[str, float]]": "a list of (text, weight) pairs",
    "Iterable[str | Mapping[str, Any]]": "a list of texts or of mappings",
    "Iterable[tuple[str, str] | Mapping[str, str]]": "a list of (input, output) pairs",
    "Mapping[str, SoftPrompt | Entry]": "a mapping from names to soft prompts",
    "os.PathLike": "a path",
    "Axes": "matplotlib's Axes",
    "BinaryIO": "a binary stream",
    **dict.fromkeys(("Format", "LongPromptPolicy"), "a string"),
    "tuple[str, ...]": "a tuple of strings",
    "tuple[tuple[int, ...], ...]": "a tuple of tuples of whole numbers",
    "tuple[tuple[float, HardPrompt], ...]": "a tuple of (weight, HardPrompt) pairs",
    **{f"tuple[{name}, ...]": f"a tuple of {name}" for name in _CLASSES},
    "torch.device": "a torch.device",
    "torch.dtype": "a torch.dtype",
}
