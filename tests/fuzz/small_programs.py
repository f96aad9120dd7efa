"""Random small programs against the machine alone, to compare searches with each other."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from fuzz.subject import MachineSubject, Ran
from kstate.machine import (
    LOAD,
    KernelBug,
    Machine,
    Mutex,
    MutexClass,
    Primitive,
    RwSem,
    RwSemClass,
    SpinLock,
    SpinLockClass,
    Task,
    WaitQueue,
    WaitQueueClass,
    Word,
    borrow_cpu,
    cmpxchg,
    decode,
    down_read,
    down_read_trylock,
    down_write,
    down_write_trylock,
    downgrade_write,
    fetch_add,
    load,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    rcu_read_lock,
    rcu_read_unlock,
    retry_when_changed,
    return_cpu,
    spin_lock,
    spin_trylock,
    spin_unlock,
    step,
    store,
    synchronize_rcu,
    up_read,
    up_write,
    wait_event,
    wake_up_all,
)

SPIN, MUTEX, SEM, QUEUE = (
    SpinLockClass("small_spin"),
    MutexClass("small_mutex"),
    RwSemClass("small_sem"),
    WaitQueueClass("small_queue"),
)


def _bit_free(operand: Word, task: Task) -> bool:
    return operand._value == 0


LOCK_BIT = Primitive("lock_bit", "small_bit", ready=_bit_free)
TRYLOCK_BIT = Primitive("trylock_bit", "small_bit", results=1)
UNLOCK_BIT = Primitive("unlock_bit", "small_bit")
WAIT_BIT = Primitive("wait_on_bit", "small_bit", LOAD, ready=_bit_free)


def lock_bit(bit: Word) -> None:
    if bit._value:
        bit.machine.interrupt()
    step(LOCK_BIT, bit)
    bit._value = 1


def trylock_bit(bit: Word) -> bool:
    log = step(TRYLOCK_BIT, bit)
    taken = bit._value == 0
    log.append(int(taken))
    bit._value = 1
    return taken


def unlock_bit(bit: Word) -> None:
    step(UNLOCK_BIT, bit)
    bit._value = 0
    if bit.machine.wakes:
        bit.machine.woke()


def wait_on_bit(bit: Word) -> None:
    if bit._value:
        bit.machine.interrupt()
    step(WAIT_BIT, bit)


class World:
    """The shared objects of a small program."""

    def __init__(self, m: Machine) -> None:
        self.m = m
        self.x, self.y, self.bit = (Word(m, name) for name in ("x", "y", "bit"))
        self.z = Word(m, "rcu")  # what a user calls a word says nothing
        self.spin = SpinLock(m, SPIN, "spin")
        self.mutex = Mutex(m, MUTEX, "mutex")
        self.sem = RwSem(m, SEM, "sem")
        self.queue = WaitQueue(m, QUEUE, "queue")

    def state(self) -> tuple[int, ...]:
        return self.x.peek(), self.y.peek(), self.bit.peek()


def _bug(w: World) -> None:
    if load(w.x) == 1:
        raise KernelBug("small-bug", "x is 1", "small")


def _warn(w: World) -> None:
    if load(w.y) > load(w.x):
        w.m.report("small-warn", "y is more than x", "small")


def _assert(w: World) -> None:
    assert fetch_add(w.y, 1) < 2


def _try(take: Callable[[], bool], inside: Callable[[], object], drop: Callable[[], None]) -> None:
    if take():
        inside()
        drop()


def _borrow(w: World, inside: Callable[[], object]) -> None:
    """Work on the CPU of the first task, or of the second."""
    task = w.m.tasks[2 if w.m.current is w.m.tasks[1] else 1]
    borrow_cpu(task)
    inside()
    return_cpu(task)


def _child(w: World) -> None:
    (child,) = w.m.spawn(lambda: fetch_add(w.x, 1))
    load(w.y)
    w.m.join(child)


def _make(w: World) -> None:
    word = Word(w.m, "own")
    if load(w.x) == 0:
        word = Word(w.m, "own")
    store(word, 1)


Action = Callable[[World], object]
ACTIONS: dict[str, tuple[Action, ...]] = {
    "word": (
        lambda w: load(w.x),
        lambda w: store(w.x, 1),
        lambda w: fetch_add(w.x, 1),
        lambda w: fetch_add(w.y, 2),
        lambda w: cmpxchg(w.x, 0, 2),
        lambda w: store(w.y, load(w.x) + 1),
        lambda w: store(w.z, load(w.z) + 1),
    ),
    "borrow": (
        lambda w: _borrow(w, lambda: load(w.x)),
        lambda w: _borrow(w, lambda: None),
        lambda w: (spin_lock(w.spin), store(w.x, 5), spin_unlock(w.spin)),
    ),
    "spin": (
        lambda w: (spin_lock(w.spin), fetch_add(w.x, 1), spin_unlock(w.spin)),
        lambda w: (spin_lock(w.spin), spin_unlock(w.spin)),
    ),
    "mutex": (
        lambda w: (mutex_lock(w.mutex), fetch_add(w.y, 1), mutex_unlock(w.mutex)),
        lambda w: (mutex_lock(w.mutex), spin_lock(w.spin), spin_unlock(w.spin)),
        lambda w: (spin_lock(w.spin), mutex_lock(w.mutex)),
    ),
    "trylock": (
        lambda w: _try(
            lambda: spin_trylock(w.spin), lambda: store(w.x, 3), lambda: spin_unlock(w.spin)
        ),
        lambda w: _try(
            lambda: mutex_trylock(w.mutex), lambda: load(w.y), lambda: mutex_unlock(w.mutex)
        ),
        lambda w: _try(lambda: down_read_trylock(w.sem), lambda: load(w.x), lambda: up_read(w.sem)),
        lambda w: _try(
            lambda: down_write_trylock(w.sem), lambda: None, lambda: downgrade_write(w.sem)
        ),
        lambda w: _try(lambda: trylock_bit(w.bit), lambda: load(w.x), lambda: unlock_bit(w.bit)),
    ),
    "rwsem": (
        lambda w: (down_read(w.sem), up_read(w.sem)),
        lambda w: (down_write(w.sem), up_write(w.sem)),
        lambda w: (down_write(w.sem), downgrade_write(w.sem), up_read(w.sem)),
        lambda w: (down_read(w.sem), load(w.x), up_read(w.sem)),
    ),
    "bit": (
        lambda w: (lock_bit(w.bit), unlock_bit(w.bit)),
        lambda w: (lock_bit(w.bit), load(w.x), unlock_bit(w.bit)),
        lambda w: wait_on_bit(w.bit),
    ),
    "queue": (
        lambda w: wait_event(w.queue, lambda: load(w.x) != 0),
        lambda w: (store(w.x, 1), wake_up_all(w.queue)),
        lambda w: wake_up_all(w.queue),
    ),
    "rcu": (
        lambda w: (rcu_read_lock(w.m), load(w.x), rcu_read_unlock(w.m)),
        lambda w: (rcu_read_lock(w.m), rcu_read_unlock(w.m)),
        lambda w: rcu_read_lock(w.m),
        lambda w: (synchronize_rcu(w.m), store(w.x, 0)),
        lambda w: (fetch_add(w.x, 1), synchronize_rcu(w.m)),
    ),
    "join": (_child,),
    "make": (_make,),
    "retry": (
        lambda w: load(w.x) or retry_when_changed((w.x, "_value")),
        lambda w: load(w.y) or retry_when_changed((w.x, "_value"), (w.y, "_value")),
        lambda w: store(w.x, 1),
        lambda w: fetch_add(w.y, 1),
    ),
    "findings": (_bug, _warn, _assert),
    "fault": (
        lambda w: store(w.x, 7) if w.m.fault("first") else load(w.y),
        lambda w: fetch_add(w.y, 4) if w.m.fault("second") else store(w.y, 0),
    ),
}


def observed(ran: Ran) -> object:
    """All that tasks have seen, whatever the order, and what the run has shown."""
    seen: dict[int, list[object]] = {}
    for event in decode(ran.machine.log):
        primitive = event.point.primitive
        seen.setdefault(event.task, []).append((str(primitive), event.results))
    tasks = tuple((task, tuple(events)) for task, events in sorted(seen.items()))
    state = ran.state if isinstance(ran.state, tuple) else None
    return tasks, state, tuple(sorted(ran.findings))


def small_program(
    seed: int, steps_max: int, kind: str | None = None
) -> tuple[MachineSubject, frozenset[str]]:
    """A random program, with the kinds of action in it; of one kind, another and words. Some forget
    to join their tasks: of the kind `forgets`."""
    rng = Random(seed)
    kinds = [*rng.sample(sorted(ACTIONS), 2), "word"]
    if kind is not None:
        kinds[0] = kind
    tasks: list[list[Action]] = [[] for _ in range(rng.choice((2, 2, 3)))]
    used = set()
    for task in tasks:
        for _ in range(rng.randint(1, steps_max if len(tasks) == 2 else 1)):
            kind = rng.choice(kinds)
            used.add(kind)
            task.append(rng.choice(ACTIONS[kind]))
    forgets = rng.random() < 0.15
    if forgets:
        used.add("forgets")
    world: list[World] = []

    def setup(m: Machine) -> Callable[[], object]:
        world[:] = [World(m)]

        def body(actions: list[Action]) -> Callable[[], None]:
            def run() -> None:
                for action in actions:
                    action(world[0])

            return run

        if forgets:
            return lambda: m.spawn(*map(body, tasks))
        return lambda: m.join(*m.spawn(*map(body, tasks)))

    return MachineSubject(setup, lambda: world[0].state()), frozenset(used)
