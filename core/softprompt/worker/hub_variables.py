"""Compare the Hugging Face variables of this process with those that a worker was started with.

A worker keeps its environment, so a variable that the user sets later has no effect on it.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

FOLDERS = ("HF_HOME", "HF_HUB_CACHE")
TRUE_WORDS = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads HF_HUB_OFFLINE
ROUNDS = 50_000  # takes about 20 ms, so that nobody guesses a short token
ADVICE = "the worker was started with other HF_ variables: `softprompt-tui worker stop`, then try again"


def fingerprint() -> dict[str, str]:
    """Return what a worker's hello says about its variables: a salt of its own, and a digest of all of them."""
    salt = os.urandom(16).hex()
    return {"salt": salt, "digest": _digest(salt, _read_variables())}


def has_other_variables(hello: dict[str, Any]) -> bool:
    """Return whether a worker's variables differ from those of this process. An older worker does not tell."""
    mark = hello.get("hub")
    if not isinstance(mark, dict) or not all(isinstance(mark.get(key), str) for key in ("salt", "digest")):
        return False
    return _digest(mark["salt"], _read_variables()) != str(mark["digest"])


def _read_variables() -> str:
    """Return the variables as text. Relative folders become absolute, as in the worker."""
    values = {name: os.environ.get(name, "") for name in (*FOLDERS, "HF_ENDPOINT", "HF_TOKEN")}
    for name in FOLDERS:
        if values[name] and not values[name].startswith("~"):
            values[name] = str(Path(values[name]).absolute())
    return json.dumps([*values.values(), os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE_WORDS])


@cache
def _digest(salt: str, variables: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", variables.encode(errors="surrogateescape"), salt.encode(), ROUNDS).hex()
