"""The soft prompt: k vectors and their provenance. Needs numpy, but not torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from softprompt.arguments import checked, checked_fields, convert_fields
from softprompt.errors import (
    ArgumentError,
    ExportRefused,
    FileInTheWay,
    FileRefused,
    describe_error,
    shorten,
    without_stop,
)
from softprompt.prompts import html, optional_packages, prompt_file
from softprompt.prompts.lineage import Ancestor as Ancestor
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.results import AnswerFidelity, ContextFidelity, ExampleFidelity, HardReadout, ReadoutToken
from softprompt.prompts.safetensors_header import EMB_PARAMS
from softprompt.prompts.serialization import (
    answers_as_dict,
    check_finite,
    check_shapes,
    examples_as_dict,
    fidelity_as_dict,
    parse_fields,
    readout_token_as_dict,
)
from softprompt.prompts.tensors import MAX_TENSOR_BYTES
from softprompt.prompts.validation import check_source_size
from softprompt.prompts.values import Array as Array
from softprompt.prompts.values import ComparedByValue, ReadOnlyDict, are_equal, as_read_only
from softprompt.prompts.visible_text import format_number, quote, short_repr
from softprompt.system.files import read_chosen_file, write_chosen_file
from softprompt.system.paths import expand_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

_ARRAYS = ("vectors", *prompt_file.EXTRA_TENSORS)
_DICTS = ("config", "versions", "hidden", "source")
MAX_PATH_SHOWN = 300  # characters of a path in a message
# errors that invalid values cause while they are read or written
_VALUE_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)


@checked_fields
@dataclass(frozen=True, eq=False, repr=False)
class SoftPrompt(ComparedByValue):
    """An immutable soft prompt with its provenance.

    Two soft prompts are equal if all their fields are equal. The arrays and dicts are read-only. `len(prompt)` is the
    number of soft tokens, and `np.asarray(prompt)` and `torch.as_tensor(prompt)` are the vectors.

    The provenance of an imported soft prompt can be incomplete: unknown values are "", None or an empty tensor.

    Attributes:
        hard_prompt: the prompt it stands for; for a mix, a readable summary.
        model, model_fingerprint: the model's name, and a digest of its weights, because models with the same name can
            differ.
        vectors: (tokens, width) float32, the soft tokens.
        target: (embed_dim,) float32, of unit length, the embedding of the hard prompt.
        losses, similarities: (steps,) float32, the training curve.
        similarity: cosine of the pooled embeddings of the soft prompt and of the hard prompt.
        composition: fidelity in contexts, or None if the prompt fits into no context.
        loss: the lowest loss, which is that of the vectors.
        stopped: why training ended: "steps", "stop_at", "patience", "interrupted" or "failed".
        readout, readout_text, readout_similarity: the vocabulary token nearest to each soft token, these tokens as
            text, and the similarity of that text to the hard prompt.
        config: the settings, as `TrainConfig.as_dict` returns them.
        warnings: what to know about this training, such as contexts that were left out.
        versions, device, created: the versions of the packages, the device and the time of the training.
        name: its name in a library, or "".
        hidden: hidden-state similarity for each family of image programs.
        ancestry: the soft prompts that it was made from.
        source: metadata of the imported file.
        meanings: the weighted texts of a mix; () for a single prompt.
        hard: the hard readout, if one was saved with it.
        answers: for a language model, how well it answers with the soft prompt; `similarity` is then the agreement,
            `loss` a KL divergence, and `target` empty. None for a text encoder.
        examples: if it was tuned on examples, how well the model gives the outputs of held-out ones. `similarity` is
            then the share of right answers, `loss` a cross-entropy, `hard_prompt` a readable summary, and `target`
            empty.
    """

    hard_prompt: str
    model: str
    model_fingerprint: str
    vectors: Array
    target: Array
    losses: Array
    similarities: Array
    similarity: float | None
    composition: ContextFidelity | None
    loss: float | None
    steps: int
    seconds: float
    stopped: str
    readout: tuple[ReadoutToken, ...]
    readout_text: str
    readout_similarity: float | None
    config: dict[str, Any]
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))
    name: str = ""
    hidden: dict[str, float] = field(default_factory=dict)
    ancestry: tuple[Ancestor, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    meanings: tuple[WeightedText, ...] = ()
    hard: HardReadout | None = None
    answers: AnswerFidelity | None = None
    examples: ExampleFidelity | None = None

    def __post_init__(self) -> None:
        convert_fields(self, skipped=_ARRAYS)
        for name in _ARRAYS:
            object.__setattr__(self, name, as_read_only(f"SoftPrompt.{name}", getattr(self, name)))
        for name in _DICTS:
            object.__setattr__(self, name, ReadOnlyDict(getattr(self, name)))
        try:
            check_shapes(self.vectors, self.target, self.losses, self.similarities)
            check_finite(vectors=self.vectors, target=self.target)
        except ValueError as error:
            raise ArgumentError(str(error)) from error

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy or an unpickled soft prompt. Pickle and `copy.deepcopy` make arrays writable."""
        self.__dict__.update(state)
        self.__post_init__()

    _hashed = ("name", "hard_prompt", "model_fingerprint", "created")

    @property
    def reference_texts(self) -> tuple[WeightedText, ...]:
        """The texts that the soft prompt stands for, with weights that sum to 1, or () if unknown."""
        return self.meanings or ((WeightedText(self.hard_prompt, 1.0),) if self.hard_prompt else ())

    @property
    def is_for_language_model(self) -> bool:
        """Whether it was trained for a language model, so that `similarity` is a share and there is no target."""
        return self.answers is not None or self.examples is not None

    @property
    def tokens(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def extra_tensors(self) -> dict[str, Array]:
        """The target, losses and similarities by name."""
        return {name: getattr(self, name) for name in prompt_file.EXTRA_TENSORS}

    @checked
    def named(self, name: str) -> SoftPrompt:
        """Return a copy with this name."""
        return replace(self, name=name)

    # as vectors

    def __len__(self) -> int:
        return self.tokens

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is None:  # numpy 1 does not know this value of its own protocol
            return np.asarray(self.vectors, dtype=dtype)
        return np.array(self.vectors, dtype=dtype, copy=copy)

    def __dlpack__(self, **_options: Any) -> Any:
        """Export a copy of the vectors, for torch: a tensor that shares the vectors' memory could change them."""
        return self.vectors.copy().__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.vectors.__dlpack_device__()

    # as a file

    @checked
    def save(self, path: Path | str, *, overwrite: bool = False) -> Path:
        """Write a file that `SoftPrompt.load` reads without losing a bit. Return its path.

        The file is written completely or not at all. It is a safetensors file with the vectors under "emb_params", so
        AUTOMATIC1111, ComfyUI, diffusers and kohya read it too, and `softprompt.import_files` adds it to a library.

        Args:
            path: a path that ends in .safetensors.
            overwrite: whether to replace an existing file. Anything but a regular file is never replaced.

        Raises:
            FileInTheWay: the file exists.
            ExportRefused: the path is unusable, or the file could not be read again. Nothing was written.

        Example:
            prompt.save("fox.safetensors")
            SoftPrompt.load("fox.safetensors") == prompt  # True
        """
        path = expand_path(path)
        shown = shorten(str(path), MAX_PATH_SHOWN)
        if _is_folder(path):
            raise ExportRefused(f"{shown} is a folder. Use the path of a file, such as {path / 'fox.safetensors'}.")
        if path.name == prompt_file.SUFFIX:
            raise ExportRefused(f"the file {shown} has only a suffix. Use a name such as fox{prompt_file.SUFFIX}.")
        if path.suffix != prompt_file.SUFFIX:
            raise ExportRefused(
                f"the file name {shorten(path.name)!r} must end in {prompt_file.SUFFIX}. "
                f"Use {shorten(path.stem)}{prompt_file.SUFFIX}."
            )
        data = self._encode_verified()
        try:
            write_chosen_file(path, data, overwrite)
        except FileExistsError as error:
            raise FileInTheWay(f"{shown} already exists. Use overwrite=True to replace it, or another path.") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else describe_error(error)
            raise ExportRefused(f"cannot write {shown}: {reason}. Nothing was written. Use another path.") from error
        return path

    @classmethod
    @checked
    def load(cls, path: Path | str) -> SoftPrompt:
        """Read a file of `SoftPrompt.save`, or an export of `softprompt-tui export --to safetensors`.

        Raises:
            FileRefused: the file is missing or damaged, or another program wrote it. Read other programs' files with
                `softprompt.import_files`.
        """
        path = expand_path(path)
        shown = shorten(str(path), MAX_PATH_SHOWN)
        try:
            raw = read_chosen_file(path, MAX_TENSOR_BYTES)
        except FileNotFoundError as error:
            is_name = path.name == str(path) and not path.suffix
            advice = f"For a soft prompt of the library, use Library()[{shown!r}]" if is_name else "Check the path"
            raise FileRefused(f"{shown} does not exist. {advice}.") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else describe_error(error)
            raise FileRefused(f"cannot read {shown}: {reason}. Use a file that SoftPrompt.save wrote.") from error
        try:
            return cls._decode(raw)
        except FileRefused as error:
            raise FileRefused(
                f"cannot load {shown}: {without_stop(error)}. Use softprompt.import_files for files of other programs."
            ) from error

    def _encode_verified(self) -> bytes:
        """Return the bytes of the file, after reading them again. Raises ExportRefused if a value would be lost."""
        label = f"the soft prompt {quote(self.name)}" if self.name else "the soft prompt"
        try:
            raw = prompt_file.encode(
                {EMB_PARAMS: self.vectors}, self.as_dict(), prompt_file.pack_tensors(self.extra_tensors)
            )
            again = self._decode(raw)
        except (*_VALUE_ERRORS, FileRefused) as error:
            raise ExportRefused(f"cannot save {label}: {without_stop(describe_error(error))}") from error
        for name in (own.name for own in fields(self)):
            if not are_equal(getattr(self, name), getattr(again, name)):
                raise ExportRefused(
                    f"cannot save {label}: a file cannot hold its {name}. Use plain strings, numbers, lists and dicts."
                )
        return raw

    @classmethod
    def _decode(cls, raw: bytes) -> SoftPrompt:
        """Read the bytes of a file. Raises FileRefused."""
        values, vectors, extra = prompt_file.decode(raw)
        try:
            prompt = cls.from_dict(values, vectors, **extra)
            check_source_size(prompt.source)
        except _VALUE_ERRORS as error:
            raise FileRefused(f"it is damaged: {type(error).__name__}: {describe_error(error)}") from error
        return prompt

    def as_dict(self) -> dict[str, Any]:
        """Return everything except the tensors as JSON values."""
        values: dict[str, Any] = {
            "name": self.name,
            "hard_prompt": self.hard_prompt,
            "model": self.model,
            "model_fingerprint": self.model_fingerprint,
            "tokens": self.tokens,
            "similarity": self.similarity,
            "composition": None if self.composition is None else fidelity_as_dict(self.composition),
            "loss": self.loss,
            "steps": self.steps,
            "seconds": self.seconds,
            "steps_per_second": self.steps_per_second,
            "stopped": self.stopped,
            "readout": [readout_token_as_dict(token) for token in self.readout],
            "readout_text": self.readout_text,
            "readout_similarity": self.readout_similarity,
            "created": self.created,
            "device": self.device,
            "config": self.config.copy(),
            "versions": self.versions.copy(),
            "warnings": list(self.warnings),
            "hidden": self.hidden.copy(),
            "ancestry": [vars(ancestor).copy() for ancestor in self.ancestry],
            "source": self.source.copy(),
            "meanings": [vars(meaning).copy() for meaning in self.meanings],
            "hard": None if self.hard is None else vars(self.hard).copy(),
        }
        if self.answers is not None:
            values["answers"] = answers_as_dict(self.answers)
        if self.examples is not None:
            values["examples"] = examples_as_dict(self.examples)
        return values

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], vectors: Array, target: Array, losses: Array, similarities: Array
    ) -> SoftPrompt:
        """Create a soft prompt from the values of `as_dict` and its tensors.

        Raises KeyError, TypeError or ValueError for invalid values.
        """
        check_shapes(vectors, target, losses, similarities)
        check_finite(vectors=vectors, target=target, losses=losses, similarities=similarities)
        return cls(
            vectors=vectors, target=target, losses=losses, similarities=similarities, **parse_fields(dict(values))
        )

    # for people

    def __repr__(self) -> str:
        return short_repr(
            "SoftPrompt",
            self.hard_prompt or "hard prompt unknown",
            tokens=self.tokens if self.vectors.ndim else 0,
            model=self.model,
            similarity=self.similarity,
            name=self.name,
        )

    def _repr_html_(self) -> str:
        return html.show_block(self._describe())

    def _describe(self) -> html.PromptBlock:
        """Return what a notebook shows."""
        fidelity = self.composition
        return html.PromptBlock(
            title=self.name or "Soft prompt",
            text=self.hard_prompt or "hard prompt unknown",
            figures={
                "model": self.model or "unknown",
                "soft tokens": self.tokens,
                "similarity": self.similarity,
                "composed": fidelity.mean if fidelity else None,
                "worst": fidelity.worst if fidelity else None,
                "floor": fidelity.floor if fidelity else None,
                "steps": self.steps or None,
                "seconds": format_number(self.seconds, 1) if self.seconds else None,
            },
            readout=[
                (token.token, token.cosine, [neighbour.token for neighbour in token.alternatives])
                for token in self.readout
            ],
            readout_text=self.readout_text,
            readout_similarity=self.readout_similarity,
            losses=self.losses.tolist(),
            notes=self.warnings,
        )

    @checked
    def to_dataframe(self) -> DataFrame:
        """Return the training curve as a pandas table with the columns step, loss and similarity.

        Raises:
            MissingPackage: pandas is not installed.
        """
        steps = np.arange(1, len(self.losses) + 1)
        return optional_packages.data_frame(
            {"step": steps, "loss": self.losses.copy(), "similarity": self.similarities.copy()}
        )

    @checked
    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the training curve with matplotlib: the loss on a log scale, and the similarity.

        `prompt.plot().figure.savefig("curve.png")` saves the picture.

        Args:
            ax: the axes to draw on, by default those of a new figure.

        Raises:
            MissingPackage: matplotlib is not installed; `pip install matplotlib` installs it.
        """
        return optional_packages.plot_curve(ax, self.name or self.hard_prompt, self.losses, self.similarities)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # for example, the name is too long: writing reports the reason
        return False
