"""`run`: program + kernel + scheduler + choices -> outcome. Nothing else goes in or comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fuzz.oracles import ORACLES, Oracle, Snapshot
from fuzz.prog.prog import Op, Program
from fuzz.schedulers import Default, Profile, Replay, make_scheduler, profile_of
from fuzz.schedulers.replay import Diverged
from kstate.boot import boot
from kstate.machine import (
    GREENLETS,
    Choices,
    Deadlock,
    Ending,
    KernelBug,
    Machine,
    Report,
    Scheduler,
    StepLimit,
)
from kstate.machine.machine import STEPS_MAX, Observer
from kstate.machine.switch import Backend
from kstate.patches import parse_spec
from kstate.structs import Kernel
from kstate.syscalls import call, settle

CLEAN, FINDING, BUG, DEADLOCK, STEP_LIMIT = "clean", "finding", "bug", "deadlock", "step-limit"


@dataclass(frozen=True)
class Outcome:
    """What a run shows.

    outcome: clean | finding | bug | deadlock | step-limit. findings: one per id, in order of
    appearance. steps: of all tasks, init and settling included. competing_steps: those while tasks
    competed. returns: per task (init first) what its operations returned. diverged: the first turn
    that could not be followed. kernel: the spec it ran on. machine, k: the run itself, to look at.
    """

    outcome: str
    findings: tuple[Report, ...]
    steps: int
    competing_steps: int
    returns: tuple[tuple[int, ...], ...]
    kernel: str
    diverged: Diverged | None = None
    machine: Machine = field(repr=False, compare=False, kw_only=True)
    k: Kernel = field(repr=False, compare=False, kw_only=True)

    @property
    def trace_hash(self) -> str:
        """SHA-256 of the event stream: (task, point, operand, result) of every step."""
        return self.machine.trace_hash()

    def let_go(self) -> None:
        """Nobody will look at the run again, only at what it came to: see Machine.forget."""
        self.k.forget()

    @property
    def ids(self) -> frozenset[str]:
        """The ids of its findings."""
        return frozenset(finding.id for finding in self.findings)


def run(
    program: Program,
    kernel: str | None = None,
    scheduler: Scheduler | None = None,
    choices: Choices | None = None,
    *,
    oracles: Sequence[type[Oracle]] = ORACLES,
    backend: Backend = GREENLETS,
    observers: Sequence[Observer] = (),
    steps_max: int = STEPS_MAX,
) -> Outcome:
    """Run a program once.

    Args:
        kernel: a spec; by default the program's.
        scheduler, choices: by default those the program carries; with none, the default run.
        oracles: what is claimed. They, the backend and observers do not change the run.
        steps_max: the run ends there with outcome step-limit.
    Raises:
        SpecError: not a kernel. ProgError: not a scheduler. ModelError: a mistake of ours.
    """
    spec = parse_spec(kernel or program.kernel)
    if scheduler is None:
        scheduler, choices = scheduler_of(program)
    machine = Machine(
        scheduler,
        choices,
        steps_max=steps_max,
        backend=backend,
        yield_at=program.yield_at or None,
        observers=observers,
        faults=program.faults,
    )
    k = boot(machine, spec.toggles, program.size, program.processes())
    asked = [oracle() for oracle in oracles]
    for oracle in asked:
        oracle.attach(k)
    returns: list[list[int]] = [[] for _ in range(len(program.tasks) + 1)]
    competed = [0, 0]

    def root() -> None:
        _perform(k, program.init, returns[0])
        competed[0] = competed[1] = machine.steps
        if program.tasks:
            bodies = [
                _body(k, task, returns[number]) for number, task in enumerate(program.tasks, 1)
            ]
            machine.join(*machine.start(*bodies))
            competed[1] = machine.steps
        settle(k)

    ending = machine.run(root)
    findings = _findings(k, asked, ending)
    diverged = scheduler.finish() if isinstance(scheduler, Replay) else None
    steps = machine.steps
    return Outcome(
        outcome=outcome_of(ending, bool(findings)),
        findings=findings,
        steps=steps,
        competing_steps=(competed[1] if ending is None else steps) - competed[0],
        returns=tuple(map(tuple, returns)),
        kernel=spec.text,
        diverged=diverged,
        machine=machine,
        k=k,
    )


def scheduler_of(program: Program) -> tuple[Scheduler, Choices]:
    """What a program carries: its turns, its choices, or nothing: the default run."""
    if program.schedule is not None:
        return Replay(program.schedule), Choices()
    if program.choices is not None:
        spec = program.choices
        return make_scheduler(spec.scheduler), Choices(spec.schedule, spec.faults)
    return Default(), Choices()


def profile(program: Program, kernel: str | None = None) -> Profile:
    """What samplers must know of a program: counts of its default run while tasks compete."""
    return profile_of(run(program, kernel, Default(), Choices(), oracles=()).machine)


def _body(k: Kernel, ops: Sequence[Op], returns: list[int]) -> Callable[[], None]:
    return lambda: _perform(k, ops, returns)


def _perform(k: Kernel, ops: Sequence[Op], returns: list[int]) -> None:
    for op in ops:
        returns.append(call(k, op.process, op.name, op.arguments))


def _findings(k: Kernel, asked: Sequence[Oracle], ending: Ending | None) -> tuple[Report, ...]:
    by_id: dict[str, Report] = {}
    for report in k.machine.reports:
        by_id.setdefault(report.id, report)
    if ending is None:
        state = Snapshot(k)
        for oracle in asked:
            for report in oracle.quiescent(state):
                by_id.setdefault(report.id, report)
    else:
        by_id.setdefault(ending.id, Report(ending.id, ending.text, ending.where))
    return tuple(by_id.values())


def outcome_of(ending: Ending | None, shows: bool) -> str:
    """The outcome of a run that ended so and shows something, or nothing."""
    if isinstance(ending, StepLimit):
        return STEP_LIMIT
    if isinstance(ending, Deadlock):
        return DEADLOCK
    if isinstance(ending, KernelBug):
        return BUG
    return FINDING if shows else CLEAN
