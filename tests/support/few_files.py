"""A role that may have few open files: `python -m tests.support.few_files api`.

An operator's machine may allow no more than this, and what holds for few holds for many.
"""

from __future__ import annotations

import resource
import sys

FILES = 256

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    from cli.main import main

    sys.exit(main())
