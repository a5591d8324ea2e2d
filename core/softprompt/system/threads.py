"""How torch's threads wait for each other on a cpu. Needs no torch, and must be said before it is imported."""

from __future__ import annotations

import os

VARIABLE, SPINS = "GOMP_SPINCOUNT", "8000"
POLICY = "OMP_WAIT_POLICY"


def limit_openmp_spin() -> None:
    """Lets OpenMP's threads spin for a moment only before they sleep, unless the user has said otherwise.

    A step is some hundred short parallel parts. Threads that spin between them, as they do by default, hold the core that their own
    partner is waiting for as soon as another program wants it: measured on two cores, two trainings at once took a hundred times as long as
    one, and with this three (64 prompts) to seven times (one). Alone, a step is as quick as before. With 3,000 spins two at once take a fifth
    less for 64 prompts and half for one, but a training alone takes a fifth more.
    """
    if POLICY not in os.environ:
        os.environ.setdefault(VARIABLE, SPINS)
