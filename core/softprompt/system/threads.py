"""Limit how long torch's CPU threads spin. Call `limit_openmp_spin` before torch is imported."""

from __future__ import annotations

import os

SPIN_VARIABLE, SPIN_COUNT = "GOMP_SPINCOUNT", "8000"
POLICY_VARIABLE = "OMP_WAIT_POLICY"


def limit_openmp_spin() -> None:
    """Let OpenMP threads spin only briefly before they sleep, unless the user has set a wait policy.

    A step runs some hundred short parallel regions. By default, threads spin between them. If another program needs a
    core, a spinning thread then blocks the thread that it waits for. Measured on two cores: two trainings at the same
    time took 100 times as long as one by default, but 3 times (64 prompts) to 7 times (one prompt) with this limit. A
    training alone is as fast as before. With 3,000 spins, two trainings take a fifth less time for 64 prompts and half
    for one, but a training alone takes a fifth more.
    """
    if POLICY_VARIABLE not in os.environ:
        os.environ.setdefault(SPIN_VARIABLE, SPIN_COUNT)
