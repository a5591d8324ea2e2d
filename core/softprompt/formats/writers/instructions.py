"""What to type in the other program after an export, and what it then reads: the honest part of an export."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from softprompt.formats.writers.names import objection, typeable_stem
from softprompt.formats.writers.programs import EMB_PARAMS, PROGRAMS, SDXL
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.text_states import ENCODERS

_READS = {
    "sd1": "Stable Diffusion 1.x reads the hidden states of the last layer",
    "sd2": "Stable Diffusion 2.x reads the hidden states of the last layer but one",
    SDXL: "SDXL reads the hidden states of the last layer but one of both encoders, and bigG's pooled embedding",
    "flux": "Flux reads CLIP-L's pooled embedding, unprojected",
}
_FOLDERS = {
    "comfyui": "put the file into ComfyUI's models/embeddings; the prompt needs a space before `embedding:`",
    "a1111": "put the file into A1111's or Forge's embeddings folder; every prompt with that word then holds the soft prompt",
    "a1111-png": "put the picture into A1111's or Forge's embeddings folder; every prompt with that word then holds the soft prompt",
    "invokeai": "import the file in InvokeAI's model manager, and keep its name there",
    "kohya": "the word is for gen_img.py's prompts",
    "kobold": "put the file into KoboldAI's softprompts folder, and choose it in its menu",
    "peft": "PEFT puts the soft tokens before the start token, where no CLIP model expects them",
}
_WITHOUT_WORDS = ("numpy", "a1111")


def instructions(to: str, path: Path, token: str, pair: bool) -> tuple[str, str]:
    """(the exact line to type, the word that then stands for the soft prompt in a prompt, or "")."""
    stem, quoted = path.stem, _python(str(path))
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
            one = 'pipe.load_textual_inversion(pair["{}"], token={}, text_encoder=pipe.text_encoder{}, tokenizer=pipe.tokenizer{})'
            lines = [one.format("clip_l", _python(token), "", ""), one.format("clip_g", _python(token), "_2", "_2")]
            return "\n".join([f"pair = safetensors.torch.load_file({quoted})", *lines]), token
        case "diffusers":
            return f"pipe.load_textual_inversion({quoted}, token={_python(token)})", token
        case "peft":
            return f"PeftModel.from_pretrained(model, {quoted})", ""
        case "numpy":
            return f"numpy.load({quoted})", ""
        case "kobold":
            return path.name, ""
        case _:
            key = "" if pair else f'["{EMB_PARAMS}"]'
            return f"safetensors.numpy.load_file({quoted}){key}", ""


def _python(text: str) -> str:
    """A string as Python source, in double quotes where they need no escape, as most would type it."""
    return f'"{text}"' if text.isprintable() and not set(text) & {'"', "\\"} else ascii(text)


def notes(to: str, prompts: Sequence[SoftPrompt], stem: str, token: str) -> tuple[str, ...]:
    """Where the file goes, what the program reads of the soft prompt and how near it is there, and whether it fits at all.

    `prompts` is one, or the two of a pair for SDXL.
    """
    width = prompts[0].vectors.shape[1]
    readers = PROGRAMS[
        "comfyui" if to == "safetensors" else to
    ]  # which can use whatever the default file may be used for
    families = (SDXL,) if len(prompts) == 2 else readers.widths.get(width, ())
    found = [_FOLDERS[to]] if to in _FOLDERS else []
    if to == "safetensors" and families:
        found.append(_loaded_by(prompts, stem, token))
    found += [f"{_READS[family]}: {_nearness(prompts, family)}" for family in families]
    if not families:
        found.append(f"this is an exchange of vectors: they mean something to {_model(prompts[0])} alone")
    if SDXL in families and len(prompts) == 1:
        found.append("alone it is seen by one of SDXL's two encoders: --sdxl OTHER writes a pair")
    if to == "diffusers" and {SDXL, "flux"} & set(families):
        found.append(
            "where a text encoder's configuration says eos_token_id 2, transformers takes the pooled embedding at a soft token: "
            "set its eos_token_id to 49407 first"
        )
    found += [note for prompt in prompts if families and (note := _other_model(prompt))]
    if to not in _WITHOUT_WORDS and any(prompt.hard_prompt for prompt in prompts):
        found.append("the hard prompt is in the file: whoever has it can read it")
    return tuple(found)


def _loaded_by(prompts: Sequence[SoftPrompt], stem: str, token: str) -> str:
    """Which programs take the default file as it is, and by what word; which take it under another name."""
    tokens, width, pair = prompts[0].tokens, prompts[0].vectors.shape[1], len(prompts) == 2
    words = {
        "a1111": "AUTOMATIC1111 and Forge ({})",
        "comfyui": "ComfyUI (embedding:{})",
        "kohya": "kohya ({})",
        "invokeai": "InvokeAI (<{}>)",
    }
    usable = {name: word for name, word in words.items() if pair or width in PROGRAMS[name].widths}
    fits = [word.format(stem) for name, word in usable.items() if not objection(name, stem, tokens)]
    if not pair:
        fits.append(f"diffusers (load_textual_inversion with token={_python(token)})")
    stems = {name: typeable_stem(name, stem, tokens) for name in usable}
    renamed = [
        f"{usable[name].format(other)} as {other}.safetensors"
        for name, other in stems.items()
        if other != stem and not objection(name, other, tokens)
    ]
    return f"the file loads as it is in {', '.join(fits)}" + (f"; in {', '.join(renamed)}" if renamed else "")


def _nearness(prompts: Sequence[SoftPrompt], family: str) -> str:
    def one(prompt: SoftPrompt) -> str:
        there = prompt.hidden.get(family)
        return (
            f"similarity there {'not measured' if there is None else f'{there:.4f}'}, "
            f"pooled {'not measured' if prompt.similarity is None else f'{prompt.similarity:.4f}'}"
        )

    if len(prompts) == 1:
        return one(prompts[0])
    return "; ".join(f"{name}: {one(prompt)}" for name, prompt in zip(("clip_l", "clip_g"), prompts, strict=True))


def _model(prompt: SoftPrompt) -> str:
    return prompt.model or f"the model of width {prompt.vectors.shape[1]} that they were made for, which is not known,"


def _other_model(prompt: SoftPrompt) -> str:
    """A warning where the width fits and the model is another, or is not known; else ""."""
    width = prompt.vectors.shape[1]
    model, users = ENCODERS[width].model, ENCODERS[width].used_by
    if prompt.model == model:
        return ""
    whose = f"was made on {prompt.model}" if prompt.model else "comes from a model that is not known"
    return f"warning: {prompt.name or 'the soft prompt'} {whose}, and {users} have {model}: with other weights its vectors mean nothing"
