"""Files of other programs: what is read of them, to the bit, and that nothing in them is ever run."""

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
from softprompt.formats.readers.detect import found_in_file, found_in_folder
from softprompt.formats.readers.sandbox import read
from softprompt.library.entry import Entry, pack
from softprompt.prompts.serialization import to_dict
from tests import hostile_files
from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import TARGETS, _answers
from tests.library_model import a_prompt

V = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
LEFT = torch.randn(3, 12, generator=torch.Generator().manual_seed(2))
A1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": V}, "name": "fox", "step": 300, "sd_checkpoint": "ab12", "sd_checkpoint_name": "sd15"}  # fmt: skip
SAID = {"name": "fox", "step": 300, "checkpoint_hash": "ab12", "checkpoint": "sd15"}


def bits(array: Any) -> bytes:
    return np.ascontiguousarray(array, "<f4").tobytes()


def saved(value: object, legacy: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def coop(context: torch.Tensor) -> dict[str, Any]:
    """A checkpoint as CoOp's trainer saves it: its schedule holds another one whole, with an optimizer in it."""
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
    held = schedule.state_dict() | {"successor": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)}
    return {
        "state_dict": learner.state_dict(),
        "epoch": 50,
        "optimizer": optimizer.state_dict(),
        "scheduler": held,
        "val_result": 71.5,
    }


SHARED, T5 = V.numpy(), torch.zeros(2, 4096)
CONTEXT, CLASSES = V.clone(), torch.stack([V, V + 1])
TORCH: dict[str, tuple[Callable[[], object], dict[str, torch.Tensor], dict[str, Any]]] = {
    "A1111": (lambda: A1111, {"": V}, SAID),
    "textual inversion's first": (
        lambda: {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(V)})},
        {"": V}, {},
    ),
    "SDXL": (lambda: {"clip_l": V, "clip_g": LEFT}, {"clip_l": V, "clip_g": LEFT}, {}),
    "diffusers": (lambda: {"<fox>": V[0]}, {"<fox>": V[:1]}, {}),
    "diffusers, several vectors": (lambda: {"<fox>": V}, {"<fox>": V}, {}),
    "diffusers, several keys": (lambda: {"<fox>_2": V[2], "<fox>": V[0], "<fox>_1": V[1]}, {"<fox>": V}, {}),
    "a tensor": (lambda: V, {"": V}, {}),
    "a parameter": (lambda: torch.nn.Parameter(V), {"": V}, {}),
    "a half": (lambda: {"x": V.half()}, {"x": V.half()}, {}),
    "bfloat16": (lambda: {"x": V.bfloat16()}, {"x": V.bfloat16()}, {}),
    "doubles that are floats": (lambda: {"x": V.double()}, {"x": V}, {}),
    "a part of a larger tensor": (lambda: {"x": torch.cat([LEFT, LEFT])[1:4]}, {"x": torch.cat([LEFT, LEFT])[1:4]}, {}),
    "turned": (lambda: {"x": V.T}, {"x": V.T}, {}),
    "ComfyUI's list": (lambda: [{"a": V[:1]}, {"b": V[1:]}], {"": V}, {}),
    "a leading 1": (lambda: {"x": V[None]}, {"x": V}, {}),
    "numpy": (lambda: {"x": V.numpy(), "step": np.int64(3), "rate": np.float64(0.5)}, {"x": V}, {"step": 3, "rate": 0.5}),
    "numpy, of A1111's layout": (lambda: A1111 | {"string_to_param": {"*": V.numpy()}}, {"": V}, SAID),
    "numpy, one array twice": (lambda: {"state_dict": {"ctx": SHARED, "copy": SHARED}}, {"": V}, {}),
    "numpy in Fortran's order": (lambda: np.asfortranarray(V.numpy()), {"": V}, {}),
    "numpy's halves with a leading 1": (lambda: {"x": V.half().numpy()[None]}, {"x": V.half()}, {}),
    "diffusers, several tokens": (lambda: {"<fox>": V, "<lake>": V[0], "step": 3}, {"<fox>": V, "<lake>": V[:1]}, {"step": 3}),
    "diffusers, several tokens of several keys": (
        lambda: {"<b>_1": V[1], "<a>": V[0], "<b>": V[0], "<b>_1_1": V[2], "<b>_2": V[2]}, {"<a>": V[:1], "<b>": V, "<b>_1_1": V[2:]}, {},
    ),
    "pivotal tuning's first": (lambda: {"text_encoders_0": V, "text_encoders_1": LEFT}, {"clip_l": V, "clip_g": LEFT}, {}),
    "pivotal tuning, one encoder": (lambda: {"text_encoders_0": V}, {"clip_l": V}, {}),
    "Flux": (lambda: {"clip_l": V, "t5": LEFT}, {"clip_l": V}, {"left out": "t5, which is for a T5 encoder"}),
    "Flux's first": (lambda: {"text_encoders_0": V, "text_encoders_1": T5}, {"clip_l": V}, {"left out": "t5, which is for a T5 encoder"}),
    "T5 alone": (lambda: {"t5": LEFT}, {"t5": LEFT}, {}),
    "Stable Diffusion 3": (
        lambda: {"t5xxl": V, "clip_g": LEFT, "clip_l": V, "x": 1}, {"clip_l": V, "clip_g": LEFT},
        {"left out": "t5xxl, which is for a T5 encoder; 1 other tensor of the file"},
    ),
    "CoOp": (lambda: coop(CONTEXT), {"": CONTEXT}, {"epoch": 50, "val_result": 71.5}),
    "CoOp, a context a class": (lambda: {"state_dict": {"ctx": CLASSES}, "epoch": 1}, {"class 1": V, "class 2": V + 1}, {"epoch": 1}),
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
@pytest.mark.parametrize("layout", TORCH)
def test_torch_files_are_read_to_the_bit_without_being_unpickled(layout: str, legacy: bool) -> None:
    make, vectors, said = TORCH[layout]
    found = found_in_file(saved(make(), legacy))
    assert {name: bits(array) for name, array in found.vectors.items()} == {
        name: bits(tensor.detach().float().numpy()) for name, tensor in vectors.items()
    }
    assert {name: array.shape for name, array in found.vectors.items()} == {
        name: tuple(tensor.shape) for name, tensor in vectors.items()
    }
    assert found.said == said


@pytest.mark.parametrize(
    ("tensors", "names"),
    [
        ({"emb_params": V}, {"": V}),
        ({"prompt_embeddings": V}, {"": V}),
        ({"clip_l": V, "clip_g": LEFT}, {"clip_l": V, "clip_g": LEFT}),
        ({"<fox>": V}, {"<fox>": V}),
        ({"<fox>": V[0].clone(), "<fox>_1": V[1].clone()}, {"<fox>": V[:2]}),
        ({"bundle_emb.fox.string_to_param.*": V, "lora_te.x": LEFT}, {"fox": V}),
        (
            {"bundle_emb.fox.clip_l": V, "bundle_emb.fox.clip_g": LEFT, "y": LEFT.clone()},
            {"fox clip_l": V, "fox clip_g": LEFT},
        ),
    ],
)
def test_safetensors_are_read_by_their_keys(tensors: dict[str, torch.Tensor], names: dict[str, torch.Tensor]) -> None:
    found = found_in_file(save_torch(tensors, {"format": "pt", "name": "fox", "modelspec.author": "me"}))
    assert {name: bits(array) for name, array in found.vectors.items()} == {
        name: bits(one.numpy()) for name, one in names.items()
    }
    assert found.said == {"name": "fox", "modelspec.author": "me"}


@pytest.mark.parametrize("how", ["tEXt", "zTXt", "iTXt"])
def test_an_embedding_card_is_read_from_its_text_chunk(how: str) -> None:
    tensors = {"*": {"TORCHTENSOR": V.numpy().tolist()}}
    text = base64.b64encode(json.dumps(A1111 | {"string_to_param": tensors}).encode())
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    if how == "iTXt":
        info.add_itxt("sd-ti-embedding", text.decode(), zip=True)
    else:
        info.add_text("sd-ti-embedding", text, zip=how == "zTXt")
    Image.new("RGB", (512, 512)).save(file, "PNG", pnginfo=info)
    found = found_in_file(file.getvalue())
    assert bits(found.vectors[""]) == bits(V.numpy())
    assert found.said == SAID
    assert found.format == "AUTOMATIC1111 embedding card (PNG)"


@pytest.mark.parametrize("kind", ["float32", "float16", "V2"])
def test_koboldai_zips_are_read_as_its_converter_writes_them(kind: str) -> None:
    wanted = V if kind == "float32" else V.half() if kind == "float16" else V.bfloat16()
    array = wanted.view(torch.uint16).numpy().view("V2") if kind == "V2" else wanted.numpy()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression=zipfile.ZIP_LZMA) as made, made.open("tensor.npy", "w") as member:
        np.save(member, array, allow_pickle=False)
    with zipfile.ZipFile(file, "a", compression=zipfile.ZIP_STORED) as made, made.open("meta.json", "w") as member:
        member.write(
            json.dumps(
                {"name": "Fox", "author": "me", "supported": ["a", "b"], "description": "red"}, indent=2
            ).encode()
        )
    found = found_in_file(file.getvalue())
    assert bits(found.vectors[""]) == bits(wanted.float().numpy())
    assert found.said == {"name": "Fox", "author": "me", "supported": "a, b", "description": "red"}


@pytest.mark.parametrize("array", [V.numpy(), np.asfortranarray(V.numpy()), V.half().numpy(), V.numpy()[0]])
def test_numpy_arrays_are_read_in_either_order(array: Any) -> None:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    assert bits(found_in_file(file.getvalue()).vectors[""]) == bits(array.reshape(-1, 8))


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin"])
def test_a_peft_folder_is_read(weights: str, tmp_path: Path) -> None:
    said = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "gpt2",
        "num_virtual_tokens": 3,
        "token_dim": 8,
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(said | {"auto_mapping": None}))
    raw = (
        save_torch({"prompt_embeddings": V})
        if weights.endswith("safetensors")
        else saved({"prompt_embeddings": V}, False)
    )
    (tmp_path / weights).write_bytes(raw)
    found = read(tmp_path)
    assert bits(found.vectors[""]) == bits(V.numpy())
    assert (found.said["checkpoint"], found.said["task_type"]) == ("gpt2", "CAUSAL_LM")


def test_every_finite_number_of_16_bits_keeps_its_value() -> None:
    every = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    for dtype in (torch.float16, torch.bfloat16):
        numbers = every.view(dtype)
        numbers = numbers[numbers.float().isfinite()].reshape(-1, 256)
        for raw in (saved({"x": numbers}, False), saved({"x": numbers}, True), save_torch({"x": numbers})):
            assert bits(found_in_file(raw).vectors["x"]) == bits(numbers.float().numpy())


def test_float32_keeps_every_bit_and_float64_says_what_it_lost() -> None:
    numbers = np.random.default_rng(0).integers(0, 1 << 32, 4096, dtype=np.uint32).view(np.float32)
    numbers = numbers[np.isfinite(numbers)][:3840].reshape(-1, 256)
    assert bits(found_in_file(save({"x": numbers})).vectors["x"]) == bits(numbers)
    found = found_in_file(save({"x": np.full((1, 2), 0.1)}))
    assert found.said == {"rounded": "from float64 to float32"}
    assert bits(found.vectors["x"]) == bits(np.full((1, 2), 0.1, np.float32))


def test_what_this_program_wrote_comes_back_with_everything() -> None:
    prompt = a_prompt(name="Fox", hidden={"sd1": 0.5}, source={"file": "a.pt"})
    entry = found_in_file(pack(Entry("0123456789abcdef", 2, prompt, ("red",), "a note")))
    beside = {
        key: base64.b64encode(bits(getattr(prompt, key))).decode() for key in ("target", "losses", "similarities")
    }
    metadata = {"softprompt": json.dumps(to_dict(prompt)), "softprompt_tensors": json.dumps(beside)}
    export = found_in_file(save({"emb_params": prompt.vectors}, metadata))
    for found in (entry, export):
        said = dict(found.provenance[""])
        said.pop("entry", None)
        assert said == json.loads(json.dumps(to_dict(prompt)))
        assert bits(found.vectors[""]) == bits(prompt.vectors)
        assert {key: bits(found.beside[""][key]) for key in beside} == {
            key: bits(getattr(prompt, key)) for key in beside
        }
    assert entry.provenance[""]["entry"] == {"id": "0123456789abcdef", "revision": 2, "tags": ["red"], "note": "a note"}


def test_files_are_known_by_what_is_in_them_and_not_by_their_names(tmp_path: Path) -> None:
    for name, raw in (
        ("fox.png", saved(A1111, False)),
        ("fox.safetensors", saved(A1111, True)),
        ("fox.pt", save_torch({"emb_params": V})),
    ):
        (tmp_path / name).write_bytes(raw)
        assert bits(read(tmp_path / name).vectors[""]) == bits(V.numpy())
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "fox.pt")
    assert read(linked).sha256 == read(tmp_path / "fox.pt").sha256 != ""


def test_no_hostile_file_is_read_and_no_code_in_one_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    refused = 0
    for name, raw in hostile_files.bytes_of_all(canary):
        with pytest.raises(FileRefused):
            print(name, found_in_file(raw))
        refused += 1
        assert not canary.exists(), name
    assert refused >= 200


def test_the_hostile_code_would_run_if_it_were_unpickled(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    canary = tmp_path / "canary"
    programs = dict(hostile_files.programs(canary))
    program = programs["call-os.system"].replace(hostile_files.tensor(), b"N")
    pickle.loads(b"\x80\x02" + program + b".")
    assert canary.exists()


def test_pipes_devices_links_and_folders_are_refused_through_the_child_too(tmp_path: Path) -> None:
    paths = hostile_files.places(tmp_path / "places")
    some = [path for path in paths if path.name not in ("config-deep", "no-weights", "other-weights", "bin-is-text")]
    for name, raw in hostile_files.refused_for_memory():
        some.append(tmp_path / name)
        some[-1].write_bytes(raw)
    for path in some:
        with pytest.raises(FileRefused, match=r"is not read: .*What is read: "):
            print(path, read(path))


PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><html><title>Sign in</title></html>"
INSTEAD = {
    PAGE: "it is a web page, and not the file itself: the download went wrong",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>': "it is a web page",
    hostile_files.POINTER: "it is a Git LFS pointer, and not the file itself: run `git lfs pull`",
    b'{"error":"Unauthorized","message":"log in"}': "it is a site's error message",
    b"Invalid username or password.": "it is the text 'Invalid username or password.'",
}


@pytest.mark.parametrize("raw", INSTEAD)
def test_what_a_site_or_git_left_in_a_files_place_is_named(raw: bytes) -> None:
    with pytest.raises(FileRefused, match=re.escape(INSTEAD[raw])):
        found_in_file(raw)
    config = b'{"peft_type":"PROMPT_TUNING"}'
    for parts in (
        {"adapter_config.json": config, "adapter_model.safetensors": raw},
        {"adapter_config.json": config, "adapter_model.bin": raw},
    ):
        with pytest.raises(FileRefused, match=re.escape(INSTEAD[raw])):
            found_in_folder(parts)


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        ({"adapter_config.json": PAGE}, "it is a web page"),
        ({}, "without adapter_config.json"),
        ({"adapter_config.json": b'{"peft_type":"LORA"}'}, "LORA"),
        ({"adapter_config.json": b'{"peft_type":"PROMPT_TUNING"}'}, "without adapter_model"),
        ({"adapter_config.json": b'{"peft_type":"PROMPT_TUNING"}', "adapter_model.bin": b"text"}, "no file of torch"),
        ({"adapter_config.json": b"[" * 100_000}, "RecursionError"),
    ],
)
def test_folders_that_are_not_pefts_are_refused(files: dict[str, bytes], wrong: str) -> None:
    with pytest.raises(FileRefused, match=wrong):
        found_in_folder(files)


def test_a_refusal_says_what_it_is_and_why_and_what_would_be_read(tmp_path: Path) -> None:
    path = tmp_path / "style.json"
    path.write_bytes(b'{"metadata":{},"tensor":"gASV"}')
    with pytest.raises(FileRefused) as refused:
        read(path)
    assert str(refused.value).startswith(
        f"{path} is not read: it is JSON. mkultra's soft prompts are JSON around a pickle"
    )
    assert "What is read: embeddings of AUTOMATIC1111" in str(refused.value)


def test_the_child_can_open_nothing_and_has_little_memory() -> None:
    code = (
        "from softprompt.formats.readers.sandbox_child import lock_up\nlock_up()\nimport resource\n"
        "for what in (lambda: open('/etc/passwd'), lambda: bytearray(2 << 30)):\n"
        "    try:\n        what()\n        print('done')\n"
        "    except (OSError, MemoryError) as error:\n        print(type(error).__name__)\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU)[1] < 10, resource.getrlimit(resource.RLIMIT_FSIZE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["OSError", "MemoryError", "True (0, 0)"]


def every_kind() -> list[bytes]:
    """Files of every kind that is read, and of every kind that is refused; a KoboldAI zip in every encoding that JSON has."""
    codecs = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
    zips = [
        hostile_files.zipped(
            {"tensor.npy": hostile_files.npy(), "meta.json": '{"name": "Füchse"}'.encode(codec)}, packing
        )
        for codec, packing in zip(
            codecs, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA) * 2, strict=True
        )
    ]
    read_by_one = [target for target in TARGETS.values() if target.parse is found_in_file]
    others = (hostile_files.named_badly(), hostile_files.bytes_of_all(Path("canary")))
    short = [
        raw for files in others for _, raw in files if len(raw) < 50_000
    ]  # the long ones take seconds, in the same code
    return zips + [raw for target in read_by_one for raw in target.seeds()] + short


def test_the_child_imports_and_opens_nothing_once_it_is_locked_up() -> None:
    """What a reader needs has to be imported before: later it cannot be, and the file would be refused for that."""
    code = (
        "import pickle, sys\nfrom softprompt.formats.readers import sandbox_child as child\nfiles = pickle.load(sys.stdin.buffer)\n"
        "child.SECONDS = 60\nchild.lock_up()\nevents, answers = [], []\n"
        "sys.addaudithook(lambda event, args: events.append(str(args[0])) if event in ('import', 'open') else None)\n"
        "for raw in files:\n    answers.append(child.answer(False, {'': raw})[0])\n"
        "print(events, [answer['refused'] for answer in answers if 'reader failed' in answer.get('refused', '')])\n"
        "print([answer.get('said') for answer in answers[:8]])"
    )
    files = pickle.dumps(every_kind())
    done = subprocess.run([sys.executable, "-c", code], input=files, capture_output=True, check=True)
    problems, zips, _ = done.stdout.decode().split("\n")
    assert problems == "[] []"
    assert zips == str([{"name": "Füchse"}] * 8)


def test_a_child_that_takes_too_long_is_ended_and_its_file_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.safetensors").write_bytes(save_torch({"emb_params": V}))
    monkeypatch.setattr(sandbox, "WALL", 0.001)
    with pytest.raises(FileRefused, match="more memory or time"):
        read(tmp_path / "a.safetensors")


def _head(**changes: object) -> bytes:
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
        b"", b"\xff" * 8, _head(), _head() + bytes(28), _head() + bytes(36), _head(vectors=[]) + b"", _head(vectors=[["", [8]]]) + bytes(32),
        _head(vectors=[["", [-2, -4]]]) + bytes(32), _head(vectors=[["", [2, 4]], ["", [0]]]) + bytes(32), _head(vectors=[[1, [2, 4]]]) + bytes(32),
        _head(said=[]) + bytes(32), _head(format=1) + bytes(32), _head(provenance=1) + bytes(32), _head(named=1) + bytes(32), _head(provenance={"": 1}, beside={"": []}) + bytes(32),
        _head(provenance={"x": {}}, beside={"x": []}) + bytes(32), _head(provenance={"": {}}) + bytes(32), _head(beside={"": []}) + bytes(32),
        _head(beside={"": [["a", [1]], ["a", [1]]]}, provenance={"": {}}) + bytes(40), _head(beside=[]) + bytes(32), _head(vectors=7) + bytes(32),
        _head() + np.full(8, np.nan, "<f4").tobytes(), struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 3) + b"{}{",
    ],
)  # fmt: skip
def test_an_answer_that_a_hostile_file_could_have_made_is_checked_again(answer: bytes) -> None:
    with pytest.raises(FileRefused):
        sandbox._checked(answer, "")


def test_an_answer_as_it_should_be_is_taken() -> None:
    assert sandbox._checked(_head() + bytes(32), "abc").sha256 == "abc"
    assert len(_answers()) > 3


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_each_parser_stands_a_moment_of_fuzzing(name: str, tmp_path: Path) -> None:
    inputs, _, findings = fuzz(TARGETS[name], 0.15, random.randrange(1 << 30), tmp_path)
    assert inputs > 20
    assert findings == 0, [path.read_bytes() for path in tmp_path.iterdir()]
