"""What is exported is read again, bit for bit, from every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softprompt.formats.readers.sandbox import read
from softprompt.formats.writers.exporter import export
from softprompt.formats.writers.programs import PROGRAMS
from softprompt.prompts.serialization import to_dict
from softprompt.prompts.soft_prompt import SoftPrompt
from tests.library_model import a_prompt

WHOLE = ("safetensors", "comfyui", "invokeai", "kohya", "diffusers")  # whose file has a place for provenance
TENSORS = ("target", "losses", "similarities")


def soft(width: int, name: str = "red fox") -> SoftPrompt:
    """Vectors with every kind of float32: the largest and the smallest, -0.0, and what has no short decimal."""
    vectors = np.random.default_rng(width).normal(0, 0.03, (4, width)).astype(np.float32)
    vectors[0, :5] = [np.float32(1e-45), -0.0, 3.0e38, 1 / 3, -1.1754942e-38]
    return a_prompt(name=name, vectors=vectors)


def written(path: Path, to: str) -> Path:
    return path.parent if to == "peft" else path


@pytest.mark.parametrize("to", PROGRAMS)
def test_the_same_bits_come_back(tmp_path: Path, to: str) -> None:
    prompt = soft(768)
    found = read(written(export(prompt, to, tmp_path).paths[0], to))
    (vectors,) = found.vectors.values()
    assert (vectors.dtype, vectors.shape) == (np.dtype("float32"), prompt.vectors.shape)
    assert vectors.tobytes() == prompt.vectors.tobytes()
    if to in WHOLE:
        assert found.provenance == {"": to_dict(prompt)}
        assert {name: found.beside[""][name].tobytes() for name in TENSORS} == {
            name: getattr(prompt, name).tobytes() for name in TENSORS
        }
    else:
        assert found.provenance == {}
        told = {str(value) for value in found.said.values()}
        assert to == "numpy" or "mini" in told
        assert to in ("numpy", "peft") or told & {"red fox", "red-fox"}


def test_a_pair_comes_back_as_two(tmp_path: Path) -> None:
    pair = soft(768), soft(1280, name="red fox g")
    found = read(export(pair[1], "comfyui", tmp_path, other=pair[0]).paths[0])
    assert {key: vectors.tobytes() for key, vectors in found.vectors.items()} == {
        "clip_l": pair[0].vectors.tobytes(),
        "clip_g": pair[1].vectors.tobytes(),
    }
    assert "red fox g on mini" in str(found.said)
