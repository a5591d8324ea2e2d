"""The worker, the library, the models on disk and the hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from softprompt.errors import describe_error, describe_error_with_type
from softprompt.prompts.visible_text import format_count
from softprompt.system.filesystems import file_system, is_shared
from softprompt.system.paths import how_to_move
from softprompt.worker import hub_variables
from softprompt.worker import protocol as p
from softprompt.worker.log import log_path
from softprompt_tui import PROGRAM
from softprompt_tui.cli.diagnosis.fact import Fact, wrong

MIN_FREE_BYTES = 200e6  # a library of 10,000 soft prompts
HUB_SECONDS = 5.0
MAX_MODELS = 4  # that are named; the others are counted
UNREACHABLE = (
    "Check the network and the proxy, set HF_ENDPOINT to a mirror, or set HF_HUB_OFFLINE=1 if there is no network here."
)


def find_worker() -> Iterable[Fact]:
    """Ask the worker if it is running. Does not start one."""
    from softprompt.worker.client import CONTROL_SECONDS, connect

    path = log_path()
    size = f", {path.stat().st_size / 1e3:.0f} KB" if path.is_file() else ", not written yet"
    log = Fact("worker log", f"{path}{size}", values={"path": str(path)})
    yield log
    client = connect(start=False, accept_older=True, answer_seconds=CONTROL_SECONDS)
    if client is None:
        yield Fact("worker", "not running; it starts when it is needed", values={"is_running": False})
        return
    with client:
        status = client.request(p.Status())
    text = (
        f"process {status['pid']}, version {status['version']}, {format_count(status['clients'] - 1, 'client')}, "
        f"{'1 training' if status['running'] else 'idle'}, {status['queued']} waiting, {status['paused']} paused"
    )
    values = {"is_running": True, **status}
    if client.making_way:
        advice = "It ends when its run is done, and the next command starts the new version."
        yield wrong("worker", f"{text}; older than this program", advice, values)
    elif hub_variables.has_other_variables(client.worker):
        advice = f"Run `{PROGRAM} worker stop`, then try again: the next worker has the variables of this terminal."
        yield wrong("worker", f"{text}; started with other HF_ variables than are set here", advice, values)
    else:
        yield Fact("worker", text, values=values)


def find_library() -> Iterable[Fact]:
    from softprompt.library import Library

    notices: list[str] = []
    library = Library(notify=notices.append)
    folder = library.entries
    if not folder.is_dir():
        yield Fact("library", f"{folder}, empty", values={"path": str(folder), "entries": 0})
    else:
        page = library.list(limit=0)
        text = f"{folder}, {format_count(page.total, 'entry')}"
        values = {"path": str(folder), "entries": page.total, "damaged": len(page.damaged)}
        if page.damaged:
            advice = (
                f"`{PROGRAM} library check` names them, and `{PROGRAM} restore ID` brings back an earlier revision."
            )
            yield wrong("library", f"{text}, {len(page.damaged):,} damaged", advice, values)
        else:
            yield Fact("library", f"{text}, none damaged", values=values)
    yield _describe_disk("library disk", folder)
    yield from (wrong("index", notice, "Everything works without the index, but more slowly.") for notice in notices)


def _describe_disk(name: str, folder: Path, variable: str = "") -> Fact:
    """Describe the space on the disk of a folder, which need not exist yet. `variable` chooses another folder."""

    def move(fix: str) -> str:
        return f"set {variable} to {fix}" if variable else how_to_move(folder, fix)

    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        advice = f"Rename or delete it, or {move('a folder')}."
        return wrong(name, f"{place} is a file, but it must be a folder", advice)
    usage, kind = shutil.disk_usage(place), file_system(place)
    shared = ", shared with other hosts" if is_shared(place) else ""
    text = f"{kind or 'unknown file system'}{shared}, {usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free"
    values = {"file_system": kind, "free_bytes": usage.free, "total_bytes": usage.total}
    if not os.access(place, os.W_OK):
        advice = f"Fix its permissions, or {move('a folder that you can write to')}."
        return wrong(name, f"{text}; you cannot write to {place}", advice, values)
    if usage.free < MIN_FREE_BYTES:
        return wrong(name, text, "Free some space: trainings cannot be saved on a full disk.", values)
    return Fact(name, text, values=values)


def find_models() -> Iterable[Fact]:
    from softprompt.encoders.catalog import MINI, is_cached, list_models
    from softprompt.encoders.hub_cache import cache_root, list_language_models, scan

    root = cache_root()
    yield _describe_disk("model disk", root, "HF_HOME")
    if not is_cached():
        text = f"{MINI}; `{PROGRAM} models` reads the list of the others"
        yield Fact("models", text, values={"folder": str(root), "models": [MINI]})
        return
    # two names can share a file, such as ViT-B-32/openai and ViT-B-32-quickgelu/openai; the last one is loaded
    every = (*list_models(), *list_language_models())
    models = {(info.repository, info.files, info.wheel): info for info in every}.values()
    states = scan(models)
    whole = {name: state.bytes for name, state in states.items() if state.path and name != MINI}
    parts = len({info.repository for info in models if states[info.name].partial_bytes})
    named = [f"{name} {size / 1e9:.1f} GB" for name, size in sorted(whole.items())]
    more = f", {len(named) - MAX_MODELS} more" if len(named) > MAX_MODELS else ""
    unfinished = f", {format_count(parts, 'unfinished download')}" if parts else ""
    listed = ", ".join([MINI, *named[:MAX_MODELS]])
    yield Fact(
        "models", f"{listed}{more}{unfinished}; in {root}", values={"folder": str(root), "models": [MINI, *whole]}
    )


def find_hub() -> Iterable[Fact]:
    """Send one request to the hub, with the user's token if there is one. The token itself is never shown."""
    from huggingface_hub import constants, get_token

    endpoint = constants.ENDPOINT
    try:
        has_token = bool(get_token())
    except OSError as error:  # HF_HOME is a file, or belongs to another user
        yield wrong(
            "hub", f"the token's file cannot be read: {describe_error(error)}", "Set HF_HOME to a folder of yours."
        )
        has_token = False
    token = "no token" if not has_token else f"token from {'HF_TOKEN' if 'HF_TOKEN' in os.environ else 'its file'}"
    values: dict[str, object] = {"endpoint": endpoint, "token": has_token, "offline": bool(constants.HF_HUB_OFFLINE)}
    if constants.HF_HUB_OFFLINE:
        yield Fact("hub", f"HF_HUB_OFFLINE is set: only models on disk can be used; {token}", values=values)
        return
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]  # not re-exported

    try:
        # answers whose token it is; a mirror may not have this page, but its 404 is an answer too
        url = f"{endpoint}/api/whoami-v2"
        status = get_session().get(url, headers=build_hf_headers(), timeout=HUB_SECONDS).status_code
    except Exception as error:  # of any type: huggingface_hub has changed its HTTP library more than once
        text = f"{endpoint} cannot be reached ({describe_error_with_type(error)}); {token}"
        yield wrong("hub", text, UNREACHABLE, values)
        return
    values["status"] = status
    if status in (401, 403) and has_token:
        advice = "Set HF_TOKEN to a valid token, or unset it: public models need none."
        yield wrong("hub", f"{endpoint} rejects the {token} (status {status})", advice, values)
    elif status == 429 or status >= 500:
        yield wrong("hub", f"{endpoint} answers with status {status}; {token}", "It is busy. Try again later.", values)
    else:
        yield Fact(
            "hub", f"{endpoint} answers; {token}{' accepted' if has_token and status == 200 else ''}", values=values
        )
