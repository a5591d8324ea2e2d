"""Chat templates: the pieces of a chat, and templates that attack."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from softprompt.encoders.causal_lm import chat_template
from softprompt.encoders.causal_lm.chat_template import ChatTemplate, load_chat_template
from softprompt.encoders.causal_lm.tokenizer import CausalLMTokenizer, load_tokenizer
from softprompt.errors import ModelRefused, ModelUnavailable, PromptError
from tests.softprompt.encoders.causal_lm.tiny_models import change_json, save_tokenizer

CHATML = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}"
    "<|im_start|>system\nYou are an assistant.<|im_end|>\n{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
LLAMA3 = (
    "{{- bos_token }}{% set date = strftime_now('%d %b %Y') if strftime_now is defined else 'now' %}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{%- if message['role'] == 'system' %}{{- 'Today: ' + date + '\n\n' }}{%- endif %}"
    "{{- message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if tools is not none %}{{- raise_exception('tools') }}{%- endif %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# drops the system message silently
PLAIN = "{% for m in messages if m.role == 'user' %}Q: {{ m.content }}\nA:{% endfor %}"
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "plain": PLAIN}
SYSTEM, USER = "You are a pirate.\nAnswer in one line. ", " What is 🦊 {{ 7 * 7 }}?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> CausalLMTokenizer:
    return load_tokenizer("tiny", folder)


@pytest.fixture(scope="module")
def templates(tokenizer: CausalLMTokenizer) -> dict[str, ChatTemplate]:
    return {name: ChatTemplate("tiny", source, tokenizer) for name, source in TEMPLATES.items()}


def rendered(folder: Path, source: str, *messages: tuple[str, str]) -> list[int]:
    """Return the ids of a whole chat from transformers."""
    reference = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    conversation = [{"role": role, "content": text} for role, text in messages]
    source = source.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'")  # the date that the templates get from us
    text = reference.apply_chat_template(
        conversation, chat_template=source, add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    return list(reference(text, add_special_tokens=False, truncation=False, padding=False).input_ids)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_joined_pieces_are_the_whole_chat(
    name: str, templates: dict[str, ChatTemplate], folder: Path, tokenizer: CausalLMTokenizer
) -> None:
    system, user = SYSTEM.strip(), USER.strip()
    template = templates[name]
    assert template.has_system_turn == (name in ("chatml", "llama3"))
    messages = [("system", system), ("user", user)] if template.has_system_turn else [("user", f"{system}\n\n{user}")]
    chat = template.encode(USER, SYSTEM)
    assert chat.ids == rendered(folder, TEMPLATES[name], *messages)
    assert (tokenizer.decode(chat.system).strip(), tokenizer.decode(chat.user).strip()) == (system, user)
    alone = template.encode(USER)
    assert alone.ids == rendered(folder, TEMPLATES[name], ("user", user))
    assert (alone.system, alone.between) == ((), ())
    assert tokenizer.decode(alone.user).strip() == user
    assert chat.after == alone.after


@pytest.mark.parametrize("name", TEMPLATES)
def test_soft_tokens_can_stand_for_the_system_text_or_in_front_of_the_users(
    name: str, templates: dict[str, ChatTemplate], tokenizer: CausalLMTokenizer
) -> None:
    template = templates[name]
    chat, alone = template.encode(USER, SYSTEM), template.encode(USER)
    before, after = template.encode_around(USER, "system")
    if template.has_system_turn:
        assert (before, after) == (list(chat.before), [*chat.between, *chat.user, *chat.after])
    else:
        assert tokenizer.decode(after).startswith("\n\nWhat is")
    before, after = template.encode_around(USER, "user")
    assert (before + after, after) == (alone.ids, [*alone.user, *alone.after]) or name == "plain"


def test_thinking_is_off_and_the_default_system_text_stays(
    templates: dict[str, ChatTemplate], tokenizer: CausalLMTokenizer
) -> None:
    alone = templates["chatml"].encode("Hi")
    assert tokenizer.decode(alone.after).endswith("<think>\n\n</think>\n\n")
    assert "You are an assistant." in tokenizer.decode(alone.before)
    assert "Today: 26 Jul 2024" in tokenizer.decode(templates["llama3"].encode("Hi", "Be kind").before)


def test_a_template_has_a_digest(templates: dict[str, ChatTemplate], tokenizer: CausalLMTokenizer) -> None:
    digests = {template.digest for template in templates.values()}
    assert len(digests) == len(TEMPLATES)
    assert ChatTemplate("tiny", CHATML, tokenizer).digest == templates["chatml"].digest


def test_a_text_cannot_open_a_turn_or_reach_the_template(templates: dict[str, ChatTemplate]) -> None:
    template = templates["chatml"]
    with pytest.raises(PromptError, match=r"the user's text contains <\|im_end\|>, a special token"):
        template.encode("a<|im_end|>b", "system")
    with pytest.raises(PromptError, match=r"the system text contains <\|im_start\|>"):
        template.encode("a", "<|im_start|>")
    with pytest.raises(PromptError, match="NUL"):
        template.encode_around("a\0", "user")


def test_where_a_template_is_found(tmp_path: Path, tokenizer: CausalLMTokenizer) -> None:
    save_tokenizer(tmp_path, template=CHATML)

    def digest() -> str:
        return load_chat_template("tiny", tmp_path, tokenizer).digest

    assert digest() == ChatTemplate("tiny", CHATML, tokenizer).digest
    change_json(tmp_path / "tokenizer_config.json", chat_template=[
        {"name": "tool_use", "template": PLAIN}, {"name": "default", "template": GEMMA}
    ])  # fmt: skip
    assert digest() == ChatTemplate("tiny", GEMMA, tokenizer).digest
    (tmp_path / "chat_template.jinja").write_text(LLAMA3)
    assert digest() == ChatTemplate("tiny", LLAMA3, tokenizer).digest
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelUnavailable, match=r"cannot read .*chat_template.jinja"):
        digest()
    (tmp_path / "chat_template.jinja").unlink()
    change_json(tmp_path / "tokenizer_config.json", chat_template=None)
    with pytest.raises(ModelRefused, match=r"tiny has no chat template.*put a chat_template.jinja into its folder"):
        digest()


HOSTILE = {
    "loops forever": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "allocates": "{{ messages[0].content * 10 ** 10 }}",
    "allocates again and again": "{% set ns = namespace(x='a') %}{% for a in range(99) %}{% set ns.x = ns.x * 2 %}"
    "{% endfor %}",
    "prints megabytes": "{% for a in range(99999) %}{{ messages[0].content }}{% endfor %}",
    "has a huge range": "{% for a in range(10 ** 9) %}{% endfor %}",
    "reads classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages[0].content }}",
    "reads globals": "{{ cycler.__init__.__globals__.os.listdir('/') }}{{ messages[0].content }}",
    "formats attributes": "{{ '{0.__class__.__mro__}'.format(1) }}{{ messages[0].content }}",
    "includes a file": "{% include '/etc/passwd' %}{{ messages[0].content }}",
    "is broken": "{% if %}",
    "recurses": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "nests": "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "always raises": "{{ raise_exception('no\nthanks') }}",
    "drops the text": "hello",
    "repeats the text": "{{ messages[-1].content }}{{ messages[-1].content }}",
    "changes the text": "{{ messages[-1].content | upper }}",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_template_is_refused(
    kind: str, tokenizer: CausalLMTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_template, "TIMEOUT_SECONDS", 2.5)
    start = time.monotonic()
    with pytest.raises(ModelRefused, match=r"tiny is not supported: its chat template .*chat_template.jinja") as error:
        ChatTemplate("tiny", HOSTILE[kind], tokenizer)
    assert "\n" not in str(error.value)
    assert "gave an invalid result" not in str(error.value)
    assert time.monotonic() - start < 30


def test_a_template_that_changes_what_it_is_given_changes_nothing(tokenizer: CausalLMTokenizer) -> None:
    source = "{% set _ = messages.append({'role': 'user', 'content': 'evil'}) %}" + PLAIN
    with pytest.raises(ModelRefused, match="SecurityError"):
        ChatTemplate("tiny", source, tokenizer)


def test_rendering_imports_and_opens_nothing_after_lock_down() -> None:
    """A module that is missing from PRELOADED_MODULES would make the child refuse good templates."""
    code = (
        "import json, sys\nfrom softprompt.encoders.causal_lm import chat_template_child as child\n"
        "templates = json.load(sys.stdin)\n"
        "child.MAX_CPU_SECONDS = 60\nchild.lock_down()\nevents = []\n"
        "sys.addaudithook(lambda event, args: events.append(str(args[0])) if event in ('import', 'open') else None)\n"
        "for source in templates:\n"
        "    child.render({'template': source, 'system': 's', 'user': 'u', 'variables': {}})\n"
        "print(events)\n"
        "try:\n    open('/etc/passwd')\nexcept OSError:\n    print('cannot open')"
    )
    unicode = "{% set été = 1 %}{{ été }}{{ {'a': 'é'} | tojson(indent=2) }}{{ '\\u00e9' }}{{ 'a' | wordwrap }}"
    slow = ("loops forever", "allocates again and again")
    sources = [*TEMPLATES.values(), unicode, *(source for kind, source in HOSTILE.items() if kind not in slow)]
    completed = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(sources), capture_output=True, text=True, check=True
    )
    assert completed.stdout.split("\n")[:2] == ["[]", "cannot open"]
