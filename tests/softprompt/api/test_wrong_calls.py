"""Wrong calls of the public API: each raises a typed error of one line that a person can act on."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas
import pytest
import torch

import softprompt
from softprompt import Library, SoftPrompt, SoftPromptError, TrainingState
from softprompt.encoders.clip.text_encoder import TextEncoder
from tests.conftest import FOX

# a call, and below it the type and message of its error
WRONG_CALLS = r"""
# the encoder
train(encoder, {"a", "b"})
    ArgumentError: text is a set, which has no order; expected a list of strings
train(encoder, ["a"], interval=5)
    ArgumentError: interval needs a single text, but text is a list. Train the texts one by one.
train(encoder, FOX, contexts=[f"{i} {{}}" for i in range(1001)])
    ConfigError: contexts has 1,001 items; it must have at most 1,000
train("mini", FOX)
    ArgumentError: encoder is 'mini' (str); expected a TextEncoder. Load one with
    softprompt.load_encoder('mini').
train("a fox", encoder)
    ArgumentError: encoder is 'a fox' (str); expected a TextEncoder. Load one with
    softprompt.load_encoder('mini').
train(None, FOX)
    ArgumentError: encoder is None; expected a TextEncoder. Load one with softprompt.load_encoder('mini').
train()
    ArgumentError: train needs the argument 'encoder'. Load one with softprompt.load_encoder('mini').
train(encoder)
    ArgumentError: train needs the argument 'text'
load_encoder(5)
    ArgumentError: name is 5 (int); expected a string
load_encoder("minni")
    UnknownModel: no model is named 'minni'. Close: mini.
load_encoder("mini", devise="cpu")
    ArgumentError: load_encoder has no argument 'devise'. Did you mean 'device'?
load_encoder("mini", "gpu")
    DeviceError: device is 'gpu'; it must be auto, cpu, cuda, cuda:1 or mps. auto picks the best device.
load_encoder("mini", precision="fp16")
    ConfigError: precision is 'fp16'; it must be float32 or bfloat16. float32 is typical.
encoder.encode(5)
    ArgumentError: texts is 5 (int); expected a string or a list of strings
encoder.encode(["a fox", 5])
    ArgumentError: texts is a list that contains 5 (int); expected a string or a list of strings
encoder.to("gpu")
    DeviceError: device is 'gpu'; it must be auto, cpu, cuda, cuda:1 or mps. auto picks the best device.

# the text and the settings
train(encoder, None)
    ArgumentError: text is None; expected a string or a list of strings
train(encoder, b"a fox")
    ArgumentError: text is b'a fox' (bytes); expected a string or a list of strings
train(encoder, ["a fox", None])
    ArgumentError: text is a list that contains None; expected a string or a list of strings
train(encoder, prompt)
    ArgumentError: text is a SoftPrompt; expected a string or a list of strings
train(encoder, "  ")
    PromptError: the prompt is empty. Type what the soft prompt should mean, for example 'a lake at sunrise'.
train(encoder, FOX, token=3)
    ArgumentError: train has no argument 'token'. Did you mean 'tokens'?
train(encoder, FOX, 3)
    ArgumentError: config is 3 (int); expected a TrainConfig or None. Pass a TrainConfig or HardConfig, or write
    settings as arguments, such as tokens=3.
train(encoder, FOX, {"tokens": 3})
    ArgumentError: config is a dict; expected a TrainConfig or None. Pass a TrainConfig or HardConfig, or write
    settings as arguments, such as tokens=3.
train(encoder, FOX, TrainConfig(), 5)
    ArgumentError: train takes only these arguments by position: encoder, text, config. Write the others with
    their names, such as tokens=3.
train(encoder, FOX, tokens="3")
    ConfigError: tokens is '3'; it must be a whole number from 1 to 4,096. 10 is typical; 3 is often enough.
train(encoder, FOX, tokens=3.0)
    ConfigError: tokens is 3.0; it must be a whole number from 1 to 4,096. 10 is typical; 3 is often enough.
train(encoder, FOX, tokens=100)
    ConfigError: tokens is 100, but mini has room for 75. Use 1 to 75; 10 is typical, and 3 is often enough.
train(encoder, FOX, tokens="auto")
    ConfigError: tokens is auto, but stop_at is not set. Set a target similarity, for example with stop_at=0.99.
train(encoder, FOX, stop_at=99)
    ConfigError: stop_at is 99; it must be greater than -1 and at most 1. It is a similarity, for example 0.99.
train(encoder, FOX, contexts="at night")
    ConfigError: the context 'at night' must contain {} exactly once, where the soft prompt goes, and other
    words. For example: 'a photo of {}'.
train(encoder, FOX, contexts=7)
    ConfigError: contexts is 7 (int); it must be a string or a list of strings.
train(encoder, FOX, project_norm="no")
    ConfigError: project_norm is 'no'; it must be True or False
train(encoder, FOX, objective="cosin")
    ConfigError: objective is 'cosin'; it must be one of: cosine, mse, contrastive, hidden, mixed. Did you mean
    'cosine'?
train(encoder, FOX, objective="contrastive")
    ConfigError: the contrastive objective needs at least one prompt to push away from. Add one with
    against=['TEXT'].
train(encoder, FOX, start=[[1.0, 2.0], [3.0]], init="soft")
    ArgumentError: start is a list that contains a list that contains 1.0 (float); expected a SoftPrompt, an
    Entry, an array of shape (tokens, width) or None
train(encoder, FOX, start=np.zeros(256), init="soft")
    ArgumentError: start has shape (256,); expected (tokens, width), such as (3, 256)
train(encoder, FOX, start=np.full((2, 256), np.nan), init="soft")
    ArgumentError: start has values that are not finite; expected finite numbers
train(encoder, FOX, meanings=["a", "b"])
    ArgumentError: meanings contains 'a' (str); expected texts with positive weights, such as [('a lake', 0.6),
    ('a fox', 0.4)]
train(encoder, FOX, interval=0)
    ArgumentError: interval is 0; expected at least 1. It is the number of steps between two reports.
train(encoder, FOX, interval="5")
    ArgumentError: interval is '5' (str); expected a whole number or a function of the step
train(encoder, FOX, on_report=True)
    ArgumentError: on_report is True; expected a function or None. It is called with each report, and returns
    True to stop.
train(encoder, FOX, resume=3)
    ArgumentError: resume is 3 (int); expected a TrainingState or None. It is the value of report.state().
train(encoder, FOX, progress="yes")
    ArgumentError: progress is 'yes' (str); expected True or False
train(encoder, [FOX], start=prompt)
    ArgumentError: start needs a single text, but text is a list. Train the texts one by one.
iter_train(encoder, [FOX])
    ArgumentError: text is a list; expected a string
TrainConfig(step=5)
    ArgumentError: TrainConfig has no argument 'step'. Did you mean 'steps'?
train(encoder, [FOX], start=np.zeros((1, 256)))
    ArgumentError: start needs a single text, but text is a list. Train the texts one by one.
train(encoder, pd.DataFrame({"prompt": [FOX]}))
    ArgumentError: text is a DataFrame of shape (1, 1); expected a string or a list of strings
train(encoder, FOX, tokens=1, on_report=lambda report: report.step)
    ArgumentError: on_report returned 10 (int); expected True to stop, or None
train(encoder, FOX, meanings=[("a lake", 10**400)])
    ArgumentError: meanings contains a tuple that contains an int; expected texts with positive weights, such as
    [('a lake', 0.6), ('a fox', 0.4)]
train(encoder, FOX, tokens=2, resume=state)
    ConfigError: resume is the state of a run with another text, model or settings. Pass the same ones as in that run.
train(encoder, "a lake", tokens=1, steps=2, resume=state)
    ConfigError: resume is the state of a run with another text, model or settings. Pass the same ones as in that run.
train(encoder, FOX, tokens=1, restarts=2, resume=state)
    ConfigError: resume is the state of a run with another text, model or settings. Pass the same ones as in that run.
encoder.to(torch.device("cuda:7"))
    DeviceError: this machine has no device 'cuda:7'. Use cpu.
encoder.to("cpu", torch.int32)
    ConfigError: precision is 'int32'; it must be float32 or bfloat16. float32 is typical.
load_encoder("no\nsuch model")
    UnknownModel: no model is named 'no\nsuch model'. `softprompt.list_models()` lists all.

# sweeps, measures, hard readouts, compositions
sweep(encoder, FOX, 8)
    ArgumentError: token_counts is 8 (int); expected a list of whole numbers
sweep(encoder, FOX, "1-8")
    ArgumentError: token_counts is '1-8' (str); expected a list of whole numbers
sweep(encoder, FOX, [])
    ConfigError: the sweep has 0 token counts; it must have 1 to 64. Use a range such as range(1, 17), or a list
    such as [1, 2, 4, 8].
grade(encoder, FOX)
    ArgumentError: grade needs the argument 'vectors' unless prompt is a SoftPrompt
grade(encoder, FOX, np.zeros((2, 5)))
    ConfigError: the vectors have width 5, but mini has width 256. Use vectors that were trained on this model.
read_out(encoder, "fox")
    ArgumentError: vectors is 'fox' (str); expected a SoftPrompt, an Entry or an array of shape (tokens, width)
read_out(encoder, prompt, -1)
    ConfigError: alternatives is -1; it must be a whole number from 0 to 1000
find_hard(encoder, FOX)
    ArgumentError: find_hard needs the argument 'tokens' if the prompt is a text, such as tokens=8
find_hard(encoder, FOX, 4, second=5)
    ArgumentError: find_hard has no argument 'second'. Did you mean 'seconds'?
compose(encoder, "[wolf] at night")
    EntryNotFound: no soft prompt is named 'wolf'. `library.list()` shows all.
compose(encoder, "[wolf] at night", {"fox": prompt})
    EntryNotFound: no soft prompt is named 'wolf'. The mapping has: fox.
compose(encoder, "[fox] at night", [prompt])
    ArgumentError: library is a list that contains a SoftPrompt; expected a Library, a mapping from names to
    soft prompts or None. Open one with softprompt.Library().
compose(encoder, "[fox at night")
    TemplateError: at character 1: this [ has no closing ]. Write [name] for a soft prompt, or \[ for a plain
    bracket.

# batches and files
train_batch("a red fox")
    FileRefused: cannot read a red fox: No such file or directory. A string is the path of a file; for one
    prompt, pass ['a red fox'].
train_batch(7)
    ArgumentError: source is 7 (int); expected a path, a binary stream or a list of texts or of mappings. Open a file
    with mode 'rb', or pass its path; pass a column of a table, or table.to_dict('records').
train_batch({"prompt": FOX})
    ArgumentError: source is a dict; expected a path, a binary stream or a list of texts or of mappings. Open a file
    with mode 'rb', or pass its path; pass a column of a table, or table.to_dict('records').
train_batch([FOX], row_limit=0)
    ConfigError: row_limit is 0; it must be at least 1. Leave it out to use all memory.
train_batch([FOX], format="xml")
    ConfigError: format is 'xml'; it must be one of: text, csv, jsonl.
train_batch([FOX], precision="half")
    ConfigError: precision is 'half'; it must be float32 or bfloat16. float32 is typical.
encoder.encode("a\0b")
    PromptError: the text contains a NUL character. Remove it.
library.list(limit=-1)
    ConfigError: limit is -1; it must be at least 0
train_batch([FOX], tag="x")
    ArgumentError: train_batch has no argument 'tag'. Did you mean 'tags'?
train_batch([])
    FileRefused: the input has no prompts
export(prompt, "comfy")
    ExportRefused: unknown export format 'comfy'. Use one of safetensors, comfyui, a1111, a1111-png, diffusers,
    invokeai, kohya, kobold, peft, numpy.
export("fox", "numpy")
    ArgumentError: prompt is 'fox' (str); expected a SoftPrompt or an Entry
import_files([])
    ArgumentError: paths is empty; expected the path of a file, or a list of paths
port(encoder, "fox")
    ArgumentError: prompt is 'fox' (str); expected a SoftPrompt or an Entry
SoftPrompt.load(5)
    ArgumentError: path is 5 (int); expected a path
prompt.save(None)
    ArgumentError: path is None; expected a path

# the library
Library(foldr="x")
    ArgumentError: Library has no argument 'foldr'. Did you mean 'folder'?
Library(5)
    ArgumentError: folder is 5 (int); expected a path or None
library.save("a fox")
    ArgumentError: prompt is 'a fox' (str); expected a SoftPrompt or an Entry
library.save(prompt, name="a/b")
    BadName: the name contains '/'. Use letters, digits, '-', '_' and spaces.
library.open(3)
    ArgumentError: name is 3 (int); expected a string
library.open("foxx")
    EntryNotFound: no soft prompt is named 'foxx'. Close: fox.
library["foxx"]
    EntryNotFound: no soft prompt is named 'foxx'. Close: fox.
library[0]
    ArgumentError: name is 0 (int); expected a string
library.tag("fox", 5)
    ArgumentError: add is 5 (int); expected a string or a list of strings
library.rename("fox")
    ArgumentError: rename needs the argument 'new'
library.list(limit="10")
    ArgumentError: limit is '10' (str); expected a whole number or None
library.list(sort="date")
    ConfigError: entries cannot be sorted by 'date'. Use created, changed, name, model, tokens, similarity,
    composed, steps, seconds.
library.delete("fox", forever=True)
    ArgumentError: delete has no argument 'forever'. It has: name, revision.
library.assign("fox", lambda prompt: None)
    ArgumentError: change returned None; expected a SoftPrompt
library.save(prompt, id="fox")
    ArgumentError: id is 'fox'; expected 16 digits and letters from a to f
library.restore_backup("/dev/zero")
    ArchiveError: cannot read /dev/zero: it is not a regular file. Use a file that `back_up` wrote.
library.delete("fox", revision=99)
    EntryNotFound: fox has no revision 99, so it was not deleted. Use the revision that you saw.
prompt.plot(ax=5)
    ArgumentError: ax is 5 (int); expected matplotlib's Axes or None
# values built by hand
replace(prompt, vectors=np.zeros(3, np.float32))
    ArgumentError: vectors has the shape (3,); it must be (tokens, width)
replace(prompt, losses=np.zeros(50, np.float32))
    ArgumentError: losses has 50 values, similarities 5; both must have one value per step
replace(prompt, config=None)
    ArgumentError: SoftPrompt.config is None; expected a dict
replace(prompt, meanings=("a",))
    ArgumentError: SoftPrompt.meanings is a tuple; expected a tuple of WeightedText
replace(prompt, composition=5)
    ArgumentError: SoftPrompt.composition is 5 (int); expected a ContextFidelity or None
HardPrompt("a", 7)
    ArgumentError: HardPrompt.chunks is 7 (int); expected a tuple of tuples of whole numbers
HardPrompt("a", ())
    ArgumentError: chunks has no token; expected the token ids of each chunk, such as ((320, 3240),)
grade(encoder, HardPrompt("a", ((10**9,),)), prompt)
    ArgumentError: prompt has token ids that mini does not have; expected 0 to 49,407
"""
CALLS = re.findall(r"^(\S.*)\n((?: {4}.*\n)+)", WRONG_CALLS, re.MULTILINE)


@pytest.fixture(scope="module")
def fox(encoder: TextEncoder) -> SoftPrompt:
    return softprompt.train(encoder, FOX, tokens=2, steps=5).named("fox")


@pytest.fixture(scope="module")
def state(encoder: TextEncoder) -> TrainingState:
    return next(softprompt.iter_train(encoder, FOX, tokens=1, steps=2, interval=1)).state()


@pytest.fixture
def evaluate(encoder: TextEncoder, fox: SoftPrompt, state: TrainingState) -> Callable[[str], Any]:
    """Evaluate a call, with an encoder, a soft prompt `prompt`, a library that holds it, and a run's `state`."""
    library = Library()
    library.save(fox)
    public = {name: getattr(softprompt, name) for name in softprompt.__all__}
    names = public | {"encoder": encoder, "prompt": fox, "library": library, "state": state, "FOX": FOX}
    names |= {"replace": replace, "np": np, "pd": pandas, "torch": torch}
    return lambda call: eval(call, names)


@pytest.mark.parametrize(("call", "error"), CALLS, ids=[call for call, _ in CALLS])
def test_a_wrong_call_says_in_one_line_what_to_do(evaluate: Callable[[str], Any], call: str, error: str) -> None:
    with pytest.raises(SoftPromptError) as caught:
        evaluate(call)
    assert f"{type(caught.value).__name__}: {caught.value}" == " ".join(error.split())
    assert caught.value.bad_input


def test_there_are_at_least_forty_wrong_calls() -> None:
    assert len(CALLS) >= 40
