"""The application: the interface and the command line."""

PROGRAM = "softprompt-tui"
# environment variable: set by callers that need the type of an error
ERRORS_AS_JSON = "SOFTPROMPT_ERRORS_AS_JSON"
