"""Files of other programs are read bit for bit, and code in them never runs."""

from __future__ import annotations

import base64
import io
import json
import pickle
import random
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.numpy import save
from safetensors.torch import save as save_torch

from softprompt.errors import FileRefused
from softprompt.formats.readers import sandbox
from softprompt.formats.readers.detect import parse_file, parse_folder
from softprompt.formats.readers.sandbox import read_soft_prompts
from softprompt.library.entry import Entry, pack
from tests import hostile_files
from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import TARGETS, _child_replies
from tests.library_model import a_prompt

V = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
WIDE = torch.randn(3, 12, generator=torch.Generator().manual_seed(2))
A1111 = {
    "string_to_token": {"*": 265},
    "string_to_param": {"*": V},
    "name": "fox",
    "step": 300,
    "sd_checkpoint": "ab12",
    "sd_checkpoint_name": "sd15",
}
METADATA = {"name": "fox", "step": 300, "checkpoint_hash": "ab12", "checkpoint": "sd15"}


def bits(array: Any) -> bytes:
    return np.ascontiguousarray(array, "<f4").tobytes()


def torch_bytes(value: object, legacy: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def coop(context: torch.Tensor) -> dict[str, Any]:
    """Return a checkpoint of CoOp's trainer, whose schedule contains another schedule with its optimizer."""
    learner = torch.nn.Module()
    learner.ctx = torch.nn.Parameter(context)
    learner.register_buffer("token_prefix", torch.randn(10, 1, 8))
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9)
    learner.ctx.sum().backward()
    optimizer.step()
    context.data.copy_(learner.ctx.data)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer, [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)], []
    )
    schedule_state = schedule.state_dict() | {"successor": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)}
    return {
        "state_dict": learner.state_dict(),
        "epoch": 50,
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule_state,
        "val_result": 71.5,
    }


SHARED, T5 = V.numpy(), torch.zeros(2, 4096)
CONTEXT, CLASSES = V.clone(), torch.stack([V, V + 1])
TORCH_FILES: dict[str, tuple[Callable[[], object], dict[str, torch.Tensor], dict[str, Any]]] = {
    "A1111": (lambda: A1111, {"": V}, METADATA),
    "the original textual inversion": (
        lambda: {
            "string_to_token": {"*": torch.tensor(265)},
            "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(V)}),
        },
        {"": V}, {},
    ),
    "SDXL": (lambda: {"clip_l": V, "clip_g": WIDE}, {"clip_l": V, "clip_g": WIDE}, {}),
    "diffusers": (lambda: {"<fox>": V[0]}, {"<fox>": V[:1]}, {}),
    "diffusers, several vectors": (lambda: {"<fox>": V}, {"<fox>": V}, {}),
    "diffusers, several keys": (lambda: {"<fox>_2": V[2], "<fox>": V[0], "<fox>_1": V[1]}, {"<fox>": V}, {}),
    "a tensor": (lambda: V, {"": V}, {}),
    "a parameter": (lambda: torch.nn.Parameter(V), {"": V}, {}),
    "float16": (lambda: {"x": V.half()}, {"x": V.half()}, {}),
    "bfloat16": (lambda: {"x": V.bfloat16()}, {"x": V.bfloat16()}, {}),
    "float64 without rounding": (lambda: {"x": V.double()}, {"x": V}, {}),
    "a slice of a tensor": (lambda: {"x": torch.cat([WIDE, WIDE])[1:4]}, {"x": torch.cat([WIDE, WIDE])[1:4]}, {}),
    "transposed": (lambda: {"x": V.T}, {"x": V.T}, {}),
    "ComfyUI's list": (lambda: [{"a": V[:1]}, {"b": V[1:]}], {"": V}, {}),
    "a leading 1": (lambda: {"x": V[None]}, {"x": V}, {}),
    "numpy": (
        lambda: {"x": V.numpy(), "step": np.int64(3), "rate": np.float64(0.5)}, {"x": V}, {"step": 3, "rate": 0.5},
    ),
    "numpy in A1111's layout": (lambda: A1111 | {"string_to_param": {"*": V.numpy()}}, {"": V}, METADATA),
    "numpy, the same array twice": (lambda: {"state_dict": {"ctx": SHARED, "copy": SHARED}}, {"": V}, {}),
    "numpy in Fortran order": (lambda: np.asfortranarray(V.numpy()), {"": V}, {}),
    "numpy float16 with a leading 1": (lambda: {"x": V.half().numpy()[None]}, {"x": V.half()}, {}),
    "diffusers, several tokens": (
        lambda: {"<fox>": V, "<lake>": V[0], "step": 3}, {"<fox>": V, "<lake>": V[:1]}, {"step": 3},
    ),
    "diffusers, several tokens of several keys": (
        lambda: {"<b>_1": V[1], "<a>": V[0], "<b>": V[0], "<b>_1_1": V[2], "<b>_2": V[2]},
        {"<a>": V[:1], "<b>": V, "<b>_1_1": V[2:]}, {},
    ),
    "early pivotal tuning": (
        lambda: {"text_encoders_0": V, "text_encoders_1": WIDE}, {"clip_l": V, "clip_g": WIDE}, {},
    ),
    "pivotal tuning, one encoder": (lambda: {"text_encoders_0": V}, {"clip_l": V}, {}),
    "Flux": (lambda: {"clip_l": V, "t5": WIDE}, {"clip_l": V}, {"left out": "t5, which is for a T5 encoder"}),
    "early Flux": (
        lambda: {"text_encoders_0": V, "text_encoders_1": T5}, {"clip_l": V},
        {"left out": "t5, which is for a T5 encoder"},
    ),
    "T5 alone": (lambda: {"t5": WIDE}, {"t5": WIDE}, {}),
    "Stable Diffusion 3": (
        lambda: {"t5xxl": V, "clip_g": WIDE, "clip_l": V, "x": 1}, {"clip_l": V, "clip_g": WIDE},
        {"left out": "t5xxl, which is for a T5 encoder; 1 other tensor in the file"},
    ),
    "CoOp": (lambda: coop(CONTEXT), {"": CONTEXT}, {"epoch": 50, "val_result": 71.5}),
    "CoOp, one context per class": (
        lambda: {"state_dict": {"ctx": CLASSES}, "epoch": 1}, {"class 1": V, "class 2": V + 1}, {"epoch": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
@pytest.mark.parametrize("layout", TORCH_FILES)
def test_torch_files_are_read_bit_for_bit_without_unpickling(layout: str, legacy: bool) -> None:
    create, vectors, metadata = TORCH_FILES[layout]
    parsed = parse_file(torch_bytes(create(), legacy))
    assert {name: bits(array) for name, array in parsed.vectors.items()} == {
        name: bits(tensor.detach().float().numpy()) for name, tensor in vectors.items()
    }
    assert {name: array.shape for name, array in parsed.vectors.items()} == {
        name: tuple(tensor.shape) for name, tensor in vectors.items()
    }
    assert parsed.metadata == metadata


@pytest.mark.parametrize(
    ("tensors", "names"),
    [
        ({"emb_params": V}, {"": V}),
        ({"prompt_embeddings": V}, {"": V}),
        ({"clip_l": V, "clip_g": WIDE}, {"clip_l": V, "clip_g": WIDE}),
        ({"<fox>": V}, {"<fox>": V}),
        ({"<fox>": V[0].clone(), "<fox>_1": V[1].clone()}, {"<fox>": V[:2]}),
        ({"bundle_emb.fox.string_to_param.*": V, "lora_te.x": WIDE}, {"fox": V}),
        (
            {"bundle_emb.fox.clip_l": V, "bundle_emb.fox.clip_g": WIDE, "y": WIDE.clone()},
            {"fox clip_l": V, "fox clip_g": WIDE},
        ),
    ],
)
def test_safetensors_layouts_are_recognized_by_their_keys(
    tensors: dict[str, torch.Tensor], names: dict[str, torch.Tensor]
) -> None:
    parsed = parse_file(save_torch(tensors, {"format": "pt", "name": "fox", "modelspec.author": "me"}))
    assert {name: bits(array) for name, array in parsed.vectors.items()} == {
        name: bits(tensor_.numpy()) for name, tensor_ in names.items()
    }
    assert parsed.metadata == {"name": "fox", "modelspec.author": "me"}


@pytest.mark.parametrize("chunk_type", ["tEXt", "zTXt", "iTXt"])
def test_an_embedding_card_is_read_from_its_text_chunk(chunk_type: str) -> None:
    tensors = {"*": {"TORCHTENSOR": V.numpy().tolist()}}
    text = base64.b64encode(json.dumps(A1111 | {"string_to_param": tensors}).encode())
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    if chunk_type == "iTXt":
        info.add_itxt("sd-ti-embedding", text.decode(), zip=True)
    else:
        info.add_text("sd-ti-embedding", text, zip=chunk_type == "zTXt")
    Image.new("RGB", (512, 512)).save(file, "PNG", pnginfo=info)
    parsed = parse_file(file.getvalue())
    assert bits(parsed.vectors[""]) == bits(V.numpy())
    assert parsed.metadata == METADATA
    assert parsed.format == "AUTOMATIC1111 embedding card (PNG)"


@pytest.mark.parametrize("dtype", ["float32", "float16", "V2"])
def test_koboldai_zips_are_read(dtype: str) -> None:
    expected = V if dtype == "float32" else V.half() if dtype == "float16" else V.bfloat16()
    array = expected.view(torch.uint16).numpy().view("V2") if dtype == "V2" else expected.numpy()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression=zipfile.ZIP_LZMA) as archive, archive.open("tensor.npy", "w") as member:
        np.save(member, array, allow_pickle=False)
    with (
        zipfile.ZipFile(file, "a", compression=zipfile.ZIP_STORED) as archive,
        archive.open("meta.json", "w") as member,
    ):
        member.write(
            json.dumps(
                {"name": "Fox", "author": "me", "supported": ["a", "b"], "description": "red"}, indent=2
            ).encode()
        )
    parsed = parse_file(file.getvalue())
    assert bits(parsed.vectors[""]) == bits(expected.float().numpy())
    assert parsed.metadata == {"name": "Fox", "author": "me", "supported": "a, b", "description": "red"}


@pytest.mark.parametrize("array", [V.numpy(), np.asfortranarray(V.numpy()), V.half().numpy(), V.numpy()[0]])
def test_numpy_arrays_are_read_in_c_and_fortran_order(array: Any) -> None:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    assert bits(parse_file(file.getvalue()).vectors[""]) == bits(array.reshape(-1, 8))


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin"])
def test_a_peft_folder_is_read(weights: str, tmp_path: Path) -> None:
    metadata = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "gpt2",
        "num_virtual_tokens": 3,
        "token_dim": 8,
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(metadata | {"auto_mapping": None}))
    raw = (
        save_torch({"prompt_embeddings": V})
        if weights.endswith("safetensors")
        else torch_bytes({"prompt_embeddings": V}, False)
    )
    (tmp_path / weights).write_bytes(raw)
    parsed = read_soft_prompts(tmp_path)
    assert bits(parsed.vectors[""]) == bits(V.numpy())
    assert (parsed.metadata["checkpoint"], parsed.metadata["task_type"]) == ("gpt2", "CAUSAL_LM")


def test_all_finite_16_bit_values_are_exact() -> None:
    all_values = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    for dtype in (torch.float16, torch.bfloat16):
        numbers = all_values.view(dtype)
        numbers = numbers[numbers.float().isfinite()].reshape(-1, 256)
        for raw in (torch_bytes({"x": numbers}, False), torch_bytes({"x": numbers}, True), save_torch({"x": numbers})):
            assert bits(parse_file(raw).vectors["x"]) == bits(numbers.float().numpy())


def test_float32_is_exact_and_rounding_of_float64_is_recorded() -> None:
    numbers = np.random.default_rng(0).integers(0, 1 << 32, 4096, dtype=np.uint32).view(np.float32)
    numbers = numbers[np.isfinite(numbers)][:3840].reshape(-1, 256)
    assert bits(parse_file(save({"x": numbers})).vectors["x"]) == bits(numbers)
    parsed = parse_file(save({"x": np.full((1, 2), 0.1)}))
    assert parsed.metadata == {"rounded": "from float64 to float32"}
    assert bits(parsed.vectors["x"]) == bits(np.full((1, 2), 0.1, np.float32))


def test_files_of_this_program_keep_their_provenance_and_tensors() -> None:
    prompt = a_prompt(name="Fox", hidden={"sd1": 0.5}, source={"file": "a.pt"})
    entry = parse_file(pack(Entry("0123456789abcdef", 2, prompt, ("red",), "a note")))
    extra = {key: base64.b64encode(bits(getattr(prompt, key))).decode() for key in ("target", "losses", "similarities")}
    metadata = {"softprompt": json.dumps(prompt.as_dict()), "softprompt_tensors": json.dumps(extra)}
    export = parse_file(save({"emb_params": prompt.vectors}, metadata))
    for parsed in (entry, export):
        provenance = dict(parsed.provenance[""])
        provenance.pop("entry", None)
        assert provenance == json.loads(json.dumps(prompt.as_dict()))
        assert bits(parsed.vectors[""]) == bits(prompt.vectors)
        assert {key: bits(parsed.extra_tensors[""][key]) for key in extra} == {
            key: bits(getattr(prompt, key)) for key in extra
        }
    assert entry.provenance[""]["entry"] == {"id": "0123456789abcdef", "revision": 2, "tags": ["red"], "note": "a note"}


def test_files_are_recognized_by_content_and_not_by_name(tmp_path: Path) -> None:
    for name, raw in (
        ("fox.png", torch_bytes(A1111, False)),
        ("fox.safetensors", torch_bytes(A1111, True)),
        ("fox.pt", save_torch({"emb_params": V})),
    ):
        (tmp_path / name).write_bytes(raw)
        assert bits(read_soft_prompts(tmp_path / name).vectors[""]) == bits(V.numpy())
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "fox.pt")
    assert read_soft_prompts(linked).sha256 == read_soft_prompts(tmp_path / "fox.pt").sha256 != ""


def test_every_hostile_file_is_rejected_and_its_code_never_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    count = 0
    for name, raw in hostile_files.all_bytes(canary):
        with pytest.raises(FileRefused):
            print(name, parse_file(raw))
        count += 1
        assert not canary.exists(), name
    assert count >= 200


def test_unpickling_a_hostile_file_would_run_its_code(tmp_path: Path) -> None:
    """Prove that the test above can fail."""
    canary = tmp_path / "canary"
    programs = dict(hostile_files.pickle_programs(canary))
    program = programs["call-os.system"].replace(hostile_files.tensor(), b"N")
    pickle.loads(b"\x80\x02" + program + b".")
    assert canary.exists()


def test_pipes_devices_links_and_folders_are_rejected(tmp_path: Path) -> None:
    paths = hostile_files.special_files(tmp_path / "places")
    unreadable = [
        path for path in paths if path.name not in ("config-deep", "no-weights", "other-weights", "bin-is-text")
    ]
    for name, raw in hostile_files.refused_for_memory():
        unreadable.append(tmp_path / name)
        unreadable[-1].write_bytes(raw)
    for path in unreadable:
        with pytest.raises(FileRefused, match=r"cannot read .*Supported: "):
            print(path, read_soft_prompts(path))


PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><html><title>Sign in</title></html>"
FAILED_DOWNLOADS = {
    PAGE: "it is a web page, not the file itself. Download the file through its direct link",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>': "it is a web page",
    hostile_files.LFS_POINTER: "it is a Git LFS pointer, not the file itself. Run `git lfs pull`",
    b'{"error":"Unauthorized","message":"log in"}': "it is a website's error message",
    b"Invalid username or password.": "it contains only the text 'Invalid username or password.'",
}


@pytest.mark.parametrize("raw", FAILED_DOWNLOADS)
def test_a_failed_download_is_recognized(raw: bytes) -> None:
    with pytest.raises(FileRefused, match=re.escape(FAILED_DOWNLOADS[raw])):
        parse_file(raw)
    config = b'{"peft_type":"PROMPT_TUNING"}'
    for parts in (
        {"adapter_config.json": config, "adapter_model.safetensors": raw},
        {"adapter_config.json": config, "adapter_model.bin": raw},
    ):
        with pytest.raises(FileRefused, match=re.escape(FAILED_DOWNLOADS[raw])):
            parse_folder(parts)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"adapter_config.json": PAGE}, "it is a web page"),
        ({}, "has no adapter_config.json"),
        ({"adapter_config.json": b'{"peft_type":"LORA"}'}, "LORA"),
        ({"adapter_config.json": b'{"peft_type":"PROMPT_TUNING"}'}, "has neither adapter_model"),
        ({"adapter_config.json": b'{"peft_type":"PROMPT_TUNING"}', "adapter_model.bin": b"text"}, "not a torch file"),
        ({"adapter_config.json": b"[" * 100_000}, "RecursionError"),
    ],
)
def test_folders_other_than_peft_prompt_tuning_are_rejected(files: dict[str, bytes], message: str) -> None:
    with pytest.raises(FileRefused, match=message):
        parse_folder(files)


def test_an_error_names_the_file_the_reason_and_the_supported_files(tmp_path: Path) -> None:
    path = tmp_path / "style.json"
    path.write_bytes(b'{"metadata":{},"tensor":"gASV"}')
    with pytest.raises(FileRefused) as count:
        read_soft_prompts(path)
    assert str(count.value).startswith(f"cannot read {path}: it is JSON. mkultra soft prompts are JSON around a pickle")
    assert "Supported: AUTOMATIC1111, diffusers" in str(count.value)


def test_the_child_cannot_open_files_and_has_little_memory() -> None:
    code = (
        "from softprompt.formats.readers.sandbox_child import lock_down\nlock_down()\nimport resource\n"
        "for what in (lambda: open('/etc/passwd'), lambda: bytearray(2 << 30)):\n"
        "    try:\n        what()\n        print('done')\n"
        "    except (OSError, MemoryError) as error:\n        print(type(error).__name__)\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU)[1] < 10, resource.getrlimit(resource.RLIMIT_FSIZE))"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.split("\n")[:3] == ["OSError", "MemoryError", "True (0, 0)"]


def all_files() -> list[bytes]:
    """Return KoboldAI zips in all JSON encodings, and files of every supported and rejected kind."""
    codecs = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
    zips = [
        hostile_files.zipped(
            {"tensor.npy": hostile_files.npy(), "meta.json": '{"name": "Füchse"}'.encode(codec)}, packing
        )
        for codec, packing in zip(
            codecs, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA) * 2, strict=True
        )
    ]
    file_targets = [target for target in TARGETS.values() if target.parse is parse_file]
    other_files = (hostile_files.badly_named(), hostile_files.all_bytes(Path("canary")))
    short_files = [
        raw for files in other_files for _, raw in files if len(raw) < 50_000
    ]  # long files take seconds and run the same code
    return zips + [raw for target in file_targets for raw in target.seeds()] + short_files


def test_the_child_neither_imports_nor_opens_anything_after_lock_down() -> None:
    """A module that is missing from PRELOADED_MODULES would make the child reject good files."""
    code = (
        "import pickle, sys\nfrom softprompt.formats.readers import sandbox_child as child\n"
        "files = pickle.load(sys.stdin.buffer)\n"
        "child.MAX_CPU_SECONDS = 60\nchild.lock_down()\nevents, answers = [], []\n"
        "sys.addaudithook(lambda event, args: events.append(str(args[0])) if event in ('import', 'open') else None)\n"
        "for raw in files:\n    answers.append(child.answer(False, {'': raw})[0])\n"
        "print(events, [answer['refused'] for answer in answers if 'reader failed' in answer.get('refused', '')])\n"
        "print([answer.get('said') for answer in answers[:8]])"
    )
    files = pickle.dumps(all_files())
    completed = subprocess.run([sys.executable, "-c", code], input=files, capture_output=True, check=True)
    problems, zips, _ = completed.stdout.decode().split("\n")
    assert problems == "[] []"
    assert zips == str([{"name": "Füchse"}] * 8)


def test_a_child_that_takes_too_long_is_killed_and_its_file_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.safetensors").write_bytes(save_torch({"emb_params": V}))
    monkeypatch.setattr(sandbox, "TIMEOUT_SECONDS", 0.001)
    with pytest.raises(FileRefused, match="too much memory or time"):
        read_soft_prompts(tmp_path / "a.safetensors")


def head_bytes(**changes: object) -> bytes:
    head = {
        "format": "x",
        "said": {},
        "provenance": {},
        "named": False,
        "vectors": [["", [2, 4]]],
        "beside": {},
    } | changes
    raw = json.dumps(head).encode()
    return struct.pack("<Q", len(raw)) + raw


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff" * 8,
        head_bytes(),
        head_bytes() + bytes(28),
        head_bytes() + bytes(36),
        head_bytes(vectors=[]) + b"",
        head_bytes(vectors=[["", [8]]]) + bytes(32),
        head_bytes(vectors=[["", [-2, -4]]]) + bytes(32),
        head_bytes(vectors=[["", [2, 4]], ["", [0]]]) + bytes(32),
        head_bytes(vectors=[[1, [2, 4]]]) + bytes(32),
        head_bytes(said=[]) + bytes(32),
        head_bytes(format=1) + bytes(32),
        head_bytes(provenance=1) + bytes(32),
        head_bytes(named=1) + bytes(32),
        head_bytes(provenance={"": 1}, beside={"": []}) + bytes(32),
        head_bytes(provenance={"x": {}}, beside={"x": []}) + bytes(32),
        head_bytes(provenance={"": {}}) + bytes(32),
        head_bytes(beside={"": []}) + bytes(32),
        head_bytes(beside={"": [["a", [1]], ["a", [1]]]}, provenance={"": {}}) + bytes(40),
        head_bytes(beside=[]) + bytes(32),
        head_bytes(vectors=7) + bytes(32),
        head_bytes() + np.full(8, np.nan, "<f4").tobytes(),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 3) + b"{}{",
    ],
)
def test_a_forged_answer_of_the_child_is_rejected(answer: bytes) -> None:
    with pytest.raises(FileRefused):
        sandbox._parse_answer(answer, "")


def test_a_valid_answer_of_the_child_is_accepted() -> None:
    assert sandbox._parse_answer(head_bytes() + bytes(32), "abc").sha256 == "abc"
    assert len(_child_replies()) > 3


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_each_parser_survives_a_moment_of_fuzzing(name: str, tmp_path: Path) -> None:
    inputs, _, findings = fuzz(TARGETS[name], 0.15, random.randrange(1 << 30), tmp_path)
    assert inputs > 20
    assert findings == 0, [path.read_bytes() for path in tmp_path.iterdir()]
