"""Objectives: the targets and losses of training.

`pooled` compares pooled embeddings; `hidden_states` compares the states that diffusion models use; `distillation`
compares a language model's expectations over its own answers (`teacher`), to questions some of which it may write
itself (`self_study`); `examples` trains it to give the outputs of examples. A new kind of target, such as an image,
needs a new module with a class that implements `base.Objective`. `training.model_kinds.make_objective` chooses between
them. CONTRIBUTING.md has an example.

A target that is not text also needs a field in the job and the task that carries it to `prepare`, and its own grading
in `training.model_kinds.measure`.
"""
