"""The worker's loaded models: text encoders and language models, each loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprompt.worker.model_cache import ModelCache
from tests.softprompt.encoders.causal_lm.tiny_models import save_model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("Llama", tmp_path_factory.mktemp("llama"))


def test_any_model_is_loaded_once(llama: Path) -> None:
    models = ModelCache()
    name = f"local-dir:{llama}"
    language_model = models.get(name, "cpu")
    assert models.get(str(llama), "cpu") is language_model  # another name for the same model
    assert models.has(name, "cpu")
    assert models.get("mini", "cpu") is models.get("MINI", "cpu")
    assert models.names() == [f"{name} on cpu", "mini on cpu"]
    models.release(everything=True)
    assert models.names() == []
