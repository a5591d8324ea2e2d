"""Export soft prompts for other programs: check that they fit, write the file, and say what to type.

export(prompt, "comfyui", None).line  # "embedding:fox"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from softprompt.argument_types import nearest_name
from softprompt.errors import ExportRefused, command, how_to_assign_prompt, option, wording
from softprompt.formats.writers import encode
from softprompt.formats.writers.causal_lm import exporter as causal_lm
from softprompt.formats.writers.causal_lm import instructions as causal_lm_instructions
from softprompt.formats.writers.causal_lm.placement import is_language_model
from softprompt.formats.writers.files import output_path, safe_stem, write_file, write_folder
from softprompt.formats.writers.instructions import instructions, notes
from softprompt.formats.writers.names import clip_vocabulary, objection, typeable_stem
from softprompt.formats.writers.programs import ALL_PROGRAMS, LANGUAGE_MODEL_PROGRAMS, PROGRAMS, Program
from softprompt.prompts.prompt_file import to_json
from softprompt.prompts.safetensors_header import EMB_PARAMS
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.text_states import CLIP_G, CLIP_L, KNOWN_ENCODERS

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM

MAX_TOKEN_LENGTH = 100
MAX_KOBOLD_TOKENS = 2047


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Attributes:
        line: the exact text to type in the other program; for language models, the code that uses the soft prompt.
        word: the word that stands for the soft prompt in that program's prompts, or "".
    """

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
    encoder: CausalLM | None = None,
    question: str = "",
    dtype: str = "",
) -> ExportResult:
    """Write a soft prompt for another program.

    Args:
        to: the program, a key of PROGRAMS, or of LANGUAGE_MODEL_PROGRAMS for a language model's soft prompt.
        path: a file, a folder, or None for the current folder.
        other: the other half of an SDXL pair; either half may come first.
        token: the word to use in diffusers, by default `<name>`.
        force: whether to replace existing files.
        encoder: the language model, which some programs need.
        question: for vLLM and SGLang, the question of a request.
        dtype: for vLLM, the precision of the tensor, by default bfloat16.

    Raises:
        ExportRefused: nothing was written.
        ConfigError: `encoder` is another model than that of the soft prompt.
        PromptError: the question cannot be used.
    """
    check_options(prompt, to, other=other, question=question, dtype=dtype)
    if is_language_model(prompt):
        return _export_for_language_model(prompt, to, path, token, force, encoder, question, dtype)
    program = PROGRAMS[to]
    pair = None if other is None else _order_pair(to, prompt, other)
    if pair is None:
        _check_width(to, prompt)
    for half in pair or (prompt,):
        _check_vectors(to, half)
    stem = safe_stem(prompt.name)
    word = _resolve_token(program, token, stem)
    default_stem = typeable_stem(to, stem, prompt.tokens) if program.word_is_stem else stem
    target = output_path(path, default_stem, ".safetensors" if pair else program.suffix)
    if program.word_is_stem:
        _check_stem(to, target.stem, prompt.tokens)
    try:
        written = _write(to, pair or (prompt,), target, word, force)
    except ValueError as error:
        raise _not_finite(prompt, error) from error
    line, typed_word = instructions(to, target, word, pair is not None)
    renamed: tuple[str, ...] = ()
    if default_stem != stem and target.stem == default_stem:
        renamed = (f"the file is named {default_stem}, because {program.title} {objection(to, stem, prompt.tokens)}",)
    return ExportResult(written, line, typed_word, (*renamed, *notes(to, pair or (prompt,), target.stem, word)))


def check_options(
    prompt: SoftPrompt, to: str, *, other: SoftPrompt | None = None, question: str = "", dtype: str = ""
) -> None:
    """Check what needs no language model, so that none is loaded in vain. `export` documents the arguments.

    Raises:
        ExportRefused: the program cannot use this soft prompt, or not with these options.
    """
    _find_program(to, prompt)
    if is_language_model(prompt):
        if other is not None:
            raise ExportRefused(
                f"{_display_name(prompt)} is for a language model, and SDXL pairs are for text encoders. Leave out "
                f"{wording('--sdxl', '`other`')}."
            )
        causal_lm.check_options(prompt, to, question, dtype)
        return
    if question:
        raise ExportRefused(f"{option('question')} only works with soft prompts of language models. Leave it out.")
    if dtype:
        raise ExportRefused(f"{option('dtype')} only works with soft prompts of language models. Leave it out.")


def _export_for_language_model(
    prompt: SoftPrompt,
    to: str,
    path: Path | None,
    token: str,
    force: bool,
    model: CausalLM | None,
    question: str,
    dtype: str,
) -> ExportResult:
    program = LANGUAGE_MODEL_PROGRAMS[to]
    _check_vectors(to, prompt)
    stem = safe_stem(prompt.name)
    word = _resolve_token(program, token, stem)
    target = output_path(path, stem, program.suffix)
    try:
        to_json(prompt.as_dict())
        if not program.needs_model:
            written = _write(to, (prompt,), target, word, force)
            line, _ = instructions(to, target, word, False)
            return ExportResult(written, line, "", causal_lm_instructions.notes(to, prompt))
    except ValueError as error:
        raise _not_finite(prompt, error) from error
    if model is None:
        how = wording(
            "Use `softprompt-tui export` in a shell, which loads it",
            "Pass it as `encoder`; softprompt.load_causal_lm loads it",
        )
        raise ExportRefused(f"the format {to} needs {prompt.model} for more than the vectors. {how}.")
    result = causal_lm.write(prompt, to, target, model, question=question, dtype=dtype, force=force)
    return ExportResult(result.paths, result.code, "", result.notes)


_FILE_ENCODERS: dict[str, Callable[[SoftPrompt, str], bytes]] = {
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
        data = encode.safetensors_pair(*prompts)
    elif to in _FILE_ENCODERS:
        data = _FILE_ENCODERS[to](prompts[0], target.stem)
    else:
        data = encode.safetensors(prompts[0], token if to == "diffusers" else EMB_PARAMS)
    write_file(target, data, force)
    return (target,)


def _find_program(to: str, prompt: SoftPrompt) -> Program:
    programs = LANGUAGE_MODEL_PROGRAMS if is_language_model(prompt) else PROGRAMS
    if to not in ALL_PROGRAMS:
        close = nearest_name(to.lower(), programs)
        hint = f" Did you mean {close!r}?" if close else ""
        raise ExportRefused(f"unknown export format {to[:40]!r}. Use one of {', '.join(programs)}.{hint}")
    if to not in programs:
        own, others = "text encoder", "language models"
        if is_language_model(prompt):
            own, others = "language model", "text encoders"
        raise ExportRefused(
            f"the format {to} is for soft prompts of {others}, but {_display_name(prompt)} is for a {own}"
            f"{'' if prompt.model else ', as far as is known'}. Use one of {', '.join(programs)}."
        )
    return programs[to]


def _order_pair(to: str, prompt: SoftPrompt, other: SoftPrompt) -> tuple[SoftPrompt, SoftPrompt]:
    """Return the CLIP-L half and then the bigG half, whatever the order of the arguments."""
    if not PROGRAMS[to].supports_pair:
        supported = ", ".join(name for name, program in PROGRAMS.items() if program.supports_pair)
        raise ExportRefused(f"{to} cannot store an SDXL pair. Use one of {supported}.")
    by_width = {half.vectors.shape[1]: half for half in (prompt, other)}
    if by_width.keys() != {CLIP_L, CLIP_G}:
        raise ExportRefused(
            f"{_display_name(prompt)} has width {prompt.vectors.shape[1]}, and {_display_name(other)} has width "
            f"{other.vectors.shape[1]}. An SDXL pair needs one of width {CLIP_L} ({KNOWN_ENCODERS[CLIP_L].model}) "
            f"and one of width {CLIP_G} ({KNOWN_ENCODERS[CLIP_G].model})."
        )
    if prompt.tokens != other.tokens:
        raise ExportRefused(
            f"{_display_name(prompt)} has {prompt.tokens} soft tokens, but {_display_name(other)} has {other.tokens}. "
            f"Both halves of a pair need the same number. Train both with the same {option('tokens')}."
        )
    return by_width[CLIP_L], by_width[CLIP_G]


def _check_width(to: str, prompt: SoftPrompt) -> None:
    program, width = PROGRAMS[to], prompt.vectors.shape[1]
    if not program.widths or width in program.widths:
        return
    if width == CLIP_G:
        raise ExportRefused(
            f"{program.title} cannot use {_display_name(prompt)} alone: its width {width} fits only one of SDXL's two "
            f"encoders. Add the other half, of width {CLIP_L}, with {wording('--sdxl', '`other`')}."
        )
    if prompt.hard_prompt:
        model = KNOWN_ENCODERS[CLIP_L].model
        port = command(
            f"port '{prompt.name}' --model {model}", f"softprompt.port(softprompt.load_encoder({model!r}), prompt)"
        )
        advice = f"To train it for the first of these, use {port}"
    else:
        assign = how_to_assign_prompt(f"'{prompt.name}'")
        advice = f"To train it for another model, first set its hard prompt with {assign}"
    usable = "; ".join(
        f"{size} ({KNOWN_ENCODERS[size].model}: {KNOWN_ENCODERS[size].used_by})" for size in program.widths
    )
    any_width = ", ".join(name for name, entry in PROGRAMS.items() if not entry.widths)
    raise ExportRefused(
        f"{program.title} cannot use {_display_name(prompt)}: its width is {width}. Supported widths: {usable}. "
        f"{advice}. The formats {any_width} accept any width."
    )


def _check_vectors(to: str, prompt: SoftPrompt) -> None:
    if not np.isfinite(prompt.vectors).all():
        raise ExportRefused(f"{_display_name(prompt)} has vectors that are not finite. Train it again.")
    if to == "kobold" and prompt.tokens > MAX_KOBOLD_TOKENS:
        raise ExportRefused(
            f"{_display_name(prompt)} has {prompt.tokens:,} soft tokens. KoboldAI allows at most {MAX_KOBOLD_TOKENS:,}."
        )


def _resolve_token(program: Program, token: str, stem: str) -> str:
    """Return the word to use in diffusers. Raises ExportRefused if its tokenizer could not treat it as one token."""
    if not token:
        return f"<{stem.lower()}>"
    if not program.custom_token:
        supported = " and ".join(name for name, entry in PROGRAMS.items() if entry.custom_token)
        raise ExportRefused(
            f"{option('token')} only works with {supported}: {program.title} uses the file name instead. "
            f"Set it with {wording('--out', '`path`')}."
        )
    if len(token) > MAX_TOKEN_LENGTH or not token.isprintable() or any(map(str.isspace, token)):
        raise ExportRefused(
            f"the token {token[:40]!r} is invalid. Use up to {MAX_TOKEN_LENGTH} characters without spaces, "
            f"such as <{stem}>."
        )
    if token != token.lower():
        raise ExportRefused(
            f"the token {token!r} has capital letters, so diffusers would use only the first vector. "
            f"Use {token.lower()!r}."
        )
    if token in clip_vocabulary():
        raise ExportRefused(
            f"the token {token!r} is in CLIP's vocabulary, and diffusers only accepts new tokens. Use <{token}>."
        )
    return token


def _check_stem(to: str, stem: str, tokens: int) -> None:
    """Raise ExportRefused if the file name does not work as a word in the program's prompts."""
    if not (problem := objection(to, stem, tokens)):
        return
    suggestion = typeable_stem(to, stem, tokens)
    is_usable = not objection(to, suggestion, tokens)
    advice = f"Use {suggestion}" if is_usable else f"Choose another name with {wording('--out', '`path`')}"
    raise ExportRefused(f"the file name {stem!r} does not work in prompts: {PROGRAMS[to].title} {problem}. {advice}.")


def _not_finite(prompt: SoftPrompt, error: ValueError) -> ExportRefused:
    return ExportRefused(f"{_display_name(prompt)} has a value that is not finite ({error}). Train it again.")


def _display_name(prompt: SoftPrompt) -> str:
    return prompt.name or "the soft prompt"
