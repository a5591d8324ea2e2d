"""What reads bytes from outside, and what it may answer. Each has seeds that it reads, words its format is made of, and a mender.

A mender makes checksums right again, so that a change reaches what lies behind them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from safetensors.numpy import save

from softprompt.errors import EntryDamaged, FileRefused, TemplateError, WorkerError
from softprompt.formats import child, export_bytes, pngfile, recognise
from softprompt.formats.layouts import found_in
from softprompt.formats.reading import _checked
from softprompt.library.entry import BLANK, Entry, Tombstone, pack, unpack_any
from softprompt.library.header import digest_at
from softprompt.template import parse
from softprompt.worker import protocol
from softprompt_tui import settings
from tests.fuzz import template
from tests.library_model import NUMBERS, a_prompt

TYPES = [b'"F32"', b'"F16"', b'"BF16"', b'"F64"', b'"I64"', b'"dtype":', b'"shape":', b'"data_offsets":', b'"__metadata__":']


@dataclass(frozen=True)
class Target:
    name: str
    parse: Callable[[bytes], Any]
    typed: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    mend: Callable[[bytes], bytes] | None = None


def _entries() -> list[bytes]:
    entry = Entry("0123456789abcdef", 3, a_prompt(name="Fox"), ("tag",), "a note", "2026-01-01T00:00:00+00:00")
    unknown = a_prompt(name="x", similarity=None, composition=None, hidden={"sd1": 0.5}, source={"file": "a.pt"})
    return [pack(entry), pack(Entry("0123456789abcdef", 1, unknown)), pack(Tombstone("0123456789abcdef", 4, "2026"))]


def with_digest(raw: bytes) -> bytes:
    """The bytes of an entry with the checksum that they should have."""
    at = digest_at(raw)
    if at < 0:
        return raw
    digest = hashlib.sha256(raw[:at] + BLANK.encode() + raw[at + 64 :]).hexdigest()
    return raw[:at] + digest.encode() + raw[at + 64 :]


def _settings(raw: bytes) -> None:
    settings._checked(json.loads(raw))


def _request(raw: bytes) -> None:
    protocol.request_of(protocol.decode(raw))


def _requests() -> list[bytes]:
    made = (
        protocol.Submit({"prompt": "a lake"}, "0123"), protocol.Curve("3f2a", 10), protocol.Shutdown(True),
        protocol.Similarity("mini", ["a", "[b] c"]), protocol.Neighbours(entry="0123"), protocol.Move("1", "2"), protocol.Status(),
    )  # fmt: skip
    return [protocol.encode(protocol.as_message(request, number)) for number, request in enumerate(made)]


PICKLED = [bytes([code]) for code in b"cRbQ\x93\x94qrhjgpt()]}us\x85\x86\x87\x81ioI0125.NMKJX\x8c\x8aF"] + [
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"cos\nsystem\n", b"X\x07\x00\x00\x00storage",
    b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy._core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n", b"c_codecs\nencode\n",
    b"cnumpy._core.numeric\n_frombuffer\n", b"X\x02\x00\x00\x00f4", b"X\x06\x00\x00\x00latin1", b"\x96\x04\x00\x00\x00\x00\x00\x00\x00",
    b"\x80\x02", b"ctorch.optim.sgd\nSGD\n)\x81", b"c__builtin__\nset\n",
]  # fmt: skip


def _saved(legacy: bool) -> list[bytes]:
    """What torch.save writes for each of the layouts."""
    import torch

    v = torch.linspace(-1, 1, 8).reshape(2, 4)
    module = torch.nn.Linear(2, 2)
    module.ctx = torch.nn.Parameter(v)
    a1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": v}, "name": "x", "step": 3, "sd_checkpoint": "a"}
    values = [
        a1111, a1111 | {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(v)})}, {"<a>": v[0].half()}, v.double(),
        {"a": v[0], "a_1": v[1]}, {"<a>": v, "<b>": v[0]}, {"x": v.numpy(), "step": np.float64(3)}, v.numpy().T, {"x": v[None]}, {"clip_l": v, "clip_g": v.bfloat16()}, [{"a": v}], {"x": v.T}, {"state_dict": module.state_dict(), "epoch": 3},
    ]  # fmt: skip
    out = []
    for value in values:
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=not legacy)
        out.append(file.getvalue())
    return out


def _pickles() -> list[bytes]:
    return [zipfile.ZipFile(io.BytesIO(raw)).read("archive/data.pkl") for raw in _saved(legacy=False)]


def _in_zip(raw: bytes) -> None:
    """The bytes as the pickle of torch's zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("archive/data.pkl", raw)
        for i in range(4):
            made.writestr(f"archive/data/{i}", NUMBERS.tobytes())
    recognise.found_in_file(file.getvalue())


def _zips() -> list[bytes]:
    out = _saved(legacy=False)[:3]
    for packing, codec in ((zipfile.ZIP_LZMA, "utf-8"), (zipfile.ZIP_DEFLATED, "utf-8-sig"), (zipfile.ZIP_DEFLATED, "utf-16-le")):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", packing) as made:
            made.writestr("tensor.npy", _arrays()[0])
            made.writestr("meta.json", '{"name": "x", "supported": ["a"]}'.encode(codec))
        out.append(file.getvalue())
    return out


def _arrays() -> list[bytes]:
    out = []
    for array in (
        NUMBERS.reshape(2, 4),
        np.asfortranarray(NUMBERS.reshape(2, 4)),
        NUMBERS.astype("<f2"),
        NUMBERS.view("V2").reshape(4, 4),
    ):
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        out.append(file.getvalue())
    return out


def _safetensors() -> list[bytes]:
    v = NUMBERS.reshape(2, 4)
    beside = {key: base64.b64encode(NUMBERS.tobytes()).decode() for key in ("target", "losses", "similarities")}
    ours = {"softprompt": json.dumps(a_prompt(name="Fox").summary()), "softprompt_tensors": json.dumps(beside)}
    made = [
        {"emb_params": v},
        {"clip_l": v, "clip_g": v},
        {"<a>": v[0], "<a>_1": v[1]},
        {"bundle_emb.x.clip_l": v, "y": v},
        {"a": v.astype("<f2")},
        {"<a>": v, "<b>": v[0], "<b>_1": v[1]},
        {"text_encoders_0": v, "text_encoders_1": v},
        {"clip_l": v[None], "t5": v},
    ]
    pair = [a_prompt(name="L"), a_prompt(name="G")]
    return (
        [export_bytes.two_tensors(*pair)]
        + [save(one, {"format": "pt", "name": "x"}) for one in made]
        + [save({"emb_params": v}, ours), *_entries()[:2]]
    )


def _with_length(raw: bytes) -> bytes:
    """Safetensors with the length that their header has, and an entry's checksum."""
    end = raw.rfind(b"}", 0, 1 << 13) + 1
    return with_digest(struct.pack("<Q", max(0, end - 8)) + raw[8:])


def _embedding(values: str) -> bytes:
    return b'{"string_to_token":{"*":265},"string_to_param":{"*":{"TORCHTENSOR":' + values.encode() + b'}},"name":"x","step":3}'


def _from_json(raw: bytes) -> None:
    found_in(*pngfile.from_json(raw), {})


def _cards() -> list[bytes]:
    text = base64.b64encode(_embedding("[[1.5,2],[3,4e-3]]"))
    word = pngfile.KEYWORD + b"\0"
    texts = [
        b"tEXt" + word + text,
        b"zTXt" + word + b"\0" + zlib.compress(text),
        b"iTXt" + word + b"\1\0en\0\0" + zlib.compress(text),
    ]
    return [_png([b"IHDR" + bytes(13), one, b"IDAT" + zlib.compress(b"\0"), b"IEND"]) for one in texts]


def _png(chunks: Iterable[bytes]) -> bytes:
    packed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return pngfile.SIGNATURE + b"".join(packed)


def _with_crcs(raw: bytes) -> bytes:
    """A picture with the checksums that its chunks should have."""
    out, at = bytearray(raw), len(pngfile.SIGNATURE)
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        end = at + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def _folder(raw: bytes) -> None:
    recognise.found_in_folder({recognise.CONFIG: raw, recognise.WEIGHTS: save({"prompt_embeddings": NUMBERS.reshape(2, 4)})})


def _configs() -> list[bytes]:
    said = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": 2,
        "token_dim": 4,
        "base_model_name_or_path": "x",
    }
    return [json.dumps(said).encode(), b'{"peft_type": "PROMPT_TUNING"}']


def _answers() -> list[bytes]:
    return [b"".join(child.reply(False, {"": raw})) for raw in (b"nothing", *_safetensors())]


def _template(raw: bytes) -> None:
    """Read, and written and read again."""
    parse(raw.decode("utf-8", "surrogateescape"))
    template.one(raw)


def _templates() -> list[bytes]:
    texts = (
        "[fox] in a [landscape:2] at night",
        "[fox:1-3] and [v1][v2]",
        "a \\[bracket\\]",
        "[a*.6 + b*.4] at sea",
        "[a + b + c*2]",
        "雪 [狐]",
    )
    return [text.encode() for text in texts]


_REFUSED = (FileRefused,)
_KEYS = [
    b'"emb_params"',
    b'"text_encoders_0"',
    b'"t5"',
    b'"<b>_1"',
    b'"clip_l"',
    b'"clip_g"',
    b'"softprompt"',
    b'"string_to_param"',
    b'"TORCHTENSOR":',
    b'"state_dict"',
]
_ALL = (
    Target("entry", lambda raw: unpack_any(raw, "x"), (EntryDamaged,), _entries, tuple(TYPES), with_digest),
    Target("settings", _settings, (ValueError, TypeError, RecursionError),
           lambda: [json.dumps(asdict(settings.Settings(prompts=["a", "b"]))).encode()], (b'"train":', b'"prompts":')),
    Target("protocol", _request, (WorkerError,), _requests, (b'"do":', b'"submit"', b'"texts":', b'"similarity"')),
    Target("template", template.one, (TemplateError,), lambda: [b"[fox*.6 + a boat] at \\[night\\]", b"[v1][fox:1-3]"],
           (b"[", b"]", b"*.5", b" + ", b":1", b"-2", b"\\")),
    Target("pickle", _in_zip, _REFUSED, _pickles, tuple(PICKLED)),
    Target("torch-stream", recognise.found_in_file, _REFUSED, lambda: _saved(legacy=True), tuple(PICKLED)),
    Target("zip", recognise.found_in_file, _REFUSED, _zips, (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07")),
    Target("safetensors", recognise.found_in_file, _REFUSED, _safetensors, (*TYPES, *_KEYS), _with_length),
    Target("png", recognise.found_in_file, _REFUSED, _cards, (b"tEXt", b"zTXt", b"iTXt", b"IEND", pngfile.KEYWORD), _with_crcs),
    Target("embedding-json", _from_json, _REFUSED, lambda: [_embedding("[[1.5,2],[3,4]]"), _embedding("[1,2]")], tuple(_KEYS)),
    Target("npy", recognise.found_in_file, _REFUSED, _arrays, (b"'descr'", b"'shape'", b"'<f4'", b"'|V2'", b"True", b"(", b")", b"-", b"~")),
    Target("peft", _folder, _REFUSED, _configs, (b'"peft_type":', b'"PROMPT_TUNING"', b'"num_virtual_tokens":')),
    Target("template", _template, (TemplateError,), _templates, (b"[", b"]", b"\\", b":", b"{", b"}", b"|", b"*", b"(", b")", b"1.5")),
    Target("answer", lambda raw: _checked(raw, ""), _REFUSED, _answers, (b'"vectors":', b'"beside":', b'"said":', b"[[")),
)  # fmt: skip
TARGETS = {target.name: target for target in _ALL}
