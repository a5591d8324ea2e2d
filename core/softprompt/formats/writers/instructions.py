"""Tell the user how to use an export in the other program, and what that program reads from the encoder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from softprompt.errors import wording
from softprompt.formats.writers.names import objection, typeable_stem
from softprompt.formats.writers.programs import PROGRAMS, SDXL
from softprompt.prompts.safetensors_header import EMB_PARAMS
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.prompts.visible_text import format_number
from softprompt.text_states import KNOWN_ENCODERS

_READ_OUTPUTS = {
    "sd1": "Stable Diffusion 1.x reads the hidden states of the last layer",
    "sd2": "Stable Diffusion 2.x reads the hidden states of the second-to-last layer",
    SDXL: "SDXL reads the hidden states of the second-to-last layer of both encoders, and bigG's pooled embedding",
    "flux": "Flux reads CLIP-L's pooled embedding, unprojected",
}
_INSTALL_NOTES = {
    "comfyui": "put the file into ComfyUI's models/embeddings folder. In prompts, type a space before `embedding:`.",
    "a1111": "put the file into the embeddings folder of A1111 or Forge. "
    "Every prompt with the word then uses the soft prompt.",
    "a1111-png": "put the picture into the embeddings folder of A1111 or Forge. "
    "Every prompt with the word then uses the soft prompt.",
    "invokeai": "import the file with InvokeAI's model manager, keeping its name",
    "kohya": "the word works in gen_img.py's prompts",
    "kobold": "put the file into KoboldAI's softprompts folder, and select it in the menu",
    "peft": "PEFT puts the soft tokens before the start token, where CLIP models do not expect them",
}
_WITHOUT_HARD_PROMPT = ("numpy", "a1111")


def instructions(to: str, path: Path, token: str, pair: bool) -> tuple[str, str]:
    """Return the exact line to type, and the word that stands for the soft prompt in prompts, or ""."""
    stem, quoted = path.stem, python_literal(str(path))
    match to:
        case "comfyui":
            return f"embedding:{stem}", f"embedding:{stem}"
        case "a1111" | "a1111-png":
            return stem, stem
        case "invokeai":
            return f"<{stem}>", f"<{stem}>"
        case "kohya":
            return f"--textual_inversion_embeddings {shlex.quote(str(path))}", stem
        case "diffusers" if pair:
            call = (
                'pipe.load_textual_inversion(pair["{}"], token={}, '
                "text_encoder=pipe.text_encoder{}, tokenizer=pipe.tokenizer{})"
            )
            lines = [
                call.format("clip_l", python_literal(token), "", ""),
                call.format("clip_g", python_literal(token), "_2", "_2"),
            ]
            return "\n".join([f"pair = safetensors.torch.load_file({quoted})", *lines]), token
        case "diffusers":
            return f"pipe.load_textual_inversion({quoted}, token={python_literal(token)})", token
        case "peft":
            return f"PeftModel.from_pretrained(model, {quoted})", ""
        case "numpy":
            return f"numpy.load({quoted})", ""
        case "kobold":
            return path.name, ""
        case _:
            key = "" if pair else f'["{EMB_PARAMS}"]'
            return f"safetensors.numpy.load_file({quoted}){key}", ""


def python_literal(text: str) -> str:
    """Return the text as a Python literal, in double quotes unless it needs escapes."""
    return f'"{text}"' if text.isprintable() and not set(text) & {'"', "\\"} else ascii(text)


def notes(to: str, prompts: Sequence[SoftPrompt], stem: str, token: str) -> tuple[str, ...]:
    """Return notes for the user: where to put the file, which outputs the program reads, their similarity, and caveats.

    `prompts` has one soft prompt, or the two halves of an SDXL pair.
    """
    width = prompts[0].vectors.shape[1]
    program = PROGRAMS["comfyui" if to == "safetensors" else to]  # ComfyUI supports every use of the default file
    families = (SDXL,) if len(prompts) == 2 else program.widths.get(width, ())
    lines = [_INSTALL_NOTES[to]] if to in _INSTALL_NOTES else []
    if to == "safetensors" and families:
        lines.append(_describe_loaders(prompts, stem, token))
    lines += [f"{_READ_OUTPUTS[family]}: {_format_similarity(prompts, family)}" for family in families]
    if not families:
        lines.append(f"the file contains vectors that only work with {_describe_model(prompts[0])}")
    if SDXL in families and len(prompts) == 1:
        how = wording("Use --sdxl OTHER", "Pass the other half as `other`")
        lines.append(f"only one of SDXL's two encoders uses this file. {how} to write a pair.")
    if to == "diffusers" and {SDXL, "flux"} & set(families):
        lines.append(
            "if a text encoder's configuration sets eos_token_id to 2, transformers takes the pooled embedding from "
            "a soft "
            "token. Set eos_token_id to 49407 first."
        )
    lines += [note for prompt in prompts if families and (note := _model_warning(prompt))]
    if to not in _WITHOUT_HARD_PROMPT and any(prompt.hard_prompt for prompt in prompts):
        lines.append("the file contains the hard prompt, which anyone with the file can read")
    return tuple(lines)


def _describe_loaders(prompts: Sequence[SoftPrompt], stem: str, token: str) -> str:
    """List the programs that load the default file, each with its word, and those that need a different file name."""
    tokens, width, pair = prompts[0].tokens, prompts[0].vectors.shape[1], len(prompts) == 2
    words = {
        "a1111": "AUTOMATIC1111 and Forge ({})",
        "comfyui": "ComfyUI (embedding:{})",
        "kohya": "kohya ({})",
        "invokeai": "InvokeAI (<{}>)",
    }
    usable = {name: word for name, word in words.items() if pair or width in PROGRAMS[name].widths}
    unchanged = [word.format(stem) for name, word in usable.items() if not objection(name, stem, tokens)]
    if not pair:
        unchanged.append(f"diffusers (load_textual_inversion with token={python_literal(token)})")
    stems = {name: typeable_stem(name, stem, tokens) for name in usable}
    renamed = [
        f"{usable[name].format(other)} as {other}.safetensors"
        for name, other in stems.items()
        if other != stem and not objection(name, other, tokens)
    ]
    return f"the file loads as is in {', '.join(unchanged)}" + (
        f". Rename it to load it in {', '.join(renamed)}." if renamed else ""
    )


def _format_similarity(prompts: Sequence[SoftPrompt], family: str) -> str:
    def format_one(prompt: SoftPrompt) -> str:
        similarity = prompt.hidden.get(family)
        return (
            f"similarity {'not measured' if similarity is None else format_number(similarity)}, "
            f"pooled {'not measured' if prompt.similarity is None else format_number(prompt.similarity)}"
        )

    if len(prompts) == 1:
        return format_one(prompts[0])
    return "; ".join(
        f"{name}: {format_one(prompt)}" for name, prompt in zip(("clip_l", "clip_g"), prompts, strict=True)
    )


def _describe_model(prompt: SoftPrompt) -> str:
    return prompt.model or f"their own model, which is unknown (width {prompt.vectors.shape[1]})"


def _model_warning(prompt: SoftPrompt) -> str:
    """Return a warning if the width fits but the model differs or is unknown, or else ""."""
    width = prompt.vectors.shape[1]
    model, users = KNOWN_ENCODERS[width].model, KNOWN_ENCODERS[width].used_by
    if prompt.model == model:
        return ""
    origin = f"was trained on {prompt.model}" if prompt.model else "belongs to an unknown model"
    return (
        f"warning: {prompt.name or 'the soft prompt'} {origin}. Its vectors only work with that model, "
        f"but this file is for {model} ({users})."
    )
