"""Recognize a training that would repeat an earlier one: the same text, model, settings and seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from softprompt.config import TrainConfig
from softprompt.encoders.catalog import LOCAL_PREFIX, MINI, is_cached, model_kind, resolve
from softprompt.errors import EntryDamaged, SoftPromptError, UnknownModel
from softprompt.jobs.job import AnyJob, HardReadoutJob, TrainJob
from softprompt.library import EntrySummary, Library
from softprompt.library.queries import find_by_prompt
from softprompt.prompts.lineage import WeightedText, meanings_from_dicts


def training_digest(job: AnyJob) -> str:
    """Return a digest of a training. Trainings of one model that have the same digest give the same soft prompt.

    The digest ignores the device and the name. It is "" for a sweep, for a search, and for a training on examples or
    from a soft prompt, because entries record neither examples nor start vectors.
    """
    if isinstance(job, TrainJob) and job.examples is None:
        search = None if job.hard is None else job.hard.as_dict()
        return _digest(job.prompt, job.meanings, job.config, job.precision, search)
    return ""


def is_same_model(first: str, second: str) -> bool:
    """Return whether two names, as typed by users, stand for the same model."""
    return first == second or _full_name(first) == _full_name(second)


def find_trained_entry(library: Library, job: AnyJob, entry_id: str = "") -> EntrySummary | None:
    """Return the latest entry that this training would reproduce, or None.

    A job that also searches for a hard readout reproduces no entry, because entries do not record how their readout
    was found. Entries whose training was stopped or failed are skipped, because this training would give more.

    Args:
        entry_id: look at this entry only.

    Raises:
        HomeError: the library cannot be read.
    """
    if isinstance(job, HardReadoutJob) or job.hard_config is not None or not (digest := training_digest(job)):
        return None
    for entry in library.index.run_query(partial(find_by_prompt, path=library.path, hard_prompt=job.prompt)):
        is_complete = entry.stopped not in ("interrupted", "failed")
        if is_complete and entry_id in ("", entry.id) and is_same_model(entry.model, job.model):
            with suppress(EntryDamaged, FileNotFoundError):
                if _entry_digest(library.revisions.read_provenance(entry.id, entry.revision)) == digest:
                    return entry
    return None


def _entry_digest(provenance: Mapping[str, Any]) -> str:
    """Return the digest of the training that made an entry, or "" if that is unknown, as for an imported file."""
    try:
        if not provenance["config"]:
            return ""
        config = TrainConfig.from_dict(provenance["config"])
        meanings = meanings_from_dicts(provenance.get("meanings", ()))
        precision = str(provenance.get("device", "")).rpartition(", ")[2] or "float32"
        return _digest(str(provenance["hard_prompt"]), meanings, config, precision, None)
    except (KeyError, TypeError, ValueError, AttributeError, SoftPromptError):  # of another program or version
        return ""


def _digest(
    prompt: str, meanings: tuple[WeightedText, ...], config: TrainConfig, precision: str, search: object
) -> str:
    if config.init == "soft":
        return ""
    texts = [[meaning.text, meaning.share] for meaning in meanings]
    values = [prompt.strip(), texts, config.as_dict(), precision, search]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _full_name(model: str) -> str:
    name = model or MINI
    if name.startswith(LOCAL_PREFIX):
        return name
    if name.lower() != MINI and (model_kind(name) == "causal" or is_cached()):  # reading the list takes seconds
        with suppress(UnknownModel):
            return resolve(name).name
    return name.lower()
