"""Which operations can conflict: measured, one operation at a time.

After Snowboard (Gong et al., SOSP 2021): what two operations could do to each other is known from
what each does alone from one state, and pairs of accesses that are rare are worth scheduling first.
A state is what a short sequential test leads to. Nothing is written down by hand about any
operation: an index holds what runs have shown, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from fuzz.access import Access, accesses, conflicts
from fuzz.prog.generate import NAMES, partner
from fuzz.prog.prog import Op, Program
from fuzz.run import Outcome, run
from fuzz.schedulers import Default
from kstate.machine import Choices

CPUS = 2

Place = tuple[str, int]  # operation, number of the point
Places = tuple[Place, Place]  # of two conflicting accesses, in order


@dataclass
class Use:
    """What one kind of operation was seen to do: classes of word, and in how many states."""

    reads: dict[str, int] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)


@dataclass
class PairRecord:
    """Two kinds of operation. states: compared in. words, places: what they conflict on and where,
    in how many states."""

    states: int = 0
    words: dict[str, int] = field(default_factory=dict)
    places: dict[tuple[str, Places], int] = field(default_factory=dict)


def places_of(mine: Access, theirs: Access) -> Places:
    """Where two accesses are made, whichever comes first."""
    one, other = mine.place, theirs.place
    return (one, other) if one <= other else (other, one)


class Index:
    """What operations use, which pairs of them conflict where, and how often that was seen."""

    def __init__(self) -> None:
        self.uses: dict[str, Use] = {}
        self.pairs: dict[tuple[str, str], PairRecord] = {}

    def add(self, one: tuple[str, list[Access]], other: tuple[str, list[Access]]) -> None:
        """Two operations that were run alone from one state: (kind, what it did)."""
        if other[0] < one[0]:
            one, other = other, one
        record = self.pairs.setdefault((one[0], other[0]), PairRecord())
        record.states += 1
        words: dict[str, None] = {}
        found: dict[tuple[str, Places], None] = {}
        for mine, theirs in conflicts(one[1], other[1]):
            words[mine.word] = None
            found[mine.word, places_of(mine, theirs)] = None
        for word in words:
            record.words[word] = record.words.get(word, 0) + 1
        for what in found:
            record.places[what] = record.places.get(what, 0) + 1

    def use(self, name: str, done: list[Access]) -> None:
        """One operation that was run alone."""
        use = self.uses.setdefault(name, Use())
        for counts, stores in ((use.reads, False), (use.writes, True)):
            for word in sorted({access.word for access in done if access.stores == stores}):
                counts[word] = counts.get(word, 0) + 1

    def rarest_first(self) -> list[tuple[int, int, tuple[str, str], str]]:
        """What pairs conflict on, in the smallest share of states first: (states in which they
        conflict on the word, states they were compared in, the pair, the word)."""
        able = [
            (seen, record.states, names, word)
            for names, record in self.pairs.items()
            for word, seen in record.words.items()
        ]
        return sorted(able, key=lambda row: (row[0] / row[1], row))


def residents(test: Program) -> tuple[str, ...]:
    """The processes that are there before its task. Another one would make another state, with
    other numbers for its objects: what it does cannot be compared."""
    return replace(test, tasks=()).processes()


def resident_partner(rng: Random, test: Program, name: str) -> Op:
    """An operation of a kind on what a test works on, by one of its residents."""
    op = partner(rng, test, name)
    there = residents(test)
    return op if op.process in there else replace(op, process=rng.choice(there))


def beside(state: Program, cpu: int, op: Op) -> Program:
    """The operation by itself on one of two CPUs, in a state: where the operations before lead."""
    return replace(state, tasks=((op,), ()) if cpu == 0 else ((), (op,)))


def footprint(outcome: Outcome, cpu: int) -> list[Access]:
    """What the task on `cpu` did to objects that were there before the tasks: what others can do
    something to as well."""
    first_new = outcome.machine.tasks[1].id
    return [access for access in accesses(outcome, cpu + 1) if access.operand < first_new]


def measure_state(
    index: Index, state: Program, ops: Sequence[Op], perform: Callable[[Program], Outcome]
) -> None:
    """Run each of `ops` alone from a state, on either of two CPUs, and compare any two of them."""
    done = [[footprint(perform(beside(state, cpu, op)), cpu) for op in ops] for cpu in range(CPUS)]
    for at, op in enumerate(ops):
        index.use(op.name, done[0][at])
        for other_at in range(at, len(ops)):
            index.add((op.name, done[0][at]), (ops[other_at].name, done[1][other_at]))


def measure(
    tests: Iterable[Program],
    rng: Random,
    *,
    names: Sequence[str] = NAMES,
    progress: Callable[[int], None] | None = None,
) -> Index:
    """Measure an operation of every kind in the state each test leads to before its task.

    The last operation of a test, known to do something there, stands for its kind; arguments of the
    others are drawn from those in use. Left out: tests whose last operation is by a process that is
    not there before it."""
    index = Index()
    for number, test in enumerate(tests, 1):
        last = test.tasks[0][-1]
        if last.process not in residents(test):
            continue
        ops = [last if name == last.name else resident_partner(rng, test, name) for name in names]
        measure_state(index, test, ops, _run_alone)
        if progress is not None:
            progress(number)
    return index


def _run_alone(program: Program) -> Outcome:
    return run(program, None, Default(), Choices(), oracles=())
