"""The command line: starts the roles, keeps them running, talks to a node from a terminal.

Linux ignores SIGTERM for process 1 of a container until the process has a handler of its own. A
role installs its handlers when its modules are loaded, which takes most of a second. Until then the
handler below ends the process at once, as SIGTERM ends every other process that has no handler.
This package is the first of ours that is imported, so the handler stands here.
"""

import os
import signal

if os.getpid() == 1:
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
