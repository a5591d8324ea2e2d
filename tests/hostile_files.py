"""Hostile files: readers must reject all of them and never run code in them. The code would run `touch CANARY`.

`python -m tests.hostile_files FOLDER` writes them.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import socket
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from softprompt.formats.readers.torch_file import LEGACY_PREFIX
from softprompt.library.entry import Entry, pack
from tests.library_model import a_prompt

VECTORS = np.linspace(-1, 1, 8, dtype=np.float32)
LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9408\n"
)  # git stores this in the place of a large file
Files = Iterator[tuple[str, bytes]]

# pickles, written opcode by opcode


def text(word: str) -> bytes:
    raw = word.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def global_name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def storage(count: int = 8, kind: str = "FloatStorage", key: str = "0") -> bytes:
    return b"(" + text("storage") + global_name("torch", kind) + text(key) + text("cpu") + integer(count) + b"tQ"


def tensor(
    size: tuple[int, ...] = (2, 4), strides: tuple[int, ...] = (4, 1), offset: int = 0, storage_id: bytes | None = None
) -> bytes:
    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(integer, values)) + b"t"

    storage_id = storage() if storage_id is None else storage_id
    return (
        global_name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage_id + integer(offset) + numbers(size)
        + numbers(strides) + b"\x89" + global_name("collections", "OrderedDict") + b")RtR"
    )  # fmt: skip


def dict_with(*values: bytes) -> bytes:
    """Return a pickled dict with a valid tensor and these values."""
    return b"}(" + text("a") + tensor() + b"".join(text(f"b{i}") + value for i, value in enumerate(values)) + b"u"


def torch_zip(
    program: bytes, numbers: bytes = VECTORS.tobytes(), packing: int = zipfile.ZIP_STORED, **more: bytes
) -> bytes:
    return zipped({"archive/data.pkl": b"\x80\x02" + program + b".", "archive/data/0": numbers} | more, packing)


def torch_stream(program: bytes, numbers: bytes = VECTORS.tobytes(), keys: tuple[str, ...] = ("0",)) -> bytes:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    heads = b"".join(pickle.dumps(value, 2) for value in (1001, system))
    stored = struct.pack("<q", len(numbers) // 4) + numbers
    return LEGACY_PREFIX + b"." + heads + b"\x80\x02" + program + b"." + pickle.dumps(list(keys), 2) + stored


def zipped(
    members: dict[str, bytes],
    packing: int = zipfile.ZIP_STORED,
    change: Callable[[zipfile.ZipInfo], None] | None = None,
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, raw in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = packing
            if change:
                change(info)
            archive.writestr(info, raw)
    return file.getvalue()


def pickle_programs(canary: Path) -> Files:
    """Yield pickles that would run code or take endless time or memory."""
    command = f"touch {canary}"
    argument = b"(" + text(command) + b"t"
    source = f"open({str(canary)!r}, 'w').close()"
    for module, name, argument_text in (
        ("os", "system", command), ("posix", "system", command), ("nt", "system", command),
        ("subprocess", "getoutput", command), ("subprocess", "Popen", command), ("builtins", "eval", source),
        ("__builtin__", "eval", source), ("builtins", "exec", source), ("builtins", "__import__", "os"),
        ("builtins", "open", str(canary)), ("builtins", "getattr", "os"), ("builtins", "compile", source),
        ("io", "open", str(canary)), ("pty", "spawn", command), ("runpy", "run_path", str(canary)),
        ("timeit", "timeit", source), ("code", "interact", source), ("pdb", "run", source), ("cProfile", "run", source),
        ("ctypes", "CDLL", str(canary)), ("importlib", "import_module", "os"), ("operator", "attrgetter", "system"),
        ("functools", "partial", command), ("marshal", "loads", ""), ("types", "FunctionType", ""),
        ("shutil", "rmtree", str(canary)), ("os", "unlink", str(canary)), ("webbrowser", "open", command),
        ("pickle", "loads", ""), ("torch", "load", str(canary)), ("torch.hub", "load", command),
        ("torch.storage", "_load_from_bytes", ""), ("torch._utils", "_rebuild_sparse_tensor", ""),
        ("torch._utils", "_rebuild_qtensor", ""), ("torch._utils", "_rebuild_device_tensor_from_numpy", ""),
        ("torch.serialization", "load", str(canary)), ("torch._dynamo", "run", command), ("numpy", "load", str(canary)),
        ("numpy.core.multiarray", "_reconstruct", ""), ("numpy.f2py.crackfortran", "myeval", source),
        ("_codecs", "encode", ""), ("copyreg", "_reconstructor", ""), ("sys", "exit", ""),
        ("torch.optim.sgd\nx", "SGD", ""), ("torch.FloatStorage", "__class__", ""),
        ("torch", "FloatStorage.__init__", ""), ("torch.optim._multi_tensor.os", "system2", ""),
    ):  # fmt: skip
        yield (
            f"call-{module}.{name}".replace("\n", "_"),
            dict_with(global_name(module, name) + b"(" + text(argument_text) + b"tR"),
        )
    yield "stack-global", dict_with(text("os") + text("system") + b"\x93" + argument + b"R")
    yield (
        "stack-global-memo",
        dict_with(text("os") + b"q\x01" + text("system") + b"q\x02h\x01h\x02\x93" + argument + b"R"),
    )
    yield "inst", dict_with(b"(" + text(command) + b"ios\nsystem\n")
    yield "obj", dict_with(b"(" + global_name("os", "system") + text(command) + b"o")
    yield "obj-allowed", dict_with(b"(" + global_name("torch.optim.sgd", "SGD") + b"o")
    yield "newobj", dict_with(global_name("subprocess", "Popen") + argument + b"\x81")
    yield "newobj-ordered", dict_with(global_name("collections", "OrderedDict") + b")\x81")
    yield "newobj-ex", dict_with(global_name("subprocess", "Popen") + argument + b"}\x92")
    yield "build-tensor", dict_with(tensor() + b"}" + text("__setstate__") + global_name("os", "system") + b"sb")
    yield "build-tensor-plain", dict_with(tensor() + b"}b")
    yield "build-list", dict_with(b"]}b")
    yield "ext1", dict_with(b"\x82\x01")
    yield "ext2", dict_with(b"\x83\x01\x00")
    yield "ext4", dict_with(b"\x84\x01\x00\x00\x00")
    yield "persid", dict_with(b"P" + command.encode() + b"\n")
    yield "binpersid-text", dict_with(text(command) + b"Q")
    yield "binpersid-kind", dict_with(b"(" + text("module") + global_name("os", "system") + text("") + text("") + b"tQ")
    yield (
        "binpersid-name",
        dict_with(b"(" + text("storage") + text("FloatStorage") + text("0") + text("cpu") + integer(8) + b"tQ"),
    )
    yield "buffer", dict_with(b"\x97")
    yield "readonly-buffer", dict_with(b"\x98")
    yield "bytearray", dict_with(b"\x96" + struct.pack("<Q", 1 << 62))
    yield "frozenset", dict_with(b"(\x91")
    yield "dup", dict_with(b"N2")
    yield "reduce-data", dict_with(text("os.system") + argument + b"R")
    yield "reduce-twice", dict_with(global_name("torch", "FloatStorage") + argument + b"R")
    # endless time or memory, and malformed pickles
    yield "nested-lists", b"]" * 90_000 + b"a" * 89_999
    yield "stack", b"N" * 150_000
    yield "marks", b"(" * 150_000
    yield "long", b"N0" * 400_000 + tensor()
    yield (
        "laughs",
        b"]"
        + b"q\x01"
        + b"".join(b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(1, 60)),
    )
    yield "tuples-as-key", b"N" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(1, 80)) + b"q\x60}h\x60Ns"
    yield "itself", b"]q\x01h\x01a"
    yield "dict-itself", b"}q\x01" + text("a") + b"h\x01s"
    yield "number", b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20)
    yield "number-text", b"L" + b"9" * 100_000 + b"L\n"
    yield "text-of-4-exabytes", b"\x8d" + struct.pack("<Q", 1 << 62)
    yield "bytes-of-2-gigabytes", b"B" + struct.pack("<I", 0x7FFFFFFF)
    yield "frame", b"\x95" + struct.pack("<Q", 1 << 62) + b"N"
    yield "memo-missing", dict_with(b"h\x63")
    yield "memo-far", b"Nr\xff\xff\xff\xff0" + tensor(storage_id=b"N")
    yield "put-negative", b"Np-1\n" + b"h\x05"
    yield "no-mark", b"Nt"
    yield "pop-empty", b"R"
    yield "append-to-none", b"NNa"
    yield "odd-items", b"}(NNNu"
    yield "key-twice", b"}(" + text("a") + tensor() + text("a") + tensor() + b"u"
    yield "key-is-list", b"}]Ns"
    yield "key-is-float", b"}G" + struct.pack(">d", 1) + b"Ns"
    yield "nothing", b"N"
    yield "text", text("a soft prompt")
    yield "param-is-text", b"}(" + text("string_to_param") + text("x") + b"u"
    yield "param-is-empty", b"}(" + text("string_to_param") + b"}u"
    yield (
        "parameter-dict-without-state",
        b"}(" + text("string_to_param") + global_name("torch.nn.modules.container", "ParameterDict") + b")\x81u",
    )


def pickled_tensors() -> Files:
    """Yield tensors that are invalid or claim more numbers than they have."""
    yield "stride-0", tensor((2048, 4), (0, 1))
    yield "stride-0-wide", tensor((2, 16384), (4, 0))
    yield "stride-0-everywhere", tensor((2048, 16384), (0, 0))
    yield "overlap", tensor((5, 4), (1, 1))
    yield "stride-negative", tensor((2, 4), (-4, 1), 4)
    yield "offset-negative", tensor(offset=-1)
    yield "offset-beyond", tensor(offset=1)
    yield "size-beyond", tensor((3, 4))
    yield "size-negative", tensor((-2, 4))
    yield "size-2-to-the-62", tensor((1 << 62, 4))
    yield (
        "size-is-text",
        global_name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + integer(0) + text("x") + b")\x89NtR",
    )
    yield "sizes-do-not-fit", tensor((2, 4), (4,))
    yield "storage-of-a-terabyte", tensor((2048, 16384), (16384, 1), storage_id=storage(1 << 40))
    yield "storage-is-longer", tensor(storage_id=storage(9))
    yield "storage-is-missing", tensor(storage_id=storage(key="7"))
    yield "storage-is-elsewhere", tensor(storage_id=storage(key="../data.pkl"))
    yield (
        "storage-of-two-kinds",
        b"}(" + text("a") + tensor() + text("b") + tensor(storage_id=storage(4, "DoubleStorage")) + b"u",
    )
    yield "integers", tensor((2, 2), (2, 1), storage_id=storage(4, "LongStorage"))
    yield "complex", tensor((2, 2), (2, 1), storage_id=storage(4, "ComplexFloatStorage"))
    yield "untyped", tensor(storage_id=storage(32, "UntypedStorage"))
    yield "scalar", tensor((), ())
    yield "empty", tensor((0, 4), (4, 1))
    yield "three-dimensions", tensor((2, 2, 2), (4, 2, 1))
    yield "sixteen-dimensions", tensor((1,) * 15 + (8,), (8,) * 15 + (1,))
    yield "seventeen-dimensions", tensor((1,) * 17, (1,) * 17)


def pickled_arrays() -> Files:
    """Yield pickled numpy arrays that are invalid or would run code."""

    def pickled(array: object, *changes: tuple[bytes, bytes]) -> bytes:
        raw = pickle.dumps(array, 2)[2:-1]
        for old, new in changes:
            assert old in raw
            raw = raw.replace(old, new)
        return raw

    good = VECTORS.reshape(2, 4)
    shape = b"K\x02K\x04\x86"
    reconstruct = b"c" + pickled(VECTORS).split(b"c", 1)[1].split(b"\nq", 1)[0] + b"\n"
    yield "numpy-objects", pickled(np.array([[1, "a"]], dtype=object))
    yield "numpy-records", pickled(np.zeros(2, [("a", "<f4")]))
    yield "numpy-big-endian", pickled(good.astype(">f4"))
    yield "numpy-text", pickled(np.array(["a"]))
    yield "numpy-complex", pickled(good.astype("c8"))
    yield "numpy-more-than-there-are", pickled(good, (shape, b"K\x03K\x04\x86"))
    yield "numpy-fewer-than-there-are", pickled(good, (shape, b"K\x01K\x04\x86"))
    yield "numpy-negative", pickled(good, (shape, b"J\xfe\xff\xff\xffJ\xfc\xff\xff\xff\x86"))
    yield "numpy-huge", pickled(good, (shape, integer(1 << 47) + integer(1 << 47) + b"\x86"))
    yield "numpy-no-shape", pickled(good, (shape, b"N"))
    yield "numpy-no-bytes", pickled(good, (b"X\x06\x00\x00\x00latin1", text("utf-16")))
    yield (
        "numpy-beyond-latin-1",
        pickled(np.zeros((1, 1), np.float32), (b"X\x04\x00\x00\x00" + bytes(4), text("雪雪雪雪"))),
    )
    yield "numpy-unbuilt", reconstruct + global_name("numpy", "ndarray") + b"K\x00\x85" + text("b") + b"\x87R"
    yield (
        "numpy-of-another-class",
        dict_with(reconstruct + global_name("os", "system") + b"K\x00\x85" + text("b") + b"\x87R"),
    )
    yield (
        "numpy-of-a-known-class",
        dict_with(reconstruct + global_name("torch", "Size") + b"K\x00\x85" + text("b") + b"\x87R"),
    )
    yield (
        "numpy-built-of-nothing",
        dict_with(reconstruct + global_name("numpy", "ndarray") + b"K\x00\x85" + text("b") + b"\x87R}b"),
    )
    yield "numpy-scalar-of-objects", dict_with(pickled(np.float32(1), (b"f4", b"O8")))
    yield "numpy-scalar-cut", dict_with(pickled(np.float32(0), (b"f4", b"f8")))
    yield "numpy-infinite", pickled(np.full((2, 4), np.inf, np.float32))
    yield "numpy-three-dimensions", pickled(np.zeros((2, 2, 2), np.float32))


def torch_files(canary: Path) -> Files:
    for name, program in (*pickle_programs(canary), *pickled_tensors(), *pickled_arrays()):
        yield f"{name}.pt", torch_zip(program)
        yield f"{name}.old.pt", torch_stream(program)
    for name, program in list(pickle_programs(canary))[:4]:
        yield f"{name}.pkl", b"\x80\x04" + program + b"."
        yield f"{name}.config.bin", program + b"."
    many = tensor((3000, 1), (1, 1), storage_id=storage(3000))
    wide = tensor((1, 20_000), (20_000, 1), storage_id=storage(20_000))
    yield "many-tokens.pt", torch_zip(many, bytes(12_000))
    yield "wide.pt", torch_zip(wide, bytes(80_000))
    for word, value in (("nan", np.nan), ("infinity", np.inf), ("minus-infinity", -np.inf)):
        yield f"{word}.pt", torch_zip(tensor(), np.where(VECTORS > 0.9, np.float32(value), VECTORS).tobytes())
        yield f"{word}.old.pt", torch_stream(tensor(), np.where(VECTORS > 0.9, np.float32(value), VECTORS).tobytes())
    double = tensor((2, 2), (2, 1), storage_id=storage(4, "DoubleStorage"))
    yield "too-large-for-float32.pt", torch_zip(double, np.full(4, 1e300).tobytes())
    yield "big-endian.pt", torch_zip(tensor(), **{"archive/byteorder": b"big"})
    yield "torchscript.pt", torch_zip(tensor(), **{"archive/constants.pkl": b"N.", "archive/code/x.py": b"import os"})
    yield "storage-cut.pt", torch_zip(tensor(), VECTORS.tobytes()[:-4])
    yield "keys-twice.old.pt", torch_stream(tensor(), keys=("0", "0"))
    yield "keys-unknown.old.pt", torch_stream(tensor(), keys=("9",))
    yield "no-keys.old.pt", torch_stream(tensor(), keys=())
    yield "numbers-missing.old.pt", torch_stream(tensor())[:-8]
    yield "two-programs.pt", torch_zip(tensor(), **{"other/data.pkl": b"N."})


def zip_bomb(name: str, mebibytes: int) -> bytes:
    """Return a zip of this many MiB of zeros, a thousandth of that in size, without compressing them all."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(
        zlib.Z_FULL_FLUSH
    )  # a full flush makes the next block independent
    raw = bytearray(zipped({name: block * mebibytes + packer.flush()}))
    checksum = 0
    for _ in range(mebibytes):
        checksum = zlib.crc32(bytes(1 << 20), checksum)
    packed = struct.unpack_from("<I", raw, 18)[0]
    for at in (0, raw.rfind(b"PK\x01\x02") + 2):  # the central header has two more bytes before the method
        struct.pack_into("<H", raw, at + 8, zipfile.ZIP_DEFLATED)
        struct.pack_into("<III", raw, at + 14, checksum, packed, mebibytes << 20)
    return bytes(raw)


def zip_files(canary: Path) -> Files:
    good = {"archive/data.pkl": b"\x80\x02" + tensor() + b".", "archive/data/0": VECTORS.tobytes()}
    yield "bomb-numbers.zip", zip_bomb("tensor.npy", 257)
    yield "bomb-of-256-megabytes.zip", zip_bomb("tensor.npy", 256)
    yield "bomb-pickle.pt", zipped({"archive/data.pkl": b"N" * (9 << 20)}, zipfile.ZIP_DEFLATED)
    yield "bomb-meta.zip", zipped({"tensor.npy": npy(), "meta.json": b" " * (2 << 20)}, zipfile.ZIP_DEFLATED)
    yield "bomb-storage.pt", torch_zip(tensor(), bytes(64 << 20), zipfile.ZIP_DEFLATED)
    for name in ("../../x", "/etc/x", "..\\x", "a/../../x", "C:x"):
        yield f"slip-{name.replace('/', '_')}.pt", zipped(good | {name: b"x"})
    yield "link.pt", zipped(good | {"x": b"/etc/passwd"}, change=_make_link)
    raw = bytearray(zipped(good))
    for at in _find_all(raw, b"PK\x01\x02"):
        raw[at + 8] |= 1
    yield "encrypted.pt", bytes(raw)
    yield "many-members.pt", zipped(good | {f"archive/{i}": b"" for i in range(5000)})
    raw = bytearray(zipped(good))
    end = raw.rfind(b"PK\x05\x06")
    struct.pack_into("<H", raw, end + 10, 65535)
    yield "count-lies.pt", bytes(raw)
    struct.pack_into("<HI", raw, end + 10, 2, 0x7FFFFFFF)
    yield "directory-lies.pt", bytes(raw)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 1 << 60, 1)
    yield "zip64-beyond.pt", zipped(good)[:end] + bytes(60) + locator + zipped(good)[end:]
    raw = bytearray(zipped({"tensor.npy": npy()}, zipfile.ZIP_DEFLATED))
    at = raw.find(b"PK\x01\x02")
    struct.pack_into("<I", raw, at + 24, 10)
    yield "size-lies.zip", bytes(raw)
    struct.pack_into("<I", raw, at + 24, 0xFFFFFFF0)
    yield "size-of-4-gigabytes.zip", bytes(raw)
    raw = bytearray(zipped({"tensor.npy": npy()}, zipfile.ZIP_DEFLATED))
    raw[60] ^= 0xFF
    yield "checksum.zip", bytes(raw)
    yield "names-twice.zip", zipped({"tensor.npy": npy(), "tensor.npx": npy()}).replace(b"tensor.npx", b"tensor.npy")
    yield "zip-in-zip.zip", zipped({"x.zip": zipped(good)})
    yield "no-members.zip", b"PK\x05\x06" + bytes(18)
    yield "only-the-beginning.zip", b"PK\x03\x04"
    yield (
        "pickle-in-npy.zip",
        zipped(
            {
                "tensor.npy": npy(
                    "|O",
                    "(1,)",
                    b"\x80\x02"
                    + dict_with(global_name("os", "system") + b"(" + text(f"touch {canary}") + b"tR")
                    + b".",
                )
            }
        ),
    )
    for name, meta in (
        ("deep", b"[" * 100_000),
        ("twice", b'{"name":"a","name":"b"}'),
        ("list", b"[]"),
        ("nan", b'{"name":NaN}'),
        ("bytes", b"\xff\xfe"),
    ):
        yield f"meta-{name}.zip", zipped({"tensor.npy": npy(), "meta.json": meta})


def _make_link(info: zipfile.ZipInfo) -> None:
    if info.filename == "x":
        info.external_attr = (stat.S_IFLNK | 0o777) << 16


def _find_all(raw: bytes | bytearray, mark: bytes) -> Iterator[int]:
    at = raw.find(mark)
    while at >= 0:
        yield at
        at = raw.find(mark, at + 1)


def npy(kind: str = "<f4", shape: str = "(2, 4)", raw: bytes = VECTORS.tobytes(), order: str = "False") -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + raw


def npy_files() -> Files:
    for name, raw in (
        ("objects", npy("|O")), ("integers", npy("<i8")), ("big-endian", npy(">f4")), ("complex", npy("<c8")),
        ("text", npy("<U8")), ("records", npy("<f4").replace(b"'<f4'", b"[('a', '<f4')]")),
        ("code", npy(order="__import__('os')")), ("huge", npy(shape="(2048, 16384)")), ("beyond", npy(shape="(3, 4)")),
        ("negative", npy(shape="(-2, -4)")), ("flat", npy(shape="()")), ("three", npy(shape="(2, 2, 2)")),
        ("nine", npy(shape="(1, 1, 1, 1, 1, 1, 1, 1, 1, 8)")), ("overflow", npy(shape="(999999999999, 999999999999)")),
        ("deep", npy(shape="(" * 5000)), ("nan", npy(raw=np.full(8, np.nan, "<f4").tobytes())),
        ("infinity16", npy("<f2", raw=np.full(8, np.inf, "<f2").tobytes())),
        ("version", b"\x93NUMPY\x09\x00" + npy()[8:]), ("header", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31)),
        ("trailing", npy() + b"more"),
    ):  # fmt: skip
        yield f"{name}.npy", raw


def safetensors_bytes(header: object, body: bytes = VECTORS.tobytes(), length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def safetensors_files() -> Files:
    tensor_info = {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}
    for name, changes in (
        ("size", {"shape": [2, 5]}), ("negative", {"shape": [-2, -4]}), ("float", {"shape": [2.0, 4]}),
        ("true", {"shape": [True, 8]}), ("text", {"shape": "24"}), ("huge", {"shape": [1 << 40, 1 << 40]}),
        ("huge-number", {"shape": [10**400]}), ("scalar", {"shape": []}),
        ("beyond", {"data_offsets": [0, 64], "shape": [4, 4]}), ("backwards", {"data_offsets": [32, 0]}),
        ("hole", {"data_offsets": [4, 32], "shape": [7]}), ("three-offsets", {"data_offsets": [0, 16, 32]}),
        ("unknown-type", {"dtype": "F99"}), ("integers", {"dtype": "I32"}), ("no-type", {"dtype": None}),
        ("more-fields", {"x": 1}), ("three-dimensions", {"shape": [2, 2, 2]}),
        ("zero", {"shape": [0, 4], "data_offsets": [0, 0]}),
    ):  # fmt: skip
        yield f"{name}.safetensors", safetensors_bytes({"emb_params": tensor_info | changes})
    two_tensors = {"a": tensor_info, "b": tensor_info | {"data_offsets": [16, 48]}}
    yield "overlap.safetensors", safetensors_bytes(two_tensors, VECTORS.tobytes() * 2)
    yield "key-twice.safetensors", safetensors_bytes(b'{"a":%s,"a":%s}' % ((json.dumps(tensor_info).encode(),) * 2))
    yield (
        "field-twice.safetensors",
        safetensors_bytes(json.dumps({"a": tensor_info}).encode().replace(b'"F32"', b'"F32","dtype":"F16"')),
    )
    for name, length in (
        ("none", 0),
        ("all", 1 << 20),
        ("exabytes", 1 << 60),
        ("negative", (1 << 64) - 1),
        ("short", 9),
        ("hundred-megabytes", 100 << 20),
    ):
        yield f"length-{name}.safetensors", safetensors_bytes({"emb_params": tensor_info}, length=length)
    for name, header in (
        ("list", b"[]"), ("deep", b"{" + b'"a":{' * 50_000), ("deep-list", b'{"a":' + b"[" * 100_000),
        ("nan", b'{"a":NaN}'), ("empty", b"{}"), ("bytes", b'{"\xff":1}'), ("null", b'{"a":null}'),
        ("spaces", b"{" + b" " * (1 << 20)), ("number", b'{"a":' + b"9" * 10_000 + b"}"),
    ):  # fmt: skip
        yield f"header-{name}.safetensors", safetensors_bytes(header)
    yield "header-of-17-megabytes.safetensors", safetensors_bytes(b'{"a":"' + b"x" * (17 << 20) + b'"}')
    yield "metadata.safetensors", safetensors_bytes({"emb_params": tensor_info, "__metadata__": {"a": {"b": 1}}})
    yield "trailing.safetensors", safetensors_bytes({"emb_params": tensor_info}, VECTORS.tobytes() + b"more")
    yield "many.safetensors", save({f"layer.{i}.weight": VECTORS.reshape(2, 4) for i in range(200)})
    yield "two-widths.safetensors", save({"<a>": VECTORS, "<b>": VECTORS[:4].copy()})
    yield "tokens-not-finite.safetensors", save({"<a>": VECTORS, "<b>": np.full(8, np.nan, "<f4")})
    yield "half-a-token.safetensors", save({"clip_l": VECTORS.reshape(2, 4), "clip_g": np.zeros((0, 4), "<f4")})
    yield "nan.safetensors", save({"emb_params": np.full((2, 4), np.nan, "<f4")})
    yield "infinity16.safetensors", save({"emb_params": np.full((2, 4), np.inf, "<f2")})
    yield "too-large64.safetensors", save({"emb_params": np.full((2, 4), 1e300)})
    yield "many-tokens.safetensors", save({"emb_params": np.zeros((3000, 2), "<f4")})
    yield "wide.safetensors", save({"emb_params": np.zeros((1, 20_000), "<f4")})
    entry = pack(Entry("0123456789abcdef", 1, a_prompt(name="Fox")))
    yield "entry-changed.safetensors", entry[:-1] + bytes([entry[-1] ^ 1])
    for name, provenance_text in (
        ("text", "x"),
        ("list", "[]"),
        ("deep", "[" * 100_000),
        ("nothing", "{}"),
        ("nan", '{"a":NaN}'),
    ):
        yield (
            f"provenance-{name}.safetensors",
            save({"emb_params": VECTORS.reshape(2, 4)}, {"softprompt": provenance_text}),
        )
    provenance = json.dumps(a_prompt(name="Fox").as_dict())
    halves = {"clip_l": VECTORS.reshape(2, 4), "clip_g": VECTORS.reshape(2, 4)}
    for name, pair in (
        ("one-for-two_tensors", json.loads(provenance)),
        ("half", {"clip_l": json.loads(provenance)}),
        ("of-others", {"clip_l": json.loads(provenance), "t5": json.loads(provenance)}),
        ("list", []),
        ("nothing", {"clip_l": {}, "clip_g": {}}),
    ):
        packed = json.dumps({"clip_l": {}, "clip_g": {}})
        yield (
            f"pair-{name}.safetensors",
            save(halves, {"softprompt": json.dumps(pair), "softprompt_tensors": packed}),
        )
    for name, extra in (
        ("text", "x"),
        ("odd", '{"target":"AAA="}'),
        ("list", "[]"),
        ("nan", '{"target":"AADAfw=="}'),
        ("number", '{"target":1}'),
    ):
        yield (
            f"beside-{name}.safetensors",
            save({"emb_params": VECTORS.reshape(2, 4)}, {"softprompt": provenance, "softprompt_tensors": extra}),
        )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, side: int = 1) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(bytes(4))) + chunk(b"IEND", b"")
    )


def png_files() -> Files:
    key = b"sd-ti-embedding\0"

    def card(values: bytes) -> bytes:
        embedding = b'{"string_to_token":{"*":265},"string_to_param":{"*":{"TORCHTENSOR":' + values + b'}},"name":"x"}'
        return chunk(b"tEXt", key + base64.b64encode(embedding))

    yield "billion-pixels.png", png(side=31_623)
    yield "most-pixels.png", png(side=0x7FFFFFFF)
    yield "no-text.png", png(chunk(b"tEXt", b"Comment\0hello"))
    yield "chunk-of-4-gigabytes.png", png()[:33] + b"\xff\xff\xff\xfftEXt" + key
    yield "chunk-negative.png", png()[:33] + b"\x80\x00\x00\x00zTXt" + key
    yield "no-end.png", png()[:-12]
    yield "checksum.png", png(card(b"[[1,2]]")[:-1] + b"\0")
    yield "twice.png", png(card(b"[[1,2]]"), card(b"[[1,2]]"))
    yield "many-chunks.png", png(chunk(b"tIME", b"") * 120_000)
    yield "not-base64.png", png(chunk(b"tEXt", key + b"\x80\x81 not base64"))
    yield "not-json.png", png(chunk(b"tEXt", key + base64.b64encode(b"not json")))
    bomb = zlib.compress(bytes(40 << 20))
    yield "bomb.png", png(chunk(b"zTXt", key + b"\0" + bomb))
    yield "bomb-itxt.png", png(chunk(b"iTXt", key + b"\1\0\0\0" + bomb))
    yield "bomb-many.png", png(chunk(b"zTXt", b"Comment\0\0" + bomb) * 50)
    yield "packed-otherwise.png", png(chunk(b"zTXt", key + b"\7" + bomb))
    yield "packed-badly.png", png(chunk(b"zTXt", key + b"\0not deflate"))
    yield "itxt-short.png", png(chunk(b"iTXt", key))
    for name, values in (
        ("ragged", b"[[1,2],[3]]"), ("text", b'[["a"]]'), ("nan", b"[[NaN]]"), ("infinity", b"[[1e999]]"),
        ("huge", b"[[1e39]]"), ("deep", b"[" * 50_000), ("empty", b"[]"), ("empty-rows", b"[[],[]]"),
        ("three", b"[[[1]]]"), ("true", b"[[true]]"), ("number", b"1"), ("long", b"[[" + b"9" * 5000 + b"]]"),
        ("wide", b"[[" + b"0," * 20_000 + b"0]]"), ("twice", b'[[1]],"TORCHTENSOR":[[2]]'),
        ("many", b"[" + b"[0]," * 3000 + b"[0]]"),
    ):  # fmt: skip
        yield f"card-{name}.png", png(card(values))


def foreign_files() -> Files:
    """Yield other kinds of files with the suffixes of soft prompts."""
    for name, raw in (
        ("jpeg.png", b"\xff\xd8\xff\xe0" + bytes(100)), ("page.safetensors", b"<!doctype html><html>" * 20),
        ("program.pt", b"\x7fELF" + bytes(200)), ("pdf.bin", b"%PDF-1.7\n"), ("gzip.pt", b"\x1f\x8b\x08" + bytes(50)),
        ("tar.pt", bytes(1024)), ("gguf.safetensors", b"GGUF" + bytes(60)), ("hdf.npy", b"\x89HDF\r\n\x1a\n"),
        ("empty.pt", b""), ("one-byte.bin", b"\x80"), ("nine-zeros.safetensors", bytes(9)),
        ("script.pt", b"#!/bin/sh\nrm -rf /\n"),
        (
            "mkultra.json",
            b'{"metadata":{"name":"x"},"tensor":"gASVKAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"}',
        ),
        ("list.json", b"[" * 100_000), ("plain.json", b'{"a":1}'), ("webp.png", b"RIFF\x24\x00\x00\x00WEBPVP8 "),
        ("text.pt", "ein weicher Prompt ☃".encode() * 100), ("pointer.safetensors", LFS_POINTER),
        ("answer.pt", b'{"error":"Unauthorized"}'), ("notice.bin", b"Invalid username or password."),
        ("protocol-0.pt", b"cos\nsystem\n(S'true'\ntR."), ("sqlite.pt", b"SQLite format 3\0" + bytes(80)),
    ):  # fmt: skip
        yield f"stranger-{name}", raw


def valid_files() -> Files:
    """Yield files that can be read, but not when they are truncated."""
    yield "zip.pt", torch_zip(tensor())
    yield "old.pt", torch_stream(tensor())
    yield "emb.safetensors", save({"emb_params": VECTORS.reshape(2, 4)}, {"name": "x"})
    yield "entry.safetensors", pack(Entry("0123456789abcdef", 1, a_prompt(name="Fox")))
    yield "array.npy", npy()
    yield "kobold.zip", zipped({"tensor.npy": npy(), "meta.json": b'{"name":"x"}'}, zipfile.ZIP_LZMA)
    values = base64.b64encode(b'{"string_to_param":{"*":{"TORCHTENSOR":[[1,2]]}},"name":"x"}')
    yield "card.png", png(chunk(b"tEXt", b"sd-ti-embedding\0" + values))


def truncated_files() -> Files:
    for name, raw in valid_files():
        for part in (1, 2, 3, 5, 7, 11, 13, 15):
            at = len(raw) * part // 16
            yield f"cut-{part}-{name}", raw[:at]
        yield f"cut-last-{name}", raw[:-1]


def badly_named() -> Files:
    """Yield valid files with hostile metadata. They are read, and their names made safe."""
    for i, name in enumerate((
        "../../x", "/etc/passwd", "CON", "v1", "\x1b[31mred\x1b[0m", "a\0b", "\u202egnp.exe",
        "😀" * 2500, "x" * 10_000, "..", "-rf", "$(touch x)", "[/bold]", "'; DROP", "\ud800", "a\nb", "é" * 500, "",
    )):  # fmt: skip
        yield (
            f"name-{i}.safetensors",
            save(
                {"emb_params": VECTORS.reshape(2, 4) + np.float32(i)},
                {
                    "name": name.encode("utf-8", "replace").decode(),
                    "description": name.encode("utf-8", "replace").decode() * 3,
                },
            ),
        )
        yield f"token-{i}.pt", torch_zip(b"}(" + text(name or "*") + tensor() + b"u")


def refused_for_memory() -> Files:
    """Yield files that are rejected only under the memory limit of the child."""
    raw = bytearray(zipped({"tensor.npy": npy()}, zipfile.ZIP_LZMA))
    raw[raw.find(b"tensor.npy") + 15 : raw.find(b"tensor.npy") + 19] = b"\xff\xff\xff\xff"
    yield "dictionary-of-4-gigabytes.zip", bytes(raw)


def all_bytes(canary: Path) -> Files:
    """Yield all hostile files that are plain bytes. Readers must reject each of them."""
    for files in (
        torch_files(canary),
        zip_files(canary),
        npy_files(),
        safetensors_files(),
        png_files(),
        foreign_files(),
        truncated_files(),
    ):
        yield from files


def special_files(folder: Path) -> list[Path]:
    """Create pipes, devices, links and folders that readers must reject."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        name: folder / name for name in "pipe loop-a loop-b zero random dangling folder missing socket sparse".split()
    }
    os.mkfifo(paths["pipe"])
    paths["loop-a"].symlink_to(paths["loop-b"])
    paths["loop-b"].symlink_to(paths["loop-a"])
    paths["zero"].symlink_to("/dev/zero")
    paths["random"].symlink_to("/dev/urandom")
    paths["dangling"].symlink_to(folder / "nowhere")
    paths["folder"].mkdir()
    previous = Path.cwd()
    os.chdir(folder)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.chdir(previous)
    with paths["sparse"].open("wb") as file:
        file.truncate(10 << 30)
    folders = {
        "lora": {"adapter_config.json": b'{"peft_type":"LORA"}'},
        "config-deep": {"adapter_config.json": b"[" * 100_000},
        "config-twice": {"adapter_config.json": b'{"peft_type":"PROMPT_TUNING","peft_type":"PROMPT_TUNING"}'},
        "no-weights": {"adapter_config.json": b'{"peft_type":"PROMPT_TUNING"}'},
        "other-weights": {
            "adapter_config.json": b'{"peft_type":"PROMPT_TUNING"}',
            "adapter_model.safetensors": save({"x": VECTORS}),
        },
        "other-width": {
            "adapter_config.json": b'{"peft_type":"PROMPT_TUNING","token_dim":9}',
            "adapter_model.safetensors": save({"prompt_embeddings": VECTORS.reshape(2, 4)}),
        },
        "bin-is-text": {"adapter_config.json": b'{"peft_type":"PROMPT_TUNING"}', "adapter_model.bin": b"text"},
    }
    for name, files in folders.items():
        paths[name] = folder / name
        paths[name].mkdir()
        for file_name, raw in files.items():
            (paths[name] / file_name).write_bytes(raw)
    paths["pipe-in-folder"] = folder / "pipe-in-folder"
    paths["pipe-in-folder"].mkdir()
    os.mkfifo(paths["pipe-in-folder"] / "adapter_config.json")
    return list(paths.values())


def write_all(folder: Path, canary: Path) -> tuple[list[Path], list[Path]]:
    """Return (paths that readers must reject, paths that are read but have hostile names)."""
    folder.mkdir(parents=True, exist_ok=True)
    rejected_paths, readable_paths = special_files(folder / "places"), []
    for files, paths in (
        (all_bytes(canary), rejected_paths),
        (refused_for_memory(), rejected_paths),
        (badly_named(), readable_paths),
    ):
        for name, raw in files:
            path = folder / name.replace("/", "_")
            assert not path.exists(), name
            path.write_bytes(raw)
            paths.append(path)
    return rejected_paths, readable_paths


if __name__ == "__main__":
    folder = Path(sys.argv[1]).absolute()
    rejected, readable = write_all(folder, folder / "CANARY")
    print(f"wrote {len(rejected)} files to reject and {len(readable)} to read into {folder}")
