"""Soft prompts for CLIP text encoders: a few trained token embeddings that mean the same as a long prompt.

    encoder = softprompt.load_encoder("mini")
    prompt = softprompt.train(encoder, "image of serene landscape at sunrise", tokens=3)
    softprompt.Library().save(prompt)

Train: train, iter_train, train_batch, iter_batch, sweep, tune, port. Settings: TrainConfig, TrainSettings.
Measure: grade, read_out. Find real words: find_hard. Use as words: compose.
Keep: Library, SoftPrompt.save, SoftPrompt.load. Other programs: export, import_files, assign.
Models: load_encoder, load_causal_lm, list_models. All errors are SoftPromptErrors.

Importing this package is cheap: it imports torch only when a function needs it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from softprompt.system.lazy import lazy_names

if TYPE_CHECKING:
    from softprompt.api.batch import iter_batch, train_batch
    from softprompt.api.compose import Composition, compose
    from softprompt.api.files import assign, export, import_files
    from softprompt.api.hard import find_hard
    from softprompt.api.measures import grade, read_out
    from softprompt.api.models import list_models, load_causal_lm, load_encoder
    from softprompt.api.training import Sweep, iter_train, port, sweep, train, tune
    from softprompt.batches.results import BatchProgress, Result
    from softprompt.config import HardConfig, HardSettings, TrainConfig, TrainSettings
    from softprompt.discrete import HardReport
    from softprompt.encoders.catalog import ModelInfo
    from softprompt.encoders.causal_lm.model import CausalLM
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.errors import (
        ArchiveError,
        ArgumentError,
        BadName,
        ConfigError,
        DeviceError,
        EntryChanged,
        EntryDamaged,
        EntryNotFound,
        EntryRefused,
        ExportRefused,
        FileInTheWay,
        FileRefused,
        HomeError,
        LibraryError,
        MissingPackage,
        ModelRefused,
        ModelUnavailable,
        PromptError,
        PromptTooLong,
        RunRefused,
        SoftPromptError,
        TemplateError,
        UnknownModel,
    )
    from softprompt.formats.importer import ImportReport, ImportResult
    from softprompt.formats.writers.exporter import ExportResult
    from softprompt.library import EntryPage, EntrySummary, Library
    from softprompt.library.backup import BackupReport
    from softprompt.library.entry import Entry
    from softprompt.library.verify import CheckReport
    from softprompt.objectives.base import HardPrompt
    from softprompt.prompts.lineage import Ancestor, WeightedText
    from softprompt.prompts.results import (
        AnswerFidelity,
        AnswerSample,
        AnswerScore,
        ContextFidelity,
        ContextScore,
        ExampleFidelity,
        ExampleSample,
        ExampleScore,
        ExampleSource,
        HardReadout,
        Neighbour,
        ReadoutToken,
    )
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.errors import StateLost, TrainingFailed
    from softprompt.training.loop import Report
    from softprompt.training.task import TrainingState
    from softprompt.training.token_sweep import SweepReport

    __version__: str

__all__ = [
    "Ancestor", "AnswerFidelity", "AnswerSample", "AnswerScore", "ArchiveError", "ArgumentError", "BackupReport",
    "BadName", "BatchProgress", "CausalLM", "CheckReport", "Composition", "ConfigError", "ContextFidelity",
    "ContextScore", "DeviceError", "Entry", "EntryChanged", "EntryDamaged", "EntryNotFound", "EntryPage",
    "EntryRefused", "EntrySummary", "ExampleFidelity", "ExampleSample", "ExampleScore", "ExampleSource",
    "ExportRefused", "ExportResult", "FileInTheWay", "FileRefused", "HardConfig", "HardPrompt", "HardReadout",
    "HardReport", "HardSettings", "HomeError", "ImportReport", "ImportResult", "Library", "LibraryError",
    "MissingPackage", "ModelInfo", "ModelRefused", "ModelUnavailable", "Neighbour", "PromptError", "PromptTooLong",
    "ReadoutToken", "Report", "Result", "RunRefused", "SoftPrompt", "SoftPromptError", "StateLost", "Sweep",
    "SweepReport", "TemplateError", "TextEncoder", "TrainConfig", "TrainSettings", "TrainingFailed", "TrainingState",
    "UnknownModel", "WeightedText", "__version__", "assign", "compose", "export", "find_hard", "grade", "import_files",
    "iter_batch", "iter_train", "list_models", "load_causal_lm", "load_encoder", "port", "read_out", "sweep", "train",
    "train_batch", "tune",
]  # fmt: skip

# without a handler of the caller's, Python would print warnings on stderr
logging.getLogger(__name__).addHandler(logging.NullHandler())

if not TYPE_CHECKING:
    _ERRORS = (
        "ArchiveError", "ArgumentError", "BadName", "ConfigError", "DeviceError", "EntryChanged", "EntryDamaged",
        "EntryNotFound", "EntryRefused", "ExportRefused", "FileInTheWay", "FileRefused", "HomeError", "LibraryError",
        "MissingPackage", "ModelRefused", "ModelUnavailable", "PromptError", "PromptTooLong", "RunRefused",
        "SoftPromptError", "TemplateError", "UnknownModel",
    )  # fmt: skip
    _MODULES = dict.fromkeys(_ERRORS, "errors") | {
        "Ancestor": "prompts.lineage",
        "AnswerFidelity": "prompts.results",
        "AnswerSample": "prompts.results",
        "AnswerScore": "prompts.results",
        "BackupReport": "library.backup",
        "BatchProgress": "batches.results",
        "CausalLM": "encoders.causal_lm.model",
        "CheckReport": "library.verify",
        "Composition": "api.compose",
        "ContextFidelity": "prompts.results",
        "ContextScore": "prompts.results",
        "Entry": "library.entry",
        "EntryPage": "library",
        "EntrySummary": "library",
        "ExampleFidelity": "prompts.results",
        "ExampleSample": "prompts.results",
        "ExampleScore": "prompts.results",
        "ExampleSource": "prompts.results",
        "ExportResult": "formats.writers.exporter",
        "HardConfig": "config",
        "HardPrompt": "objectives.base",
        "HardReadout": "prompts.results",
        "HardReport": "discrete",
        "HardSettings": "config",
        "ImportReport": "formats.importer",
        "ImportResult": "formats.importer",
        "Library": "library",
        "ModelInfo": "encoders.catalog",
        "Neighbour": "prompts.results",
        "ReadoutToken": "prompts.results",
        "Report": "training.loop",
        "Result": "batches.results",
        "SoftPrompt": "prompts.soft_prompt",
        "StateLost": "training.errors",
        "Sweep": "api.training",
        "SweepReport": "training.token_sweep",
        "TextEncoder": "encoders.clip.text_encoder",
        "TrainConfig": "config",
        "TrainSettings": "config",
        "TrainingFailed": "training.errors",
        "TrainingState": "training.task",
        "WeightedText": "prompts.lineage",
        "assign": "api.files",
        "compose": "api.compose",
        "export": "api.files",
        "find_hard": "api.hard",
        "grade": "api.measures",
        "import_files": "api.files",
        "iter_batch": "api.batch",
        "iter_train": "api.training",
        "list_models": "api.models",
        "load_causal_lm": "api.models",
        "load_encoder": "api.models",
        "port": "api.training",
        "read_out": "api.measures",
        "sweep": "api.training",
        "train": "api.training",
        "train_batch": "api.batch",
        "tune": "api.training",
    }

    def _version() -> str:
        from importlib.metadata import version

        return version("softprompt-tui")

    __getattr__, __dir__ = lazy_names(__name__, _MODULES, {"__version__": _version})
