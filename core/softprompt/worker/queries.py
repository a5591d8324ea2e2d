"""Questions that need a text encoder, answered by the thread that trains, between two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softprompt.catalogue import MINI
from softprompt.errors import RunNotFound, WorkerError
from softprompt.worker.protocol import Neighbours, Request, Similarity

if TYPE_CHECKING:
    from softprompt.encoder import TextEncoder
    from softprompt.worker.engine import Engine

MOST_NEIGHBOURS = 100


def answer(request: Request, engine: Engine) -> dict[str, Any]:
    """The reply to a question, as plain values. Raises SoftPromptError."""
    match request:
        case Similarity():
            return _similarity(request, engine)
        case Neighbours():
            return _neighbours(request, engine)
    raise WorkerError(f"{request.do} is no question")


def _encoder(engine: Engine, model: str, device: str) -> TextEncoder:
    """The model, if it is loaded or can be without stalling a training; `mini` loads in a quarter of a second."""
    from softprompt.worker.engine import Busy

    assert engine.warm is not None
    if engine.training is not None and model.lower() != MINI and not engine.warm.has(model, device):
        raise Busy(f"{model} is not loaded, and a training is under way: ask again when it is done")
    return engine.warm.get(model, device)


def _similarity(request: Similarity, engine: Engine) -> dict[str, Any]:
    from softprompt.composing import compose

    encoder = _encoder(engine, request.model, request.device)
    opened = engine.library.open(request.opened).prompt if request.opened else None
    made = compose(encoder, request.texts, lambda name: engine.library.open(name).prompt, opened)
    mixed = [i for i, row in enumerate(made.rows) if any(token < 0 for token in row)]
    pooled = encoder.encode_rows(made.rows, made.vectors)
    written_out: list[dict[str, Any] | None] = [None] * len(request.texts)
    for i in mixed:
        ids = encoder.tokenizer.encode(made.written_out[i])
        likeness = None  # the sentence written out may be too long for the model: that is what soft prompts are for
        if len(ids) <= encoder.room:
            likeness = float(encoder.encode_rows([ids])[0] @ pooled[i])
        written_out[i] = {"text": made.written_out[i], "tokens": len(ids), "similarity": likeness}
    return {
        "model": encoder.name,
        "room": encoder.room,
        "tokens": [len(row) for row in made.rows],
        "similarities": (pooled @ pooled.T).clamp(-1, 1).tolist(),
        "written_out": written_out,
    }


def _neighbours(request: Neighbours, engine: Engine) -> dict[str, Any]:
    from softprompt.readout import read_out

    if request.run:
        training = engine.training
        if training is None or training.folder.id != request.run or training.vectors is None:
            raise RunNotFound(f"run {request.run[:40]} is not training: ask for its entry when it is done")
        encoder, vectors = training.vectors
    else:
        prompt = engine.library.open(request.entry).prompt
        encoder, vectors = _encoder(engine, prompt.model, "auto"), prompt.vectors
        encoder.check_belongs(prompt)
    tokens, text = read_out(encoder, vectors, min(max(request.top, 1), MOST_NEIGHBOURS) - 1)
    readout = [
        [{"token": read.token, "cosine": read.cosine}, *(vars(near).copy() for near in read.alternatives)] for read in tokens
    ]
    return {"model": encoder.name, "readout_text": text, "neighbours": readout}
