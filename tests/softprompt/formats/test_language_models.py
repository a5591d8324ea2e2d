"""Exports of language models' soft prompts: other programs compute with them as this one does.

transformers and PEFT run themselves, with the code that an export prints, as it stands. vLLM and SGLang cannot be
installed here. Assertions repeat what they require, after the source code of

- vLLM, renderers/embed_utils.py: safe_load_prompt_embeds, renderers/chat_utils: parse_chat_message_content,
  docs/features/prompt_embeds.md
- SGLang, managers/io_struct.py: GenerateReqInput, test/registered/core/test_input_embeddings.py
"""

from __future__ import annotations

import base64
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from softprompt import Library, SoftPrompt
from softprompt.encoders.causal_lm.loading import load_causal_lm
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.question_rows import encode_around
from softprompt.errors import ConfigError, ExportRefused, FileRefused, PromptError
from softprompt.formats.importer import import_files
from softprompt.formats.readers import sandbox, sandbox_child
from softprompt.formats.readers.sandbox import read_soft_prompts
from softprompt.formats.writers.causal_lm import files, instructions
from softprompt.formats.writers.exporter import ExportResult, export
from softprompt.formats.writers.programs import LANGUAGE_MODEL_PROGRAMS, PROGRAMS
from tests.library_model import a_prompt
from tests.softprompt.conftest import CHATML
from tests.softprompt.encoders.causal_lm.test_chat_template import GEMMA, LLAMA3
from tests.softprompt.encoders.causal_lm.tiny_models import VOCABULARY, change_json, save_model
from tests.softprompt.formats.language_prompts import make_prompt

TOKENS = 3
QUESTIONS = ("What is the capital of France?", "  Who are you?\n", "the of", '"a"', "雪 🦊")
PLACEMENTS = ("system", "user", "start")
NEEDS_MODEL = [name for name, program in LANGUAGE_MODEL_PROGRAMS.items() if program.needs_model]
VECTORS = [name for name in LANGUAGE_MODEL_PROGRAMS if name not in NEEDS_MODEL]
TOLERANCE = {"atol": 1e-4, "rtol": 0}

pytestmark = [  # peft triggers both, the second whenever it generates
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def parse_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the child process, which test_sandbox tests."""
    monkeypatch.setattr(sandbox, "_run_child", lambda *request: b"".join(sandbox_child.reply(*request)))


def load_tiny(family: str, folder: Path, template: str) -> CausalLM:
    """Return a random model without unused rows in its table, so that new tokens need a larger one."""
    settings = {"vocab_size": VOCABULARY, "max_position_embeddings": 512}
    return load_causal_lm(save_model(family, folder, template, **settings), "cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    return load_tiny("Llama", tmp_path_factory.mktemp("llama"), CHATML)


@pytest.fixture(scope="module", params=["Gemma", "OPT", "GPT2", "Qwen2"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    """A random model of a family that treats embeddings in its own way."""
    template = {"Gemma": GEMMA, "OPT": LLAMA3}.get(request.param, CHATML)
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param), template)


def run_code(exported: ExportResult, question: str, tokens: int = 12) -> dict[str, Any]:
    """Run the code of an export as it stands, but for the question and the length of the answer. Return its names."""
    code = exported.line
    assert json.dumps(instructions.EXAMPLE_QUESTION) in code
    code = code.replace(json.dumps(instructions.EXAMPLE_QUESTION), repr(question))
    code = code.replace(f"max_new_tokens={instructions.MAX_NEW_TOKENS}", f"max_new_tokens={tokens}")
    names: dict[str, Any] = {}
    exec(compile(code, "export", "exec"), names)
    return names


def generated(names: dict[str, Any]) -> list[int]:
    """Return the ids that the code of an export has generated."""
    ids = names["ids"]
    begin = ids.shape[1] if isinstance(ids, torch.Tensor) else 0  # from embeddings, the answer is all there is
    return list(map(int, names["answer"][0, begin:]))


def own_row(model: CausalLM, prompt: SoftPrompt, question: str) -> torch.Tensor:
    """Return the embeddings (T, w) of a whole chat, or of a text."""
    assert prompt.answers is not None
    before, after = encode_around(model, question, prompt.answers.placement)  # type: ignore[arg-type]
    return torch.cat([model.embed(before), torch.tensor(prompt.vectors), model.embed(after)])


@torch.no_grad()
def own_answer(model: CausalLM, prompt: SoftPrompt, question: str, tokens: int = 12) -> list[int]:
    return model.generate(own_row(model, prompt, question), tokens)


@torch.no_grad()
def own_logits(model: CausalLM, prompt: SoftPrompt, question: str) -> torch.Tensor:
    """Return the logits (T, v) of a whole chat."""
    return model.logits(own_row(model, prompt, question).unsqueeze(0))[0]


# transformers and PEFT


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("to", ["transformers", "peft", "peft-tokens"])
def test_the_code_gives_the_answers_of_this_program(
    llama: CausalLM, to: str, placement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = make_prompt(llama, placement)
    exported = export(prompt, to, None, encoder=llama)
    assert exported.word == ""
    for question in QUESTIONS:
        names = run_code(exported, question)
        assert generated(names) == own_answer(llama, prompt, question), question
        text = names["tokenizer"].decode(own_answer(llama, prompt, question), skip_special_tokens=True)
        assert capsys.readouterr().out == f"{text}\n"


@torch.no_grad()
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_peft_computes_the_logits_of_this_program(language_model: CausalLM, placement: str) -> None:
    prompt = make_prompt(language_model, placement)
    exported = export(prompt, "peft", None, encoder=language_model)
    for question in QUESTIONS[:3]:
        names = run_code(exported, question, tokens=1)
        model, ids = names["model"], names["ids"]
        assert isinstance(model, peft.PeftModelForCausalLM)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        torch.testing.assert_close(logits, own_logits(language_model, prompt, question), **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_new_tokens_of_peft_have_the_logits_of_this_program(language_model: CausalLM, placement: str) -> None:
    prompt = make_prompt(language_model, placement)
    exported = export(prompt, "peft-tokens", None, encoder=language_model)
    for question in QUESTIONS[:3]:
        names = run_code(exported, question, tokens=1)
        assert names["new"] == list(range(VOCABULARY, VOCABULARY + TOKENS))
        logits = names["model"](input_ids=names["ids"]).logits[0, :, :VOCABULARY]
        torch.testing.assert_close(logits, own_logits(language_model, prompt, question)[:, :VOCABULARY], **TOLERANCE)
    assert "[v1][v2][v3]" in names["text"]


@torch.no_grad()
def test_every_family_computes_the_same(family: CausalLM) -> None:
    """Gemma scales embeddings, OPT projects them, GPT-2 learns positions, and Qwen 2 ties its head to its table."""
    prompt = make_prompt(family)
    for to in ("transformers", "peft", "peft-tokens"):
        if to == "peft-tokens" and files.model_type(family) == "gemma":
            with pytest.raises(ExportRefused, match=r"gemma scales its token embeddings inside the model\. Use the"):
                export(prompt, to, None, encoder=family)
            continue
        names = run_code(export(prompt, to, None, encoder=family), QUESTIONS[0])
        assert generated(names) == own_answer(family, prompt, QUESTIONS[0]), to
        if to != "transformers":
            ids = names["ids"]
            logits = names["model"](input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :, :VOCABULARY]
            torch.testing.assert_close(logits, own_logits(family, prompt, QUESTIONS[0]), **TOLERANCE)


@pytest.mark.parametrize("padded_left", [False, True])
@torch.no_grad()
def test_padding_on_the_left_stands_between_the_soft_tokens_and_the_question(
    language_model: CausalLM, padded_left: bool
) -> None:
    """The reason for the note about padding."""
    prompt = make_prompt(language_model)
    exported = export(prompt, "peft", None, encoder=language_model)
    assert any("pad them on the right" in note for note in exported.notes)
    names = run_code(exported, QUESTIONS[0], tokens=1)
    ids = names["ids"]
    padding = torch.full((1, 4), 2)
    parts = [padding, ids] if padded_left else [ids, padding]
    mask = [torch.zeros_like(part) if part is padding else torch.ones_like(part) for part in parts]
    logits = names["model"](input_ids=torch.cat(parts, 1), attention_mask=torch.cat(mask, 1)).logits[0]
    own = own_logits(language_model, prompt, QUESTIONS[0])
    # the last token of the question, which the answer depends on
    last = logits[-1] if padded_left else logits[-5]
    assert torch.allclose(last, own[-1], **TOLERANCE) is not padded_left


def test_peft_stores_the_template_around_the_soft_tokens(language_model: CausalLM, cwd: Path) -> None:
    """The stored tokens end in front of the last special token, where no token can reach across."""
    for placement, before, behind in (
        ("system", "<|im_start|>system\n", "<|im_end|>\n"),
        ("user", "<|im_start|>user\n", ""),
    ):
        folder = cwd / placement
        exported = export(make_prompt(language_model, placement), "peft", folder, encoder=language_model)
        encode = language_model.tokenizer.encode
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["num_virtual_tokens"] == len(encode(before)) + TOKENS + len(encode(behind))
        assert (config["task_type"], config["base_model_name_or_path"]) == ("CAUSAL_LM", str(language_model.folder))
        assert exported.line.count("<|im_start|>user") == (placement == "system")


def test_new_tokens_avoid_those_of_the_tokenizer(language_model: CausalLM) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(language_model.folder))
    tokenizer.add_tokens(["[v2]"], special_tokens=True)
    _, words, ids = files.peft_tokens(make_prompt(language_model), language_model, tokenizer, "x")
    assert words == ["[v3]", "[v4]", "[v5]"]
    assert ids == [VOCABULARY + 1, VOCABULARY + 2, VOCABULARY + 3]


# servers


def load_tensor(data: str) -> torch.Tensor:
    """Read a tensor as vLLM does."""
    raw = base64.b64decode(data, validate=True)
    with torch.sparse.check_sparse_tensor_invariants():
        tensor = torch.load(io.BytesIO(raw), weights_only=True, map_location="cpu")
    assert isinstance(tensor, torch.Tensor)
    assert tensor.layout == torch.strided
    assert tensor.is_contiguous()
    assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor


@contextmanager
def serve(reply: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Answer every request with `reply`. Yield the address, and a list of the paths and bodies of the requests."""
    requests: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            requests.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


def send(exported: ExportResult, address: str, server: str) -> None:
    code = exported.line
    assert server in code
    exec(compile(code.replace(server, address), "export", "exec"), {})


def test_vllms_chat_route_gets_the_soft_tokens_as_the_system_text(
    language_model: CausalLM, cwd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = make_prompt(language_model)
    exported = export(prompt, "vllm", None, encoder=language_model)
    assert exported.paths == (cwd / "pirate.vllm.json",)
    with serve({"choices": [{"message": {"content": "Paris"}}]}) as (address, requests):
        send(exported, address, "http://localhost:8000")
    assert capsys.readouterr().out == "Paris\n"
    ((path, body),) = requests
    assert path == "/v1/chat/completions"
    assert body == json.loads(exported.paths[0].read_text())  # curl -d @FILE sends the same
    system, user = body["messages"]
    assert user == {"role": "user", "content": instructions.EXAMPLE_QUESTION}
    assert (system["role"], len(system["content"]), system["content"][0]["type"]) == ("system", 1, "prompt_embeds")
    tensor = load_tensor(system["content"][0]["data"])
    assert (tensor.shape, tensor.dtype) == ((TOKENS, language_model.width), torch.bfloat16)
    assert torch.equal(tensor, torch.tensor(prompt.vectors).bfloat16())
    assert body["model"] == str(language_model.folder)
    assert body["stop_token_ids"] == list(language_model.specials.end)
    (note,) = [note for note in exported.notes if "vllm serve" in note]
    assert f"`vllm serve {language_model.folder} --enable-prompt-embeds --dtype bfloat16`" in note
    assert "vLLM 0.21" in note


@pytest.mark.parametrize("placement", PLACEMENTS)
@torch.no_grad()
def test_vllms_completions_route_and_sglang_get_the_whole_chat(
    language_model: CausalLM, placement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = make_prompt(language_model, placement)
    for to, server, reply in (
        ("vllm", "http://localhost:8000", {"choices": [{"text": "Paris"}]}),
        ("sglang", "http://localhost:30000", {"text": "Paris"}),
    ):
        options = {"dtype": "float32"} if to == "vllm" else {}
        exported = export(prompt, to, None, encoder=language_model, question=QUESTIONS[1], **options)
        with serve(reply) as (address, requests):
            send(exported, address, server)
        assert capsys.readouterr().out == "Paris\n"
        ((path, body),) = requests
        if to == "vllm":
            assert (path, "prompt" in body, "messages" in body) == ("/v1/completions", False, False)
            rows = load_tensor(body["prompt_embeds"])
            assert rows.dtype == torch.float32
        else:
            assert path == "/generate"
            rows = torch.tensor(body["input_embeds"])
            assert not {"text", "input_ids"} & body.keys()  # SGLang takes one of the three
            assert body["sampling_params"]["temperature"] == 0
            assert any("--disable-radix-cache" in note for note in exported.notes)
        logits = language_model.logits(rows.unsqueeze(0))[0]
        assert torch.equal(logits, own_logits(language_model, prompt, QUESTIONS[1]))


def test_what_a_server_cannot_hold_is_refused(language_model: CausalLM, family: CausalLM, cwd: Path) -> None:
    kind = files.model_type(family)
    if kind in ("gemma", "opt"):
        for to in ("vllm", "sglang"):
            with pytest.raises(ExportRefused, match="its token embeddings inside the model"):
                export(make_prompt(family), to, None, encoder=family, question="Who?")
    for to, placement, options, message in (
        ("vllm", "user", {}, "pirate has the placement user, which vLLM's chat route cannot hold. Use question='TEXT'"),
        ("vllm", "start", {}, "placement start"),
        ("sglang", "system", {}, "SGLang reads a whole chat. Use question='TEXT' to write a request"),
        ("vllm", "system", {"dtype": "int8"}, "it only works with vllm, as bfloat16, float16, float32"),
        ("peft", "system", {"dtype": "float16"}, "it only works with vllm"),
        ("peft", "system", {"question": "Who?"}, "`question` only works with vllm and sglang"),
    ):
        with pytest.raises(ExportRefused, match=message):
            export(make_prompt(language_model, placement), to, None, encoder=language_model, **options)
    with pytest.raises(ExportRefused, match=r"reads at most 511 before an answer\. Shorten the question"):
        export(make_prompt(language_model), "sglang", None, encoder=language_model, question="Who? " * 500)
    with pytest.raises(PromptError, match="special token"):
        export(make_prompt(language_model), "sglang", None, encoder=language_model, question="a<|im_end|>b")
    assert list(cwd.iterdir()) == []


def test_a_template_without_a_system_turn_has_no_chat_route(tmp_path: Path) -> None:
    model = load_causal_lm(save_model("Llama", tmp_path, GEMMA, max_position_embeddings=512), "cpu")
    with pytest.raises(ExportRefused, match="has no system turn, which vLLM's chat route needs"):
        export(make_prompt(model), "vllm", None, encoder=model)


def test_the_request_says_what_the_template_depends_on(tmp_path: Path) -> None:
    """Thinking is off, and a template that prints the date gets a note."""
    template = LLAMA3 + "{% if enable_thinking %}{% endif %}"
    model = load_causal_lm(save_model("Llama", tmp_path, template, max_position_embeddings=512), "cpu")
    exported = export(make_prompt(model), "vllm", None, encoder=model)
    assert json.loads(exported.paths[0].read_text())["chat_template_kwargs"] == {"enable_thinking": False}
    assert any("prints the date of the day" in note for note in exported.notes)


# vectors alone, and what is refused


@pytest.mark.parametrize("to", VECTORS)
def test_formats_of_vectors_need_no_model(language_model: CausalLM, to: str) -> None:
    prompt = make_prompt(language_model)
    exported = export(prompt, to, None)
    assert exported.word == ""
    text = " ".join(exported.notes)
    assert f"only work with {language_model.name}, in placement system of its chat template" in text
    assert "Stable Diffusion" not in text
    assert "loads as is" not in text
    assert ("KoboldCpp cannot use it" in text) is (to == "kobold")
    if to == "kobold":
        with zipfile.ZipFile(exported.paths[0]) as archive:
            assert json.loads(archive.read("meta.json"))["supported"] == [language_model.name]


@pytest.mark.parametrize("width", [768, 1024])
def test_the_width_of_an_image_programs_encoder_does_not_make_it_one(language_model: CausalLM, width: int) -> None:
    prompt = make_prompt(language_model, vectors=np.ones((2, width), np.float32))
    assert not any("Stable Diffusion" in note for note in export(prompt, "safetensors", None).notes)
    for to in PROGRAMS.keys() - LANGUAGE_MODEL_PROGRAMS.keys():
        with pytest.raises(
            ExportRefused, match=f"format {to} is for soft prompts of text encoders, but pirate is for a lang"
        ):
            export(prompt, to, None)


@pytest.mark.parametrize("to", sorted(LANGUAGE_MODEL_PROGRAMS.keys() - PROGRAMS.keys()))
def test_a_text_encoders_soft_prompt_is_refused_by_programs_for_language_models(to: str) -> None:
    with pytest.raises(
        ExportRefused, match=f"format {to} is for soft prompts of language models, but fox is for a text"
    ):
        export(a_prompt(name="fox"), to, None)
    with pytest.raises(ExportRefused, match="`question` only works with soft prompts of language models"):
        export(a_prompt(name="fox"), "numpy", None, question="Who?")


@pytest.mark.parametrize("to", NEEDS_MODEL)
def test_another_model_template_or_placement_is_refused(language_model: CausalLM, cwd: Path, to: str) -> None:
    options: dict[str, Any] = {"question": "Who?"} if to in ("vllm", "sglang") else {}
    prompt = make_prompt(language_model)
    assert prompt.answers is not None
    for changed, error, message in (
        (replace(prompt, model_fingerprint="0" * 16), ConfigError, "different weights"),
        (
            replace(prompt, answers=replace(prompt.answers, template="0" * 16)),
            ExportRefused,
            "in the chat template 000",
        ),
        (replace(prompt, answers=replace(prompt.answers, placement="end")), ExportRefused, "unknown placement 'end'"),
    ):
        with pytest.raises(error, match=message):
            export(changed, to, None, encoder=language_model, **options)
    with pytest.raises(ExportRefused, match=r"Pass it as `encoder`; softprompt\.load_causal_lm loads it"):
        export(prompt, to, None, **options)
    with pytest.raises(ExportRefused, match="SDXL pairs are for text encoders"):
        export(prompt, to, None, other=prompt, encoder=language_model)
    with pytest.raises(ExportRefused, match="`token` only works with diffusers"):
        export(prompt, to, None, token="<x>", encoder=language_model, **options)
    assert list(cwd.iterdir()) == []


@pytest.mark.parametrize("to", NEEDS_MODEL)
def test_existing_files_are_replaced_only_with_force(language_model: CausalLM, to: str) -> None:
    options: dict[str, Any] = {"encoder": language_model} | ({"question": "Who?"} if to == "sglang" else {})
    paths = export(make_prompt(language_model), to, None, **options).paths
    with pytest.raises(ExportRefused, match="already exists"):
        export(make_prompt(language_model), to, None, **options)
    assert export(make_prompt(language_model), to, None, force=True, **options).paths == paths


def test_a_tokenizer_that_other_programs_read_differently_is_refused(
    language_model: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_model.tokenizer, "encode", lambda text: [1000 + len(text)])
    with pytest.raises(ExportRefused, match="other programs cannot read pirate in its placement, system"):
        export(make_prompt(language_model), "peft", None, encoder=language_model)


def test_a_hostile_name_never_leaves_its_string(language_model: CausalLM, cwd: Path) -> None:
    folder = cwd / 'a"\\\n'
    folder.mkdir()
    exported = export(
        make_prompt(language_model, name='x"; import os #'), "transformers", folder, encoder=language_model
    )
    assert all(line.isprintable() for line in exported.line.splitlines())
    assert len(exported.line.splitlines()) == 15
    names = run_code(exported, QUESTIONS[0], tokens=1)
    assert "os" not in names


# back again


@pytest.mark.parametrize("to", ["safetensors", "transformers", "peft", "peft-tokens"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_our_own_exports_come_back_with_everything(language_model: CausalLM, to: str, placement: str) -> None:
    prompt = make_prompt(language_model, placement)
    exported = export(prompt, to, None, encoder=language_model)
    path = exported.paths[0].parent if to.startswith("peft") else exported.paths[0]
    (result,) = import_files(Library(), [path]).imported
    restored = result.entry.prompt
    assert (result.state, result.format) == ("added", "export of softprompt-tui")
    assert restored == prompt
    assert restored.vectors.tobytes() == prompt.vectors.tobytes()


@pytest.mark.parametrize("to", ["kobold", "numpy"])
def test_vectors_come_back_with_unknown_provenance(language_model: CausalLM, to: str) -> None:
    prompt = make_prompt(language_model)
    (result,) = import_files(Library(), [export(prompt, to, None).paths[0]]).imported
    restored = result.entry.prompt
    assert restored.vectors.tobytes() == prompt.vectors.tobytes()
    assert (restored.model, restored.answers) == ("", None)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "TRAINABLE_TOKENS"])
def test_folders_that_peft_writes_are_read(family: CausalLM, cwd: Path, kind: str) -> None:
    base = transformers.AutoModelForCausalLM.from_pretrained(str(family.folder))
    config: peft.PeftConfig = (
        peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, token_dim=family.width)
        if kind == "PROMPT_TUNING"
        else peft.TrainableTokensConfig(task_type="CAUSAL_LM", token_indices=[7, 9])
    )
    model = peft.get_peft_model(base, config)
    model.save_pretrained(str(cwd / "adapter"))
    expected = next(
        weight for name, weight in model.named_parameters() if "prompt_encoder" in name or "trainable_tokens" in name
    )
    parsed = read_soft_prompts(cwd / "adapter")
    assert parsed.vectors[""].tobytes() == expected.detach().numpy().tobytes()
    assert parsed.provenance == {}
    assert parsed.metadata["peft_type"] == kind
    assert "left out" not in parsed.metadata
    if kind == "TRAINABLE_TOKENS" and files.model_type(family) != "gemma":
        exported = export(make_prompt(family), "peft-tokens", None, encoder=family)
        own = exported.paths[0].parent
        names = [set(load_file(folder / "adapter_model.safetensors")) for folder in (cwd / "adapter", own)]
        assert names[0] == names[1]
        settings = [json.loads((folder / "adapter_config.json").read_text()) for folder in (cwd / "adapter", own)]
        assert settings[0]["target_modules"] == settings[1]["target_modules"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_indices": [1, 2]}, "does not declare one index for each token"),
        ({"token_indices": None}, "does not declare one index for each token"),
        ({"peft_type": "PROMPT_TUNING"}, "no tensor named prompt_embeddings"),
        ({"peft_type": "LORA"}, "'LORA' instead of PROMPT_TUNING or TRAINABLE_TOKENS"),
    ],
)
def test_damaged_folders_are_refused(language_model: CausalLM, changes: dict[str, Any], message: str) -> None:
    folder = export(make_prompt(language_model), "peft-tokens", None, encoder=language_model).paths[0].parent
    change_json(folder / "adapter_config.json", **changes)
    with pytest.raises(FileRefused, match=message):
        read_soft_prompts(folder)


@pytest.mark.parametrize("rows", ["", "0:0", "2:1", "0:99", "-1:2", "0:3\n", "a:b", "999999999:9999999999"])
def test_a_hostile_range_of_rows_is_refused(language_model: CausalLM, cwd: Path, rows: str) -> None:
    from safetensors.numpy import load, save

    folder = export(make_prompt(language_model), "peft", None, encoder=language_model).paths[0].parent
    path = folder / "adapter_model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    metadata = json.loads(raw[8 : 8 + length])["__metadata__"]
    path.write_bytes(save(load(raw), metadata | {"softprompt_rows": rows}))
    with pytest.raises(FileRefused, match=r"provenance is damaged \(it names the rows"):
        read_soft_prompts(folder)
