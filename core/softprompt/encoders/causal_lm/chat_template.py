"""A model's chat template: the token ids around the system text and the user's text.

A template is a program from outside. A child process renders it once (chat_template_child.py), with probes in the
places of the texts. The probes split the result into fixed pieces; the texts themselves never reach the template.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from softprompt.encoders.causal_lm.folder import TEMPLATE_FILE, causal_lm_refused
from softprompt.encoders.causal_lm.packages import check_packages
from softprompt.encoders.causal_lm.tokenizer import read_tokenizer_config
from softprompt.errors import ModelRefused, ModelUnavailable, PromptError, check_text, option, shorten
from softprompt.system.child_process import run_child
from softprompt.system.files import read_file

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.tokenizer import CausalLMTokenizer

MAX_TEMPLATE_BYTES = 1 << 20
TIMEOUT_SECONDS, MAX_ANSWER_BYTES = 9.0, 4 << 20
SEPARATOR = "\n\n"  # between the system text and the user's text, where the template has no system turn


@dataclass(frozen=True)
class ChatIds:
    """The token ids of a chat of one turn, in five pieces.

    Attributes:
        before: from the start to the system text, or without one to the user's text.
        between: from the system text to the user's text.
        after: from the user's text to where the answer begins.
    """

    before: tuple[int, ...]
    system: tuple[int, ...]
    between: tuple[int, ...]
    user: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        """All ids in order. They are those of the whole rendered chat."""
        return [*self.before, *self.system, *self.between, *self.user, *self.after]


@dataclass(frozen=True)
class Frame:
    """The fixed text around the system text and the user's text. Without a system text, nothing is in between."""

    before: str
    between: str
    after: str


class ChatTemplate:
    """The chat template of a model. Like most templates, it drops the white space around a text.

    Args:
        name: the model's name, for messages.
        source: the template.

    Attributes:
        digest: shortened SHA-256 digest of the template. Soft tokens belong to the template that they were trained in.
        has_system_turn: if false, the system text goes in front of the user's text.

    Raises:
        ModelRefused: the template fails, changes the texts, or takes too much time or memory.
        ModelUnavailable: jinja2 is not installed.
    """

    def __init__(self, name: str, source: str, tokenizer: CausalLMTokenizer) -> None:
        self.digest = hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()[:16]
        self._tokenizer = tokenizer
        with_system, self._plain = _render_frames(name, source, tokenizer.roles)
        self.has_system_turn = with_system is not None
        self._with_system = with_system or Frame(self._plain.before, SEPARATOR, self._plain.after)

    @property
    def largest_id(self) -> int:
        """The largest token id in the template's own text, or -1 if it has none."""
        texts = [
            text for frame in (self._with_system, self._plain) for text in (frame.before, frame.between, frame.after)
        ]
        return max((i for text in texts for i in self._tokenizer.encode(text)), default=-1)

    def encode(self, user: str, system: str = "") -> ChatIds:
        """Return the token ids of a chat. Without a system text, the template decides whether there is a system turn.

        A token that covers the end of one piece and the start of the next belongs to the first.

        Raises:
            PromptError: a text contains a special token, or cannot be encoded.
        """
        system, user = self._check("system text", system), self._check("user's text", user)
        frame = self._with_system if system else self._plain
        texts = (frame.before, system, frame.between, user, frame.after)
        ends = [sum(map(len, texts[: i + 1])) for i in range(4)]
        pieces: tuple[list[int], ...] = ([], [], [], [], [])
        current = 0
        for token, start in zip(*self._tokenizer.encode_with_starts("".join(texts)), strict=True):
            current = max(current, bisect_right(ends, start))
            pieces[current].append(token)
        if not system:
            return ChatIds((*pieces[0], *pieces[2]), (), (), tuple(pieces[3]), tuple(pieces[4]))
        before, system_ids, between, user_ids, after = map(tuple, pieces)
        return ChatIds(before, system_ids, between, user_ids, after)

    def encode_around(self, user: str, placement: Literal["system", "user"]) -> tuple[list[int], list[int]]:
        """Return the token ids in front of the soft tokens and behind them. A system text does not change them.

        The two sides are tokenized separately, because no token can reach across soft tokens.

        Raises:
            PromptError: the user's text contains a special token, or cannot be encoded.
        """
        user = self._check("user's text", user)
        frame = self.frame(placement)
        before, after = map(self._tokenizer.encode, (frame.before, frame.between + user + frame.after))
        return before, after

    def frame(self, placement: Literal["system", "user"]) -> Frame:
        """Return the text around soft tokens in place of the system text, or at the start of the user's text."""
        return self._with_system if placement == "system" else self._plain

    def _check(self, label: str, text: str) -> str:
        """Strip a text of white space. Raises PromptError if it has a special token, which could end or open a turn."""
        text = check_text(label, text).strip()
        reserved = next((i for i in self._tokenizer.encode(text) if i in self._tokenizer.reserved_ids), None)
        if reserved is not None:
            piece = self._tokenizer.piece(reserved)
            raise PromptError(f"the {label} contains {piece}, a special token of the model. Remove it.")
        return text


def read_chat_template(name: str, folder: Path) -> str:
    """Return the chat template of a model folder: chat_template.jinja, or the one in tokenizer_config.json.

    Raises:
        ModelRefused: there is none.
        ModelUnavailable: the file cannot be read.
    """
    path = folder / TEMPLATE_FILE
    if path.exists():
        try:
            return read_file(path.resolve(), MAX_TEMPLATE_BYTES).decode()  # a link in the hub's cache
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ModelUnavailable(f"cannot read {path}: {reason}. Download or copy the model again.") from error
    template = read_tokenizer_config(folder).get("chat_template")
    if isinstance(template, list):  # several by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if not isinstance(template, str) or not template:
        raise ModelRefused(
            f"{name} has no chat template, so it may be a base model. Use {option('placement', 'start')}, which needs "
            f"none; or choose a model that is trained for chats, or put a {TEMPLATE_FILE} into its folder."
        )
    return template


def load_chat_template(name: str, folder: Path, tokenizer: CausalLMTokenizer) -> ChatTemplate:
    """Load the chat template of a model folder. Raises the errors of `read_chat_template` and ChatTemplate."""
    return ChatTemplate(name, read_chat_template(name, folder), tokenizer)


def _render_frames(name: str, source: str, roles: dict[str, str]) -> tuple[Frame | None, Frame]:
    """Return the text around a system text and a user's text, or None, and that around a user's text alone."""
    check_packages("jinja2")
    system, user = (f"{label}{secrets.token_hex(16)}" for label in ("system", "user"))  # a template cannot guess them
    request = {"template": source, "system": system, "user": user, "variables": roles}
    raw = run_child(
        "softprompt.encoders.causal_lm.chat_template_child", [json.dumps(request).encode()], TIMEOUT_SECONDS,
        MAX_ANSWER_BYTES,
    )  # fmt: skip
    if not raw:
        raise _refused(name, "takes too much time or memory")
    try:
        answers: list[dict[str, Any]] = json.loads(raw)
        with_system, plain = (_split(answer.get("text"), probes) for answer, probes in zip(
            answers, ((system, user), (user,)), strict=True
        ))  # fmt: skip
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # it may have taken over the child
        raise _refused(name, "gave an invalid result") from error
    if plain is None:
        problem = answers[1].get("error")
        raise _refused(name, f"fails ({shorten(str(problem), 200)})" if problem else "changes or drops the user's text")
    return Frame(*with_system) if with_system else None, Frame(plain[0], "", plain[1])


def _split(text: object, probes: tuple[str, ...]) -> list[str] | None:
    """Return the pieces of a rendered text around the probes, or None unless each occurs once, in this order."""
    if not isinstance(text, str) or any(text.count(probe) != 1 for probe in probes):
        return None
    pieces = []
    for probe in probes:
        piece, found, text = text.partition(probe)
        if not found:
            return None
        pieces.append(piece)
    return [*pieces, text]


def _refused(name: str, problem: str) -> ModelRefused:
    return causal_lm_refused(name, f"its chat template {problem}", f"Put another {TEMPLATE_FILE} into its folder")
