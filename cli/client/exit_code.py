"""The exit codes of the terminal commands. `cli/up/keeper.py` has the code of a refused start."""

EXIT_OK = 0
EXIT_FAILED = 1  # the answer or batch failed, was cancelled, or is not complete
EXIT_UNREACHABLE = 2  # no server, no key, no such object, or a wrong argument
EXIT_INTERRUPTED = 130  # what a shell reports after SIGINT
