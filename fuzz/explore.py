"""Plain enumeration of every schedule with at most N preemptions. No reduction: the yardstick.

A preemption is leaving a task that could go on; choices where a task blocks or ends are free.
Stateless: every schedule is a run from the start. A schedule is its deviations from the default
run, (step, task); the schedules of a node are that of its parent plus one later deviation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from fuzz.prog.prog import Program, TurnSpec
from fuzz.run import STEP_LIMIT, Outcome, run
from fuzz.turns import write_down
from kstate.machine import UNLIMITED, Choices, Task, Turn, default_task

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

    verdict: refuted | exhausted | undetermined. preemptions: the bound. schedules: runs made.
    findings: for each id the first witness found: its turns. limit_hit: some run ended at the step
    limit, so nothing can be exhausted. seconds: of wall clock, for reports only.
    """

    kernel: str
    preemptions: int
    verdict: str = UNDETERMINED
    schedules: int = 0
    findings: dict[str, tuple[TurnSpec, ...]] = field(default_factory=dict)
    limit_hit: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        bound = f"preemptions <= {self.preemptions}, faults 0"
        return f"{self.verdict.upper()} ({bound}) after {self.schedules} schedules"


def explore(
    program: Program,
    kernel: str | None = None,
    *,
    preemptions: int,
    only: str | None = None,
    runs_max: int | None = None,
    stop_at_first: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Exploration:
    """Run a program under every schedule with at most `preemptions` preemptions.

    Args:
        only: the finding to look for; by default any.
        runs_max: give up (undetermined) after so many runs.
        stop_at_first: end with the first finding instead of collecting all.
        progress: told the number of runs, now and then.
    """
    bare = program.bare()
    started = time.monotonic()
    result = Exploration(kernel or program.kernel, preemptions)
    complete = True
    for outcome in schedules(bare, kernel, preemptions):
        result.schedules += 1
        if progress is not None and result.schedules % 256 == 0:
            progress(result.schedules)
        if outcome.outcome == STEP_LIMIT:
            result.limit_hit = True
        for id in outcome.ids if only is None else outcome.ids & {only}:
            if id not in result.findings:
                result.findings[id] = write_down(outcome)
        if (stop_at_first and result.findings) or result.schedules == runs_max:
            complete = False
            break
    if result.findings:
        result.verdict = REFUTED
    elif complete and not result.limit_hit:
        result.verdict = EXHAUSTED
    result.seconds = time.monotonic() - started
    return result


def schedules(program: Program, kernel: str | None, preemptions: int) -> Iterator[Outcome]:
    """Every run with at most `preemptions` preemptions, fewest deviations first along each path."""
    stack: list[tuple[tuple[Deviation, ...], int]] = [((), preemptions)]
    while stack:
        deviations, left = stack.pop()
        # With nothing left to spend only free choices remain; two tasks have one, who begins.
        record = left > 0 or not deviations or len(program.tasks) > 2
        scheduler = Deviate(deviations, record=record)
        yield run(program, kernel, scheduler, Choices())
        for step, task, preempts in reversed(scheduler.options):
            if not preempts or left > 0:
                stack.append(((*deviations, (step, task)), left - preempts))
