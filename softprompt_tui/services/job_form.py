"""Turn the typed fields into a training job. Error messages name the field."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from softprompt.config import AUTO_KL_SHARE, AUTO_STOP_AT, MAX_SWEPT_COUNTS, HardConfig, config_for
from softprompt.encoders.catalog import LOCAL_PREFIX, find_local, model_kind
from softprompt.errors import ConfigError, shorten
from softprompt.jobs.job import SweepJob, TrainJob, saved_config
from softprompt.jobs.parsing import LIST_SEPARATOR, NO_WORDS, YES_WORDS, split_list
from softprompt.prompts.contexts import TRAINING_CONTEXTS
from softprompt.prompts.questions import read_questions
from softprompt_tui.state.fields import CAUSAL_SWEEP, DEFAULT_SWEEP, changed_settings

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.prompts.syntax import PreparedPrompt
    from softprompt_tui.state.settings import Form

MAX_SHOWN = 40  # characters of a refused value


def prepare_typed_prompt(prompt: str, more: dict[str, str]) -> PreparedPrompt:
    """Return the prompt to train and the image-program syntax in it.

    Raises:
        ConfigError: the field `plain` is neither yes nor no.
    """
    from softprompt.prompts.syntax import prepare_prompt  # compiles its patterns on import

    plain = more.get("plain", "no").lower()
    if plain not in (*YES_WORDS, *NO_WORDS, ""):
        raise ConfigError(
            f"plain is {more['plain']!r}. Use yes to remove weights, LoRA tags and wildcards, or no to leave "
            f"them{_key_hint('plain')}."
        )
    return prepare_prompt(prompt, plain in YES_WORDS)


def job_from_form(form: Form, more: dict[str, str]) -> TrainJob:
    """Return the training job for the typed fields.

    Raises:
        ConfigError, PromptError, BadName: a field is wrong.
    """
    fields, settings = form.fields, dict[str, Any]()
    model = fields["model"] or "mini"
    if (path := find_local(model)) is not None:
        model = f"{LOCAL_PREFIX}{path}"
    kind = model_kind(model)
    more = changed_settings(more, kind)  # those of another kind of model wait for one
    tokens = fields["tokens"].lower()
    if tokens:
        settings["tokens"] = "auto" if tokens == "auto" else _parse_int("tokens", tokens)
    if fields["steps"]:
        settings["steps"] = _parse_int("steps", fields["steps"])
    if fields["stop_at"]:
        settings["stop_at"] = _parse_float("stop at", fields["stop_at"])
    elif tokens == "auto":
        settings["stop_at"] = AUTO_STOP_AT if kind == "text" else AUTO_KL_SHARE
    contexts = fields["contexts"]
    if contexts.lower() in NO_WORDS:
        settings["contexts"] = ()
    elif contexts.lower() not in (*YES_WORDS, ""):
        settings["contexts"] = split_list(contexts)
        if not all("{}" in context for context in settings["contexts"]):
            raise ConfigError(
                f"contexts is {contexts!r}. Use yes (train inside sentences too), no (train alone), or your own "
                "sentences, such as a photo of {} | {} at night."
            )
    prompt = prepare_typed_prompt(form.prompt, more).text
    for name in ("restarts", "seed", "patience", "self_study"):
        if more.get(name):
            settings[name] = _parse_int(name, more[name])
    if more.get("rate"):
        settings["rate"] = _parse_float("rate", more["rate"])
    if more.get("share"):
        settings["hidden_share"] = _parse_float("share", more["share"])
    settings |= {name: more[name] for name in ("init", "objective", "family", "long", "placement") if more.get(name)}
    if more.get("questions"):
        settings["questions"] = read_questions(more["questions"])
    if more.get("against"):
        settings["against"] = split_list(more["against"])
    norms = more.get("norms", "held")
    if norms not in ("held", "free"):
        raise ConfigError(
            f"norms is {norms!r}. Use held to keep every soft token no longer than a typical word's vector, or "
            "free to let it grow."
        )
    settings["project_norm"] = norms == "held"
    precision = more.get("precision") or "float32"
    hard = None if more.get("hard", "no").lower() in (*NO_WORDS, "") else hard_config_from_fields(more)
    return TrainJob(
        prompt,
        config_for(kind, settings),
        model,
        fields["device"] or "auto",
        precision,
        more.get("name", ""),
        hard=hard,
    )


def sweep_from_form(form: Form, more: dict[str, str]) -> SweepJob:
    """Return the sweep over several token counts for the typed fields. Raises the same errors as `job_from_form`."""
    fields, token_counts = form.fields, parse_token_counts(more.get("sweep") or default_sweep(form.fields["model"]))
    # with tokens "auto", stop_at is the similarity to reach; it must not stop a sweep early
    stop_at = fields["stop_at"] if fields["tokens"].lower() != "auto" else ""
    job = job_from_form(
        form._replace(fields=fields | {"tokens": f"{token_counts[-1]}", "stop_at": stop_at}), more | {"hard": ""}
    )
    return SweepJob(job.prompt, job.config, job.model, job.device, job.precision, job.name, sweep=token_counts)


def default_sweep(model: str) -> str:
    """Return the token counts to try for a model. Those of a language model take minutes each."""
    return CAUSAL_SWEEP if model_kind(model) == "causal" else DEFAULT_SWEEP


def parse_token_counts(text: str) -> tuple[int, ...]:
    """Parse token counts such as 1-16, 1,2,4,8 or a mix of both. Return them in ascending order.

    Raises:
        ConfigError: the text is not such a list, or has too many counts.
    """
    counts: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d{1,4})(?:\s*-\s*(\d{1,4}))?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise ConfigError(
                f"the token counts are {text!r}. Use a range such as 1-16, or single counts such as 1,2,4,8."
            )
        counts.update(range(first, last + 1))
    if not 1 <= len(counts) <= MAX_SWEPT_COUNTS:
        raise ConfigError(
            f"the token counts are {text!r}, but a sweep takes 1 to {MAX_SWEPT_COUNTS} counts. For example, use 1-16 "
            "or 1,2,4,8."
        )
    return tuple(sorted(counts))


def hard_config_from_fields(more: dict[str, str], seed: int = 0) -> HardConfig:
    """Return the settings of a hard-readout search.

    Raises:
        ConfigError: a field is wrong.
    """
    tokens = more.get("hard", "").lower()
    token_count = None if tokens in (*YES_WORDS, *NO_WORDS, "") and tokens != "1" else _parse_int("hard", tokens)
    words: Any = more.get("words") or "any"
    return HardConfig(tokens=token_count, words=words, block=split_list(more.get("block", "")), seed=seed)


def variation_fields(prompt: SoftPrompt) -> tuple[dict[str, str], dict[str, str]]:
    """Return the fields and the F8 settings that train a soft prompt again with the next seed.

    The same seed would train the same soft prompt again.
    """
    if prompt.meanings:
        raise ConfigError(
            f"{prompt.name} is a mix of several texts. Train it again with `softprompt-tui compose TEMPLATE --save "
            "NAME`."
        )
    config = saved_config(prompt)
    if config.questions:
        raise ConfigError(
            f"{prompt.name} was trained on {len(config.questions):,} questions of its own. Train it again with "
            "`softprompt-tui train PROMPT --questions FILE --seed N`."
        )
    contexts = "yes" if config.contexts == TRAINING_CONTEXTS else _join_texts(config.contexts) or "no"
    fields = {
        "tokens": f"{config.tokens}",
        "steps": f"{config.steps}",
        "stop_at": "" if config.stop_at is None else f"{config.stop_at:g}",
        "contexts": contexts,
        "model": prompt.model,
    }
    more = {
        "restarts": f"{config.restarts}",
        "rate": f"{config.rate:g}",
        "init": config.init if config.init != "soft" else "noise",  # its starting soft prompt is not stored
        "objective": config.objective,
        "family": config.family,
        "share": f"{config.hidden_share:g}",
        "against": _join_texts(config.against),
        "patience": "" if config.patience is None else f"{config.patience}",
        "norms": "held" if config.project_norm else "free",
        "seed": f"{config.seed + 1}",
        "long": config.long,
        "placement": config.placement,
        "self_study": f"{config.self_study}",
        "precision": prompt.device.rpartition(", ")[2] or "float32",
    }
    return fields, more


def _join_texts(texts: tuple[str, ...]) -> str:
    return f" {LIST_SEPARATOR} ".join(texts)


def _key_hint(name: str) -> str:
    return "" if name in ("tokens", "steps", "stop at") else " (F8)"


def _parse_int(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} is {shorten(text, MAX_SHOWN)!r}. Use a whole number{_key_hint(name)}.") from None


def _parse_float(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"{name} is {shorten(text, MAX_SHOWN)!r}. Use a number such as .99{_key_hint(name)}."
        ) from None
