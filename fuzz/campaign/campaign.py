"""A campaign: programs and schedules, guided by what runs have not done before.

Strategies share the budget (portfolio.py), each a kind of round:
- growing (growth.py): one more sequential test;
- measuring (meeting.py): what every operation touches in the state a test leads to, alone;
- meeting: the two operations whose conflicts there were tried least run side by side, with directed
  preemptions (directed.py);
- a strategy for each sampler: schedules, drawn by it, of meetings that showed something new.
Nothing here knows a race: operations are drawn evenly, energy goes where behaviour is rare. No
clock, no global random: a seed and a number of rounds decide everything.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from random import Random

from fuzz.access import Access, accesses, conflict
from fuzz.bounded import Deviate, Deviation
from fuzz.campaign.directed import Directed, Shape
from fuzz.campaign.growth import Entry, Growth, Hit, in_order
from fuzz.campaign.meeting import Meetings
from fuzz.campaign.portfolio import Portfolio
from fuzz.coverage import Feature, features
from fuzz.prog.prog import ChoicesSpec, Program
from fuzz.run import Outcome, run
from fuzz.schedulers import Default, Profile, expand, make_scheduler, profile_of
from kstate.machine import Choices

GROWING, MEASURING, MEETING = "growing", "measuring", "meeting"
SAMPLERS = ("random_walk(run=20)", "pct(depth=2)", "pct(depth=3)", "pos", "surw", "delay(delays=2)")
# What everyone has of the budget whatever it finds; the rest goes where behaviour is still new. New
# behaviour is no finding: a meeting that shows nothing new may still have the one schedule.
FLOORS = {GROWING: 0.12, MEASURING: 0.08, MEETING: 0.74, **dict.fromkeys(SAMPLERS, 0.01)}
SAMPLES_A_ROUND = 3
POOL_MAX = 256
DRAWS_BITS = 16


@dataclass
class Scheduled:
    """A program whose tasks conflict. samples: schedules drawn for it. news: features they were
    first to show. profile: of its default run, once it is needed."""

    program: Program
    news: int
    samples: int = 0
    profile: Profile | None = None


class Campaign:
    """One stream of rounds. `pool`: programs whose tasks conflict, to be sampled, the latest."""

    def __init__(self, kernel: str, seed: int | str, initial: tuple[Program, ...] = ()) -> None:
        self.rng = Random(f"kfuzz {seed}")
        self.initial = [replace(program.bare(), kernel=kernel) for program in initial]
        self.growth = Growth(kernel, self.rng)
        self.directed = Directed()
        self.meetings = Meetings(self.rng, self.directed)
        self.pool: list[Scheduled] = []
        self.portfolio = Portfolio((GROWING, MEASURING, MEETING, *SAMPLERS), FLOORS)

    @property
    def runs(self) -> int:
        """Runs so far."""
        return self.growth.runs

    @property
    def corpus(self) -> list[Entry]:
        return self.growth.corpus

    @property
    def counts(self) -> dict[Feature, int]:
        return self.growth.counts

    def round(self) -> Iterator[Hit]:
        """A round of the strategy whose turn it is; yields what shows a finding. A hit's run can be
        looked at until the next hit is asked for."""
        if self.initial:
            yield from self._schedules(self.initial.pop(0), {})
            return
        name = self.portfolio.next()
        steps, news = self.growth.steps, len(self.counts)
        try:
            yield from self._round_of(name)
        finally:  # also where the campaign ends in the middle of a round
            self.portfolio.spent(name, self.growth.steps - steps, len(self.counts) - news)

    def _round_of(self, name: str) -> Iterator[Hit]:
        if name == GROWING or not self.corpus:
            yield from self.growth.round()
        elif name == MEASURING:
            yield from self._measure()
        elif name == MEETING:
            yield from self._meet()
        elif self.pool:
            yield from self._sample(name)

    # ---- meeting -------------------------------------------------------------------------

    def _measure(self) -> Iterator[Hit]:
        """What each operation touches in a state. Each run is a sequential test as well."""
        growth, hits = self.growth, list[Hit]()
        state = self.meetings.next_state(self.corpus)
        if state is None:
            yield from growth.round()
            return

        def perform(program: Program) -> Outcome:
            outcome = growth.ran(run(program, None, Default(), Choices()))
            if outcome.findings:
                hits.append(Hit(program, outcome))
            if any(program.tasks):
                growth.consider(in_order(program), features(program, outcome))
            return outcome

        self.meetings.measure(state, perform)
        yield from hits

    def _meet(self) -> Iterator[Hit]:
        """Schedules of the two operations that are most worth it."""
        meeting = self.meetings.take()
        if meeting is None:
            yield from self._measure()
        else:
            yield from self._schedules(meeting.program, meeting.shapes)

    def _schedules(self, program: Program, shapes: dict[int, Shape]) -> Iterator[Hit]:
        """Run a program with each task first; then, if the tasks conflict, with preemptions."""
        before = len(self.counts)
        orders: list[list[Access]] = []
        for task in range(1, len(program.tasks) + 1):
            outcome = yield from self._run(program, ((0, task),))
            self.growth.count(features(program, outcome))
            orders.append(accesses(outcome, task))
            outcome.let_go()
        if not conflict(orders):
            return
        for first, mine in enumerate(orders, 1):
            for other, theirs in enumerate(orders, 1):
                if first != other:
                    for deviations in self.directed.propose(first, mine, other, theirs, shapes):
                        outcome = yield from self._run(program, deviations)
                        outcome.let_go()
        news = len(self.counts) - before
        if news:
            self.pool.append(Scheduled(program, news))
            if len(self.pool) > POOL_MAX:
                self.pool.remove(max(self.pool, key=_exhausted))

    def _run(
        self, program: Program, deviations: tuple[Deviation, ...]
    ) -> Generator[Hit, None, Outcome]:
        """One run of the default schedule with deviations."""
        outcome = self.growth.ran(run(program, None, Deviate(deviations, record=False), Choices()))
        if outcome.findings:
            yield Hit(program, outcome)
        return outcome

    # ---- sampling ------------------------------------------------------------------------

    def _sample(self, name: str) -> Iterator[Hit]:
        """A few schedules, drawn by a sampler, of the pair that had the fewest for its news."""
        rng, growth = self.rng, self.growth
        scheduled = min(self.pool, key=_exhausted)
        program = scheduled.program
        if scheduled.profile is None:
            default = growth.ran(run(program, None, Default(), Choices(), oracles=()))
            scheduled.profile = profile_of(default.machine)
            default.let_go()
        known = scheduled.profile
        spelling = expand(name, lambda: known)
        scheduler = make_scheduler(spelling)
        before = len(self.counts)
        for _ in range(SAMPLES_A_ROUND):
            choices = Choices(more=lambda: rng.getrandbits(DRAWS_BITS))
            outcome = growth.ran(run(program, None, scheduler, choices))
            if outcome.findings:
                yield Hit(replace(program, choices=ChoicesSpec(spelling, choices.used())), outcome)
            growth.count(features(program, outcome))
            outcome.let_go()
        scheduled.samples += SAMPLES_A_ROUND
        scheduled.news += len(self.counts) - before


def _exhausted(scheduled: Scheduled) -> float:
    """How much attention a program had for what it showed."""
    return float(scheduled.samples / (1 + scheduled.news) ** 0.5)
