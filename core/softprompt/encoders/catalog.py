"""The list of models that can be used: shape, size, on disk or not. Read from open_clip once, then kept in the cache folder."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from softprompt.errors import UnknownModel
from softprompt.system.paths import cache_folder

MINI = "mini"
MINI_FOLDER = files("softprompt") / "data" / "mini"
LOCAL = "local-dir:"  # before the path of a model in a folder
FORMAT = 1  # of the kept list


@dataclass(frozen=True)
class ModelInfo:
    """A model's text tower, and where its weights are: `repository` on the hub, any one of `files` in it, best first.

    `refused` says why a model cannot be used, or is empty. `tokenizer` is the hub's repository of a tokenizer that needs the
    package transformers, or empty. `parameters` are the text tower's.
    """

    name: str
    width: int
    layers: int
    context: int
    parameters: int
    repository: str = ""
    files: tuple[str, ...] = ()
    tokenizer: str = ""
    refused: str = ""

    @property
    def on_disk(self) -> Path | None:
        """The file of its weights, if it is here; `mini` is the package's own."""
        if self.name == MINI:
            return Path(str(MINI_FOLDER / "model.safetensors"))
        from huggingface_hub import try_to_load_from_cache

        found = (try_to_load_from_cache(self.repository, file) for file in self.files)
        return next((Path(path) for path in found if isinstance(path, str)), None)

    def as_dict(self) -> dict[str, object]:
        """Plain values for scripts and clients."""
        figures = {key: getattr(self, key) for key in ("name", "width", "layers", "context", "parameters")}
        return figures | {
            "on_disk": self.on_disk is not None,
            "needs_transformers": bool(self.tokenizer),
            "refused": self.refused or None,
        }


def is_kept() -> bool:
    """Whether `list_models` can answer without importing open_clip, which takes 5-8 s."""
    try:
        return _kept().is_file()
    except OSError:  # the cache folder is not for us to see
        return False


@lru_cache(maxsize=1)
def list_models() -> tuple[ModelInfo, ...]:
    """`mini`, then every model that open_clip has weights for, in its order."""
    path = _kept()
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return mini_model(), *(ModelInfo(**row | {"files": tuple(row["files"])}) for row in rows)
    except (OSError, ValueError, TypeError, KeyError):  # not there yet, or broken: it can be made again
        pass
    found = _read_open_clip()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
        partial.write_text(json.dumps([asdict(info) for info in found]), encoding="utf-8")
        partial.replace(path)
    except OSError:  # a cache that cannot be written costs seconds next time, nothing else
        pass
    return mini_model(), *found


def _kept() -> Path:
    from importlib.metadata import version

    return cache_folder() / f"models-{FORMAT}-{version('open_clip_torch')}.json"


def mini_model() -> ModelInfo:
    """The built-in one, which needs no list."""
    config = json.loads((MINI_FOLDER / "config.json").read_text(encoding="utf-8"))
    size = _size(
        config["width"],
        config["layers"],
        config["mlp_width"],
        config["vocabulary"],
        config["context"],
        config["embed_dim"],
    )
    return ModelInfo(MINI, config["width"], config["layers"], config["context"], size)


def _size(width: int, layers: int, mlp: int, vocabulary: int, positions: int, embed_dim: int) -> int:
    block = 4 * width * width + 4 * width + 2 * mlp * width + mlp + width + 4 * width
    return (vocabulary + positions) * width + layers * block + 2 * width + width * embed_dim


def _read_open_clip() -> list[ModelInfo]:
    from open_clip.factory import get_model_config
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained

    return [
        _info(model, tag, get_model_config(model), get_pretrained_cfg(model, tag)) for model, tag in list_pretrained()
    ]


def _info(model: str, tag: str, config: dict[str, Any], source: dict[str, Any]) -> ModelInfo:
    text = config["text_cfg"]
    repository, _, file = source.get("hf_hub", "").rpartition("/")
    file = file or "open_clip_pytorch_model.bin"
    safe = (
        "open_clip_model.safetensors"
        if file == "open_clip_pytorch_model.bin"
        else f"{file.rpartition('.')[0]}.safetensors"
    )
    files = (safe, file) if file.endswith((".bin", ".pth")) else (file,)
    hf_model = text.get("hf_model_name")
    width, layers, context = (
        text.get("width", 0 if hf_model else 512),
        text.get("layers", 0 if hf_model else 12),
        text.get("context_length", 77),
    )
    mlp = int(width * text.get("mlp_ratio", 4.0))
    size = _size(
        width, layers, mlp, text.get("vocab_size", 49408), context + bool(text.get("embed_cls")), config["embed_dim"]
    )
    return ModelInfo(
        name=f"{model}/{tag}",
        width=width,
        layers=layers,
        context=context,
        parameters=0 if hf_model else size,
        repository=repository,
        files=files,
        tokenizer="" if hf_model else text.get("hf_tokenizer_name") or "",
        refused=f"its text tower is the Hugging Face model {hf_model}" if hf_model else "",
    )


QUICK_GELU = "-quickgelu"


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
        raise UnknownModel(
            f"{name!r} names no weights that open_clip has; of this model there are: {', '.join(tagged[:8])}"
        )
    from difflib import get_close_matches

    spelled = {MINI: MINI} | {lower: info.name for lower, info in known.items()}
    close = [spelled[lower] for lower in get_close_matches(wanted, spelled, 4, 0.5)]
    hint = f"Close: {', '.join(close)}" if close else "`softprompt-tui models` lists all"
    raise UnknownModel(f"no model is named {name!r}. {hint}")
