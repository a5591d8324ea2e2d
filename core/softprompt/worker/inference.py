"""Questions that need a text encoder, answered by the thread that trains, between two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softprompt.encoders.catalog import MINI
from softprompt.errors import RunNotFound, WorkerError
from softprompt.worker.protocol import Neighbours, Request, Similarity

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.composition.composer import CompositionScore
    from softprompt.composition.sentence import ParsedPrompt
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.prompts.soft_prompt import Array
    from softprompt.worker.active_run import ActiveRun, Services

MAX_NEIGHBOURS = 100


def answer(request: Request, services: Services) -> dict[str, Any]:
    """The reply to a question, as plain values. Raises SoftPromptError."""
    match request:
        case Similarity():
            return _similarity(request, services)
        case Neighbours():
            return _neighbours(request, services)
    raise WorkerError(f"{request.do} is no question")


def _encoder(services: Services, model: str, device: str) -> TextEncoder:
    """The model, if it is loaded or can be without stalling a training; `mini` loads in a quarter of a second."""
    from softprompt.worker.active_run import Busy

    assert services.models is not None
    if services.active and model.lower() != MINI and not services.models.has(model, device):
        raise Busy(f"{model} is not loaded, and a training is under way: ask again when it is done")
    return services.models.get(model, device)


def _similarity(request: Similarity, services: Services) -> dict[str, Any]:
    from softprompt.composition.composer import compose, figures, pooled

    encoder = _encoder(services, request.model, request.device)
    opened = services.library.open(request.opened) if request.opened else None
    made = compose(encoder, request.texts, services.library.open, opened)
    ours = pooled(encoder, made)
    told = [_told(sentence, found) if sentence.words else None
            for sentence, found in zip(made.sentences, figures(encoder, made, ours), strict=True)]  # fmt: skip
    return {
        "model": encoder.name,
        "room": encoder.max_prompt_tokens,
        "tokens": [len(row) for row in made.rows],
        "similarities": (ours @ ours.T).clamp(-1, 1).tolist(),
        "written_out": told,
    }


def _told(sentence: ParsedPrompt, found: CompositionScore) -> dict[str, Any]:
    return {
        "text": sentence.readable if sentence.known else "",
        "tokens": found.written_tokens,
        "saved": found.saved,
        "similarity": found.fidelity,
        "floor": found.floor,
        "mixed": found.mixed,
    }


def _neighbours(request: Neighbours, services: Services) -> dict[str, Any]:
    from softprompt.evaluation.readout import read_out, readout_similarity

    if request.run:
        active = services.active.get(request.run)
        if active is None or active.vectors is None:
            raise RunNotFound(f"run {request.run[:40]} is not training: ask for its entry when it is done")
        encoder, vectors = active.vectors
        target: Tensor | Array | None = _target(active, encoder)
    else:
        prompt = services.library.open(request.entry).prompt
        encoder, vectors = _encoder(services, prompt.model, "auto"), prompt.vectors
        encoder.check_belongs(prompt)
        target = prompt.target if prompt.target.size else None
    tokens, text = read_out(encoder, vectors, min(max(request.top, 1), MAX_NEIGHBOURS) - 1)
    readout = [
        [{"token": read.token, "cosine": read.cosine}, *(vars(near).copy() for near in read.alternatives)]
        for read in tokens
    ]
    similarity = None if target is None else readout_similarity(encoder, text, target)
    return {"model": encoder.name, "readout_text": text, "readout_similarity": similarity, "neighbours": readout}


def _target(active: ActiveRun, encoder: TextEncoder) -> Tensor:
    """What a run is trained on, as its entry will have it; the same for all of its run."""
    from softprompt.encoders.clip.rows import ALONE
    from softprompt.objectives.hard_prompt import tokenize_target
    from softprompt.objectives.pooled import encode_targets_in

    if active.target is None:
        job = active.run.job
        active.target = encode_targets_in(
            encoder, tokenize_target(encoder, job.prompt, job.meanings, job.config.long), [ALONE]
        )[0]
    target: Tensor = active.target
    return target
