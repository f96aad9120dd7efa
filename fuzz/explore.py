"""Can it still happen? A verdict over every schedule with at most N preemptions (fuzz.bounded), or
over all, one of each class of equivalent ones (fuzz.dpor)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fuzz.bounded import Deviate, Reduced
from fuzz.dpor import Search
from fuzz.prog.prog import Program, TurnSpec
from fuzz.run import Outcome
from fuzz.subject import NotDeterministic, ProgramSubject, Subject
from kstate.machine.machine import STEPS_MAX

REFUTED, EXHAUSTED, UNDETERMINED = "refuted", "exhausted", "undetermined"


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
    runs = search.runs() if search is not None else iter(Reduced(subject, preemptions or 0))
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
    """The runs of a bounded search."""
    for ran in Reduced(ProgramSubject(program, kernel), preemptions):
        assert isinstance(ran.state, Outcome)
        yield ran.state
