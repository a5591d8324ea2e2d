"""Serialize a training state. `worker.run_recorder` and `batches.checkpoints` write the bytes to disk.

Format: the SHA-256 of the data in hex, then the data as safetensors, with the scalars as metadata.
"""

from __future__ import annotations

import hashlib
import json

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from softprompt.errors import EntryDamaged
from softprompt.library.entry import Entry, pack, unpack
from softprompt.library.header import read_header
from softprompt.training.optimizer import BatchedAdam
from softprompt.training.task import TrainingState

_DIGEST_LENGTH = 64
_BEST_KEY = "best prompt"  # the best result among the token counts tried so far, as the bytes of an entry


def to_bytes(state: TrainingState) -> bytes:
    tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
    if state.best is not None:
        tensors[_BEST_KEY] = torch.frombuffer(bytearray(pack(Entry("0" * 16, 1, state.best))), dtype=torch.uint8)
    numbers = {
        "step": state.step,
        "seconds": state.seconds,
        "tokens": state.tokens,
        "threads": state.threads,
        "run": state.run,
    }
    raw: bytes = save(tensors, {"state": json.dumps(numbers)})
    return hashlib.sha256(raw).hexdigest().encode() + raw


def from_bytes(data: bytes, where: str) -> TrainingState:
    """Restore a state saved by `to_bytes`. Raises EntryDamaged, naming `where`, if the bytes are damaged."""
    digest, raw = data[:_DIGEST_LENGTH], data[_DIGEST_LENGTH:]
    if hashlib.sha256(raw).hexdigest().encode() != digest:
        raise EntryDamaged(f"{where} is damaged: its bytes do not match its checksum")
    try:
        tensors = load(raw)
        numbers = json.loads(read_header(raw, where)["__metadata__"]["state"])
        best = tensors.pop(_BEST_KEY, None)
        return TrainingState(
            int(numbers["step"]), float(numbers["seconds"]), int(numbers["tokens"]),
            {name: tensors[name] for name in (*BatchedAdam.STATE_KEYS, "history")},
            None if best is None else unpack(best.numpy().tobytes(), where).prompt,
            int(numbers.get("threads", 0)), str(numbers.get("run", "")),  # an older version stored neither
        )  # fmt: skip
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise EntryDamaged(f"{where} is not a checkpoint that this version can read ({error})") from error
