"""Every schedule with at most N preemptions, plainly enumerated: no reduction, the yardstick.
Or all schedules, one of each class of equivalent ones: that is fuzz.dpor.

A preemption is leaving a task that could go on; choices where a task blocks or ends are free.
Stateless: every schedule is a run from the start. A schedule is its deviations from the default
run, (step, task); the schedules of a node are that of its parent plus one later deviation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from fuzz.dpor import Search
from fuzz.prog.prog import Program, TurnSpec
from fuzz.run import Outcome
from fuzz.subject import NotDeterministic, ProgramSubject, Ran, Subject
from kstate.machine import UNLIMITED, Choices, Task, Turn, default_task
from kstate.machine.machine import STEPS_MAX

REFUTED, EXHAUSTED, UNDETERMINED = "refuted", "exhausted", "undetermined"

Deviation = tuple[int, int]  # steps since tasks began to compete, index of the task to run


class Deviate:
    """The default run with deviations. Records, if asked to, where one more could be made.

    options: (step, task index, was it a preemption), in order, after the last deviation given."""

    def __init__(self, deviations: Sequence[Deviation], *, record: bool) -> None:
        self.deviations = tuple(deviations)
        self.record = record
        self.begin(Choices())

    def begin(self, choices: Choices) -> None:
        self.every_step = False
        self.options: list[tuple[int, int, bool]] = []
        self._base: int | None = None
        self._at = 0

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        if self._base is None:
            self._base = steps
        at = steps - self._base
        deviations = self.deviations
        task = default_task(runnable, current)
        while self._at < len(deviations) and deviations[self._at][0] < at:
            self._at += 1  # its moment has passed while only one task could run
        if self._at < len(deviations) and deviations[self._at][0] == at:
            index = deviations[self._at][1]
            self._at += 1
            task = next((task for task in runnable if task.index == index), task)
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


@dataclass
class Exploration:
    """A verdict and its bound.

    verdict: refuted | exhausted | undetermined. preemptions: the bound, None for all schedules.
    schedules: runs made. classes: of equivalent schedules, where they are told apart.
    findings: for each id the first witness found: its turns; texts: in words. limit_hit: some run
    ended at the step limit, so nothing can be exhausted. share: where a search of all schedules
    ended early, an estimate of the part of them it has covered. probes: runs of the reduced search
    that only looked whether a task could run somewhere; redundant: runs it gave up because nothing
    new was that way (only programs that can crash have any); neither is among the schedules.
    steps_max: the step limit of a run. seconds: of wall clock, for reports only.
    """

    kernel: str
    preemptions: int | None
    verdict: str = UNDETERMINED
    schedules: int = 0
    findings: dict[str, tuple[TurnSpec, ...]] = field(default_factory=dict)
    limit_hit: bool = False
    seconds: float = 0.0
    texts: dict[str, str] = field(default_factory=dict)
    classes: int | None = None
    share: float | None = None
    probes: int = 0
    redundant: int = 0
    steps_max: int = STEPS_MAX

    @property
    def bound(self) -> str:
        if self.preemptions is None:
            return "all schedules, faults 0"
        return f"preemptions <= {self.preemptions}, faults 0"

    def __str__(self) -> str:
        return f"{self.verdict.upper()} ({self.bound}) after {self.schedules} schedules"


def explore(
    program: Program | Subject,
    kernel: str | None = None,
    *,
    preemptions: int | None,
    only: str | None = None,
    runs_max: int | None = None,
    stop_at_first: bool = False,
    progress: Callable[[int], None] | None = None,
    stop: Callable[[Exploration], bool] | None = None,
) -> Exploration:
    """Run a program under every schedule with at most `preemptions` preemptions.

    Args:
        preemptions: None: under all schedules, one of each class of equivalent ones (fuzz.dpor).
        only: the finding to look for; by default any.
        runs_max: give up (undetermined) after so many runs.
        stop_at_first: end with the first finding instead of collecting all.
        progress: told the number of runs, now and then.
        stop: asked after each run whether to give up; told how far the search is.
    """
    subject = ProgramSubject(program.bare(), kernel) if isinstance(program, Program) else program
    started = time.monotonic()
    result = Exploration(subject.kernel_name, preemptions)
    if preemptions is None and isinstance(program, Program) and program.yield_at:
        raise ValueError("yield-at is for bounded searches: the reduced one asks at every step")
    if not subject.kernel_name:
        _check_deterministic(subject)
    search = Search(subject) if preemptions is None else None
    runs = search.runs() if search is not None else bounded(subject, preemptions or 0)
    complete = True
    for ran in runs:
        result.schedules += 1
        if progress is not None and result.schedules % 256 == 0:
            progress(result.schedules)
        result.limit_hit = result.limit_hit or ran.limit_hit
        for id, text in ran.findings.items():
            if id not in result.findings and only in (None, id):
                result.findings[id] = ran.turns()
                result.texts[id] = text
        if search is not None:
            result.share = search.estimate()
        given_up = stop is not None and stop(result)
        if (stop_at_first and result.findings) or result.schedules == runs_max or given_up:
            complete = False
            break
    if search is not None:
        result.classes, result.probes = search.counts.schedules, search.counts.probes
        result.redundant = search.counts.redundant
    if complete:
        result.share = None
    if result.findings:
        result.verdict = REFUTED
    elif complete and not result.limit_hit:
        result.verdict = EXHAUSTED
    result.seconds = time.monotonic() - started
    return result


def _check_deterministic(subject: Subject) -> None:
    """Twice the default run. A reduced search also compares whatever it runs again."""
    first, second = (subject.run(Deviate((), record=False)).machine.log for _ in range(2))
    if first != second:
        raise NotDeterministic("two default runs are not the same")


def schedules(program: Program, kernel: str | None, preemptions: int) -> Iterator[Outcome]:
    """Every run with at most `preemptions` preemptions, fewest deviations first along each path."""
    for ran in bounded(ProgramSubject(program, kernel), preemptions):
        assert isinstance(ran.state, Outcome)
        yield ran.state


def bounded(subject: Subject, preemptions: int) -> Iterator[Ran]:
    """The same for anything that can be run."""
    stack: list[tuple[tuple[Deviation, ...], int]] = [((), preemptions)]
    while stack:
        deviations, left = stack.pop()
        # With nothing left to spend only free choices remain; two tasks have one, who begins.
        record = left > 0 or not deviations or not 0 < subject.tasks <= 2
        scheduler = Deviate(deviations, record=record)
        yield subject.run(scheduler)
        for step, task, preempts in reversed(scheduler.options):
            if not preempts or left > 0:
                stack.append(((*deviations, (step, task)), left - preempts))
