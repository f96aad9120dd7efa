"""Which operations could meet over what, known before any two of them run together.

After Snowboard (Gong et al., SOSP 2021): from one state, a run of each operation alone says what it
touches, and any two of those runs say where the two conflict: n runs for n * n / 2 pairs. A state
is what a sequential test leads to; those go first whose pages look like none before, pages that are
mapped more than others. The pairs of all states wait in one queue, the one most worth a try first;
each try makes its like, the same two kinds of operation over a page mapped alike, worth less.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from fuzz.access import Access, compete, reaches
from fuzz.campaign.directed import Directed, Pair, Shape
from fuzz.campaign.growth import Entry
from fuzz.coverage import Feature, mappings_of, page_shapes
from fuzz.pairs import beside, footprint, residents
from fuzz.prog.generate import NAMES, partner
from fuzz.prog.prog import Op, Program
from fuzz.run import Outcome

MEETINGS_A_STATE = 200  # the best of a state are kept
QUEUE_MAX = 20_000
PAIRS_OF_A_MEETING = 16  # of the pairs of a meeting, those that say what it is worth
MAPPED_WEIGHT = 4  # of a page's mappings in the worth of a state
SHORT = 8  # operations a state may have before its length counts much against it


# The operations, whether one process does both, and the most mapped shape they meet over.
Kind = tuple[str, str, bool, Shape]


@dataclass(frozen=True)
class Meeting:
    """Two operations that conflict, run from a state. steps: a run of them takes, about. shapes: of
    its objects, by id. kind: what it has in common with its like."""

    program: Program
    pairs: tuple[Pair, ...]
    steps: int
    shapes: dict[int, Shape] = field(repr=False)
    kind: Kind


class Meetings:
    """A queue of meetings, and the states they were measured in. tries: by kind of meeting."""

    def __init__(self, rng: Random, directed: Directed) -> None:
        self.rng = rng
        self.directed = directed
        self.measured: set[tuple[Op, ...]] = set()
        self.covered: dict[Feature, int] = {}
        self.queue: list[tuple[float, int, Meeting]] = []
        self.tries: dict[Kind, int] = {}
        self.made = 0

    def take(self) -> Meeting | None:
        """The meeting most worth a try; None: there is none. Worths only ever fall, so one that is
        on top when it was valued again is the best (Minoux's lazy greedy, 1978)."""
        queue = self.queue
        while queue:
            _, number, meeting = heapq.heappop(queue)
            worth = -self._worth(meeting)
            if not queue or worth <= queue[0][0]:
                self.tries[meeting.kind] = self.tries.get(meeting.kind, 0) + 1
                return meeting
            heapq.heappush(queue, (worth, number, meeting))
        return None

    def _worth(self, meeting: Meeting) -> float:
        """A step, of the best pairs, each in its better order; less, the more of its like were
        tried."""
        worth = self.directed.worth
        worths = [max(worth(pair), worth(_turned(pair))) for pair in meeting.pairs]
        tries = 1 + self.tries.get(meeting.kind, 0)
        return sum(heapq.nlargest(PAIRS_OF_A_MEETING, worths)) / (meeting.steps * tries**2)

    def next_state(self, corpus: list[Entry]) -> Program | None:
        """What the test leads to whose pages are the newest; None if all were measured. Tests that
        two processes take part in come first."""
        best: tuple[tuple[bool, float], Entry] | None = None
        for entry in corpus:
            test = entry.program
            if test.init + test.tasks[0] not in self.measured:
                worth = len(test.processes()) > 1, self._worth_of_state(entry)
                if best is None or worth > best[0]:
                    best = worth, entry
        if best is None:
            return None
        entry = best[1]
        for feature in entry.features:
            if mappings_of(feature) is not None:
                self.covered[feature] = self.covered.get(feature, 0) + 1
        ops = entry.program.init + entry.program.tasks[0]
        self.measured.add(ops)
        return replace(entry.program, init=ops, tasks=())

    def _worth_of_state(self, entry: Entry) -> float:
        worth = 0.0
        for feature in entry.features:
            mappings = mappings_of(feature)
            if mappings is not None:
                seen = self.covered.get(feature, 0)
                worth += (1 + MAPPED_WEIGHT * mappings) / (1 + seen) ** 2
        return worth / (SHORT + entry.program.operations_count())

    def measure(self, state: Program, perform: Callable[[Program], Outcome]) -> None:
        """Run an operation of every kind by every process alone, and queue what could meet.

        perform: runs a program in its default schedule."""
        before = perform(state)
        shapes = page_shapes(before)
        ops: dict[Op, None] = {}
        for name in NAMES:
            for process in residents(state):
                ops[replace(partner(self.rng, state, name), process=process)] = None
        done = []
        for op in ops:
            outcome = perform(beside(state, 0, op))
            done.append((op, outcome.steps, _by_word(footprint(outcome, 0))))
            if not outcome.findings:
                outcome.let_go()
        if not before.findings:
            before.let_go()
        found: list[tuple[float, int, Meeting]] = []
        for at, (one, steps, mine) in enumerate(done):
            for other, its_steps, theirs in done[at:]:
                pairs = _conflicts(mine, theirs, shapes)
                if pairs:
                    self.made += 1
                    program = replace(state, tasks=((one,), (other,)))
                    both = max(1, steps + its_steps - before.steps)  # a run may end at a BUG
                    meeting = Meeting(program, pairs, both, shapes, _kind(one, other, pairs))
                    found.append((-self._worth(meeting), self.made, meeting))
        for item in heapq.nsmallest(MEETINGS_A_STATE, found):
            heapq.heappush(self.queue, item)
        if len(self.queue) > QUEUE_MAX:
            self.queue = heapq.nsmallest(QUEUE_MAX // 2, self.queue)


def _kind(one: Op, other: Op, pairs: tuple[Pair, ...]) -> Kind:
    first, second = sorted((one.name, other.name))
    return first, second, one.process == other.process, max(pair[4] for pair in pairs)


def _turned(pair: Pair) -> Pair:
    return (*pair[2:4], *pair[:2], pair[4])


Footprint = dict[tuple[int, str], list[Access]]  # by object and word, one access of a kind


def _by_word(done: list[Access]) -> Footprint:
    found: dict[tuple[int, str], dict[object, Access]] = {}
    for access in done:
        kind = access.place, access.stores, access.held
        found.setdefault((access.operand, access.word), {}).setdefault(kind, access)
    return {word: list(kinds.values()) for word, kinds in found.items()}


def _conflicts(mine: Footprint, theirs: Footprint, shapes: dict[int, Shape]) -> tuple[Pair, ...]:
    """What two operations compete for, and one of them gets to while the other is away."""
    found: dict[Pair, None] = {}
    for word in mine if len(mine) <= len(theirs) else theirs:
        if word in mine and word in theirs:
            shape = shapes.get(word[0], 0)
            for access in mine[word]:
                for their in theirs[word]:
                    if compete(access, their) and (
                        reaches(their, access) or reaches(access, their)
                    ):
                        found[*access.place, *their.place, shape] = None
    return tuple(found)
