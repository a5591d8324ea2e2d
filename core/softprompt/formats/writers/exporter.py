"""Soft prompts as the files of other programs: what fits, where it goes, what to type there.

export(prompt, "comfyui", None).line  # "embedding:fox"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softprompt.errors import ExportRefused
from softprompt.formats.writers import encode
from softprompt.formats.writers.files import place, safe_stem, write_file, write_folder
from softprompt.formats.writers.instructions import instructions, notes
from softprompt.formats.writers.names import objection, typeable_stem, vocabulary
from softprompt.formats.writers.programs import EMB_PARAMS, PROGRAMS, Program
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.text_states import CLIP_G, CLIP_L, ENCODERS

MAX_TOKEN_LENGTH = 100
MAX_KOBOLD_TOKENS = 2047


@dataclass(frozen=True)
class Exported:
    """What was written, the exact line to type in the other program, the word that then stands in a prompt, and what to know."""

    paths: tuple[Path, ...]
    line: str
    word: str
    notes: tuple[str, ...]


def export(
    prompt: SoftPrompt,
    to: str,
    path: Path | None,
    *,
    other: SoftPrompt | None = None,
    token: str = "",
    force: bool = False,
) -> Exported:
    """Writes the soft prompt for the program `to`, one of PROGRAMS; with `other`, both as a pair for SDXL, in either order.

    `path` is a file, a folder, or None for the current one; nothing is replaced but with `force`. `token` is the word for
    diffusers, `<name>` unless given. Raises ExportRefused, with nothing written.
    """
    program = _program(to)
    pair = None if other is None else _pair(to, prompt, other)
    if pair is None:
        _check_width(to, prompt)
    for one in pair or (prompt,):
        _check_vectors(to, one)
    stem = safe_stem(prompt.name)
    word = _token(program, token, stem)
    default_stem = typeable_stem(to, stem, prompt.tokens) if program.by_stem else stem
    target = place(path, default_stem, ".safetensors" if pair else program.suffix)
    if program.by_stem:
        _check_stem(to, target.stem, prompt.tokens)
    try:
        written = _write(to, pair or (prompt,), target, word, force)
    except ValueError as error:
        raise ExportRefused(
            f"{prompt.name or 'the soft prompt'} has a figure that is not finite ({error}): train it again"
        ) from error
    line, typed = instructions(to, target, word, pair is not None)
    renamed: tuple[str, ...] = ()
    if default_stem != stem and target.stem == default_stem:
        renamed = (f"the file is called {default_stem}, since {program.title} {objection(to, stem, prompt.tokens)}",)
    return Exported(written, line, typed, (*renamed, *notes(to, pair or (prompt,), target.stem, word)))


_ONE_FILE: dict[str, Callable[[SoftPrompt, str], bytes]] = {
    "a1111": encode.a1111,
    "a1111-png": encode.a1111_png,
    "kobold": encode.kobold,
    "numpy": encode.npy,
}


def _write(to: str, prompts: tuple[SoftPrompt, ...], target: Path, token: str, force: bool) -> tuple[Path, ...]:
    if to == "peft":
        files = encode.peft(prompts[0])
        write_folder(target, files, force)
        return tuple(target / name for name in files)
    if len(prompts) == 2:
        data = encode.two_tensors(*prompts)
    elif to in _ONE_FILE:
        data = _ONE_FILE[to](prompts[0], target.stem)
    else:
        data = encode.one_tensor(prompts[0], token if to == "diffusers" else EMB_PARAMS)
    write_file(target, data, force)
    return (target,)


def _program(to: str) -> Program:
    if to not in PROGRAMS:
        raise ExportRefused(f"nothing is written for {to!r}; there are {', '.join(PROGRAMS)}")
    return PROGRAMS[to]


def _pair(to: str, prompt: SoftPrompt, other: SoftPrompt) -> tuple[SoftPrompt, SoftPrompt]:
    """(CLIP-L's, bigG's), whatever order they came in."""
    if not PROGRAMS[to].pair:
        able = ", ".join(name for name, one in PROGRAMS.items() if one.pair)
        raise ExportRefused(f"{to} cannot hold a pair for SDXL; {able} can")
    by_width = {one.vectors.shape[1]: one for one in (prompt, other)}
    if by_width.keys() != {CLIP_L, CLIP_G}:
        raise ExportRefused(
            f"a pair for SDXL has one of width {CLIP_L} ({ENCODERS[CLIP_L].model}) and one of width {CLIP_G} ({ENCODERS[CLIP_G].model}); "
            f"{_called(prompt)} has width {prompt.vectors.shape[1]}, {_called(other)} has {other.vectors.shape[1]}"
        )
    if prompt.tokens != other.tokens:
        raise ExportRefused(
            f"a pair needs as many soft tokens in both: {_called(prompt)} has {prompt.tokens}, {_called(other)} has {other.tokens}. "
            "Train both with the same --tokens"
        )
    return by_width[CLIP_L], by_width[CLIP_G]


def _check_width(to: str, prompt: SoftPrompt) -> None:
    program, width = PROGRAMS[to], prompt.vectors.shape[1]
    if not program.widths or width in program.widths:
        return
    if width == CLIP_G:
        raise ExportRefused(
            f"{program.title} cannot use {_called(prompt)}, of width {width}, alone: SDXL has two encoders, and it wants both. "
            f"Give the one of width {CLIP_L} too, with --sdxl"
        )
    if prompt.hard_prompt:
        advice = f"`softprompt-tui port '{prompt.name}' --model {ENCODERS[CLIP_L].model}` makes it anew for the first"
    else:
        advice = f"Its hard prompt is not known, so it cannot be made anew for another; `softprompt-tui assign '{prompt.name}' --prompt TEXT` says it"
    usable = "; ".join(f"{one} ({ENCODERS[one].model}: {ENCODERS[one].used_by})" for one in program.widths)
    anything = ", ".join(name for name, one in PROGRAMS.items() if not one.widths)
    raise ExportRefused(
        f"{program.title} cannot use {_called(prompt)}, of width {width}; the widths that it can use are {usable}. {advice}; "
        f"{anything} take any width"
    )


def _check_vectors(to: str, prompt: SoftPrompt) -> None:
    if not np.isfinite(prompt.vectors).all():
        raise ExportRefused(f"{_called(prompt)} has vectors that are not finite: train it again")
    if to == "kobold" and prompt.tokens > MAX_KOBOLD_TOKENS:
        raise ExportRefused(
            f"KoboldAI takes at most {MAX_KOBOLD_TOKENS:,} soft tokens; {_called(prompt)} has {prompt.tokens:,}"
        )


def _token(program: Program, token: str, stem: str) -> str:
    """The word for diffusers; raises ExportRefused for one that its tokenizer could not take as one."""
    if not token:
        return f"<{stem.lower()}>"
    if not program.token:
        able = " and ".join(name for name, one in PROGRAMS.items() if one.token)
        raise ExportRefused(
            f"{program.title} knows the soft prompt by its file's name; a token of one's own is for {able}"
        )
    if len(token) > MAX_TOKEN_LENGTH or not token.isprintable() or any(map(str.isspace, token)):
        raise ExportRefused(
            f"{token[:40]!r} is no token: up to {MAX_TOKEN_LENGTH} characters without spaces, such as <{stem}>"
        )
    if token != token.lower():
        raise ExportRefused(
            f"{token!r} has capital letters, and diffusers would use the first vector alone: give {token.lower()!r}"
        )
    if token in vocabulary():
        raise ExportRefused(
            f"{token!r} is in CLIP's vocabulary, and diffusers refuses such a token: put it into brackets, <{token}>"
        )
    return token


def _check_stem(to: str, stem: str, tokens: int) -> None:
    """Raises ExportRefused for a file's name that cannot be typed in the program."""
    if not (why := objection(to, stem, tokens)):
        return
    fitting = typeable_stem(to, stem, tokens)
    advice = f"call it {fitting}" if not objection(to, fitting, tokens) else "name the file with --out"
    raise ExportRefused(
        f"in {PROGRAMS[to].title} the file's name {stem!r} is what is typed, and {PROGRAMS[to].title} {why}: {advice}"
    )


def _called(prompt: SoftPrompt) -> str:
    return prompt.name or "the soft prompt"
