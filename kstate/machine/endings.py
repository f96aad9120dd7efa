"""How a run ends, and what it can report. Each kind is a type of its own; none is ever mixed."""

from __future__ import annotations

from dataclasses import dataclass, field


class Ending(BaseException):
    """Raised in a task; ends the run. No Exception: what a task catches of its own must not
    swallow it."""

    id = "ending"

    def __init__(self, text: str, where: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.where = where


class KernelBug(Ending):
    """BUG() or VM_BUG_ON(): the kernel would panic here (panic_on_oops, CONFIG_DEBUG_VM).

    Args:
        id: the finding's id, as in `kfuzz findings`.
        text: the kernel's words.
        where: the reporting function, `mm/migrate.py:move_to_new_page`.
    """

    def __init__(self, id: str, text: str, where: str) -> None:
        super().__init__(text, where)
        self.id = id


class ContextError(Ending):
    """A rule of the machine was broken: unlocking what one does not hold, and the like."""

    id = "context-error"


class Deadlock(Ending):
    """No task can run. `waits` is the wait-for relation: (task, what it wants, who holds it)."""

    id = "deadlock"

    def __init__(self, text: str, waits: list[tuple[str, str, list[str]]]) -> None:
        super().__init__(text)
        self.waits = waits


class StepLimit(Ending):
    """The run took more steps than it may: a livelock suspect."""

    id = "step-limit"


class ModelError(Exception):
    """A mistake of ours, never a finding: exit status 70 and a saved traceback."""


class NotATask(TypeError):
    """A task's function is a generator or a coroutine: its body would never run."""


class TaskKilled(BaseException):
    """Unwinds a task that was still parked when its run ended. Never seen outside the machine."""


@dataclass(frozen=True)
class Report:
    """Something recorded while the run goes on: a WARN, a Bad page, a broken claim.

    id: as in `kfuzz findings`. text: one line, the kernel's words where the kernel has some.
    where: the reporting function, or the oracle. objects: labels of what it is about.
    """

    id: str
    text: str
    where: str
    objects: tuple[str, ...] = field(default=())
