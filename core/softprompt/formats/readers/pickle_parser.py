"""What a pickle says, without doing it: a machine that knows a few instructions and builds nothing but plain values.

A pickle is a program; Python's own reader imports what it names and calls it. Here names stay names, and those that are not listed end
the reading. Instructions are taken apart by `pickletools`, which runs nothing. Format: Lib/pickletools.py of CPython.
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
from softprompt.formats.readers.tensors import SIZES, Tensor, check_layout

MAX_INSTRUCTIONS = 300_000  # a second; CoOp's checkpoints, the longest met with, have 3000
MAX_DEPTH = 100_000  # values on the stack
MAX_NUMBER_BYTES = 128  # bits of an integer; torch's magic number has 77

_DTYPES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "LongStorage": "I64",
    "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
_NUMPY = {
    "f8": "F64",
    "f4": "F32",
    "f2": "F16",
    "i8": "I64",
    "i4": "I32",
    "i2": "I16",
    "i1": "I8",
    "u1": "U8",
    "b1": "BOOL",
}
_CODES = {
    "F64": "d",
    "F32": "f",
    "F16": "e",
    "I64": "q",
    "I32": "i",
    "I16": "h",
    "I8": "b",
    "U8": "B",
    "BOOL": "?",
}  # of `struct`
# what stands in for objects of which nothing is needed: the optimizer and schedule in a checkpoint, the module around its parameters
_OBJECTS = re.compile(
    r"torch\.optim\.[a-z_.]+ [A-Za-z]+|torch\.nn\.modules\.container ParameterDict|(__builtin__|builtins) set"
)
_NDARRAY = "numpy ndarray"
_CONTAINERS = ("collections OrderedDict", "collections defaultdict", "__builtin__ dict", "builtins dict")


@dataclass(frozen=True)
class Name:
    """What a pickle would import: "module name"."""

    text: str


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors are views of: `count` of `dtype`, under `key` in the file; a view of them begins at `offset`."""

    dtype: str
    key: str
    count: int
    offset: int = 0
    room: int = -1  # numbers of the view; -1: all


@dataclass(eq=False)
class Thing:
    """An object of a class that is passed over; `state` is what it was to be given."""

    name: str
    state: Any = None


@dataclass(eq=False)
class _Dtype:
    """The kind of number of a numpy array, as SIZES names it; its byte order comes later, in the pickle's next instruction."""

    kind: str

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "=", "|"):
            raise FileRefused("its pickle has a numpy array whose numbers are big-endian, or records")


@dataclass(eq=False)
class _EmptyArray:
    """A numpy array before its shape and numbers are read; `places` are where the memo has it."""

    places: list[int] = field(default_factory=list)


class _Mark:
    """Where a run of values on the stack begins."""


def values_of(file: IO[bytes], storages: dict[str, Storage] | None = None) -> Any:
    """The one value that the pickle at the file's position describes; the position is behind it then.

    Plain values, lists, tuples and dicts, with Tensor, Storage, Name and Thing among them. Containers may hold each other, so what follows
    them down must be bounded. The storages it names are put into `storages`. Raises FileRefused.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= MAX_INSTRUCTIONS or len(machine.stack) > MAX_DEPTH:
                raise FileRefused("its pickle is longer than any soft prompt's")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise FileRefused(f"its pickle is damaged ({type(error).__name__}: {str(error)[:80]})") from error
    raise FileRefused("its pickle has no end")


class _Machine:
    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            if isinstance(argument, int) and argument.bit_length() > MAX_NUMBER_BYTES:
                raise FileRefused("its pickle has an integer of more than 128 bits")
            self.stack.append(argument)
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in _IGNORED:
            raise FileRefused(
                f"its pickle has the instruction {name}, which no soft prompt needs, and which is never carried out"
            )

    def pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise ValueError("a value was expected")
        return value

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise TypeError(f"{kind.__name__} was expected")
        return value

    def to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while not isinstance(
            self.stack[at], _Mark
        ):  # what is passed over is taken off the stack: no value is looked at twice
            at -= 1
            if at < 0:
                raise ValueError("a mark was expected")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    # steps

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def extend(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def fill(self, pairs: list[Any]) -> None:
        _fill(self.top(dict), pairs)

    def made_dict(self) -> None:
        made: dict[Any, Any] = {}
        _fill(made, self.to_mark())
        self.stack.append(made)

    def put(self, index: int) -> None:
        value = self.stack[-1]
        if isinstance(value, _Mark):
            raise ValueError("a value was expected")
        self.memo[index] = value
        if isinstance(value, _EmptyArray):
            value.places.append(index)

    def named(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name was expected")
        self.stack.append(_name(f"{module} {name}"))

    def pair(self) -> tuple[Any, Any]:
        second, first = self.pop(), self.pop()
        return first, second

    def reduce(self) -> None:
        what, arguments = self.pair()
        if not isinstance(what, Name) or not isinstance(arguments, tuple):
            raise FileRefused("its pickle calls what is no name")
        self.stack.append(_called(what.text, arguments))

    def new(self) -> None:
        what, _ = self.pair()
        if not isinstance(what, Name) or not _OBJECTS.fullmatch(what.text):
            raise FileRefused("its pickle makes an object of a class that no soft prompt needs")
        self.stack.append(Thing(what.text))

    def build(self) -> None:
        what, state = self.pair()
        if isinstance(what, Thing):
            what.state = state
        elif isinstance(what, _Dtype):
            what.build(state)
        elif isinstance(what, _EmptyArray):
            array = _array(state)
            for index in what.places:
                if self.memo.get(index) is what:
                    self.memo[index] = array
            what = array
        elif not isinstance(what, dict):  # a state dict has its modules' versions as an attribute: passed over
            raise FileRefused("its pickle sets what no soft prompt has (BUILD)")
        self.stack.append(what)

    def stored(self) -> None:
        said = self.pop()
        if isinstance(said, tuple) and len(said) == 4 and said[0] == "module" and isinstance(said[1], Name):
            self.stack.append(
                said[1]
            )  # torch's older format gives the class of a module with its source: what is named is the same
            return
        storage = _storage(said)
        known = self.storages.setdefault(storage.key, storage)
        if (known.dtype, known.count) != (storage.dtype, storage.count):
            raise FileRefused("its pickle says of one storage that it is of two kinds")
        self.stack.append(storage)


def _fill(target: dict[Any, Any], pairs: list[Any]) -> None:
    if len(pairs) % 2:
        raise ValueError("a key without a value")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(
            key, (str, int, Tensor)
        ):  # the hash of a tuple takes as long as all that it holds, however often
            raise FileRefused(f"its pickle has a dict with a key of type {type(key).__name__}")
        if key in target:
            raise FileRefused(f"its pickle has the key {str(key)[:60]!r} twice")
        target[key] = value


def _name(text: str) -> Name:
    if text in _CALLS or text in _CONTAINERS or text == _NDARRAY or _OBJECTS.fullmatch(text) or _dtype_of(text):
        return Name(text)
    raise FileRefused(
        f"its pickle names {text.replace(' ', '.')[:80]!r}, which no soft prompt needs; it would be run, and never is"
    )


def _dtype_of(text: str) -> str:
    module, _, name = text.partition(" ")
    return _DTYPES.get(name, "") if module in ("torch", "torch.cuda") else ""


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    if name in _CALLS:
        return _CALLS[name](*arguments)
    if name in _CONTAINERS:
        made: dict[Any, Any] = {}
        # an OrderedDict of Python 2 comes as pairs; a defaultdict's argument is what makes its values
        if name == "collections OrderedDict" and arguments:
            (pairs,) = arguments
            _fill(made, [part for pair in _listed(pairs) for part in _two(pair)])
        return made
    if _OBJECTS.fullmatch(name):
        return Thing(name)
    raise FileRefused(f"its pickle calls {name.replace(' ', '.')}, which no soft prompt needs")


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a list was expected")
    return value


def _two(value: Any) -> tuple[Any, Any]:
    first, second = value if isinstance(value, (list, tuple)) else ()
    return first, second


def _storage(said: Any) -> Storage:
    """What torch writes as a persistent id: ("storage", type, key, location, count), and in old files a view (key, offset, count)."""
    if not isinstance(said, tuple) or len(said) not in (5, 6) or said[0] not in ("storage", b"storage"):
        raise FileRefused("its pickle refers to something outside that is no storage of torch")
    _, kind, key, _, count, *rest = said
    dtype = _dtype_of(kind.text) if isinstance(kind, Name) else ""
    if not dtype or not isinstance(key, str) or not _is_size(count):
        raise FileRefused("its pickle has a storage of an unknown kind")
    view = rest[0] if rest else None
    if view is None:
        return Storage(dtype, key, count)
    if not isinstance(view, tuple) or len(view) != 3 or not (_is_size(view[1]) and _is_size(view[2])):
        raise FileRefused("its pickle has a storage of an unknown kind")
    if view[1] + view[2] > count:
        raise FileRefused("its pickle has a view that reaches beyond its storage")
    return Storage(dtype, key, count, view[1], view[2])


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _tensor(storage: Any, offset: Any, size: Any, strides: Any, *_: Any) -> Tensor:
    if (
        not isinstance(storage, Storage)
        or not _is_size(offset)
        or not isinstance(size, tuple)
        or not isinstance(strides, tuple)
    ):
        raise FileRefused("its pickle has a tensor of an unknown kind")
    if len(size) != len(strides) or len(size) > 16 or not all(map(_is_size, (*size, *strides))):
        raise FileRefused("its pickle has a tensor with sizes that do not fit together")
    room = storage.count if storage.room < 0 else storage.room
    check_layout(Tensor(storage.dtype, size, storage.key, room, offset, strides))
    return Tensor(storage.dtype, size, storage.key, storage.count, storage.offset + offset, strides)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise FileRefused("its pickle has a parameter that is no tensor")
    return data


def _dtype(code: Any, *_: Any) -> _Dtype:
    kind = _NUMPY.get(code) if isinstance(code, str) else None
    if kind is None:
        raise FileRefused(f"its pickle has a numpy array of {str(code)[:20]!r}: arrays of f4, f2 and f8 are read")
    return _Dtype(kind)


def _empty_array(kind: Any, _shape: Any, _code: Any) -> _EmptyArray:
    if kind != Name(_NDARRAY):
        raise TypeError("a numpy array was expected")
    return _EmptyArray()


def _array(state: Any) -> Tensor:
    """The array that BUILD describes: (version, shape, dtype, whether in Fortran's order, numbers)."""
    _, shape, dtype, is_fortran, numbers = state if isinstance(state, tuple) else ()
    return _filled(numbers, dtype, shape, "F" if is_fortran else "C")


def _filled(numbers: Any, dtype: Any, shape: Any, order: Any) -> Tensor:
    """A numpy array with its numbers."""
    if (
        not isinstance(dtype, _Dtype)
        or not isinstance(shape, tuple)
        or len(shape) > 16
        or not all(map(_is_size, shape))
    ):
        raise FileRefused("its pickle has a numpy array of an unknown kind")
    count = math.prod(shape)
    if not isinstance(numbers, (bytes, bytearray, str)) or len(numbers) != count * SIZES[dtype.kind]:
        raise FileRefused("its pickle has a numpy array of objects, or of more or fewer numbers than it says")
    before = order == "F"  # the first index runs fastest
    strides = tuple(math.prod(shape[:i] if before else shape[i + 1 :]) for i in range(len(shape)))
    return Tensor(dtype.kind, shape, "", count, 0, strides, numbers)


def _scalar(dtype: Any, numbers: Any) -> Any:
    """A single number of numpy's as Python's."""
    if not isinstance(dtype, _Dtype) or not isinstance(numbers, (bytes, str)):
        raise TypeError("a number of numpy was expected")
    start = numbers[: SIZES[dtype.kind]]
    (value,) = struct.unpack(f"<{_CODES[dtype.kind]}", start.encode("latin-1") if isinstance(start, str) else start)
    return value


def _latin_1(text: Any, codec: Any) -> str:
    """The bytes that a pickle of protocol 2 holds as a text; they stay one until they are read, so that none is made twice."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise TypeError("bytes were expected")
    return text


def _size(numbers: Any) -> tuple[Any, ...]:
    if not isinstance(numbers, tuple):
        raise TypeError("a size was expected")
    return numbers


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch.nn.parameter Parameter": _parameter,
    "torch Size": _size,
    "numpy dtype": _dtype,
    "_codecs encode": _latin_1,
    **dict.fromkeys(
        ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"), _empty_array
    ),  # numpy 1 and 2
    **dict.fromkeys(("numpy.core.multiarray scalar", "numpy._core.multiarray scalar"), _scalar),
    **dict.fromkeys(("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer"), _filled),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple, "EMPTY_LIST": list,
    "EMPTY_DICT": dict, "MARK": _Mark,
}  # fmt: skip
_LITERALS = frozenset(
    "INT LONG BININT BININT1 BININT2 LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_IGNORED = frozenset(("PROTO", "FRAME"))
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda m, _: m.stack.append(tuple(m.to_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "LIST": lambda m, _: m.stack.append(m.to_mark()),
    "DICT": lambda m, _: m.made_dict(),
    "APPEND": lambda m, _: m.extend([m.pop()]),
    "APPENDS": lambda m, _: m.extend(m.to_mark()),
    "SETITEM": lambda m, _: m.fill(list(m.pair())),
    "SETITEMS": lambda m, _: m.fill(m.to_mark()),
    "GET": lambda m, index: m.stack.append(m.memo[index]),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "PUT": lambda m, index: m.put(index),
    "BINPUT": lambda m, index: m.put(index),
    "LONG_BINPUT": lambda m, index: m.put(index),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GLOBAL": lambda m, text: m.stack.append(_name(text)),
    "STACK_GLOBAL": lambda m, _: m.named(),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.stored(),
}
