"""POS: every pending event has a random priority of its own; the highest runs next.

Yuan, Yang, Gu: Partial Order Aware Concurrency Sampling, CAV 2018, section 3. After an event the
pending events that race with it get fresh priorities, so that what came late in one race need not
come late in the next. An event that has to wait for n independent ones of another task does so with
probability 1 / (n + 1), where a random walk pays 2^-n. Bound: section 4 there bounds the chance of
every partial order from below by its tasks, events and races; no depth or length need be known.
Departures: an event counts as racing by `dependent`, locks included, where the paper tells races
from lock operations. Ties: the current task, then the lowest cpu, so that the all-zero stream is
the default run. Where one task alone can run nothing is drawn: there is nothing to decide.
"""

from __future__ import annotations

from collections.abc import Sequence

from kstate.machine import Choices, Point, Task, Turn, default_task, dependent

PRIORITIES = 1 << 16


class Pos:
    """Draws: a priority for each event that becomes pending, lowest cpu first."""

    every_step = False

    def __init__(self) -> None:
        self.begin(Choices())

    def begin(self, choices: Choices) -> None:
        self._choose = choices.choose
        self._priority: dict[int, int] = {}  # of the next event of each task that could run
        self._steps = 0
        self._last: tuple[int, Point, int] | None = None  # what ran: task, point, object

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        old, choose = self._priority, self._choose
        if steps != self._steps + 1:  # one ran alone: its event is new, the others could not run
            old = {}
        self._steps = steps
        priority = self._priority = {}
        for task in runnable:
            index = task.index
            if index in old and not self._redrawn(task):
                priority[index] = old[index]
            else:  # a new event, one that has raced, or one that could not run
                priority[index] = choose(PRIORITIES)
        best = default_task(runnable, current)
        for task in runnable:
            if priority[task.index] > priority[best.index]:
                best = task
        self._last = None
        if best.point is not None:
            self._last = best.index, best.point, best.operand.id
        return Turn(best, 1)

    def _redrawn(self, task: Task) -> bool:
        """Was its pending event the one that ran, or does it race with that?"""
        if self._last is None or task.point is None:
            return True
        ran, point, operand = self._last
        return task.index == ran or dependent(point, operand, task.point, task.operand.id)
