"""A task: a plain function that takes steps, on a context of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kstate.machine.callers import Function
    from kstate.machine.machine import Machine
    from kstate.machine.points import Operand, Point
    from kstate.machine.switch import Context


class Task:
    """One task. One task per CPU: `cpu` names both.

    point, operand: what it does next; known whenever it is not running.
    preempt_count: spinlocks held; it may not sleep while this is not 0.
    irqs_off: nesting of irq-disabling locks. rcu_depth: nesting of RCU read sections; rcu_sections:
    how many of them it has begun.
    watched: what `retry_when_changed` waits for: (object, private slot, value it saw).
    functions: those it is inside of, where they are compiled; see callers.py.
    lent: its CPU is running somebody else's work, see `borrow_cpu`.
    """

    __slots__ = (
        "context",
        "cpu",
        "ended",
        "function",
        "functions",
        "id",
        "index",
        "irqs_off",
        "lent",
        "machine",
        "name",
        "operand",
        "point",
        "preempt_count",
        "rcu_depth",
        "rcu_sections",
        "watched",
        "woken",
    )

    def __init__(
        self, machine: Machine, index: int, name: str, cpu: int, function: Callable[[], Any]
    ) -> None:
        self.machine = machine
        self.id = machine.register(self)
        self.index = index
        self.name = name
        self.cpu = cpu
        self.function = function
        self.functions: list[Function] = []
        self.context: Context | None = None
        self.point: Point | None = None
        self.operand: Operand = self
        self.ended = False
        self.preempt_count = 0
        self.irqs_off = 0
        self.rcu_depth = 0
        self.rcu_sections = 0
        self.lent = False
        self.watched: tuple[tuple[Any, str, Any], ...] = ()
        self.woken = False

    def label(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Task({self.name})"

    def ready(self) -> bool:
        """Could it take its next step now?"""
        if self.lent:
            return False
        point = self.point
        if point is None:
            return True
        ready = point.primitive.ready
        return ready is None or ready(self.operand, self)

    @property
    def over(self) -> bool:
        """Has it taken its last step? One that has crashed has only ended."""
        return self.ended and self.point is not None and self.point.primitive.name == "end"

    def blocked_on(self) -> list[Task]:
        """The tasks it waits for, if it cannot take its next step."""
        if self.point is None or self.point.primitive.holders is None:
            return []
        return self.point.primitive.holders(self.operand, self)
