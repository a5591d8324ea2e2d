"""The worker: a background process that trains for this user's programs and keeps running after they exit.

A client (`client`) sends requests over a socket (`protocol`), and `server` answers them. `queue` stores each run in a
folder (`run_folder`) and passes runs to `trainer`, the thread that uses torch and executes them (`executor`).
`run_recorder` writes each run's events and checkpoints. Importing this package does not import torch.
"""
