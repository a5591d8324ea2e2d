"""Gradient descent on a few input embeddings of a frozen model.

`trainer` is the API. `loop` runs one training and `scheduler` many, both as a `batch` whose `optimizer` updates all
rows at once. Nothing here knows a model family or a loss, except `trainer`, which chooses the objective.
"""
