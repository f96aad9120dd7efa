"""The scheduler of the reduced search: follows a path, then goes on by itself; writes down all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fuzz.dpor.events import Names, Step, conflict, ordered, pending, role_looked
from fuzz.subject import NotDeterministic
from kstate.machine import (
    Choices,
    Ending,
    Event,
    Machine,
    ModelError,
    Task,
    Turn,
    decode,
    default_task,
)


class Stop(Ending):
    """Ends a run that is of no more use to the search. Never a finding."""

    id = "search-stop"


@dataclass
class Branch:
    """A node of a wakeup tree: a step to take, and how to go on after it."""

    step: Step
    further: list[Branch] = field(default_factory=list)

    def packed(self) -> list[Any]:
        """As JSON can hold it."""
        return [self.step.packed(), [branch.packed() for branch in self.further]]

    @classmethod
    def unpacked(cls, packed: list[Any]) -> Branch:
        return cls(Step.unpacked(packed[0]), [cls.unpacked(further) for further in packed[1]])


@dataclass(frozen=True)
class Start:
    """Where a part of a search begins: after these tasks have been chosen, with these asleep."""

    tasks: Sequence[int]
    asleep: dict[int, Step]


@dataclass
class Node:
    """A place on the path where the search chose. step: what was chosen. asleep: what need not be
    chosen, by task. waiting: other branches to take from here. explored: branches done. taken: done
    or under way, where parts are; sizes: of those done, in runs."""

    step: Step
    asleep: dict[int, Step]
    waiting: list[Branch]
    explored: int = 0
    taken: int = 0
    sizes: list[int] = field(default_factory=list)

    @property
    def ways(self) -> int:
        """Branches, as far as they are known."""
        return max(self.explored, self.taken) + 1 + len(self.waiting)


class Guide:
    """Follows `path`, the last of it with the branch below; grows the path by a node a step.

    tasks: for a probe: stop where these have been chosen, and say who could run then.
    start: of a part of a search; the way `below` leads on from there.
    """

    every_step = True

    def __init__(
        self,
        path: list[Node],
        below: Sequence[Branch],
        tasks: Sequence[int] | None = None,
        start: Start | None = None,
    ) -> None:
        self.path = path
        self.below = list(below)
        self.tasks = tasks
        self.start = start
        self._replayed = len(path) - 1  # the last of the path may be new
        self.begin(Choices())

    def begin(self, choices: Choices) -> None:
        self.names = Names()
        self.at = 0
        self.chosen: Step | None = None
        self.blocked = False  # every task that could run was asleep
        self.enabled: tuple[int, ...] = ()
        self._machine: Machine | None = None
        self._tasks_known = 0

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        machine = runnable[0].machine
        if self._machine is None:
            self._machine = machine
            machine.looked = []
            self.names.see(machine, -1)
            self._tasks_known = len(machine.tasks)
        else:
            self._finish_step()
        if self.tasks is not None:
            task = self._probe(runnable)
        elif self.at < len(self.path):
            task = self._follow(runnable)
        else:
            task = self._grow(runnable, current)
        self.at += 1
        return Turn(task, 1)

    def _finish_step(self) -> None:
        """The step chosen last has been taken, with all its task did before its next step."""
        step, machine = self.chosen, self._machine
        assert step is not None
        assert machine is not None
        self.names.see(machine, step.task)
        looked, machine.looked = machine.looked or [], []
        if self.tasks is not None or self.at < len(self.path):
            self._tasks_known = len(machine.tasks)
            return
        for _, thing, word, store in looked:
            step.touches(self.names.of(thing.id), role_looked(thing, word, store))
        if len(machine.tasks) > self._tasks_known:
            step.spawned = tuple(range(self._tasks_known, len(machine.tasks)))
            self._tasks_known = len(machine.tasks)

    def _follow(self, runnable: Sequence[Task]) -> Task:
        step = self.path[self.at].step
        task = next((task for task in runnable if task.index == step.task), None)
        if task is None or pending(task, self.names).label != step.label:
            raise NotDeterministic(f"step {self.at + 1} was {step}, now it is {runnable}")
        if self.at == self._replayed:  # not taken here before: what it was elsewhere says nothing
            step = self.path[self.at].step = pending(task, self.names)
        self.chosen = step
        return task

    def _probe(self, runnable: Sequence[Task]) -> Task:
        assert self.tasks is not None
        if self.at == len(self.tasks):
            self.enabled = tuple(task.index for task in runnable)
            raise Stop("probed")
        task = next((task for task in runnable if task.index == self.tasks[self.at]), None)
        if task is None:
            raise NotDeterministic(f"step {self.at + 1} of a probe cannot be taken")
        self.chosen = pending(task, self.names)
        return task

    def _grow(self, runnable: Sequence[Task], current: Task | None) -> Task:
        asleep: dict[int, Step] = {}
        if self.start is not None and self.at < len(self.start.tasks):
            return self._approach(runnable, self.start.tasks[self.at])
        if self.start is not None and self.at == len(self.start.tasks):
            asleep = self.start.asleep
        elif self.path:
            last = self.path[-1]
            asleep = {
                task: step
                for task, step in last.asleep.items()
                if not conflict(step, last.step) and not ordered(step, last.step)
            }
        waiting: list[Branch] = []
        if self.below:
            branch, *waiting = self.below
            task = next((task for task in runnable if task.index == branch.step.task), None)
            if task is None:
                raise ModelError(f"{branch.step} cannot be taken at step {self.at + 1}")
            self.below = branch.further
        else:
            awake = [task for task in runnable if task.index not in asleep]
            if not awake:
                self.blocked = True
                raise Stop("nothing new this way")
            task = default_task(awake, current if current in awake else None)
        self.chosen = pending(task, self.names)
        self.path.append(Node(self.chosen, asleep, waiting))
        return task

    def _approach(self, runnable: Sequence[Task], index: int) -> Task:
        task = next((task for task in runnable if task.index == index), None)
        if task is None:
            raise NotDeterministic(f"task {index} cannot run at step {self.at + 1} this time")
        self.chosen = pending(task, self.names)
        self.path.append(Node(self.chosen, {}, []))
        return task

    def finish(self, machine: Machine, crashed: bool) -> list[Step]:
        """After the run: fill in results; return what tasks would have done next.

        crashed: its last step ended it, so the task that took it has no next one."""
        if self.chosen is None:
            return []
        last = machine.tasks[self.chosen.task]
        cut = {task for task in machine.tasks if not task.over}
        if crashed:
            cut.discard(last)
        if self.path:
            self._finish_step()
            self.path[-1].step.final = crashed or machine.tasks[0].over
        for at, (node, event) in enumerate(zip(self.path, self._events(machine), strict=False)):
            if at < self._replayed and node.step.results != event.results:
                raise NotDeterministic(f"step {at + 1}, {event.point}: {event.results} this time")
            node.step.results = event.results
        return [pending(task, self.names) for task in machine.tasks if task in cut]

    def _events(self, machine: Machine) -> list[Event]:
        return list(decode(machine.log))[1:]  # the first is init's begin, which nobody chooses


class Follow:
    """Runs the tasks in this order, a step each; then the default run."""

    every_step = True

    def __init__(self, tasks: Sequence[int]) -> None:
        self.tasks = tasks
        self.begin(Choices())

    def begin(self, choices: Choices) -> None:
        self.at = 0

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        if self.at == len(self.tasks):
            return Turn(default_task(runnable, current), 1)
        index = self.tasks[self.at]
        self.at += 1
        task = next((task for task in runnable if task.index == index), None)
        if task is None:
            raise NotDeterministic(f"task {index} cannot run at step {self.at} this time")
        return Turn(task, 1)
