"""The worker's loaded models: text encoders and language models, each loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprompt.encoders.catalog import LANGUAGE_MODELS
from softprompt.errors import ModelRefused
from softprompt.worker import model_cache
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
    assert models.get("mini", "cpu") is models.get_encoder("MINI", "cpu")
    assert models.names() == [f"{name} on cpu", "mini on cpu"]
    models.release(everything=True)
    assert models.names() == []


@pytest.mark.parametrize("name", [*(info.name for info in LANGUAGE_MODELS), "hf:a/b", "a.gguf"])
def test_a_language_model_is_not_loaded_where_a_text_encoder_is_needed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_cache, "load_model", pytest.fail)
    with pytest.raises(ModelRefused, match=f"{name} is a language model, but this needs a text encoder"):
        ModelCache().get_encoder(name, "cpu")
