"""The terminal, the locale and the environment variables."""

from __future__ import annotations

import locale
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from difflib import get_close_matches

from softprompt.errors import shorten
from softprompt.system.threads import SPIN_COUNT, SPIN_VARIABLE
from softprompt.worker.log import NO_PROGRESS_BARS
from softprompt_tui.cli.diagnosis.fact import Fact, wrong

OWN_VARIABLES = (
    "SOFTPROMPT_HOME", "SOFTPROMPT_RUNTIME", "SOFTPROMPT_CUDA_GRAPHS", "SOFTPROMPT_ERRORS_AS_JSON",
)  # fmt: skip
# variables that change what this program, torch or the hub's library does
_RELEVANT = re.compile(
    r"(SOFTPROMPT|HF|HUGGINGFACE|CUDA|NVIDIA|HIP|ROCR|PYTORCH|TORCH|OMP|GOMP|KMP|MKL|OPENBLAS|TEXTUAL)_\w+"
    r"|XDG_(DATA|CACHE)_HOME|(https?|all|no)_proxy|(SSL|REQUESTS_CA|CURL_CA)_\w+|PYTHON(PATH|HOME|WARNINGS)"
    r"|LD_(LIBRARY_PATH|PRELOAD)|NO_COLOR|FORCE_COLOR|COLUMNS|LINES|TMPDIR",
    re.IGNORECASE,
)
_SECRET = re.compile(r"TOKEN(?!IZERS)|KEY|SECRET|PASS|AUTH", re.IGNORECASE)
_SET_BY_US = NO_PROGRESS_BARS | {SPIN_VARIABLE: SPIN_COUNT}
_TERMINAL_PROGRAMS = {
    "TERM_PROGRAM": "", "LC_TERMINAL": "", "KITTY_WINDOW_ID": "kitty", "ALACRITTY_WINDOW_ID": "Alacritty",
    "WT_SESSION": "Windows Terminal", "VTE_VERSION": "VTE", "KONSOLE_VERSION": "Konsole",
}  # fmt: skip  # a variable that the terminal sets, and its name; "" if the value is the name
MAX_VALUE_LENGTH = 60  # characters of a variable
MIN_COLUMNS, MIN_LINES = 60, 20
TMUX_SECONDS = 2.0
TMUX_OPTIONS = ("allow-passthrough", "set-clipboard", "monitor-bell")
COLORS = {"truecolor": "24-bit colors", "256": "256 colors", "standard": "16 colors", "windows": "16 colors"}


def find_terminal() -> Iterable[Fact]:
    term = os.environ.get("TERM", "")
    size = _terminal_size()
    colors, uses_utf8 = _colors(), _encoding().replace("-", "").lower() == "utf8"
    program = next(
        (name or os.environ[variable] for variable, name in _TERMINAL_PROGRAMS.items() if os.environ.get(variable)), ""
    )
    text = ", ".join(
        filter(
            None,
            (
                f"TERM={term}" if term else "TERM is not set",
                program and f"in {shorten(program, 30)}",
                f"{size[0]} x {size[1]}" if size else "no terminal: the output goes elsewhere",
                colors,
                "UTF-8" if uses_utf8 else f"not UTF-8 but {_encoding() or 'unknown'}",
            ),
        )
    )
    values = {"term": term, "size": size, "colors": colors, "utf8": uses_utf8, "program": program}
    if term in ("", "dumb", "unknown"):
        yield wrong("terminal", text, "The interface needs TERM to name your terminal, such as xterm-256color.", values)
    elif size and (size[0] < MIN_COLUMNS or size[1] < MIN_LINES):
        yield wrong("terminal", text, f"The interface needs {MIN_COLUMNS} x {MIN_LINES}. Make it larger.", values)
    elif not uses_utf8:
        yield wrong("terminal", text, "Set LANG to a UTF-8 locale, such as C.UTF-8, for curves and frames.", values)
    else:
        yield Fact("terminal", text, values=values)
    yield from _find_multiplexer()


def _find_multiplexer() -> Iterable[Fact]:
    """Describe what is between the program and the terminal (SSH, tmux), and how copied text gets through."""
    over_ssh = bool(os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY"))
    inside = ["SSH"] * over_ssh
    clipboard = "OSC 52, which the terminal must allow"
    if os.environ.get("TMUX"):
        options = {name: _tmux_option(name) for name in TMUX_OPTIONS}
        inside.append(f"tmux ({', '.join(f'{name} {value}' for name, value in options.items())})")
        clipboard = "tmux's buffer, and the terminal if set-clipboard is on or external"
    elif os.environ.get("STY"):
        inside.append("GNU screen, where the mouse is off")
    elif "ZELLIJ" in os.environ:
        inside.append("Zellij")
    yield Fact("inside", " and ".join(inside) or "neither SSH nor tmux nor GNU screen", values={"inside": inside})
    yield Fact("copying", f"through {clipboard}")


def _tmux_option(name: str) -> str:
    try:
        result = subprocess.run(
            ["tmux", "show-options", "-Aqv", "-w" if name != "set-clipboard" else "-s", name],
            capture_output=True, stdin=subprocess.DEVNULL, timeout=TMUX_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return shorten(result.stdout.decode(errors="replace").strip() or "unknown", 20)


def _terminal_size() -> tuple[int, int] | None:
    for descriptor in (1, 2, 0):  # the output can be a pipe, and the terminal still be there
        try:
            size = os.get_terminal_size(descriptor)
            return size.columns, size.lines
        except OSError:
            continue
    return None


def _colors() -> str:
    if os.environ.get("NO_COLOR"):
        return "NO_COLOR"
    from rich.console import Console

    return COLORS.get(Console(force_terminal=True).color_system or "", "no colors")


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or ""


def find_locale() -> Iterable[Fact]:
    names = {name: os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)}
    shown = " ".join(f"{name}={shorten(value, 30)}" for name, value in names.items()) or "none set, so C"
    encodings = f"output {_encoding() or 'unknown'}, file names {sys.getfilesystemencoding()}"
    values = {**names, "output": _encoding(), "file_names": sys.getfilesystemencoding()}
    try:
        locale.setlocale(locale.LC_CTYPE, "")
    except locale.Error:
        advice = "Set LC_ALL to a locale that `locale -a` lists, such as C.UTF-8."
        yield wrong("locale", f"{shown}, which this machine does not have; {encodings}", advice, values)
    else:
        yield Fact("locale", f"{shown}; {encodings}", values=values)


def find_variables() -> Iterable[Fact]:
    """List the relevant variables. The values of secrets are not shown."""
    shown = {
        name: "(set, not shown)" if value and _SECRET.search(name) else shorten(value, MAX_VALUE_LENGTH)
        for name, value in sorted(os.environ.items())
        if _RELEVANT.fullmatch(name) and _SET_BY_US.get(name) != value
    }
    yield Fact("variables", "  ".join(f"{name}={value}" for name, value in shown.items()) or "none set", values=shown)
    for name in shown:
        if name.startswith("SOFTPROMPT_") and name not in OWN_VARIABLES:
            close = get_close_matches(name, OWN_VARIABLES, 1)
            advice = f"Did you mean {close[0]}?" if close else f"It knows {', '.join(OWN_VARIABLES)}."
            yield wrong("variables", f"this program has no variable {shorten(name)}", advice)
