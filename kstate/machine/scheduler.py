"""All the machine asks of a scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kstate.machine.choices import Choices
    from kstate.machine.task import Task

UNLIMITED = 1 << 40


class Turn:
    """`task` runs for `steps` steps unasked, less if it blocks or ends.

    until_wake: also ask when a step of this turn may have made a blocked task ready (a scheduler
    that works by priorities wants that, the others do not)."""

    __slots__ = ("steps", "task", "until_wake")

    def __init__(self, task: Task, steps: int = UNLIMITED, until_wake: bool = False) -> None:
        self.task = task
        self.steps = steps
        self.until_wake = until_wake

    def __repr__(self) -> str:
        return f"Turn({self.task}, {self.steps}, {self.until_wake})"


class Scheduler(Protocol):
    """Whose turn is it, and for how long. Sees tasks and their next (point, operand), no kernel.

    every_step: ask before every step, even where just one task could run.
    """

    every_step: bool

    def begin(self, choices: Choices) -> None:
        """Forget the last run: spelling and choices decide everything."""

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        """Choose among `runnable` (two or more unless `every_step`, lowest cpu first).

        current: the task that asks, None if it cannot go on; in `runnable` otherwise.
        steps: steps taken so far by all tasks.
        """


def default_task(runnable: Sequence[Task], current: Task | None) -> Task:
    """The default run: stay on the current task until it blocks or ends, then the lowest cpu."""
    return runnable[0] if current is None else current
