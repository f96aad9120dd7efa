"""Replay: an explicit schedule, turn by turn, then the default run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fuzz.prog.prog import BLOCKED, END, FOR, THROUGH, UNTIL, TurnSpec
from kstate.machine import UNLIMITED, Choices, Task, Turn, default_task


@dataclass(frozen=True)
class Diverged:
    """The first turn that could not be followed. turn: its number from 0; expected and actual: in
    words."""

    turn: int
    expected: str
    actual: str


class Replay:
    """Follows turns; one that cannot be followed is dropped and remembered in `diverged`.

    Once tasks compete it is asked at every step while turns are left, even where only one task
    can run: arrivals at a point are counted from the turn's start, none may be missed.
    """

    def __init__(self, turns: Sequence[TurnSpec]) -> None:
        self.turns = tuple(turns)
        self.begin(Choices())

    def begin(self, choices: Choices) -> None:
        self.at = 0
        self.diverged: Diverged | None = None
        self.every_step = False  # until tasks compete
        self._restart()

    def _restart(self) -> None:
        self._arrivals = 0
        self._started_at = -1
        self._pass_once = False

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        self.every_step = True
        while self.at < len(self.turns):
            turn = self.turns[self.at]
            task = next((t for t in runnable if t.index == turn.cpu + 1), None)
            if self._started_at < 0 and task is None:
                self._drop(turn, f"{turn.task} cannot run")
                continue
            if self._started_at < 0:
                self._started_at = steps
            if task is None:  # it has blocked or ended
                if turn.kind in (BLOCKED, END):
                    self._advance()
                else:
                    self._drop(
                        turn,
                        f"{turn.task} blocked or ended after {steps - self._started_at} steps",
                    )
                continue
            if turn.kind == FOR:
                left = turn.count - (steps - self._started_at)
                if left > 0:
                    return Turn(task, left)
                self._advance()
                continue
            if turn.kind in (UNTIL, THROUGH) and self._arrived(turn, task):
                if turn.kind == THROUGH and not self._pass_once:
                    self._pass_once = True
                    return Turn(task, 1)
                self._advance()
                continue
            return Turn(task, 1)
        self.every_step = False
        return Turn(default_task(runnable, current), UNLIMITED)

    def _arrived(self, turn: TurnSpec, task: Task) -> bool:
        if self._pass_once:
            return True
        if not matches(turn.point, task):
            return False
        self._arrivals += 1
        return self._arrivals == turn.count

    def _advance(self) -> None:
        self.at += 1
        self._restart()

    def _drop(self, turn: TurnSpec, actual: str) -> None:
        if self.diverged is None:
            wanted = f"{turn.task} {turn.kind} {turn.point or turn.count}"
            self.diverged = Diverged(self.at, wanted, actual)
        self._advance()

    def finish(self) -> Diverged | None:
        """After the run: the divergence, counting turns that were never reached."""
        if self.diverged is None and self.at < len(self.turns):
            turn = self.turns[self.at]
            if turn.kind in (BLOCKED, END) and self._started_at >= 0:
                return None
            if turn.kind == FOR and self._started_at >= 0:
                return None
            return Diverged(
                self.at, f"{turn.task} {turn.kind} {turn.point or turn.count}", "the run ended"
            )
        return self.diverged


def matches(point: str, task: Task) -> bool:
    """Is the task's next step at `point`? `(ptl@A)` asks for one instance, by its label's end."""
    if task.point is None:
        return False
    name = task.point.name
    if name == point:
        return True
    if "@" not in point:
        return False
    place, _, instance = point.rstrip(")").partition("@")
    return name == place + ")" and task.operand.label().partition("@")[2] == instance
