"""Write the reference in softprompt_tui/docs/python-api.md from the docstrings: `python -m tests.api_reference`.

The reference has every name of `softprompt.__all__`, and begins at the heading "Reference".
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import Any, Literal, get_args, get_origin

import softprompt
from tests.recipes import PAGE
from tests.softprompt.api.test_public_names import INTERNAL

HEADING = "\n# Reference\n"
WIDTH = 100
_SPACE_IN_CODE = "\0"
SECTIONS = {
    "Load a model": ("load_encoder", "load_causal_lm", "list_models", "TextEncoder", "CausalLM", "ModelInfo"),
    "Train": ("train", "iter_train", "train_batch", "iter_batch", "sweep", "tune", "port"),
    "Settings": ("TrainConfig", "TrainSettings", "HardConfig", "HardSettings"),
    "Measure and read": ("grade", "read_out", "find_hard", "compose"),
    "Keep and exchange": ("SoftPrompt", "Library", "Entry", "export", "import_files", "assign"),
    "What functions return": (
        "Sweep", "Result", "Composition", "ContextFidelity", "ContextScore", "AnswerFidelity", "AnswerScore",
        "AnswerSample", "ReadoutToken", "Neighbour", "HardReadout",
        "EntrySummary", "EntryPage", "ExportResult", "ImportReport", "ImportResult", "BackupReport", "CheckReport",
        "ExampleFidelity", "ExampleScore", "ExampleSample", "ExampleSource", "Ancestor", "WeightedText", "HardPrompt",
        "TrainingState",
    ),
    "What callbacks receive": ("Report", "SweepReport", "HardReport", "BatchProgress"),
}  # fmt: skip
INTRODUCTION = (
    "`softprompt.__version__` is the version of the installed package, a string.",
    "In signatures, `Array` is a NumPy array of float32, `Tensor` a `torch.Tensor`, and `Interval` an `int` or a "
    "function from the step to whether a report is due. Whatever takes `Array | Tensor` also takes nested lists. "
    "`**settings: TrainSettings` means that every field of `TrainConfig` is a keyword argument. Numbers of NumPy and "
    "torch do in place of Python's.",
)
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example):$")
_ITEM = re.compile(r"(\w+(?:, \w+)*): (.*)", re.DOTALL)
# used only inside the package
INTERNAL_METHODS = {"as_line", "from_entry"}
INTERNAL_ATTRIBUTES = {
    "batch_key",
    "chat_template",
    "config_folder",
    "extra_tensors",
    "fingerprint",
    "hidden_weight",
    "needs_language_model",
    "ordinary_ids",
    "token_norm",
    "token_std",
}


def write_reference() -> str:
    """Return the reference as Markdown, without its heading."""
    parts = [_fill(text, "", "") for text in INTRODUCTION]
    for title, names in SECTIONS.items():
        parts += [f"## {title}", *(part for name in names for part in _describe(name, getattr(softprompt, name)))]
    parts += ["## Errors", *_errors()]
    return "\n\n".join(parts) + "\n"


def _describe(name: str, value: Any) -> Iterator[str]:
    yield f"### {name}"
    if not inspect.isclass(value):
        yield _code(_signature(name, value))
        yield from _docstring(value)
    elif not hasattr(value, "__mro_entries__") and hasattr(value, "__total__"):
        yield from _docstring(value)
    else:
        yield from _describe_class(name, value)


def _describe_class(name: str, cls: Any) -> Iterator[str]:
    documented = _Docstring(cls)
    if _is_constructed(cls):
        yield _code(_signature(name, cls.__init__))
    yield from documented.paragraphs(without={"Attributes"})
    if attributes := list(_attributes(cls, documented)):
        yield "Attributes:"
        yield "\n".join(attributes)
    for method_name, method in _methods(name, cls):
        yield f"#### {name}.{method_name}"
        yield _code(_signature(f"{name}.{method_name}", method))
        yield from _docstring(method)


def _is_constructed(cls: Any) -> bool:
    """Return whether people create objects of this class themselves."""
    return cls in (softprompt.TrainConfig, softprompt.HardConfig, softprompt.Library, softprompt.WeightedText)


def _attributes(cls: Any, documented: _Docstring) -> Iterator[str]:
    """Yield a list item for each attribute and property that is described, then one for the others."""
    texts = documented.items("Attributes")
    types: dict[str, str] = {}
    for field in fields(cls) if is_dataclass(cls) else ():
        if not field.name.startswith("_"):
            types[field.name] = _annotation(str(field.type), cls)
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        if (
            not name.startswith("_")
            and name not in INTERNAL_ATTRIBUTES
            and isinstance(value, property | cached_property)
        ):
            function = inspect.unwrap(value.fget if isinstance(value, property) else value.func)  # type: ignore[arg-type]
            types[name] = _annotation(str(inspect.signature(function).return_annotation), function)
            if value.__doc__:
                texts[(name,)] = _lower_first(" ".join(value.__doc__.split()))
    types |= {name: "" for names in texts for name in names if name not in types}
    described: set[str] = set()
    for name in types:
        if (group := next((names for names in texts if name in names), None)) and name not in described:
            described |= set(group)
            kinds = list(dict.fromkeys(types[each] for each in group))
            shown = f" ({kinds[0]})" if len(kinds) == 1 and kinds[0] else ""
            yield _item(", ".join(f"`{each}`" for each in group) + f"{shown}: {texts[group]}")
    if rest := [f"`{name}` ({kind})" for name, kind in types.items() if name not in described]:
        yield _item(", ".join(rest))


def _lower_first(text: str) -> str:
    return text[0].lower() + text[1:]


def _methods(owner: str, cls: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public methods, in the order of the source."""
    hidden = INTERNAL.get(owner, set()) | INTERNAL_METHODS
    found: dict[str, Callable[..., Any]] = {}
    for base in cls.__mro__:
        if not base.__module__.startswith("softprompt."):
            continue
        for name, value in vars(base).items():
            function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            if inspect.isfunction(function) and not name.startswith("_") and name not in hidden:
                found.setdefault(name, function)
    yield from found.items()


def _errors() -> Iterator[str]:
    """Yield a sentence and a table of all errors."""
    errors = {
        name: value
        for name, value in ((name, getattr(softprompt, name)) for name in softprompt.__all__)
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    rows = ["| error | is a | when |", "|---|---|---|"]
    for name, error in sorted(errors.items()):
        bases = ", ".join(f"`{base.__name__}`" for base in error.__bases__)
        text = " ".join((inspect.getdoc(error) or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {bases} | {text} |")
    yield "Catch `softprompt.SoftPromptError` to catch them all."
    yield "\n".join(rows)


# signatures


def _signature(name: str, function: Callable[..., Any]) -> str:
    """Return a signature as people write it, on one line if it fits."""
    signature = inspect.signature(function)
    parameters: list[str] = []
    keyword_only = False
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            parameters.append("*")
            keyword_only = True
        text = parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {_annotation(parameter.annotation, function)}"
        if parameter.default is not parameter.empty:
            default = _quoted(repr(parameter.default))
            text += f" = {default if len(default) < 40 and not default.startswith('<') else '…'}"
        parameters.append(f"**{text}" if parameter.kind is parameter.VAR_KEYWORD else text)
    result = signature.return_annotation
    arrow = "" if result in (signature.empty, "None", None) else f" -> {_annotation(result, function)}"
    line = f"{name}({', '.join(parameters)}){arrow}"
    if len(line) <= WIDTH:
        return line
    lines = [_fill(f"{parameter},", "    ", "        ") for parameter in parameters]
    return "\n".join([f"{name}(", *lines, f"){arrow}"])


def _annotation(annotation: str, owner: Any) -> str:
    """Return an annotation as people read it: names without their modules, and literals in place of their aliases."""
    names = vars(sys.modules[inspect.unwrap(owner).__module__])

    def expand(match: re.Match[str]) -> str:
        value = names.get(match[0])
        return _quoted(" | ".join(map(repr, get_args(value)))) if get_origin(value) is Literal else match[0]

    text = re.sub(r"\bUnpack\[(\w+)\]", r"\1", str(annotation))
    text = re.sub(r"Literal\[([^\]]*)\]", r"\1", text)
    text = re.sub(r"\b(?:os|np|npt|typing|collections\.abc)\.(?=[A-Z])", "", text)
    return _quoted(re.sub(r"\b[A-Z]\w+\b", expand, text))


def _quoted(text: str) -> str:
    """Return code with double quotes."""
    return text if '"' in text else text.replace("'", '"')


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


# docstrings


class _Docstring:
    """A docstring's summary and sections."""

    def __init__(self, value: Any) -> None:
        self.parts: dict[str, str] = {"": ""}
        section = ""
        for line in (inspect.getdoc(value) or "").splitlines():
            if match := _SECTION.match(line):
                section = match[1]
                self.parts[section] = ""
            else:
                self.parts[section] += line + "\n"

    def items(self, section: str) -> dict[tuple[str, ...], str]:
        """Return the texts of a section by the names that they describe."""
        found: dict[tuple[str, ...], str] = {}
        for text in _split_items(self.parts.get(section, "")):
            match = _ITEM.fullmatch(text)
            assert match, f"{section} has an item without a name: {text}"
            found[tuple(match[1].split(", "))] = match[2]
        return found

    def paragraphs(self, without: frozenset[str] | set[str] = frozenset()) -> Iterator[str]:
        for section, body in self.parts.items():
            if section in without or not body.strip():
                continue
            if section == "Example":
                yield "Example:"
                yield _code(textwrap.dedent(body).strip())
            elif section in ("Args", "Raises"):
                yield "Arguments:" if section == "Args" else "Raises:"
                yield "\n".join(_item(_mark(text)) for text in _split_items(body))
            else:
                yield from _prose(body, {"": "", "Returns": "Returns: "}.get(section, f"{section}: "))


def _docstring(value: Any) -> Iterator[str]:
    yield from _Docstring(value).paragraphs()


def _split_items(body: str) -> list[str]:
    """Return the items of a section, whose further lines are indented."""
    lines = textwrap.dedent(body).strip("\n").splitlines()
    items: list[str] = []
    for line in lines:
        if line.startswith(" ") and items:
            items[-1] += f" {line.strip()}"
        elif line.strip():
            items.append(line.strip())
    return items


def _mark(text: str) -> str:
    """Set the names before the colon as code."""
    match = _ITEM.fullmatch(text)
    if match is None:
        return re.sub(r"\b[A-Z]\w*[a-z]\w*[A-Z]\w+|\bBadName\b", r"`\g<0>`", text)
    return ", ".join(f"`{name}`" for name in match[1].split(", ")) + f": {match[2]}"


def _item(text: str) -> str:
    return _fill(text, "- ", "  ")


def _prose(body: str, label: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", textwrap.dedent(body).strip("\n"))):
        indented = all(line.startswith("    ") for line in paragraph.splitlines())
        if indented:
            yield _code(textwrap.dedent(paragraph))
        else:
            yield _fill((label if number == 0 else "") + " ".join(paragraph.split()), "", "")


def _fill(text: str, first: str, other: str) -> str:
    """Wrap text between words, but not inside code, so that a search shows code whole."""
    whole = re.sub(r"`[^`]+`", lambda match: match[0].replace(" ", _SPACE_IN_CODE), text)
    return textwrap.fill(
        whole, WIDTH, initial_indent=first, subsequent_indent=other, break_long_words=False, break_on_hyphens=False
    ).replace(_SPACE_IN_CODE, " ")


def updated_page(page: str) -> str:
    """Return the page with the current reference."""
    return page[: page.index(HEADING)] + f"{HEADING}\n{write_reference()}"


def main() -> None:
    PAGE.write_text(updated_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
