"""Every schedule with at most N preemptions, or one of those that cannot differ.

A preemption is leaving a task that could go on; choices where a task blocks or ends are free.
Stateless: every schedule is a run from the start. A schedule is its deviations from the default
run, (step, task); the schedules below one are it with later deviations added.

`plain` makes every run. `Reduced` leaves out a preemption that may as well come a step later: where
task T is left before its step s, and s conflicts with nothing that others do until T goes on, then
leaving T after s leads to the same runs with no preemption more. What others would have done next
counts as done: whether a task could go on is what makes a preemption. Each run left out has an
equivalent one with a longer turn, so in the end one that is made. What others do while T is away is
read off the runs in which T is left later, which are made first. Complete for its bound because it
thins out an enumeration (bounded DPOR must add backtrack points for that: Coons, Musuvathi,
McKinley, "Bounded partial-order reduction", OOPSLA 2013).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from fuzz.footprint import Away, cut_off, steps_from
from fuzz.subject import NotDeterministic, Ran, Subject
from kstate.machine import UNLIMITED, Choices, Task, Turn, default_task

Deviation = tuple[int, int]  # steps since tasks began to compete, index of the task to run
Option = tuple[int, int, bool]  # the same, and whether it is a preemption
Piece = tuple[int, int]  # of the first deviations: those of these steps, the last one excluded

PIECE = 16  # steps


class Deviate:
    """The default run with deviations. Records, if asked to, where one more could be made.

    options: in order, after the last deviation given. base: steps that had been taken when tasks
    began to compete."""

    def __init__(self, deviations: Sequence[Deviation], *, record: bool) -> None:
        self.deviations = tuple(deviations)
        self.record = record
        self.begin(Choices())

    def begin(self, choices: Choices) -> None:
        self.every_step = False
        self.options: list[Option] = []
        self.base: int | None = None
        self._at = 0
        self._missed = False

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        if self.base is None:
            self.base = steps
            runnable[0].machine.looked = []
        at = steps - self.base
        deviations = self.deviations
        task = default_task(runnable, current)
        while self._at < len(deviations) and deviations[self._at][0] < at:
            self._at += 1  # its moment has passed while only one task could run
            self._missed = True
        if self._at < len(deviations) and deviations[self._at][0] == at:
            index = deviations[self._at][1]
            self._at += 1
            chosen = next((task for task in runnable if task.index == index), None)
            self._missed |= chosen is None
            task = chosen or task
        else:
            if self._at == len(deviations) and self.record:
                self.options += [
                    (at, other.index, current is not None)
                    for other in runnable
                    if other is not task
                ]
        if self._at < len(deviations):
            return Turn(task, deviations[self._at][0] - at)
        return Turn(task, 1 if self.record else UNLIMITED)

    @property
    def missed(self) -> bool:
        """After the run: was there a deviation that could not be made?"""
        return self._missed or self._at < len(self.deviations)


def plain(subject: Subject, preemptions: int) -> Iterator[Ran]:
    """Every run with at most `preemptions` preemptions, fewest deviations first along each path."""
    stack: list[tuple[tuple[Deviation, ...], int]] = [((), preemptions)]
    while stack:
        deviations, left = stack.pop()
        ran, scheduler = _run(subject, deviations, left)
        yield ran
        for step, task, preempts in reversed(scheduler.options):
            if not preempts or left > 0:
                stack.append(((*deviations, (step, task)), left - preempts))


def _run(subject: Subject, deviations: tuple[Deviation, ...], left: int) -> tuple[Ran, Deviate]:
    # With nothing left to spend only free choices remain; two tasks have one, who begins.
    record = left > 0 or not deviations or not 0 < subject.tasks <= 2
    scheduler = Deviate(deviations, record=record)
    ran = subject.run(scheduler)
    if scheduler.missed:
        raise NotDeterministic("a choice that there was in one run is not there in the next")
    return ran, scheduler


class Reduced:
    """The same runs, without some that are equivalent to others of them.

    In pieces, the same for everybody, that can be searched one by one in any order."""

    def __init__(self, subject: Subject, preemptions: int) -> None:
        self.subject = subject
        self.preemptions = preemptions

    def __iter__(self) -> Iterator[Ran]:
        first, pieces = self.begin()
        yield first
        for piece in pieces:
            yield from self.piece(piece)

    def begin(self) -> tuple[Ran, list[Piece]]:
        """The run without deviations, and the pieces of all others."""
        ran, scheduler = _run(self.subject, (), self.preemptions)
        steps = [
            step for step, _, preempts in scheduler.options if not preempts or self.preemptions
        ]
        starts = range(0, max(steps) + 1, PIECE) if steps else ()
        return ran, [(start, start + PIECE) for start in starts]

    def piece(self, piece: Piece) -> Iterator[Ran]:
        ran, scheduler = _run(self.subject, (), self.preemptions)
        yield from self._later(ran, scheduler, self.preemptions, piece)

    def _subtree(self, deviations: tuple[Deviation, ...], left: int) -> Generator[Ran, None, Away]:
        """The run with these deviations and all below it. Returns what is done after the last of
        them, in any of the runs."""
        ran, scheduler = _run(self.subject, deviations, left)
        yield ran
        return (yield from self._later(ran, scheduler, left, (deviations[-1][0], UNLIMITED)))

    def _later(
        self, ran: Ran, scheduler: Deviate, left: int, piece: Piece
    ) -> Generator[Ran, None, Away]:
        """The runs below this one with the next deviation in the piece."""
        tasks = len(ran.machine.tasks)
        if scheduler.base is None:
            return Away(tasks)
        start, stop = piece
        steps = steps_from(ran, scheduler.base + start)
        whole = len(steps) <= stop - start
        del steps[stop - start :]
        away = Away(tasks, everything=not whole)
        away.wait(cut_off(ran.machine))
        ran.let_go()
        options = [option for option in scheduler.options if start <= option[0] < stop]
        later: set[int] = set()  # tasks that some run goes to after the step that comes now
        for number in range(len(steps) - 1, -1, -1):
            step = steps[number]
            if number + 1 < len(steps) and steps[number + 1].task != step.task:
                later.add(steps[number + 1].task)
            put_off = away.precede(step)
            gone: set[int] = set()
            while options and options[-1][0] == start + number:
                at, task, preempts = options.pop()
                if preempts and not left:
                    continue
                gone.add(task)
                if preempts and task in later and not put_off.conflicts(step):
                    away.of[step.task].merge(put_off)
                    continue
                deviations = (*scheduler.deviations, (at, task))
                away.merge((yield from self._subtree(deviations, left - preempts)))
            later = gone
        return away
