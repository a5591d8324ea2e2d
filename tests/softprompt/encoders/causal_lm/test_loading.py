"""Loading a folder or a repository, and every model that is refused: one line that says what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from softprompt.encoders.causal_lm import loading
from softprompt.encoders.causal_lm.folder import FAMILIES
from softprompt.encoders.causal_lm.loading import load_causal_lm
from softprompt.errors import ConfigError, ModelRefused, ModelUnavailable, SoftPromptError, UnknownModel
from softprompt.system.devices import cpu_device
from tests.softprompt.encoders.causal_lm.tiny_models import change_json, save_model

COMMIT = "a" * 40


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("Llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Llama that a test may spoil."""
    return shutil.copytree(llama, tmp_path / "model")


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(text)

    return change


def change(name: str, **values: object) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / name, **values)


def only_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def change_weights(drop: str = "", **add: torch.Tensor) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        remaining = {key: weight for key, weight in weights.items() if key != drop}
        save_file(remaining | add, folder / "model.safetensors", {"format": "pt"})

    return change


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (remove("config.json"), ModelUnavailable, "is not a language model: config.json cannot be read.*save_p"),
        (write("config.json", "{"), ModelUnavailable, "config.json cannot be read"),
        (write("config.json", "[]"), ModelUnavailable, "it is not a JSON object"),
        (change("config.json", model_type="mamba"), ModelRefused, f"'mamba'. Supported: {', '.join(FAMILIES)}"),
        (change("config.json", model_type=None), ModelRefused, "Supported: llama"),
        (change("config.json", auto_map={"AutoModel": "evil.py"}), ModelRefused, r"config.json refers to Python code"),
        (change("tokenizer_config.json", auto_map={"a": "b"}), ModelRefused, r"tokenizer_config.json refers to Python"),
        (change("config.json", quantization_config={"bits": 4}), ModelRefused, "quantized.*Choose the version in"),
        (write("adapter_config.json", "{}"), ModelRefused, "an adapter of another model.*Merge"),
        (only_pickle, ModelRefused, r"only weights are a pickle \(pytorch_model.bin\)"),
        (remove("model.safetensors"), ModelUnavailable, "has no weights. Add model.safetensors"),
        (write("model.safetensors", "x" * 100), ModelUnavailable, "may be damaged or incomplete"),
        (change("config.json", num_hidden_layers=10**9), ModelRefused, "layers = 1000000000. It must be 1 to"),
        (change("config.json", hidden_size="32"), ModelRefused, "hidden_size = '32'"),
        (change("config.json", hidden_act="nonsense"), ModelRefused, "its config.json is invalid"),
        (change("config.json", intermediate_size=64), ModelRefused, "shape"),
        (change("config.json", num_hidden_layers=3), ModelRefused, "its weights lack model.layers.2"),
        (change("config.json", num_hidden_layers=1), ModelRefused, "has no place for model.layers.1"),
        (change("config.json", vocab_size=1 << 23, hidden_size=1 << 16), ModelUnavailable, "GB of free memory"),
        (change("config.json", vocab_size=300), ModelRefused, "300 token embeddings, but its tokenizer .* the id 329"),
        (change("config.json", eos_token_id=5000), ModelRefused, "has the id 5,000. Use the tokenizer that belongs"),
        (change_weights(NORM), ModelRefused, f"its weights lack {NORM}"),
        (change_weights(**{"model.extra.weight": torch.ones(2)}), ModelRefused, "no place for model.extra.weight"),
        (write("tokenizer.json", "{}"), ModelUnavailable, r"tokenizer of .* cannot be loaded.*Put a tokenizer.json"),
        (
            lambda folder: [remove(name)(folder) for name in ("tokenizer.json", "tokenizer_config.json")],
            ModelUnavailable,
            "Put a tokenizer.json",
        ),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_used_is_refused(
    spoil: Callable[[Path], None], error: type[SoftPromptError], message: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(error, match=message) as refusal:
        load_causal_lm(folder, "cpu")
    assert type(refusal.value) is error
    assert "\n" not in str(refusal.value)


def test_code_in_a_folder_never_runs(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    change_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    with pytest.raises(ModelRefused, match="Code in a model is never run"):
        load_causal_lm(folder, "cpu")
    assert not (folder / "ran").exists()


def test_a_configuration_cannot_choose_an_attention_from_the_hub(folder: Path) -> None:
    change_json(folder / "config.json", attn_implementation="evil/kernel", _attn_implementation="evil/kernel")
    assert load_causal_lm(folder, "cpu")._model.config._attn_implementation == "sdpa"


def test_weights_may_lie_in_several_files(folder: Path) -> None:
    before = load_causal_lm(folder, "cpu").fingerprint
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"part-{i}.safetensors" for i in (0, 1)]
    shards = [dict(list(weights.items())[i::2]) for i in (0, 1)]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, {"format": "pt"})
    index = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert load_causal_lm(f"local-dir:{folder}", "cpu").fingerprint == before
    (folder / names[1]).unlink()
    with pytest.raises(ModelUnavailable, match=r"part-1.safetensors is missing"):
        load_causal_lm(folder, "cpu")
    for bad in ("../part-0.safetensors", "part-0.bin", 3):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": bad}}))
        with pytest.raises(ModelUnavailable, match=r"must name .safetensors files of the same folder"):
            load_causal_lm(folder, "cpu")


def test_a_tokenizer_without_tokenizer_json(folder: Path) -> None:
    """Old repositories, such as OPT's, have the vocabulary and the merges in two files."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]))
    (folder / "tokenizer.json").unlink()
    change_json(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", unk_token="</s>")
    tokenizer = load_causal_lm(folder, "cpu").tokenizer
    assert tokenizer.decode(tokenizer.encode("You are a pirate. 🦊")) == "You are a pirate. 🦊"
    assert {0, 1, 2} <= tokenizer.reserved_ids


def test_the_start_token_is_the_one_that_transformers_adds(folder: Path) -> None:
    for adds, expected in ((True, (0,)), (False, ()), (None, (0,))):
        change_json(folder / "tokenizer_config.json", add_bos_token=adds)
        assert load_causal_lm(folder, "cpu").specials.start == expected


def test_end_tokens_come_from_all_files(folder: Path) -> None:
    change_json(folder / "generation_config.json", eos_token_id=[7, 4])
    change_json(folder / "config.json", eos_token_id=4)
    assert load_causal_lm(folder, "cpu").specials.end == (7, 4, 1)


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelUnavailable, match=r"the package transformers.*Run pip install 'softprompt-tui\[llm\]'"):
        load_causal_lm(folder, "cpu")


def test_weights_larger_than_the_free_memory_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").write_bytes(b"never read")
    monkeypatch.setattr(loading, "cpu_device", lambda: replace(cpu_device(), free_bytes=100_000))
    with pytest.raises(ModelUnavailable, match=r"need 0\.0 GB, but this machine has .*use precision='bfloat16'"):
        load_causal_lm(folder, "cpu")


def test_names_and_settings_that_make_no_sense(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="there is no folder"):
        load_causal_lm(tmp_path / "none", "cpu")
    for name in ("hf:", "hf:only-a-name", "hf:a/../b", "hf:a/b/c", "hf:../../etc", "hf:a/b@main"):
        with pytest.raises(UnknownModel, match="Write hf:OWNER/NAME"):
            load_causal_lm(name, "cpu")
    with pytest.raises(ConfigError, match="precision is 'float16'"):
        load_causal_lm(folder, "cpu", "float16")
    with pytest.raises(UnknownModel, match=r"there is no language model and no folder 'smolm2'. Use smollm2, "):
        load_causal_lm("smolm2", "cpu")
    with pytest.raises(ModelRefused, match=r"Mini is a text encoder. Load it with softprompt.load_encoder\('Mini'\)"):
        load_causal_lm("Mini", "cpu")


def test_loading_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stages: list[str] = []
    load_causal_lm(folder, "cpu", on_stage=stages.append)
    assert capfd.readouterr() == ("", "")
    assert stages == ["loading the tokenizer", "reading the weights"]
    assert transformers.utils.logging.is_progress_bar_enabled()


# the hub


def test_a_model_in_the_hubs_cache_needs_no_network(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--tiny"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for file in llama.iterdir():
        shutil.copy(file, repository / "blobs" / file.name)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    model = load_causal_lm("hf:owner/tiny", "cpu")
    assert (model.name, model.folder) == ("hf:owner/tiny", snapshot)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="hf:owner/tiny is not on disk and cannot be downloaded"):
        load_causal_lm("hf:owner/tiny", "cpu")


class FolderHub(ThreadingHTTPServer):
    """A hub that serves the files of one folder. With `gated`, it answers as if nobody had accepted the terms."""

    daemon_threads = True

    def __init__(self, folder: Path, gated: bool) -> None:
        super().__init__(("127.0.0.1", 0), FolderHandler)
        self.folder, self.gated = folder, gated
        self.requested: list[str] = []


class FolderHandler(BaseHTTPRequestHandler):
    server: FolderHub

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.requested.append(name)
        file = self.server.folder / name
        found = file.is_file()
        self.send_response(403 if self.server.gated else 200 if found else 404)
        error = "GatedRepo" if self.server.gated else "" if found else "EntryNotFound"
        headers = {"X-Error-Code": error} if error else {"ETag": f'"{name.encode().hex()}"'}
        size = file.stat().st_size if found else 0
        for key, value in (headers | {"X-Repo-Commit": COMMIT, "Content-Length": str(size)}).items():
            self.send_header(key, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write((self.server.folder / self.path.rpartition("/")[2]).read_bytes())


@contextmanager
def serve(folder: Path, gated: bool = False) -> Iterator[FolderHub]:
    hub = FolderHub(folder, gated)
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield hub
    hub.shutdown()
    hub.server_close()


def fetch(hub: FolderHub, home: Path) -> str:
    """Return what fetching hf:owner/tiny gives in a process of its own: the folder, or the error."""
    code = (
        "from softprompt.encoders.catalog import resolve\n"
        "from softprompt.encoders.causal_lm.hub import fetch_folder\n"
        "try:\n    print(fetch_folder(resolve('hf:owner/tiny')))\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_a_repository_is_downloaded_once(llama: Path, tmp_path: Path) -> None:
    with serve(llama) as hub:
        folder = Path(fetch(hub, tmp_path))
        assert {file.name for file in folder.iterdir()} == {file.name for file in llama.iterdir()}
        assert load_causal_lm(folder, "cpu").fingerprint == load_causal_lm(llama, "cpu").fingerprint
        requests = len(hub.requested)
        assert Path(fetch(hub, tmp_path)) == folder
        assert len(hub.requested) == requests


def test_a_repository_that_cannot_be_used_is_refused_before_its_weights_arrive(folder: Path, tmp_path: Path) -> None:
    change_json(folder / "config.json", auto_map={"AutoModel": "evil.py"})
    with serve(folder) as hub:
        assert "ModelRefused hf:owner/tiny is not supported: its config.json refers to" in fetch(hub, tmp_path)
        assert "model.safetensors" not in hub.requested
    change_json(folder / "config.json", auto_map=None)
    only_pickle(folder)
    with serve(folder) as hub:
        message = fetch(hub, tmp_path / "second")
        assert message.startswith(
            "ModelRefused hf:owner/tiny is not supported: its repository has no model.safetensors"
        )
        assert "pytorch_model.bin" not in hub.requested


def test_a_gated_repository_says_what_to_accept(folder: Path, tmp_path: Path) -> None:
    with serve(folder, gated=True) as hub:
        message = fetch(hub, tmp_path)
    assert message.startswith("ModelUnavailable access to hf:owner/tiny requires accepting its terms of use")
    assert "huggingface.co/owner/tiny" in message


def test_special_tokens_without_an_embedding_are_never_used(tmp_path: Path) -> None:
    """Many tokenizers got a padding token that their model does not know, and GGUF files an unknown token."""
    folder = save_model("GPT2", tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    pad = content["added_tokens"][2]
    fillers = [pad | {"id": 330 + i, "content": f"<extra{i}>"} for i in range(9)]
    (folder / "tokenizer.json").write_text(json.dumps(content | {"added_tokens": [*content["added_tokens"], *fillers]}))
    change_json(
        folder / "tokenizer_config.json", pad_token="<extra8>", chat_template="<extra8>{{ messages[0].content }}"
    )
    model = load_causal_lm(folder, "cpu")
    assert model.tokenizer.role_id("pad_token") == 338
    assert model.specials.pad == 1
    with pytest.raises(ModelRefused, match="its chat template has the token 338, but there are 336 token embeddings"):
        _ = model.chat_template
