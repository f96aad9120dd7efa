"""What a search runs: anything that takes a scheduler and leaves a finished Machine."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from inspect import getfile
from pathlib import Path, PurePath
from typing import Protocol

from fuzz.oracles import ORACLES, Oracle
from fuzz.prog.prog import Program, TurnSpec
from fuzz.prog.text import print_fault
from fuzz.run import BUG, outcome_of, run
from fuzz.schedulers import Default
from fuzz.turns import write_down
from kstate.machine import (
    Choices,
    Deadlock,
    Ending,
    Machine,
    ModelError,
    Scheduler,
    StepLimit,
)
from kstate.machine.endings import NotATask
from kstate.machine.machine import Fault, Observer

# Where errors come from that are not the user's own lines.
OURS = (str(Path(__file__).parent), str(Path(getfile(Machine)).parent.parent))


class NotDeterministic(Exception):
    """The same choices led somewhere else: the program depends on more than its schedule."""


class SetupError(Exception):
    """A program's own set-up failed, before any task ran."""


@dataclass
class Ran:
    """A run, over. findings: id -> text. crashed: its last step ended it, by a BUG or an exception;
    a deadlock or the step limit is no step's doing. state: whatever is to be compared. forget: lets
    go of all that the run made."""

    machine: Machine
    forget: Callable[[], None]
    findings: dict[str, str] = field(default_factory=dict)
    crashed: bool = False
    state: object = None

    @property
    def limit_hit(self) -> bool:
        return isinstance(self.machine.ending, StepLimit)

    @property
    def outcome(self) -> str:
        """clean | finding | bug | deadlock | step-limit; an exception ends a run as a BUG does."""
        if self.crashed:
            return BUG
        return outcome_of(self.machine.ending, bool(self.findings))

    def let_go(self) -> None:
        """Nobody will look at the run again, unless it shows something: see Machine.forget."""
        if not self.findings:
            self.forget()

    @property
    def cut_short(self) -> bool:
        """Did a step end the run while others still had something to do: a crash, or the end of a
        first task that has not waited for the others?"""
        tasks = self.machine.tasks
        return self.crashed or (tasks[0].over and not all(task.over for task in tasks))

    def turns(self) -> tuple[TurnSpec, ...]:
        """Its schedule, to replay."""
        return write_down(self)


class Subject(Protocol):
    """Something that can be run under a scheduler, the same way every time. kernel_name: if any.
    tasks: how many compete at most, 0 if that is not known before a run. given: what limits every
    run of it, in words. init_may_fail: is what its
    first task calls to fail too, in a search with faults; not where that is just set-up."""

    @property
    def kernel_name(self) -> str: ...

    @property
    def tasks(self) -> int: ...

    @property
    def given(self) -> tuple[str, ...]: ...

    @property
    def init_may_fail(self) -> bool: ...

    def run(
        self,
        scheduler: Scheduler,
        choices: Choices | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> Ran: ...

    def with_faults(self, faults: tuple[Fault, ...]) -> Subject:
        """The same, with these calls failing as well."""


@dataclass(frozen=True)
class ProgramSubject:
    """A program on a kernel, with oracles: by default those of every run."""

    program: Program
    kernel: str | None = None
    oracles: tuple[type[Oracle], ...] = ORACLES
    init_may_fail = False

    @property
    def kernel_name(self) -> str:
        return self.kernel or self.program.kernel

    @property
    def tasks(self) -> int:
        return len(self.program.tasks)

    @property
    def given(self) -> tuple[str, ...]:
        program = self.program
        globs = (f"yield-at {' '.join(program.yield_at)}",) if program.yield_at else ()
        return (*globs, *(f"failing {print_fault(fault)}" for fault in program.faults))

    def with_faults(self, faults: tuple[Fault, ...]) -> ProgramSubject:
        program = self.program
        return replace(self, program=replace(program, faults=(*program.faults, *faults)))

    def run(
        self,
        scheduler: Scheduler,
        choices: Choices | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> Ran:
        outcome = run(
            self.program,
            self.kernel,
            scheduler,
            choices or Choices(),
            oracles=self.oracles,
            observers=observers,
        )
        ending = outcome.machine.ending
        return Ran(
            outcome.machine,
            outcome.k.forget,
            {finding.id: finding.text for finding in outcome.findings},
            ends_with_a_step(ending),
            outcome,
        )


@dataclass(frozen=True)
class MachineSubject:
    """A program written against kstate.machine alone.

    setup: given a machine, makes the shared objects and returns the first task's function.
    peek: looks at the state when the run is over, for comparisons. sources: the files it was loaded
    from.
    """

    setup: Callable[[Machine], Callable[[], object]]
    peek: Callable[[], object] | None = None
    faults: tuple[Fault, ...] = ()
    sources: tuple[Path, ...] = ()
    kernel_name = ""
    tasks = 0
    given = ()
    init_may_fail = True

    def with_faults(self, faults: tuple[Fault, ...]) -> MachineSubject:
        return replace(self, faults=(*self.faults, *faults))

    def run(
        self,
        scheduler: Scheduler,
        choices: Choices | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> Ran:
        machine = Machine(scheduler, choices, faults=self.faults, observers=observers)
        try:
            root = self.setup(machine)
        except (Exception, SystemExit, Ending) as error:
            raise SetupError(f"set-up failed: {_spell(error)}") from error
        if not callable(root):
            raise SetupError(f"it must return the first task's function, not {root!r}")
        findings: dict[str, str] = {}
        crashed = False
        try:
            ending = machine.run(root)
        except (ModelError, NotDeterministic):
            raise
        except NotATask as error:
            raise SetupError(str(error)) from error
        except (Exception, SystemExit) as error:
            crashed = True
            kind = "assertion" if isinstance(error, AssertionError) else "exception"
            findings[kind] = _spell(error)
        else:
            crashed = ends_with_a_step(ending)
            if ending is not None:
                findings[ending.id] = ending.text
            alive = [task.name for task in machine.tasks if not task.ended]
            if ending is None and alive:
                findings["forgotten-join"] = f"init ended before {', '.join(alive)}"
        for report in machine.reports:
            findings.setdefault(report.id, report.text)
        state = self.peek() if self.peek else None
        return Ran(machine, machine.forget, findings, crashed, state)


def check_deterministic(subject: Subject) -> None:
    """Twice the default run. A reduced search also compares whatever it runs again.

    Raises: NotDeterministic."""
    first, second = (subject.run(Default()).machine.log for _ in range(2))
    if first != second:
        raise NotDeterministic("two default runs are not the same")


def _spell(error: BaseException) -> str:
    """What and where, as the last line of a traceback says it that is the user's."""
    lines = traceback.extract_tb(error.__traceback__)
    theirs = [line for line in lines if not line.filename.startswith(OURS)]
    last = (theirs or lines)[-1]
    what = ": ".join(filter(None, (type(error).__name__, str(error) or last.line)))
    return f"{what} ({PurePath(last.filename).name}:{last.lineno}, {last.name})"


def ends_with_a_step(ending: Ending | None) -> bool:
    return ending is not None and not isinstance(ending, (Deadlock, StepLimit))
