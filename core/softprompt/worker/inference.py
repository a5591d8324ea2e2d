"""Answer queries that need a text encoder, on the trainer's thread and between training steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softprompt.encoders.catalog import MINI
from softprompt.errors import RunNotFound, WorkerError
from softprompt.worker.protocol import Neighbours, Request, Similarity

if TYPE_CHECKING:
    from torch import Tensor

    from softprompt.composition.composer import CompositionScore
    from softprompt.composition.sentence import ParsedPrompt
    from softprompt.prompts.soft_prompt import Array
    from softprompt.training.model_kinds import Model
    from softprompt.worker.active_run import ActiveRun, Services

MAX_NEIGHBOURS = 100


def answer_query(request: Request, services: Services) -> dict[str, Any]:
    """Return the answer to a query, ready for JSON. Raises SoftPromptError."""
    match request:
        case Similarity():
            return _answer_similarity(request, services)
        case Neighbours():
            return _answer_neighbours(request, services)
    raise WorkerError(f"{request.do} is not a query")


def _get_model(services: Services, model: str, device: str) -> Model:
    """Return the model. Raises Busy if loading it would stall an active run. `mini` loads in 0.25 s."""
    from softprompt.worker.active_run import Busy

    def check_idle(*_: int) -> None:
        if services.active and model.lower() != MINI:
            raise Busy(f"{model} is not loaded, and cannot be loaded while a run is training: try again later")

    assert services.models is not None
    if services.models.has(model, device):
        return services.models.get(model, device)
    check_idle()
    return services.models.get(model, device, on_progress=check_idle)  # a download makes way for a new run


def _answer_similarity(request: Similarity, services: Services) -> dict[str, Any]:
    from softprompt.composition.composer import compose, encode_compositions, score_compositions
    from softprompt.encoders.clip.text_encoder import as_text_encoder

    encoder = as_text_encoder(_get_model(services, request.model, request.device), "a comparison")
    opened = services.library.open(request.opened) if request.opened else None
    compositions = compose(encoder, request.texts, services.library.open, opened)
    embeddings = encode_compositions(encoder, compositions)
    references = [
        _describe_reference(parsed, score) if parsed.words else None
        for parsed, score in zip(
            compositions.parsed, score_compositions(encoder, compositions, embeddings), strict=True
        )
    ]
    return {
        "model": encoder.name,
        "room": encoder.max_prompt_tokens,
        "tokens": [len(row) for row in compositions.rows],
        "similarities": (embeddings @ embeddings.T).clamp(-1, 1).tolist(),
        "written_out": references,
    }


def _describe_reference(parsed: ParsedPrompt, score: CompositionScore) -> dict[str, Any]:
    return {
        "text": parsed.display_text if parsed.has_known_meaning else "",
        "tokens": score.reference_tokens,
        "saved": score.saved_tokens,
        "similarity": score.fidelity,
        "floor": score.floor,
        "mixed": score.mixed,
    }


def _answer_neighbours(request: Neighbours, services: Services) -> dict[str, Any]:
    from softprompt.encoders.clip.text_encoder import as_text_encoder
    from softprompt.evaluation.readout import read_out, readout_similarity

    if request.run:
        active = services.active.get(request.run)
        if active is None or active.vectors is None:
            raise RunNotFound(f"run {request.run[:40]} is not training: use its entry instead once the run is done")
        model, vectors = active.vectors
        target: Tensor | Array | None = _run_target(active, model)
    else:
        prompt = services.library.open(request.entry).prompt
        model, vectors = _get_model(services, prompt.model, "auto"), prompt.vectors
        model.check_compatible(prompt)
        target = prompt.target if prompt.target.size else None
    tokens, text = read_out(model, vectors, min(max(request.top, 1), MAX_NEIGHBOURS) - 1)
    readout = [
        [{"token": token.token, "cosine": token.cosine}, *(vars(near).copy() for near in token.alternatives)]
        for token in tokens
    ]
    similarity = None
    if target is not None:
        similarity = readout_similarity(as_text_encoder(model, "a readout's similarity"), text, target)
    return {"model": model.name, "readout_text": text, "readout_similarity": similarity, "neighbours": readout}


def _run_target(active: ActiveRun, model: Model) -> Tensor | None:
    """Return a run's training target, the same as its entry will store, or None for a language model."""
    from softprompt.encoders.clip.rows import ALONE
    from softprompt.encoders.clip.text_encoder import as_text_encoder
    from softprompt.objectives.hard_prompt import tokenize_target
    from softprompt.objectives.pooled import encode_target

    if model.kind == "causal":
        return None
    encoder = as_text_encoder(model, "a readout's similarity")
    if active.target is None:
        job = active.run.job
        active.target = encode_target(
            encoder, tokenize_target(encoder, job.prompt, job.meanings, job.config.long), [ALONE]
        )[0]
    target: Tensor = active.target
    return target
