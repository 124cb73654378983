"""Runs the tests in several processes that are forked after one collection.

Collection imports 570 modules and makes 13,000 tests, for many seconds of CPU time. Processes that
are forked after it share the result; pytest-xdist's would each collect.

A file of tests runs whole in one process, in the order of the collection, with fixtures of the
session of its own. Reports travel to the first process, whose plugins print and count them:

    first process  -- indexes of a file's tests, or None -->  process of tests
                   <-- "next" ------------------------------
                   <-- a hook's name and its arguments ------  for each start, report and end

When a process of tests dies, the test that it ran fails, and another process runs the rest of the
file. Linux only; elsewhere pytest runs all tests in its own process.
"""

from __future__ import annotations

import atexit
import os
import random
import signal
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from multiprocessing import Pipe, connection
from typing import Any, NoReturn

import pytest

from tests.support.spawn import die_with_parent
from tests.support.wait import DeadlineMissed, until_sync

END_S = 20.0  # for the end of the tests that run when the first process stops


@dataclass
class Child:
    """A process of tests, as the first process sees it: `to_do[0]` is the test that runs."""

    pid: int
    pipe: connection.Connection
    to_do: deque[int] = field(default_factory=deque)
    last: int = 0


class ForkedRun:
    """The plugin of pytest: replaces the loop over the tests.

    Args:
        before_fork: called once, in the first process.
        after_fork: called in each process of tests.
    """

    def __init__(
        self,
        processes: int,
        *,
        before_fork: Callable[[], None] = lambda: None,
        after_fork: Callable[[], None] = lambda: None,
    ) -> None:
        self._processes = processes
        self._before_fork = before_fork
        self._after_fork = after_fork
        self._files: deque[list[int]] = deque()
        self._children: dict[connection.Connection, Child] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        option = session.config.option
        if session.testsfailed or option.collectonly or option.usepdb:
            return None  # pytest's own loop: it refuses errors of the collection
        self._session = session
        terminal: Any = session.config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            terminal.showfspath = False  # the files' lines would interleave
        self._files.extend(_files(session.items))
        self._before_fork()
        try:
            for _ in range(min(self._processes, len(self._files))):
                self._fork()
            while self._children:
                for pipe in connection.wait(list(self._children)):
                    self._receive(self._children[pipe])  # type: ignore[index]
                    _stop_if_asked(session)
        finally:
            self._close()
        return True

    def _fork(self) -> None:
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            for pipe in (ours, *self._children):
                pipe.close()
            self._after_fork()
            _run_child(self._session, theirs)
        theirs.close()
        self._children[ours] = Child(pid, ours)

    def _receive(self, child: Child) -> None:
        try:
            name, arguments = child.pipe.recv()
        except (EOFError, ConnectionError):
            self._bury(child)
            return
        if name == "next":
            indexes = self._files.popleft() if self._files else []
            child.to_do.extend(indexes)
            child.pipe.send(indexes)
        elif name == "failed":
            self._fail(child.to_do[0] if child.to_do else child.last, arguments["text"])
        else:
            if name == "pytest_runtest_logfinish":
                child.last = child.to_do.popleft()
            self._call(name, arguments)

    def _call(self, name: str, arguments: dict[str, Any]) -> None:
        """Call a hook with what a process of tests has sent."""
        hook = self._session.config.hook
        if "report" in arguments:
            arguments["report"] = hook.pytest_report_from_serializable(
                config=self._session.config, data=arguments["report"]
            )
        caller = getattr(hook, name)
        if caller.is_historic():
            caller.call_historic(kwargs=arguments)
        else:
            caller(**arguments)

    def _bury(self, child: Child) -> None:
        """Fail the test in which a process ended, and have the rest of its file run."""
        del self._children[child.pipe]
        child.pipe.close()
        code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        if child.to_do:
            self._fail(child.to_do.popleft(), f"the process of this test ended with {code}")
            if child.to_do:
                self._files.appendleft(list(child.to_do))
            if self._files:
                self._fork()

    def _fail(self, index: int, text: str) -> None:
        item = self._session.items[index]
        report = pytest.TestReport(
            item.nodeid, item.location, {}, outcome="failed", longrepr=text, when="teardown"
        )
        self._session.config.hook.pytest_runtest_logreport(report=report)

    def _close(self) -> None:
        """Have all processes end: each ends after its test, because its pipe is closed."""
        for pipe in self._children:
            pipe.close()
        for child in self._children.values():
            with suppress(ChildProcessError):
                _reap(child.pid)


class Reporter:
    """The plugin of a process of tests: sends what happens to the first process."""

    def __init__(self, config: pytest.Config, pipe: connection.Connection) -> None:
        self._config = config
        self._pipe = pipe

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._send("pytest_runtest_logstart", nodeid=nodeid, location=location)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._send("pytest_runtest_logreport", report=data)

    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._send("pytest_runtest_logfinish", nodeid=nodeid, location=location)

    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        if when != "runtest":  # of the collection: pluggy repeats such calls for a new plugin
            return
        said = f"{warning_message.category.__name__}: {warning_message.message}"
        sent = warnings.WarningMessage(
            UserWarning(said), UserWarning, warning_message.filename, warning_message.lineno
        )
        self._send(
            "pytest_warning_recorded",
            warning_message=sent,
            when=when,
            nodeid=nodeid,
            location=location,
        )

    def next_file(self) -> list[int]:
        """Return the indexes of the tests to run next; none when all tests are given out."""
        self._pipe.send(("next", {}))
        indexes: list[int] = self._pipe.recv()
        return indexes

    def fail(self, text: str) -> None:
        """Fail the test that runs, or the last one."""
        self._send("failed", text=text)

    def _send(self, name: str, **arguments: Any) -> None:
        self._pipe.send((name, arguments))


def _files(items: list[pytest.Item]) -> Iterator[list[int]]:
    """Yield the indexes of the tests of each file."""
    for _, numbered in groupby(enumerate(items), key=lambda pair: pair[1].path):
        yield [index for index, _ in numbered]


def _stop_if_asked(session: pytest.Session) -> None:
    """Stop as pytest's own loop does: after a failure with -x, or when a plugin wants it."""
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


def _run_child(session: pytest.Session, pipe: connection.Connection) -> NoReturn:
    """Run files of tests until there are no more, or until the first process has gone."""
    die_with_parent()
    random.seed()
    _leave_terminal(session.config)
    reporter = Reporter(session.config, pipe)
    session.config.pluginmanager.register(reporter)
    code = 1
    try:
        _run_files(session, reporter)
        session.config.hook.pytest_unconfigure(config=session.config)
        code = 0
    except (ConnectionError, EOFError, KeyboardInterrupt):  # the first process has stopped
        session._setupstate.teardown_exact(None)
    except BaseException:  # an error of pytest or of a plugin: the first process reports it
        with suppress(ConnectionError):
            reporter.fail(traceback.format_exc())
    finally:
        atexit._run_exitfuncs()
        os._exit(code)


def _leave_terminal(config: pytest.Config) -> None:
    """Leave the terminal to the first process, and capture output in files of our own."""
    config.pluginmanager.unregister(name="terminalreporter")
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()
    if capture.is_capturing():
        with open(os.devnull, "wb") as sink:
            os.dup2(sink.fileno(), sys.stdout.fileno())
    capture.start_global_capturing()
    capture.suspend_global_capture()


def _run_files(session: pytest.Session, reporter: Reporter) -> None:
    to_do = deque(reporter.next_file())
    while to_do:
        item = session.items[to_do.popleft()]
        if not to_do:  # the next file decides which fixtures stay
            to_do.extend(reporter.next_file())
        following = session.items[to_do[0]] if to_do else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail or session.shouldstop:  # pytest has ended the fixtures already
            return


def _reap(pid: int) -> None:
    """Wait for the end of a process, and kill it when it does not end in time."""
    try:
        until_sync(lambda: os.waitpid(pid, os.WNOHANG)[0], END_S, "the end of the tests' process")
    except DeadlineMissed:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
