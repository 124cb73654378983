"""A role whose wall clock jumps when told: `python -m tests.support.jumping_clock worker`.

SIGUSR1 sets it an hour forward, SIGUSR2 an hour back, from where it is. `time.time`, `time.time_ns`
and `datetime.now` follow; the monotonic clock goes on, as it does when a real clock is set. All the
rest is the real role.
"""

from __future__ import annotations

import datetime
import signal
import sys
import time
from types import FrameType

JUMP_S = 3_600

_offset_s = 0
_real_time, _real_time_ns, _real_datetime = time.time, time.time_ns, datetime.datetime


class JumpingDatetime(_real_datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return _real_datetime.now(tz) + datetime.timedelta(seconds=_offset_s)


def jump(number: int, _: FrameType | None) -> None:
    global _offset_s
    _offset_s += JUMP_S if number == signal.SIGUSR1 else -JUMP_S
    sys.stderr.write(f"clock off by {_offset_s} s\n")
    sys.stderr.flush()


def replace() -> None:
    """Put the jumping clock wherever a module has the real one: a forked role has imported all."""
    jumping = {
        id(_real_time): lambda: _real_time() + _offset_s,
        id(_real_time_ns): lambda: _real_time_ns() + _offset_s * 10**9,
        id(_real_datetime): JumpingDatetime,
    }
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if id(value) in jumping and not name.startswith("_real_"):
                setattr(module, name, jumping[id(value)])


if __name__ == "__main__":
    replace()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, jump)
    # Imported last: modules that are imported only now take these names.
    from cli.main import main

    sys.exit(main())
