"""Where a soft prompt comes from, how it was trained and how near it comes to what it means, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt

UNKNOWN = "unknown"
OF_THE_FILE = ("file", "format", "part", "with", "sha256")  # what an import writes down of the file
HIDDEN = "hidden-state"
STOPPED = {
    "steps": "all steps taken",
    "stop_at": "stopped at --stop-at",
    "patience": "stopped: no more progress",
    "interrupted": "interrupted",
    "failed": "ended early by a failure",
}


def unassigned(prompt: SoftPrompt) -> str:
    """What to do about a soft prompt whose model is unknown."""
    return f"which model it belongs to is not known. `softprompt-tui assign '{prompt.name}' --model MODEL` says so"


def told_of_hidden(prompt: SoftPrompt) -> list[tuple[str, str]]:
    """(label, words) for how near it comes in what diffusion models read; in words that nobody takes for the pooled similarity."""
    from softprompt.text_states import ALL, is_stand_in

    known = [family for family in ALL if family in prompt.hidden]  # the file keeps them in another order
    if not known:
        return []
    values = ", ".join(f"{prompt.hidden[family]:.4f} {family}" for family in known)
    told = [(HIDDEN, f"similarity {values}")]
    if is_stand_in(prompt.model):
        told.append(("", f"({prompt.model or 'its model'} stands in for the encoders that these read)"))
    return told


def told_of_origin(prompt: SoftPrompt) -> list[tuple[str, str]]:
    """(label, words) for what it was made from, and for what a file that it came from said of itself."""
    told = [
        (
            one.relation,
            f"{one.name} ({one.id}, {one.model})" + (f" at {one.weight:.3g}" if one.relation == "mixed" else ""),
        )
        for one in prompt.ancestry
    ]
    known = {key: value for key, value in prompt.source.items() if value not in ("", None)}
    # what stands in the file itself has a label of its own: a file can call anything "model"
    said = "; ".join(f"{key} {value}" for key, value in sorted(known.items()) if key not in OF_THE_FILE)
    told += [(key, f"{known[key]}") for key in OF_THE_FILE if key in known]
    return told + [("file says", said)] * bool(said)


def unusual(config: dict[str, Any]) -> str:
    """The settings that are not the usual ones; steps and tokens stand elsewhere."""
    from softprompt.config import TrainConfig  # 7 ms, which who lists entries does without

    usual = TrainConfig().as_dict()
    unusual = {
        key: value
        for key, value in config.items()
        if key not in ("steps", "tokens") and value != usual.get(key) and value != []
    }
    if "contexts" in unusual:
        unusual["contexts"] = f"{len(unusual['contexts'])} of its own"
    elif config.get("contexts") == []:
        unusual["contexts"] = "none"
    return ", ".join(f"{key} {value}" for key, value in unusual.items())
