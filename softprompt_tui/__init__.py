"""The application: the command line."""
