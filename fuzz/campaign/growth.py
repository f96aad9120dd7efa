"""Growing a corpus of sequential tests: operations and then one more, made up or mutated.

A test joins if it behaves in a way no test has; what its news do not need is dropped. No schedules:
a run each. Counts of features, over all runs of a campaign, say what is rare.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from fuzz.coverage import Feature, features, operation_of
from fuzz.prog.generate import generate
from fuzz.prog.mutate import mutate
from fuzz.prog.prog import Program
from fuzz.run import Outcome, run
from fuzz.schedulers import Default
from kstate.machine import Choices

FRESH_SHARE = 0.2  # of the rounds make up a new test
TOURNAMENT = 6
CORPUS_MAX = 4096


@dataclass(frozen=True)
class Hit:
    """A run that showed something."""

    program: Program
    outcome: Outcome


@dataclass(frozen=True)
class Entry:
    """A test the corpus keeps. Its task is its last operation."""

    program: Program
    features: tuple[Feature, ...]


class Growth:
    """corpus: entries in order. counts: how many runs had each feature. sequential: those that
    tests without schedules have shown: what only a pair has shown is still news to the corpus.
    runs, steps: of the whole campaign, which shares them."""

    def __init__(self, kernel: str, rng: Random) -> None:
        self.kernel = kernel
        self.rng = rng
        self.corpus: list[Entry] = []
        self.counts: dict[Feature, int] = {}
        self.sequential: set[Feature] = set()
        self.runs = 0
        self.steps = 0

    def round(self) -> Iterator[Hit]:
        """One more test; yields it if it shows a finding."""
        rng = self.rng
        if not self.corpus or rng.random() < FRESH_SHARE:
            program = generate(rng, self.kernel)
        else:
            program = mutate(rng, self.entry().program, rng.choice(self.corpus).program)
        program = in_order(program)
        outcome = self.ran(run(program, None, Default(), Choices()))
        if outcome.findings:
            yield Hit(program, outcome)
        self.consider(program, features(program, outcome))
        outcome.let_go()

    def consider(self, test: Program, found: set[Feature]) -> None:
        """Keep a sequential test if it has shown what no other has. found: what its run showed."""
        new = self.count(found) - self.sequential
        self.sequential |= found
        if new and len(self.corpus) < CORPUS_MAX:
            self.corpus += self._trimmed(test, new)

    def _trimmed(self, program: Program, new: set[Feature]) -> list[Entry]:
        """Drop every operation that the new features do not need, but leave all processes something
        to be there for: others are to meet them. An entry for each operation that is left and may
        have shown a new feature, as the task, and what came before it."""
        ops = program.init + program.tasks[0]
        found: set[Feature] = new
        for at in range(len(ops) - 1, -1, -1):
            fewer = ops[:at] + ops[at + 1 :]
            if not fewer:
                break
            candidate = replace(program, init=fewer[:-1], tasks=(fewer[-1:],))
            if len(candidate.processes()) < len(program.processes()):
                continue
            outcome = self.ran(run(candidate, None, Default(), Choices()))
            shown = features(candidate, outcome)
            outcome.let_go()
            if new <= shown:
                ops, program, found = fewer, candidate, shown
        self.count(found - new)
        self.sequential |= found
        kinds = {operation_of(feature) for feature in new}
        ends = {at for at, op in enumerate(ops, 1) if op.name in kinds} | {len(ops)}
        return [
            Entry(
                replace(program, init=ops[: end - 1], tasks=(ops[end - 1 : end],)),
                tuple(sorted(found)),
            )
            for end in sorted(ends)
        ]

    def ran(self, outcome: Outcome) -> Outcome:
        """Account for a run."""
        self.runs += 1
        self.steps += outcome.steps
        return outcome

    def entry(self) -> Entry:
        """The one with the rarest features among a few (Boehme et al., Entropic, FSE 2020: energy
        by rarity), favouring short programs."""
        entries = self.corpus
        drawn = [entries[self.rng.randrange(len(entries))] for _ in range(TOURNAMENT)]
        return max(drawn, key=self.rarity)

    def rarity(self, entry: Entry) -> float:
        rare = sum(1 / self.counts[feature] for feature in entry.features)
        return rare / (4 + entry.program.operations_count())

    def count(self, found: set[Feature]) -> set[Feature]:
        """Count a run's features."""
        counts = self.counts
        for feature in found:
            counts[feature] = counts.get(feature, 0) + 1
        return found


def in_order(program: Program) -> Program:
    """All operations one after another, in one task."""
    ops = tuple(op for section in (program.init, *program.tasks) for op in section)
    return replace(program, init=ops[:-1], tasks=(ops[-1:],))
