"""Exchange soft prompts with other programs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from softprompt.api.values import as_soft_prompt
from softprompt.arguments import checked
from softprompt.config import LongPromptPolicy, TrainConfig, check_choice
from softprompt.errors import ArgumentError
from softprompt.formats import importer
from softprompt.formats.importer import ImportReport
from softprompt.formats.writers import exporter
from softprompt.formats.writers.exporter import ExportResult
from softprompt.library.entry import Entry
from softprompt.library.store import Library
from softprompt.prompts.soft_prompt import SoftPrompt

if TYPE_CHECKING:
    from softprompt.encoders.causal_lm.model import CausalLM
    from softprompt.encoders.clip.text_encoder import TextEncoder


@checked
def export(
    prompt: SoftPrompt | Entry,
    to: str,
    path: Path | str | None = None,
    *,
    other: SoftPrompt | Entry | None = None,
    token: str = "",
    force: bool = False,
    encoder: CausalLM | None = None,
    question: str = "",
    dtype: str = "",
) -> ExportResult:
    """Write a soft prompt as a file for another program.

    Args:
        to: "safetensors", "comfyui", "a1111", "a1111-png", "diffusers", "invokeai", "kohya", "kobold", "peft" or
            "numpy". For a language model's soft prompt "safetensors", "transformers", "peft", "peft-tokens", "vllm",
            "sglang", "kobold" or "numpy".
        path: a file, a folder, or None for the current folder.
        other: the other half of an SDXL pair; either half may come first.
        token: the word to use in diffusers, by default `<name>`.
        force: whether to replace an existing file.
        encoder: the language model; "transformers", "peft", "peft-tokens", "vllm" and "sglang" need it.
        question: what to ask; "sglang" needs it, and with it "vllm" writes a request for the completions route.
        dtype: for "vllm", the precision of the server's model: "bfloat16", the default, "float16" or "float32".

    Raises:
        ExportRefused: the program could not use it, or the file cannot be written. Nothing was written.
        ConfigError: `encoder` is not the model that the soft prompt was trained on.
        PromptError: the question contains a special token of the model.

    Example:
        export(soft_prompt, "comfyui", "ComfyUI/models/embeddings").line  # "embedding:fox"
    """
    half = None if other is None else as_soft_prompt(other)
    return exporter.export(
        as_soft_prompt(prompt), to, None if path is None else Path(path), other=half, token=token, force=force,
        encoder=encoder, question=question, dtype=dtype,
    )  # fmt: skip


@checked
def import_files(
    paths: Path | str | Sequence[Path | str],
    library: Library | None = None,
    *,
    encoder: TextEncoder | None = None,
    name: str = "",
    tags: str | Collection[str] = (),
    keep_going: bool = False,
) -> ImportReport:
    """Import soft prompts from other programs' files into a library. Nothing in a file is executed.

    If a file is rejected, nothing is saved, unless `keep_going`.

    Args:
        library: by default the user's library.
        encoder: the model that the files belong to. It can stay unknown, and be set later with `assign`.
        name: the name for every soft prompt, with a number added if it is taken; by default the file's.
        keep_going: save the soft prompts of the other files, and list the rejected ones in the report.

    Raises:
        FileRefused: a file was rejected, and `keep_going` is False.
        BadName, LibraryError: a name or tag is invalid, or the library cannot be written.

    Example:
        import_files("my-style.pt").imported[0].entry
    """
    chosen = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not chosen:
        raise ArgumentError("paths is empty; expected the path of a file, or a list of paths")
    report = importer.import_files(library or Library(), chosen, encoder, name=name, tags=tags, keep_going=keep_going)
    if report.refused and not keep_going:
        raise report.refused[0]
    return report


@checked
def assign(
    prompt: SoftPrompt | Entry,
    encoder: TextEncoder | None = None,
    *,
    hard_prompt: str = "",
    long: LongPromptPolicy = TrainConfig.long,
    again: bool = False,
) -> SoftPrompt:
    """Return an imported soft prompt with its model, its hard prompt, or both, which its file did not contain.

    With both, its similarity is measured. `library.assign` saves the result.

    Args:
        encoder: the model that the soft prompt was trained on.
        hard_prompt: the text that it stands for.
        long: what to do with a hard prompt that is longer than the context length: "refuse", "chunk" or "cut".
        again: replace a model or hard prompt that was assigned before.

    Raises:
        ConfigError: the value is known already, or the model has another width.
        PromptError: the hard prompt is invalid or too long for the model.

    Example:
        library.assign("my style", lambda prompt: assign(prompt, encoder, hard_prompt="an ink drawing"))
    """
    if encoder is None and not hard_prompt:
        raise ArgumentError("assign needs the argument 'encoder' or 'hard_prompt'")
    check_choice("long", long, get_args(LongPromptPolicy))
    return importer.apply_assignment(as_soft_prompt(prompt), encoder, hard_prompt=hard_prompt, long=long, again=again)
