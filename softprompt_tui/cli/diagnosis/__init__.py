"""What `softprompt-tui doctor` finds out about this machine: facts for a bug report, and what is wrong."""
