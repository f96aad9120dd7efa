"""The two accesses whose order a finding hangs on: a sentence for a report, a key for a folder."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from fuzz.prog.prog import Program
from fuzz.run import Outcome
from kstate.machine import Machine, Report, dependent


@dataclass(frozen=True)
class Conflict:
    """`late` was about to happen when its task was left; `early`, of another task, came between."""

    late_task: str
    late: str
    early_task: str
    early: str
    object: str


def conflict_of(machine: Machine) -> Conflict | None:
    """The conflict of the last preemption that has one: what the task it left did next on a word,
    and what another task did to that word in between. None without a cross-task conflict."""
    events = list(machine.events())
    for switch in reversed(machine.switches):
        if not switch.preempted or switch.left == 0 or switch.point is None:
            continue
        later = [event for event in events if event.log_at >= switch.log_at]
        resumes = next((e.log_at for e in later if e.task == switch.left), len(machine.log))
        between = [event for event in later if event.log_at < resumes]
        # What it was about to do comes first, whether or not it ever got to it.
        left = [(switch.point, switch.operand)]
        left += [(e.point, e.operand) for e in later if e.task == switch.left]
        for point, operand in left:
            for early in between:
                if dependent(point, operand, early.point, early.operand):
                    return Conflict(
                        machine.tasks[switch.left].name,
                        point.name,
                        machine.tasks[early.task].name,
                        early.point.name,
                        machine.objects[operand].label(),
                    )
    return None


def key(program: Program, outcome: Outcome, finding: Report) -> str:
    """sha8: what makes two reproducers of one finding the same crash."""
    conflict = conflict_of(outcome.machine)
    if conflict is not None:
        parts = [finding.id, *sorted((conflict.late, conflict.early))]
    else:
        kinds = sorted({op.name for section in (program.init, *program.tasks) for op in section})
        parts = [finding.id, finding.where, *kinds]
    return sha256("\n".join(parts).encode()).hexdigest()[:8]
