"""URW: a random walk that chooses a task in proportion to the events it has left.

Zhao, Wolff, Mathur, Roychoudhury: Selectively Uniform Concurrency Testing, ASPLOS 2025, section 3.
Where every task can always run and the counts are right, every interleaving is equally likely
(a plain random walk favours those in which tasks progress evenly, exponentially so).
Departures: counts come from the profile run, the default run, and are clamped to at least 1 while
a task lives: other schedules take other paths, and a weight of 0 would postpone the rest of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kstate.machine import Choices, Task, Turn, default_task

Choose = Callable[[int], int]


class Urw:
    """events: how many each task has, by index, init first.

    Draws: one a decision, below the sum of the weights of those that can run, the default task
    first; none where one task alone can run."""

    def __init__(self, events: Sequence[int]) -> None:
        self.events = tuple(events)
        self.begin(Choices())

    def begin(self, choices: Choices) -> None:
        self.every_step = False  # until tasks compete; then every event is to be counted
        self._choose = choices.choose
        self._left = dict(enumerate(self.events))

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        self.every_step = len(runnable) > 1 or runnable[0].index > 0
        task = draw(runnable, current, self._left, self._choose)
        self._left[task.index] = self._left.get(task.index, 0) - 1
        return Turn(task, 1)


def draw(
    runnable: Sequence[Task], current: Task | None, left: dict[int, int], choose: Choose
) -> Task:
    """One of `runnable` in proportion to what it has left, at least 1; 0 draws the default task."""
    if len(runnable) == 1:
        return runnable[0]
    default = default_task(runnable, current)
    weights = [max(1, left.get(task.index, 1)) for task in runnable]
    drawn = choose(sum(weights)) - max(1, left.get(default.index, 1))
    if drawn < 0:
        return default
    for task, weight in zip(runnable, weights, strict=True):
        if task is default:
            continue
        drawn -= weight
        if drawn < 0:
            return task
    raise AssertionError("a draw is below the sum of the weights")
