"""Making up programs. Knows operations and their argument types, no race.

Swarm testing (Groce et al., ISSTA 2012): each program draws from a small vocabulary of its own, a
few operations, slots and kinds of mapping, all equally likely. Features that are left out leave
room for those that are in to meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from fuzz.prog.prog import Op, Program
from kstate.boot import MachineSize
from kstate.syscalls import (
    COUNT,
    FILE,
    FILES,
    GROUP,
    GROUPS_COUNT,
    KIND,
    KINDS,
    NODE,
    OPERATIONS,
    PAGE,
    PAGES,
    PROCESS,
    PROTECTION,
    PROTECTIONS,
    SLOT,
    SLOT_PAGES,
    SLOT_STRIDE,
    Argument,
    slot_start,
)

NAMES = tuple(name for name, operation in OPERATIONS.items() if not operation.breaks)
PROCESSES_USED = "AB"
SLOTS_USED = 2
TASK_OPERATIONS_MAX = 3
INIT_OPERATIONS_MAX = 5
REUSE_SHARE = 0.8  # how often an argument is one that is already used


@dataclass(frozen=True)
class Vocabulary:
    """What one program draws from."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    slots: int
    pages: int
    size: MachineSize


def random_vocabulary(rng: Random, size: MachineSize | None = None) -> Vocabulary:
    return Vocabulary(
        names=tuple(rng.sample(NAMES, rng.randrange(2, 7))),
        kinds=tuple(rng.sample(tuple(KINDS), rng.randrange(1, 3))),
        slots=rng.randrange(1, SLOTS_USED + 1),
        pages=rng.randrange(1, SLOT_PAGES + 1),
        size=size or MachineSize(cpus=2, zones=2, pages=16, pool=rng.randrange(3)),
    )


def generate(rng: Random, kernel: str) -> Program:
    """A random program: each process maps something, a few operations, then two tasks."""
    words = random_vocabulary(rng)
    where = (random_argument(rng, SLOT, words), random_argument(rng, KIND, words))
    init = [Op(process, "map", where) for process in PROCESSES_USED]
    init += [random_op(rng, words) for _ in range(rng.randrange(INIT_OPERATIONS_MAX))]
    tasks = tuple(
        tuple(random_op(rng, words) for _ in range(rng.randrange(1, TASK_OPERATIONS_MAX + 1)))
        for _ in range(words.size.cpus)
    )
    return Program(kernel, words.size, tuple(init), tasks)


def random_op(rng: Random, words: Vocabulary) -> Op:
    name = rng.choice(words.names)
    kinds = OPERATIONS[name].arguments
    arguments = tuple(random_argument(rng, kind, words) for kind in kinds)
    return Op(rng.choice(PROCESSES_USED), name, arguments)


def random_argument(rng: Random, kind: str, words: Vocabulary) -> Argument:
    if kind == KIND:
        return rng.choice(words.kinds)
    if kind == SLOT:
        return slot_start(rng.randrange(words.slots))
    if kind == PAGE:
        return slot_start(rng.randrange(words.slots)) + rng.randrange(words.pages)
    if kind == COUNT:
        return rng.randrange(1, words.pages + 1)
    if kind == NODE:
        return rng.randrange(words.size.zones)
    if kind == FILE:
        mapped = [file for file, _ in map(KINDS.__getitem__, words.kinds) if file in FILES]
        if mapped and rng.random() < REUSE_SHARE:
            return rng.choice(mapped)
        return rng.choice(tuple(FILES))
    if kind == PAGES:
        return rng.randrange(words.pages + 1)
    if kind == PROTECTION:
        return rng.choice(PROTECTIONS)
    if kind == PROCESS:
        return rng.choice(PROCESSES_USED)
    if kind == GROUP:
        return rng.randrange(GROUPS_COUNT)
    return rng.randrange(max(1, words.size.pool))


def related_op(rng: Random, ops: list[Op], words: Vocabulary, name: str = "") -> Op:
    """An operation, any equally likely, on what the others work on: most arguments are taken from
    them where types agree."""
    name = name or rng.choice(NAMES)
    arguments = []
    for kind in OPERATIONS[name].arguments:
        used = [value for op in ops for value in _offers(op, kind)]
        if used and rng.random() < REUSE_SHARE:
            arguments.append(rng.choice(used))
        else:
            arguments.append(random_argument(rng, kind, words))
    return Op(rng.choice(PROCESSES_USED), name, tuple(arguments))


def _offers(op: Op, kind: str) -> list[Argument]:
    """What its arguments say about a type; a page says its slot, a slot its first page."""
    offers: list[Argument] = []
    for its, value in zip(OPERATIONS[op.name].arguments, op.arguments, strict=True):
        if its == kind or (kind == PAGE and its == SLOT):
            offers.append(value)
        elif kind == SLOT and its == PAGE and isinstance(value, int):
            offers.append(value - value % SLOT_STRIDE)
    return offers


def partner(rng: Random, program: Program, name: str) -> Op:
    """An operation of a kind to run beside a program's own, on what those work on."""
    ops = [op for section in (program.init, *program.tasks) for op in section]
    return related_op(rng, ops, random_vocabulary(rng, program.size), name)
