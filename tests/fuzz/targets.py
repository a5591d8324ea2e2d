"""The fuzzer's targets: parsers of untrusted bytes.

Each target has the errors that it may raise, seeds that it can read, and typical pieces of its format. `repair`
corrects lengths and checksums after a change, so that the change reaches the code behind these checks.
"""

from __future__ import annotations

import atexit
import base64
import functools
import hashlib
import io
import json
import math
import shutil
import socket
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from softprompt.batches.output import is_start_of_result, parse_result
from softprompt.batches.record import OutputRecord, WrittenFile, parse_record
from softprompt.batches.results import Result
from softprompt.batches.row_job import ROW_KEYS, Defaults, job_from_row
from softprompt.batches.rows import RowKeys, read_rows
from softprompt.composition.template import parse
from softprompt.config import HardConfig, TrainConfig
from softprompt.encoders.model_folder import check_text_config, parse_config, parse_json
from softprompt.errors import (
    ConfigError,
    EntryDamaged,
    FileRefused,
    LibraryError,
    ModelRefused,
    PromptError,
    RunUnreadable,
    SoftPromptError,
    TemplateError,
    WorkerError,
)
from softprompt.formats.readers import detect, png_card, sandbox_child
from softprompt.formats.readers.layouts import parse_value
from softprompt.formats.readers.sandbox import _parse_answer
from softprompt.formats.writers import encode
from softprompt.jobs.job import Job, SweepJob, TrainJob
from softprompt.jobs.preflight import check_fits
from softprompt.library.entry import BLANK, Entry, Tombstone, pack, unpack_any
from softprompt.library.header import digest_offset
from softprompt.prompts.lineage import Ancestor, WeightedText
from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker import messages, protocol
from softprompt.worker.client import Client, WorkerGone
from softprompt.worker.run_folder import EVENTS, SPEC, Run, RunFolder
from softprompt.worker.summary import RunSummary
from softprompt_tui.rendering.details import run_facts
from softprompt_tui.rendering.sweep_table import sweep_rows
from softprompt_tui.state import queue as run_queue
from softprompt_tui.state import settings
from softprompt_tui.widgets.runs import _row as row_of
from tests.fuzz import template
from tests.library_model import NUMBERS, a_prompt

RUN_TIME = "2026-01-01T00:00:00+00:00"
TYPES = [
    b'"F32"',
    b'"F16"',
    b'"BF16"',
    b'"F64"',
    b'"I64"',
    b'"dtype":',
    b'"shape":',
    b'"data_offsets":',
    b'"__metadata__":',
]


@dataclass(frozen=True)
class Target:
    name: str
    parse: Callable[[bytes], Any]
    expected_errors: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    repair: Callable[[bytes], bytes] | None = None


NAMES = ("-", "x.txt", "x.csv", "x.jsonl")


def _parse_rows(raw: bytes) -> None:
    """Read rows, in the order of their lines. The first byte selects the file's name."""
    keys, last = RowKeys(ROW_KEYS), 0
    for row in read_rows(io.BytesIO(raw[1:]), NAMES[raw[0] % len(NAMES) if raw else 0], keys):
        assert row.line > last
        last = row.line
        if not row.error:
            with suppress(PromptError, ConfigError, LibraryError):
                job_from_row(row.values, Defaults())


def _row_seeds() -> list[bytes]:
    texts = (
        "a fox\n# no\n\\# a sign\n",
        '--prompt "a fox" --seed 3 --negative_prompt "x"\n--prompt=a\n',
        "a fox\ra boat\r",
        'sep=;\r\nprompt;tokens\r\n"a; fox";3\r\n',
        '\ufeffname,prompt,negative_prompt\r\nx,"a {prompt},\r\nb",c\r\n',
        'prompt,seed,stop-at\r"a ""red"" fox\n2",1,.9\r',
        '{"prompt": "a fox", "tokens": 3, "contexts": ["a {}"]}\n"a boat"\n',
    )
    return [bytes([number]) + text.encode() for number in range(len(NAMES)) for text in texts]


def _parse_result_line(raw: bytes) -> None:
    """Read a result line, the start of a result line, or the record of an output file."""
    if raw[:1] == b"{" and b'"files"' in raw[:12]:
        parse_record(raw)
        return
    line = parse_result(raw)
    assert not (line and is_start_of_result(raw)), "a complete line also counts as the start of a line"
    assert parse_result(raw, is_recorded=True) == line or line is None
    if line is None and not is_start_of_result(raw):
        raise ValueError("neither a result nor the start of a result")


def _result_seeds() -> list[bytes]:
    results = (
        Result(3, "trained", "a fox \u96ea", "0123456789abcdef", "fox", "mini", 3, 0.9),
        Result(4, "failed", "", error=("A", "b")),
    )
    lines = [result.as_line() for result in results]
    return [
        *lines,
        lines[0][:60],
        lines[1][:20],
        json.dumps(asdict(OutputRecord((WrittenFile(1, 2, 3),), "0123456789abcdef"))).encode(),
    ]


def _entry_seeds() -> list[bytes]:
    entry = Entry("0123456789abcdef", 3, a_prompt(name="Fox"), ("tag",), "a note", "2026-01-01T00:00:00+00:00")
    unknown = a_prompt(name="x", similarity=None, composition=None, hidden={"sd1": 0.5}, source={"file": "a.pt"})
    return [pack(entry), pack(Entry("0123456789abcdef", 1, unknown)), pack(Tombstone("0123456789abcdef", 4, "2026"))]


def fix_digest(raw: bytes) -> bytes:
    """Return the bytes of an entry with a correct checksum."""
    at = digest_offset(raw)
    if at < 0:
        return raw
    digest = hashlib.sha256(raw[:at] + BLANK.encode() + raw[at + 64 :]).hexdigest()
    return raw[:at] + digest.encode() + raw[at + 64 :]


def _parse_settings(raw: bytes) -> None:
    settings._parse_settings(json.loads(raw))


def _parse_model_config(raw: bytes) -> None:
    check_text_config("local-dir:/m", parse_config(parse_json(raw)))


def _model_config_seeds() -> list[bytes]:
    text = {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 2,
        "tokenizer_kwargs": {"clean": "lower"},
    }
    vision = {"image_size": 32, "patch_size": 16, "width": 64, "timm_model_name": "vit_tiny"}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}
    return [
        json.dumps({"model_cfg": config, "preprocess_cfg": {}}).encode(),
        b'{"model_cfg": {"text_cfg": {}, "vision_cfg": {}}}',
    ]


def _parse_request(raw: bytes) -> None:
    protocol.parse_request(protocol.decode(raw))


def _request_seeds() -> list[bytes]:
    requests = (
        protocol.Submit({"prompt": "a lake"}, "0123"),
        protocol.Curve("3f2a", 10),
        protocol.Shutdown(True),
        protocol.Similarity("mini", ["a", "[b] c"]),
        protocol.Neighbours(entry="0123"),
        protocol.Move("1", "2"),
        protocol.Status(),
    )
    return [protocol.encode(protocol.as_message(request, number)) for number, request in enumerate(requests)]


def _parse_submit(raw: bytes) -> None:
    """Read a request as the worker does, up to the point where the worker would create the run's folder."""
    message = protocol.decode(raw)
    protocol.parse_id(message)
    request = protocol.parse_request(message)
    if isinstance(request, protocol.Submit):
        check_fits(Job.from_dict(request.job))


def _submit_seeds() -> list[bytes]:
    jobs = (
        TrainJob("a lake at night", TrainConfig(tokens="auto", stop_at=0.9)),
        TrainJob(
            "a lake",
            TrainConfig(objective="contrastive", against=("a sea",)),
            hard=HardConfig(tokens=3),
            device="cuda:1",
        ),
        SweepJob("a lake + a fox", sweep=(1, 2), meanings=(WeightedText("a lake", 0.5),), model="local-dir:/nowhere"),
        TrainJob(
            "a lake",
            ancestry=(Ancestor("mixed", "0123", "fox", "a fox", "mini", "4567"),),
            precision="bfloat16",
            name="Lake",
        ),
    )
    return [protocol.encode(protocol.as_message(protocol.Submit(job.as_dict()), 1)) for job in jobs]


def _read_worker_messages(raw: bytes) -> None:
    """Read everything that a worker sends to a client, and render it as the interface does."""
    client_end, worker_end = socket.socketpair()
    with client_end, worker_end:
        worker_end.sendall(raw)
        worker_end.shutdown(socket.SHUT_WR)
        client = Client(client_end)
        for run in client.runs:
            _show_run(run)
        with suppress(WorkerGone):  # the end of the input
            for event in client.events():
                if event["type"] == "run":
                    _show_run(event["run"])


def _show_run(description: dict[str, Any]) -> None:
    run = RunSummary.from_message(description)
    row_of(run, run_queue.queue_places([run]), datetime.now(UTC))
    run_facts(run)
    run_queue.describe_wait(run, [run])
    sweep_rows(run)


def _worker_seeds() -> list[bytes]:
    result = {
        "tokens": 2,
        "similarity": 0.5,
        "composed": 0.5,
        "worst": None,
        "floor": 0.1,
        "readout_text": "x",
        "knee": True,
    }
    job = SweepJob("a lake", TrainConfig(tokens=2), sweep=(1, 2))
    run = Run(
        "0123456789abcdef",
        job,
        "2026-01-01T00:00:00+00:00",
        "running",
        1.0,
        latest={"step": 1},
        results=(SweepResult(**result),),
    )
    description = messages.describe_run(run)
    report = {
        "step": 2,
        "tokens": 2,
        "loss": 0.5,
        "similarity": 0.5,
        "restarts": [0.5, None],
        "sweep": [[1, 0.5, None]],
    }
    events: list[dict[str, Any]] = [
        {"type": "snapshot", "ready": True, "runs": [description], "more": True},
        {"type": "loading", "run": run.id, "stage": "reading the weights", "bytes": 1, "of": 2},
        {"type": "run", "run": description},
        {"type": "report", "run": run.id, **report},
        {"type": "page", "runs": [description], "more": False},
        {"type": "reply", "id": 1, "result": {}},
        {"type": "dropped", "run": run.id},
        {"type": "bye", "again": False, "reason": ""},
    ]
    older = {"type": "hello", "protocol": protocol.PROTOCOL - 1, "version": "0.0"}
    making_way = {"type": "making_way", "run": run.id}
    streams = (
        [protocol.hello(), *events],
        [older, making_way, *events[:3]],
        [protocol.hello(), events[0], events[-1] | {"reason": "x"}],
    )
    lines = [b"".join(map(protocol.encode, stream)) for stream in streams]
    return [*lines, lines[0] + messages.encode_error(1, ValueError("x"))]


PICKLED = [bytes([code]) for code in b"cRbQ\x93\x94qrhjgpt()]}us\x85\x86\x87\x81ioI0125.NMKJX\x8c\x8aF"] + [
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"cos\nsystem\n",
    b"X\x07\x00\x00\x00storage", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy._core.multiarray\n_reconstruct\n",
    b"cnumpy.core.multiarray\nscalar\n", b"c_codecs\nencode\n", b"cnumpy._core.numeric\n_frombuffer\n",
    b"X\x02\x00\x00\x00f4", b"X\x06\x00\x00\x00latin1", b"\x96\x04\x00\x00\x00\x00\x00\x00\x00", b"\x80\x02",
    b"ctorch.optim.sgd\nSGD\n)\x81", b"c__builtin__\nset\n",
]  # fmt: skip


def _torch_files(legacy: bool) -> list[bytes]:
    """Return a file of torch.save for each layout."""
    import torch

    v = torch.linspace(-1, 1, 8).reshape(2, 4)
    module = torch.nn.Linear(2, 2)
    module.ctx = torch.nn.Parameter(v)
    a1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": v}, "name": "x", "step": 3, "sd_checkpoint": "a"}
    values = [
        a1111,
        a1111 | {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(v)})},
        {"<a>": v[0].half()},
        v.double(),
        {"a": v[0], "a_1": v[1]},
        {"<a>": v, "<b>": v[0]},
        {"x": v.numpy(), "step": np.float64(3)},
        v.numpy().T,
        {"x": v[None]},
        {"clip_l": v, "clip_g": v.bfloat16()},
        [{"a": v}],
        {"x": v.T},
        {"state_dict": module.state_dict(), "epoch": 3},
    ]
    out = []
    for value in values:
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=not legacy)
        out.append(file.getvalue())
    return out


def _pickle_seeds() -> list[bytes]:
    return [zipfile.ZipFile(io.BytesIO(raw)).read("archive/data.pkl") for raw in _torch_files(legacy=False)]


def _parse_in_zip(raw: bytes) -> None:
    """Read the bytes as the pickle inside a torch zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", raw)
        for i in range(4):
            archive.writestr(f"archive/data/{i}", NUMBERS.tobytes())
    detect.parse_file(file.getvalue())


def _zip_seeds() -> list[bytes]:
    out = _torch_files(legacy=False)[:3]
    for packing, codec in (
        (zipfile.ZIP_LZMA, "utf-8"),
        (zipfile.ZIP_DEFLATED, "utf-8-sig"),
        (zipfile.ZIP_DEFLATED, "utf-16-le"),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", packing) as archive:
            archive.writestr("tensor.npy", _npy_seeds()[0])
            archive.writestr("meta.json", '{"name": "x", "supported": ["a"]}'.encode(codec))
        out.append(file.getvalue())
    return out


def _npy_seeds() -> list[bytes]:
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


def _safetensors_seeds() -> list[bytes]:
    v = NUMBERS.reshape(2, 4)
    extra = {key: base64.b64encode(NUMBERS.tobytes()).decode() for key in ("target", "losses", "similarities")}
    metadata = {"softprompt": json.dumps(a_prompt(name="Fox").as_dict()), "softprompt_tensors": json.dumps(extra)}
    files = [
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
        [encode.safetensors_pair(*pair)]
        + [save(tensors, {"format": "pt", "name": "x"}) for tensors in files]
        + [save({"emb_params": v}, metadata), *_entry_seeds()[:2]]
    )


def _fix_length(raw: bytes) -> bytes:
    """Return a safetensors file with the correct header length and, in an entry, the correct checksum."""
    end = raw.rfind(b"}", 0, 1 << 13) + 1
    return fix_digest(struct.pack("<Q", max(0, end - 8)) + raw[8:])


@functools.cache
def _run_folder() -> RunFolder:
    """Return the run folder that all inputs overwrite."""
    folder = tempfile.mkdtemp(prefix="softprompt-fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return RunFolder.create(Path(folder), TrainJob("a lake"), 1.0)[0]


def _read_run(raw: bytes) -> None:
    """Read a run's folder: the input is a specification, a zero byte, and events.

    Both ways of reading must agree, and a client must be able to read the result.
    """
    folder = _run_folder()
    spec, _, events = raw.partition(b"\0")
    (folder.path / SPEC).write_bytes(spec)
    (folder.path / EVENTS).write_bytes(events)
    run = folder.peek()
    full_run = folder.read()
    if run.lease == full_run.lease:  # otherwise an event has the number of a lease that never existed
        assert (run.state, run.entry, run.error) == (full_run.state, full_run.entry, full_run.error)
    for version in (run, full_run):
        protocol.parse_message(protocol.encode({"type": "run", "run": messages.describe_run(version)}))
        protocol.parse_message(
            protocol.encode(
                {"type": "reply", "id": 1, "result": {"points": version.points, "latest": dict(version.latest)}}
            )
        )
        assert math.isfinite(version.position)


def _run_seeds() -> list[bytes]:
    job = TrainJob(
        "a lake", TrainConfig(tokens=2, steps=9, against=("x",), objective="contrastive"), hard=HardConfig(block=("y",))
    )
    mixed = SweepJob("(a + b)", meanings=(WeightedText("a", 0.5), WeightedText("b", 0.5)), sweep=(1, 2))
    specs = [json.dumps({"format": 1, "created": RUN_TIME, "job": spec.as_dict()}).encode() for spec in (job, mixed)]
    report = {
        "event": "report",
        "step": 3,
        "tokens": 2,
        "loss": 0.5,
        "similarity": 0.5,
        "restarts": [0.5, None],
        "text": "x",
        "hard_step": 1,
    }
    events: list[dict[str, Any]] = [
        {"event": "queued", "position": 1.5, "lease": 1},
        {"event": "began", "step": 0, "lease": 1},
        report | {"sweep": [[1, 0.5, None]]},
        {"event": "pausing"},
        {"event": "paused", "lease": 2},
        {"event": "moved", "position": 2},
        {"event": "stopping"},
        {
            "event": "done",
            "entry": "0" * 16,
            "name": "fox",
            "results": [{"tokens": 1, "knee": True}],
            "latest": report,
            "began": RUN_TIME,
        },
        {"event": "failed", "error": "x" * 20, "lease": 1},
    ]
    lines = [json.dumps({"at": RUN_TIME} | event).encode() + b"\n" for event in events]
    long = b"".join([lines[0], *lines[1:3] * 30, lines[7]])  # long enough that `peek` reads only its end
    return [
        specs[i % 2] + b"\0" + events for i, events in enumerate((b"".join(lines), lines[0], b"".join(lines[:5]), long))
    ]


def _embedding_json(values: str) -> bytes:
    return (
        b'{"string_to_token":{"*":265},"string_to_param":{"*":{"TORCHTENSOR":'
        + values.encode()
        + b'}},"name":"x","step":3}'
    )


def _parse_embedding_json(raw: bytes) -> None:
    parse_value(*png_card.from_json(raw), {})


def _png_seeds() -> list[bytes]:
    text = base64.b64encode(_embedding_json("[[1.5,2],[3,4e-3]]"))
    word = png_card.KEYWORD + b"\0"
    texts = [
        b"tEXt" + word + text,
        b"zTXt" + word + b"\0" + zlib.compress(text),
        b"iTXt" + word + b"\1\0en\0\0" + zlib.compress(text),
    ]
    return [_make_png([b"IHDR" + bytes(13), chunk, b"IDAT" + zlib.compress(b"\0"), b"IEND"]) for chunk in texts]


def _make_png(chunks: Iterable[bytes]) -> bytes:
    packed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return png_card.SIGNATURE + b"".join(packed)


def _fix_crcs(raw: bytes) -> bytes:
    """Return a PNG file whose chunks have correct checksums."""
    out, at = bytearray(raw), len(png_card.SIGNATURE)
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        end = at + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def _parse_folder(raw: bytes) -> None:
    detect.parse_folder({detect.CONFIG: raw, detect.WEIGHTS: save({"prompt_embeddings": NUMBERS.reshape(2, 4)})})


def _peft_seeds() -> list[bytes]:
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": 2,
        "token_dim": 4,
        "base_model_name_or_path": "x",
    }
    return [json.dumps(config).encode(), b'{"peft_type": "PROMPT_TUNING"}']


def _child_replies() -> list[bytes]:
    return [b"".join(sandbox_child.reply(False, {"": raw})) for raw in (b"nothing", *_safetensors_seeds())]


def _parse_template(raw: bytes) -> None:
    """Parse, format and parse again."""
    parse(raw.decode("utf-8", "surrogateescape"))
    template.check_round_trip(raw)


def _template_seeds() -> list[bytes]:
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
    Target("rows", _parse_rows, _REFUSED, _row_seeds,
           (b'"', b'"";', b",", b";", b"\t", b"\r", b"\r\n", b"\n", b"sep=", b"--prompt ", b"--steps ", b"'", b"\\",
            b"{prompt}", b"\xef\xbb\xbf", b"prompt", b"name", b"negative_prompt", b"auto", b"1-3")),
    Target("results", _parse_result_line, (ValueError,), _result_seeds,
           (b'{"line": ', b'"state": "', b'"id": "', b'"error": null', b'"files":', b'"length":')),
    Target("entry", lambda raw: unpack_any(raw, "x"), (EntryDamaged,), _entry_seeds, tuple(TYPES), fix_digest),
    Target("settings", _parse_settings, (ValueError, TypeError, RecursionError),
           lambda: [json.dumps(asdict(settings.Settings(prompts=["a", "b"]))).encode()], (b'"train":', b'"prompts":')),
    Target("submit", _parse_submit, (SoftPromptError,), _submit_seeds,
           (b'"job":', b'"config":', b'"sweep":', b'"device":', b'"hard":', b'"auto"')),
    Target("worker", _read_worker_messages, (WorkerError,), _worker_seeds,
           (b'"type":', b'"runs":', b'"run":', b'"more":', b'"state":', b"\n", b"null")),
    Target("model-config", _parse_model_config, (ValueError, ModelRefused), _model_config_seeds,
           (b'"text_cfg":', b'"vision_cfg":', b'"vocab_size":', b'"text_arch":', b'"modern"', b'"tokenizer_kwargs":',
            b"1e9", b"null", b"[")),
    Target("protocol", _parse_request, (WorkerError, PromptError), _request_seeds,
           (b'"do":', b'"submit"', b'"texts":', b'"similarity"')),
    Target("run", _read_run, (RunUnreadable,), _run_seeds,
           (b'"event":', b'"lease":', b'"position":', b'"at":', b'"latest":', b'"config":', b"NaN", b"1e999",
            b"\\ud800", b"\n")),
    Target("pickle", _parse_in_zip, _REFUSED, _pickle_seeds, tuple(PICKLED)),
    Target("torch-stream", detect.parse_file, _REFUSED, lambda: _torch_files(legacy=True), tuple(PICKLED)),
    Target("zip", detect.parse_file, _REFUSED, _zip_seeds,
           (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07")),
    Target("safetensors", detect.parse_file, _REFUSED, _safetensors_seeds, (*TYPES, *_KEYS), _fix_length),
    Target("png", detect.parse_file, _REFUSED, _png_seeds, (b"tEXt", b"zTXt", b"iTXt", b"IEND", png_card.KEYWORD),
           _fix_crcs),
    Target("embedding-json", _parse_embedding_json, _REFUSED,
           lambda: [_embedding_json("[[1.5,2],[3,4]]"), _embedding_json("[1,2]")], tuple(_KEYS)),
    Target("npy", detect.parse_file, _REFUSED, _npy_seeds,
           (b"'descr'", b"'shape'", b"'<f4'", b"'|V2'", b"True", b"(", b")", b"-", b"~")),
    Target("peft", _parse_folder, _REFUSED, _peft_seeds,
           (b'"peft_type":', b'"PROMPT_TUNING"', b'"num_virtual_tokens":')),
    Target("template", _parse_template, (TemplateError,), _template_seeds,
           (b"[", b"]", b"\\", b":", b"{", b"}", b"|", b"*", b"(", b")", b"1.5", b"*.5", b" + ", b":1", b"-2")),
    Target("answer", lambda raw: _parse_answer(raw, ""), _REFUSED, _child_replies,
           (b'"vectors":', b'"beside":', b'"said":', b"[[")),
)  # fmt: skip
TARGETS = {target.name: target for target in _ALL}
assert len(TARGETS) == len(_ALL), "two targets have the same name"
