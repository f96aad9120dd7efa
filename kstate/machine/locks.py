"""Locks: spin locks, mutexes, rwsems, wait queues and RCU read sections.

A lock class is made once and names its points; a lock is an instance on one machine. Locks block
on a condition, they never spin: who cannot take a lock is not runnable until it is free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kstate.machine.machine import Machine, atomic_context, context_error, might_sleep
from kstate.machine.points import LOAD, Primitive
from kstate.machine.switch import step

if TYPE_CHECKING:
    from kstate.machine.task import Task


def _free(lock: SpinLock | Mutex, task: Task) -> bool:
    return lock.owner is None


def _owner(lock: SpinLock | Mutex, task: Task) -> list[Task]:
    return [lock.owner] if lock.owner is not None else []


class SpinLockClass:
    """All spin locks of one kind, such as every `ptl`.

    irq: it is taken with interrupts off (spin_lock_irq)."""

    __slots__ = ("irq", "lock", "name", "trylock", "unlock")

    def __init__(self, name: str, *, irq: bool = False) -> None:
        self.name = name
        self.irq = irq
        suffix = "_irq" if irq else ""
        self.lock = Primitive(f"spin_lock{suffix}", name, ready=_free, holders=_owner)
        self.trylock = Primitive("spin_trylock", name, results=1)
        self.unlock = Primitive(f"spin_unlock{suffix}", name)


class SpinLock:
    """A spin lock. Its holder may not sleep; a holder can be preempted by other CPUs' steps."""

    __slots__ = ("_label", "id", "kind", "machine", "owner")

    def __init__(self, machine: Machine, kind: SpinLockClass, label: str) -> None:
        self.machine = machine
        self.kind = kind
        self._label = label
        self.owner: Task | None = None
        self.id = machine.register(self)

    def label(self) -> str:
        return self._label


def spin_lock(lock: SpinLock) -> None:
    machine = lock.machine
    if lock.owner is not None:
        machine.interrupt()
    step(lock.kind.lock, lock)
    task = lock.owner = machine.current
    task.preempt_count += 1


def spin_trylock(lock: SpinLock) -> bool:
    log = step(lock.kind.trylock, lock)
    if lock.owner is not None:
        log.append(0)
        return False
    log.append(1)
    task = lock.owner = lock.machine.current
    task.preempt_count += 1
    return True


def spin_unlock(lock: SpinLock) -> None:
    machine = lock.machine
    task = machine.current
    if lock.owner is not task:
        raise context_error(f"{task.name} unlocks {lock.label()}, which it does not hold")
    step(lock.kind.unlock, lock)
    lock.owner = None
    task.preempt_count -= 1
    if machine.wakes:
        machine.woke()


def spin_lock_irq(lock: SpinLock) -> None:
    machine = lock.machine
    if lock.owner is not None:
        machine.interrupt()
    step(lock.kind.lock, lock)
    task = lock.owner = machine.current
    task.preempt_count += 1
    task.irqs_off += 1


def spin_unlock_irq(lock: SpinLock) -> None:
    machine = lock.machine
    task = machine.current
    if lock.owner is not task or not task.irqs_off:
        raise context_error(f"{task.name} unlocks {lock.label()}, which it does not hold")
    step(lock.kind.unlock, lock)
    lock.owner = None
    task.preempt_count -= 1
    task.irqs_off -= 1
    if machine.wakes:
        machine.woke()


def local_irq_enable(machine: Machine) -> None:
    """Interrupts on again after an irq lock was dropped with spin_unlock. No step."""
    machine.current.irqs_off -= 1


class MutexClass:
    """All mutexes of one kind."""

    __slots__ = ("lock", "name", "trylock", "unlock")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = Primitive("mutex_lock", name, ready=_free, holders=_owner)
        self.trylock = Primitive("mutex_trylock", name, results=1)
        self.unlock = Primitive("mutex_unlock", name)


class Mutex:
    """A sleeping lock with an owner."""

    __slots__ = ("_label", "id", "kind", "machine", "owner")

    def __init__(self, machine: Machine, kind: MutexClass, label: str) -> None:
        self.machine = machine
        self.kind = kind
        self._label = label
        self.owner: Task | None = None
        self.id = machine.register(self)

    def label(self) -> str:
        return self._label


def mutex_lock(lock: Mutex) -> None:
    machine = lock.machine
    if machine.current.preempt_count or machine.current.rcu_depth:
        might_sleep(machine, f"mutex_lock({lock.kind.name})")
    if lock.owner is not None:
        machine.interrupt()
    step(lock.kind.lock, lock)
    lock.owner = machine.current


def mutex_trylock(lock: Mutex) -> bool:
    log = step(lock.kind.trylock, lock)
    if lock.owner is not None:
        log.append(0)
        return False
    log.append(1)
    lock.owner = lock.machine.current
    return True


def mutex_unlock(lock: Mutex) -> None:
    machine = lock.machine
    if lock.owner is not machine.current:
        raise context_error(f"{machine.current.name} unlocks {lock.label()}, not its holder")
    step(lock.kind.unlock, lock)
    lock.owner = None
    if machine.wakes:
        machine.woke()


def _read_granted(sem: RwSem, task: Task) -> bool:
    """Whoever released it has made this queued reader an active one. It may be one already."""
    return (task, False) not in sem.queue


def _write_grantable(sem: RwSem, task: Task) -> bool:
    """Nobody is active and it is the first in the queue."""
    return sem.writer is None and not sem.readers and sem.queue[0][0] is task


def _sem_holders(sem: RwSem, task: Task) -> list[Task]:
    before = []
    for waiter, _ in sem.queue:
        if waiter is task:
            break
        before.append(waiter)
    return ([sem.writer] if sem.writer is not None else list(sem.readers)) + before


class RwSemClass:
    """All rw_semaphores of one kind, such as every `mmap_sem`."""

    __slots__ = (
        "down_read",
        "down_read_trylock",
        "down_write",
        "down_write_trylock",
        "downgrade_write",
        "is_locked",
        "name",
        "read_granted",
        "up_read",
        "up_write",
        "write_granted",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.down_read = Primitive("down_read", name, results=1)
        self.down_write = Primitive("down_write", name, results=1)
        self.read_granted = Primitive(
            "down_read_granted", name, ready=_read_granted, holders=_sem_holders
        )
        self.write_granted = Primitive(
            "down_write_granted", name, ready=_write_grantable, holders=_sem_holders
        )
        self.down_read_trylock = Primitive("down_read_trylock", name, results=1)
        self.down_write_trylock = Primitive("down_write_trylock", name, results=1)
        self.up_read = Primitive("up_read", name)
        self.up_write = Primitive("up_write", name)
        self.downgrade_write = Primitive("downgrade_write", name)
        self.is_locked = Primitive("rwsem_is_locked", name, LOAD, results=1)


class RwSem:
    """A sleeping reader-writer semaphore, first come first served.

    Source: kernel/locking/rwsem-xadd.c, v4.3. A contended acquisition is two events: it joins the
    queue, then it is granted. A queued writer blocks later readers and fails read trylocks, though
    only readers hold the semaphore; readers at the head of the queue are active as soon as a writer
    has released it, before they run.
    Left out: optimistic spinning and lock stealing by a writer that has not queued.
    """

    __slots__ = ("_label", "id", "kind", "machine", "queue", "readers", "writer")

    def __init__(self, machine: Machine, kind: RwSemClass, label: str) -> None:
        self.machine = machine
        self.kind = kind
        self._label = label
        self.readers: list[Task] = []
        self.writer: Task | None = None
        self.queue: list[tuple[Task, bool]] = []
        self.id = machine.register(self)

    def label(self) -> str:
        return self._label


def down_read(sem: RwSem) -> None:
    machine = sem.machine
    task = machine.current
    if task.preempt_count or task.rcu_depth:
        might_sleep(machine, f"down_read({sem.kind.name})")
    log = step(sem.kind.down_read, sem)
    if sem.writer is None and not sem.queue:
        log.append(1)
        sem.readers.append(task)
        return
    log.append(0)
    sem.queue.append((task, False))
    machine.interrupt()
    step(sem.kind.read_granted, sem)


def down_read_trylock(sem: RwSem) -> bool:
    log = step(sem.kind.down_read_trylock, sem)
    if sem.writer is not None or sem.queue:
        log.append(0)
        return False
    log.append(1)
    sem.readers.append(sem.machine.current)
    return True


def up_read(sem: RwSem) -> None:
    machine = sem.machine
    task = machine.current
    if task not in sem.readers:
        raise context_error(f"{task.name} releases {sem.label()}, which it does not hold for read")
    step(sem.kind.up_read, sem)
    sem.readers.remove(task)
    if machine.wakes:
        machine.woke()


def down_write(sem: RwSem) -> None:
    machine = sem.machine
    task = machine.current
    if task.preempt_count or task.rcu_depth:
        might_sleep(machine, f"down_write({sem.kind.name})")
    log = step(sem.kind.down_write, sem)
    if sem.writer is None and not sem.readers and not sem.queue:
        log.append(1)
        sem.writer = task
        return
    log.append(0)
    waiter = (task, True)
    sem.queue.append(waiter)
    if not _write_grantable(sem, task):
        machine.interrupt()
    step(sem.kind.write_granted, sem)
    sem.queue.remove(waiter)
    sem.writer = task


def down_write_trylock(sem: RwSem) -> bool:
    log = step(sem.kind.down_write_trylock, sem)
    if sem.writer is not None or sem.readers or sem.queue:
        log.append(0)
        return False
    log.append(1)
    sem.writer = sem.machine.current
    return True


def up_write(sem: RwSem) -> None:
    machine = sem.machine
    if sem.writer is not machine.current:
        raise context_error(f"{machine.current.name} releases {sem.label()}, not held for write")
    step(sem.kind.up_write, sem)
    sem.writer = None
    while sem.queue and not sem.queue[0][1]:
        sem.readers.append(sem.queue.pop(0)[0])
    if machine.wakes:
        machine.woke()


def downgrade_write(sem: RwSem) -> None:
    """The writer becomes a reader; readers at the head of the queue are let in with it."""
    machine = sem.machine
    task = machine.current
    if sem.writer is not task:
        raise context_error(f"{task.name} downgrades {sem.label()}, not held for write")
    step(sem.kind.downgrade_write, sem)
    sem.writer = None
    sem.readers.append(task)
    while sem.queue and not sem.queue[0][1]:
        sem.readers.append(sem.queue.pop(0)[0])
    if machine.wakes:
        machine.woke()


def rwsem_is_locked(sem: RwSem) -> bool:
    """Somebody holds it, or waits for it."""
    log = step(sem.kind.is_locked, sem)
    locked = sem.writer is not None or bool(sem.readers or sem.queue)
    log.append(locked)
    return locked


def _woken(queue: WaitQueue, task: Task) -> bool:
    return task.woken


class WaitQueueClass:
    """All wait queues of one kind."""

    __slots__ = ("finish", "name", "prepare", "schedule", "wake")

    def __init__(self, name: str) -> None:
        self.name = name
        self.prepare = Primitive("prepare_to_wait", name)
        self.schedule = Primitive("schedule", name, ready=_woken)
        self.finish = Primitive("finish_wait", name)
        self.wake = Primitive("wake_up_all", name, results=1)


class WaitQueue:
    """Tasks that sleep until somebody wakes them."""

    __slots__ = ("_label", "id", "kind", "machine", "waiters")

    def __init__(self, machine: Machine, kind: WaitQueueClass, label: str) -> None:
        self.machine = machine
        self.kind = kind
        self._label = label
        self.waiters: list[Task] = []
        self.id = machine.register(self)

    def label(self) -> str:
        return self._label


def wait_event(queue: WaitQueue, condition: Callable[[], bool]) -> None:
    """Sleep on `queue` until `condition()` holds; it is tested after joining the queue."""
    machine = queue.machine
    task = machine.current
    if atomic_context(task):
        might_sleep(machine, f"wait_event({queue.kind.name})")
    while True:
        step(queue.kind.prepare, queue)
        task.woken = False
        queue.waiters.append(task)
        if condition():
            step(queue.kind.finish, queue)
            if task in queue.waiters:
                queue.waiters.remove(task)
            return
        if not task.woken:
            machine.interrupt()
        step(queue.kind.schedule, queue)


def wake_up_all(queue: WaitQueue) -> None:
    machine = queue.machine
    log = step(queue.kind.wake, queue)
    log.append(len(queue.waiters))
    for task in queue.waiters:
        task.woken = True
    queue.waiters.clear()
    if machine.wakes:
        machine.woke()


RCU_READ_LOCK = Primitive("rcu_read_lock", "rcu")
RCU_READ_UNLOCK = Primitive("rcu_read_unlock", "rcu")
SYNCHRONIZE_RCU = Primitive("synchronize_rcu", "rcu")


def _grace_period_over(machine: Machine, task: Task) -> bool:
    return not _readers_left(machine, task)


def _readers_left(machine: Machine, task: Task) -> list[Task]:
    return [
        reader
        for reader, _, section in task.watched
        if reader.rcu_depth and reader.rcu_sections == section and not reader.ended
    ]


GRACE_PERIOD = Primitive(
    "synchronize_rcu_done",
    "rcu",
    ready=_grace_period_over,
    holders=_readers_left,
)


def rcu_read_lock(machine: Machine) -> None:
    step(RCU_READ_LOCK, machine)
    task = machine.current
    task.rcu_sections += task.rcu_depth == 0
    task.rcu_depth += 1


def rcu_read_unlock(machine: Machine) -> None:
    if not machine.current.rcu_depth:
        raise context_error(f"{machine.current.name} is in no RCU read-side section")
    step(RCU_READ_UNLOCK, machine)
    machine.current.rcu_depth -= 1
    if machine.wakes:
        machine.woke()


def synchronize_rcu(machine: Machine) -> None:
    """Wait until every read section that was running when it was called has ended."""
    task = machine.current
    if atomic_context(task):
        might_sleep(machine, "synchronize_rcu")
    step(SYNCHRONIZE_RCU, machine)
    task.watched = tuple((t, "rcu_depth", t.rcu_sections) for t in machine.tasks if t.rcu_depth)
    if not _grace_period_over(machine, task):
        machine.interrupt()
    step(GRACE_PERIOD, machine)
    task.watched = ()


def preempt_disable(machine: Machine) -> None:
    """Nobody else's work on this CPU from here on. Not a step: no other CPU can tell."""
    machine.current.preempt_count += 1


def preempt_enable(machine: Machine) -> None:
    machine.current.preempt_count -= 1
    if machine.wakes:
        machine.woke()
