"""Run the recipes of softprompt_tui/docs/python-api.md from the wheel: `python -m tests.recipes --python PATH`.

The wheel is installed into a new environment, which finds all other packages in the environment of PATH. No model is
downloaded: each recipe's `MODEL` becomes `mini` or a small model with random weights.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "softprompt_tui" / "docs" / "python-api.md"
NOTEBOOK, OPEN_CLIP, TRANSFORMERS, DIFFUSERS = (
    "A notebook", "The vectors in open_clip", "The vectors in transformers", "The vectors in diffusers",
)  # fmt: skip
Constants = dict[str, str | int]
KEPT_VARIABLES = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LD_LIBRARY_PATH"}
AT_ONCE = 2  # recipes that run at the same time
SD_WIDTH = 768  # of the text encoder of Stable Diffusion 1.x


@dataclass(frozen=True)
class Recipe:
    """A recipe on the page: its heading and its code."""

    title: str
    code: str

    @property
    def shows_progress(self) -> bool:
        """Whether it shows progress bars, which go to standard error."""
        return "progress=True" in self.code or "from_pretrained" in self.code

    def with_constants(self, constants: Constants) -> str:
        """Return the code with other values for the constants at its top."""
        code = self.code
        for name, value in constants.items():
            code, count = re.subn(rf"^{name} = .*$", f"{name} = {value!r}", code, flags=re.MULTILINE)
            assert count == 1, f"{self.title} has no constant {name}"
        return code


def read_recipes() -> list[Recipe]:
    text = PAGE.read_text(encoding="utf-8")
    recipes = text[text.index("\n# Recipes\n") : text.index("\n# Reference\n")]
    return [
        Recipe(title, code)
        for title, code in re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```$", recipes, re.DOTALL | re.MULTILINE)
    ]


# models that need no download


def make_constants(folder: Path, titles: list[str]) -> dict[str, Constants]:
    """Create the models that recipes need. Return the constants of each recipe."""
    constants: dict[str, Constants] = {title: {"MODEL": "mini"} for title in titles}
    if {OPEN_CLIP, TRANSFORMERS} & set(titles):
        name, model = write_open_clip(folder / "clip", 64)
        _write_transformers(folder / "clip-transformers", model)
        constants[OPEN_CLIP] = {"MODEL": name, "WEIGHTS": ""}  # open_clip finds the weights in the folder
        constants[TRANSFORMERS] = {"MODEL": name, "CLIP": str(folder / "clip-transformers")}
    if DIFFUSERS in titles:
        name, model = write_open_clip(folder / "sd", SD_WIDTH)
        _write_pipeline(folder / "sd-diffusers", model)
        constants[DIFFUSERS] = {"MODEL": name, "PIPELINE": str(folder / "sd-diffusers"), "STEPS": 10}
    return constants


def write_open_clip(folder: Path, width: int) -> tuple[str, Any]:
    from tests.softprompt.encoders.test_openclip import write_model_folder

    text = {"width": width, "heads": width // 64, "layers": 2}
    return write_model_folder(folder, embed_dim=width, quick_gelu=True, text_cfg=text)


def _text_model(kind: type, model: Any) -> Any:
    """Return a CLIP text encoder of transformers with the weights of an open_clip model."""
    from transformers import CLIPTextConfig

    width = model.token_embedding.embedding_dim
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=width // 64,
        projection_dim=width, hidden_act="quick_gelu", eos_token_id=2,  # as in OpenAI's files
    )  # fmt: skip
    text_model = kind(config)
    weights = {
        "embeddings.token_embedding.weight": model.token_embedding.weight,
        "embeddings.position_embedding.weight": model.positional_embedding,
        "final_layer_norm.weight": model.ln_final.weight,
        "final_layer_norm.bias": model.ln_final.bias,
        "text_projection.weight": model.text_projection.T,
    }
    for number, block in enumerate(model.transformer.resblocks):
        parts = {
            "layer_norm1": block.ln_1, "layer_norm2": block.ln_2, "self_attn.out_proj": block.attn.out_proj,
            "mlp.fc1": block.mlp.c_fc, "mlp.fc2": block.mlp.c_proj,
        }  # fmt: skip
        for name, part in parts.items():
            weights |= {f"encoder.layers.{number}.{name}.{key}": value for key, value in part.named_parameters()}
        for kind_, joined in (("weight", block.attn.in_proj_weight), ("bias", block.attn.in_proj_bias)):
            for letter, value in zip("qkv", joined.chunk(3), strict=True):
                weights[f"encoder.layers.{number}.self_attn.{letter}_proj.{kind_}"] = value
    own = text_model.state_dict()
    text_model.load_state_dict({name: weights[name.removeprefix("text_model.")] for name in own})
    return text_model.eval()


def _write_transformers(folder: Path, model: Any) -> None:
    from transformers import CLIPTextModelWithProjection

    from tests.softprompt.formats.test_consumers import clip_tokenizer

    _text_model(CLIPTextModelWithProjection, model).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)


def _write_pipeline(folder: Path, model: Any) -> None:
    """Write a Stable Diffusion pipeline that computes in seconds what nobody wants to see."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    from tests.softprompt.formats.test_consumers import clip_tokenizer

    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=8,
        cross_attention_dim=SD_WIDTH, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=4, sample_size=8),
        text_encoder=_text_model(CLIPTextModel, model), tokenizer=clip_tokenizer(), unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


# the wheel and its environment


def build_wheel(folder: Path) -> Path:
    """Build the wheel. Return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(folder: Path, wheel: Path, python: str = sys.executable) -> Path:
    """Install the wheel into a new environment that finds all other packages in that of `python`.

    Returns:
        The new environment's Python.
    """
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
    own = folder / "bin" / "python"
    installer = [python, "-m", "pip", "--python", str(own)]
    options = ["install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*installer, *options, str(wheel)], check=True)
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    shared, private = (_output([each, "-c", code]).strip() for each in (python, str(own)))
    # a path in a .pth file comes after the environment's own packages, and .pth files there, such as that of an
    # editable installation of this project, have no effect
    (Path(private) / "shared.pth").write_text(shared + "\n", encoding="utf-8")
    code = "import softprompt, softprompt_tui as tui; print(softprompt.__file__, tui.__file__)"
    where = _output([str(own), "-c", code])
    assert all(Path(path).is_relative_to(private) for path in where.split()), where
    return own


def _output(command: list[str]) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=tempfile.gettempdir(), env=environment()
    ).stdout


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a user's script: nothing leads to this repository or comes from other tests."""
    inherited = {
        key: value for key, value in os.environ.items() if key in KEPT_VARIABLES or key.startswith("OPENBLAS_")
    }
    return inherited | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | changes  # one thread: several run at once


def run_recipe(python: Path, recipe: Recipe, constants: Constants, folder: Path) -> str:
    """Run a recipe as a script in an empty folder. Return its standard output.

    Raises:
        AssertionError: it failed, or printed anything to standard error that is no progress bar.
    """
    folder.mkdir()
    script, empty = folder / "recipe.py", folder / "empty"
    script.write_text(recipe.with_constants(constants), encoding="utf-8")
    empty.mkdir()
    done = subprocess.run(
        [str(python), str(script)],
        cwd=empty, env=environment(SOFTPROMPT_HOME=str(folder / "home")), capture_output=True, text=True,
    )  # fmt: skip
    lines = [line for line in re.split(r"[\r\n]+", done.stderr) if line.strip()]
    errors = [line for line in lines if not (recipe.shows_progress and _EXPECTED.search(line))]
    assert (done.returncode, errors) == (0, []), f"{recipe.title} exited with {done.returncode}:\n{done.stderr}"
    return done.stdout


# a progress bar, and what transformers tells everyone who loads a textual inversion into diffusers
_EXPECTED = re.compile(r"\d+%\|.*\|.*\[.*\]|^\[transformers\] The new embeddings will be initialized from ")


def run_recipes(python: Path, folder: Path, recipes: list[Recipe]) -> dict[str, str]:
    """Run recipes, some at the same time. Return what each printed or, if it is a notebook, shows."""
    constants = make_constants(folder, [recipe.title for recipe in recipes])

    def run(recipe: Recipe) -> str:
        if recipe.title == NOTEBOOK:
            return shown_text(run_notebook(python, recipe, constants[recipe.title], folder / recipe.title))
        return run_recipe(python, recipe, constants[recipe.title], folder / recipe.title)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip([recipe.title for recipe in recipes], pool.map(run, recipes), strict=True))


# a notebook


def make_notebook(recipe: Recipe, constants: Constants) -> Any:
    """Return a notebook whose cells begin where the code has `# %%`."""
    import nbformat

    _, *cells = re.split(r"^# %%.*\n", recipe.with_constants(constants), flags=re.MULTILINE)
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in cells]
    return notebook


def run_notebook(python: Path, recipe: Recipe, constants: Constants, folder: Path) -> Any:
    """Execute a recipe as a notebook with nbclient, in the environment of `python`. Return it with its outputs."""
    import nbformat

    folder.mkdir()
    nbformat.write(make_notebook(recipe, constants), folder / "before.ipynb")
    code = (
        "import sys, nbformat, nbclient; notebook = nbformat.read(sys.argv[1], 4)\n"
        "nbclient.NotebookClient(notebook, timeout=300, kernel_name='python3', coalesce_streams=True).execute()\n"
        "nbformat.write(notebook, sys.argv[2])"
    )
    command = [str(python), "-c", code, str(folder / "before.ipynb"), str(folder / "notebook.ipynb")]
    own = {"SOFTPROMPT_HOME": str(folder / "home"), "IPYTHONDIR": str(folder), "JUPYTER_CONFIG_DIR": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment(**own), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return nbformat.read(folder / "notebook.ipynb", 4)


def shown_text(notebook: Any) -> str:
    """Return everything that a notebook's cells show: HTML, or text where there is no HTML."""
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    shown = [
        output.get("text") or output["data"].get("text/html") or output["data"]["text/plain"] for output in outputs
    ]
    return "\n".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])  # type: ignore[union-attr]
    parser.add_argument("--python", default=sys.executable, help="a Python whose environment has all dependencies")
    parser.add_argument("--only", default="", help="recipes whose heading contains this text")
    arguments = parser.parse_args()
    recipes = [recipe for recipe in read_recipes() if arguments.only in recipe.title]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = make_environment(folder / "environment", build_wheel(folder), arguments.python)
        print(_output([str(python), "-VV"]).strip())
        for title, output in run_recipes(python, folder, recipes).items():
            text = re.sub(r"<style.*?</style>|<[^>]+>", "", output, flags=re.DOTALL) if title == NOTEBOOK else output
            print(f"\n{title}\n{text.strip()}")


if __name__ == "__main__":
    main()
