"""Values that hold arrays: compare them by value, and keep their arrays read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from softprompt.argument_types import describe, is_tensor, tensor_as_array
from softprompt.errors import ArgumentError

Array = npt.NDArray[np.float32]


class ComparedByValue:
    """A dataclass whose values are equal if all fields are equal. Arrays, tensors and NaN are compared by value.

    A subclass is a dataclass with eq=False.
    """

    _hashed: tuple[str, ...]  # fields of strings or integers: those of equal values have equal hashes

    def __eq__(self, other: object) -> bool:
        if _is_array(other):  # it would compare each of its values
            return False
        return are_equal(self, other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self._hashed))


class ReadOnlyDict(dict[str, Any]):
    """A dict that nobody can change. `dict(values)` and `values.copy()` return an ordinary one."""

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise ArgumentError(
            "the values of a soft prompt cannot be changed. Change a copy, such as dict(prompt.config)."
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def are_equal(a: Any, b: Any) -> bool:
    """Return whether two values are equal. NaN equals NaN, and a list equals a tuple of the same values."""
    if a is b:
        return True
    if is_dataclass(a) and not isinstance(a, type):
        return type(a) is type(b) and all(
            are_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a) if field.compare
        )
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(are_equal(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(are_equal(*pair) for pair in zip(a, b, strict=True))
    if _is_array(a) or _is_array(b):
        return _is_array(a) and _is_array(b) and _arrays_are_equal(_as_array(a), _as_array(b))
    if isinstance(a, float | np.floating) and isinstance(b, float | np.floating):
        return a == b or (a != a and b != b)
    return bool(a == b)


def _is_array(value: Any) -> bool:
    """Return whether a value is an array or a tensor. This module does not import torch."""
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "numpy"))


def _as_array(value: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = value if isinstance(value, np.ndarray) else value.detach().cpu().numpy()
    return array


def _arrays_are_equal(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return np.array_equal(a, b, equal_nan="f" in (a.dtype.kind, b.dtype.kind))


def as_read_only(name: str, values: Any) -> Array:
    """Return a float32 array that nobody can change: `values`, or a read-only copy if someone could still change them.

    Raises:
        ArgumentError: the values are no numbers. The message calls them `name`.
    """
    try:
        array = np.asarray(tensor_as_array(values) if is_tensor(values) else values)
    except (TypeError, ValueError, RuntimeError):  # for example lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "fiu":
        kind = f" of dtype {array.dtype}" if isinstance(values, np.ndarray) else ""
        raise ArgumentError(f"{name} is {describe(values)}{kind}; expected an array of numbers")
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):  # values that are too large become infinite; saving them is an error
            array = array.astype(np.float32)
    if not _is_read_only(array):
        # an array that owns its memory could be made writable again
        array = np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
    return array


def _is_read_only(array: Any) -> bool:
    """Return whether neither an array nor an array that it is a view of can be changed."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None or isinstance(array, bytes)
