"""The worker: a process that trains for this user's programs and outlives them. Importing this costs no torch.

A client (`client`) sends requests over a socket (`protocol`); `server` answers them. `queue` keeps the runs as folders
(`run_folder`) and hands them to `trainer`, a thread that owns torch and runs them (`executor`); `run_recorder` writes
each run's events and checkpoint.
"""
