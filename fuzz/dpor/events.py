"""What a step touches, and which two steps conflict: the dependence the reduced search works on.

`kstate.machine.dependent` decides for two steps on one object. Beyond it, and finer than it:
- spawn -> begin and end -> join are orderings, not conflicts: nobody can reverse them. Two spawns
  conflict (they number the tasks); two joins, or a join and a spawn, do not;
- RCU read sections commute with each other, and so do grace periods; one with the other does not.
  A task that ends inside a section ends the section;
- `retry_when_changed` reads every object it watches, and so does the step before it, which saw the
  values it compares with;
- what is read or changed without a step is told with `look` and `touch`, and belongs to the step
  just taken;
- borrowing a CPU conflicts with every step of the task that runs there;
- a step that ends the run (a BUG, a broken assertion, the end of the first task, which may not
  have waited for the others) conflicts with everything: what the others would have done next is
  not done.

Objects are known by who made them and as which of his, not by number: numbers are given in order
of creation, which differs between runs that are otherwise equivalent.
"""

from __future__ import annotations

from typing import Any

from kstate.machine import LOAD, Machine, Point, Task
from kstate.machine.points import same_word

Object = tuple[int, int]  # the task that made it (-1: there before tasks ran), number among its own

_ORDERED = frozenset({"begin", "end", "join"})  # edges, see `ordered`
_RCU_READ = frozenset({"rcu_read_lock", "rcu_read_unlock"})
_RCU_WAIT = frozenset({"synchronize_rcu", "synchronize_rcu_done"})
_BORROWS = frozenset({"borrow_cpu", "return_cpu"})


class Step:
    """One step of one task, done or about to be. Plain data: it can be sent and kept.

    number, name, word: of its point and primitive. waits: it may have to. accesses: what it
    touches. spawned: tasks it started. joined: tasks whose end it waits for. lender: the task whose
    CPU it works on, -1 if none. final: it ended the run. results: what it logged, once done.
    """

    __slots__ = (
        "accesses", "final", "joined", "lender", "name", "number", "obj", "results", "spawned",
        "task", "waits", "word",
    )  # fmt: skip

    def __init__(
        self, task: int, number: int, name: str, word: str, waits: bool, obj: Object
    ) -> None:
        self.task = task
        self.number = number
        self.name = name
        self.word = word
        self.waits = waits
        self.obj = obj
        self.accesses: list[tuple[Object, Role]] = []
        self.spawned: tuple[int, ...] = ()
        self.joined: tuple[int, ...] = ()
        self.lender = -1
        self.final = False
        self.results: tuple[int, ...] = ()

    @property
    def label(self) -> tuple[int, Object]:
        """Point and operand, which tell it among the steps its task could do next."""
        return self.number, self.obj

    def __repr__(self) -> str:
        return f"Step({self.task}, {self.name}({self.word}), {self.obj})"

    def touches(self, thing: Object, how: Role) -> None:
        """It has touched this besides its own object."""
        if (thing, how) not in self.accesses:
            self.accesses.append((thing, how))

    def fresh(self) -> Step:
        """The same step, in a run in which it may turn out otherwise."""
        step = Step(self.task, self.number, self.name, self.word, self.waits, self.obj)
        step.accesses = list(self.accesses)
        step.joined, step.lender = self.joined, self.lender
        step.spawned, step.final = self.spawned, self.final
        return step

    def packed(self) -> list[Any]:
        """As JSON can hold it."""
        accesses = [[*thing, how.word, how.store, how.rcu] for thing, how in self.accesses]
        return [
            self.task, self.number, self.name, self.word, self.waits, list(self.obj), accesses,
            list(self.spawned), list(self.joined), self.lender, self.final,
        ]  # fmt: skip

    @classmethod
    def unpacked(cls, packed: list[Any]) -> Step:
        task, number, name, word, waits, obj, accesses, spawned, joined, lender, final = packed
        step = cls(task, number, name, word, waits, (obj[0], obj[1]))
        step.accesses = [((by, nth), role(*how)) for by, nth, *how in accesses]
        step.spawned, step.joined = tuple(spawned), tuple(joined)
        step.lender, step.final = lender, final
        return step


class Role:
    """How a step touches an object: which word of it (empty: all), and whether it changes it.

    rcu: of RCU's own two roles, which commute with themselves only."""

    __slots__ = ("rcu", "store", "table", "word")

    def __init__(self, word: str, store: bool, rcu: str = "") -> None:
        self.word = word
        self.store = store
        self.rcu = rcu
        self.table: dict[Role, bool] = {}

    def conflicts(self, other: Role) -> bool:
        """With a step that touches the same object in another role?"""
        known = self.table.get(other)
        if known is None:
            known = self.table[other] = self._conflicts(other)
        return known

    def _conflicts(self, other: Role) -> bool:
        if self.rcu or other.rcu:
            return bool(self.rcu and other.rcu and self.rcu != other.rcu)
        if not (self.store or other.store):
            return False
        return not self.word or not other.word or same_word(self.word, other.word)


READER, WAITER = Role("rcu", False, "reader"), Role("rcu", True, "waiter")
_ROLES = {(role.word, role.store, role.rcu): role for role in (READER, WAITER)}


def role(word: str, store: bool, rcu: str = "") -> Role:
    """The role of a word; of RCU a reader's or a waiter's. Of one role there is one object."""
    found = _ROLES.get((word, store, rcu))
    if found is None:
        found = _ROLES[word, store, rcu] = Role(word, store, rcu)
    return found


def role_looked(thing: object, word: str, store: bool) -> Role:
    """The role of what `look` or `touch` tells. RCU is the machine's; of nothing else it is a word
    like others."""
    if word == "rcu" and isinstance(thing, Machine):
        return WAITER if store else READER
    return role(word, store)


def role_of(point: Point) -> Role:
    primitive = point.primitive
    if primitive.name in _RCU_READ:
        return READER
    if primitive.name in _RCU_WAIT:
        return WAITER
    return role(primitive.word, primitive.access != LOAD)


def pending(task: Task, names: Names) -> Step:
    """The step a task would take next."""
    point = task.point
    assert point is not None
    primitive = point.primitive
    name = primitive.name
    waits = primitive.ready is not None
    obj = names.of(task.operand.id)
    step = Step(task.index, point.number, name, primitive.word, waits, obj)
    if name == "join":
        step.joined = tuple(thing.index for thing, _, _ in task.watched)
    elif name == "retry_when_changed":
        for thing, _, _ in task.watched:
            step.touches(names.of(thing.id), role("", False))
    elif name not in _ORDERED:
        step.accesses.append((step.obj, role_of(point)))
        if name in _BORROWS:
            assert isinstance(task.operand, Task)
            step.lender = task.operand.index
    if name == "end":
        step.final = task.index == 0
        step.accesses.append((step.obj, role_of(point)))  # some look whether a task has ended
    if name == "end" and task.rcu_depth:
        step.accesses.append((names.of(task.machine.id), READER))
    return step


def conflict(a: Step, b: Step) -> bool:
    """May the order of these two steps of different tasks matter?"""
    if a.final or b.final or a.lender == b.task or b.lender == a.task:
        return True
    for thing, role in a.accesses:
        for other, its in b.accesses:
            if thing == other and role.conflicts(its):
                return True
    return False


def ordered(a: Step, b: Step) -> bool:
    """Is one of them there only because of the other: spawn -> begin, end -> join?"""
    if a.spawned or b.spawned:
        if b.task in a.spawned or a.task in b.spawned:
            return True
    if a.joined or b.joined:
        if b.task in a.joined or a.task in b.joined:
            return True
    return False


def related(a: Step, b: Step) -> bool:
    """Must equivalent runs have these two steps in the same order?"""
    return a.task == b.task or conflict(a, b) or ordered(a, b)


class Names:
    """Names for the objects of a run, the same in all equivalent runs."""

    def __init__(self) -> None:
        self._names: list[Object] = []
        self._made: dict[int, int] = {}

    def see(self, machine: Machine, task: int) -> None:
        """What is new has been made by `task`."""
        names, made = self._names, self._made
        for _ in range(len(names), len(machine.objects)):
            number = made.get(task, 0)
            made[task] = number + 1
            names.append((task, number))

    def of(self, id: int) -> Object:
        return self._names[id]
