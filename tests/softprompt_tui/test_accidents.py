"""No widget, screen or application overrides or defines something that Textual calls by name by accident."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest
from textual.app import App
from textual.binding import Binding
from textual.message import Message
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input, TextArea

import softprompt_tui

# Members of Textual that are overridden on purpose.
OVERRIDDEN = {
    "_fatal_error", "_on_key", "ALLOW_SELECT", "BINDINGS", "check_action", "check_consume_key", "clipboard",
    "COMPONENT_CLASSES", "compose", "control", "CSS_PATH", "DEFAULT_CSS", "get_content_height", "get_default_screen",
    "get_driver_class", "get_line", "get_line_filters", "get_system_commands", "HORIZONTAL_BREAKPOINTS", "on_event",
    "panic", "push_screen_wait", "render", "render_line", "scroll_cursor_visible", "TITLE", "VERTICAL_BREAKPOINTS",
    "watch_has_focus", "watch_scroll_y",
}  # fmt: skip
SET_BY_TEXTUAL = (
    "__",
    "_decorated_handlers",
    "_reactives",
    "_css_type_name",
    "can_focus",
    "_inherit_",
    "_merged_bindings",
    "_computes",
    "_abc_impl",
    "_default_css",
)


def own_classes() -> list[type[MessagePump]]:
    for module in pkgutil.walk_packages(softprompt_tui.__path__, "softprompt_tui."):
        if ".cli" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return [cls for cls in subclasses(MessagePump) if cls.__module__.startswith("softprompt_tui.")]


def subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


CLASSES = own_classes()
MEMBERS = [(cls, name, value) for cls in CLASSES for name, value in vars(cls).items()]
METHODS = [(cls, name, value) for cls, name, value in MEMBERS if isinstance(value, FunctionType)]


def test_all_widgets_screens_and_the_application_are_checked() -> None:
    folder = Path(softprompt_tui.__file__).parent
    sources = "\n".join(path.read_text() for path in folder.rglob("*.py") if "cli" not in path.parts)
    defined = set(
        re.findall(
            r"^class (\w+)\((?:Modal)?"
            r"(?:Screen|Widget|Vertical|Horizontal|VerticalScroll|Static|Input|TextArea|App|Table|ScrollView)\b",
            sources,
            re.MULTILINE,
        )
    )
    assert defined <= {cls.__name__ for cls in CLASSES}
    assert len(CLASSES) > 20


def test_no_method_is_a_key_handler() -> None:
    assert [(cls, name) for cls, name, _ in MEMBERS if re.match(r"_?key_", name)] == []


def test_every_handler_belongs_to_an_event_and_accepts_it() -> None:
    handlers = {message.handler_name for message in subclasses(Message)}
    for cls, name, method in METHODS:
        if re.match(r"_?on_", name) and name != "on_event":
            assert name.removeprefix("_") in handlers, f"{cls.__name__}.{name} is never called"
            required = [
                parameter
                for parameter in inspect.signature(method).parameters.values()
                if parameter.default is parameter.empty
            ]
            assert len(required) <= 2, f"{cls.__name__}.{name} cannot be called with an event"


def test_every_watcher_and_validator_belongs_to_a_reactive_attribute() -> None:
    for cls, name, _ in METHODS:
        if match := re.match(r"_?(watch|validate|compute)_(\w+)", name):
            assert match[2] in cls._reactives, f"{cls.__name__}.{name}: there is no reactive attribute {match[2]}"


def test_every_action_has_a_key_or_a_command() -> None:
    bound = {
        re.sub(r"\(.*", "", binding.action).rpartition(".")[2]
        for cls in CLASSES
        for binding in cls._merge_bindings().key_to_bindings.values()
        for binding in binding
    }
    source = "\n".join(inspect.getsource(inspect.getmodule(cls)) for cls in CLASSES)
    for cls, name, _ in METHODS:
        if name.startswith("action_"):
            assert name.removeprefix("action_") in bound or source.count(name) > 1, f"{cls.__name__}.{name}"


def test_no_handler_calls_super() -> None:
    """Textual calls the handlers of all base classes by itself, so super() would call them twice."""
    for cls, name, method in METHODS:
        if re.match(r"_?on_(?!event$)", name):
            calls = [
                node
                for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method))))
                if isinstance(node, ast.Call)
            ]
            assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "super"], (
                f"{cls.__name__}.{name}"
            )


def test_no_textual_member_is_overridden_by_accident() -> None:
    for cls, name, _ in MEMBERS:
        textual_bases = [base for base in cls.__mro__ if not base.__module__.startswith("softprompt_tui.")]
        is_special = name.startswith(SET_BY_TEXTUAL) or re.match(r"_?on_|_?action_", name)
        if not is_special and any(name in vars(base) for base in textual_bases):
            assert name in OVERRIDDEN, (
                f"{cls.__name__}.{name} overrides {next(base.__name__ for base in textual_bases if name in vars(base))}"
            )


def test_no_textual_attribute_is_set_by_accident() -> None:
    """For example, `self.name = …` in a screen would rename the screen."""
    for cls in CLASSES:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
        names = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        }
        textual_bases = [base for base in cls.__mro__ if not base.__module__.startswith("softprompt_tui.")]
        replaced = {
            name
            for name in names
            if any(isinstance(vars(base).get(name), (FunctionType, property)) for base in textual_bases)
        }
        settable = {
            name
            for name in replaced
            if any(isinstance(p := vars(base).get(name), property) and p.fset for base in textual_bases)
        }
        assert replaced <= settable, f"{cls.__name__}: {replaced - settable}"


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if issubclass(cls, (Screen, App, Widget))])
def test_no_printable_key_has_a_priority_binding_where_there_is_a_text_field(cls: type[Widget]) -> None:
    """Otherwise a text field would not keep the order of the typed text by itself."""
    priority_keys = {
        key
        for key, bindings in cls._merge_bindings().key_to_bindings.items()
        for binding in bindings
        if isinstance(binding, Binding) and binding.priority
    }
    has_fields = any(field.__name__ in inspect.getsource(cls) for field in (Input, TextArea))
    assert not (has_fields and priority_keys & set("abcdefghijklmnopqrstuvwxyz/?"))
