"""Describe the origin, settings and quality of a soft prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softprompt_tui.rendering.numbers import format_number

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt

UNKNOWN = "unknown"
FILE_KEYS = ("file", "format", "part", "with", "sha256")  # recorded by an import
HIDDEN_STATE_LABEL = "hidden-state"
STOP_REASONS = {
    "steps": "all steps taken",
    "stop_at": "stopped at --stop-at",
    "patience": "stopped: no more progress",
    "interrupted": "interrupted",
    "failed": "stopped by a failure",
}


def describe_missing_model(prompt: SoftPrompt) -> str:
    """Return an error message for a soft prompt whose model is unknown."""
    return f"its model is unknown. Set it with `softprompt-tui assign '{prompt.name}' --model MODEL`."


def describe_hidden_states(prompt: SoftPrompt) -> list[tuple[str, str]]:
    """Return (label, value) rows for the hidden-state similarities, labeled to distinguish them from the pooled one."""
    from softprompt.text_states import ALL_FAMILIES, is_stand_in

    known = [family for family in ALL_FAMILIES if family in prompt.hidden]  # files store them in a different order
    if not known:
        return []
    values = ", ".join(f"{format_number(prompt.hidden[family])} {family}" for family in known)
    rows = [(HIDDEN_STATE_LABEL, f"similarity {values}")]
    if is_stand_in(prompt.model):
        rows.append(("", f"(measured on {prompt.model or 'its model'}, a stand-in for their encoders)"))
    return rows


def describe_origin(prompt: SoftPrompt) -> list[tuple[str, str]]:
    """Return (label, value) rows for a soft prompt's ancestors and for the file it was imported from."""
    rows = [
        (
            ancestor.relation,
            f"{ancestor.name} ({ancestor.id}, {ancestor.model})"
            + (f" at {ancestor.weight:.3g}" if ancestor.relation == "mixed" else ""),
        )
        for ancestor in prompt.ancestry
    ]
    known = {key: value for key, value in prompt.source.items() if value not in ("", None)}
    # the file's own claims share one label, because a file can call anything "model"
    claims = "; ".join(f"{key} {value}" for key, value in sorted(known.items()) if key not in FILE_KEYS)
    rows += [(key, f"{known[key]}") for key in FILE_KEYS if key in known]
    return rows + [("file says", claims)] * bool(claims)


def describe_settings(config: dict[str, Any]) -> str:
    """Return the settings that differ from the defaults, except steps and tokens."""
    from softprompt.config import config_for  # takes 7 ms, and `list` does not need it

    defaults = config_for("causal" if config.get("objective") == "distill" else "text", {}).as_dict()
    changed = {
        key: value
        for key, value in config.items()
        if key not in ("steps", "tokens") and value != defaults.get(key) and value != []
    }
    if "questions" in changed:
        changed["questions"] = f"{len(changed['questions'])} custom"
    if "contexts" in changed:
        changed["contexts"] = f"{len(changed['contexts'])} custom"
    elif config.get("contexts") == [] and defaults["contexts"]:
        changed["contexts"] = "none"
    return ", ".join(f"{key} {value}" for key, value in changed.items())
