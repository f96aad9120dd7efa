"""The two accesses whose order a finding hangs on: a sentence for a report, a key for a folder."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from fuzz.prog.prog import Program
from fuzz.run import Outcome
from kstate.machine import Event, Report, dependent


@dataclass(frozen=True)
class Conflict:
    """`late` was about to happen when its task was left; `early`, of another task, came between."""

    late_task: str
    late: str
    early_task: str
    early: str
    object: str


def conflict_of(outcome: Outcome) -> Conflict | None:
    """The conflict of the last preemption that has one: what the task it left did next on a word,
    and what another task did to that word in between. None without a cross-task conflict."""
    machine = outcome.machine
    events = list(machine.events())
    for switch in reversed(machine.switches):
        if not switch.preempted or switch.left == 0:
            continue
        between: list[Event] = []
        resumed = False
        for event in events:
            if event.log_at < switch.log_at:
                continue
            if event.task != switch.left:
                if not resumed:
                    between.append(event)
                continue
            resumed = True
            for early in between:
                if dependent(event.point, event.operand, early.point, early.operand):
                    return Conflict(
                        machine.tasks[switch.left].name,
                        event.point.name,
                        machine.tasks[early.task].name,
                        early.point.name,
                        machine.objects[event.operand].label(),
                    )
        if not resumed and switch.point is not None:
            for early in between:
                if dependent(switch.point, switch.operand, early.point, early.operand):
                    return Conflict(
                        machine.tasks[switch.left].name,
                        switch.point.name,
                        machine.tasks[early.task].name,
                        early.point.name,
                        machine.objects[switch.operand].label(),
                    )
    return None


def key(program: Program, outcome: Outcome, finding: Report) -> str:
    """sha8: what makes two reproducers of one finding the same crash."""
    conflict = conflict_of(outcome)
    if conflict is not None:
        parts = [finding.id, *sorted((conflict.late, conflict.early))]
    else:
        kinds = sorted({op.name for section in (program.init, *program.tasks) for op in section})
        parts = [finding.id, finding.where, *kinds]
    return sha256("\n".join(parts).encode()).hexdigest()[:8]
