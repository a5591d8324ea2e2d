"""A soft prompt is a value: it can be saved, loaded, compared, copied and used as an array."""

from __future__ import annotations

import copy
import math
import os
import pickle
import stat
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save

from softprompt import Library, SoftPrompt
from softprompt.errors import ExportRefused, FileInTheWay, FileRefused, MissingPackage, PromptError
from softprompt.formats.importer import import_files
from softprompt.formats.writers.encode import safetensors_pair
from softprompt.formats.writers.exporter import export
from softprompt.prompts.lineage import Ancestor, WeightedText
from softprompt.prompts.results import HardReadout
from tests.library_model import NUMBERS, a_prompt

ARRAYS = ("vectors", "target", "losses", "similarities")


def a_full_prompt(**changes: Any) -> SoftPrompt:
    """Return a soft prompt with a value in every field."""
    values: dict[str, Any] = {
        "name": "fox",
        "device": "cpu, float32",
        "hidden": {"sd1": 0.9, "sdxl": 0.8},
        "ancestry": (Ancestor("mixed", "ab" * 8, "lake", "a lake", "mini", "abc", 0.25),),
        "source": {"file": "fox.pt", "step": 3, "rate": 0.1, "rounded": None},
        "meanings": (WeightedText("a fox", 0.75), WeightedText("a lake", 0.25)),
        "hard": HardReadout("fox snow", 2, 0.7, None, "exchange", 10, 1.5),
        "config": {"tokens": 2, "rate": 0.1, "contexts": ["{} at night"], "stop_at": None},
    }
    return a_prompt(**values | changes)


# files


def test_a_saved_prompt_loads_without_losing_a_bit(tmp_path: Path) -> None:
    extremes = np.array([[-0.0, 1e-45, np.finfo(np.float32).max, 1 / 3]], np.float32)
    unknown = a_prompt(
        hard_prompt="", model="", similarity=None, composition=None, loss=None, readout=(), steps=0, seconds=0.0,
        target=NUMBERS[:0], losses=NUMBERS[:0], similarities=NUMBERS[:0],
    )  # fmt: skip
    for i, prompt in enumerate((a_full_prompt(), a_full_prompt(vectors=extremes), unknown)):
        path = prompt.save(tmp_path / f"{i}.safetensors")
        again = SoftPrompt.load(path)
        assert again == prompt
        assert [getattr(again, name).tobytes() for name in ARRAYS] == [
            getattr(prompt, name).tobytes() for name in ARRAYS
        ]
        assert not again.vectors.flags.writeable


def test_a_file_is_the_same_as_an_export_and_other_programs_read_it(tmp_path: Path) -> None:
    prompt = a_full_prompt()
    path = prompt.save(str(tmp_path / "fox.safetensors"))
    (exported,) = export(prompt, "safetensors", tmp_path / "export.safetensors").paths
    assert SoftPrompt.load(exported) == SoftPrompt.load(path) == prompt
    assert len(exported.read_bytes()) == len(path.read_bytes())  # the order of the metadata varies
    assert list(load_file(path)) == ["emb_params"]
    np.testing.assert_array_equal(load_file(path)["emb_params"], prompt.vectors)
    (imported,) = import_files(Library(), [path]).imported
    assert imported.entry.prompt == prompt


def test_an_old_export_loads() -> None:
    path = Path(__file__).parents[2] / "old_files/exports/safetensors/fox.safetensors"
    assert SoftPrompt.load(path).name == "fox"


def test_a_file_is_written_completely_with_the_permissions_of_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        path = a_prompt().save(tmp_path / "fox.safetensors")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_save_replaces_a_file_only_on_request_and_never_anything_else(tmp_path: Path) -> None:
    first, second = a_prompt(name="first"), a_prompt(name="second")
    path = first.save(tmp_path / "fox.safetensors")
    with pytest.raises(FileInTheWay, match=r"already exists\. Use overwrite=True"):
        second.save(path)
    assert SoftPrompt.load(path) == first
    assert SoftPrompt.load(second.save(path, overwrite=True)) == second
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "linked.safetensors").symlink_to(tmp_path / "pipe.safetensors")
    for name, reason in (
        ("pipe.safetensors", "not a regular file"),
        ("linked.safetensors", "not a regular file"),
        ("folder.safetensors", "is a folder"),
        ("", "is a folder"),
        ("none/fox.safetensors", "No such file or directory"),
        ("fox.pt", r"must end in \.safetensors\. Use fox\.safetensors"),
        ("fox", r"must end in \.safetensors\. Use fox\.safetensors"),
        ("x" * 300 + ".safetensors", "File name too long"),
    ):
        with pytest.raises(ExportRefused, match=reason) as caught:
            second.save(tmp_path / name, overwrite=True)
        assert "\n" not in str(caught.value)
    assert stat.S_ISFIFO((tmp_path / "pipe.safetensors").stat().st_mode)
    assert (tmp_path / "linked.safetensors").is_symlink()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"similarity": math.nan}, "similarity is nan"),
        ({"losses": np.full(5, np.nan, np.float32)}, "finite"),
        ({"config": {"rate": np.float32(0.5)}}, r"config\.rate"),
        ({"source": {"note": "x" * 5000}}, "source"),
    ],
)
def test_a_prompt_that_a_file_cannot_hold_is_not_saved(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ExportRefused, match=f"cannot save .*{reason}") as caught:
        a_full_prompt(**changes).save(tmp_path / "fox.safetensors")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_text_that_is_not_utf_8_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="the hard prompt of this soft prompt is not valid UTF-8"):
        a_prompt(hard_prompt="fox \udc80").save(tmp_path / "fox.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_no_changed_byte_changes_a_prompt_unnoticed(tmp_path: Path) -> None:
    """Bytes that other programs read, such as the name of the tensor, may change. The soft prompt may not."""
    prompt = a_prompt(warnings=(), readout=(), composition=None, target=NUMBERS[:1])
    path = prompt.save(tmp_path / "fox.safetensors")
    raw = path.read_bytes()
    refused = 0
    for i in range(len(raw)):
        path.write_bytes(raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :])
        try:
            assert SoftPrompt.load(path) == prompt
        except FileRefused:
            refused += 1
        path.write_bytes(raw[:i])
        with pytest.raises(FileRefused):
            SoftPrompt.load(path)
    assert refused > 0.9 * len(raw)


def test_load_refuses_other_files_in_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    library = Library()
    half = a_prompt(vectors=np.ones((2, 768), np.float32)), a_prompt(vectors=np.ones((2, 1280), np.float32))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 40)
    for name, data in {
        "empty": b"",
        "pickle": pickle.dumps(print),
        "text": b"a red fox",
        "other": save({"emb_params": np.ones((1, 4), np.float32)}),
        "pair": safetensors_pair(*half),
        "entry": library.path(library.save(a_prompt()).id, 1).read_bytes(),
        "header": (1 << 50).to_bytes(8, "little") + b"{}" * 9,
    }.items():
        (tmp_path / name).write_bytes(data)
    for path in (*tmp_path.iterdir(), tmp_path / "missing", tmp_path / ("x" * 300)):
        with pytest.raises(FileRefused, match=r"import_files|Check the path|SoftPrompt\.save") as caught:
            SoftPrompt.load(path)
        assert "\n" not in str(caught.value)


# arrays


def test_a_prompt_is_its_vectors_for_numpy_and_torch() -> None:
    prompt = a_prompt()
    assert len(prompt) == prompt.tokens == 2
    assert np.shares_memory(np.asarray(prompt), prompt.vectors)
    assert np.asarray(prompt, dtype=np.float64).dtype == np.float64
    assert np.array(prompt).flags.writeable
    for convert in (torch.as_tensor, torch.asarray, torch.tensor, torch.from_dlpack):
        tensor = convert(prompt)
        assert tensor.tolist() == prompt.vectors.tolist()
        tensor += 1
    assert prompt == a_prompt(created=prompt.created)


def test_arrays_are_read_only_and_independent_of_the_caller() -> None:
    mine = {name: np.array(getattr(a_prompt(), name)) for name in ARRAYS}
    prompt = a_prompt(**mine)
    view = mine["target"][:]
    view.flags.writeable = False
    viewing = a_prompt(target=view)
    before = [getattr(prompt, name).copy() for name in ARRAYS]
    for array in mine.values():
        array += 1
    copies = prompt.named("a"), copy.copy(prompt), copy.deepcopy(prompt), pickle.loads(pickle.dumps(prompt))
    for other in (prompt, *copies):
        assert not any(getattr(other, name).flags.writeable for name in ARRAYS)
        for name, values in zip(ARRAYS, before, strict=True):
            np.testing.assert_array_equal(getattr(other, name), values)
            with pytest.raises(ValueError, match="read-only"):
                getattr(other, name)[...] = 0
    assert viewing.target.tolist() == before[1].tolist()


def test_read_only_arrays_are_shared_and_other_floats_become_float32() -> None:
    prompt = a_prompt()
    assert all(getattr(prompt.named("b"), name) is getattr(prompt, name) for name in ARRAYS)
    assert a_prompt(vectors=np.ones((2, 4))).vectors.dtype == np.float32
    assert a_prompt(vectors=torch.ones(2, 4)).vectors.tolist() == [[1.0] * 4] * 2


# values


def test_prompts_are_equal_if_all_their_fields_are() -> None:
    prompt = a_full_prompt(created="2026-01-01T00:00:00+00:00")
    same = a_full_prompt(created="2026-01-01T00:00:00+00:00")
    assert prompt == same
    assert hash(prompt) == hash(same)
    assert len({prompt, same, copy.deepcopy(prompt), pickle.loads(pickle.dumps(prompt))}) == 1
    for field in fields(SoftPrompt):
        value = getattr(prompt, field.name)
        other = value + 1 if isinstance(value, np.ndarray) else None if value is not None else "x"
        changed = replace(prompt)
        changed.__dict__[field.name] = other  # of another type, which the constructor refuses
        assert changed != prompt, field.name
    assert prompt != "a red fox"
    assert prompt != prompt.vectors.tolist()


def test_nan_equals_nan_and_zeros_are_equal() -> None:
    created, nan = "2026-01-01T00:00:00+00:00", np.float32(np.nan)
    first, second = (
        a_prompt(created=created, loss=math.nan * sign, losses=np.full(5, nan), target=np.zeros(3) * sign)
        for sign in (1, -1)
    )
    assert first == second
    assert hash(first) == hash(second)
    assert first != a_prompt(created=created, loss=0.0, losses=np.full(5, nan), target=np.zeros(3))


# other packages


def test_the_curve_is_a_table_and_a_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    prompt = a_prompt(hard_prompt="a $ fox_{", losses=np.geomspace(1, 1e-3, 5, dtype=np.float32))
    table = prompt.to_dataframe()
    assert list(table.columns) == ["step", "loss", "similarity"]
    assert table["step"].tolist() == [1, 2, 3, 4, 5]
    assert table["loss"].tolist() == prompt.losses.tolist()
    ax = prompt.plot()
    assert ax.get_yscale() == "log"
    assert ax.lines[0].get_ydata().tolist() == prompt.losses.tolist()
    assert prompt.plot(ax) is ax
    a_prompt(name="fox", losses=NUMBERS[:0], similarities=NUMBERS[:0]).plot().figure.canvas.draw()
    ax.figure.canvas.draw()
    assert a_prompt(hard_prompt="fox \x1b[31m").plot().get_title() == "fox ␛[31m"
    pyplot.close("all")
    for package, call in (("pandas", prompt.to_dataframe), ("matplotlib", prompt.plot)):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingPackage, match=rf"Run `pip install {package}`\.$"):
            call()
