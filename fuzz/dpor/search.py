"""Every schedule of a program, one run per Mazurkiewicz class: optimal dynamic partial order
reduction (Abdulla, Aronsson, Jonsson, Sagonas, JACM 2017): source sets, sleep sets, wakeup trees.

Two runs are equivalent if one becomes the other by swapping neighbouring steps that do not
conflict (events.py); all of a class end in the same state with the same findings. After a run, for
each of its races, a way to the other order is written into the wakeup tree where the two parted,
unless what has been explored there covers it already.

Departures. (1) A race is looked for behind steps that only enable: of lock, unlock, lock the first
and the last are in a race, for the last could not run before the unlock. Whether it could run is
told from the steps alone where these are plain locks or a join, else by a probe: a run that only
goes there and looks. Probes are counted apart. (2) What blocked tasks would have done next is in a
race too, when a deadlock or a BUG has ended the run. (3) A step that ends the run conflicts with
all.

Chosen over caching of happens-before prefixes by what each must run: that visits every prefix of
every class, which for two tasks of 60 steps that share nothing is 3600 prefixes; this is one run.
Races of a BUG or of a task that never runs again count, so a program that crashes has many classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fuzz.dpor.events import Step, related
from fuzz.dpor.guide import Branch, Guide, Node, Start, Stop
from fuzz.dpor.trace import Trace
from fuzz.locklog import ACTIONS, DROP, TAKE, WAIT
from fuzz.subject import Ran, Subject

_PLAIN = frozenset({"spin_lock", "spin_lock_irq", "mutex_lock", "lock_page", "wait_on_page_locked"})


@dataclass
class Counts:
    """schedules: complete runs. redundant: runs given up because nothing new was that way; only
    where a step may end the run, which cannot be known before it is taken. probes: see above.
    share: estimate of the part of the tree explored."""

    schedules: int = 0
    redundant: int = 0
    probes: int = 0
    share: float = 0.0


@dataclass
class Search:
    """One search. Iterate `runs()`; each is of another class.

    start, below: only the part of it that begins there and goes on this way. `elsewhere` are then
    ways to go from places on the path before it, (place, steps): not this part's to take."""

    subject: Subject
    start: Start | None = None
    below: list[Branch] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    trace: Trace = field(default_factory=Trace)
    elsewhere: list[tuple[int, list[Step]]] = field(default_factory=list)
    _path: list[Node] = field(default_factory=list)
    _could: dict[object, bool] = field(default_factory=dict)
    _told: set[object] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._before = len(self.start.tasks) + 1 if self.start is not None else 0

    def runs(self) -> Iterator[Ran]:
        below: list[Branch] | None = self.below
        while below is not None:
            ran = self._run(below)
            if ran is not None:
                yield ran
            self._races(self.trace)
            below = self._backtrack()
        self.counts.share = 1.0

    def _run(self, below: list[Branch]) -> Ran | None:
        """Run the path and what is below it. None: given up, nothing new is that way."""
        kept = max(0, len(self._path) - 1)  # the last step is another one than in the last run
        guide = Guide(self._path, below, start=self.start)
        ran = self.subject.run(guide)
        waiting = guide.finish(ran.machine, ran.crashed)
        blocked = isinstance(ran.machine.ending, Stop)
        steps = [node.step for node in self._path[kept:]]
        self.trace.become(kept, steps, () if blocked else waiting)
        if blocked:
            self.counts.redundant += 1
            return None
        self.counts.schedules += 1
        return ran

    def estimate(self) -> float:
        """The part of the tree explored, as far as the tree is known: Knuth's estimate."""
        if self.counts.share == 1.0:
            return 1.0
        share, weight = 0.0, 1.0
        for node in self._path[self._before :]:
            share += weight * node.explored / node.ways
            weight /= node.ways
        return share

    def parts(self) -> Iterator[tuple[int, float, list[int]]]:
        """Of each place with parts: where it is, the share of the tree that each of them is, as far
        as can be told, and how many runs those that are done took."""
        weight = 1.0
        for at, node in enumerate(self._path):
            weight /= node.ways
            if node.taken:
                yield at, weight, node.sizes

    def _backtrack(self) -> list[Branch] | None:
        """Leave the last place with a branch left for it. Returns the branch, None at the end."""
        path = self._path
        while len(path) > self._before:
            node = path.pop()
            if node.waiting:
                asleep = {**node.asleep, node.step.task: node.step}
                branch, *waiting = node.waiting
                path.append(Node(branch.step, asleep, waiting, node.explored + 1))
                return branch.further
        return None

    # ---- in parts --------------------------------------------------------------------------------

    def begin(self) -> Ran:
        """The first run. Each way to leave its path is a part: see `take`."""
        ran = self._run([])
        assert ran is not None
        self._races(self.trace)
        return ran

    def take(self) -> tuple[Start, Branch] | None:
        """A part that nobody has taken yet, the one that leaves the path last. It is to be done
        before the next is taken: what it finds may have to go into the next one's tree."""
        for at in range(len(self._path) - 1, -1, -1):
            node = self._path[at]
            if node.waiting:
                branch = node.waiting.pop(0)
                # What is further down is done by now; all that begins with the branch is its part.
                node.asleep[node.step.task] = node.step
                asleep = dict(node.asleep)
                node.asleep[branch.step.task] = branch.step
                node.taken += 1
                return Start([node.step.task for node in self._path[:at]], asleep), branch
        return None

    def done(self, at: int, size: int, elsewhere: list[tuple[int, list[Step]]]) -> None:
        """A part that left the path at this place is done, in so many runs, and knows of ways that
        are not its own: more parts, where no other covers them."""
        self._path[at].explored += 1
        self._path[at].sizes.append(size)
        for place, way in elsewhere:
            self._insert(place, way)

    # ---- races -------------------------------------------------------------------------------

    def _races(self, trace: Trace) -> None:
        first = max(0, self._before - 1)  # what is before is in a race with nothing before it
        for number in range(first, len(trace.steps) + len(trace.waiting)):
            step, rivals = trace.rivals_of(number)
            passed: list[int] = []
            for rival in rivals:
                if any(trace.happens_before(rival, later) for later in passed):
                    continue
                between = [trace.steps[at] for at in trace.after(rival) if at != number]
                if self._could_run(trace, rival, between, step):
                    passed.append(rival)
                    self._insert(rival, [*between, step.fresh()])

    def _insert(self, at: int, way: list[Step]) -> None:
        """See to it that from this place on the path a run goes this way."""
        if at < self._before:
            key = (at, tuple((step.task, step.label) for step in way))
            if key not in self._told:
                self._told.add(key)
                self.elsewhere.append((at, way))
            return
        node = self._path[at]
        if any(_may_begin(step, way) for step in node.asleep.values()):
            return
        branches = node.waiting
        while True:
            for branch in branches:
                if _may_begin(branch.step, way):
                    way = _minus(branch.step, way)
                    if not branch.further:
                        return  # whatever comes after it is still to be explored
                    branches = branch.further
                    break
            else:
                branches.append(_chain(way))
                return

    def _could_run(self, trace: Trace, rival: int, between: list[Step], step: Step) -> bool:
        """Could the task take this step before the rival?"""
        history = [
            other
            for other in (*trace.steps[:rival], *between)
            if other.task == step.task or related(other, step)
        ]
        lent = sum(
            1 if other.name == "borrow_cpu" else -1
            for other in history
            if other.lender == step.task
        )
        if lent or not step.waits:
            return not lent
        if step.name == "join":
            return set(step.joined) <= {other.task for other in history if other.name == "end"}
        if step.name in _PLAIN:
            return not _held(history, step)
        key = (
            step.task,
            step.label,
            tuple((other.task, other.label, other.results) for other in history),
        )
        if key not in self._could:
            self._could[key] = self._probe(trace.steps[:rival] + between, step.task)
        return self._could[key]

    def _probe(self, way: list[Step], task: int) -> bool:
        self.counts.probes += 1
        guide = Guide([], [], [step.task for step in way])
        self.subject.run(guide)
        return task in guide.enabled


def _held(history: list[Step], step: Step) -> bool:
    """Is the lock that this step takes held after these steps?"""
    held = False
    for other in history:
        action = ACTIONS.get(other.name)
        if other.obj == step.obj and action is not None:
            if other.word != step.word:
                continue
            if action.act == DROP:
                held = False
            elif action.act == TAKE and not (action.tries and other.results[0] == 0):
                held = True
            else:
                assert action.act in (TAKE, WAIT)
    return held


def _may_begin(step: Step, way: list[Step]) -> bool:
    """Does some run equivalent to one that goes this way begin with this step?"""
    for other in way:
        if other.task == step.task:
            return True
        if related(other, step):
            return False
    return True


def _minus(step: Step, way: list[Step]) -> list[Step]:
    for at, other in enumerate(way):
        if other.task == step.task:
            return way[:at] + way[at + 1 :]
    return way


def _chain(way: list[Step]) -> Branch:
    first, *others = way
    root = last = Branch(first)
    for step in others:
        branch = Branch(step)
        last.further.append(branch)
        last = branch
    return root
