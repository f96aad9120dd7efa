"""Random walk: whenever a run of steps is over, any runnable task goes on.

The baseline of every paper on schedule sampling. Departure: runs of steps instead of single ones,
uniform in 1 .. 2*run-1, so `run` steps on average; run=1 decides at every step.
"""

from __future__ import annotations

from collections.abc import Sequence

from kstate.machine import Choices, Task, Turn, default_task


class RandomWalk:
    """run: mean number of steps between decisions, >= 1.

    Draws per decision: which task (0: the default one), then the length of the run if run > 1."""

    every_step = False

    def __init__(self, run: int = 1) -> None:
        self.run = run
        self._choose = Choices().choose

    def begin(self, choices: Choices) -> None:
        self._choose = choices.choose

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        task = default_task(runnable, current)
        drawn = self._choose(len(runnable))
        if drawn:  # 0 is the default task, the others follow in order
            task = [other for other in runnable if other is not task][drawn - 1]
        if self.run == 1:
            return Turn(task, 1)
        return Turn(task, 1 + self._choose(2 * self.run - 1))
