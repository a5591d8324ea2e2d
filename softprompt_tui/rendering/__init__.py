"""Format values as text, tables and plots. Pure functions; the command line uses them too."""
