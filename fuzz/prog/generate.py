"""Making up programs. Knows operations and their argument types, no race."""

from __future__ import annotations

from random import Random

from fuzz.prog.prog import Op, Program
from kstate.boot import MachineSize
from kstate.syscalls import (
    COUNT,
    KIND,
    KINDS,
    NODE,
    OPERATIONS,
    PAGE,
    SLOT,
    SLOT_PAGES,
    Argument,
    slot_start,
)

NAMES = tuple(OPERATIONS)
SLOTS_USED = 2  # few slots, so that operations meet
PROCESSES_USED = "AB"


def generate(rng: Random, kernel: str) -> Program:
    """A random program: something mapped by each process, a few operations, then two tasks."""
    size = MachineSize(cpus=2, zones=2, pages=16, pool=rng.randrange(3))
    init = [
        Op(process, "map", (slot_start(rng.randrange(SLOTS_USED)), rng.choice(tuple(KINDS))))
        for process in PROCESSES_USED
    ]
    init += [random_op(rng, size) for _ in range(rng.randrange(5))]
    tasks = tuple(
        tuple(random_op(rng, size) for _ in range(rng.randrange(1, 4))) for _ in range(size.cpus)
    )
    return Program(kernel, size, tuple(init), tasks)


def random_op(rng: Random, size: MachineSize) -> Op:
    name = rng.choice(NAMES)
    kinds = OPERATIONS[name].arguments
    return Op(
        rng.choice(PROCESSES_USED), name, tuple(random_argument(rng, kind, size) for kind in kinds)
    )


def random_argument(rng: Random, kind: str, size: MachineSize) -> Argument:
    if kind == KIND:
        return rng.choice(tuple(KINDS))
    if kind == SLOT:
        return slot_start(rng.randrange(SLOTS_USED))
    if kind == PAGE:
        return slot_start(rng.randrange(SLOTS_USED)) + rng.randrange(SLOT_PAGES)
    if kind == COUNT:
        return rng.randrange(1, SLOT_PAGES + 1)
    if kind == NODE:
        return rng.randrange(size.zones)
    return rng.randrange(max(1, size.pool))
