"""A campaign: programs and schedules, guided by what runs have not done before.

Two kinds of round take turns.
- Growing: a sequential test, operations and then one more, made up or mutated; it joins the corpus
  if it behaves in a new way. No schedules: a run each.
- Pairing (after Snowboard, Gong et al., SOSP 2021): the last operation of a test runs against two
  others. If the tasks conflict, schedules are tried: directed preemptions for pairs of accesses
  seldom tried, then random samplers. Kinds of operation are paired evenly, but for what a pair
  still shows.
Nothing here knows a race: operations are drawn evenly, energy goes where behaviour is rare. No
clock, no global random: a seed and a number of rounds decide everything.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from random import Random

from fuzz.campaign.directed import Access, Directed, accesses, conflict, shared_words
from fuzz.coverage import Feature, features, operation_of
from fuzz.explore import Deviate, Deviation
from fuzz.prog.generate import NAMES, generate, partner
from fuzz.prog.mutate import mutate
from fuzz.prog.prog import ChoicesSpec, Program
from fuzz.run import Outcome, run
from fuzz.schedulers import expand, make_scheduler
from kstate.machine import Choices

SAMPLERS = ("pct(depth=2)", "pct(depth=3)", "pct(depth=4)", "random_walk(run=20)")
SAMPLES_OF_NEW = 3  # schedules sampled of a pair that has done something new
GROWING_PER_PAIRING = 2
FRESH_SHARE = 0.2  # of the growing rounds make up a new test
TOURNAMENT = 6
CORPUS_MAX = 4096
DRAWS_BITS = 16


@dataclass(frozen=True)
class Hit:
    """A run that showed something."""

    program: Program
    outcome: Outcome


@dataclass
class Entry:
    """A test the corpus keeps. Its task is its last operation. shared: on how many words of objects
    that operation meets what operations of another process did before it: where nothing is shared
    there is little to race for. paired: rounds it had with each kind of operation beside it."""

    program: Program
    features: tuple[Feature, ...]
    shared: int = 0
    paired: dict[str, int] = field(default_factory=dict)


@dataclass
class Pairing:
    """Two kinds of operation side by side. rounds: spent on them. news: features they were first to
    show."""

    rounds: int = 0
    news: int = 0


class Campaign:
    """One stream of rounds. `runs`: so far. `corpus`: entries in order. `counts`: how many runs had
    each feature. `sequential`: those that tests without schedules have shown: what only a pair has
    shown is still news to the corpus."""

    def __init__(self, kernel: str, seed: int | str, initial: tuple[Program, ...] = ()) -> None:
        self.kernel = kernel
        self.rng = Random(f"kfuzz {seed}")
        self.initial = [replace(program.bare(), kernel=kernel) for program in initial]
        self.corpus: list[Entry] = []
        self.counts: dict[Feature, int] = {}
        self.sequential: set[Feature] = set()
        self.runs = 0
        self.rounds = 0
        self.directed = Directed(self.rng)
        self.pairings: dict[tuple[str, str], Pairing] = {}

    def round(self) -> Iterator[Hit]:
        """Grow or pair; yields what shows a finding."""
        self.rounds += 1
        if self.initial:
            yield from self._schedules(self.initial.pop(0))
        elif self.rounds % (GROWING_PER_PAIRING + 1) or not self.corpus:
            yield from self._grow()
        else:
            yield from self._pair()

    def _grow(self) -> Iterator[Hit]:
        rng = self.rng
        if not self.corpus or rng.random() < FRESH_SHARE:
            program = generate(rng, self.kernel)
        else:
            program = mutate(rng, self._entry().program, rng.choice(self.corpus).program)
        program = _in_order(program)
        outcome = run(program, None, Deviate((), record=False), Choices())
        self.runs += 1
        if outcome.findings:
            yield Hit(program, outcome)
        found = features(program, outcome)
        self._count(found)
        new = found - self.sequential
        self.sequential |= found
        if new and len(self.corpus) < CORPUS_MAX:
            self.corpus += self._trimmed(program, new)

    def _trimmed(self, program: Program, new: set[Feature]) -> list[Entry]:
        """Drop every operation that the new features do not need. An entry for each that is left
        and may have shown one, as the task, and what came before it."""
        ops = program.init + program.tasks[0]
        found: set[Feature] = new
        for at in range(len(ops) - 1, -1, -1):
            fewer = ops[:at] + ops[at + 1 :]
            if not fewer:
                break
            candidate = replace(program, init=fewer[:-1], tasks=(fewer[-1:],))
            self.runs += 1
            shown = features(candidate, run(candidate, None, Deviate((), record=False), Choices()))
            if new <= shown:
                ops, program, found = fewer, candidate, shown
        self._count(found - new)
        self.sequential |= found
        kinds = {operation_of(feature) for feature in new}
        ends = {at for at, op in enumerate(ops, 1) if op.name in kinds} | {len(ops)}
        met = shared_words(run(_in_order(program), None, Deviate((), record=False), Choices()))
        self.runs += 1
        return [
            Entry(
                replace(program, init=ops[: end - 1], tasks=(ops[end - 1 : end],)),
                tuple(sorted(found)),
                met[end - 1] if end <= len(met) else 0,
            )
            for end in sorted(ends)
        ]

    def _pair(self) -> Iterator[Hit]:
        name, other = self._next_pairing()
        entries = [entry for entry in self.corpus if entry.program.tasks[0][0].name == name]
        entry = min(
            entries,
            key=lambda entry: (
                entry.paired.get(other, 0),
                -self._rarity(entry) * (1 + entry.shared),
            ),
        )
        entry.paired[other] = entry.paired.get(other, 0) + 1
        beside = (
            partner(self.rng, entry.program, other),
            partner(self.rng, entry.program, self.rng.choice(NAMES)),
        )
        before = len(self.counts)
        yield from self._schedules(replace(entry.program, tasks=(entry.program.tasks[0], beside)))
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

    def _schedules(self, program: Program) -> Iterator[Hit]:
        """Run a program with each task first; then, if the tasks conflict, in other ways."""
        before = len(self.counts)
        orders: list[list[Access]] = []
        steps = 1
        for task in range(1, len(program.tasks) + 1):
            outcome = yield from self._run(program, ((0, task),))
            self._count(features(program, outcome))
            orders.append(accesses(outcome, task))
            steps = max(steps, outcome.competing_steps)
        if not conflict(orders):
            return
        for first, mine in enumerate(orders, 1):
            for other, theirs in enumerate(orders, 1):
                if first != other:
                    for deviations in self.directed.propose(first, mine, other, theirs):
                        yield from self._run(program, deviations)
        if len(self.counts) > before:
            for _ in range(SAMPLES_OF_NEW):
                yield from self._sample(program, steps)

    def _run(
        self, program: Program, deviations: tuple[Deviation, ...]
    ) -> Generator[Hit, None, Outcome]:
        """One run of the default schedule with deviations."""
        outcome = run(program, None, Deviate(deviations, record=False), Choices())
        self.runs += 1
        if outcome.findings:
            yield Hit(program, outcome)
        return outcome

    def _sample(self, program: Program, steps: int) -> Iterator[Hit]:
        """One run under a random sampler."""
        rng = self.rng
        spelling = expand(rng.choice(SAMPLERS), lambda: steps)
        choices = Choices(more=lambda: rng.getrandbits(DRAWS_BITS))
        outcome = run(program, None, make_scheduler(spelling), choices)
        self.runs += 1
        if outcome.findings:
            yield Hit(replace(program, choices=ChoicesSpec(spelling, choices.used())), outcome)
        self._count(features(program, outcome))

    def _entry(self) -> Entry:
        """The one with the rarest features among a few (Boehme et al., Entropic, FSE 2020: energy
        by rarity), favouring short programs."""
        entries = self.corpus
        drawn = [entries[self.rng.randrange(len(entries))] for _ in range(TOURNAMENT)]
        return max(drawn, key=self._rarity)

    def _rarity(self, entry: Entry) -> float:
        rare = sum(1 / self.counts[feature] for feature in entry.features)
        return rare / (4 + entry.program.operations_count())

    def _count(self, found: set[Feature]) -> None:
        """Count a run's features."""
        counts = self.counts
        for feature in found:
            counts[feature] = counts.get(feature, 0) + 1


def _in_order(program: Program) -> Program:
    """All operations one after another, in one task."""
    ops = tuple(op for section in (program.init, *program.tasks) for op in section)
    return replace(program, init=ops[:-1], tasks=(ops[-1:],))
