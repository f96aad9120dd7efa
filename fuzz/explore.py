"""Can it still happen? A verdict over every schedule with at most N preemptions (fuzz.bounded), or
over all, one of each class of equivalent ones (fuzz.dpor); and with up to N calls failing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fuzz.bounded import Reduced
from fuzz.checkpoint import Checkpoint, Faults
from fuzz.parts import AllParts, BoundedParts, Part, Parts, Portion, Witness
from fuzz.prog.prog import Program, TurnSpec
from fuzz.run import Outcome
from fuzz.schedulers.replay import Replay
from fuzz.subject import NotDeterministic, ProgramSubject, Subject, check_deterministic
from fuzz.workers import WorkerLost, Workers
from kstate.machine import StepLimit
from kstate.machine.machine import STEPS_MAX

LOOK_EVERY_S = 0.1  # whether to give up, while processes are at work
REFUTED, EXHAUSTED, UNDETERMINED = "refuted", "exhausted", "undetermined"


@dataclass
class Exploration:
    """A verdict and its bound.

    verdict: refuted | exhausted | undetermined. preemptions, faults: the bound; preemptions None
    for all schedules. schedules: runs made. classes: of equivalent schedules, where they are told
    apart; at most so many where a run was cut_short (see fuzz.subject). findings: for each id the
    turns of its witness, the least run that shows it (see fuzz.parts; where the search ended early,
    the least met); texts: in words; failing: the calls that fail in it. limit_hit: some run ended
    at the step limit, so nothing can be exhausted.
    share: where a search of all schedules ended early, an estimate of the part of them it has
    covered (Knuth's, over the tree); spread: the quartiles of what it is by single parts of the
    search. probes: runs of the reduced search that only looked whether a task
    could run somewhere; redundant: runs it gave up because nothing new was that way (only programs
    that can crash have any); neither is among the schedules. steps_max: the step limit of a run.
    only: the one finding that counts; None for any. given: what the program itself leaves out: that
    is part of the bound (`yield-at mm/rmap.py:*`, `failing cpu1 alloc_page #1`); globs: of its
    yield-at, those that some run has met.
    seconds: of wall clock, for reports only.
    """

    kernel: str
    preemptions: int | None
    faults: int = 0
    verdict: str = UNDETERMINED
    schedules: int = 0
    findings: dict[str, tuple[TurnSpec, ...]] = field(default_factory=dict)
    limit_hit: bool = False
    cut_short: bool = False
    seconds: float = 0.0
    texts: dict[str, str] = field(default_factory=dict)
    failing: dict[str, Faults] = field(default_factory=dict)
    classes: int | None = None
    share: float | None = None
    spread: tuple[float, float] | None = None
    probes: int = 0
    redundant: int = 0
    steps_max: int = STEPS_MAX
    only: str | None = None
    given: tuple[str, ...] = ()
    globs: set[str] = field(default_factory=set)

    @property
    def bound(self) -> str:
        schedules = "all schedules"
        if self.preemptions is not None:
            schedules = f"preemptions <= {self.preemptions}"
        faults = f"faults {'<= ' if self.faults else ''}{self.faults}"
        return ", ".join((schedules, faults, *self.given))

    def __str__(self) -> str:
        return f"{self.verdict.upper()} ({self.bound}) after {self.schedules} schedules"


class _Enough(Exception):
    """The search is to end early."""


def explore(
    program: Program | Subject,
    kernel: str | None = None,
    *,
    preemptions: int | None,
    faults: int = 0,
    only: str | None = None,
    runs_max: int | None = None,
    stop_at_first: bool = False,
    jobs: int = 1,
    checkpoint: Checkpoint | None = None,
    stop: Callable[[Exploration], bool] | None = None,
) -> Exploration:
    """Run a program under every schedule with at most `preemptions` preemptions.

    Args:
        preemptions: None: under all schedules, one of each class of equivalent ones (fuzz.dpor).
        faults: also with each set of at most so many calls of tasks that can fail failing.
        only: the finding to look for; by default any.
        runs_max: give up (undetermined) after so many runs; with more than one job, or so.
        stop_at_first: end with the first finding instead of collecting all.
        jobs: processes, for a bounded search; all schedules are searched by one. Where the search
            is not ended early the result is the same for any number.
        checkpoint: where what is done is kept; what it has already is not done again.
        stop: asked now and then whether to give up; told how far the search is.
    Raises:
        WorkerLost: one of the processes was killed. NotDeterministic, SetupError: see fuzz.subject.
    """
    subject = ProgramSubject(program.bare(), kernel) if isinstance(program, Program) else program
    if preemptions is None and isinstance(program, Program) and program.yield_at:
        raise ValueError("yield-at is for bounded searches: the reduced one asks at every step")
    if not subject.kernel_name:
        check_deterministic(subject)
    exploration = _Explorer(subject, preemptions, faults, only, runs_max, stop_at_first, stop)
    return exploration.explore(jobs, checkpoint)


class _Explorer:
    def __init__(
        self,
        subject: Subject,
        preemptions: int | None,
        faults: int,
        only: str | None,
        runs_max: int | None,
        stop_at_first: bool,
        stop: Callable[[Exploration], bool] | None,
    ) -> None:
        self.subject = subject
        self.only = only
        self.runs_max = runs_max
        self.stop_at_first = stop_at_first
        self.stop = stop
        given = subject.given
        self.result = Exploration(subject.kernel_name, preemptions, faults, only=only, given=given)
        self.total = Portion()
        self.witnesses: dict[str, tuple[Faults, Witness]] = {}

    def explore(self, jobs: int, checkpoint: Checkpoint | None) -> Exploration:
        started = time.monotonic()
        result = self.result
        complete = True
        sets: list[Faults] = [()]
        met: set[Faults] = set(sets)
        try:
            for faults in sets:
                calls = self._search(faults, jobs, checkpoint)
                for call in sorted(calls - set(faults)):
                    more = tuple(sorted((*faults, call)))
                    if len(more) <= result.faults and more not in met:
                        met.add(more)
                        sets.append(more)
        except _Enough:
            complete = False
        self._tell(Portion())
        if complete:
            result.share = result.spread = None
        if not self.subject.kernel_name:
            self._check_witnesses()
        # A run at the step limit may be a livelock or just long: alone it refutes nothing.
        if result.findings.keys() - ({StepLimit.id} if self.only is None else set()):
            result.verdict = REFUTED
        elif complete and not result.limit_hit:
            result.verdict = EXHAUSTED
        result.seconds = time.monotonic() - started
        return result

    def _check_witnesses(self) -> None:
        """A finding counts if its run can be had again."""
        for id, turns in self.result.findings.items():
            failing = self.subject.with_faults(self.result.failing[id])
            if id not in failing.run(Replay(turns)).findings:
                raise NotDeterministic(f"a run that showed {id} does not when it is run again")

    def _search(self, faults: Faults, jobs: int, checkpoint: Checkpoint | None) -> set[Any]:
        """All parts with these calls failing. Returns the calls that were met."""
        parts = _parts(self.subject, self.result.preemptions, faults, self.only)
        calls: set[Any] = set()

        def take_in(portion: Portion) -> None:
            calls.update(portion.calls)
            self._add(faults, portion)

        take_in(parts.begin())
        self._look(parts, Portion())
        known: dict[tuple[int, ...], Portion] = {}
        for key, portion in checkpoint.done.get(faults, ()) if checkpoint else ():
            known[tuple(key)] = portion

        def fresh() -> Iterator[Part]:
            """Parts that are still to do; those known already are done in passing."""
            while (part := parts.take()) is not None:
                portion = known.get(tuple(part["key"]))
                if portion is None:
                    yield part
                else:
                    take_in(portion)
                    parts.done(part["key"], portion)

        def finish(part: Part, portion: Portion) -> None:
            take_in(portion)
            if checkpoint is not None:
                checkpoint.add(faults, part["key"], portion)
            parts.done(part["key"], portion)
            self._look(parts, Portion())

        # Under all schedules a part rests on what the parts before it have found: side by side they
        # lose classes. So only a bounded search, whose parts do not depend on each other, is split.
        if jobs == 1 or self.result.preemptions is None:
            for part in fresh():
                portion = parts.work(part, lambda so_far: self._is_enough(parts, so_far))
                if self._is_enough(parts, portion):
                    take_in(portion)
                    raise _Enough
                finish(part, portion)
        else:
            self._at_once(parts, faults, jobs, fresh, finish)
        return calls

    def _at_once(
        self,
        parts: Parts,
        faults: Faults,
        jobs: int,
        fresh: Callable[[], Iterator[Part]],
        finish: Callable[[Part, Portion], None],
    ) -> None:
        theirs = _parts(self.subject, self.result.preemptions, faults, self.only)

        def work(part: Part) -> dict[str, Any]:
            return theirs.work(part, lambda so_far: False).packed()

        with Workers(jobs, work) as workers:
            while True:
                left = fresh()
                while workers.idle and (part := next(left, None)) is not None:
                    workers.give(part)
                if not workers.busy:
                    return
                try:
                    for part, answer in workers.answers(LOOK_EVERY_S):
                        finish(part, Portion.unpacked(answer))
                except WorkerLost:
                    self._look(parts, Portion())  # all may have been told to end
                    raise
                self._look(parts, Portion())

    def _add(self, faults: Faults, portion: Portion) -> None:
        self.total.add(portion)
        for id, witness in portion.witnesses.items():
            known = self.witnesses.get(id)
            if known is None or (known[0] == faults and witness.order < known[1].order):
                self.witnesses[id] = (faults, witness)

    def _look(self, parts: Parts, so_far: Portion) -> None:
        if self._is_enough(parts, so_far):
            raise _Enough

    def _is_enough(self, parts: Parts, so_far: Portion) -> bool:
        """Is the search to end, with this of the part under way?"""
        schedules = self.total.schedules + so_far.schedules
        if self.stop_at_first and (self.total.witnesses or so_far.witnesses):
            return True
        if self.runs_max is not None and schedules >= self.runs_max:
            return True
        if self.stop is None:
            return False
        self._tell(so_far)
        self._estimate(parts)
        return self.stop(self.result)

    def _estimate(self, parts: Parts) -> None:
        estimate = parts.estimate()
        if estimate is not None:
            self.result.share, self.result.spread = estimate.share, estimate.spread()

    def _tell(self, so_far: Portion) -> None:
        result, total = self.result, self.total
        result.schedules = total.schedules + so_far.schedules
        result.limit_hit = total.limit_hit or so_far.limit_hit
        result.cut_short = total.cut_short or so_far.cut_short
        result.globs = total.globs | so_far.globs
        result.probes = total.probes + so_far.probes
        result.redundant = total.redundant + so_far.redundant
        if result.preemptions is None:
            result.classes = total.classes + so_far.classes
        for id, (faults, witness) in self.witnesses.items():
            result.findings[id] = witness.turns
            result.texts[id] = witness.text
            result.failing[id] = faults


def _parts(
    subject: Subject, preemptions: int | None, faults: Faults, only: str | None
) -> BoundedParts | AllParts:
    failing = subject.with_faults(faults)
    if preemptions is None:
        return AllParts(failing, faults, only)
    return BoundedParts(failing, preemptions, faults, only)


def schedules(program: Program, kernel: str | None, preemptions: int) -> Iterator[Outcome]:
    """The runs of a bounded search."""
    for ran in Reduced(ProgramSubject(program, kernel), preemptions):
        assert isinstance(ran.state, Outcome)
        yield ran.state
