"""Which text encoders there are, and loading one: the built-in `mini`, `MODEL/TAG` of open_clip, `local-dir:FOLDER`."""

from __future__ import annotations

import json
from contextlib import suppress
from difflib import get_close_matches
from importlib.resources import as_file
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.config import check_device, check_precision
from softprompt.encoders.catalog import LOCAL, MINI, MINI_FOLDER, list_models
from softprompt.errors import DeviceError, ModelUnavailable, UnknownModel, reason

if TYPE_CHECKING:
    import torch

    from softprompt.encoders.catalog import ModelInfo
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.encoders.clip.transformer import Tower
    from softprompt.encoders.download import Progress

QUICK_GELU = "-quickgelu"


def load_encoder(
    name: str = MINI,
    device: str = "auto",
    precision: str = "float32",
    on_progress: Progress | None = None,
    graphs: bool | None = None,
) -> TextEncoder:
    """Loads a text encoder by name onto a device: "auto", "cpu", "cuda", "cuda:1", "mps".

    Weights that are not on disk are fetched, `on_progress` being told (bytes here, bytes in all). `precision` is "float32", or "bfloat16" for the tower's arithmetic (soft tokens, losses and results stay float32). `graphs` lets training on
    cuda record its steps (softprompt.training.cuda_graphs); None for as the environment says. Raises
    UnknownModel, ModelRefused, ModelUnavailable, ConfigError, DeviceError.
    """
    check_precision(precision)
    check_device(device)
    import torch

    from softprompt.training.cuda_graphs import wanted_here

    place = pick_device(device)
    encoder = _mini() if name.lower() == MINI else _from_open_clip(name, on_progress)
    encoder.graphs = wanted_here() if graphs is None else graphs
    try:
        return encoder.moved(place, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    except RuntimeError as error:  # torch's type for a lost or full device
        raise ModelUnavailable(f"{encoder.name} cannot be put on {place}: {reason(error)}. Try --device cpu") from error


def pick_device(name: str) -> torch.device:
    """The device of this name, if this machine has it; "auto" is the first cuda device, else mps, else the cpu. Raises DeviceError."""
    check_device(name)
    import torch

    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return torch.device("cuda:0" if counts["cuda"] else "mps" if counts["mps"] else "cpu")
    kind, _, index = name.partition(":")
    if counts[kind] > int(index or 0):
        return torch.device(f"cuda:{index or 0}" if kind == "cuda" else kind)
    here = [f"{kind}:{i}" if kind == "cuda" else kind for kind, count in counts.items() for i in range(count)]
    raise DeviceError(f"the device {name!r} is not on this machine; it has {', '.join(here)}")


def read_tower(folder: Path) -> Tower:
    """A tower from `config.json` and `model.safetensors` as core/mini/package.py writes them, in float32."""
    from safetensors.torch import load_file

    from softprompt.encoders.clip.transformer import Block, Tower, TowerConfig

    config = TowerConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    blocks = [Block(**{field: tensors.pop(f"blocks.{i}.{field}") for field in Block._fields}) for i in range(config.layers)]
    return Tower(config, blocks=blocks, **tensors)


def _mini() -> TextEncoder:
    from softprompt.encoders.clip.text_encoder import Specials, TextEncoder
    from softprompt.encoders.clip.tokenizer import Tokenizer

    tokenizer = Tokenizer()
    try:
        with as_file(MINI_FOLDER) as folder:
            tower = read_tower(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(
            f"the built-in model's files are broken ({error}): pip install --force-reinstall softprompt-tui"
        ) from error
    return TextEncoder(MINI, tower, tokenizer, Specials((tokenizer.start,), (tokenizer.end,)))


def _from_open_clip(name: str, on_progress: Progress | None) -> TextEncoder:
    from softprompt.encoders.clip import openclip
    from softprompt.encoders.download import fetch

    if name.startswith(LOCAL):
        from softprompt.encoders.model_folder import find_weights, read_folder

        path = local_folder(name)
        folder = read_folder(f"{LOCAL}{path}", path)
        return openclip.load(folder.name, folder.config, lambda: find_weights(folder), folder)
    info = resolve(name)
    return openclip.load(info.name, _known_config(info), lambda: fetch(info, on_progress))


def pull(name: str, on_progress: Progress | None = None) -> Path:
    """Fetches all that loading the model of this name needs, its tokenizer too; returns the file of its weights."""
    from softprompt.encoders.download import fetch

    info = resolve(name)
    if info.tokenizer:
        from softprompt.encoders.clip.openclip import tokenizer_of  # torch, which fetching needs for nothing else

        tokenizer_of(info.name, _known_config(info)["text_cfg"])
    return fetch(info, on_progress)


def _known_config(info: ModelInfo) -> dict[str, Any]:
    """open_clip's configuration of a model that it knows by name, with the activation of its weights."""
    from open_clip.factory import get_model_config
    from open_clip.pretrained import get_pretrained_cfg

    model, _, tag = info.name.partition("/")
    config: dict[str, Any] = get_model_config(model)
    if get_pretrained_cfg(model, tag).get("quick_gelu"):
        config["quick_gelu"] = True
    return config


def local_folder(name: str) -> Path:
    """The folder that a `local-dir:` name means."""
    folder = Path(name.removeprefix(LOCAL))
    with suppress(RuntimeError):  # a ~user that does not exist stays as it is, and is then said not to be there
        folder = folder.expanduser()
    return folder.absolute()


def resolve(name: str) -> ModelInfo:
    """The model of this name as open_clip spells it; where a tag's weights want quickgelu, the model with that activation.

    Raises UnknownModel with close matches.
    """
    known = {info.name.lower(): info for info in list_models() if info.name != MINI}
    model, _, tag = name.lower().partition("/")
    wanted = f"{model}/{tag.replace('-', '_')}" if tag else model
    for candidate in (f"{model}{QUICK_GELU}/{tag.replace('-', '_')}", wanted):
        if candidate in known:
            return known[candidate]
    tagged = [info.name for lower, info in known.items() if lower.startswith(f"{model}/")]
    if tagged:
        raise UnknownModel(f"{name!r} names no weights that open_clip has; of this model there are: {', '.join(tagged[:8])}")
    spelled = {MINI: MINI} | {lower: info.name for lower, info in known.items()}
    close = [spelled[lower] for lower in get_close_matches(wanted, spelled, 4, 0.5)]
    hint = f"Close: {', '.join(close)}" if close else "`softprompt-tui models` lists all"
    raise UnknownModel(f"no model is named {name!r}. {hint}")
