"""Hard readouts: k real tokens whose typed text means as nearly as possible what a hard prompt means.

    readout = find_hard(encoder, hard_prompt(encoder, "a red fox asleep in deep snow"), 4)
    readout.text, readout.similarity

What is returned was tokenised again from its text, and that is what its figures are of.
"""

from softprompt.discrete.search import HardReport, check_hard, find_hard, iter_hard

__all__ = ["HardReport", "check_hard", "find_hard", "iter_hard"]
