"""Render an untrusted chat template in a child process with tight limits. It cannot open files or start processes.

stdin: JSON, {"template", "system", "user", "variables"}. stdout: JSON, a list of two renderings, with and without the
system message, each {"text"} or {"error"}. `chat_template` is the other end.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from softprompt.system.child_process import give_up_rights

MAX_MEMORY_BYTES, MAX_CPU_SECONDS = 1 << 29, 4  # address space, CPU time
MAX_LENGTH = 200_000  # characters of a rendered chat
# everything that jinja2 would import while it renders, or while it reports an error
PRELOADED_MODULES = (
    "jinja2.sandbox", "jinja2.ext", "jinja2.debug", "jinja2._identifier", "encodings.unicode_escape", "encodings.ascii",
    "encodings.latin_1", "json.encoder", "unicodedata",
)  # fmt: skip
DATE = "26 Jul 2024"  # Llama 3's own default: the same template gives the same tokens on every day


def render(request: dict[str, Any]) -> list[dict[str, str]]:
    """Return the two renderings of a template."""
    system = {"role": "system", "content": request["system"]}
    user = {"role": "user", "content": request["user"]}
    return [_render(request, messages) for messages in ([system, user], [user])]


def _render(request: dict[str, Any], messages: list[dict[str, str]]) -> dict[str, str]:
    text, length = [], 0
    try:
        template = _environment().from_string(request["template"])
        for piece in template.generate(
            **request["variables"], messages=messages, tools=None, documents=None, add_generation_prompt=True,
            enable_thinking=False,
        ):  # fmt: skip
            length += len(piece)
            if length > MAX_LENGTH:
                return {"error": f"it prints more than {MAX_LENGTH:,} characters"}
            text.append(piece)
    except MemoryError:
        return {"error": f"it needs more than {MAX_MEMORY_BYTES:,} bytes of memory"}
    except Exception as error:  # a template can raise any error
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    return {"text": "".join(text)}


def _environment() -> Any:
    """Return jinja2's sandbox with what transformers offers to chat templates."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks an assistant's text for training. Here it only prints its contents."""

        tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: object) -> None:
        raise TemplateError(str(message))

    def to_json(value: object, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda _format: DATE
    return environment


def lock_down() -> None:
    """Import everything that rendering needs, then give up the right to open files and start processes."""
    give_up_rights(PRELOADED_MODULES, MAX_MEMORY_BYTES, MAX_CPU_SECONDS)


def main() -> None:
    lock_down()
    request = json.loads(sys.stdin.buffer.read())
    sys.stdout.buffer.write(json.dumps(render(request)).encode())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
