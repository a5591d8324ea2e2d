"""Values as people see them: text, tables, plots. Pure, and shared with the command line."""
