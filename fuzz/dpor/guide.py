"""The scheduler of the reduced search: follows a path, then goes on by itself; writes down all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fuzz.dpor.events import Names, Step, conflict, ordered, pending, role
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


@dataclass
class Node:
    """A place on the path where the search chose. step: what was chosen. asleep: what need not be
    chosen, by task. waiting: other branches to take from here. explored: branches done."""

    step: Step
    asleep: dict[int, Step]
    waiting: list[Branch]
    explored: int = 0


class Guide:
    """Follows `path`, the last of it with the branch below; grows the path by a node a step.

    target: for a probe: stop at the end of the path and say whether that task could run.
    """

    every_step = True

    def __init__(
        self, path: list[Node], below: Sequence[Branch], tasks: Sequence[int] | None = None
    ) -> None:
        self.path = path
        self.below = list(below)
        self.tasks = tasks
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
            step.touches(self.names.of(thing.id), role(word, store))
        if len(machine.tasks) > self._tasks_known:
            step.spawned = tuple(range(self._tasks_known, len(machine.tasks)))
            self._tasks_known = len(machine.tasks)

    def _follow(self, runnable: Sequence[Task]) -> Task:
        step = self.path[self.at].step
        task = next((task for task in runnable if task.index == step.task), None)
        if task is None or pending(task, self.names).label != step.label:
            raise NotDeterministic(f"step {self.at + 1} was {step}, now it is {runnable}")
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
        if self.path:
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

    def finish(self, machine: Machine, crashed: bool) -> list[Step]:
        """After the run: fill in results; return what tasks would have done next.

        crashed: its last step ended it, so the task that took it has no next one."""
        if self.chosen is None:
            return []
        last = machine.tasks[self.chosen.task]
        cut = {task for task in machine.tasks if not _over(task)}
        if crashed:
            cut.discard(last)
        if self.path:
            self._finish_step()
            self.path[-1].step.final = crashed or (_over(machine.tasks[0]) and bool(cut))
        for at, (node, event) in enumerate(zip(self.path, self._events(machine), strict=False)):
            if at < self._replayed and node.step.results != event.results:
                raise NotDeterministic(f"step {at + 1}, {event.point}: {event.results} this time")
            node.step.results = event.results
        return [pending(task, self.names) for task in machine.tasks if task in cut]

    def _events(self, machine: Machine) -> list[Event]:
        return list(decode(machine.log))[1:]  # the first is init's begin, which nobody chooses


def _over(task: Task) -> bool:
    """Has it taken its last step? (One in whose context a deadlock was found has only ended.)"""
    return task.ended and task.point is not None and task.point.primitive.name == "end"
