"""Limit how long torch's CPU threads spin. Call `limit_openmp_spin` before importing torch."""

from __future__ import annotations

import os

SPIN_VARIABLE, SPIN_COUNT = "GOMP_SPINCOUNT", "8000"
POLICY_VARIABLE = "OMP_WAIT_POLICY"


def limit_openmp_spin() -> None:
    """Let OpenMP threads spin only briefly before they sleep, unless the user has set a wait policy.

    A step runs about a hundred short parallel regions, and by default threads spin between them. If another program
    needs a core, a spinning thread can block the very thread it is waiting for. Measured on two cores: by default, two
    concurrent training runs took 100 times as long as one; with this limit, 3 times (64 prompts) to 7 times (one
    prompt). A single run is as fast as before. With 3,000 spins, two concurrent runs take a fifth less time for 64
    prompts and half the time for one prompt, but a single run takes a fifth longer.
    """
    if POLICY_VARIABLE not in os.environ:
        os.environ.setdefault(SPIN_VARIABLE, SPIN_COUNT)
