"""The list of models and their sizes, read from open_clip once and then cached in a file."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from softprompt.errors import ModelUnavailable, UnknownModel, command, describe_error_with_type
from softprompt.system.paths import cache_folder
from softprompt.text_states import ImageProgram, families_reading

MINI = "mini"
MINI_FOLDER = files("softprompt") / "data" / "mini"
LOCAL_PREFIX = "local-dir:"  # followed by the path of a model folder
QUICK_GELU = "-quickgelu"
CACHE_FORMAT = 1  # appears in the cache file's name


@dataclass(frozen=True)
class ModelInfo:
    """A model's text tower and where to download it.

    Attributes:
        context: the context length.
        parameters: number of parameters of the text tower.
        repository: on the Hugging Face hub.
        files: possible names of the weights file in the repository, in order of preference.
        tokenizer: hub repository of a tokenizer that needs the transformers package, or "".
        refused: why this model cannot be used, or "".
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
    def weights_path(self) -> Path | None:
        """Path of the weights, or None if they are not on disk."""
        if self.name == MINI:
            return Path(str(MINI_FOLDER / "model.safetensors"))
        from huggingface_hub import try_to_load_from_cache

        cached = (try_to_load_from_cache(self.repository, file) for file in self.files)
        return next((Path(path) for path in cached if isinstance(path, str)), None)

    @property
    def read_by(self) -> tuple[ImageProgram, ...]:
        """The image programs that use this text encoder, such as "sd1" and "sdxl"."""
        return families_reading(self.name) or families_reading(quick_gelu_name(self.name))

    def as_dict(self, on_disk: bool | None = None) -> dict[str, object]:
        """Return the values for JSON output and clients.

        Args:
            on_disk: whether the weights are on disk. By default, this looks for them.
        """
        sizes = {key: getattr(self, key) for key in ("name", "width", "layers", "context", "parameters")}
        return sizes | {
            "on_disk": self.weights_path is not None if on_disk is None else on_disk,
            "needs_transformers": bool(self.tokenizer),
            "refused": self.refused or None,
            "read_by": list(self.read_by),
        }


def is_cached() -> bool:
    """Return whether the list is on disk. If not, `list_models` imports open_clip, which takes 5-8 s."""
    try:
        return _cache_path().is_file()
    except OSError:  # no permission to read the cache folder
        return False


@lru_cache(maxsize=1)
def list_models() -> tuple[ModelInfo, ...]:
    """Return `mini`, then all models for which open_clip has weights, in open_clip's order."""
    path = _cache_path()
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return mini_model(), *(ModelInfo(**row | {"files": tuple(row["files"])}) for row in rows)
    except (OSError, ValueError, TypeError, KeyError):  # the file is missing or damaged: read the list from open_clip
        pass
    models = _read_open_clip()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
        partial.write_text(json.dumps([asdict(info) for info in models]), encoding="utf-8")
        partial.replace(path)
    except OSError:  # without a cache file, the next process takes seconds again
        pass
    return mini_model(), *models


def _cache_path() -> Path:
    from importlib.metadata import version

    return cache_folder() / f"models-{CACHE_FORMAT}-{version('open_clip_torch')}.json"


def mini_model() -> ModelInfo:
    """Return the built-in model."""
    config = json.loads((MINI_FOLDER / "config.json").read_text(encoding="utf-8"))
    parameters = _count_parameters(
        config["width"],
        config["layers"],
        config["mlp_width"],
        config["vocabulary"],
        config["context"],
        config["embed_dim"],
    )
    return ModelInfo(MINI, config["width"], config["layers"], config["context"], parameters)


def _count_parameters(width: int, layers: int, mlp: int, vocabulary: int, positions: int, embed_dim: int) -> int:
    block = 4 * width * width + 4 * width + 2 * mlp * width + mlp + width + 4 * width
    return (vocabulary + positions) * width + layers * block + 2 * width + width * embed_dim


def check_open_clip() -> None:
    """Import open_clip.

    Raises:
        ModelUnavailable: the import fails, as it does if torchvision was built for another torch.
    """
    try:
        import open_clip  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelUnavailable(
            f"open_clip cannot be imported: {describe_error_with_type(error)}. It needs a torchvision built for the "
            "installed torch. Install both in one command, from one index. The model mini works without torchvision."
        ) from error


def _read_open_clip() -> list[ModelInfo]:
    check_open_clip()
    from open_clip.factory import get_model_config
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained

    return [
        _model_info(model, tag, get_model_config(model), get_pretrained_cfg(model, tag))
        for model, tag in list_pretrained()
    ]


def _model_info(model: str, tag: str, config: dict[str, Any], source: dict[str, Any]) -> ModelInfo:
    text = config["text_cfg"]
    repository, _, file = source.get("hf_hub", "").rpartition("/")
    file = file or "open_clip_pytorch_model.bin"
    safetensors = (
        "open_clip_model.safetensors"
        if file == "open_clip_pytorch_model.bin"
        else f"{file.rpartition('.')[0]}.safetensors"
    )
    files = (safetensors, file) if file.endswith((".bin", ".pth")) else (file,)
    hf_model = text.get("hf_model_name")
    width, layers, context = (
        text.get("width", 0 if hf_model else 512),
        text.get("layers", 0 if hf_model else 12),
        text.get("context_length", 77),
    )
    mlp = int(width * text.get("mlp_ratio", 4.0))
    parameters = _count_parameters(
        width, layers, mlp, text.get("vocab_size", 49408), context + bool(text.get("embed_cls")), config["embed_dim"]
    )
    return ModelInfo(
        name=f"{model}/{tag}",
        width=width,
        layers=layers,
        context=context,
        parameters=0 if hf_model else parameters,
        repository=repository,
        files=files,
        tokenizer="" if hf_model else text.get("hf_tokenizer_name") or "",
        refused=f"its text tower is the Hugging Face model {hf_model}" if hf_model else "",
    )


def quick_gelu_name(name: str) -> str:
    """Return the name of the `-quickgelu` variant of a model. There may be no such variant."""
    model, slash, tag = name.partition("/")
    return f"{model}{QUICK_GELU}{slash}{tag}"


def resolve(name: str) -> ModelInfo:
    """Find a model by name, ignoring case and treating "-" and "_" in the tag alike.

    Prefers the `-quickgelu` variant of the model if it has this tag, because these weights were trained with that
    activation.

    Raises:
        UnknownModel: no model has this name. The message lists close matches.
    """
    by_name = {info.name.lower(): info for info in list_models() if info.name != MINI}
    model, _, tag = name.lower().partition("/")
    spelling = f"{model}/{tag.replace('-', '_')}" if tag else model
    for candidate in (f"{model}{QUICK_GELU}/{tag.replace('-', '_')}", spelling):
        if candidate in by_name:
            return by_name[candidate]
    tagged = [info.name for lower, info in by_name.items() if lower.startswith(f"{model}/")]
    if tagged:
        raise UnknownModel(f"open_clip has no weights named {name!r}. It has {', '.join(tagged[:8])}.")
    from difflib import get_close_matches

    spelled = {MINI: MINI} | {lower: info.name for lower, info in by_name.items()}
    close = [spelled[lower] for lower in get_close_matches(spelling, spelled, 4, 0.5)]
    hint = f"Close: {', '.join(close)}" if close else f"{command('models', 'softprompt.list_models()')} lists all"
    raise UnknownModel(f"no model is named {name!r}. {hint}.")
