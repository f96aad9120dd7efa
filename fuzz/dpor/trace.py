"""Happens-before over one run, and the races of it: pairs that could be in the other order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fuzz.dpor.events import Object, Role, Step, conflict


class Trace:
    """The steps of a run with their vector clocks.

    steps: in the order they were taken; `waiting` are those that tasks would have taken next when
    the run ended (blocked in a deadlock, or cut off by the step that ended the run).
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.waiting: list[Step] = []
        self.clocks: list[dict[int, int]] = []
        self.own: list[int] = []  # of each step: its number among those of its task, from 1
        self.before: list[int] = []  # of each step: the step of its task before it, or -1
        self.rivals: list[list[int]] = []  # of each step: earlier steps that conflict with it
        self._last: dict[int, int] = {}
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._touched: dict[Object, list[tuple[int, Role]]] = {}
        self._by_task: dict[int, list[int]] = {}
        self._odd: list[int] = []  # borrowers and the final step: they conflict with much

    def become(self, kept: int, steps: Sequence[Step], waiting: Sequence[Step]) -> None:
        """Now of a run that begins with `kept` steps of this one and goes on with `steps`."""
        while len(self.steps) > kept:
            self._drop()
        for step in steps:
            self._add(step)
            self.steps.append(step)
        self.waiting = list(waiting)

    def _drop(self) -> None:
        """Undo the last `_add`."""
        step = self.steps.pop()
        number, task = len(self.steps), step.task
        for thing, _ in step.accesses:
            self._touched[thing].pop()
        if self._odd and self._odd[-1] == number:
            self._odd.pop()
        if self._ends.get(task) == number:
            del self._ends[task]
        for started in step.spawned:
            del self._starts[started]
        mine = self._by_task[task]
        mine.pop()
        if mine:
            self._last[task] = mine[-1]
        else:
            del self._last[task], self._by_task[task]
        for column in (self.clocks, self.own, self.before, self.rivals):
            column.pop()

    def happens_before(self, one: int, other: int) -> bool:
        return self.clocks[other].get(self.steps[one].task, 0) >= self.own[one]

    def _add(self, step: Step) -> None:
        number, task = len(self.clocks), step.task
        before = self._last.get(task, self._starts.get(task, -1))
        rivals = self._rivals(step, number)
        clock = dict(self.clocks[before]) if before >= 0 else {}
        preceding = list(rivals)
        preceding += [self._ends[joined] for joined in step.joined if joined in self._ends]
        for other in preceding:
            for whose, time in self.clocks[other].items():
                if clock.get(whose, 0) < time:
                    clock[whose] = time
        mine = self._by_task.setdefault(task, [])
        self.own.append(len(mine) + 1)
        clock[task] = len(mine) + 1
        self.before.append(before)
        self.rivals.append(rivals)
        self.clocks.append(clock)
        self._last[task] = number
        mine.append(number)
        for started in step.spawned:
            self._starts[started] = number
        if step.name == "end":
            self._ends[task] = number
        if step.lender >= 0 or step.final:
            self._odd.append(number)
        for thing, role in step.accesses:
            self._touched.setdefault(thing, []).append((number, role))

    def _rivals(self, step: Step, end: int) -> list[int]:
        """Steps of other tasks that conflict with this one, latest first."""
        if step.final:
            return [at for at in range(end - 1, -1, -1) if self.steps[at].task != step.task]
        found = {
            at
            for thing, role in step.accesses
            for at, its in self._touched.get(thing, ())
            if self.steps[at].task != step.task and role.conflicts(its)
        }
        found.update(self._by_task.get(step.lender, ()))
        for at in self._odd:
            if self.steps[at].task != step.task and conflict(self.steps[at], step):
                found.add(at)
        return sorted(found, reverse=True)

    def rivals_of(self, number: int) -> tuple[Step, list[int]]:
        """A step (from len(steps) on: of those waiting) with the earlier steps that conflict with
        it and that do not come before it anyway, by what its task has done before; latest first."""
        if number < len(self.steps):
            step, before, rivals = self.steps[number], self.before[number], self.rivals[number]
        else:
            step = self.waiting[number - len(self.steps)]
            before = self._last.get(step.task, self._starts.get(step.task, -1))
            rivals = self._rivals(step, len(self.steps))
        if before < 0:
            return step, rivals
        return step, [at for at in rivals if not self.happens_before(at, before)]

    def after(self, number: int) -> Iterator[int]:
        """Later steps that do not depend on this one."""
        clocks, task, own = self.clocks, self.steps[number].task, self.own[number]
        for at in range(number + 1, len(self.steps)):
            if clocks[at].get(task, 0) < own:
                yield at

    def form(self) -> tuple[tuple[int, ...], ...]:
        """A normal form: two runs have the same one if and only if they are equivalent."""
        tasks = sorted(self._by_task)
        return tuple(
            (task, *(self.clocks[at].get(other, 0) for other in tasks))
            for task in tasks
            for at in self._by_task[task]
        )

    def least(self) -> list[int]:
        """The tasks, a step each, of the equivalent run that is the default run as far as it goes:
        stay on a task while its next step may come, else the lowest that may."""
        todo = {task: list(reversed(mine)) for task, mine in sorted(self._by_task.items())}
        done = dict.fromkeys(todo, 0)
        order: list[int] = []

        def may_come(task: int) -> bool:
            if not todo[task]:
                return False
            clock = self.clocks[todo[task][-1]]
            return all(done[other] >= time - (other == task) for other, time in clock.items())

        current = next(iter(todo), 0)
        for _ in self.steps:
            if not may_come(current):
                current = next(task for task in todo if may_come(task))
            todo[current].pop()
            done[current] += 1
            order.append(current)
        return order
