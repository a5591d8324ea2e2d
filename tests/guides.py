"""Run the examples of the README and of the guides in a shell, as a reader would, in one home.

`softprompt-tui` on the shell's path hands each command to the nursery, which has already imported torch. To save time
and need no download and no GPU, commands train for few steps, and each real model is `mini`, or a small one with random
weights where its width matters or where it is a language model.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fake_hub import serve_hub
from tests.nursery import PIPE, Nursery
from tests.recipes import SD_WIDTH, write_open_clip

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "softprompt_tui" / "docs"
PROGRAM = "softprompt-tui"
NEEDS_WIDTH = "image-programs.md"  # a program reads only soft prompts of its encoder's width
# what a reader does once, outside this program, and what needs a screen
NOT_RUN = ("pipx", "uv", "git", "cd", "python3", "test -d .venv", ".venv/bin/", "source")
STEPS, WIDE_STEPS, STEPS_FOR_A_GOAL = 5, 2, 30
SECONDS_PER_BLOCK = 300  # far more than one takes, for a busy machine
COMMANDS_WITH_STEPS = ("train", "sweep", "tune", "batch")
LANGUAGE_MODELS = ("smollm2", "smollm2-q4")
MEASURES = ("bench", "doctor")  # these take long and have tests of their own, so only their options are read
MAX_REQUEST_BYTES = 1 << 20
# what is different at every run, or on every machine
_VARYING = re.compile(r"[0-9a-f]{16}|(?:[~/][^\s]*)?/[^\s]*|\d[\d.,]*")


@dataclass(frozen=True)
class Block:
    """A block of code in a document.

    Attributes:
        line: 1-based number of its first line.
    """

    document: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Ran:
    """A block, what a command of it printed, and what it should print ("" if the document does not say)."""

    block: Block
    command: str
    code: int
    output: str
    error: str
    expected: str = ""


def read_blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(path.name, text.count("\n", 0, match.start()) + 2, match[1], match[2])
        for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def shell_lines(code: str) -> list[str]:
    """Return the lines of a shell script that readers repeat; the others install something or open the screen."""
    return [
        line for line in code.splitlines() if line.split("#")[0].strip() != PROGRAM and not line.startswith(NOT_RUN)
    ]


def shape(output: str) -> list[str]:
    """Return what a document promises about an output: its lines, up to the first figure or gap of each."""
    return [re.split(r" {2,}|\t", _VARYING.sub("#", line).strip())[0] for line in output.rstrip().splitlines()]


class Shell:
    """Runs blocks in a folder of their own. Call `close` at the end."""

    def __init__(self, folder: Path, nursery: Nursery, environment: dict[str, str]) -> None:
        self.folder, self._nursery = folder / "work", nursery
        self.folder.mkdir()
        self._wide_model, _ = write_open_clip(folder / "model", SD_WIDTH)
        self._model = "mini"  # stands in for a real one
        self._language_model = folder / "language-model"  # made when a command needs it: transformers takes seconds
        self._environment = environment
        self._lock = threading.Lock()
        nursery.warm_vocabulary()  # for hard readouts
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        address = str(folder / "s")
        self._server.bind(address)
        self._server.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        (folder / "bin").mkdir()
        program = folder / "bin" / PROGRAM
        code = (
            f"#!{sys.executable} -IS\nimport json, os, socket, sys\n"
            "line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            f"line.connect({address!r})\n"
            "socket.send_fds(line, [json.dumps([os.getcwd(), sys.argv[1:]]).encode()], [0, 1, 2])\n"
            "sys.exit(int(line.recv(9)))\n"
        )
        program.write_text(code, encoding="utf-8")
        program.chmod(0o755)
        self._variables = os.environ | environment | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}

    def close(self) -> None:
        self._server.close()

    def run(self, block: Block) -> list[Ran]:
        self._model = self._wide_model if block.document == NEEDS_WIDTH else "mini"
        if block.language == "console":
            return [self._run_shell(block, *example) for example in self._examples(block)]
        if block.language == "python":
            return [self._run_python(block)]
        script = "\n".join(shell_lines(block.code))
        return [self._run_shell(block, script)] if script.strip() else []

    def _examples(self, block: Block) -> Iterator[tuple[str, str]]:
        for example in re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]:
            command, _, expected = example.partition("\n")
            yield command, expected

    def _run_python(self, block: Block) -> Ran:
        """Run a script in a process of the nursery, which ends before it would run a command."""
        code = block.code
        for name in LANGUAGE_MODELS:
            if f'"{name}"' in code:
                code = code.replace(f'"{name}"', repr(self._small_language_model()))
        before = f"{self._go_to(str(self.folder))}\n{code}\nraise SystemExit"
        with self._lock:
            script = self._nursery.start_command(before=before, stdout=PIPE, stderr=PIPE, **self._environment)
        output, error = script.read_output()
        return Ran(block, block.code, script.wait(), output, error)

    def _go_to(self, folder: str) -> str:
        # the command line makes only the process's own streams safe against a reader that goes away
        return f"import os; os.chdir({folder!r}); sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr"

    def _run_shell(self, block: Block, script: str, expected: str = "") -> Ran:
        return self._run(["bash", "-euo", "pipefail", "-c", script], block, script, expected)

    def _run(self, command: list[str], block: Block, shown: str, expected: str = "") -> Ran:
        done = subprocess.run(
            command, cwd=self.folder, env=self._variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=SECONDS_PER_BLOCK,
        )  # fmt: skip
        return Ran(block, shown, done.returncode, done.stdout, done.stderr, expected)

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        with line:
            raw, descriptors, _, _ = socket.recv_fds(line, MAX_REQUEST_BYTES, 3)
            folder, args = json.loads(raw)
            with self._lock:  # the nursery answers one request after the other
                command = self._nursery.start_command(
                    *self._quick(args), stdin=descriptors[0], stdout=descriptors[1], stderr=descriptors[2],
                    before=self._go_to(folder), **self._environment,
                )  # fmt: skip
            for descriptor in descriptors:
                os.close(descriptor)
            line.send(str(command.wait()).encode())

    def _small_language_model(self) -> str:
        if not self._language_model.exists():
            from tests.softprompt.conftest import CHATML
            from tests.softprompt.encoders.causal_lm.tiny_models import save_model

            save_model("Llama", self._language_model, CHATML, max_position_embeddings=512)
        return f"local-dir:{self._language_model}"

    def _quick(self, args: list[str]) -> list[str]:
        """Return the same command with fewer steps and without a download or a GPU."""
        if args[:2] == ["models", "pull"]:
            args = [self._small_language_model() if arg in LANGUAGE_MODELS else arg for arg in args]
        if args[0] != "models":
            args = [self._model if re.fullmatch(r"[\w-]+/[\w-]+", arg) else arg for arg in args]
            args = ["cpu" if arg.startswith("cuda") else arg for arg in args]
            args = [self._small_language_model() if arg in LANGUAGE_MODELS else arg for arg in args]
        if args[0] in COMMANDS_WITH_STEPS or (args[0] == "compose" and "--save" in args):
            steps = STEPS_FOR_A_GOAL if "auto" in args else WIDE_STEPS if self._wide_model in args else STEPS
            args += [] if "--steps" in args or "--help" in args else ["--steps", str(steps)]
        if "--restarts" in args:
            args += ["--restarts", "1"]
        if args[0] in MEASURES:
            args.append("--help")
        if args[0] == "harden" and "--help" not in args:
            args += ["--seconds", "0.3", "--restarts", "1"]
        return args


@contextmanager
def open_shell(folder: Path, nursery: Nursery, **environment: str) -> Iterator[Shell]:
    with serve_hub() as hub:
        shell = Shell(folder, nursery, hub.environment(folder / "hub") | environment)
        try:
            yield shell
        finally:
            shell.close()
