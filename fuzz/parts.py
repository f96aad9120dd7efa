"""A search in parts, which are kept when done.

A part is plain data, as JSON can hold it: a worker process gets it, a checkpoint keeps its key and
what came of it. Those of a bounded search do not depend on each other: any number of processes may
work at them, in any order. Those of all schedules are done one after another, for each rests on
what the ones before it have found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import quantiles
from typing import Any, Protocol

from fuzz.bounded import Reduced
from fuzz.dpor import Search
from fuzz.dpor.events import Step
from fuzz.dpor.guide import Branch, Follow, Start
from fuzz.prog.prog import TurnSpec
from fuzz.subject import NotDeterministic, Ran, Subject
from kstate.machine.machine import Fault

TOTALS_MIN = 4
Part = dict[str, Any]
Key = list[int]  # what tells a part from the others of its search


@dataclass
class Witness:
    """A run that shows a finding. order: among the runs that do; the least is told."""

    order: list[int]
    turns: tuple[TurnSpec, ...]
    text: str


@dataclass
class Portion:
    """What came of a part. globs: of a program's yield-at, those that a run has met. cut_short:
    some run was, see Ran; then two may be of one class. calls: of what may fail, where a search
    lets it. elsewhere: what the search must know of it to go on."""

    schedules: int = 0
    classes: int = 0
    redundant: int = 0
    probes: int = 0
    limit_hit: bool = False
    cut_short: bool = False
    witnesses: dict[str, Witness] = field(default_factory=dict)
    calls: set[Fault] = field(default_factory=set)
    globs: set[str] = field(default_factory=set)
    elsewhere: list[Any] = field(default_factory=list)

    def add(self, other: Portion) -> None:
        self.schedules += other.schedules
        self.classes += other.classes
        self.redundant += other.redundant
        self.probes += other.probes
        self.limit_hit |= other.limit_hit
        self.cut_short |= other.cut_short
        self.calls |= other.calls
        self.globs |= other.globs
        for id, witness in other.witnesses.items():
            known = self.witnesses.get(id)
            if known is None or witness.order < known.order:
                self.witnesses[id] = witness

    def packed(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "schedules": self.schedules,
            "classes": self.classes,
            "redundant": self.redundant,
            "probes": self.probes,
            "limit_hit": self.limit_hit,
            "cut_short": self.cut_short,
            "witnesses": {
                id: [
                    witness.order,
                    [[turn.cpu, turn.kind, turn.point, turn.count] for turn in witness.turns],
                    witness.text,
                ]
                for id, witness in self.witnesses.items()
            },
            "calls": sorted(map(list, self.calls)),
            "globs": sorted(self.globs),
            "elsewhere": self.elsewhere,
        }

    @classmethod
    def unpacked(cls, packed: dict[str, Any]) -> Portion:
        portion = cls(**packed)
        counts = portion.schedules, portion.classes, portion.redundant, portion.probes
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("a count is no number")
        portion.witnesses = {
            id: Witness(order, tuple(TurnSpec(*turn) for turn in turns), text)
            for id, (order, turns, text) in packed["witnesses"].items()
        }
        portion.calls = {(task, kind, number) for task, kind, number in packed["calls"]}
        portion.globs = set(packed["globs"])
        return portion


@dataclass
class Estimate:
    """share of a search that is done, after `done` runs; totals: how many runs there are in all, by
    each part that is done, in order."""

    share: float
    done: int
    totals: list[float]

    def spread(self) -> tuple[float, float] | None:
        """The share by the middle half of the totals, and what the estimate itself says; None while
        the totals are too few, or so small that more than they say is done already."""
        if len(self.totals) < TOTALS_MIN:
            return None
        low, _, high = quantiles(self.totals)
        if high <= self.done:
            return None
        by_totals = self.done / high, min(1.0, self.done / low)
        return min(self.share, by_totals[0]), max(self.share, by_totals[1])


Stop = Callable[[Portion], bool]  # asked after each run, with what came of the part so far


class Parts(Protocol):
    """A search, once begun. only: the one finding that counts, if not all do."""

    def begin(self) -> Portion:
        """The first run."""

    def take(self) -> Part | None:
        """A part nobody has taken; more may turn up while others are being worked at."""

    def work(self, part: Part, stop: Stop) -> Portion:
        """Go through a part; in any process."""

    def done(self, key: Key, portion: Portion) -> None:
        """What came of a part, from whoever worked at it."""

    def estimate(self) -> Estimate | None:
        """How much of it is done, as far as can be told."""


@dataclass
class BoundedParts:
    """With few preemptions. The least run: fewest preemptions, then the earliest change of turn."""

    subject: Subject
    preemptions: int
    faults: tuple[Fault, ...] = ()
    only: str | None = None

    def begin(self) -> Portion:
        self._search = Reduced(self.subject, self.preemptions)
        ran, pieces = self._search.begin()
        self._left = [{"key": [start], "piece": [start, stop]} for start, stop in pieces]
        portion = Portion()
        self._see(ran, portion)
        return portion

    def take(self) -> Part | None:
        return self._left.pop(0) if self._left else None

    def work(self, part: Part, stop: Stop) -> Portion:
        portion = Portion()
        start, end = part["piece"]
        for ran in Reduced(self.subject, self.preemptions).piece((start, end)):
            self._see(ran, portion)
            if stop(portion):
                break
        return portion

    def done(self, key: Key, portion: Portion) -> None:
        """Its parts do not depend on each other."""

    def estimate(self) -> Estimate | None:
        return None

    def _see(self, ran: Ran, portion: Portion) -> None:
        def order() -> list[int]:
            switches = [s for s in ran.machine.switches if s.left or s.preempted]
            changes = [at for switch in switches for at in (switch.step, switch.entered)]
            return [sum(switch.preempted for switch in switches), *changes]

        _see(ran, portion, self.subject, self.faults)
        for id in _shown(ran, self.only):
            known = portion.witnesses.get(id)
            mine = order()
            if known is None or mine < known.order:
                portion.witnesses[id] = Witness(mine, ran.turns(), ran.findings[id])


@dataclass
class AllParts:
    """Under all schedules, one of each class. The least run: fewest changes of turn, in the run of
    its class that is most like the default run."""

    subject: Subject
    faults: tuple[Fault, ...] = ()
    only: str | None = None

    def __post_init__(self) -> None:
        self._at_work: tuple[int, Search] | None = None

    def begin(self) -> Portion:
        self._search = Search(self.subject)
        portion = Portion()
        tasks: dict[str, list[int]] = {}
        self._see(self._search, self._search.begin(), portion, tasks)
        return self._end(self._search, portion, tasks)

    def take(self) -> Part | None:
        taken = self._search.take()
        if taken is None:
            return None
        start, branch = taken
        return {
            "key": [len(start.tasks), branch.step.task],
            "tasks": list(start.tasks),
            "asleep": [step.packed() for step in start.asleep.values()],
            "branch": branch.packed(),
        }

    def work(self, part: Part, stop: Stop) -> Portion:
        asleep = [Step.unpacked(packed) for packed in part["asleep"]]
        start = Start(part["tasks"], {step.task: step for step in asleep})
        search = Search(self.subject, start, [Branch.unpacked(part["branch"])])
        portion = Portion()
        tasks: dict[str, list[int]] = {}
        self._at_work = part["key"][0], search
        for ran in search.runs():
            self._see(search, ran, portion, tasks)
            if stop(portion):
                break
        return self._end(search, portion, tasks)

    def done(self, key: Key, portion: Portion) -> None:
        ways = [(at, [Step.unpacked(step) for step in way]) for at, way in portion.elsewhere]
        self._at_work = None
        self._search.done(key[0], portion.schedules, ways)

    def estimate(self) -> Estimate | None:
        """Knuth's, over the tree: a part is what its place on the first path says it is, and what
        is done of the one under way counts. Each part that is done says by itself how many runs
        there are in all: those say how far it may be off."""
        share, done, totals = 0.0, 1, []
        for at, weight, sizes in self._search.parts():
            share += weight * len(sizes)
            done += sum(sizes)
            totals += [size / weight for size in sizes]
            if self._at_work is not None and self._at_work[0] == at:
                share += weight * self._at_work[1].estimate()
                done += self._at_work[1].counts.schedules
        return Estimate(min(1.0, share), done, sorted(totals))

    def _see(self, search: Search, ran: Ran, portion: Portion, tasks: dict[str, list[int]]) -> None:
        _see(ran, portion, self.subject, self.faults)
        for id in _shown(ran, self.only):
            least = search.trace.least()
            changes = sum(1 for one, other in pairwise(least) if one != other)
            order = [changes, *least]
            known = portion.witnesses.get(id)
            if known is None or order < known.order:
                portion.witnesses[id] = Witness(order, (), "")
                tasks[id] = least

    def _end(self, search: Search, portion: Portion, tasks: dict[str, list[int]]) -> Portion:
        for id, least in tasks.items():
            ran = self.subject.run(Follow(least))
            if id not in ran.findings:
                raise NotDeterministic(f"a run that showed {id} does not when it is run again")
            portion.witnesses[id].turns = ran.turns()
            portion.witnesses[id].text = ran.findings[id]
        portion.redundant, portion.probes = search.counts.redundant, search.counts.probes
        portion.elsewhere = [[at, [step.packed() for step in way]] for at, way in search.elsewhere]
        return portion


def _see(ran: Ran, portion: Portion, subject: Subject, faults: tuple[Fault, ...]) -> None:
    machine = ran.machine
    portion.schedules += 1
    # A run in which not all of them were met is one of a smaller set of faults too.
    portion.classes += set(faults) <= set(machine.faults_taken)
    portion.limit_hit |= ran.limit_hit
    portion.cut_short |= ran.cut_short
    portion.globs |= machine.globs_met
    init = machine.tasks[0].name
    portion.calls.update(
        call for call in machine.fault_calls if subject.init_may_fail or call[0] != init
    )


def _shown(ran: Ran, only: str | None) -> Iterator[str]:
    return (id for id in ran.findings if only in (None, id))
