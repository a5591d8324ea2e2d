"""Objectives: what a training minimizes, as targets and a loss.

`pooled` compares pooled embeddings, `hidden_states` what diffusion models read. A new kind of target, such as a picture
or the answers of a language model, is a new module with a class that satisfies `base.Objective`, chosen by
`training.trainer.make_objective`. CONTRIBUTING.md has an example.
"""
