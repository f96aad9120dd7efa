"""What orders two accesses and what does not; and ktsan's report on vm_flags, from our run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from fuzz.callchain import CallChains
from fuzz.corpus import races_folder, read_program
from fuzz.datarace import PLAIN, DataRace, data_races, spell, watched_data_races
from fuzz.run import run
from fuzz.schedulers import Default
from kstate.machine import (
    Machine,
    Mutex,
    MutexClass,
    RwSem,
    RwSemClass,
    SpinLock,
    SpinLockClass,
    WaitQueue,
    WaitQueueClass,
    Word,
    down_read,
    down_write,
    downgrade_write,
    fetch_add,
    load,
    mutex_lock,
    mutex_trylock,
    mutex_unlock,
    rcu_read_lock,
    rcu_read_unlock,
    spin_lock,
    spin_unlock,
    store,
    synchronize_rcu,
    up_read,
    up_write,
    wait_event,
    wake_up_all,
)

MUTEX, SPIN, SEM = MutexClass("m"), SpinLockClass("s"), RwSemClass("sem")
QUEUE = WaitQueueClass("q")
RACES = races_folder()


class World:
    """A machine with one of everything. `run` starts two tasks and joins them; cpu0 runs first,
    until it blocks or ends."""

    def __init__(self) -> None:
        self.machine = Machine(Default())
        self.word = Word(self.machine, "word")
        self.flag = Word(self.machine, "flag")
        self.mutex = Mutex(self.machine, MUTEX, "mutex")
        self.spin = SpinLock(self.machine, SPIN, "spin")
        self.sem = RwSem(self.machine, SEM, "sem")
        self.queue = WaitQueue(self.machine, QUEUE, "queue")

    def run(self, first: Callable[[World], object], second: Callable[[World], object]) -> None:
        def root() -> None:
            store(self.word, 1)  # before spawn: races with nobody
            self.machine.join(*self.machine.start(lambda: first(self), lambda: second(self)))
            store(self.word, 9)  # after join

        assert self.machine.run(root) is None


def races(first: Callable[[World], object], second: Callable[[World], object]) -> list[DataRace]:
    world = World()
    world.run(first, second)
    return [race for race in data_races(world.machine) if race.word == "word"]


def write(world: World) -> None:
    store(world.word, 2)


def read(world: World) -> None:
    load(world.word)


def around(take: Callable[[World], object], drop: Callable[[World], object]):  # type: ignore[no-untyped-def]
    def wrap(act: Callable[[World], None]) -> Callable[[World], None]:
        def both(world: World) -> None:
            take(world)
            act(world)
            drop(world)

        return both

    return wrap


in_mutex = around(lambda w: mutex_lock(w.mutex), lambda w: mutex_unlock(w.mutex))
in_spin = around(lambda w: spin_lock(w.spin), lambda w: spin_unlock(w.spin))
as_reader = around(lambda w: down_read(w.sem), lambda w: up_read(w.sem))
as_writer = around(lambda w: down_write(w.sem), lambda w: up_write(w.sem))
in_rcu = around(lambda w: rcu_read_lock(w.machine), lambda w: rcu_read_unlock(w.machine))
downgraded = around(
    lambda w: (down_write(w.sem), store(w.word, 3), downgrade_write(w.sem)),
    lambda w: up_read(w.sem),
)


def failed_trylock(world: World) -> None:
    assert mutex_trylock(world.mutex)
    mutex_unlock(world.mutex)
    read(world)


def publish(world: World) -> None:
    write(world)
    fetch_add(world.flag, 1)


def consume(world: World) -> None:
    fetch_add(world.flag, 0)
    read(world)


def publish_plainly(world: World) -> None:
    write(world)
    store(world.flag, 1)


def consume_plainly(world: World) -> None:
    load(world.flag)
    read(world)


def sleep(world: World) -> None:
    wait_event(world.queue, lambda: world.flag.peek() == 1)
    read(world)


def wake(world: World) -> None:
    write(world)
    fetch_add(world.flag, 1)
    wake_up_all(world.queue)


def update(world: World) -> None:
    synchronize_rcu(world.machine)
    write(world)


def then_synchronize(world: World) -> None:
    write(world)
    synchronize_rcu(world.machine)


@pytest.mark.parametrize(
    ("first", "second", "ordered"),
    [
        (write, read, False),
        (read, write, False),
        (write, write, False),
        (read, read, True),
        (in_mutex(write), in_mutex(read), True),
        (in_spin(write), in_spin(write), True),
        (in_mutex(write), in_spin(read), False),
        (in_mutex(write), read, False),
        (in_mutex(write), failed_trylock, True),
        (as_writer(write), as_reader(read), True),
        (as_reader(read), as_writer(write), True),
        (as_reader(write), as_reader(read), False),
        (downgraded(read), as_reader(read), True),
        (downgraded(write), as_reader(read), False),
        (publish, consume, True),
        (publish_plainly, consume_plainly, False),
        (sleep, wake, True),
        (in_rcu(read), update, True),
        (in_rcu(read), write, False),
        (then_synchronize, in_rcu(read), True),
        (then_synchronize, read, False),
        (in_rcu(write), in_rcu(read), False),
    ],
)
def test_what_orders_two_accesses(
    first: Callable[[World], None], second: Callable[[World], None], ordered: bool
) -> None:
    assert (races(first, second) == []) == ordered


def test_a_report_says_who_where_and_under_what() -> None:
    (race,) = races(in_mutex(write), in_spin(read))
    assert (race.first.kind, race.second.kind) == ("write", "read")
    assert (race.first.cpu, race.second.cpu) == ("cpu0", "cpu1")
    assert (race.first.locks, race.second.locks) == (("m of mutex",), ("s of spin",))
    assert (race.first.function, race.second.function) == ("write", "read")
    assert (race.object, race.times) == ("word", 1)


def vm_flags(race: str) -> list[DataRace]:
    program = read_program(RACES / f"{race}.prog")
    return [r for r in watched_data_races(program, "v4.3") if r.word == "vm_flags"]


@pytest.mark.parametrize("name", ["2b-i-munlock", "2b-i-reclaim"])
def test_v43_lists_vm_flags_as_ktsan_did(name: str) -> None:
    """Written in munlock_vma_pages_range, called from exit_mmap, with no lock held; read by the
    rmap walk of another task."""
    pairs = {}
    for race in vm_flags(name):
        sides = sorted((race.first, race.second), key=lambda side: side.kind)
        pairs[sides[0].function, sides[1].function] = sides
    reader, writer = pairs["try_to_unmap_one", "munlock_vma_pages_range"]
    assert (reader.kind, reader.how) == ("read", PLAIN)
    assert (writer.kind, writer.how) == ("write", PLAIN)
    assert writer.chain[-2:] == ("exit_mmap", "munlock_vma_pages_range")
    assert writer.operation.endswith(" exit")
    assert writer.locks == ()
    assert "try_to_unmap_one" in reader.chain
    assert any(lock.startswith("page lock of page") for lock in reader.locks)
    assert any(lock.startswith("ptl@") for lock in reader.locks)
    assert reader.cpu != writer.cpu


def test_watching_and_reporting_change_nothing() -> None:
    program = read_program(RACES / "2b-i-munlock.prog")
    plain = run(program, "v4.3")
    chains = CallChains(lambda primitive: True)
    watched = run(program, "v4.3", observers=(chains,))
    before = plain.trace_hash
    unwatched = data_races(plain.machine)
    assert watched.trace_hash == before == plain.trace_hash
    assert [r.first.point for r in unwatched] == [
        r.first.point for r in data_races(watched.machine, chains.by_log_at)
    ]
    assert unwatched == data_races(plain.machine)
    assert plain.ids == {"mlocked-page-leak"}


def test_the_flag_changes_no_verdict_and_prints_text_and_json() -> None:
    command = [sys.executable, "-m", "fuzz", "replay", str(RACES / "2b-i-munlock.prog")]
    text = subprocess.run([*command, "--data-races"], capture_output=True, text=True, check=True)
    assert text.stdout.count("ok  ") == 4
    head = "data race in try_to_unmap_one / munlock_vma_pages_range: vm_flags of vma@A:0"
    assert head in text.stdout
    assert "called from munlock_vma_pages_range < exit_mmap < mmput" in text.stdout
    json_lines = subprocess.run(
        [*command, "--data-races", "--json", "--kernel", "v4.3"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    record = json.loads(json_lines[0])
    assert record["expected"] is True
    assert {race["word"] for race in record["data_races"]} >= {"vm_flags"}
    writer = record["data_races"][0]["second"]
    assert writer["chain"][-2:] == ["exit_mmap", "munlock_vma_pages_range"]


def test_test_bit_is_said_to_be_one() -> None:
    listed = watched_data_races(read_program(RACES / "2b-i-munlock.prog"), "v4.3")
    by_bit = [race for race in listed if race.by_test_bit]
    assert by_bit
    assert all(race.word.startswith("flags.") for race in by_bit)
    assert all("written atomically" in spell(race) for race in by_bit)
    assert listed.index(by_bit[0]) == len(listed) - len(by_bit)  # the plain ones come first
