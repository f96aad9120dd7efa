"""PCT: random priorities, and depth - 1 random points where the running task gets the lowest.

Burckhardt, Kothari, Musuvathi, Nagarakatte: A Randomized Scheduler with Probabilistic Guarantees of
Finding Bugs, ASPLOS 2010, section 3. Bound: a bug of depth d shows in one run with probability
>= 1 / (n * k^(d-1)), for n tasks and k steps.
Departures: priorities are drawn with replacement (ties: the current task, then the lowest cpu), so
that the all-zero stream is the default run; a change point drawn as 0 does not exist; of two change
points the later gives the lower priority, where the paper draws which; k counts the steps of the
profile run, so a longer run has none beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence

from kstate.machine import UNLIMITED, Choices, Task, Turn

PRIORITIES = 1 << 16


class Pct:
    """depth: bug depth aimed at, >= 1. steps: k, steps of the profile run while tasks compete.

    Draws: one priority a task when it is first seen, then once depth - 1 change points."""

    every_step = False

    def __init__(self, depth: int = 3, steps: int = 0) -> None:
        self.depth = depth
        self.steps = steps
        self.begin(Choices())

    def begin(self, choices: Choices) -> None:
        self._choose = choices.choose
        self._priority: dict[int, int] = {}
        self._changes: list[int] | None = None
        self._lowest = 0

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        priority = self._priority
        for task in runnable:
            if task.index not in priority:
                priority[task.index] = self._choose(PRIORITIES)
        if self._changes is None:
            drawn = [self._choose(self.steps + 1) for _ in range(self.depth - 1)]
            self._changes = sorted((steps + at for at in drawn if at), reverse=True)
        changes = self._changes
        while changes and changes[-1] <= steps:
            changes.pop()
            self._lowest -= 1
            priority[(current or self._best(runnable, current)).index] = self._lowest
        until = changes[-1] - steps if changes else UNLIMITED
        return Turn(self._best(runnable, current), until, True)

    def _best(self, runnable: Sequence[Task], current: Task | None) -> Task:
        best = runnable[0] if current is None else current
        for task in runnable:
            if self._priority[task.index] > self._priority[best.index]:
                best = task
        return best
