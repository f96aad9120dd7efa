"""What the steps of one run touch, and what others do while a task is away.

Objects are known by their number here: of two runs with a common beginning, what was made in it has
the same number in both, and what was made later a step of the beginning cannot touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fuzz.dpor.events import READER, Role, role_looked, role_of
from fuzz.subject import Ran
from kstate.machine import Machine, Point, Switch, Task, decode

Access = tuple[int, Role]  # an object's number, and how it is touched

_ABOUT_TASKS = frozenset({"spawn", "join", "end", "borrow_cpu", "return_cpu"})
_LENDING = frozenset({"borrow_cpu", "return_cpu"})


@dataclass
class Waiting:
    """What a task that is not running would do next. unforeseen: it waits for more than that.
    lender: whose CPU it waits for, or works on, else -1: any step of that one may matter."""

    task: int
    accesses: list[Access]
    unforeseen: bool
    lender: int = -1


@dataclass
class Step:
    """A step of a run.

    about_tasks: it starts, ends, waits for or holds up a whole task. lender: whose CPU it borrows
    or gives back, else -1. final: it ended the run. waiting: all that do not run, where the task
    changes with this step; else empty."""

    task: int
    accesses: list[Access]
    about_tasks: bool
    lender: int = -1
    final: bool = False
    waiting: list[Waiting] = field(default_factory=list)


class Footprint:
    """Objects, each with the roles in which it is touched. everything: all there are, in any."""

    __slots__ = ("everything", "roles")

    def __init__(self) -> None:
        self.everything = False
        self.roles: dict[int, set[Role]] = {}

    def add(self, accesses: Sequence[Access]) -> None:
        for thing, how in accesses:
            self.roles.setdefault(thing, set()).add(how)

    def merge(self, other: Footprint) -> None:
        self.everything = self.everything or other.everything
        for thing, roles in other.roles.items():
            self.roles.setdefault(thing, set()).update(roles)

    def conflicts(self, step: Step) -> bool:
        """May it matter whether the step comes before or after?"""
        if self.everything or step.about_tasks or step.final:
            return True
        roles = self.roles
        return any(
            role.conflicts(other) for thing, role in step.accesses for other in roles.get(thing, ())
        )


class Away:
    """For each task: what the others do from some moment on until it goes on."""

    def __init__(self, tasks: int, *, everything: bool = False) -> None:
        self.of = [Footprint() for _ in range(tasks)]
        for footprint in self.of:
            footprint.everything = everything

    def precede(self, step: Step) -> Footprint:
        """The moment is now before this step. Returns what was said of its task till now."""
        before, self.of[step.task] = self.of[step.task], Footprint()
        for task, footprint in enumerate(self.of):
            if task != step.task:
                footprint.add(step.accesses)
                if step.final or step.lender == task:
                    footprint.everything = True
        self.wait(step.waiting)
        return before

    def wait(self, waiting: Sequence[Waiting]) -> None:
        """At the moment these do not run."""
        for one in waiting:
            for task, footprint in enumerate(self.of):
                if task != one.task:
                    footprint.add(one.accesses)
                    if one.unforeseen or one.lender == task:
                        footprint.everything = True

    def merge(self, other: Away) -> None:
        """It may also be what it is there."""
        while len(self.of) < len(other.of):
            self.of.append(Footprint())
        for mine, its in zip(self.of, other.of, strict=False):
            mine.merge(its)


def steps_from(ran: Ran, first: int) -> list[Step]:
    """The steps of a run from the first-th on, init's begin being number 0."""
    machine = ran.machine
    switches = {switch.log_at: switch for switch in machine.switches}
    looks = machine.looked or []
    seen = 0
    start, number, task = 0, 0, 0
    waiting: dict[int, Waiting] = {}
    for switch in switches.values():
        if switch.step > first:
            break
        start, number = switch.log_at, switch.step
        _change(waiting, switch, machine)
    steps: list[Step] = []
    for event in decode(machine.log, start):
        task = event.task if event.task >= 0 else task
        if number >= first:
            point = event.point
            step = Step(
                task,
                _accesses(point, event.operand, machine, task),
                point.primitive.name in _ABOUT_TASKS,
            )
            while seen < len(looks) and looks[seen][0] <= event.log_at:
                seen += 1
            end = event.log_at + 2 + point.primitive.results
            while seen < len(looks) and looks[seen][0] <= end:
                _, thing, word, store = looks[seen]
                step.accesses.append((thing.id, role_looked(thing, word, store)))
                seen += 1
            step.lender = _lender(point.primitive.name, event.operand, machine)
            step.final = task == 0 and point.primitive.name == "end"
            changed = switches.get(event.log_at - 1)
            if changed is not None:
                _change(waiting, changed, machine)
                step.waiting = list(waiting.values())
            steps.append(step)
        number += 1
    if ran.crashed and steps:
        steps[-1].final = True
    return steps


def cut_off(machine: Machine) -> list[Waiting]:
    """What tasks would have done next when the run ended."""
    return [
        _waiting(task.index, task.point, task.operand.id, machine)
        for task in machine.tasks
        if not task.over and task.point is not None
    ]


def _change(waiting: dict[int, Waiting], switch: Switch, machine: Machine) -> None:
    waiting.pop(switch.entered, None)
    if switch.point is not None:
        waiting[switch.left] = _waiting(switch.left, switch.point, switch.operand, machine)


def _waiting(task: int, point: Point, operand: int, machine: Machine) -> Waiting:
    name = point.primitive.name
    accesses = _accesses(point, operand, machine, task)
    return Waiting(task, accesses, name == "retry_when_changed", _lender(name, operand, machine))


def _lender(name: str, operand: int, machine: Machine) -> int:
    """Whose CPU is borrowed or given back, or -1."""
    if name not in _LENDING:
        return -1
    lender = machine.objects[operand]
    assert isinstance(lender, Task)
    return lender.index


def _accesses(point: Point, operand: int, machine: Machine, task: int) -> list[Access]:
    name = point.primitive.name
    if name in ("begin", "join"):
        return []
    accesses = [(operand, role_of(point))]
    if name == "end" and machine.tasks[task].rcu_depth:
        accesses.append((machine.id, READER))
    return accesses
