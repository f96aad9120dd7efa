"""Processes that work for one that waits for them, each at the end of a pipe of its own.

A pool's workers share one queue, and a worker that is killed while it holds that queue's lock takes
the others with it. Here nothing is shared: whoever is lost, idle or at work, is missed at once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import multiprocess
from multiprocess.connection import wait

Work = Callable[[Any], Any]


class WorkerLost(Exception):
    """A process was killed from outside."""

    def __init__(self) -> None:
        super().__init__("a process of the search was killed")


class Workers:
    """Forked, so that `work` need not be picklable; what goes in and what comes out must be.

    Args:
        jobs: how many processes.
        work: what each does with what it is given.
    """

    def __init__(self, jobs: int, work: Work) -> None:
        context = multiprocess.get_context("fork")
        self._idle: list[Any] = []
        self._given: dict[Any, Any] = {}  # by pipe: what is being worked at
        self.processes = []
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            self._idle.append(ours)
            process = context.Process(
                target=_serve, args=(theirs, work, list(self._idle)), daemon=True
            )
            process.start()
            self.processes.append(process)
            theirs.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

    @property
    def idle(self) -> bool:
        """Is there one with nothing to do?"""
        return bool(self._idle)

    @property
    def busy(self) -> bool:
        """Is there one at work?"""
        return bool(self._given)

    def give(self, part: Any) -> None:
        """Let an idle one work at `part`."""
        pipe = self._idle.pop()
        self._given[pipe] = part
        try:
            pipe.send(part)
        except OSError:
            raise WorkerLost from None

    def answers(self, timeout_s: float) -> Iterable[tuple[Any, Any]]:
        """What came in, waiting for it so long: (part, what came of it) each.

        Raises:
            WorkerLost: one was killed. Whatever `work` has raised.
        """
        for pipe in wait([*self._given, *self._idle], timeout_s):
            try:
                answer = pipe.recv()
            except (EOFError, OSError):
                raise WorkerLost from None
            part = self._given.pop(pipe)
            self._idle.append(pipe)
            if isinstance(answer, BaseException):
                raise answer
            yield part, answer


def _serve(pipe: Any, work: Work, not_mine: list[Any]) -> None:
    """A worker: until whoever started it is gone. not_mine: ends that it has only inherited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that waits says when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for inherited in not_mine:
        inherited.close()
    while True:
        try:
            part = pipe.recv()
        except EOFError:
            return
        try:
            answer = work(part)
        except Exception as error:
            answer = error
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return
