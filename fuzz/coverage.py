"""What a run has done that others have not: features, of which a campaign keeps count.

A feature is one of
- a behaviour: what a point gave in an operation, (operation, point, result), results bucketed;
- an ending: an operation and what it returned;
- a communication: two successive accesses to one word of one object by different tasks, at least
  one of them a store, each as (operation, point).
- a state: what a page looks like when all is quiet, (flags, how often mapped, by how many VM_LOCKED
  vmas, in a file or not).
They are numbers, the same in every process.
"""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.oracles import Snapshot
from fuzz.prog.prog import Program
from fuzz.run import Outcome
from kstate.machine import LOAD
from kstate.machine.points import point_by_number
from kstate.structs import AddressSpace, Page
from kstate.syscalls import OPERATIONS

Feature = tuple[int, ...]
_STATE = 0
# Of a point, by its number: its word, whether it stores, its results, whether they are mere names.
_FACTS: dict[int, tuple[str, bool, int, bool]] = {}
# Words whose values are mere names of pages and other objects.
_NUMBERS = frozenset(
    ("pte", "mapping", "index", "pagevec", "page_tree", "free_list", "machine", "refcount")
)
_OPERATION = {name: number for number, name in enumerate(OPERATIONS, 1)}
_NAME = {number: name for name, number in _OPERATION.items()}


def operation_of(feature: Feature) -> str:
    """The kind of operation a behaviour or an ending belongs to; of the rest, none."""
    return _NAME.get(feature[0], "") if len(feature) < 4 else ""


def features(program: Program, outcome: Outcome) -> set[Feature]:
    """The features of a run."""
    machine = outcome.machine
    found: set[Feature] = set()
    log = machine.log
    end = len(log)
    begins = [
        (note.log_at, note.task, _OPERATION[note.about[1]])
        for note in machine.notes
        if note.kind == "operation-begin"
    ]
    begins.append((end, 0, 0))
    operation = [0] * len(machine.tasks)
    last: dict[tuple[int, str], tuple[int, int, int, bool]] = {}
    at, task, following = 0, 0, 0
    competed = False
    while at < end:
        while begins[following][0] <= at:
            operation[begins[following][1]] = begins[following][2]
            following += 1
        number = log[at]
        if number < 0:
            task = -1 - number
            competed = competed or task > 0
            at += 1
            continue
        facts = _FACTS.get(number)
        if facts is None:
            primitive = point_by_number(number).primitive
            facts = _FACTS[number] = (
                primitive.word,
                primitive.access != LOAD,
                primitive.results,
                primitive.word in _NUMBERS,
            )
        word, stores, results, names = facts
        doing = operation[task]
        if competed:  # what init did before is nobody's communication
            key = (log[at + 1], word)
            before = last.get(key)
            if before is not None and before[0] != task and before[0] and (stores or before[3]):
                found.add((before[1], before[2], doing, number))
            last[key] = (task, doing, number, stores)
        at += 2
        if names:
            found.add((doing, number))
            at += results
            continue
        for _ in range(results):
            value = log[at]
            found.add((doing, number, value if -32 < value < 4 else 4))
            at += 1
    for ops, returned in zip((program.init, *program.tasks), outcome.returns, strict=True):
        for op, value in zip(ops, returned, strict=False):
            found.add((_OPERATION[op.name], value))
    if machine.ending is None:
        for page, mappings, locked in _pages(outcome):
            in_file = isinstance(page._mapping, AddressSpace)
            found.add((_STATE, page._flags, mappings, locked, in_file))
    return found


def _pages(outcome: Outcome) -> Iterator[tuple[Page, int, int]]:
    """Pages in use: (page, how often mapped, by how many VM_LOCKED vmas), 3 for more."""
    state = Snapshot(outcome.k)
    for page in state.in_use:
        mappings = len(state.mappings.get(page.pfn, ()))
        yield page, min(3, mappings), min(3, len(state.locked_mappings(page)))


def mappings_of(feature: Feature) -> int | None:
    """How often the page of a state is mapped; None: not a state."""
    return feature[2] if len(feature) == 5 and feature[0] == _STATE else None


def page_shapes(outcome: Outcome) -> dict[int, int]:
    """Pages in use when all is quiet: how they are mapped, as one number above 0, by the page's id.
    Of a run that did not end by itself: nothing."""
    if outcome.machine.ending is not None:
        return {}
    return {page.id: 1 + mappings + 4 * locked for page, mappings, locked in _pages(outcome)}
