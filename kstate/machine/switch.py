"""`step`, the one function that yields, and the two ways of running a task on its own stack."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

import greenlet

from kstate.machine.callers import RUNNING, Code
from kstate.machine.compiled import COMPILED
from kstate.machine.endings import TaskKilled
from kstate.machine.points import Operand, Primitive

_frame = sys._getframe
_PER_THREAD = threading.local()


def step(primitive: Primitive, operand: Operand) -> list[int]:
    """Every atomic primitive passes here exactly once, before it takes effect.

    Until the scheduler's turn is used up this only counts; then the machine asks, in this very
    call, who goes on. What is about to happen is logged; a primitive that has a result appends it
    to the log this returns. The point's function is whoever called the primitive.
    """
    if COMPILED:
        functions = RUNNING.functions
        code: Code = functions[-1] if functions else primitive.used_by or _frame(0).f_code
    else:
        code = _frame(2).f_code
    try:
        point = primitive.points[code.co_name]
    except KeyError:
        point = primitive.in_function(code)
    if point.code is not code:
        point = primitive.in_function(code)
    machine = operand.machine
    left = machine.left - 1
    machine.left = left
    if left < 0:
        machine.ask(point, operand)
    log: list[Any] = machine.log
    log.append(point.logged)
    log.append(operand.id)
    return log


class Context(Protocol):
    """A stack to run things on. Contexts outlive runs: making one costs ten switches."""

    def start(self, body: Callable[[], Context]) -> None:
        """Have `body` run when this context is next resumed. `body` returns whom to resume then."""

    def resume(self) -> None:
        """Leave the running context, go on with this one; returns when somebody resumes that."""

    def kill(self) -> None:
        """Unwind what is parked here, so that the context can be used again."""


class Backend(Protocol):
    """Where contexts come from. Both kinds give the same runs, byte for byte."""

    def here(self) -> Context:
        """The context of the code that is running now."""

    def take(self) -> Context: ...

    def give_back(self, context: Context) -> None: ...


class GreenletContext:
    """A stack switched by greenlet; the fast one."""

    __slots__ = ("_body", "_killed_by", "greenlet")

    def __init__(self, running: greenlet.greenlet | None = None) -> None:
        self.greenlet = running or greenlet.greenlet(self._loop)
        self._body: Callable[[], Context] | None = None
        self._killed_by: greenlet.greenlet | None = None

    def _loop(self) -> None:
        while True:
            assert self._body is not None
            try:
                following: Context | None = self._body()
            except TaskKilled:
                following = None
            if following is None:
                killer, self._killed_by = self._killed_by, None
                assert killer is not None
                killer.switch()
            else:
                following.resume()

    def start(self, body: Callable[[], Context]) -> None:
        self._body = body

    def resume(self) -> None:
        self.greenlet.switch()

    def kill(self) -> None:
        self._killed_by = greenlet.getcurrent()
        self.greenlet.throw(TaskKilled)


class GreenletBackend:
    """Greenlets from a pool that outlives runs. A greenlet belongs to its OS thread, so does it."""

    def _idle(self) -> list[GreenletContext]:
        idle: list[GreenletContext] | None = getattr(_PER_THREAD, "idle", None)
        if idle is None:
            idle = _PER_THREAD.idle = []
        return idle

    def here(self) -> Context:
        return GreenletContext(greenlet.getcurrent())

    def take(self) -> Context:
        idle = self._idle()
        return idle.pop() if idle else GreenletContext()

    def give_back(self, context: Context) -> None:
        assert isinstance(context, GreenletContext)
        self._idle().append(context)


class ThreadContext:
    """A real OS thread that runs only while it holds the baton; for debuggers and as a check."""

    def __init__(self, *, is_here: bool = False) -> None:
        self._baton = threading.Semaphore(0)
        self._body: Callable[[], Context] | None = None
        self._killed_by: ThreadContext | None = None
        if is_here:
            _PER_THREAD.context = self
        else:
            threading.Thread(target=self._loop, daemon=True, name="kstate task").start()

    def _loop(self) -> None:
        _PER_THREAD.context = self
        self._baton.acquire()
        while True:
            assert self._body is not None
            try:
                following: Context | None = self._body()
            except TaskKilled:
                following = None
            if following is None:
                following, self._killed_by = self._killed_by, None
            assert isinstance(following, ThreadContext)
            following._baton.release()
            self._baton.acquire()

    def start(self, body: Callable[[], Context]) -> None:
        self._body = body

    def resume(self) -> None:
        mine: ThreadContext = _PER_THREAD.context
        self._baton.release()
        mine._baton.acquire()
        if mine._killed_by is not None:
            raise TaskKilled

    def kill(self) -> None:
        self._killed_by = _PER_THREAD.context
        mine: ThreadContext = _PER_THREAD.context
        self._baton.release()
        mine._baton.acquire()


class ThreadBackend:
    """OS threads under a baton, from a pool of its own."""

    def __init__(self) -> None:
        self._pool: list[Context] = []

    def here(self) -> Context:
        return ThreadContext(is_here=True)

    def take(self) -> Context:
        return self._pool.pop() if self._pool else ThreadContext()

    def give_back(self, context: Context) -> None:
        self._pool.append(context)


GREENLETS: Backend = GreenletBackend()
THREADS: Backend = ThreadBackend()
