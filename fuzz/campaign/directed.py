"""Directed preemptions: leave a task just before an access that another task conflicts with.

After Razzer (Jeong et al., S&P 2019) and RFF (Wolff et al., ASPLOS 2024): a pair of conflicting
accesses becomes a scheduling constraint. Departure: a pair is told apart by the operations it
happens in, not by a race detector; each pair is tried a few times, the less tried first served.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from fuzz.explore import Deviation
from fuzz.run import Outcome
from kstate.machine import LOAD
from kstate.machine.points import point_by_number

PER_PROGRAM_MAX = 4

Pair = tuple[str, int, str, int]  # operation, point of the task that is left; the same of the other


@dataclass(frozen=True)
class Access:
    """One step of a task. step: since tasks began to compete. operation: the one it is part of.
    held: locks it holds: (lock, for read only?)."""

    step: int
    number: int
    operand: int
    word: str
    stores: bool
    operation: str
    held: frozenset[tuple[int, bool]]

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
    held: frozenset[tuple[int, bool]] = frozenset()
    at, step, operation, following = entered + 1, 0, "", 0
    while at < len(log) and log[at] >= 0:
        while following < len(begins) and begins[following][0] <= at:
            operation = begins[following][1]
            following += 1
        primitive = point_by_number(log[at]).primitive
        operand = log[at + 1]
        stores = primitive.access != LOAD
        found.append(Access(step, log[at], operand, primitive.word, stores, operation, held))
        kind = _LOCKING.get(primitive.name)
        if kind is not None:
            acquires, for_read = kind
            if not acquires:
                held -= {(operand, for_read)}
            elif not primitive.results or log[at + 2]:
                held |= {(operand, for_read)}
        at += 2 + primitive.results
        step += 1
    return found


# name of a locking primitive: (does it acquire, for read only); one with a result can fail
_LOCKING: dict[str, tuple[bool, bool]] = {
    "spin_lock": (True, False),
    "spin_unlock": (False, False),
    "spin_lock_irq": (True, False),
    "spin_unlock_irq": (False, False),
    "spin_trylock": (True, False),
    "mutex_lock": (True, False),
    "mutex_unlock": (False, False),
    "mutex_trylock": (True, False),
    "lock_page": (True, False),
    "trylock_page": (True, False),
    "unlock_page": (False, False),
    "down_read": (True, True),
    "down_read_granted": (True, True),
    "down_read_trylock": (True, True),
    "up_read": (False, True),
    "down_write": (True, False),
    "down_write_granted": (True, False),
    "down_write_trylock": (True, False),
    "up_write": (False, False),
}


def excluded(one: Access, other: Access) -> bool:
    """Does a lock that both hold keep the two apart? Then taking it is where orders differ."""
    return any(
        lock == theirs and not (for_read and their_read)
        for lock, for_read in one.held
        for theirs, their_read in other.held
    )


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


def shared_words(outcome: Outcome) -> list[int]:
    """For each operation of a run without schedules, in order: how many words of objects it uses
    that an operation of another process used before it, one of the two storing."""
    machine = outcome.machine
    begins = [note for note in machine.notes if note.kind == "operation-begin"]
    users: dict[tuple[int, str], dict[str, bool]] = {}
    found: list[int] = []
    for note, following in zip(begins, [*begins[1:], None], strict=True):
        end = len(machine.log) if following is None else following.log_at
        process = note.about[0]
        met: set[tuple[int, str]] = set()
        at = note.log_at
        log = machine.log
        while at < end:
            if log[at] < 0:
                at += 1
                continue
            primitive = point_by_number(log[at]).primitive
            key = (log[at + 1], primitive.word)
            stores = primitive.access != LOAD
            by = users.setdefault(key, {})
            if any(other != process and (stores or stored) for other, stored in by.items()):
                met.add(key)
            by[process] = by.get(process, False) or stores
            at += 2 + primitive.results
        found.append(len(met))
    return found


class Directed:
    """Which pairs have been tried how often; the campaign runs what it proposes."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.tried: dict[Pair, int] = {}
        self.cuts: dict[tuple[str, int], int] = {}

    def propose(
        self, first: int, mine: list[Access], other: int, theirs: list[Access]
    ) -> list[tuple[Deviation, ...]]:
        """Schedules in which `first` begins and is left for `other` before a conflicting access.

        A pair that was tried n times comes again with probability 1 / (1 + n): where it led
        nowhere, another program may still lead somewhere. Of those that come, the places where a
        task was left least often go first (Lemieux and Sen, FairFuzz, ASE 2018: aim at what is
        rare). Proposing a pair counts as trying it.
        """
        by_word: dict[tuple[int, str], list[Access]] = {}
        for access in theirs:
            by_word.setdefault((access.operand, access.word), []).append(access)
        candidates: list[tuple[int, float, Access, list[Pair]]] = []
        for access in mine:
            pairs = [
                (access.operation, access.number, their.operation, their.number)
                for their in by_word.get((access.operand, access.word), ())
                if (access.stores or their.stores) and not excluded(access, their)
            ]
            tries = {pair: self.tried.get(pair, 0) for pair in pairs}
            fresh = [pair for pair, count in tries.items() if self.rng.random() * (1 + count) < 1]
            if fresh and access.step > 0:
                candidates.append(
                    (self.cuts.get(access.place, 0), self.rng.random(), access, fresh)
                )
        proposed: list[tuple[Deviation, ...]] = []
        candidates.sort(key=lambda candidate: candidate[:2])
        for _, _, access, fresh in candidates[:PER_PROGRAM_MAX]:
            self.cuts[access.place] = self.cuts.get(access.place, 0) + 1
            for pair in fresh:
                self.tried[pair] = self.tried.get(pair, 0) + 1
            proposed.append(((0, first), (access.step, other)))
        return proposed
