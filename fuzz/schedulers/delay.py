"""Delay-bounded: a deterministic scheduler, and a few random steps at which it skips a task.

Emmi, Qadeer, Rakamaric: Delay-Bounded Scheduling, POPL 2011, section 3. The deterministic scheduler
runs a task until it blocks or ends; a delay makes it go on with the next one, round robin. Bound: a
bug that some d delays show is hit in one run with probability >= 1 / (k + 1)^d, for k steps,
whatever the number of tasks.
Departures: after a block or an end it goes on with the lowest cpu, not the next, so that without
delays it is the default run; the paper enumerates delays, this draws them: d steps, with
replacement, 0 for none. k counts the steps of the profile run: a longer run has none beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence

from kstate.machine import UNLIMITED, Choices, Task, Turn, default_task


class Delay:
    """delays: d, how many. steps: k, steps of the profile run while tasks compete.

    Draws: the delays, once; v stands for one before the v-th step."""

    every_step = False

    def __init__(self, delays: int = 2, steps: int = 0) -> None:
        self.delays = delays
        self.steps = steps
        self.begin(Choices())

    def begin(self, choices: Choices) -> None:
        self._choose = choices.choose
        self._pending: list[int] | None = None  # steps at which to delay, the next one last

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        if self._pending is None:
            drawn = [self._choose(self.steps + 1) for _ in range(self.delays)]
            self._pending = sorted((steps + at - 1 for at in drawn if at), reverse=True)
        pending = self._pending
        at = runnable.index(default_task(runnable, current))
        while pending and pending[-1] <= steps:
            pending.pop()
            at += 1
        task = runnable[at % len(runnable)]
        return Turn(task, pending[-1] - steps if pending else UNLIMITED)
