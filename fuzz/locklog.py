"""Locks in the log of a run: what each step takes or drops, and who holds what at any moment.

Read from the log alone, so that a run that is over can be asked, and nothing is changed by asking.
"""

from __future__ import annotations

from dataclasses import dataclass

from kstate.machine import Event, Machine, Point

TAKE, DROP, QUEUE, WAIT, DOWNGRADE = "take", "drop", "queue", "wait", "downgrade"


@dataclass(frozen=True)
class LockAction:
    """What a primitive does to its lock.

    act: TAKE, DROP, DOWNGRADE; QUEUE: it takes the lock, or joins its queue where its result is 0;
    WAIT: until it is free, without taking it. shared: as a reader. tries: it takes it only where
    its result is not 0, and never waits. waits: it may wait, so that the order of locks matters.
    irq: with interrupts off.
    """

    act: str
    shared: bool = False
    tries: bool = False
    waits: bool = False
    irq: bool = False


ACTIONS: dict[str, LockAction] = {
    "spin_lock": LockAction(TAKE, waits=True),
    "spin_lock_irq": LockAction(TAKE, waits=True, irq=True),
    "spin_trylock": LockAction(TAKE, tries=True),
    "spin_unlock": LockAction(DROP),
    "spin_unlock_irq": LockAction(DROP),
    "mutex_lock": LockAction(TAKE, waits=True),
    "mutex_trylock": LockAction(TAKE, tries=True),
    "mutex_unlock": LockAction(DROP),
    "down_read": LockAction(QUEUE, shared=True, waits=True),
    "down_read_granted": LockAction(TAKE, shared=True),
    "down_read_trylock": LockAction(TAKE, shared=True, tries=True),
    "up_read": LockAction(DROP, shared=True),
    "down_write": LockAction(QUEUE, waits=True),
    "down_write_granted": LockAction(TAKE),
    "down_write_trylock": LockAction(TAKE, tries=True),
    "up_write": LockAction(DROP),
    "downgrade_write": LockAction(DOWNGRADE),
    "lock_page": LockAction(TAKE, waits=True),
    "set_page_locked": LockAction(TAKE),  # of a page nobody else can find: never waits
    "trylock_page": LockAction(TAKE, tries=True),
    "unlock_page": LockAction(DROP),
    "wait_on_page_locked": LockAction(WAIT, waits=True),
}
PAGE_LOCK = "page lock"
_NAMES = {"flags.locked": PAGE_LOCK}


def class_of(point: Point) -> str:
    """The class of lock a point works on: `ptl`; the page lock by its name, not its bit's."""
    word = point.primitive.word
    return _NAMES.get(word, word)


def label_of(machine: Machine, name: str, object: int) -> str:
    """Which lock: `ptl@A`, or `page lock of page0` where the object's label does not name it."""
    label = machine.objects[object].label()
    return label if label.partition("@")[0] == name else f"{name} of {label}"


@dataclass(frozen=True)
class Held:
    """A lock somebody holds. name: its class. object: which one. at: where it was taken."""

    name: str
    object: int
    shared: bool
    irq: bool
    at: Point


@dataclass(frozen=True)
class Wanted:
    """A lock somebody takes, or would. action: how. held: what it held already, oldest first."""

    name: str
    object: int
    action: LockAction
    at: Point
    held: tuple[Held, ...]

    @property
    def irqs_off(self) -> bool:
        """Are interrupts off with it?"""
        return self.action.irq or any(lock.irq for lock in self.held)


class LockLog:
    """Who holds what, event by event.

    A page lock may be dropped by a task that did not take it; then it is taken from its holder.
    Not seen: local_irq_enable, which is no step; interrupts count as off for as long as a lock
    that was taken with them off is held.
    """

    def __init__(self) -> None:
        self._held: dict[int, list[Held]] = {}

    def held(self, task: int) -> tuple[Held, ...]:
        return tuple(self._held.get(task, ()))

    def see(self, event: Event) -> Wanted | None:
        """Account for one event. Returns the lock it takes or would take, if that is what it is."""
        action = ACTIONS.get(event.point.primitive.name)
        if action is None:
            return None
        name = class_of(event.point)
        if action.act in (DROP, DOWNGRADE):
            dropped = self._drop(event.task, name, event.operand)
            if dropped is not None and action.act == DOWNGRADE:
                kept = Held(name, event.operand, True, dropped.irq, dropped.at)
                self._held.setdefault(event.task, []).append(kept)
            return None
        mine = self._held.setdefault(event.task, [])
        wanted = Wanted(name, event.operand, action, event.point, tuple(mine))
        missed = (action.tries or action.act == QUEUE) and event.results[0] == 0
        if not missed and action.act != WAIT:
            mine.append(Held(name, event.operand, action.shared, action.irq, event.point))
        return wanted

    def _drop(self, task: int, name: str, object: int) -> Held | None:
        for holder in (task, *self._held):
            locks = self._held.get(holder, [])
            for at in reversed(range(len(locks))):
                if locks[at].object == object and locks[at].name == name:
                    return locks.pop(at)
        return None
