"""The application: the interface and the command line."""

PROGRAM = "softprompt-tui"
# set by a program that runs a command and needs the type of an error
ERRORS_AS_JSON = "SOFTPROMPT_ERRORS_AS_JSON"
