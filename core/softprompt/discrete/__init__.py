"""Hard readouts: k real tokens whose text means almost the same as a hard prompt.

    readout = find_hard(encoder, tokenize_prompt(encoder, "a red fox asleep in deep snow"), 4)
    readout.text, readout.similarity

A readout's text is re-tokenized before it is scored, as if a user had typed it.
"""

from softprompt.discrete.search import HardReport, check_hard, find_hard, iter_hard

__all__ = ["HardReport", "check_hard", "find_hard", "iter_hard"]
