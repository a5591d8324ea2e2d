"""Impossible jobs are rejected before a model is loaded. test_worker tests this for the worker, and test_cli_worker for
the commands.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import softprompt
from softprompt.config import HardConfig, TrainConfig, config_for
from softprompt.encoders.catalog import LOCAL_PREFIX
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.loading import load_encoder
from softprompt.errors import ConfigError, DeviceError, ModelRefused, ModelUnavailable, PromptTooLong
from softprompt.jobs.job import TrainJob
from softprompt.jobs.preflight import check_fits, known_model
from softprompt.prompts.lineage import WeightedText
from softprompt.training.trainer import sweep
from softprompt_tui.services.job_form import job_from_form
from softprompt_tui.state.settings import Form
from tests.conftest import FOX

FIELDS = {"tokens": "2", "steps": "20", "stop_at": "", "model": "mini", "device": "cpu", "contexts": "no"}


@pytest.mark.parametrize(
    ("call", "error_type", "message"),
    [
        (
            lambda _: load_encoder("no such model", "cpu", "x"),
            ConfigError,
            "precision is 'x'; it must be float32 or bfloat16",
        ),
        (lambda _: load_encoder("no such model", "cuda:²"), DeviceError, "device is 'cuda:²'"),
        (lambda _: load_encoder("no such model", "cuda:" + "9" * 5000), DeviceError, "device is 'cuda:999"),
        (lambda encoder: next(sweep(encoder, FOX, range(1, 10**30))), ConfigError, "it must have 1 to 64"),
        (lambda encoder: next(sweep(encoder, FOX, [10**30])), ConfigError, "from 1 to 4,096"),
        (lambda encoder: softprompt.train(encoder, FOX, tokens=76), ConfigError, "room for 75"),
        (lambda encoder: softprompt.train(encoder, "fox " * 80), PromptTooLong, "mini has room for 75"),
        (lambda _: job_from_form(Form(FOX, FIELDS), {"precision": "x"}), ConfigError, "precision is 'x'"),
        (lambda _: job_from_form(Form(FOX, FIELDS | {"device": "cuda:-1"}), {}), DeviceError, "device is 'cuda:-1'"),
    ],
)
def test_library_and_interface_reject_impossible_jobs(
    encoder: TextEncoder, call: Callable[[TextEncoder], object], error_type: type[Exception], message: str
) -> None:
    with pytest.raises(error_type, match=message):
        call(encoder)


def test_model_folder_is_checked_by_its_configuration_only(tmp_path: Path) -> None:
    """The folder has no weights: they are read only when the job runs."""

    def check(config: Any, tokens: int = 9, prompt: str = FOX) -> None:
        (tmp_path / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": {"text_cfg": config, "vision_cfg": {}}})
        )
        check_fits(TrainJob(prompt, TrainConfig(tokens=tokens), model=f"{LOCAL_PREFIX}{tmp_path}"))

    check({"context_length": 32}, 30, "fox " * 30)
    with pytest.raises(ConfigError, match=r"tokens is 31, but .* has room for 30"):
        check({"context_length": 32}, 31)
    with pytest.raises(PromptTooLong, match="the prompt has 31 tokens"):
        check({"context_length": 32}, prompt="fox " * 31)
    check(
        {"context_length": 32, "hf_tokenizer_name": "another/one"}, 32, "fox " * 300
    )  # its tokenizer may need fewer tokens
    with pytest.raises(ConfigError, match="tokens is 33"):
        check({"context_length": 32, "hf_tokenizer_name": "another/one"}, 33)
    with pytest.raises(ModelRefused, match="its text tower is the Hugging Face model roberta"):
        check({"hf_model_name": "roberta"})
    with pytest.raises(ModelRefused, match="context_length"):
        check({"context_length": "many"})
    with pytest.raises(ModelUnavailable, match="not an open_clip configuration"):
        check(7)


@pytest.mark.parametrize(
    "name", ["smollm2", "SMOLLM2-Q4", "hf:Qwen/Qwen3-0.6B", "model.gguf", "local-dir:/x/model.gguf"]
)
def test_a_job_for_a_language_model_is_checked_before_the_model_is_looked_for(name: str) -> None:
    config = config_for("causal", {})
    with pytest.raises(ConfigError, match=r"the objective is cosine, but .* is a language model"):
        check_fits(TrainJob(FOX, model=name))
    with pytest.raises(ModelRefused, match=r"is a language model, but a hard readout needs a text encoder"):
        check_fits(TrainJob(FOX, config, model=name, hard=HardConfig()))
    with pytest.raises(ModelRefused, match=r"is a language model, but a mix of prompts needs a text encoder"):
        check_fits(TrainJob(FOX, config, model=name, meanings=(WeightedText("a", 0.5), WeightedText("b", 0.5))))
    with pytest.raises(ConfigError, match="Use at least 2"):
        check_fits(TrainJob(FOX, replace(config, questions=("Who?",)), model=name))
    assert known_model(name) is None


def test_a_text_encoder_has_no_answers_to_distill() -> None:
    with pytest.raises(ConfigError, match=r"the objective is distill, .* mini is a text encoder"):
        check_fits(TrainJob(FOX, config_for("causal", {})))
