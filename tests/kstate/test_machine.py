"""The machine by itself: turns, locks, endings. No Linux."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from fuzz.schedulers import Default, Pct, RandomWalk
from kstate.machine import (
    GREENLETS,
    THREADS,
    Choices,
    ContextError,
    Deadlock,
    KernelBug,
    Machine,
    Mutex,
    MutexClass,
    RwSem,
    RwSemClass,
    Scheduler,
    SpinLock,
    SpinLockClass,
    StepLimit,
    Task,
    Turn,
    WaitQueue,
    WaitQueueClass,
    Word,
    choices_from_bytes,
    cmpxchg,
    dependent,
    down_read,
    down_read_trylock,
    down_write,
    fetch_add,
    load,
    mutex_lock,
    mutex_unlock,
    rcu_read_lock,
    rcu_read_unlock,
    retry_when_changed,
    spin_lock,
    spin_trylock,
    spin_unlock,
    store,
    synchronize_rcu,
    up_read,
    up_write,
    wait_event,
    wake_up_all,
    yield_point,
)
from kstate.machine.switch import Backend

LOCK, MUTEX, SEM, QUEUE = (
    SpinLockClass("lock"),
    MutexClass("mutex"),
    RwSemClass("sem"),
    WaitQueueClass("queue"),
)
SEEDED: tuple[Callable[[], Scheduler], ...] = (
    Default,
    RandomWalk,
    lambda: RandomWalk(run=5),
    lambda: Pct(depth=3, steps=20),
)


def draws(seed: int) -> Choices:
    from random import Random

    rng = Random(seed)
    return Choices(more=lambda: rng.getrandbits(16))


def lost_update(m: Machine, guarded: bool) -> Word:
    """Two tasks increment a word, with or without a lock."""
    word, lock = Word(m, "counter"), SpinLock(m, LOCK, "lock")

    def increment() -> None:
        if guarded:
            spin_lock(lock)
        store(word, load(word) + 1)
        if guarded:
            spin_unlock(lock)

    def root() -> None:
        m.join(*m.spawn(increment, increment))

    assert m.run(root) is None
    return word


def test_a_lost_update_is_found_without_the_lock_and_never_with_it() -> None:
    """Random walk at every step loses one with p > 0.2; 100 seeds all miss with p < 1e-9."""
    unguarded = {
        lost_update(Machine(RandomWalk(), draws(seed)), False).peek() for seed in range(100)
    }
    guarded = {lost_update(Machine(RandomWalk(), draws(seed)), True).peek() for seed in range(100)}
    assert unguarded == {1, 2}
    assert guarded == {2}


@pytest.mark.parametrize("make", SEEDED)
def test_the_all_zero_stream_is_the_default_run(make: Callable[[], Scheduler]) -> None:
    hashes = set()
    for scheduler in (Default(), make()):
        m = Machine(scheduler, Choices())
        lost_update(m, True)
        hashes.add(m.trace_hash())
    assert len(hashes) == 1


@pytest.mark.parametrize("backend", [GREENLETS, THREADS])
def test_deadlock_is_reported_with_its_cycle(backend: Backend) -> None:
    m = Machine(RandomWalk(), Choices([1] * 100), backend=backend)
    one, two = Mutex(m, MUTEX, "one"), Mutex(m, MUTEX, "two")

    def task(first: Mutex, second: Mutex) -> Callable[[], None]:
        def body() -> None:
            mutex_lock(first)
            mutex_lock(second)
            mutex_unlock(second)
            mutex_unlock(first)

        return body

    def root() -> None:
        m.join(*m.spawn(task(one, two), task(two, one)))

    ending = m.run(root)
    assert isinstance(ending, Deadlock)
    waits = {who: (what, by) for who, what, by in ending.waits}
    assert waits["cpu0"] == ("mutex_lock(mutex) of two", ["cpu1"])
    assert waits["cpu1"] == ("mutex_lock(mutex) of one", ["cpu0"])


def test_a_task_that_never_ends_meets_the_step_limit() -> None:
    m = Machine(Default(), steps_max=100)
    word = Word(m, "word")

    def root() -> None:
        while load(word) == 0:
            pass

    assert isinstance(m.run(root), StepLimit)
    assert m.steps == 100


def test_unlocking_what_one_does_not_hold_ends_the_run() -> None:
    m = Machine(Default())
    lock = SpinLock(m, LOCK, "lock")
    assert isinstance(m.run(lambda: spin_unlock(lock)), ContextError)


@pytest.mark.parametrize(
    "sleep",
    [
        lambda m: mutex_lock(Mutex(m, MUTEX, "m")),
        lambda m: down_read(RwSem(m, SEM, "s")),
        lambda m: down_write(RwSem(m, SEM, "s")),
        synchronize_rcu,
        lambda m: wait_event(WaitQueue(m, QUEUE, "q"), lambda: True),
    ],
)
def test_sleeping_under_a_spin_lock_is_reported_and_the_run_goes_on(
    sleep: Callable[[Machine], None],
) -> None:
    m = Machine(Default())
    lock = SpinLock(m, LOCK, "lock")

    def root() -> None:
        spin_lock(lock)
        sleep(m)
        spin_unlock(lock)

    assert m.run(root) is None
    assert [report.id for report in m.reports] == ["sleeping-in-atomic"]


def test_spin_trylock_fails_while_the_lock_is_held() -> None:
    m = Machine(Default())
    lock = SpinLock(m, LOCK, "lock")
    got: list[bool] = []

    def other() -> None:
        got.append(spin_trylock(lock))

    def root() -> None:
        got.append(spin_trylock(lock))
        m.join(*m.spawn(other))
        spin_unlock(lock)

    assert m.run(root) is None
    assert got == [True, False]


def test_a_queued_writer_blocks_later_readers_and_fails_their_trylock() -> None:
    """Only readers hold the semaphore (kernel/locking/rwsem-xadd.c: the count is negative)."""
    m = Machine(Default())
    sem = RwSem(m, SEM, "sem")
    order: list[str] = []

    def writer() -> None:
        down_write(sem)
        order.append("writer")
        up_write(sem)

    def reader() -> None:
        order.append(f"trylock {down_read_trylock(sem)}")
        down_read(sem)
        order.append("reader")
        up_read(sem)

    def holder() -> None:
        down_read(sem)
        m.spawn(writer)
        while not sem.queue:
            yield_point(m, "wait-for-the-writer-to-queue")
        m.spawn(reader)
        while len(sem.queue) < 2:
            yield_point(m, "wait-for-the-reader-to-queue")
        up_read(sem)

    def root() -> None:
        m.join(*m.spawn(holder))
        m.join(*m.tasks[1:])

    m.scheduler = RandomWalk()
    m.choices = draws(3)
    assert m.run(root) is None
    assert order == ["trylock False", "writer", "reader"]


def test_wait_queues_wake_whoever_waits() -> None:
    for seed in range(50):
        m = Machine(RandomWalk(), draws(seed))
        queue, flag = WaitQueue(m, QUEUE, "queue"), Word(m, "flag")

        def waiter(queue: WaitQueue = queue, flag: Word = flag) -> None:
            wait_event(queue, lambda: load(flag) == 1)

        def waker(queue: WaitQueue = queue, flag: Word = flag) -> None:
            store(flag, 1)
            wake_up_all(queue)

        assert m.run(lambda m=m, w=waiter, k=waker: m.join(*m.spawn(w, w, k))) is None


def test_synchronize_rcu_waits_for_readers_that_had_begun() -> None:
    for seed in range(50):
        m = Machine(RandomWalk(), draws(seed))
        pointer, freed = Word(m, "pointer", 1), Word(m, "freed")
        bad: list[int] = []

        def reader(m: Machine = m, pointer: Word = pointer, freed: Word = freed,
                   bad: list[int] = bad) -> None:  # fmt: skip
            rcu_read_lock(m)
            if load(pointer) and load(freed):
                bad.append(1)
            rcu_read_unlock(m)

        def writer(m: Machine = m, pointer: Word = pointer, freed: Word = freed) -> None:
            store(pointer, 0)
            synchronize_rcu(m)
            store(freed, 1)

        assert m.run(lambda m=m, r=reader, w=writer: m.join(*m.spawn(r, w))) is None
        assert not bad


def test_retry_when_changed_sleeps_until_the_word_is_stored() -> None:
    m = Machine(RandomWalk(), draws(1))
    word = Word(m, "word")

    def waiter() -> None:
        while load(word) == 0:
            if word.peek() == 0:
                retry_when_changed((word, "_value"))

    assert m.run(lambda: m.join(*m.spawn(waiter, lambda: store(word, 5)))) is None
    assert m.steps < 20


def test_atomics_are_atomic() -> None:
    for seed in range(30):
        m = Machine(RandomWalk(), draws(seed))
        word = Word(m, "word")

        def add(word: Word = word) -> None:
            fetch_add(word, 1)
            while (seen := load(word)) != cmpxchg(word, seen, seen + 10):
                pass

        assert m.run(lambda m=m, a=add: m.join(*m.spawn(a, a, a))) is None
        assert word.peek() == 33


def test_yield_at_asks_only_at_matching_points_and_leaves_the_hash_alone() -> None:
    asked: list[str] = []

    class Asked(Default):
        def pick(self, runnable, current, steps):  # type: ignore[no-untyped-def]
            if current is not None and current.point is not None:
                asked.append(current.point.name)
            return Turn(super().pick(runnable, current, steps).task, 1)

    hashes = set()
    for globs in (None, ["*store(counter)"]):
        asked.clear()
        m = Machine(Asked(), yield_at=globs)
        lost_update(m, True)
        hashes.add(m.trace_hash())
        if globs:
            assert asked
            assert all(name.endswith("store(counter)") for name in asked)
    assert len(hashes) == 1


def test_two_loads_commute_and_everything_else_on_one_word_conflicts() -> None:
    m = Machine(Default())
    lost_update(m, False)
    points = {event.point.primitive.name: event.point for event in m.events()}
    reads, writes = points["load"], points["store"]
    assert not dependent(reads, 7, reads, 7)
    assert dependent(reads, 7, writes, 7)
    assert dependent(writes, 7, writes, 7)
    assert not dependent(writes, 7, writes, 8)


def test_an_exception_in_a_task_reaches_the_caller() -> None:
    m = Machine(Default())

    def broken() -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        m.run(lambda: m.join(*m.spawn(broken)))


def test_choices_are_cut_from_bytes_by_their_bounds() -> None:
    assert choices_from_bytes(b"\x05\x01\x02\x09", [3, 300, 256, 2]) == [5, 258, 9]
    choices = Choices([5, 7])
    assert [choices.choose(3), choices.choose(4), choices.choose(9)] == [2, 3, 0]
    assert choices.choose(2, "faults") == 0


def test_who_ended_the_run_is_known_when_it_is_over() -> None:
    """Though the others were unwound after it."""
    m = Machine(Default())
    lock = Mutex(m, MUTEX, "lock")

    def waits() -> None:
        mutex_lock(lock)

    def breaks() -> None:
        raise KernelBug("bug-of-ours", "BUG", "here")

    def root() -> None:
        mutex_lock(lock)
        m.join(*m.spawn(waits, waits, breaks))

    assert isinstance(m.run(root), KernelBug)
    assert m.current.name == "cpu2"


@pytest.mark.parametrize("backend", [GREENLETS, THREADS])
def test_a_scheduler_that_fails_where_a_task_ends_leaves_nothing_behind(backend: Backend) -> None:
    class Fails(Default):
        every_step = True

        def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
            if current is None and steps > 4:
                raise ValueError("no idea")
            return super().pick(runnable, current, steps)

    def program(scheduler: Scheduler) -> Machine:
        machine = Machine(scheduler, backend=backend)
        word = Word(machine, "x")
        machine.run(
            lambda: machine.join(
                *machine.spawn(lambda: fetch_add(word, 1), lambda: fetch_add(word, 2))
            )
        )
        assert word.peek() == 3
        return machine

    first = program(Default()).trace_hash()
    for _ in range(3):
        with pytest.raises(ValueError, match="no idea"):
            program(Fails())
        assert program(Default()).trace_hash() == first
