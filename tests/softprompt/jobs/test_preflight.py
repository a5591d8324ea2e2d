"""What no training can do is refused before anything is loaded, by the library as by the worker (test_worker) and the commands (test_cli_worker)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import softprompt
from softprompt.config import TrainConfig
from softprompt.encoders.catalog import LOCAL
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.loading import load_encoder
from softprompt.errors import ConfigError, DeviceError, ModelRefused, ModelUnavailable, PromptTooLong
from softprompt.jobs.job import TrainJob
from softprompt.jobs.preflight import check_fits
from softprompt.training.trainer import sweep
from softprompt_tui.services.job_form import job_from_form
from softprompt_tui.state.settings import Form
from tests.conftest import FOX

FIELDS = {"tokens": "2", "steps": "20", "stop_at": "", "model": "mini", "device": "cpu", "contexts": "no"}


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (
            lambda _: load_encoder("no such model", "cpu", "x"),
            ConfigError,
            "precision is 'x'; it can be float32 or bfloat16",
        ),
        (lambda _: load_encoder("no such model", "cuda:²"), DeviceError, "device is 'cuda:²'"),
        (lambda _: load_encoder("no such model", "cuda:" + "9" * 5000), DeviceError, "device is 'cuda:999"),
        (lambda encoder: next(sweep(encoder, FOX, range(1, 10**30))), ConfigError, "from 1 to 64 of them"),
        (lambda encoder: next(sweep(encoder, FOX, [10**30])), ConfigError, "from 1 to 4,096"),
        (lambda encoder: softprompt.train(encoder, FOX, tokens=76), ConfigError, "room for 1 to 75"),
        (lambda encoder: softprompt.train(encoder, "fox " * 80), PromptTooLong, "mini takes 75"),
        (lambda _: job_from_form(Form(FOX, FIELDS), {"precision": "x"}), ConfigError, "precision is 'x'"),
        (lambda _: job_from_form(Form(FOX, FIELDS | {"device": "cuda:-1"}), {}), DeviceError, "device is 'cuda:-1'"),
    ],
)
def test_the_library_and_the_interface_refuse_it(
    encoder: TextEncoder, call: Callable[[TextEncoder], object], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        call(encoder)


def test_of_a_folder_what_its_configuration_tells_is_checked_and_nothing_else(tmp_path: Path) -> None:
    """Without weights, which are read when its turn comes."""

    def check(config: Any, tokens: int = 9, prompt: str = FOX) -> None:
        (tmp_path / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": {"text_cfg": config, "vision_cfg": {}}})
        )
        check_fits(TrainJob(prompt, TrainConfig(tokens=tokens), model=f"{LOCAL}{tmp_path}"))

    check({"context_length": 32}, 30, "fox " * 30)
    with pytest.raises(ConfigError, match=r"tokens is 31; .* has room for 1 to 30"):
        check({"context_length": 32}, 31)
    with pytest.raises(PromptTooLong, match="the prompt has 31 tokens"):
        check({"context_length": 32}, prompt="fox " * 31)
    check({"context_length": 32, "hf_tokenizer_name": "another/one"}, 32, "fox " * 300)  # its tokenizer may need fewer
    with pytest.raises(ConfigError, match="tokens is 33"):
        check({"context_length": 32, "hf_tokenizer_name": "another/one"}, 33)
    with pytest.raises(ModelRefused, match="its text tower is the Hugging Face model roberta"):
        check({"hf_model_name": "roberta"})
    with pytest.raises(ModelRefused, match="context_length"):
        check({"context_length": "many"})
    with pytest.raises(ModelUnavailable, match="not an open_clip configuration"):
        check(7)
