"""Check the arguments of public functions against their annotations, and convert what people type.

    @checked
    def rename(self, name: str, new: str, revision: int | None = None) -> Entry: ...

A wrong call raises an ArgumentError with a one-line message: the argument, its value, and what is expected. NumPy's
integers and floats, and paths as strings, are converted. `argument_types` has the check for each annotation.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, overload

from softprompt.argument_types import ADVICE, MAX_SHOWN_LENGTH, Check, check_for, describe, nearest_name, plain_number
from softprompt.errors import ArgumentError

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)
_SELF = ("self", "cls")
# what to do instead of making an object by hand
_INSTEAD = {
    "SoftPrompt": "softprompt.train makes a soft prompt, and SoftPrompt.load reads one from a file",
    "Entry": "library.save makes an entry, and library['fox'] opens one",
}
# why a function lacks arguments that the same function of another library has
_WITHOUT = {
    "encode": "It takes texts only, makes batches by itself, and returns unit vectors as a torch.Tensor.",
}


@overload
def checked(function: Function) -> Function: ...


@overload
def checked(
    *, settings: type | None = None, renamed: Mapping[str, str] | None = None
) -> Callable[[Function], Function]: ...


def checked(function: Any = None, *, settings: type | None = None, renamed: Mapping[str, str] | None = None) -> Any:
    """Decorate a public function or method: its arguments are checked before it runs.

    Args:
        settings: a TypedDict with the names that the function accepts as `**settings`.
        renamed: old names of arguments and their new ones. An old name works, with a DeprecationWarning.
    """
    if function is not None:
        return _checked(function, frozenset(), {})
    names = frozenset(settings.__annotations__ if settings else ())
    return functools.partial(_checked, settings=names, renamed=renamed or {})


def _checked(function: Callable[..., Any], settings: frozenset[str], renamed: Mapping[str, str]) -> Callable[..., Any]:
    @functools.cache
    def signature_and_checks() -> tuple[inspect.Signature, dict[str, Check]]:
        signature = inspect.signature(function)  # on the first call: reading all signatures at import takes 10 ms
        return signature, {
            name: check_for(parameter.annotation)
            for name, parameter in signature.parameters.items()
            if name not in _SELF and parameter.kind is not parameter.VAR_KEYWORD
        }

    @functools.wraps(function)
    def checked_function(*args: Any, **kwargs: Any) -> Any:
        signature, checks = signature_and_checks()
        label = type(args[0]).__name__ if function.__name__ == "__init__" and args else function.__name__
        for old, new in renamed.items():
            if old in kwargs and new not in kwargs:
                warnings.warn(f"{label}({old}=) is now {label}({new}=)", DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise _bad_call(label, signature, settings, args, kwargs, error) from None
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind is parameter.VAR_KEYWORD:
                if (unknown := next((key for key in value if key not in settings), None)) is not None:
                    raise _unknown_argument(label, signature, settings, unknown)
            elif name in checks and value is not parameter.default:
                bound.arguments[name] = checks[name](name, value)
        return function(*bound.args, **bound.kwargs)

    return checked_function


def checked_fields(cls: Class) -> Class:
    """Decorate a dataclass: a wrong name in its constructor raises an ArgumentError with the nearest name.

    Its `__post_init__` checks the values.
    """
    create = cls.__init__  # type: ignore[misc]

    @functools.wraps(create)
    def checked_init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            create(self, *args, **kwargs)
        except TypeError as error:
            if isinstance(error, ArgumentError):
                raise
            signature = inspect.signature(create)
            raise _bad_call(cls.__name__, signature, frozenset(), (self, *args), kwargs, error) from None

    cls.__init__ = checked_init  # type: ignore[misc]
    return cls


def convert_fields(instance: Any, skipped: Sequence[str] = ()) -> None:
    """Check and convert the values of a frozen dataclass by their annotations, as `checked` does with arguments."""
    for field in fields(instance):
        if field.name not in skipped:
            label = f"{type(instance).__name__}.{field.name}"
            value = check_for(str(field.type))(label, getattr(instance, field.name))
            object.__setattr__(instance, field.name, value)


# calls that do not fit the signature


def _bad_call(
    function: str,
    signature: inspect.Signature,
    settings: frozenset[str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: TypeError,
) -> ArgumentError:
    parameters = signature.parameters
    unknown = next((name for name in kwargs if name not in parameters and name not in settings), None)
    if unknown is not None:
        return _unknown_argument(function, signature, settings, unknown)
    by_position = [name for name, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    if len(args) > len(by_position):
        shown = ", ".join(name for name in by_position if name not in _SELF) or "none"
        example = "tokens=3" if "tokens" in settings else "name=value"
        return ArgumentError(
            f"{function} takes only these arguments by position: {shown}. Write the others with their names, such as "
            f"{example}."
        )
    missing = (
        name
        for name, parameter in [*parameters.items()][len(args) :]
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD and name not in kwargs
    )
    if (name := next(missing, None)) is not None:
        return ArgumentError(
            f"{function} needs the argument '{name}'"
            + (f". {advice}." if (advice := _INSTEAD.get(function) or ADVICE.get(name)) else "")
        )
    return ArgumentError(f"{function}: {error}")


def _unknown_argument(
    function: str, signature: inspect.Signature, settings: frozenset[str], name: str
) -> ArgumentError:
    names = [
        known
        for known, parameter in signature.parameters.items()
        if known not in _SELF and parameter.kind is not parameter.VAR_KEYWORD
    ]
    names += sorted(settings)
    if close := nearest_name(name, names):
        hint = f"Did you mean '{close}'?"
    else:
        hint = _WITHOUT.get(function) or f"It has: {', '.join(names) or 'none'}."
    return ArgumentError(f"{function} has no argument '{name[:MAX_SHOWN_LENGTH]}'. {hint}")


# answers


def is_stop(name: str, answer: Any) -> bool:
    """Return whether a caller's function asks to stop. Only True does, because a forgotten value must not end a run."""
    truth = plain_number(answer)
    if answer is not None and not isinstance(truth, bool):
        raise ArgumentError(f"{name} returned {describe(answer)}; expected True to stop, or None")
    return bool(truth)
