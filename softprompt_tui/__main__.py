"""`python -m softprompt_tui`."""

from softprompt_tui.cli import entry

entry()
