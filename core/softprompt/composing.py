"""Compositions: prompts that mix text and soft prompts, such as `[landscape] mountain view`.

`[name]` is a soft prompt of the library, `[name:2]` its second soft token, `[name:1-3]` its first three; `[v1]` is the first soft
token of the open soft prompt; `\\[` is a bracket.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softprompt.errors import PromptError

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.encoder import TextEncoder
    from softprompt.prompt import SoftPrompt

_PARTS = re.compile(r"\\(?P<bare>[\[\]\\])|\[(?P<inside>[^\[\]]*)\]|(?P<stray>[\[\]])|(?P<text>[^\[\]\\]+|\\)")
_REFERENCE = re.compile(r"\s*(?P<name>[^:\s](?:[^:]*[^:\s])?)\s*(?::\s*(?P<first>\d{1,4})\s*(?:-\s*(?P<last>\d{1,4})\s*)?)?")
_TOKEN = re.compile(r"[vV](\d{1,4})")


@dataclass(frozen=True)
class Reference:
    """A soft prompt inside a composition. `name` is "" for the open one; tokens `first` to `last` from 1, None for all."""

    name: str
    first: int | None = None
    last: int | None = None

    def of(self, prompt: SoftPrompt) -> range:
        """Which of its soft tokens are meant; raises PromptError for one that it does not have."""
        first = 1 if self.first is None else self.first
        last = prompt.tokens if self.last is None else self.last
        if not 1 <= first <= last <= prompt.tokens:
            asked = f"{first}" if first == last else f"{first}-{last}"
            raise PromptError(
                f"{prompt.name or 'the open soft prompt'} has soft tokens 1 to {prompt.tokens}; {asked} was asked for"
            )
        return range(first - 1, last)


@dataclass(frozen=True, eq=False)
class Composed:
    """Compositions ready for `encoder.encode_rows(rows, vectors)`; `written_out` has the hard prompts in their places."""

    rows: list[list[int]]
    vectors: Tensor | None  # (soft tokens of all rows, width), or None where there are none
    written_out: list[str]


def parse(text: str) -> list[str | Reference]:
    """The parts of a composition; raises PromptError for a bracket that opens or closes nothing."""
    parts: list[str | Reference] = []
    for match in _PARTS.finditer(text):
        if match["stray"]:
            raise PromptError(
                f"the bracket {match['stray']!r} at character {match.start() + 1} has no partner: [name] stands for a soft prompt, "
                f"\\{match['stray']} for the character itself"
            )
        if match["inside"] is not None:
            parts.append(_reference(match["inside"]))
        else:
            words = match["bare"] or match["text"]
            before = parts[-1] if parts else None
            if isinstance(before, str):
                parts[-1] = before + words
            else:
                parts.append(words)
    return parts


def _reference(inside: str) -> Reference:
    token = _TOKEN.fullmatch(inside.strip())
    if token:
        return Reference("", int(token[1]), int(token[1]))
    match = _REFERENCE.fullmatch(inside)
    if match is None:
        raise PromptError(f"[{inside}] stands for no soft prompt: write [name], [name:2] or [name:1-3]; \\[ is a bracket")
    first = int(match["first"]) if match["first"] else None
    return Reference(match["name"], first, int(match["last"]) if match["last"] else first)


def compose(
    encoder: TextEncoder, texts: Sequence[str], find: Callable[[str], SoftPrompt], opened: SoftPrompt | None = None
) -> Composed:
    """Texts with soft prompts in them, made ready for the encoder. `find` gives the soft prompt of a name.

    Raises PromptError, ConfigError for a soft prompt of another model, and what `find` raises.
    """
    import torch

    rows, vectors, written = [], [], []
    for text in texts:
        row: list[int] = []
        words: list[str] = []
        before: SoftPrompt | None = None
        for part in parse(text):
            if isinstance(part, str):
                row += encoder.tokenizer.encode(part)
                words.append(part)
                before = before if part.isspace() else None
                continue
            if not part.name and opened is None:
                raise PromptError(
                    f"[v{part.first}] is a token of the open soft prompt, and none is open: write [name:{part.first}]"
                )
            prompt = find(part.name) if part.name or opened is None else opened
            encoder.check_belongs(prompt)
            for i in part.of(prompt):
                vectors.append(torch.asarray(prompt.vectors[i], copy=True))
                row.append(-len(vectors))
            words.append("" if prompt is before else prompt.hard_prompt)  # [v1][v2][v3] is one hard prompt, not three
            before = prompt
        encoder.check_length(len(row))
        rows.append(row)
        written.append(" ".join("".join(words).split()))
    return Composed(rows, torch.stack(vectors).to(encoder.device) if vectors else None, written)
