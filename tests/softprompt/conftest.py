"""Fixtures for the engine's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    """A random Llama of two layers with a chat template."""
    from softprompt.encoders.causal_lm.loading import load_causal_lm
    from tests.softprompt.encoders.causal_lm.tiny_models import save_model

    folder = save_model("Llama", tmp_path_factory.mktemp("llama"), CHATML, max_position_embeddings=512)
    return load_causal_lm(folder, "cpu")
