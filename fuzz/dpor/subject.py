"""What a search runs: anything that takes a scheduler and leaves a finished Machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fuzz.prog.prog import Program, TurnSpec
from fuzz.run import run
from fuzz.turns import write_down
from kstate.machine import Choices, Deadlock, Ending, Machine, ModelError, Scheduler, StepLimit


@dataclass
class Ran:
    """A run, over. findings: id -> text. crashed: its last step ended it, by a BUG or an exception;
    a deadlock or the step limit is no step's doing. state: whatever is to be compared."""

    machine: Machine
    findings: dict[str, str] = field(default_factory=dict)
    crashed: bool = False
    state: object = None

    @property
    def limit_hit(self) -> bool:
        return isinstance(self.machine.ending, StepLimit)

    def turns(self) -> tuple[TurnSpec, ...]:
        """Its schedule, to replay."""
        return write_down(self)


class Subject(Protocol):
    """Something that can be run under a scheduler, the same way every time."""

    def run(self, scheduler: Scheduler) -> Ran: ...


@dataclass(frozen=True)
class ProgramSubject:
    """A program on a kernel, with the oracles."""

    program: Program
    kernel: str | None = None

    def run(self, scheduler: Scheduler) -> Ran:
        outcome = run(self.program, self.kernel, scheduler, Choices())
        ending = outcome.machine.ending
        return Ran(
            outcome.machine,
            {finding.id: finding.text for finding in outcome.findings},
            ends_with_a_step(ending),
            outcome,
        )


@dataclass(frozen=True)
class MachineSubject:
    """A program written against kstate.machine alone.

    setup: given a machine, makes the shared objects and returns the first task's function.
    peek: looks at the state when the run is over, for comparisons.
    """

    setup: Callable[[Machine], Callable[[], object]]
    peek: Callable[[], object] | None = None

    def run(self, scheduler: Scheduler) -> Ran:
        machine = Machine(scheduler)
        root = self.setup(machine)
        findings: dict[str, str] = {}
        crashed = False
        try:
            ending = machine.run(root)
        except ModelError:
            raise
        except Exception as error:
            crashed = True
            kind = "assertion" if isinstance(error, AssertionError) else "exception"
            findings[kind] = f"{type(error).__name__}: {error}" if str(error) else repr(error)
        else:
            crashed = ends_with_a_step(ending)
            if ending is not None:
                findings[ending.id] = ending.text
            alive = [task.name for task in machine.tasks if not task.ended]
            if ending is None and alive:
                findings["forgotten-join"] = f"init ended before {', '.join(alive)}"
        for report in machine.reports:
            findings.setdefault(report.id, report.text)
        return Ran(machine, findings, crashed, self.peek() if self.peek else None)


def ends_with_a_step(ending: Ending | None) -> bool:
    return ending is not None and not isinstance(ending, (Deadlock, StepLimit))
