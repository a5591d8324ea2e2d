"""`python -m softprompt_tui`."""

from softprompt_tui.cli import main

main()
