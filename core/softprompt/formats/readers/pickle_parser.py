"""Parse a pickle without running it: interpret a few opcodes, and build only plain values.

A pickle is a program: Python's own loader imports and calls whatever the pickle names. This parser imports nothing and
rejects every name that is not on its list. `pickletools` only decodes the opcodes. Format: CPython's
Lib/pickletools.py.
"""

from __future__ import annotations

import math
import pickletools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from softprompt.errors import FileRefused
from softprompt.prompts.tensors import DTYPE_BYTES, Tensor, check_layout

MAX_INSTRUCTIONS = 300_000  # takes about a second; the longest known pickles, in CoOp's checkpoints, have 3000
MAX_DEPTH = 100_000  # values on the stack
MAX_INTEGER_BITS = 128  # torch's magic number has 77

_STORAGE_DTYPES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
_NUMPY_DTYPES = {
    "f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u1": "U8", "b1": "BOOL",
}  # fmt: skip
_STRUCT_CODES = {
    "F64": "d", "F32": "f", "F16": "e", "I64": "q", "I32": "i", "I16": "h", "I8": "b", "U8": "B", "BOOL": "?",
}  # fmt: skip
# classes whose objects are not needed: optimizers and schedules in checkpoints, parameter containers
_OPAQUE_CLASSES = re.compile(
    r"torch\.optim\.[a-z_.]+ [A-Za-z]+|torch\.nn\.modules\.container ParameterDict|(__builtin__|builtins) set"
)
_NDARRAY = "numpy ndarray"
_CONTAINERS = ("collections OrderedDict", "collections defaultdict", "__builtin__ dict", "builtins dict")


@dataclass(frozen=True)
class Name:
    """A global that the pickle would import, as "module name"."""

    text: str


@dataclass(frozen=True)
class Storage:
    """Tensor data: `count` numbers of `dtype` stored under `key` in the file, or a view that starts at `offset`."""

    dtype: str
    key: str
    count: int
    offset: int = 0
    view_count: int = -1  # numbers in the view; -1: all


@dataclass(eq=False)
class OpaqueObject:
    """A stand-in for an object that is not needed; `state` is the argument of BUILD."""

    name: str
    state: Any = None


@dataclass(eq=False)
class _Dtype:
    """The dtype of a NumPy array, a key of DTYPE_BYTES. A later BUILD opcode sets the byte order."""

    kind: str

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "=", "|"):
            raise FileRefused("its pickle has a NumPy array of big-endian numbers or records")


@dataclass(eq=False)
class _EmptyArray:
    """A NumPy array before BUILD sets its shape and data. `memo_indices` lists its positions in the memo."""

    memo_indices: list[int] = field(default_factory=list)


class _Mark:
    """A marker on the stack."""


def parse_pickle(file: IO[bytes], storages: dict[str, Storage] | None = None) -> Any:
    """Parse the pickle at the file's position and move the position past it. Raises FileRefused.

    Returns:
        Plain values, or lists, tuples and dicts that contain Tensor, Storage, Name and OpaqueObject. Containers may
        contain themselves, so callers must limit how deep they descend. `storages` collects the pickle's storages by
        key.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= MAX_INSTRUCTIONS or len(machine.stack) > MAX_DEPTH:
                raise FileRefused("its pickle is longer than any soft prompt needs")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise FileRefused(f"its pickle is damaged ({type(error).__name__}: {str(error)[:80]})") from error
    raise FileRefused("its pickle has no STOP opcode")


class _Machine:
    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            if isinstance(argument, int) and argument.bit_length() > MAX_INTEGER_BITS:
                raise FileRefused("its pickle has an integer of more than 128 bits")
            self.stack.append(argument)
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in _IGNORED:
            raise FileRefused(f"its pickle uses the opcode {name}. No soft prompt needs it, so it is never run")

    def pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise ValueError("expected a value")
        return value

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise TypeError(f"expected {kind.__name__}")
        return value

    def pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while not isinstance(self.stack[at], _Mark):  # skipped values leave the stack, so no value is visited twice
            at -= 1
            if at < 0:
                raise ValueError("expected a mark")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    # opcodes

    def build_tuple(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def extend(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def fill(self, pairs: list[Any]) -> None:
        _fill(self.top(dict), pairs)

    def build_dict(self) -> None:
        new: dict[Any, Any] = {}
        _fill(new, self.pop_to_mark())
        self.stack.append(new)

    def put(self, index: int) -> None:
        value = self.stack[-1]
        if isinstance(value, _Mark):
            raise ValueError("expected a value")
        self.memo[index] = value
        if isinstance(value, _EmptyArray):
            value.memo_indices.append(index)

    def resolve_name(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("expected a name")
        self.stack.append(_check_name(f"{module} {name}"))

    def pop_pair(self) -> tuple[Any, Any]:
        second, first = self.pop(), self.pop()
        return first, second

    def reduce(self) -> None:
        function, arguments = self.pop_pair()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise FileRefused("its pickle calls something other than a named function or class")
        self.stack.append(_call(function.text, arguments))

    def new_object(self) -> None:
        cls, _ = self.pop_pair()
        if not isinstance(cls, Name) or not _OPAQUE_CLASSES.fullmatch(cls.text):
            raise FileRefused("its pickle creates an object of a class that no soft prompt needs")
        self.stack.append(OpaqueObject(cls.text))

    def build(self) -> None:
        target, state = self.pop_pair()
        if isinstance(target, OpaqueObject):
            target.state = state
        elif isinstance(target, _Dtype):
            target.build(state)
        elif isinstance(target, _EmptyArray):
            array = _build_array(state)
            for index in target.memo_indices:
                if self.memo.get(index) is target:
                    self.memo[index] = array
            target = array
        elif not isinstance(target, dict):  # ignore the module versions that a state dict has as an attribute
            raise FileRefused("its pickle sets the state of an object that no soft prompt has (BUILD)")
        self.stack.append(target)

    def load_storage(self) -> None:
        persistent_id = self.pop()
        if (
            isinstance(persistent_id, tuple)
            and len(persistent_id) == 4
            and persistent_id[0] == "module"
            and isinstance(persistent_id[1], Name)
        ):
            self.stack.append(persistent_id[1])  # torch's older format stores a module's class with its source code
            return
        storage = _parse_storage(persistent_id)
        known = self.storages.setdefault(storage.key, storage)
        if (known.dtype, known.count) != (storage.dtype, storage.count):
            raise FileRefused("its pickle describes the same storage in two different ways")
        self.stack.append(storage)


def _fill(target: dict[Any, Any], pairs: list[Any]) -> None:
    if len(pairs) % 2:
        raise ValueError("a key has no value")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(
            key, (str, int, Tensor)
        ):  # hashing a tuple visits every nested value, a shared value many times
            raise FileRefused(f"its pickle has a dict with a key of type {type(key).__name__}")
        if key in target:
            raise FileRefused(f"its pickle has the key {str(key)[:60]!r} twice")
        target[key] = value


def _check_name(text: str) -> Name:
    if (
        text in _CALLS
        or text in _CONTAINERS
        or text == _NDARRAY
        or _OPAQUE_CLASSES.fullmatch(text)
        or _storage_dtype(text)
    ):
        return Name(text)
    raise FileRefused(
        f"its pickle refers to {text.replace(' ', '.')[:80]!r}, which no soft prompt needs. Code in files is never run"
    )


def _storage_dtype(text: str) -> str:
    module, _, name = text.partition(" ")
    return _STORAGE_DTYPES.get(name, "") if module in ("torch", "torch.cuda") else ""


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    if name in _CALLS:
        return _CALLS[name](*arguments)
    if name in _CONTAINERS:
        new: dict[Any, Any] = {}
        # a Python 2 OrderedDict's argument is a list of pairs; a defaultdict's is its factory
        if name == "collections OrderedDict" and arguments:
            (pairs,) = arguments
            _fill(new, [item for pair in _as_list(pairs) for item in _as_pair(pair)])
        return new
    if _OPAQUE_CLASSES.fullmatch(name):
        return OpaqueObject(name)
    raise FileRefused(f"its pickle calls {name.replace(' ', '.')}, which no soft prompt needs")


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("expected a list")
    return value


def _as_pair(value: Any) -> tuple[Any, Any]:
    first, second = value if isinstance(value, (list, tuple)) else ()
    return first, second


def _parse_storage(persistent_id: Any) -> Storage:
    """Parse torch's persistent id: ("storage", type, key, location, count[, view]) with view (key, offset, count)."""
    if (
        not isinstance(persistent_id, tuple)
        or len(persistent_id) not in (5, 6)
        or persistent_id[0] not in ("storage", b"storage")
    ):
        raise FileRefused("its pickle has a persistent id that is not a torch storage")
    _, kind, key, _, count, *rest = persistent_id
    dtype = _storage_dtype(kind.text) if isinstance(kind, Name) else ""
    if not dtype or not isinstance(key, str) or not _is_size(count):
        raise FileRefused("its pickle has a storage of an unknown kind")
    view = rest[0] if rest else None
    if view is None:
        return Storage(dtype, key, count)
    if not isinstance(view, tuple) or len(view) != 3 or not (_is_size(view[1]) and _is_size(view[2])):
        raise FileRefused("its pickle has a storage of an unknown kind")
    if view[1] + view[2] > count:
        raise FileRefused("its pickle has a view that extends beyond its storage")
    return Storage(dtype, key, count, view[1], view[2])


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _rebuild_tensor(storage: Any, offset: Any, size: Any, strides: Any, *_: Any) -> Tensor:
    if (
        not isinstance(storage, Storage)
        or not _is_size(offset)
        or not isinstance(size, tuple)
        or not isinstance(strides, tuple)
    ):
        raise FileRefused("its pickle has a tensor of an unknown kind")
    if len(size) != len(strides) or len(size) > 16 or not all(map(_is_size, (*size, *strides))):
        raise FileRefused("its pickle has a tensor with inconsistent sizes")
    available = storage.count if storage.view_count < 0 else storage.view_count
    check_layout(Tensor(storage.dtype, size, storage.key, available, offset, strides))
    return Tensor(storage.dtype, size, storage.key, storage.count, storage.offset + offset, strides)


def _rebuild_parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise FileRefused("its pickle has a parameter that is not a tensor")
    return data


def _numpy_dtype(code: Any, *_: Any) -> _Dtype:
    kind = _NUMPY_DTYPES.get(code) if isinstance(code, str) else None
    if kind is None:
        raise FileRefused(f"its pickle has a NumPy array of dtype {str(code)[:20]!r}. Use f4, f2 or f8")
    return _Dtype(kind)


def _empty_array(kind: Any, _shape: Any, _code: Any) -> _EmptyArray:
    if kind != Name(_NDARRAY):
        raise TypeError("expected a NumPy array")
    return _EmptyArray()


def _build_array(state: Any) -> Tensor:
    """Build an array from the argument of BUILD: (version, shape, dtype, is Fortran order, data)."""
    _, shape, dtype, is_fortran, numbers = state if isinstance(state, tuple) else ()
    return _array_from_buffer(numbers, dtype, shape, "F" if is_fortran else "C")


def _array_from_buffer(numbers: Any, dtype: Any, shape: Any, order: Any) -> Tensor:
    """Build an array from its data."""
    if (
        not isinstance(dtype, _Dtype)
        or not isinstance(shape, tuple)
        or len(shape) > 16
        or not all(map(_is_size, shape))
    ):
        raise FileRefused("its pickle has a NumPy array of an unknown kind")
    count = math.prod(shape)
    if not isinstance(numbers, (bytes, bytearray, str)) or len(numbers) != count * DTYPE_BYTES[dtype.kind]:
        raise FileRefused("its pickle has a NumPy array of objects, or one whose data does not match its shape")
    is_fortran = order == "F"  # the first index varies fastest
    strides = tuple(math.prod(shape[:i] if is_fortran else shape[i + 1 :]) for i in range(len(shape)))
    return Tensor(dtype.kind, shape, "", count, 0, strides, numbers)


def _scalar(dtype: Any, numbers: Any) -> Any:
    """Convert a NumPy scalar to a Python number."""
    if not isinstance(dtype, _Dtype) or not isinstance(numbers, (bytes, str)):
        raise TypeError("expected a NumPy scalar")
    start = numbers[: DTYPE_BYTES[dtype.kind]]
    (value,) = struct.unpack(
        f"<{_STRUCT_CODES[dtype.kind]}", start.encode("latin-1") if isinstance(start, str) else start
    )
    return value


def _encode_latin_1(text: Any, codec: Any) -> str:
    """Return bytes that protocol 2 stores as text. They are converted only when they are read, to avoid a copy."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise TypeError("expected bytes")
    return text


def _torch_size(numbers: Any) -> tuple[Any, ...]:
    if not isinstance(numbers, tuple):
        raise TypeError("expected a size")
    return numbers


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    "torch.nn.parameter Parameter": _rebuild_parameter,
    "torch Size": _torch_size,
    "numpy dtype": _numpy_dtype,
    "_codecs encode": _encode_latin_1,
    # NumPy 1 and 2
    **dict.fromkeys(("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"), _empty_array),
    **dict.fromkeys(("numpy.core.multiarray scalar", "numpy._core.multiarray scalar"), _scalar),
    **dict.fromkeys(("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer"), _array_from_buffer),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple, "EMPTY_LIST": list,
    "EMPTY_DICT": dict, "MARK": _Mark,
}  # fmt: skip
_LITERALS = frozenset(
    "INT LONG BININT BININT1 BININT2 LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_IGNORED = frozenset(("PROTO", "FRAME"))
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, _: m.build_tuple(1),
    "TUPLE2": lambda m, _: m.build_tuple(2),
    "TUPLE3": lambda m, _: m.build_tuple(3),
    "LIST": lambda m, _: m.stack.append(m.pop_to_mark()),
    "DICT": lambda m, _: m.build_dict(),
    "APPEND": lambda m, _: m.extend([m.pop()]),
    "APPENDS": lambda m, _: m.extend(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.fill(list(m.pop_pair())),
    "SETITEMS": lambda m, _: m.fill(m.pop_to_mark()),
    "GET": lambda m, index: m.stack.append(m.memo[index]),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "PUT": lambda m, index: m.put(index),
    "BINPUT": lambda m, index: m.put(index),
    "LONG_BINPUT": lambda m, index: m.put(index),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GLOBAL": lambda m, text: m.stack.append(_check_name(text)),
    "STACK_GLOBAL": lambda m, _: m.resolve_name(),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new_object(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.load_storage(),
}
