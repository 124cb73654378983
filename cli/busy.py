"""A bar on a terminal for work of unknown length, which appears only after a second."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

SHOWN_AFTER_S = 1.0


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Show that something is under way within `with`, if standard error is a terminal.

    The work blocks this thread, so another one draws. The bar vanishes at the end.
    """
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_draw, args=(what, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _draw(what: str, over: threading.Event) -> None:
    if over.wait(SHOWN_AFTER_S):
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        progress.add_task(what, total=None)
        over.wait()
