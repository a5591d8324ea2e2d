"""A fact of the report, and how to collect facts so that nothing can raise or hang."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from softprompt.errors import SoftPromptError, describe_error_with_type
from softprompt_tui.rendering.sanitize import sanitize

State = Literal["ok", "wrong", "unknown"]
HOST = "HOST"  # stands for the name of this machine, which can be private
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]*@")  # the name and the password in the address of a proxy or a mirror
_QUERY = re.compile(r"(://[^\s?#]*)[?#]\S*")  # what follows an address can be a key


@dataclass(frozen=True)
class Fact:
    """One line of the report.

    Attributes:
        state: "unknown" if it could not be found out; `text` then says why.
        advice: what to do about it, if it is wrong.
        values: the same for scripts.
    """

    name: str
    text: str
    state: State = "ok"
    advice: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "text": private(self.text),
            "advice": private(self.advice),
            "values": _private_value(self.values),
        }


def wrong(name: str, text: str, advice: str, values: dict[str, Any] | None = None) -> Fact:
    return Fact(name, text, "wrong", advice, values or {})


def private(text: str) -> str:
    """Return a text that can be shown to strangers: on one line, without passwords, the home folder and the host."""
    text = _QUERY.sub(r"\1", _CREDENTIALS.sub("", text))
    for secret, replacement in _private_parts():
        text = text.replace(secret, replacement)
    return sanitize(text)


def _private_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {private(str(key)): _private_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_private_value(inner) for inner in value]
    return private(value) if isinstance(value, str) else value


@cache
def _private_parts() -> tuple[tuple[str, str], ...]:
    parts = []
    try:
        home = str(Path.home())
        if len(home) > 1:  # not "/", which every path begins with
            parts.append((home, "~"))
    except RuntimeError:  # this user has no home folder
        pass
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())
    parts.append((f"-{host}.log", f"-{HOST}.log"))
    return tuple(parts)


@dataclass
class Section:
    """Facts that one function collects. `seconds` is its time limit."""

    name: str
    find: Callable[[], Iterable[Fact]]
    seconds: float = 10.0


def collect(sections: Iterable[Section]) -> Iterator[list[Fact]]:
    """Yield the facts of each section, in order. All sections run at once, each in a thread of its own.

    A section that fails or does not end in time becomes one line that says so. Its thread cannot be stopped, but it
    does not keep the program alive.
    """
    started_at = time.monotonic()
    running = []
    for section in sections:
        facts: list[Fact] = []
        thread = threading.Thread(target=_run, args=(section, facts), daemon=True)
        thread.start()
        running.append((section, thread, facts))
    for section, thread, facts in running:
        thread.join(max(0.0, started_at + section.seconds - time.monotonic()))
        if thread.is_alive():
            late = wrong(
                section.name,
                f"no answer within {section.seconds:.0f} s",
                "A slow disk, network or driver can be the cause. Try again.",
            )
            yield [*facts, late]
        else:
            yield facts


def _run(section: Section, facts: list[Fact]) -> None:
    try:
        for fact in section.find():
            facts.append(fact)  # noqa: PERF402  # one by one, so that what is known stays if the next one fails
    except SoftPromptError as error:  # its message says what to do
        facts.append(Fact(section.name, str(error), "wrong"))
    except Exception as error:  # of any type: a report about a broken machine must not break
        facts.append(Fact(section.name, f"cannot be found out: {describe_error_with_type(error)}", "unknown"))
