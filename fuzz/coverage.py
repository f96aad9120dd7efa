"""What a run has done that others have not: features for the corpus.

A feature is one of
- a communication: two successive accesses to one word of one object, by different tasks, at least
  one of them a store, as (point, point);
- a result: what a point gave, bucketed, (point, result);
- an ending: an operation and what it returned.
"""

from __future__ import annotations

from fuzz.prog.prog import Program
from fuzz.run import Outcome
from kstate.machine import LOAD
from kstate.machine.points import point_by_number

Feature = tuple[int, int]
_RETURNED = -1


def features(program: Program, outcome: Outcome) -> set[Feature]:
    """The features of a run; the same in every process."""
    found: set[Feature] = set()
    log = outcome.machine.log
    end = len(log)
    last: dict[tuple[int, str], tuple[int, int, bool]] = {}
    at, task = _competition(outcome), 0
    while at < end:
        number = log[at]
        if number < 0:
            task = number
            at += 1
            continue
        primitive = point_by_number(number).primitive
        operand = log[at + 1]
        stores = primitive.access != LOAD
        key = (operand, primitive.word)
        before = last.get(key)
        if before is not None and before[0] != task and (stores or before[2]):
            found.add((before[1], number))
        last[key] = (task, number, stores)
        at += 2
        for _ in range(primitive.results):
            value = log[at]
            found.add((number, value if -32 < value < 8 else 8))
            at += 1
    for ops, returned in zip((program.init, *program.tasks), outcome.returns, strict=True):
        for op, value in zip(ops, returned, strict=False):
            found.add((_RETURNED - sum(op.name.encode()), value))
    return found


def communicates(outcome: Outcome) -> bool:
    """Could its tasks' order matter: did two of them use one word, one storing it?"""
    log = outcome.machine.log
    users: dict[tuple[int, str], tuple[int, bool]] = {}
    at, task = _competition(outcome), 0
    while at < len(log):
        number = log[at]
        if number < 0:
            task = number
            at += 1
            continue
        primitive = point_by_number(number).primitive
        stores = primitive.access != LOAD
        key = (log[at + 1], primitive.word)
        seen = users.get(key)
        if seen is not None and seen[0] != task and (stores or seen[1]):
            return True
        if seen is None or stores:
            users[key] = (task, stores)
        at += 2 + primitive.results
    return False


def _competition(outcome: Outcome) -> int:
    """Where in the log the tasks begin to compete."""
    switches = outcome.machine.switches
    return switches[0].log_at if switches else len(outcome.machine.log)
