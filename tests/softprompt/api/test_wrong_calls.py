"""Wrong calls of the public API: each raises a typed error of one line that a person can act on."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
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
    ArgumentError: encoder is 'mini' (str); expected a TextEncoder or a CausalLM. Load one with
    softprompt.load_encoder('mini').
train("a fox", encoder)
    ArgumentError: encoder is 'a fox' (str); expected a TextEncoder or a CausalLM. Load one with
    softprompt.load_encoder('mini').
train(None, FOX)
    ArgumentError: encoder is None; expected a TextEncoder or a CausalLM. Load one with
    softprompt.load_encoder('mini').
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
load_encoder("smollm2")
    ModelRefused: smollm2 is a language model, but this needs a text encoder. Load it with
    softprompt.load_causal_lm('smollm2').
load_causal_lm(5)
    ArgumentError: name is 5 (int); expected a path
load_causal_lm("mini")
    ModelRefused: mini is a text encoder. Load it with softprompt.load_encoder('mini').
load_causal_lm("smolm2")
    UnknownModel: there is no language model and no folder 'smolm2'. Use smollm2, smollm2-q4, hf:OWNER/NAME, a
    folder or a .gguf file.
load_causal_lm("smollm2", precision="fp16")
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
    ArgumentError: config is 3 (int); expected a TrainConfig or None. You can also write settings as
    arguments, such as tokens=3.
train(encoder, FOX, {"tokens": 3})
    ArgumentError: config is a dict; expected a TrainConfig or None. You can also write settings as
    arguments, such as tokens=3.
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
    ConfigError: objective is 'cosin'; it must be one of: cosine, mse, contrastive, hidden, mixed, distill. Did you
    mean 'cosine'?
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
    invokeai, kohya, kobold, peft, numpy. Did you mean 'comfyui'?
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
    ArgumentError: ax is 5 (int); expected matplotlib's Axes or None. For a plot of pyplot, pass plt.gca().
# values built by hand
replace(prompt, vectors=np.zeros(3, np.float32))
    ArgumentError: vectors has the shape (3,); it must be (tokens, width)
replace(prompt, losses=np.zeros(50, np.float32))
    ArgumentError: losses has 50 values, similarities 5; both must have one value per step
replace(prompt, config=None)
    ArgumentError: SoftPrompt.config is None; expected a dict with strings as keys
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

# too many items, and items without an order
train(encoder, repeat("a"))
    ArgumentError: text has more than 1,000,000 items; expected at most 1,000,000
train(encoder, FOX, contexts=repeat("a {}"))
    ArgumentError: contexts has more than 1,000,000 items; expected at most 1,000,000
train(encoder, FOX, meanings=repeat(("a", 1)))
    ArgumentError: meanings has more than 64 items; expected at most 64
train(encoder, FOX, objective="contrastive", against=["a"] * 1001)
    ConfigError: against has 1,001 items; it must have at most 1,000
train(encoder, FOX, contexts={"a {}"})
    ArgumentError: contexts is a set, which has no order; expected a list of strings
train(encoder, FOX, objective="contrastive", against={"a"})
    ArgumentError: against is a set, which has no order; expected a list of strings
HardConfig(block={"a"})
    ArgumentError: block is a set, which has no order; expected a list of strings
train_batch({"a", "b"})
    ArgumentError: source is a set, which has no order; expected a list
compose(encoder, "[fox] " * 100_000)
    PromptError: the prompt has 600,000 characters; at most 200,000 are allowed. Shorten it.
compose(encoder, "[fox] " * 33_000)
    PromptError: 66000 tokens do not fit: mini has room for 75 between its start and end tokens. Shorten the text.
# names of other libraries
train(encoder, FOX, lr=0.1)
    ArgumentError: train has no argument 'lr'. Did you mean 'rate'?
train(encoder, FOX, num_virtual_tokens=3)
    ArgumentError: train has no argument 'num_virtual_tokens'. Did you mean 'tokens'?
train(encoder, FOX, **{"": 3})
    ArgumentError: train has no argument ''. It has: encoder, text, config, meanings, start, on_report, interval,
    resume, progress, against, contexts, family, hidden_share, init, long, objective, patience, placement,
    project_norm, questions, rate, restarts, seed, self_study, steps, stop_at, tokens.
TrainConfig(learning_rate=0.1)
    ArgumentError: TrainConfig has no argument 'learning_rate'. Did you mean 'rate'?
encoder.encode(["a"], batch_size=2, normalize_embeddings=True)
    ArgumentError: encode has no argument 'batch_size'. It takes texts only, makes batches by itself, and returns
    unit vectors as a torch.Tensor.
encoder.encode(sentences=["a"])
    ArgumentError: encode has no argument 'sentences'. Did you mean 'texts'?
export(prompt, "numpy", overwrite=True)
    ArgumentError: export has no argument 'overwrite'. Did you mean 'force'?
prompt.save("fox.safetensors", force=True)
    ArgumentError: save has no argument 'force'. Did you mean 'overwrite'?
sweep(encoder, FOX, counts=[1])
    ArgumentError: sweep has no argument 'counts'. Did you mean 'token_counts'?
# settings and arguments
train(encoder, FOX, patience=10**5000)
    ConfigError: patience is a very long number; it must be a whole number from 1 to 1,000,000,000. 50 is typical.
train(encoder, FOX, HardConfig())
    ArgumentError: config is a HardConfig; expected a TrainConfig or None. You can also write settings as arguments,
    such as tokens=3.
find_hard(encoder, FOX, 4, TrainConfig())
    ArgumentError: config is a TrainConfig; expected a HardConfig or None. You can also write settings as arguments,
    such as tokens=3.
HardConfig.from_dict(5)
    ConfigError: the settings are 5 (int); they must be a dict of names and values
HardConfig.from_dict({"a": 1})
    ConfigError: unknown settings: a. They may come from a newer version: update softprompt-tui.
train(encoder, FOX, meanings=[("a", True)])
    ArgumentError: meanings contains a tuple that contains True; expected texts with positive weights, such as [('a
    lake', 0.6), ('a fox', 0.4)]
load_encoder("mini", on_progress=5)
    ArgumentError: on_progress is 5 (int); expected a function or None. It is called with the progress.
load_encoder("local-dir:")
    UnknownModel: 'local-dir:' names no folder. Add the path of a folder with open_clip_config.json and weights.
sweep(encoder, FOX, [1, "2"])
    ArgumentError: token_counts contains '2' (str); expected a list of whole numbers
encoder.tokenize(5)
    ArgumentError: text is 5 (int); expected a string
prompt.plot(plt)
    ArgumentError: ax is a module; expected matplotlib's Axes or None. For a plot of pyplot, pass plt.gca().
compose(encoder, "[fox]", {"fox": prompt.vectors})
    ArgumentError: library['fox'] is an ndarray of shape (2, 256); expected a SoftPrompt or an Entry
compose(encoder, "[fox]", {5: prompt})
    ArgumentError: library has the key 5 (int); expected the name of a soft prompt
train_batch("")
    ArgumentError: source is '' (str); expected a path, a binary stream or a list of texts or of mappings. Open a
    file with mode 'rb', or pass its path; pass a column of a table, or table.to_dict('records').
prompt.save(".safetensors")
    ExportRefused: the file .safetensors has only a suffix. Use a name such as fox.safetensors.
SoftPrompt.load("wolf")
    FileRefused: wolf does not exist. For a soft prompt of the library, use Library()['wolf'].
# vectors of another model
grade(encoder, replace(prompt, vectors=np.zeros((2, 255))))
    ConfigError: fox has vectors of width 255, but mini has width 256
grade(encoder, replace(prompt, vectors=np.zeros((80, 256))))
    ConfigError: tokens is 80, but mini has room for 75. Use 1 to 75; 10 is typical, and 3 is often enough.
grade(encoder, FOX, np.full((2, 256), 1e38))
    PromptError: mini cannot compute with the soft tokens: their largest value is 1e+38, compared with 0.35 for the
    model's own tokens. Train it again, or import another file.
read_out(encoder, np.full((2, 256), 1e38))
    PromptError: mini cannot compute with the soft tokens: their largest value is 1e+38, compared with 0.35 for the
    model's own tokens. Train it again, or import another file.
# values built by hand
SoftPrompt()
    ArgumentError: SoftPrompt needs the argument 'hard_prompt'. softprompt.train makes a soft prompt, and
    SoftPrompt.load reads one from a file.
replace(prompt, nam="wolf")
    ArgumentError: SoftPrompt has no argument 'nam'. Did you mean 'name'?
replace(prompt, config={1: 2})
    ArgumentError: SoftPrompt.config is a dict; expected a dict with strings as keys
prompt.config.update(steps=99)
    ArgumentError: the values of a soft prompt cannot be changed. Change a copy, such as dict(prompt.config).
replace(prompt, vectors=None)
    ArgumentError: SoftPrompt.vectors is None; expected an array of numbers
replace(prompt, vectors=[["a"]])
    ArgumentError: SoftPrompt.vectors is a list that contains a list; expected an array of numbers
replace(prompt, vectors=np.zeros((2, 256), complex))
    ArgumentError: SoftPrompt.vectors is an ndarray of shape (2, 256) of dtype complex128; expected an array of
    numbers
replace(prompt, vectors=np.full((2, 256), np.nan))
    ArgumentError: vectors contains a number that is not finite
replace(prompt, vectors=np.full((2, 256), 1e300))
    ArgumentError: vectors contains a number that is not finite
replace(prompt, target=np.full(384, np.inf))
    ArgumentError: target contains a number that is not finite
HardPrompt("a", ((320,),), "", ((1, 5),))
    ArgumentError: HardPrompt.variants is a tuple that contains a tuple that contains 1 (int); expected a tuple of
    (weight, HardPrompt) pairs
HardPrompt("a", ((320,),), "", ((np.nan, HardPrompt("a", ((320,),))),))
    ArgumentError: HardPrompt.variants has the weight nan; expected numbers greater than 0
Entry("fox")
    ArgumentError: Entry needs the argument 'revision'. library.save makes an entry, and library['fox'] opens one.
Entry("ab" * 8, 1, "fox")
    ArgumentError: Entry.prompt is 'fox' (str); expected a SoftPrompt
Entry("ab" * 8, 1, prompt, tags="red")
    ArgumentError: Entry.tags is 'red' (str); expected a tuple of strings
WeightedText("a", "b")
    ArgumentError: WeightedText.share is 'b' (str); expected a number
WeightedText("a", np.nan)
    ArgumentError: WeightedText.share is nan; expected a number greater than 0
WeightedText("a")
    ArgumentError: WeightedText needs the argument 'share'
Ancestor("mixed", 2, "fox", FOX, "mini", "abc")
    ArgumentError: Ancestor.id is 2 (int); expected a string
HardReadout("a", "2", 1.0, None, "pez", 1, 0.1)
    ArgumentError: HardReadout.tokens is '2' (str); expected a whole number
Sweep(5)
    ArgumentError: Sweep.prompts is 5 (int); expected a tuple of SoftPrompt
Sweep(()).knee
    ArgumentError: an empty sweep has no knee
# a state with other values
replace(state, seconds="x")
    ArgumentError: TrainingState.seconds is 'x' (str); expected a number
replace(state, seconds=np.nan)
    ArgumentError: TrainingState.seconds is nan; expected at least 0
replace(state, threads="2")
    ArgumentError: TrainingState.threads is '2' (str); expected a whole number
replace(state, threads=-5)
    ArgumentError: TrainingState.threads is -5; expected at least 0
replace(state, best=5)
    ArgumentError: TrainingState.best is 5 (int); expected a SoftPrompt or None
replace(state, tensors=5)
    ArgumentError: TrainingState.tensors is 5 (int); expected a dict with strings as keys
replace(state, tensors={"vectors": None})
    ArgumentError: TrainingState.tensors['vectors'] is None; expected a torch.Tensor
replace(state, tensors={"vectors": np.zeros((1, 1, 256))})
    ArgumentError: TrainingState.tensors['vectors'] is an ndarray of shape (1, 1, 256); expected a torch.Tensor
train(encoder, FOX, tokens=1, steps=2, resume=edited(lambda tensor: tensor.bool()))
    ConfigError: resume has the tensor 'vectors' of torch.bool; expected torch.float32
train(encoder, FOX, tokens=1, steps=2, resume=replace(state, step=10**15))
    ConfigError: resume is the state of a run with another text, model or settings. Pass the same ones as in that run.
train(encoder, FOX, tokens=1, steps=2, resume=edited(lambda tensor: tensor[:0]))
    ConfigError: resume is the state of a run with another text, model or settings. Pass the same ones as in that
    run.
train(encoder, FOX, tokens=1, steps=2, resume=edited(lambda tensor: tensor * np.nan))
    ConfigError: resume has best vectors or losses that are not finite. Resume from another state.
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
    """Evaluate a call, with an encoder, a soft prompt `prompt`, a library that holds it, and a run's `state`.

    `edited(change)` is that state with changed tensors.
    """
    from matplotlib import pyplot

    def edited(change: Callable[[torch.Tensor], torch.Tensor]) -> TrainingState:
        return replace(state, tensors={name: change(tensor) for name, tensor in state.tensors.items()})

    library = Library()
    library.save(fox)
    public = {name: getattr(softprompt, name) for name in softprompt.__all__}
    names = public | {"encoder": encoder, "prompt": fox, "library": library, "state": state, "FOX": FOX}
    names |= {"replace": replace, "repeat": repeat, "np": np, "pd": pandas, "torch": torch, "plt": pyplot}
    names["edited"] = edited
    return lambda call: eval(call, names)


@pytest.mark.parametrize(("call", "error"), CALLS, ids=[call for call, _ in CALLS])
def test_a_wrong_call_says_in_one_line_what_to_do(evaluate: Callable[[str], Any], call: str, error: str) -> None:
    with pytest.raises(SoftPromptError) as caught:
        evaluate(call)
    assert f"{type(caught.value).__name__}: {caught.value}" == " ".join(error.split())
    assert caught.value.bad_input


def test_there_are_at_least_forty_wrong_calls() -> None:
    assert len(CALLS) >= 40
