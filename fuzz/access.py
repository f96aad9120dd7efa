"""What a task did to which word, read off a run's log; which accesses of two tasks conflict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fuzz.locklog import ACTIONS, DOWNGRADE, DROP, QUEUE, TAKE, LockAction
from fuzz.run import Outcome
from kstate.machine import LOAD
from kstate.machine.points import point_by_number

Locks = frozenset[tuple[int, bool]]  # (lock, for read only?)
NO_LOCK = LockAction("")


class Access(NamedTuple):
    """One step of a task. step: since tasks began to compete. operation: the one it is part of.
    held: locks it holds. needed: locks it has waited for till now, or waits for now. drops: it lets
    go of a lock. waits: it takes one, and waits for it if it must. shares: it takes or lets go of
    one for read only."""

    step: int
    number: int
    operand: int
    word: str
    stores: bool
    operation: str
    held: Locks
    needed: Locks
    drops: bool
    waits: bool
    shares: bool

    @property
    def place(self) -> tuple[str, int]:
        """Operation and point, whatever the object."""
        return self.operation, self.number


def accesses(outcome: Outcome, task: int) -> list[Access]:
    """What `task` does in a run in which it goes first, until another task runs."""
    machine = outcome.machine
    begins = [
        (note.log_at, note.about[1])
        for note in machine.notes
        if note.kind == "operation-begin" and note.task == task
    ]
    entered = next((s.log_at for s in machine.switches if s.entered == task), None)
    if entered is None or not begins:
        return []
    log = machine.log
    found = []
    held: Locks = frozenset()
    needed: Locks = frozenset()
    at, step, operation, following = entered + 1, 0, "", 0
    while at < len(log) and log[at] >= 0:
        while following < len(begins) and begins[following][0] <= at:
            operation = begins[following][1]
            following += 1
        primitive = point_by_number(log[at]).primitive
        operand = log[at + 1]
        stores = primitive.access != LOAD
        action = ACTIONS.get(primitive.name, NO_LOCK)
        drops = action.act == DROP
        if action.waits:
            needed |= {(operand, action.shared)}
        place = step, log[at], operand, primitive.word, stores, operation
        found.append(Access(*place, held, needed, drops, action.waits, action.shared))
        if drops:
            held -= {(operand, action.shared)}
        elif action.act == DOWNGRADE:
            held = held - {(operand, False)} | {(operand, True)}
        elif action.act in (TAKE, QUEUE) and (not primitive.results or log[at + 2]):
            held |= {(operand, action.shared)}
        at += 2 + primitive.results
        step += 1
    return found


def excluded(one: Access, other: Access) -> bool:
    """Does a lock that both hold keep the two apart? Then taking it is where orders differ."""
    return _clash(one.held, other.held)


def reaches(one: Access, left: Access) -> bool:
    """Does a task get as far as `one` while another is away just before `left`? It does not where
    it must wait for a lock that is held there. As far as can be told from what each does alone."""
    return not _clash(left.held, one.needed)


def _clash(mine: Locks, theirs: Locks) -> bool:
    if theirs:
        for lock, for_read in mine:
            if (lock, False) in theirs or (not for_read and (lock, True) in theirs):
                return True
    return False


def compete(one: Access, other: Access) -> bool:
    """Can two accesses to one word come in either order, and does it matter which is first?

    One of them stores; no lock keeps them apart; neither lets go of a lock that the other lets go
    of as well or waits for: their orders are those in which the two take it; and not both are
    readers' of one lock, who do not mind each other."""
    if not (one.stores or other.stores) or (one.shares and other.shares):
        return False
    if (one.drops and (other.drops or other.waits)) or (other.drops and one.waits):
        return False
    return not excluded(one, other)


def conflict(orders: list[list[Access]]) -> bool:
    """Could the order of the tasks matter: do two of them use one word, one of them storing it?"""
    users: dict[tuple[int, str], tuple[int, bool]] = {}
    for task, steps in enumerate(orders):
        for access in steps:
            key = (access.operand, access.word)
            seen = users.get(key)
            if seen is not None and seen[0] != task and (access.stores or seen[1]):
                return True
            if seen is None or access.stores:
                users[key] = (task, access.stores)
    return False


def conflicts(mine: list[Access], theirs: list[Access]) -> Iterator[tuple[Access, Access]]:
    """Accesses of two tasks to one word that compete."""
    by_word: dict[tuple[int, str], list[Access]] = {}
    for access in theirs:
        by_word.setdefault((access.operand, access.word), []).append(access)
    for access in mine:
        for their in by_word.get((access.operand, access.word), ()):
            if compete(access, their):
                yield access, their
