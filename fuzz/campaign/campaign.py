"""A campaign: programs and schedules, guided by what runs have not done before.

Strategies share the budget (portfolio.py), each a kind of round:
- growing (growth.py): one more sequential test;
- pairing (after Snowboard, Gong et al., SOSP 2021): the last operation of a test runs against
  others; if the tasks conflict, directed preemptions are tried (directed.py). Evenly: kinds of
  operation have even attention, but for what a pair still shows. By rarity: some operations are
  measured alone in the test's state, and the one whose conflict with it was seen least is taken
  (fuzz/pairs.py);
- a strategy for each sampler: schedules of pairs that conflict, drawn by it.
Nothing here knows a race: operations are drawn evenly, energy goes where behaviour is rare. No
clock, no global random: a seed and a number of rounds decide everything.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from random import Random

from fuzz.access import Access, accesses, conflict
from fuzz.campaign.directed import Directed
from fuzz.campaign.growth import Entry, Growth, Hit, in_order
from fuzz.campaign.portfolio import Portfolio
from fuzz.coverage import Feature, features
from fuzz.explore import Deviate, Deviation
from fuzz.pairs import Candidate, Index, measure_state, resident_partner, residents
from fuzz.prog.generate import NAMES, partner
from fuzz.prog.prog import ChoicesSpec, Op, Program
from fuzz.run import Outcome, run
from fuzz.schedulers import Default, Profile, expand, make_scheduler, profile_of
from kstate.machine import Choices

GROWING, EVENLY, RAREST = "growing", "pairing evenly", "pairing by rarity"
SAMPLERS = ("random_walk(run=20)", "pct(depth=2)", "pct(depth=3)", "pos", "surw", "delay(delays=2)")
FLOORS = {GROWING: 0.15, EVENLY: 0.2, RAREST: 0.25, **dict.fromkeys(SAMPLERS, 0.01)}
SAMPLES_A_ROUND = 3
PAIRS_A_VISIT = 3
POOL_MAX = 256
TOURNAMENT = 8
DRAWS_BITS = 16


@dataclass
class Pairing:
    """Two kinds of operation side by side. rounds: spent on them. news: features they were first to
    show."""

    rounds: int = 0
    news: int = 0


@dataclass
class State:
    """What the operations before a test's task lead to. candidates: conflicts measured there that
    were not tried yet; None before that."""

    candidates: list[Candidate] | None = None


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
        self.directed = Directed(self.rng)
        self.index = Index()
        self.states: dict[tuple[Op, ...], State] = {}
        self.pairings: dict[tuple[str, str], Pairing] = {}
        self.pool: list[Scheduled] = []
        self.portfolio = Portfolio((GROWING, EVENLY, RAREST, *SAMPLERS), FLOORS)

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
        """A round of the strategy whose turn it is; yields what shows a finding."""
        if self.initial:
            yield from self._schedules(self.initial.pop(0))
            return
        name = self.portfolio.next()
        steps, news = self.growth.steps, len(self.counts)
        if name == GROWING or not self.corpus:
            yield from self.growth.round()
        elif name == EVENLY:
            yield from self._pair_evenly()
        elif name == RAREST:
            yield from self._pair_by_rarity()
        elif self.pool:
            yield from self._sample(name)
        self.portfolio.spent(name, self.growth.steps - steps, len(self.counts) - news)

    # ---- pairing -------------------------------------------------------------------------

    def _pair_evenly(self) -> Iterator[Hit]:
        name, other = self._next_pairing()
        entries = [entry for entry in self.corpus if entry.program.tasks[0][0].name == name]
        rarity = self.growth.rarity
        entry = min(entries, key=lambda entry: (entry.paired.get(other, 0), -rarity(entry)))
        entry.paired[other] = entry.paired.get(other, 0) + 1
        others = (
            partner(self.rng, entry.program, other),
            partner(self.rng, entry.program, self.rng.choice(NAMES)),
        )
        before = len(self.counts)
        yield from self._schedules(replace(entry.program, tasks=(entry.program.tasks[0], others)))
        pairing = self.pairings[name, other]
        pairing.rounds += 1
        pairing.news += len(self.counts) - before

    def _next_pairing(self) -> tuple[str, str]:
        """The two kinds of operation that had the least attention for what they still show."""
        last = dict.fromkeys(entry.program.tasks[0][0].name for entry in self.corpus)
        for name in last:
            for other in NAMES:
                self.pairings.setdefault((name, other), Pairing())
        return min(
            self.pairings,
            key=lambda pair: self.pairings[pair].rounds / (1 + self.pairings[pair].news) ** 0.5,
        )

    def _pair_by_rarity(self) -> Iterator[Hit]:
        """Of some states, the one with the conflict most worth a try. One is measured first if any
        of them was not."""
        growth, rng = self.growth, self.rng
        drawn = [rng.choice(self.corpus).program for _ in range(TOURNAMENT)]
        able = [test for test in drawn if residents(test)]
        if not able:
            yield from growth.round()
            return
        for test in able:
            if self._state(test).candidates is None:
                yield from self._measure(test)
                break
        best = max(able, key=lambda test: self._worth(test)[0])
        for _ in range(PAIRS_A_VISIT):
            candidate = self._worth(best)[1]
            if candidate is None:
                break
            tasks = ((candidate.one,), (candidate.other,))
            yield from self._schedules(replace(best, tasks=tasks))
            left = self._state(best).candidates
            assert left is not None
            left.remove(candidate)

    def _worth(self, test: Program) -> tuple[float, Candidate | None]:
        """The conflict in a state that is most worth a try: seen in few states, seldom tried."""
        seen, tried = self.index.places, self.directed.tried
        best: tuple[float, Candidate | None] = 0.0, None
        for candidate in self._state(test).candidates or ():
            worth = 0.0
            for one, other in candidate.places:
                tries = tried.get((*one, *other), 0) + tried.get((*other, *one), 0)
                worth += 1 / (seen[one, other] * (1 + tries) ** 2)
            if worth > best[0]:
                best = worth, candidate
        return best

    def _state(self, test: Program) -> State:
        return self.states.setdefault(test.init, State())

    def _measure(self, test: Program) -> Iterator[Hit]:
        """Run an operation of every kind from a state: what the corpus has found to do something
        there, or else any. Each is a sequential test as well."""
        growth, there, hits = self.growth, residents(test), list[Hit]()
        known = {
            op.name: op
            for entry in self.corpus
            if entry.program.init == test.init
            for op in entry.program.tasks[0]
            if op.process in there
        }
        ops = [
            known[name] if name in known else resident_partner(self.rng, test, name)
            for name in NAMES
        ]

        def perform(program: Program) -> Outcome:
            outcome = growth.ran(run(program, None, Default(), Choices()))
            if outcome.findings:
                hits.append(Hit(program, outcome))
            if program.tasks[0]:
                growth.consider(in_order(program), features(program, outcome))
            return outcome

        self._state(test).candidates = measure_state(self.index, test, ops, perform)
        yield from hits

    def _schedules(self, program: Program) -> Iterator[Hit]:
        """Run a program with each task first; then, if the tasks conflict, with preemptions."""
        before = len(self.counts)
        orders: list[list[Access]] = []
        for task in range(1, len(program.tasks) + 1):
            outcome = yield from self._run(program, ((0, task),))
            self.growth.count(features(program, outcome))
            orders.append(accesses(outcome, task))
        if not conflict(orders):
            return
        for first, mine in enumerate(orders, 1):
            for other, theirs in enumerate(orders, 1):
                if first != other:
                    for deviations in self.directed.propose(first, mine, other, theirs):
                        outcome = yield from self._run(program, deviations)
                        if COUNT_DIRECTED:
                            self.growth.count(features(program, outcome))
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
        scheduled.samples += SAMPLES_A_ROUND
        scheduled.news += len(self.counts) - before


COUNT_DIRECTED = True


def _exhausted(scheduled: Scheduled) -> float:
    """How much attention a program had for what it showed."""
    return float(scheduled.samples / (1 + scheduled.news) ** 0.5)
