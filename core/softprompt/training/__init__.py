"""Gradient descent on a few input embeddings of a frozen model.

`trainer` is the API. `loop` trains one soft prompt and `scheduler` many; both use a `batch`, whose `optimizer` updates
all rows at once. Only `trainer`, which chooses the objective, depends on a model family or a loss.
"""
