"""The default run: stay on the current task until it blocks or ends, then the lowest cpu."""

from __future__ import annotations

from collections.abc import Sequence

from kstate.machine import Choices, Task, Turn, default_task


class Default:
    """Draws nothing. What every scheduler makes of an all-zero stream."""

    every_step = False

    def begin(self, choices: Choices) -> None:
        pass

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        return Turn(default_task(runnable, current))
