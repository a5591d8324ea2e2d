"""The application: the interface and the command line."""

PROGRAM = "softprompt-tui"
ERRORS_AS_JSON = (
    "SOFTPROMPT_ERRORS_AS_JSON"  # set by a program that runs a command and tells errors apart by their kind
)
