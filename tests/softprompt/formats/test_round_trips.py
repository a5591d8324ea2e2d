"""Every export format can be read again, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softprompt.formats.readers.sandbox import read_soft_prompts
from softprompt.formats.writers.exporter import export
from softprompt.formats.writers.programs import PROGRAMS
from softprompt.prompts.soft_prompt import SoftPrompt
from tests.library_model import a_prompt

WITH_PROVENANCE = ("safetensors", "comfyui", "invokeai", "kohya", "diffusers")  # formats that store provenance
EXTRA_TENSORS = ("target", "losses", "similarities")


def make_prompt(width: int, name: str = "red fox") -> SoftPrompt:
    """Return a soft prompt with special float32 values: very large and small ones, -0.0 and 1/3."""
    vectors = np.random.default_rng(width).normal(0, 0.03, (4, width)).astype(np.float32)
    vectors[0, :5] = [np.float32(1e-45), -0.0, 3.0e38, 1 / 3, -1.1754942e-38]
    return a_prompt(name=name, vectors=vectors)


def path_to_read(path: Path, to: str) -> Path:
    return path.parent if to == "peft" else path


@pytest.mark.parametrize("to", PROGRAMS)
def test_an_export_is_read_bit_for_bit(tmp_path: Path, to: str) -> None:
    prompt = make_prompt(768)
    parsed = read_soft_prompts(path_to_read(export(prompt, to, tmp_path).paths[0], to))
    (vectors,) = parsed.vectors.values()
    assert (vectors.dtype, vectors.shape) == (np.dtype("float32"), prompt.vectors.shape)
    assert vectors.tobytes() == prompt.vectors.tobytes()
    if to in WITH_PROVENANCE:
        assert parsed.provenance == {"": prompt.as_dict()}
        assert {name: parsed.extra_tensors[""][name].tobytes() for name in EXTRA_TENSORS} == {
            name: getattr(prompt, name).tobytes() for name in EXTRA_TENSORS
        }
    else:
        assert parsed.provenance == {}
        values = {str(value) for value in parsed.metadata.values()}
        assert to == "numpy" or "mini" in values
        assert to in ("numpy", "peft") or values & {"red fox", "red-fox"}


def test_a_pair_is_read_as_two_soft_prompts(tmp_path: Path) -> None:
    pair = make_prompt(768), make_prompt(1280, name="red fox g")
    parsed = read_soft_prompts(export(pair[1], "comfyui", tmp_path, other=pair[0]).paths[0])
    assert {key: vectors.tobytes() for key, vectors in parsed.vectors.items()} == {
        "clip_l": pair[0].vectors.tobytes(),
        "clip_g": pair[1].vectors.tobytes(),
    }
    assert "red fox g on mini" in str(parsed.metadata)
