"""Call chains: which functions of the model led to a step. An observer; it changes no run."""

from __future__ import annotations

from collections.abc import Callable

from kstate.machine import Operand, Point, Primitive, Task
from kstate.machine.callers import call_chain

OVER_PRIMITIVE = 4  # frames: __call__, ask, step, the primitive; then the function that called it
OUTERMOST = "_perform"  # of run.py: it performs a task's operations
HIDDEN = ("<", "op_", "call")  # lambdas, and what stands between run.py and the kernel


class CallChains:
    """Remembers who called whom, for the steps asked for.

    by_log_at: place in the log -> functions, the outermost first; the last one is the point's.
    """

    def __init__(self, wanted: Callable[[Primitive], bool]) -> None:
        self.wanted = wanted
        self.by_log_at: dict[int, tuple[str, ...]] = {}

    def __call__(self, task: Task, point: Point, operand: Operand) -> None:
        if self.wanted(point.primitive):
            self.by_log_at[len(operand.machine.log)] = _chain()


def _chain() -> tuple[str, ...]:
    names: list[str] = []
    for code in call_chain(OVER_PRIMITIVE + 1):  # over _chain too
        if code.co_name == OUTERMOST:
            break
        if "/kstate/" in code.co_filename and "/machine/" not in code.co_filename:
            if not code.co_name.startswith(HIDDEN):
                names.append(code.co_name)
    return tuple(reversed(names))
