"""The models that can be used, the downloads in progress, and searching for a model by name."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from softprompt.errors import UnknownModel

RATE_SECONDS = 5.0  # the rate of a download is the mean of this time
MINI = "mini"  # the built-in model
MIN_RATE, MAX_SECONDS_LEFT = 1000.0, 86_400.0  # in bytes per second; beyond these, the time left is no use
Item = TypeVar("Item")


@dataclass(frozen=True)
class Model:
    """A model in the output of `models --json`.

    Attributes:
        width, layers, context, parameters: its sizes; 0 for a language model that is not known before it is pulled.
        bytes: size of the weights on disk, or None if they are not on disk.
        partial_bytes: size of an unfinished download.
        read_by: the image programs that use this text encoder.
        same_as: the model that is loaded under this name, or "".
        is_language_model: otherwise it is a text encoder.
    """

    name: str
    width: int
    layers: int
    context: int
    parameters: int
    bytes: int | None
    partial_bytes: int
    read_by: tuple[str, ...]
    repository: str
    same_as: str
    refused: str
    needs_transformers: bool
    is_language_model: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Model:
        return cls(
            values["name"],
            values["width"],
            values["layers"],
            values["context"],
            values["parameters"],
            values["bytes"],
            values["partial_bytes"],
            tuple(values["read_by"]),
            values["repository"] or "",
            values["same_as"] or "",
            values["refused"] or "",
            values["needs_transformers"],
            values.get("kind") == "causal",
        )

    @property
    def is_built_in(self) -> bool:
        return self.name == MINI

    @property
    def is_on_disk(self) -> bool:
        return self.bytes is not None


def usable_models(models: Sequence[Model]) -> list[Model]:
    """Return the models that can be used, each under one name only, in the order in which people look for them.

    First those on disk, then unfinished downloads, then the text encoders of image programs, then language models.
    """
    usable = [model for model in models if not model.refused and not model.same_as]
    return sorted(usable, key=_importance)


def _importance(model: Model) -> tuple[int, str]:
    """Return the place of a model in the list: its group, and the oldest program that reads it."""
    if model.is_built_in:
        return 0, ""
    if model.is_on_disk:
        return 1, ""
    if model.partial_bytes:
        return 2, ""
    if model.read_by:
        return 3, model.read_by[0]
    return (4 if model.is_language_model else 5), ""


def named_model(models: Sequence[Model], typed: str) -> Model | None:
    """Return the language model on the hub whose full name the user has typed, `hf:OWNER/NAME`, or None."""
    from softprompt.encoders.catalog import HUB_PREFIX, LANGUAGE_MODELS, hub_repository  # takes milliseconds

    if not typed.startswith(HUB_PREFIX):
        return None
    try:
        repository = hub_repository(typed)
    except UnknownModel:  # the name is not complete yet
        return None
    listed = next((info.name for info in LANGUAGE_MODELS if info.repository.lower() == repository.lower()), typed)
    known = next((model for model in models if model.name == listed), None)
    return known or Model(typed, 0, 0, 0, 0, None, 0, (), repository, "", "", True, is_language_model=True)


def loaded_name(models: Sequence[Model], typed: str) -> str:
    """Return the model that is loaded under a name typed by the user, or the name itself if no model has it."""
    model = next((model for model in models if model.name.casefold() == typed.casefold()), None)
    return typed if model is None else model.same_as or model.name


def find_by_words(items: Sequence[Item], query: Sequence[str], text_of: Callable[[Item], str]) -> list[Item]:
    """Return the items whose text contains every word of the query, ignoring case and punctuation.

    If there are none, return those whose text contains the letters of every word in order, best match first.
    """
    words = [letters for word in query if (letters := _letters(word))]
    exact = [item for item in items if all(word in _letters(text_of(item)) for word in words)]
    if exact:
        return exact
    from textual.fuzzy import Matcher

    matchers = [Matcher(word) for word in query]
    scored = [(min(matcher.match(text_of(item)) for matcher in matchers), item) for item in items]
    return [item for score, item in sorted(scored, key=lambda pair: -pair[0]) if score > 0]


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


@dataclass
class Pull:
    """A download in progress, or one that failed.

    Attributes:
        note: what it is waiting for, or "".
        stage: the current stage of converting the model after its download, or "".
        error: why it failed, or "".
        is_stopping: the user has cancelled it, and its process has not ended yet.
    """

    model: str
    received: int = 0
    total: int = 0
    note: str = ""
    stage: str = ""
    error: str = ""
    is_stopping: bool = False
    heard_at: float = field(default_factory=time.monotonic)  # when the last bytes or note arrived
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def is_active(self) -> bool:
        return not self.error

    def update(self, received: int, total: int, now: float | None = None) -> None:
        """Take a report of the download's progress."""
        now = time.monotonic() if now is None else now
        if self._samples and received < self._samples[-1][1]:  # it has started over
            self._samples.clear()
        self.received, self.total, self.stage, self.heard_at = received, total, "", now
        self._samples.append((now, received))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_SECONDS:
            self._samples.popleft()

    def set_stage(self, stage: str) -> None:
        self.stage, self.note, self.heard_at = stage, "", time.monotonic()

    def set_note(self, note: str) -> None:
        self.note, self.heard_at = note, time.monotonic()

    def silent_seconds(self, now: float | None = None) -> float:
        """Return for how long nothing has arrived, or 0 while the finished file is checked or converted."""
        now = time.monotonic() if now is None else now
        is_busy = bool(self.stage) or (self.total and self.received == self.total)
        return 0.0 if is_busy else now - self.heard_at

    def rate(self, now: float | None = None) -> float:
        """Return the bytes per second of the last seconds, or 0 if nothing has arrived in that time."""
        now = time.monotonic() if now is None else now
        if len(self._samples) < 2 or now - self._samples[-1][0] > RATE_SECONDS:
            return 0.0
        (began, before), (_, received) = self._samples[0], self._samples[-1]
        return (received - before) / max(now - began, 1e-3)

    def seconds_left(self, now: float | None = None) -> float | None:
        """Return how long the download will still take, or None if that is unknown."""
        rate = self.rate(now)
        seconds = (self.total - self.received) / rate if self.total and rate >= MIN_RATE else None
        return None if seconds is None or seconds > MAX_SECONDS_LEFT else seconds

    @property
    def share(self) -> float:
        """The received part of the file, from 0 to 1."""
        return min(1.0, self.received / self.total) if self.total else 0.0


def with_disk_facts(models: Sequence[Model], latest: Sequence[Model]) -> list[Model]:
    """Return `models` in their order with what `latest` says about them."""
    by_name = {model.name: model for model in latest}
    return [by_name[model.name] for model in models if model.name in by_name]
